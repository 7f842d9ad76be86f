"""A segment's format: its tables, their checksums, and what SQLite's errors mean.

What is fixed when a segment is made (format, generation, lane, …) is in ``meta``; what moves
with every batch is the one row of ``position``, changed in the batch's own transaction.
Each row carries a checksum of its own columns, so that a damaged byte is found where it
lies. ``filters`` holds the key filters of many blocks joined, with each block's first row and
number of entries: whoever looks for a key reads them in long runs instead of one by one.
``blocks.start`` is relative to the lane; ``high_*`` are running maxima over the lane,
which makes LSN and time searchable by bisection although commit times may step back.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from cdc.durable import NO_SPACE
from cdc.errors import LogCorrupt, LogError, LogFull, LogVersion

# 2: joined filters; a truncate is in its block's filter.
SEGMENT_FORMAT = 2
IDENTITY = "identity"  # in meta, see cdc.log.identity
GROUPS_FORMAT = 2  # from which on there are groups of filters

# Measured with 110 KB blocks: 16 KB pages write as fast as larger ones and read twice as
# fast as 4 KB ones; larger ones would only make the commit of a single row dearer.
PAGE_BYTES = 16 << 10
BUSY_MS = 5_000  # readers hold a lock for the time of one block

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value, crc INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE schemas (fingerprint TEXT PRIMARY KEY, json BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE position (
    id INTEGER PRIMARY KEY CHECK (id = 1), position BLOB, next INTEGER NOT NULL,
    closed INTEGER NOT NULL, sealed_ms INTEGER, base INTEGER,
    high_lsn INTEGER NOT NULL, high_us INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE blocks (
    start INTEGER PRIMARY KEY, rows INTEGER NOT NULL, crc INTEGER NOT NULL,
    first_lsn INTEGER NOT NULL, last_lsn INTEGER NOT NULL,
    commit_lsn INTEGER NOT NULL, commit_us INTEGER NOT NULL,
    high_lsn INTEGER NOT NULL, high_us INTEGER NOT NULL,
    filter_crc INTEGER NOT NULL, index_crc INTEGER NOT NULL,
    header BLOB NOT NULL, filter BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE filters (
    start INTEGER PRIMARY KEY, stop INTEGER NOT NULL, crc INTEGER NOT NULL,
    blocks BLOB NOT NULL, entries BLOB NOT NULL);
"""
INDEX_COLUMNS = (
    "start, rows, crc, first_lsn, last_lsn, commit_lsn, commit_us, high_lsn, high_us, "
    "filter_crc, index_crc"
)
INDEX = struct.Struct("<10q")
_STATE = struct.Struct("<6q")

# It could not be written, whatever the reason; nothing of the transaction was stored.
_UNWRITABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class State(NamedTuple):
    """The row of ``position``: how far a lane is. ``next`` is the lane's row count.

    ``base`` is the journal offset of the lane's first row, None while an earlier lane is
    still growing. ``sealed_ms`` is when the segment was sealed, None before.
    """

    position: bytes | None = None
    next: int = 0
    closed: bool = False
    sealed_ms: int | None = None
    base: int | None = None
    high_lsn: int = 0
    high_us: int = 0

    @property
    def crc(self) -> int:
        """Over all other columns."""
        numbers = _STATE.pack(
            self.next,
            self.closed,
            -1 if self.sealed_ms is None else self.sealed_ms,
            -1 if self.base is None else self.base,
            self.high_lsn,
            self.high_us,
        )
        return zlib.crc32(numbers, zlib.crc32(self.position or b""))


class Index(NamedTuple):
    """The small columns of one block."""

    start: int
    rows: int
    crc: int
    first_lsn: int
    last_lsn: int
    commit_lsn: int
    commit_us: int
    high_lsn: int
    high_us: int
    filter_crc: int
    index_crc: int

    @property
    def end(self) -> int:
        """The row after its last."""
        return self.start + self.rows

    def is_whole(self) -> bool:
        """Whether the columns match their checksum."""
        try:
            return zlib.crc32(INDEX.pack(*self[:10])) == self.index_crc
        except struct.error:  # a damaged type byte: not even a number any more
            return False


class NoSpace(LogFull):
    """The disk or the quota is used up for certain: unlinking something helps.

    Any other LogFull only waits: too many open files, no permission, a read-only disk.
    """


def translate(error: Exception, path: Path) -> LogError:
    """What an error of SQLite or of the system means for the journal."""
    problem = f"journal segment {path.name} cannot be written: {error}"
    if isinstance(error, LogError):
        return error
    if isinstance(error, OSError):
        if error.errno in NO_SPACE:
            return NoSpace(problem, remedy=SPACE)
        return LogFull(problem, remedy=UNWRITABLE)
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in _DAMAGED:
        return LogCorrupt(f"journal segment {path.name} is damaged: {error}", remedy=DAMAGE)
    if code & 0xFF == sqlite3.SQLITE_FULL:
        return NoSpace(problem, remedy=SPACE)
    if code & 0xFF in _UNWRITABLE or _is_write_error(code):
        return LogFull(problem, remedy=UNWRITABLE)
    return LogError(f"journal segment {path.name}: {error}")


SPACE = "free space or raise the journal's budget; the source waits meanwhile"
UNWRITABLE = "mend what keeps it from being written, or free space; the source waits meanwhile"
DAMAGE = "run `cdc journal verify`; other segments stay readable"


def _is_write_error(code: int) -> bool:
    # EDQUOT, EFBIG and EIO arrive alike; the shared memory file needs space too.
    return code in (
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_TRUNCATE,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMMAP,
    )


def is_unknown(error: Exception) -> bool:
    """Whether it cannot be told if the commit is on disk: fsync itself has failed."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code in (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC)


def is_schema(fingerprint: object, text: object) -> bool:
    """Whether a schema's text is whole. The text is hashed as stored, never written anew."""
    if not isinstance(text, bytes):
        return False
    return hashlib.blake2b(text, digest_size=8).hexdigest() == fingerprint


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Errors of SQLite leave as LogErrors that name the segment."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error


def meta_crc(key: str, value: Any) -> int:
    """The checksum of one row of ``meta``."""
    return zlib.crc32(f"{key}={value}".encode())


def connect(path: Path, options: str) -> sqlite3.Connection:
    """A connection without implicit transactions. ``options`` are SQLite's URI parameters."""
    return sqlite3.connect(
        f"file:{quote(str(path))}?{options}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_MS / 1000,
    )


def read_meta(connection: sqlite3.Connection, path: Path) -> dict[str, Any]:
    """The checked ``meta`` of a segment. Raises LogCorrupt, LogVersion."""
    with translated(path):
        rows = connection.execute("SELECT key, value, crc FROM meta").fetchall()
    meta: dict[str, Any] = {}
    for key, value, crc in rows:
        if meta_crc(key, value) != crc:
            raise LogCorrupt(f"journal segment {path.name}: meta {key!r} is damaged")
        meta[key] = value
    if "format" not in meta:
        raise LogCorrupt(f"journal segment {path.name}: it has no format version")
    if meta["format"] > SEGMENT_FORMAT:
        raise LogVersion(
            f"journal segment {path.name} has format {meta['format']}, "
            f"this version knows {SEGMENT_FORMAT}",
            remedy="use the newer version that wrote it",
        )
    return meta


def read_state(connection: sqlite3.Connection, path: Path) -> State:
    """The checked row of ``position``. Raises LogCorrupt."""
    with translated(path):
        row = connection.execute(
            "SELECT position, next, closed, sealed_ms, base, high_lsn, high_us, crc FROM position"
        ).fetchall()
    if len(row) != 1:
        raise LogCorrupt(f"journal segment {path.name}: its position is missing")
    *values, crc = row[0]
    try:
        state = State(*values)._replace(closed=bool(values[2]))
        whole = state.crc == crc
    except (TypeError, struct.error):
        whole = False
    if not whole:
        raise LogCorrupt(f"journal segment {path.name}: its position is damaged")
    return state
