"""From blocks to audit entries: authors of transactions, changed columns, hashed columns.

*Who and why.* The message ``cdc.audit`` that an application sends in a transaction is the
author of its rows, after it and before it: :mod:`cdc.authors`. A transaction's rows therefore
wait until a message or the transaction's end comes, whatever blocks they lie in: in memory up
to ``audit.transaction.rows``, beyond that in a temporary file that has no name.
"""

from __future__ import annotations

import pickle
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from itertools import groupby
from pathlib import Path
from typing import IO

import orjson

from cdc import javaregex
from cdc.authors import NOBODY, Author, author_of
from cdc.block import MESSAGE, STREAMED, UPDATE, Block
from cdc.errors import ConfigError
from schemas import EventSchema
from schemas.rewrite import Rewrite, rewriter
from sinks.audit_chain import Entry, Hasher

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A name that is no pattern: letters, digits, and dots with or without a backslash.
_PLAIN = re.compile(r"(?:[^\W\d]\w*)(?:\\?\.\w+){2}")

# Rows that have their author.
Written = tuple[Iterable[Entry], Author]


class Collector:
    """Takes blocks, gives out rows whose author is known."""

    def __init__(
        self,
        hasher: Hasher,
        hashed: Sequence[str],
        *,
        rows_max: int,
        folder: Path | None = None,
    ) -> None:
        self._plans = Plans(hasher, hashed)
        self._held = Held(rows_max, folder)
        self._open: tuple[int, int] | None = None  # the transaction that rows wait for
        self._author: Author | None = None

    def take(self, block: Block) -> Iterator[Written]:
        """The rows of a block, and of blocks before, that can be written now; in order."""
        plans = [self._plans.of(schema) for schema in block.schemas]
        for index, run in groupby(range(len(block)), block.transaction.__getitem__):
            rows = list(run)
            transaction = block.transactions[index]
            at = _iso(transaction.commit_us)
            if transaction.xid == 0 or block.marker_of(rows[0]) != STREAMED:
                yield from self._alone(block, rows, plans, at, transaction.xid or None)
                continue
            if self._open != (transaction.xid, transaction.commit_lsn):
                yield from self.finish()
                self._open = (transaction.xid, transaction.commit_lsn)
            yield from self._transaction(block, rows, plans, at, transaction.xid)
        if self._open is not None and self._is_whole(block):
            yield from self.finish()

    def finish(self) -> Iterator[Written]:
        """The open transaction has ended: what waits has no author."""
        held, self._open, self._author = self._held, None, None
        if held:
            yield held.release(), NOBODY

    def close(self) -> None:
        """Forget what waits."""
        self._held.clear()
        self._open = self._author = None

    def _is_whole(self, block: Block) -> bool:
        """Whether the open transaction's end lies in this block."""
        return any(
            (t.xid, t.commit_lsn) == self._open and t.end_lsn != 0 for t in block.transactions
        )

    def _alone(
        self, block: Block, rows: list[int], plans: list[Plan], at: str, txid: int | None
    ) -> Iterator[Written]:
        rows = [row for row in rows if block.op[row] != MESSAGE]
        if rows:
            yield from self.finish()
            yield _entries(block, rows, plans, at, txid), NOBODY

    def _transaction(
        self, block: Block, rows: list[int], plans: list[Plan], at: str, txid: int
    ) -> Iterator[Written]:
        if MESSAGE not in block.op:
            yield from self._rows(_entries(block, rows, plans, at, txid))
            return
        for is_message, run in groupby(rows, lambda row: block.op[row] == MESSAGE):
            if not is_message:
                yield from self._rows(_entries(block, list(run), plans, at, txid))
                continue
            for row in run:
                author = author_of(block, row)
                if author is not None:
                    self._author = author
                    if self._held:
                        yield self._held.release(), author

    def _rows(self, entries: list[Entry]) -> Iterator[Written]:
        if self._author is None:
            self._held.add(entries)
        else:
            yield entries, self._author


class Held:
    """Rows that wait for their author; beyond a limit in a file without a name."""

    def __init__(self, rows_max: int, folder: Path | None) -> None:
        self._max, self._folder = rows_max, folder
        self._rows: list[Entry] = []
        self._file: IO[bytes] | None = None

    def __bool__(self) -> bool:
        return bool(self._rows) or self._file is not None

    def add(self, entries: list[Entry]) -> None:
        """Some more."""
        self._rows += entries
        if len(self._rows) > self._max:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - kept open
            pickle.dump([tuple(row) for row in self._rows], self._file, 5)
            self._rows = []

    def release(self) -> Iterator[Entry]:
        """All of them, in order; none is kept."""
        rows, file = self._rows, self._file
        self._rows, self._file = [], None
        return _released(rows, file)

    def clear(self) -> None:
        """Forget them."""
        self._rows = []
        if self._file is not None:
            self._file.close()
            self._file = None


def _released(rows: list[Entry], file: IO[bytes] | None) -> Iterator[Entry]:
    if file is not None:
        with file:
            end = file.tell()
            file.seek(0)
            while file.tell() < end:
                yield from map(Entry._make, pickle.load(file))  # noqa: S301 - our own, in a file nobody can open
    yield from rows


def _iso(us: int) -> str:
    return (_EPOCH + timedelta(microseconds=us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# --- one table ---


class Plan:
    """How the rows of one schema become entries."""

    __slots__ = ("_columns", "_hashed", "_hasher", "_keys", "is_plain", "names", "table")

    def __init__(self, schema: EventSchema, hashed: frozenset[str], hasher: Hasher) -> None:
        self.table = str(schema.table)
        self.names = tuple(f.name for f in schema.row.fields)
        self._hashed, self._hasher = hashed, hasher
        self._columns, self._keys = rewriter(schema.row), rewriter(schema.key)
        # Fragments are readable as they are, and nothing in them is sensitive.
        self.is_plain = not (hashed or self._columns or self._keys)

    def image(self, fragment: bytes | None, unsent: Sequence[str] = ()) -> bytes | None:
        """Readable, and its sensitive values hashed; unsent ones stay as they are."""
        return self._shown(fragment, self._columns, unsent)

    def key(self, fragment: bytes | None) -> bytes | None:
        """As an image."""
        return self._shown(fragment, self._keys, ())

    def _shown(
        self, fragment: bytes | None, rewrite: Rewrite | None, unsent: Sequence[str]
    ) -> bytes | None:
        if fragment is None:
            return None
        if rewrite is not None:
            fragment = rewrite(fragment, unsent)
        return self._hash(fragment, unsent) if self._hashed else fragment

    def _hash(self, fragment: bytes, unsent: Sequence[str]) -> bytes:
        values = orjson.loads(fragment)
        for name in self._hashed:
            value = values.get(name)
            if value is not None and name not in unsent:
                text = value.encode() if isinstance(value, str) else orjson.dumps(value)
                values[name] = self._hasher.column(text)
        return orjson.dumps(values)


class Plans:
    """Plans by schema, and which columns are hashed."""

    def __init__(self, hasher: Hasher, hashed: Sequence[str]) -> None:
        self._hasher = hasher
        self._patterns = [(text, javaregex.compile(text, any_case=True)) for text in hashed]
        self._plans: dict[str, Plan] = {}
        self._tables: set[str] = set()

    def of(self, schema: EventSchema) -> Plan:
        """Raises ConfigError where ``audit.columns.hash`` names a column that is not there."""
        plan = self._plans.get(schema.fingerprint)
        if plan is None:
            plan = self._plans[schema.fingerprint] = self._make(schema)
        return plan

    def _make(self, schema: EventSchema) -> Plan:
        table = str(schema.table)
        names = {f.name for f in schema.row.fields} | set(schema.key_names)
        hashed: set[str] = set()
        for text, pattern in self._patterns:
            found = {name for name in names if pattern.matches(f"{table}.{name}")}
            hashed |= found
            if not found and schema.kind == "table" and table not in self._tables:
                _complain(text, table, names)
        # A column that is dropped later is no mistake of the configuration.
        self._tables.add(table)
        return Plan(schema, frozenset(hashed), self._hasher)


def _complain(text: str, table: str, names: Iterable[str]) -> None:
    """Only about a plain name: a pattern may be meant for other tables."""
    if not _PLAIN.fullmatch(text):
        return
    owner, _, column = text.replace("\\.", ".").rpartition(".")
    if owner.lower() != table.lower():
        return
    nearest = get_close_matches(column, names, 1, 0.5)
    raise ConfigError(
        f"table {table} has no column {column}",
        key="audit.columns.hash",
        remedy=f"Did you mean {owner}.{nearest[0]}?" if nearest else "Remove it from the list.",
    )


def _entries(
    block: Block, rows: Sequence[int], plans: Sequence[Plan], at: str, txid: int | None
) -> list[Entry]:
    ops, schemas, lsns = block.op, block.schema, block.lsn
    keys, befores, afters, unchanged = block.keys, block.befores, block.afters, block.unchanged
    offsets, out, make = block.offsets, [], Entry._make
    for row in rows:
        op, plan = ops[row], plans[schemas[row]]
        key, before, after = keys[row], befores[row], afters[row]
        unsent = unchanged.get(row, ()) if unchanged else ()
        changed = None
        if op == UPDATE and before is not None and after is not None:
            changed = _changed(before, after, plan.names, unsent)
        if not plan.is_plain:
            names = [plan.names[i] for i in unsent]
            key, before, after = plan.key(key), plan.image(before), plan.image(after, names)
        out.append(
            make((offsets[row], lsns[row], at, txid, plan.table, chr(op), key, before, after,
                  changed))
        )  # fmt: skip
    return out


def _changed(before: bytes, after: bytes, names: Sequence[str], unsent: Sequence[int]) -> bytes:
    """The names of the columns that differ, as a JSON array; unsent ones did not change."""
    old, new = orjson.loads(before), orjson.loads(after)
    skipped = [names[i] for i in unsent]
    return orjson.dumps(
        [name for name, value in new.items() if value != old.get(name) and name not in skipped]
    )
