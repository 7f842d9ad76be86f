"""The journal's writer: batches in, durable, each with the source's position.

A journal is a folder of segments (:mod:`cdc.log.segment`) named so that their order is the
read order (:mod:`cdc.log.files`). Per generation there are two lanes; each lane has exactly
one segment that takes batches until the lane is closed::

    generation 1   snapshot  ▓▓▓▓▓▓▓▓ sealed  ▓▓▓▓ closed
                   stream        ▓▓▓▓▓▓▓▓▓▓▓ sealed  ▓▓▓▓▓ open
    offsets        ────────────────────────►  snapshot first, then stream

Every change of more than one file (roll, close of a lane, new generation) is a row of steps
each of which leaves a state that :meth:`Journal._settle` can finish: it runs at open and
after each of them, so a crash anywhere in between needs no special case.

The offset of a lane's first row (``base``) is known once the lane before is closed, and is
then written into the lane's newest segment; each later segment inherits it. So the newest
segment of a lane alone says where the lane lies, and older ones may go.
"""

from __future__ import annotations

import logging
import sqlite3
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self
from uuid import uuid4

import orjson

from cdc import failpoints
from cdc.api import Batch, LogState, Position
from cdc.block import Block, EncodedBlock
from cdc.durable import make_folder
from cdc.errors import ConfigError, LogCorrupt, LogError, LogFull
from cdc.log import retention
from cdc.log.files import (
    LANES,
    SNAPSHOT,
    STREAM,
    Entry,
    Lock,
    lacks_space,
    listing,
    remove_unfinished,
)
from cdc.log.format import NoSpace, State, is_unknown, translate
from cdc.log.identity import identity_of
from cdc.log.reader import JournalReader
from cdc.log.segment import WAL_BYTES_MAX, SegmentReader, SegmentWriter, create

SEGMENT_BYTES = 256 << 20
SEGMENT_SECONDS = 3600.0
RETENTION_MS = 7 * 24 * 3600 * 1000
TAIL_BLOCKS = 8  # checked at open: what a torn write could have hit
ROLL_RETRY_S = 5.0  # after a reader was in the way

logger = logging.getLogger(__name__)


class Journal:
    """One writer of one journal. ``append`` from one thread; ``read`` from another is fine."""

    def __init__(
        self,
        path: Path,
        lock: Lock,
        *,
        segment_bytes: int,
        segment_seconds: float,
        policy: retention.Policy,
    ) -> None:
        """Use :meth:`open`."""
        self.path = path
        self._lock: Lock | None = lock
        # A budget is kept by whole segments, so there have to be some within it.
        budget = policy.budget_bytes
        self._segment_bytes = min(segment_bytes, budget // 8) if budget else segment_bytes
        self._segment_seconds = segment_seconds
        self._wal_bytes_max = min(WAL_BYTES_MAX, max(self._segment_bytes // 4, 1))
        self._generation = 0
        self.identity = ""  # see cdc.log.identity; durable with the first segment
        self._lanes: list[SegmentWriter] = []
        self._opened_s: list[float] = [0.0, 0.0]
        self._roll_not_before_s = 0.0
        self._broken: str = ""
        self._unretained: str = ""  # why retention cannot work, once that was logged
        self._reader: JournalReader | None = None
        self.retention = retention.Retention(path, policy)

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
        retention_ms: int | None = RETENTION_MS,
        retention_bytes: int | None = None,
        budget_bytes: int | None = None,
        full_policy: str = "wait",
        needed: Callable[[], int | None] = lambda: None,
    ) -> Journal:
        """Open for writing, or make it: take the lock, check the tail, finish what a crash cut.

        ``needed`` gives the lowest offset a sink still needs, None without a sink. Raises
        LogLocked, LogVersion, LogCorrupt, LogFull.
        """
        path = Path(path)
        if full_policy not in ("wait", "drop"):
            raise ConfigError(f"{full_policy!r} is not wait or drop", key="journal.full.policy")
        policy = retention.Policy(
            retention_ms, retention_bytes, budget_bytes, full_policy == "drop", needed
        )
        try:
            make_folder(path, 0o700)
            lock = Lock(path)
        except OSError as error:
            raise translate(error, path) from error
        journal = cls(
            path,
            lock,
            segment_bytes=segment_bytes,
            segment_seconds=segment_seconds,
            policy=policy,
        )
        try:
            journal._load()
        except (sqlite3.Error, OSError) as error:
            journal.close()
            raise translate(error, path) from error
        except BaseException:
            journal.close()
            raise
        return journal

    # -- the Log contract ----------------------------------------------------------------

    def state(self) -> LogState:
        """As :meth:`cdc.api.Log.state`."""
        if not self._lanes:
            return LogState()
        snapshot, stream = (lane.state for lane in self._lanes)
        return LogState(
            generation=self._generation,
            snapshot_position=_position(snapshot),
            snapshot_closed=snapshot.closed,
            stream_position=_position(stream),
            stream_closed=stream.closed,
        )

    def append(self, batch: Batch) -> int:
        """As :meth:`cdc.api.Log.append`; a closed stream lane makes it open a generation."""
        if self._broken:
            raise LogError(self._broken, remedy="restart the task: it continues from the disk")
        block = batch.block.encode() if isinstance(batch.block, Block) else batch.block
        if block is not None and not block.rows:
            block = None
        position = orjson.dumps(dict(batch.position))
        nbytes = len(position) + (block.nbytes if block else 0)
        lane = LANES.index(batch.lane)
        while True:
            try:
                self.retention.make_room(nbytes)
                self._store(lane, block, position, close=batch.close)
                break
            except (sqlite3.Error, OSError, LogFull) as error:
                if self._is_final(error, nbytes):
                    raise self._failure(error, lane) from error
        self.retention.grown(self._lanes[lane])
        failpoints.hit("journal.append.after_commit")
        if batch.close:
            self._settle_later()
        return nbytes

    def read(self, offset: int) -> Block | None:
        """As :meth:`JournalReader.read`; for one thread at a time."""
        if self._reader is None:
            self._reader = JournalReader(self.path)
        return self._reader.read(offset)

    # -- beyond the contract -------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """What the journal takes on disk."""
        return self.retention.size_bytes

    @property
    def dropped_segments(self) -> int:
        """Segments dropped for want of space since the journal was opened."""
        return self.retention.dropped_segments

    @property
    def dropped_rows(self) -> int:
        """Rows dropped for want of space since the journal was opened."""
        return self.retention.dropped_rows

    def retain(self) -> list[str]:
        """Unlink sealed segments beyond age and size that no sink needs; their names.

        Called when a segment is sealed; a runtime calls it now and then for idle sources,
        from the thread that appends. A damaged old segment is the readers' trouble and not
        the source's: what goes wrong is logged, once, and nothing is raised.
        """
        try:
            removed = self.retention.retain()
        except (LogError, OSError, sqlite3.Error) as error:
            if self._unretained != str(error):
                self._unretained = str(error)
                logger.warning("journal %s: retention does not work: %s", self.path, error)
            return []
        if self._unretained:
            self._unretained = ""
            logger.info("journal %s: retention works again", self.path)
        return removed

    def prune(self, before_offset: int) -> list[str]:
        """Unlink sealed segments that lie wholly below an offset; their names."""
        return self.retention.prune(before_offset)

    def close(self) -> None:
        """Release files and lock. Sealing is not needed: the next open continues."""
        for segment in self._lanes:
            segment.close()
        self._lanes = []
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- opening -------------------------------------------------------------------------

    def _load(self) -> None:
        remove_unfinished(self.path)
        entries = listing(self.path)
        segments = [entry for entry in entries if not entry.gap]
        self.identity = identity_of(self.path) or str(uuid4())
        if not segments:
            if entries:
                raise LogCorrupt(f"journal {self.path} has gaps but no segment")
            return
        self._generation = segments[-1].generation
        self._open_lanes(segments)
        for segment in self._lanes:
            _check_tail(self.path, segment.entry)
            segment.identify(self.identity)
        self._finish_sealed(segments)
        self.retention.load()
        self._settle()

    def _open_lanes(self, segments: list[Entry]) -> None:
        newest = {entry.lane: entry for entry in segments if entry.generation == self._generation}
        if STREAM not in newest:  # a crash between the two files of a new generation
            newest[STREAM] = self._create_stream(self._generation, segments)
        if SNAPSHOT not in newest:
            raise LogCorrupt(f"journal {self.path}: its newest snapshot segment is missing")
        for lane in (SNAPSHOT, STREAM):  # one by one: close() takes what was opened
            self._lanes.append(self._opened(newest[lane]))

    def _finish_sealed(self, segments: list[Entry]) -> None:
        """Empty write-ahead logs that readers kept from being emptied at the seal."""
        active = {lane.entry for lane in self._lanes}
        for entry in segments:
            wal = Path(f"{self.path / entry.file}-wal")
            if entry not in active and wal.exists() and wal.stat().st_size:
                segment = SegmentWriter(self.path, entry)
                segment.seal()
                segment.close()

    # -- more than one file --------------------------------------------------------------

    def _store(
        self, lane: int, block: EncodedBlock | None, position: bytes, *, close: bool
    ) -> None:
        if self._lanes:
            self._settle()
        if not self._lanes or self._lanes[STREAM].state.closed:
            self._begin_generation()
        if not self._lanes[lane].state.closed:
            self._ready(lane)
            self._lanes[lane].append(block, position, close=close)
        elif block is None:  # the snapshot lane: a closed stream has begun a generation
            self._note(position)
        else:
            raise LogError(
                f"journal {self.path}: the {LANES[lane].value} lane of generation "
                f"{self._generation} is closed",
            )

    def _ready(self, lane: int) -> None:
        """Make sure that the open lane has a segment which takes a batch."""
        segment = self._lanes[lane]
        if segment.is_older:
            raise self._in_the_way(segment)
        if self._is_due(segment, lane):
            self._roll(lane)

    @staticmethod
    def _in_the_way(segment: SegmentWriter) -> LogFull:
        """Of one that takes nothing more, and could not be sealed so far."""
        return LogFull(
            f"journal segment {segment.path.name} is sealed as soon as no reader is in the way",
            remedy="let the backup, or whatever else reads the journal for so long, end",
        )

    def _note(self, position: bytes) -> None:
        """Of the closed snapshot lane, in a segment without rows: a sealed one never changes.

        It takes the place of the one before, so that there is only ever one of them behind the
        segment that closed the lane.
        """
        segment = self._lanes[SNAPSHOT]
        if segment.rows and segment.state.sealed_ms is None:
            raise self._in_the_way(segment)
        if segment.state.sealed_ms is not None:
            self._create_next(SNAPSHOT)
        failpoints.hit("journal.note.before_change")
        self._lanes[SNAPSHOT].change(position=position)
        failpoints.hit("journal.note.after_change")
        self._settle_later()
        with suppress(OSError, LogError):  # else the next one does it
            self.retention.supersede(self._lanes[SNAPSHOT])

    def _settle_later(self) -> None:
        """The batch is stored: what follows from closing its lane may fail and be retried."""
        with suppress(sqlite3.Error, OSError, LogFull):
            self._settle()  # else done by the next append or the next open, which report it

    def _settle(self) -> None:
        """Finish what closing a lane, sealing or a new generation entails. Idempotent."""
        snapshot, stream = self._lanes
        if stream.state.closed and not snapshot.state.closed:
            snapshot.change(closed=True)
        if snapshot.state.closed and stream.state.base is None:
            failpoints.hit("journal.close_lane.before_base")
            base = snapshot.state.base
            if base is None:
                raise LogCorrupt(f"journal segment {snapshot.path.name}: it has no base")
            stream.change(base=base + snapshot.state.next)
            failpoints.hit("journal.close_lane.after_base")
        for lane, segment in enumerate(self._lanes):
            if segment.state.sealed_ms is None and (segment.state.closed or segment.is_older):
                self._seal(segment)
            if segment.state.sealed_ms is not None and not segment.state.closed:
                self._create_next(lane)
        if snapshot.state.sealed_ms is not None and snapshot.state.closed and snapshot.rows:
            # The lane's state outlives its rows: retention may take every segment but the
            # newest, which from here on is an empty one.
            self._create_next(SNAPSHOT)
            self._seal(self._lanes[SNAPSHOT])

    def _seal(self, segment: SegmentWriter) -> bool:
        now = time.monotonic()
        if now < self._roll_not_before_s:
            return False
        if not segment.seal():
            self._roll_not_before_s = now + ROLL_RETRY_S
            return False
        self.retention.grown(segment)
        return True

    def _is_due(self, segment: SegmentWriter, lane: int) -> bool:
        if not segment.rows:
            return False
        age_s = time.monotonic() - self._opened_s[lane]
        return segment.stored_bytes >= self._segment_bytes or age_s >= self._segment_seconds

    def _roll(self, lane: int) -> None:
        if self._seal(self._lanes[lane]):
            self._create_next(lane)
            self.retain()

    def _create_next(self, lane: int) -> None:
        old = self._lanes[lane]
        entry = old.entry._replace(sequence=old.entry.sequence + 1, first=old.state.next)
        not_before_ms = old.state.sealed_ms or 0
        state = old.state._replace(sealed_ms=None)
        create(self.path, entry, state, self.identity, not_before_ms=not_before_ms)
        self._lanes[lane] = self._opened(entry)
        old.close()

    def _begin_generation(self) -> None:
        """Both lanes at once, the snapshot lane first: a generation always has both.

        Each starts with the position of the one before.
        """
        entries = [entry for entry in listing(self.path) if not entry.gap]
        generation = self._generation + 1
        base, position = 0, None
        if self._lanes:
            end, position = self._lanes[STREAM].state, self._lanes[SNAPSHOT].state.position
            if end.base is None:
                raise LogCorrupt(f"journal {self.path}: generation {generation - 1} has no base")
            base = end.base + end.next
        snapshot = Entry(generation, SNAPSHOT, 1, 0)
        if snapshot not in entries:
            create(self.path, snapshot, State(base=base, position=position), self.identity)
        failpoints.hit("journal.generation.between_lanes")
        stream = self._create_stream(generation, entries)
        opened = [self._opened(snapshot), self._opened(stream)]
        for segment in self._lanes:
            segment.close()
        self._lanes, self._generation = opened, generation

    def _create_stream(self, generation: int, entries: list[Entry]) -> Entry:
        """The new generation's stream lane; it starts with the position of the one before."""
        entry = Entry(generation, STREAM, 1, 0)
        before = [e for e in entries if e.lane == STREAM and e.generation < generation]
        position = None
        if before:
            segment = SegmentReader(self.path, before[-1])
            position = segment.state().position
            segment.close()
        create(self.path, entry, State(position=position), self.identity)
        return entry

    def _opened(self, entry: Entry) -> SegmentWriter:
        segment = SegmentWriter(self.path, entry, self._wal_bytes_max)
        # Age by the monotonic clock from here on: the wall clock may be set.
        age_ms = max(0, time.time_ns() // 1_000_000 - segment.meta["created_ms"])
        self._opened_s[entry.lane] = time.monotonic() - age_ms / 1000
        self.retention.grown(segment)
        return segment

    # -- when it fails -------------------------------------------------------------------

    def _is_final(self, error: Exception, nbytes: int) -> bool:
        """Whether the append has failed; False when room was made and it is worth a retry.

        Segments go for want of space only: too many open files, say, take none.
        """
        if isinstance(error, sqlite3.Error) and is_unknown(error):
            return True
        if not self._is_for_space(error, nbytes):
            return True
        try:
            return not self.retention.free_one()
        except (sqlite3.Error, OSError, LogError) as second:
            logger.warning("journal %s: no room could be made: %s", self.path, second)
            return True

    def _is_for_space(self, error: Exception, nbytes: int) -> bool:
        failure = translate(error, self.path)
        if isinstance(failure, NoSpace):
            return True
        # SQLite does not tell why. A full budget, which has no cause, was dealt with before.
        cause = error if isinstance(error, sqlite3.Error) else error.__cause__
        unclear = isinstance(failure, LogFull) and isinstance(cause, sqlite3.Error | LogFull)
        return unclear and lacks_space(self.path, nbytes)

    def _failure(self, error: Exception, lane: int) -> LogError:
        if isinstance(error, LogError):
            return error
        path = self._lanes[lane].path if self._lanes else self.path
        failure = translate(error, path)
        if not isinstance(failure, LogFull):
            # Whether the batch is on disk is not known: only a new open can tell.
            self._broken = f"the journal failed before: {failure.problem}"
        return failure


def _check_tail(path: Path, entry: Entry) -> None:
    """The newest blocks of a segment, as far as a torn write could reach. Raises LogCorrupt."""
    segment = SegmentReader(path, entry)
    try:
        after = segment.state().next
        for _ in range(TAIL_BLOCKS):
            found = segment.block_at(after - 1) if after > entry.first else None
            if found is None:
                break
            index, header, body = found
            if index.end != after or zlib.crc32(body, zlib.crc32(header)) != index.crc:
                raise LogCorrupt(
                    f"journal segment {entry.file}, block at row {index.start}: "
                    "checksum does not match",
                    remedy="run `cdc journal verify`; other segments stay readable",
                )
            after = index.start
        else:
            return
        if after != entry.first:
            raise LogCorrupt(f"journal segment {entry.file}: no block holds row {after - 1}")
    finally:
        segment.close()


def _position(state: State) -> Position | None:
    return None if state.position is None else orjson.loads(state.position)
