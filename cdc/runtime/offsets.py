"""A sink's positions: one SQLite file per sink connector, one row per journal it reads.

Only the sink's task stores while it runs; the worker reads for status and retention, and
moves positions while the task is stopped. ``epoch`` counts the moves by hand, so that a
target that keeps the offset itself can tell a replay from a late, lost write.

An *intent* is a move that is asked for while the task may still run. It is durable at once,
counts as the position for everybody who asks, and becomes the move when the task starts
next: so it makes no difference where in between a process is killed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cdc import failpoints
from cdc.durable import make_folder
from cdc.errors import LogVersion, SinkError

VERSION = 1
BUSY_TIMEOUT_S = 5.0

_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS position (
    journal TEXT PRIMARY KEY,
    next_offset INTEGER,
    epoch INTEGER NOT NULL DEFAULT 0,
    seek INTEGER NOT NULL DEFAULT 0,
    identity TEXT
) STRICT
""",
    """
CREATE TABLE IF NOT EXISTS intent (
    journal TEXT PRIMARY KEY,
    next_offset INTEGER NOT NULL
) STRICT
""",
    """
CREATE TABLE IF NOT EXISTS witness (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    text TEXT NOT NULL
) STRICT
""",
)
_MOVE = (
    "INSERT INTO position (journal, next_offset, epoch, seek) VALUES (?, ?, 1, 1)"
    " ON CONFLICT (journal) DO UPDATE SET next_offset = excluded.next_offset,"
    " epoch = epoch + 1, seek = 1, identity = NULL"
)


@dataclass(frozen=True, slots=True)
class Stored:
    """``offset`` is the next to read; None: reset, begin as a new sink would.

    ``seek``: moved by hand, and the task has not been told yet. ``identity``: the journal's
    that the offset is of, None where that is not known (moved, or stored by an older version).
    """

    offset: int | None
    epoch: int
    seek: bool
    identity: str | None = None


class StoreUnavailable(SinkError):
    """A sink's own store cannot be written for now: its disk is full, or somebody locks it.

    The task starts again from what is stored, as often as it takes.
    """

    retriable = True


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around a transaction of a sink's store. Raises StoreUnavailable."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreUnavailable(
            f"{path.parent.name}/{path.name} cannot be written: {error}",
            remedy="Make room on its disk" if "full" in str(error) else "",
        ) from error


def witness_in(path: Path) -> str | None:
    """The same, of a store that somebody else may be writing, or an older version has written.

    Raises SinkError for one that cannot be read.
    """
    there = "SELECT 1 FROM sqlite_schema WHERE name = 'witness'"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            if database.execute(there).fetchone() is None:
                return None
            row = database.execute("SELECT text FROM witness").fetchone()
    except sqlite3.Error as error:
        raise SinkError(f"{path} cannot be read: {error}") from None
    return None if row is None else str(row[0])


class Offsets:
    """The positions of one sink connector."""

    def __init__(self, path: Path) -> None:
        make_folder(path.parent, 0o700)
        self._path = path
        self._db = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise LogVersion(
                    f"{path.name} has format {version}, this version knows {VERSION}",
                    remedy="Use the version of cdc that wrote it, or a newer one.",
                )
            for statement in _SCHEMA:
                self._db.execute(statement)
            self._add_identity()
            if version != VERSION:
                self._db.execute(f"PRAGMA user_version = {VERSION}")
        except BaseException as error:
            self._db.close()
            damaged = isinstance(error, sqlite3.DatabaseError)
            if damaged and not isinstance(error, sqlite3.OperationalError):
                raise SinkError(
                    f"{path} is damaged: {error}",
                    remedy="Move it away: the sink goes on from the offset that its target keeps,"
                    " where that keeps one, and begins as a new one where not",
                ) from error
            raise

    def _add_identity(self) -> None:
        """Stores of older versions lack the column; an older version passes it by."""
        if self._has_identity():
            return
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if not self._has_identity():
                self._db.execute("ALTER TABLE position ADD COLUMN identity TEXT")

    def _has_identity(self) -> bool:
        columns = self._db.execute("PRAGMA table_info(position)")
        return "identity" in {row[1] for row in columns}

    def load(self) -> dict[str, Stored]:
        """All positions by journal; what is intended counts as done."""
        with self._db:
            self._db.execute("BEGIN")  # one view of both: the task may settle meanwhile
            rows = self._db.execute(
                "SELECT journal, next_offset, epoch, seek, identity FROM position"
            )
            found = {
                journal: Stored(at, epoch, bool(seek), identity)
                for journal, at, epoch, seek, identity in rows
            }
            intents = self._db.execute("SELECT journal, next_offset FROM intent").fetchall()
        for journal, at in intents:
            epoch = found[journal].epoch if journal in found else 0
            found[journal] = Stored(at, epoch + 1, True)
        return found

    def store(
        self,
        positions: Mapping[str, int],
        identities: Mapping[str, str] | None = None,
        witness: str | None = None,
    ) -> None:
        """The task's own progress, in one durable transaction; identities by journal."""
        known = identities or {}
        with writing(self._path), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT INTO position (journal, next_offset, identity) VALUES (?, ?, ?)"
                " ON CONFLICT (journal) DO UPDATE SET next_offset = excluded.next_offset, seek = 0,"
                " identity = coalesce(excluded.identity, identity)",
                [(name, offset, known.get(name)) for name, offset in positions.items()],
            )
            if witness is not None:
                self._db.execute("INSERT OR REPLACE INTO witness VALUES (1, ?)", [witness])

    def witness(self) -> str | None:
        """What the task knew of its target when it stored last; None where it said nothing."""
        row = self._db.execute("SELECT text FROM witness").fetchone()
        return None if row is None else str(row[0])

    def move(self, journal: str, offset: int | None) -> None:
        """By hand, while the task is stopped; it seeks there when it starts."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM intent WHERE journal = ?", [journal])
            self._db.execute(_MOVE, (journal, offset))

    def intend(self, journal: str, offset: int) -> None:
        """Move when the task starts next; it may still run now."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("INSERT OR REPLACE INTO intent VALUES (?, ?)", (journal, offset))

    def settle(self) -> None:
        """Make every intent a move. Called while no task of this connector runs, or by it."""
        with writing(self._path), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            intents = self._db.execute("SELECT journal, next_offset FROM intent").fetchall()
            self._db.executemany(_MOVE, intents)
            failpoints.hit("offsets.settle.before_commit")
            self._db.execute("DELETE FROM intent")

    def close(self) -> None:
        """Release the file."""
        self._db.close()
