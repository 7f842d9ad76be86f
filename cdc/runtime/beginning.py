"""Beginning: where a sink's task starts in each journal, and that its target says the same.

A target that keeps the offset with its rows knows best; else it is the runtime's; a new sink
begins as ``start.from`` says. A target that keeps one offset for several journals keeps none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cdc.api import NOT_KEPT
from cdc.errors import LogError
from cdc.log.identity import identity_of
from cdc.log.places import newest_snapshot

if TYPE_CHECKING:
    from cdc.api import Reader, SinkTask
    from cdc.runtime.identities import Identities
    from cdc.runtime.offsets import Offsets, Stored

log = logging.getLogger(__name__)


class Beginning:
    """For one sink's task; ``find`` at each of its starts."""

    def __init__(
        self,
        task: SinkTask,
        connector: str,
        readers: Mapping[str, Reader],
        identities: Identities,
        *,
        start_from: str = "",
        new_target: bool = False,
    ) -> None:
        self._task, self._connector, self._readers = task, connector, readers
        self._identities, self._start_from = identities, start_from
        self._new_target = new_target
        self._keeps = False  # the target keeps an offset of each journal read
        self._is_empty = False  # the target keeps nothing of this connector

    def offset_for_target(self, offset: int) -> int:
        """What a target is given to keep at an offset of the journal at work."""
        return offset if self._keeps else NOT_KEPT

    def find(self, offsets: Offsets, turned: Callable[[str], None]) -> dict[str, int]:
        """The next offset by journal, which the target then keeps too.

        The task was started. ``turned`` is called when it has turned to a journal first.
        """
        offsets.settle()
        stored = offsets.load()
        kept, identity = self._task.stored_offset(), self._task.stored_identity()
        self._is_empty = kept is None
        places: dict[str, int] = {}
        new: set[str] = set()  # journals whose identity the target did not keep
        self._keeps = len(self._readers) == 1
        old = (
            ()
            if kept in (None, NOT_KEPT)
            else tuple(name for name in self._readers if self._is_of(name, stored, identity))
        )
        for journal, reader in self._readers.items():
            if journal in stored and stored[journal].seek:
                offsets.note_replay(journal, reader.bounds()[1])
        for journal in sorted(self._readers, key=lambda name: name not in old):
            reader, unnamed = self._readers[journal], journal in old
            each = self._task.turn_to(journal, unnamed=unnamed)
            if not places:
                self._keeps = each or self._keeps
                self._identities.begin(keeps=self._keeps)
            turned(journal)
            own = self._own(each=each, unnamed=unnamed)
            if self._identities.check(journal, stored.get(journal), own):
                new.add(journal)
            places[journal] = self._seek(journal, reader, stored.get(journal), own)
        for journal, at in places.items():
            self._task.turn_to(journal)
            self._identities.adopt(journal)
            self._tell(at, new=journal in new)
        if self._task.keeps_offset and not self._keeps and places:
            log.warning(
                "the target keeps one offset, and there are %d journals (%s): delivery is at least"
                " once; name one of them as source, and use one sink for each",
                len(places), ", ".join(sorted(places)),
            )  # fmt: skip
        return places

    def _is_of(self, journal: str, stored: Mapping[str, Stored], identity: str | None) -> bool:
        """Whether an offset that was kept without a journal's name is this one's."""
        if len(self._readers) == 1:
            return not stored or journal in stored
        if identity is not None:
            return identity == identity_of(self._readers[journal].path)
        return set(stored) == {journal}

    def _own(self, *, each: bool, unnamed: bool) -> int | None:
        """The target's offset, unless it speaks of another journal than the one read now."""
        kept = self._task.stored_offset()
        if kept == NOT_KEPT or not (each or (self._keeps and unnamed)):
            return None
        return kept

    def _tell(self, at: int, *, new: bool) -> None:
        """Make the target's own offset say the same."""
        kept, given = self._task.stored_offset(), self.offset_for_target(at)
        if kept is None:
            if self._task.keeps_offset:  # so that an emptied target is told from a new one
                self._task.flush(given)
        elif kept != given:
            self._task.flush(NOT_KEPT)  # what it keeps is of another journal
            self._task.flush(given)
        elif new:
            self._task.flush(given)

    def _seek(self, journal: str, reader: Reader, stored: Stored | None, own: int | None) -> int:
        """Where to begin with one journal."""
        if stored is not None and stored.seek:
            at = stored.offset
            if at is None:
                at = self._moved(stored)
            if at is None:
                at = self._begin(journal, reader)
            self._task.seek(self.offset_for_target(at), stored.epoch)
            if self._keeps and self._task.stored_offset() not in (None, at):
                raise LogError(
                    f"{self._connector}: the target kept offset"
                    f" {self._task.stored_offset()} when it was to move to {at}: it was moved"
                    " before under another data folder",
                    remedy="Move it again, or remove its offset at the target.",
                )
            return at
        if own is not None:
            return own
        if stored is not None and stored.offset is not None:
            self._check_target(stored.offset)
            return stored.offset
        return self._begin(journal, reader)

    def _moved(self, stored: Stored) -> int | None:
        """Where the target went by this very move, when we died before that was noted here."""
        kept, epoch = self._task.stored_offset(), self._task.stored_epoch()
        return kept if self._keeps and kept != NOT_KEPT and epoch == stored.epoch else None

    def _check_target(self, offset: int) -> None:
        """A target that kept our offset and has none now was emptied, or is another one."""
        expected = self._task.keeps_offset and not self._new_target
        if offset and expected and self._is_empty:
            raise LogError(
                f"{self._connector}: the target no longer holds this connector's offset,"
                f" which was {offset}: it was emptied, or is another one",
                remedy="To fill it from the journal's beginning: PUT …/stop, DELETE …/offsets,"
                " PUT …/resume",
            )

    def _begin(self, journal: str, reader: Reader) -> int:
        """A new sink's first offset, see ``start.from``."""
        first, after = reader.bounds()
        begin = None if first else 0
        snapshot = newest_snapshot(reader.path)
        places = {
            "": begin,
            "snapshot": begin if snapshot is None else snapshot,
            "earliest": first,
            "latest": after,
        }
        at = places[self._start_from]
        if at is None:
            newer = "" if snapshot is None else "snapshot (the newest whole one), "
            raise LogError(
                f"{self._connector} is new, and retention has already taken the snapshot"
                f" out of journal {journal}, which now begins at offset {first}",
                remedy=f"Set start.from={newer}earliest (what is stored) or latest (what comes),"
                " or take a new snapshot at the source.",
            )
        return at
