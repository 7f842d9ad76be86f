"""Are a sink's offsets of the journals that are there? Refused where they are of others.

The identity (:mod:`cdc.log.identity`) is stored beside the offset, in ``sinks/<connector>.db``
and by targets that keep the offset. What was stored by older versions has none, and takes
over the present journal's. An offset that was moved by hand is of the present journal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cdc.errors import LogError
from cdc.log.identity import identity_of

if TYPE_CHECKING:
    from cdc.api import Reader, SinkTask
    from cdc.runtime.offsets import Stored

LOOK_S = 5.0


class Identities:
    """Those of the journals that one sink task reads. One thread."""

    def __init__(self, connector: str, task: SinkTask, readers: Mapping[str, Reader]) -> None:
        self._connector, self._task, self._readers = connector, task, readers
        self._looked_s = 0.0
        self._keeps = False  # the target keeps an offset of each journal read
        self._at_work = ""  # the journal that the task was turned to
        self.found: dict[str, str] = {}

    def begin(self, *, keeps: bool) -> None:
        """Before all journals are checked. ``keeps``: the target keeps an offset of each."""
        self._keeps, self.found = keeps, {}

    def check(self, journal: str, at: Stored | None, own: int | None) -> bool:
        """Once the task has turned to a journal; ``own`` is the offset that its target keeps.

        Returns whether the target did not know the identity. Raises LogError.
        """
        reader, kept = self._readers[journal], None
        if own is not None:
            kept = self._task.stored_identity()
        present = identity_of(reader.path)
        if at is None or not at.seek:
            offset = own if own is not None or at is None else at.offset
            for known in (kept, None if at is None else at.identity):
                if None not in (known, present) and known != present:
                    raise self._replaced(journal, offset, known, present)
            self._check_end(journal, reader, offset)
        if present is not None:
            self.found[journal] = present
        return self.adopt(journal) and own is not None and kept is None

    def adopt(self, journal: str) -> bool:
        """Tell a target that keeps the offset of this journal which one it is."""
        self._at_work = journal
        identity = self.found.get(journal) if self._keeps else None
        return identity is not None and self._task.adopt(identity)

    def look(self) -> None:
        """While it runs: journals that began by now, and those that were replaced."""
        now = time.monotonic()
        if len(self.found) == len(self._readers) and now - self._looked_s < LOOK_S:
            return
        self._looked_s = now
        for journal, reader in self._readers.items():
            try:
                present = identity_of(reader.path)
            except LogError:  # whoever reads there says it better
                continue
            known = self.found.get(journal)
            if None not in (known, present) and known != present:
                raise self._replaced(journal, None, known, present)
            if known is None and present is not None:
                self.found[journal] = present
                if journal == self._at_work:
                    self.adopt(journal)

    # --- what is refused

    def _replaced(
        self, journal: str, offset: int | None, known: str | None, present: str | None
    ) -> LogError:
        stands = "" if offset is None else f" {offset}"
        return LogError(
            f"{self._connector}: its offset{stands} is of journal {journal} with identity {known},"
            f" and the journal there now has identity {present}: it was removed or replaced",
            remedy=f"Put the old one back, or {self._ways()}",
        )

    def _check_end(self, journal: str, reader: Reader, offset: int | None) -> None:
        end = reader.bounds()[1]
        if offset is not None and offset > end:
            raise LogError(
                f"{self._connector}: journal {journal} ends at offset {end}, the sink stands at"
                f" {offset}: the journal was removed, or restored from an older backup",
                remedy=f"Put the newer one back, or {self._ways()}",
            )

    def _ways(self) -> str:
        url = f"/connectors/{self._connector}"
        return (
            f"PUT {url}/stop; then to start over DELETE {url}/offsets, to go on from a place in"
            f" the journal that is there PATCH {url}/offsets; and PUT {url}/resume"
        )
