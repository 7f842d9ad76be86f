"""Which segments may go: by age, by size, and what a hard budget does.

Segments go from the front, whole, and only those that will never change again: the newest
of each lane of the newest generation always stays, since it says where the lane lies and
what the source's position is.

Order of giving way, when space is short: what every sink has passed, whatever its age;
then, with ``journal.full.policy=drop``, the oldest there is, leaving an empty ``.gap`` file
in its place so that readers learn of the loss; then the source waits (LogFull).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cdc import failpoints
from cdc.durable import NO_SPACE, sync
from cdc.errors import ConfigError, LogError, LogFull
from cdc.log.files import Entry, listing, remove_segment, segment_bytes
from cdc.log.reader import JournalReader, Span
from cdc.log.segment import SegmentReader, SegmentWriter, closing_state

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """What to keep. None: no such limit.

    ``needed`` is asked each time: the lowest offset a sink still needs, None without sinks.
    """

    age_ms: int | None
    size_bytes: int | None
    budget_bytes: int | None
    drop: bool
    needed: Callable[[], int | None]

    def __post_init__(self) -> None:
        limits = {
            "journal.retention.ms": self.age_ms,
            "journal.retention.bytes": self.size_bytes,
            "journal.budget.bytes": self.budget_bytes,
        }
        for key, value in limits.items():
            if value is not None and value < 0:
                raise ConfigError(f"{value} is below 0", key=key)


class Retention:
    """The writer's view of the journal's size, and the only one that unlinks segments."""

    def __init__(self, path: Path, policy: Policy) -> None:
        self.path = path
        self.policy = policy
        self.dropped_segments = self.dropped_rows = 0
        self._unread = ""  # why the front cannot be told, once that was logged
        self.size_bytes = 0
        self._sizes: dict[Entry, int] = {}
        self._sealed_ms: dict[Entry, int] = {}

    def load(self) -> None:
        """Take stock, once, at open."""
        for entry in listing(self.path):
            file = self.path / entry.file
            if entry.gap and file.stat().st_size:  # a crash between renaming and emptying
                os.truncate(file, 0)
            self._set_size(entry, segment_bytes(file))

    def grown(self, segment: SegmentWriter) -> None:
        """A segment was written to."""
        self._set_size(segment.entry, segment.disk_bytes)

    def _set_size(self, entry: Entry, nbytes: int) -> None:
        self.size_bytes += nbytes - self._sizes.get(entry, 0)
        self._sizes[entry] = nbytes

    # -- space is short ------------------------------------------------------------------

    def make_room(self, nbytes: int) -> None:
        """See to it that ``nbytes`` more stay within the budget. Raises LogFull."""
        budget = self.policy.budget_bytes
        if budget is None:
            return
        while self.size_bytes + nbytes > budget:
            if not self.free_one():
                raise LogFull(
                    f"journal {self.path} has used its budget: {self.size_bytes} of {budget} bytes",
                    remedy="a sink is behind or stopped: resume or delete it, or raise the budget",
                )

    def free_one(self) -> bool:
        """Unlink one segment because space is short; False when nothing may go.

        Without any sink nothing has been read yet, so only the policy decides.
        """
        needed = self.policy.needed()
        oldest = self._oldest() if needed is not None else None
        if oldest is not None and not self._is_needed(oldest[1]):
            self._remove(oldest[0].entry)
            return True
        return self.policy.drop and self._drop_oldest()

    def _oldest(self) -> tuple[Span, int] | None:
        """What may go first; None when nothing may, or damage keeps us from telling."""
        try:
            return next(self._front(), None)
        except LogFull:
            raise
        except LogError as error:
            if self._unread != str(error):
                self._unread = str(error)
                logger.warning("journal %s: what was read cannot be freed: %s", self.path, error)
            return None

    def _drop_oldest(self) -> bool:
        entries = listing(self.path)
        fixed = _fixed(entries)
        for number, entry in enumerate(entries):
            if entry.gap or entry in fixed:
                continue
            before = entries[number - 1] if number else None
            rows = self._rows_of(entry, entries[number + 1])
            # A gap lasts until the next segment, so one file tells of a run of them.
            if before is None or not before.gap or before.lane_key != entry.lane_key:
                self._make_gap(entry)
            failpoints.hit("journal.drop.after_gap")
            self._remove(entry)
            self.dropped_segments += 1
            self.dropped_rows += rows
            logger.error("journal %s is full: dropped segment %s", self.path, entry.file)
            return True
        return False

    def _rows_of(self, entry: Entry, following: Entry) -> int:
        if following.lane_key == entry.lane_key:
            return following.first - entry.first
        with (
            suppress(LogError, OSError),
            SegmentReader(self.path, entry, settled=True) as segment,
        ):
            return segment.state().next - entry.first
        return 0

    def _make_gap(self, entry: Entry) -> None:
        """Mark the loss, durably, before the segment goes."""
        gap = self.path / entry._replace(gap=True).file
        try:
            gap.touch(mode=0o600)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            # Not even an empty file fits: the segment's own becomes the mark.
            (self.path / entry.file).rename(gap)
            sync(self.path)
            os.truncate(gap, 0)
        else:
            sync(self.path)

    # -- in the course of time -----------------------------------------------------------

    def retain(self) -> list[str]:
        """Unlink what is beyond age or size and needed by no sink; names, oldest first."""
        removed = []
        for span, end in self._front():
            if self._is_needed(end) or not (self._is_old(span.entry) or self._is_much()):
                break
            self._remove(span.entry)
            removed.append(span.entry.file)
        self._sweep()
        return removed

    def prune(self, before_offset: int) -> list[str]:
        """Unlink what lies wholly below an offset, needed or not; names, oldest first."""
        removed = []
        for span, end in self._front():
            if end > before_offset:
                break
            self._remove(span.entry)
            removed.append(span.entry.file)
        self._sweep()
        return removed

    def supersede(self, newest: SegmentWriter) -> None:
        """Unlink what a lane's newest segment stands for: those before it without a row.

        The one that closed the lane stays: it says what its rows are, also where there are none.
        """
        lane = newest.entry.lane_key
        segments = [e for e in listing(self.path) if e.lane_key == lane and not e.gap]
        closing, _ = closing_state(self.path, segments, newest.state)
        for entry in segments:
            if entry.first == newest.entry.first and entry not in (closing, newest.entry):
                self._remove(entry)

    def _is_needed(self, end: int) -> bool:
        needed = self.policy.needed()
        return needed is not None and end > needed

    def _is_much(self) -> bool:
        limit = self.policy.size_bytes
        return limit is not None and self.size_bytes > limit

    def _is_old(self, entry: Entry) -> bool:
        if self.policy.age_ms is None:
            return False
        if entry not in self._sealed_ms:
            self._sealed_ms[entry] = self._read_sealed_ms(entry)
        return time.time_ns() // 1_000_000 - self._sealed_ms[entry] > self.policy.age_ms

    def _read_sealed_ms(self, entry: Entry) -> int:
        path = self.path / entry.file
        sealed_ms = None
        if not entry.gap:
            with suppress(LogError), SegmentReader(self.path, entry, settled=True) as segment:
                sealed_ms = segment.state().sealed_ms
        return int(path.stat().st_mtime * 1000) if sealed_ms is None else sealed_ms

    def _front(self) -> Iterator[tuple[Span, int]]:
        """Segments and gaps from the oldest on, up to the first that has to stay."""
        with JournalReader(self.path) as reader:
            spans = reader.spans()
        fixed = _fixed(listing(self.path))
        for span, end in spans:
            if span.entry in fixed:
                return
            yield span, end

    def _sweep(self) -> None:
        """Remove what is left of earlier generations' snapshot lanes: segments without rows."""
        entries = listing(self.path)
        with JournalReader(self.path) as reader:
            spans = reader.spans()
        for entry in entries:
            if (
                not spans
                or entry >= spans[0][0].entry
                or entry.generation == entries[-1].generation
            ):
                return
            self._remove(entry)

    def _remove(self, entry: Entry) -> None:
        failpoints.hit("journal.retain.before_unlink")
        remove_segment(self.path / entry.file)
        self.size_bytes -= self._sizes.pop(entry, 0)
        self._sealed_ms.pop(entry, None)


def _fixed(entries: list[Entry]) -> set[Entry]:
    """What never goes: the newest segment of each lane of the newest generation."""
    segments = [entry for entry in entries if not entry.gap]
    newest = {e.lane: e for e in segments if e.generation == segments[-1].generation}
    return set(newest.values())
