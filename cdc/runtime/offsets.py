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
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cdc import failpoints
from cdc.errors import SinkError
from cdc.runtime.sinkstore import open_store, writing

_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS position (
    journal TEXT PRIMARY KEY,
    next_offset INTEGER,
    epoch INTEGER NOT NULL DEFAULT 0,
    seek INTEGER NOT NULL DEFAULT 0,
    identity TEXT,
    replay_end INTEGER
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
    ``replay_end``: up to there the target may be ahead of the offset, since it was moved.
    """

    offset: int | None
    epoch: int
    seek: bool
    identity: str | None = None
    replay_end: int = 0


def witness_in(path: Path) -> str | None:
    """As Offsets.witness, of a store that somebody may be writing, or an older version wrote.

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
        self._path = path
        self._db = open_store(path, _SCHEMA, _add_columns)

    def load(self) -> dict[str, Stored]:
        """All positions by journal; what is intended counts as done."""
        with self._db:
            self._db.execute("BEGIN")  # one view of both: the task may settle meanwhile
            rows = self._db.execute(
                "SELECT journal, next_offset, epoch, seek, identity, coalesce(replay_end, 0)"
                " FROM position"
            )
            found = {
                journal: Stored(at, epoch, bool(seek), identity, replay_end)
                for journal, at, epoch, seek, identity, replay_end in rows
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

    def note_replay(self, journal: str, end: int) -> None:
        """The target may be ahead of the offset, up to ``end``; before the task is told."""
        with writing(self._path), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "UPDATE position SET replay_end = max(?, coalesce(replay_end, 0))"
                " WHERE journal = ?",
                [end, journal],
            )

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


def _add_columns(db: sqlite3.Connection) -> None:
    """Stores of older versions lack some; an older version passes them by."""
    for name, kind in (("identity", "TEXT"), ("replay_end", "INTEGER")):
        if _has(db, name):
            continue
        with db:
            db.execute("BEGIN IMMEDIATE")
            if not _has(db, name):
                db.execute(f"ALTER TABLE position ADD COLUMN {name} {kind}")


def _has(db: sqlite3.Connection, column: str) -> bool:
    return column in {row[1] for row in db.execute("PRAGMA table_info(position)")}
