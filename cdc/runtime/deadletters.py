"""DeadLetters: records that could not be delivered, in the store of the sink they were for.

Connect sends them to a Kafka topic; here they lie beside the sink's positions, in
``sinks/<connector>.db``. A letter is one consumed record: its bytes as the connector's
converters write it, what happened (facts sheet §6.3), and the journal's row itself, so that
it can be put again even when retention has taken the journal's. There can be a million of them,
so they are read one by one.

A record has one letter, by journal, offset and part: a restart that fails again renews it. It
is durable before the sink's position passes its row.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from cdc.block import Block, decode_block
from cdc.runtime.sinkstore import open_store, writing
from schemas import EventSchema

# The headers of §6.3, in Connect's order.
PREFIX: Final = "__connect.errors."

_SCHEMA: Final = (
    """
CREATE TABLE IF NOT EXISTS dead_letter (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    journal TEXT NOT NULL,
    at INTEGER NOT NULL,
    part INTEGER NOT NULL,
    queue TEXT NOT NULL,
    topic TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    key BLOB,
    value BLOB,
    headers TEXT NOT NULL,
    errors TEXT NOT NULL,
    with_errors INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    failures INTEGER NOT NULL DEFAULT 1,
    note TEXT NOT NULL DEFAULT '',
    replay INTEGER NOT NULL DEFAULT 0,
    epoch INTEGER,
    block_header BLOB NOT NULL,
    block_body BLOB NOT NULL,
    block_crc INTEGER NOT NULL,
    schema TEXT NOT NULL,
    UNIQUE (journal, at, part)
) STRICT
""",
    """
CREATE TABLE IF NOT EXISTS dead_letter_schema (
    fingerprint TEXT PRIMARY KEY,
    json BLOB NOT NULL
) STRICT
""",
    # A letter's flags lie behind its texts: to find one that is asked for, none is read.
    """
CREATE INDEX IF NOT EXISTS dead_letter_asked ON dead_letter (journal, at, part) WHERE replay > 0
""",
)
_COLUMNS: Final = (
    "journal, at, part, queue, topic, timestamp, key, value, headers, errors, with_errors,"
    " first_ms, last_ms, block_header, block_body, block_crc, schema"
)
_PUT: Final = (
    f"INSERT INTO dead_letter ({_COLUMNS}) VALUES ({', '.join('?' * 17)})"
    " ON CONFLICT (journal, at, part) DO UPDATE SET queue = excluded.queue,"
    " key = excluded.key, value = excluded.value, headers = excluded.headers,"
    " errors = excluded.errors, with_errors = excluded.with_errors, last_ms = excluded.last_ms,"
    " failures = failures + 1, note = '', replay = 0, epoch = NULL"
)
_READ: Final = (
    f"SELECT id, {_COLUMNS}, failures, note, replay, epoch, json FROM dead_letter"
    " JOIN dead_letter_schema ON fingerprint = schema WHERE id = ?"
)

# What may be asked of a letter: to be put again, even where its row has a newer state.
ASKED: Final = 1
ASKED_STALE: Final = 2


@dataclass(frozen=True, slots=True)
class Letter:
    """One record. ``part`` is 1 for a delete's tombstone; ``at`` the journal offset.

    ``headers`` are the record's own as (name, text); ``errors`` what happened, as (header name
    of §6.3, text or None), in Connect's order; ``with_errors``: they are headers of the record
    too (``context.headers.enable``). ``row`` is the journal's row as a block of one. ``id`` 0:
    not stored yet. ``note``: why the last replay left it here.
    """

    journal: str
    at: int
    part: int
    queue: str
    topic: str
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, str], ...]
    errors: tuple[tuple[str, str | None], ...]
    with_errors: bool
    row: Block
    first_ms: int = 0
    last_ms: int = 0
    failures: int = 1
    note: str = ""
    replay: int = 0
    epoch: int | None = None
    id: int = 0

    def error(self, name: str) -> str | None:
        """One of the error headers, by its name without the prefix."""
        return dict(self.errors).get(PREFIX + name)

    def all_headers(self) -> list[tuple[str, str | None]]:
        """The headers that the record has in the queue."""
        return [*self.headers, *(self.errors if self.with_errors else ())]

    def summary(self) -> dict[str, Any]:
        """For lists: where it comes from and what happened, nothing of its contents."""
        return {
            "id": self.id,
            "source": self.journal,
            "offset": self.at,
            "tombstone": self.part == 1,
            "topic": self.topic,
            "stage": self.error("stage"),
            "class": self.error("class.name"),
            "exception": self.error("exception.class.name"),
            "message": self.error("exception.message"),
            "failures": self.failures,
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "replay": bool(self.replay),
            "note": self.note,
        }

    def to_dict(self) -> dict[str, Any]:
        """All of it, for one letter."""

        def text(data: bytes | None) -> str | None:
            return None if data is None else data.decode("utf-8", "backslashreplace")

        return {
            **self.summary(),
            "queue": self.queue,
            "timestamp": self.timestamp,
            "key": text(self.key),
            "value": text(self.value),
            "headers": [list(header) for header in self.all_headers()],
            "errors": dict(self.errors),
        }


class DeadLetters:
    """The letters of one sink connector. Safe beside the task: every call is a transaction.

    What writes raises StoreUnavailable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = open_store(path, _SCHEMA)

    def put(self, letters: Sequence[Letter]) -> None:
        """Store them in one durable transaction; one that is there already is renewed."""
        now_ms = time.time_ns() // 1_000_000
        with writing(self._path), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for letter in letters:
                encoded = letter.row.encode()
                schema = letter.row.schemas[0]
                self._db.execute(
                    "INSERT OR IGNORE INTO dead_letter_schema VALUES (?, ?)",
                    [schema.fingerprint, schema.json],
                )
                self._db.execute(
                    _PUT,
                    [
                        letter.journal, letter.at, letter.part, letter.queue, letter.topic,
                        letter.timestamp, letter.key, letter.value,
                        orjson.dumps(letter.headers).decode(),
                        orjson.dumps(letter.errors).decode(), letter.with_errors, now_ms, now_ms,
                        encoded.header, encoded.body, encoded.crc, schema.fingerprint,
                    ],
                )  # fmt: skip

    def find(self, ids: Iterable[int] | None = None) -> list[int]:
        """The ids of all, or of those of some that are there, in the journal's order."""
        wanted = None if ids is None else set(ids)
        rows = self._db.execute("SELECT id FROM dead_letter ORDER BY journal, at, part")
        return [id_ for (id_,) in rows if wanted is None or id_ in wanted]

    def letters(self, ids: Iterable[int] | None = None) -> Iterator[Letter]:
        """All, or those of some ids, in the journal's order; each is read at its turn."""
        return self._read(self.find(ids))

    def _read(self, ids: Iterable[int]) -> Iterator[Letter]:
        for id_ in ids:
            row = self._db.execute(_READ, [id_]).fetchone()
            if row is not None:  # else it was dropped meanwhile
                yield _letter(row)

    def count(self) -> int:
        """How many there are."""
        return int(self._db.execute("SELECT count(*) FROM dead_letter").fetchone()[0])

    def offsets(self, journal: str) -> frozenset[int]:
        """The offsets of one journal that have a letter."""
        rows = self._db.execute("SELECT at FROM dead_letter WHERE journal = ?", [journal])
        return frozenset(row[0] for row in rows)

    def ask(self, ids: Iterable[int] | None, *, stale: bool = False) -> int:
        """Have letters put again by the task; how many. ``stale``: newer states or not."""
        return self._each(
            "UPDATE dead_letter SET replay = ?, note = ''", ids, ASKED_STALE if stale else ASKED
        )

    def drop(self, ids: Iterable[int] | None) -> int:
        """Remove letters for good; how many."""
        return self._each("DELETE FROM dead_letter", ids)

    def _each(self, statement: str, ids: Iterable[int] | None, *values: int) -> int:
        with writing(self._path), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if ids is None:
                return self._db.execute(statement, values).rowcount
            sql = f"{statement} WHERE id = ?"
            return sum(self._db.execute(sql, [*values, id_]).rowcount for id_ in ids)

    # --- the task's

    def is_asked(self, journal: str) -> bool:
        """Whether anything is to be put again."""
        sql = "SELECT EXISTS (SELECT 1 FROM dead_letter WHERE replay > 0 AND journal = ?)"
        return bool(self._db.execute(sql, [journal]).fetchone()[0])

    def asked(self, journal: str) -> Iterator[Letter]:
        """What is to be put again now, in the journal's order; each is read at its turn."""
        sql = "SELECT id FROM dead_letter WHERE replay > 0 AND journal = ? ORDER BY at, part"
        return self._read([id_ for (id_,) in self._db.execute(sql, [journal])])

    def begin(self, letter: Letter, known: int = 0) -> int:
        """Give a letter the epoch under which the target will hold it; durable at once.

        It is above the sink's own and the one the target is ``known`` to have: a target that has
        it has the letter.
        """
        with writing(self._path), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "UPDATE position SET epoch = max(epoch, ?) + 1 WHERE journal = ?",
                [known, letter.journal],
            )
            found = self._db.execute(
                "SELECT epoch FROM position WHERE journal = ?", [letter.journal]
            ).fetchone()
            self._db.execute("UPDATE dead_letter SET epoch = ? WHERE id = ?", [found[0], letter.id])
            return int(found[0])

    def leave(self, letter: Letter, note: str) -> None:
        """It was not put again, for this reason."""
        with writing(self._path), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "UPDATE dead_letter SET replay = 0, epoch = NULL, note = ? WHERE id = ?",
                [note, letter.id],
            )

    def forget(self, letter: Letter) -> None:
        """Its put was cut off, and the target has none of it: it is to be put again."""
        self._each("UPDATE dead_letter SET epoch = NULL", [letter.id])

    def delivered(self, journal: str, offsets: Iterable[int]) -> None:
        """These rows are in the target now: their letters go."""
        with writing(self._path), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "DELETE FROM dead_letter WHERE journal = ? AND at = ?",
                [(journal, offset) for offset in offsets],
            )

    def close(self) -> None:
        """Release the file."""
        self._db.close()


def _letter(row: Sequence[Any]) -> Letter:
    (
        id_, journal, at, part, queue, topic, timestamp, key, value, headers, errors, with_errors,
        first_ms, last_ms, header, body, crc, fingerprint, failures, note, replay, epoch, json,
    ) = row  # fmt: skip
    schema = EventSchema.from_json(json)
    return Letter(
        journal, at, part, queue, topic, timestamp, key, value,
        tuple((name, text) for name, text in orjson.loads(headers)),
        tuple((name, text) for name, text in orjson.loads(errors)),
        bool(with_errors),
        decode_block(header, body, crc, {fingerprint: schema}.__getitem__, at),
        first_ms, last_ms, failures, note, replay, epoch, id_,
    )  # fmt: skip
