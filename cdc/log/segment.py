"""One segment: a SQLite file with the blocks of one lane, and all that reading them needs.

It is written by :class:`SegmentWriter` and read by :class:`SegmentReader`. After it is sealed
it never changes again: that is what lets readers open it without any lock and a backup copy
it once. What is in it: :mod:`cdc.log.format`.
"""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from cdc import failpoints
from cdc.block import ENTRY_BYTES, EncodedBlock, may_hold
from cdc.durable import sync
from cdc.errors import LogCorrupt, LogError, LogFull
from cdc.log import format as format_
from cdc.log.files import LANES, Entry, remove_segment, segment_bytes, size_bytes
from cdc.log.filters import GROUP_COLUMNS, FilterRun, Group
from cdc.log.format import (
    BUSY_MS,
    DAMAGE,
    GROUPS_FORMAT,
    INDEX,
    INDEX_COLUMNS,
    PAGE_BYTES,
    TABLES,
    Index,
    State,
    connect,
    is_schema,
    meta_crc,
    read_meta,
    read_state,
    translate,
    translated,
)
from schemas import EventSchema

WAL_BYTES_MAX = 32 << 20  # the write-ahead log is copied into the segment when it is as long
SEAL_BUSY_MS = 200  # sealing can wait for a better moment; the writer cannot
FILTERS_AT_ONCE = 64  # blocks whose filters one query reads, where they are not joined

_INSERT = f"INSERT INTO blocks VALUES ({','.join('?' * 14)})"
_INSERT_GROUP = f"INSERT INTO filters ({GROUP_COLUMNS}) VALUES (?, ?, ?, ?, ?)"
_AT = "FROM blocks WHERE start <= ? ORDER BY start DESC LIMIT 1"


def create(
    folder: Path, entry: Entry, state: State, identity: str, *, not_before_ms: int = 0
) -> None:
    """Make a segment of a journal: complete under its name or not there at all.

    Its times never lie before those of its predecessor (``not_before_ms``): what was written
    while the wall clock stood in the past is not old once the clock is set right.
    """
    path = folder / entry.file
    new = Path(f"{path}.new")
    remove_segment(new)
    connection = connect(new, "mode=rwc")
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        for statement in filter(str.strip, TABLES.split(";")):
            connection.execute(statement)
        meta = {
            "format": format_.SEGMENT_FORMAT,
            "generation": entry.generation,
            "lane": LANES[entry.lane].value,
            "sequence": entry.sequence,
            "first": entry.first,
            "created_ms": max(time.time_ns() // 1_000_000, not_before_ms),
            format_.IDENTITY: identity,
        }
        for key, value in meta.items():
            row = (key, value, meta_crc(key, value))
            connection.execute("INSERT INTO meta VALUES (?, ?, ?)", row)
        connection.execute(
            "INSERT INTO position VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)", (*state, state.crc)
        )
        connection.execute("COMMIT")
        # Closing the last connection does it too, but without a word when there is no space:
        # the file would get its name without the pages that are still in the log.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.close()
    sync(new)
    failpoints.hit("journal.create.before_rename")
    new.rename(path)
    failpoints.hit("journal.create.after_rename")
    sync(folder)


class SegmentWriter:
    """The writing end of one segment. One thread; one process (see :class:`files.Lock`)."""

    def __init__(self, folder: Path, entry: Entry, wal_bytes_max: int = WAL_BYTES_MAX) -> None:
        self.entry = entry
        self.path = folder / entry.file
        with translated(self.path):
            self._db = connect(self.path, "mode=rw")
        try:
            with translated(self.path):
                self._configure(wal_bytes_max)
            self.meta = read_meta(self._db, self.path)
            self.state = read_state(self._db, self.path)
            with translated(self.path):
                known = self._db.execute("SELECT fingerprint FROM schemas").fetchall()
                self._run = self._load_run()
        except BaseException:
            self._db.close()
            raise
        self._schemas = {fingerprint for (fingerprint,) in known}

    def _load_run(self) -> FilterRun:
        """The filters of the blocks that are in no group yet."""
        run = FilterRun()
        if self.has_groups and self.state.sealed_ms is None:
            ((stop,),) = self._db.execute("SELECT max(stop) FROM filters").fetchall()
            first = self.entry.first if stop is None else stop
            query = "SELECT start, rows, filter FROM blocks WHERE start >= ? ORDER BY start"
            for start, rows, filter_ in self._db.execute(query, (first,)):
                run.add(start, rows, filter_)
        return run

    def _configure(self, wal_bytes_max: int) -> None:
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA fullfsync = ON")  # on macOS fsync alone stops at the drive
        pages = max(1, wal_bytes_max // PAGE_BYTES)
        self._db.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        # After a checkpoint the log is reused from its start, not cut: cutting costs a
        # metadata write each time. Only what grew beyond the limit is given back.
        self._db.execute(f"PRAGMA journal_size_limit = {wal_bytes_max}")

    @property
    def rows(self) -> int:
        """How many rows this segment holds."""
        return self.state.next - self.entry.first

    @property
    def has_groups(self) -> bool:
        """Whether filters are joined in this segment's format."""
        return bool(self.meta["format"] >= GROUPS_FORMAT)

    @property
    def is_older(self) -> bool:
        """Whether an earlier format holds it: read on, but not written to."""
        return bool(self.meta["format"] < format_.SEGMENT_FORMAT)

    @property
    def stored_bytes(self) -> int:
        """How long the segment is, or will be once its write-ahead log is copied."""
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        return int(pages) * PAGE_BYTES

    @property
    def disk_bytes(self) -> int:
        """What it takes on disk now, with its write-ahead log."""
        return segment_bytes(self.path)

    def append(self, block: EncodedBlock | None, position: bytes, *, close: bool) -> None:
        """One durable transaction. On an error nothing of it is stored."""
        failpoints.hit("journal.append.before_insert")
        state = self.state._replace(position=position, closed=close)
        if block is not None:
            state = state._replace(
                next=state.next + block.rows,
                high_lsn=max(state.high_lsn, block.commit_lsn),
                high_us=max(state.high_us, block.commit_us),
            )
        new = {} if block is None else {s.fingerprint: s.json for s in block.schemas}
        for fingerprint in self._schemas.intersection(new):
            del new[fingerprint]
        due = self._run.due
        with self._transaction():
            self._db.executemany("INSERT INTO schemas VALUES (?, ?)", new.items())
            if due:
                self._db.execute(_INSERT_GROUP, self._run.group())
            if block is not None:
                self._insert(block, state)
            self._update(state)
            failpoints.hit("journal.append.before_commit")
        if due:
            self._run = FilterRun()
        if block is not None and self.has_groups:
            self._run.add(self.state.next, block.rows, block.filter)
        self.state = state
        self._schemas.update(new)

    def _insert(self, block: EncodedBlock, state: State) -> None:
        index = (
            self.state.next, block.rows, block.crc, block.first_lsn, block.last_lsn,
            block.commit_lsn, block.commit_us, state.high_lsn, state.high_us,
            zlib.crc32(block.filter),
        )  # fmt: skip
        check = zlib.crc32(INDEX.pack(*index))
        self._db.execute(_INSERT, (*index, check, block.header, block.filter, block.body))

    def change(self, **changes: Any) -> None:
        """Change the lane's state alone: ``base``, ``closed``."""
        state = self.state._replace(**changes)
        with self._transaction():
            self._update(state)
        self.state = state

    def identify(self, identity: str) -> None:
        """Give the journal's identity to a segment made before there were any."""
        if format_.IDENTITY in self.meta or self.state.sealed_ms is not None or self.is_older:
            return
        row = (format_.IDENTITY, identity, meta_crc(format_.IDENTITY, identity))
        with self._transaction():
            self._db.execute("INSERT INTO meta VALUES (?, ?, ?)", row)
        self.meta[format_.IDENTITY] = identity

    def _update(self, state: State) -> None:
        self._db.execute(
            "UPDATE position SET position = ?, next = ?, closed = ?, sealed_ms = ?, base = ?, "
            "high_lsn = ?, high_us = ?, crc = ?",
            (*state, state.crc),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def seal(self) -> bool:
        """Make the file complete on its own, for good. False: a reader is in the way, later.

        The bulk is checkpointed before the mark is set, so that a sealed segment whose
        log could not be emptied at once holds no more than the mark in it. SQLite syncs the
        file; doing it here would need a descriptor of our own, and closing that would drop
        the locks SQLite holds on the file for this process.
        """
        if self.state.sealed_ms is None:
            if self._run.stop:
                with self._transaction():
                    self._db.execute(_INSERT_GROUP, self._run.group())
                self._run = FilterRun()
            if not self._checkpoint():
                return False
            failpoints.hit("journal.seal.before_mark")
            now_ms = time.time_ns() // 1_000_000
            self.change(sealed_ms=max(now_ms, self.meta["created_ms"]))
            failpoints.hit("journal.seal.after_mark")
        self._checkpoint()
        failpoints.hit("journal.seal.after_checkpoint")
        return True

    def _checkpoint(self) -> bool:
        self._db.execute(f"PRAGMA busy_timeout = {SEAL_BUSY_MS}")
        try:
            ((busy, _, _),) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        return not busy

    def close(self) -> None:
        """Release the file."""
        self._db.close()


class SegmentReader:
    """The reading end of one segment. No transaction outlives a call."""

    def __init__(self, folder: Path, entry: Entry, *, settled: bool = False) -> None:
        """``settled``: a later segment of the lane exists, so this one is sealed.

        Then it is read without locks, unless its log could not be emptied when it was
        sealed. Raises FileNotFoundError when retention was faster.
        """
        self.entry = entry
        self.path = folder / entry.file
        if not self.path.exists():
            raise FileNotFoundError(self.path)
        self.immutable = settled and not size_bytes(Path(f"{self.path}-wal"))
        try:
            self._open()
        except LogFull:
            # The disk is full or read-only: SQLite cannot make its shared memory file. With
            # nothing in the write-ahead log there is nothing to share.
            if self.immutable or size_bytes(Path(f"{self.path}-wal")):
                raise
            self.immutable = True
            self._open()

    def _open(self) -> None:
        options = "mode=ro&immutable=1" if self.immutable else "mode=ro"
        try:
            self._db = connect(self.path, options)
            try:
                self._db.execute("PRAGMA cell_size_check = ON")
                self.meta = read_meta(self._db, self.path)
            except BaseException:
                self._db.close()
                raise
        except (sqlite3.Error, LogError) as error:
            if not self.path.exists():
                raise FileNotFoundError(self.path) from error
            raise translate(error, self.path) from error

    @property
    def has_groups(self) -> bool:
        """Whether filters are joined in this segment's format."""
        return bool(self.meta["format"] >= GROUPS_FORMAT)

    @property
    def identity(self) -> str | None:
        """The journal's, see :mod:`cdc.log.identity`; None in one made before."""
        found: str | None = self.meta.get(format_.IDENTITY)
        return found

    def state(self) -> State:
        """How far its lane is, as this segment knows it."""
        return read_state(self._db, self.path)

    def version(self) -> int:
        """Changes whenever another connection has committed."""
        with translated(self.path):
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def index_at(self, row: int) -> Index | None:
        """The newest block that starts at ``row`` or before it."""
        return self._index(f"SELECT {INDEX_COLUMNS} {_AT}", row)

    def first_reaching(self, high: str, target: int) -> int:
        """The first row of the first block whose running maximum ``high`` reaches a target."""
        low, top = self.entry.first, self.state().next
        while low < top:
            index = self.index_at((low + top) // 2)
            if index is None:
                break
            if getattr(index, high) >= target:
                top = index.start
            else:
                low = index.end
        return low

    def index_from(self, row: int) -> Index | None:
        """The first block that starts at ``row`` or after it."""
        where = "FROM blocks WHERE start >= ? ORDER BY start LIMIT 1"
        return self._index(f"SELECT {INDEX_COLUMNS} {where}", row)

    def _index(self, query: str, row: int) -> Index | None:
        with translated(self.path):
            found = self._db.execute(query, (row,)).fetchall()
        return self._checked(found[0]) if found else None

    def _checked(self, columns: tuple[Any, ...]) -> Index:
        index = Index(*columns)
        if not index.is_whole():
            raise LogCorrupt(
                f"journal segment {self.path.name}, block at row {index.start}: index is damaged",
                remedy=DAMAGE,
            )
        return index

    def block_at(self, row: int) -> tuple[Index, bytes, bytes] | None:
        """Index, header and body of the block that holds ``row``; None: not stored here."""
        with translated(self.path):
            found = self._db.execute(f"SELECT {INDEX_COLUMNS}, header, body {_AT}", (row,))
            rows = found.fetchall()
        if not rows:
            return None
        *columns, header, body = rows[0]
        index = self._checked(tuple(columns))
        return (index, header, body) if row < index.end else None

    def filter_of(self, index: Index) -> bytes:
        """A block's key filter, checked."""
        with translated(self.path):
            query = "SELECT filter FROM blocks WHERE start = ?"
            ((found,),) = self._db.execute(query, (index.start,)).fetchall()
        self._check_filter(index, found)
        return bytes(found)

    def _check_filter(self, index: Index, found: object) -> None:
        if not isinstance(found, bytes) or zlib.crc32(found) != index.filter_crc:
            raise LogCorrupt(
                f"journal segment {self.path.name}, block at row {index.start}: "
                "its key filter is damaged",
                remedy=DAMAGE,
            )

    def candidates(
        self, row: int, hashes: Collection[int], *, keyless: bool = False
    ) -> tuple[list[int], int]:
        """The first rows of blocks from ``row``'s on that can hold a key, and how far we looked.

        Looks a stretch ahead; ``row`` itself comes back when no block holds it. ``keyless``
        asks for truncates as well, which filters of the first format do not know.
        """
        group = self._group_at(row)
        if group is not None:
            return group.find(hashes, row), group.stop
        query = (
            f"SELECT {INDEX_COLUMNS}, filter FROM blocks WHERE start >= coalesce("
            "(SELECT max(start) FROM blocks WHERE start <= ?), 0) ORDER BY start LIMIT ?"
        )
        with translated(self.path):
            found = self._db.execute(query, (row, FILTERS_AT_ONCE)).fetchall()
        keyless = keyless and not self.has_groups
        out: list[int] = []
        reached = row
        for *columns, filter_ in found:
            index = self._checked(tuple(columns))
            if index.end > row:
                self._check_filter(index, filter_)
                lacking = keyless and len(filter_) < index.rows * ENTRY_BYTES
                if lacking or may_hold(filter_, hashes):
                    out.append(index.start)
                reached = index.end
        return out, reached

    def groups(self) -> list[tuple[int, int]]:
        """First row of, and the row after, every group of filters: for the tools."""
        if not self.has_groups:
            return []
        with translated(self.path):
            query = "SELECT start, stop FROM filters ORDER BY start"
            return self._db.execute(query).fetchall()

    def _group_at(self, row: int) -> Group | None:
        """The group of filters whose blocks hold ``row``."""
        if not self.has_groups:
            return None
        query = f"SELECT {GROUP_COLUMNS} FROM filters WHERE start <= ? ORDER BY start DESC LIMIT 1"
        with translated(self.path):
            found = self._db.execute(query, (row,)).fetchall()
        if not found or found[0][1] <= row:
            return None
        group = Group.read(found[0])
        if group is None:
            raise LogCorrupt(
                f"journal segment {self.path.name}: the key filters of rows {found[0][0]} to "
                f"{found[0][1] - 1} are damaged",
                remedy=DAMAGE,
            )
        return group

    def fingerprints(self) -> list[str]:
        """The schemas that blocks of this segment refer to."""
        with translated(self.path):
            found = self._db.execute("SELECT fingerprint FROM schemas").fetchall()
        return [fingerprint for (fingerprint,) in found]

    def schema(self, fingerprint: str) -> EventSchema:
        """A schema a block of this segment refers to."""
        query = "SELECT json FROM schemas WHERE fingerprint = ?"
        with translated(self.path):
            found = self._db.execute(query, (fingerprint,)).fetchall()
        if not found or not is_schema(fingerprint, found[0][0]):
            raise LogCorrupt(f"journal segment {self.path.name}: schema {fingerprint} is damaged")
        return EventSchema.from_json(found[0][0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def connection(self) -> sqlite3.Connection:
        """For the tools: verify and backup."""
        return self._db

    def close(self) -> None:
        """Release the file."""
        self._db.close()


def closing_state(folder: Path, segments: Sequence[Entry], state: State) -> tuple[Entry, State]:
    """Which of a lane's segments has closed it, and the state it did so with.

    ``segments`` are those there are, ``state`` is the newest one's: if the lane is closed, what
    was noted since may stand there. Raises as :class:`SegmentReader`.
    """
    without = sum(entry.first < state.next for entry in segments)  # the first without a row
    for entry in segments[max(without - 1, 0) : -1]:
        with SegmentReader(folder, entry) as segment:
            found = segment.state()
        if found.closed:
            return entry, found
    return segments[-1], state
