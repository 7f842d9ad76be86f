"""Refill: what a key change did not send, from the journal, while a sink is replayed.

A row that changes its key takes its unsent values (unchanged TOAST) along from the old key: in
the target, whose row under that key is the same one. Not so in a replay: the target is ahead of
the journal there, and under the old key it may have another row, or none. So until a replay has
reached where the journal ended when it began, such values are looked for in the journal; where
that no longer has them, the row keeps what the target has under the new key.

What a search costs is the journal's length, so changes to come are searched for along with the
first one (AHEAD_MAX of them, within AHEAD_ROWS rows). One more search is made for each time that
such a row had changed its key before; none where there is no such change, nor later.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from cdc.block import CREATE, DELETE, READ, TRUNCATE, Block, Derived, NewRow, key_hash
from cdc.errors import LogError
from cdc.log.reader import JournalReader

CHAIN_MAX: Final = 1000  # key changes that one value is followed through
# Key changes that are searched for at once (those of one block always are), and how far ahead.
AHEAD_MAX: Final = 64
AHEAD_ROWS: Final = 50_000

Values = dict[str, Any]


@dataclass(slots=True)
class _Row:
    """What is known of the row under a key; ``came``: under which it was, and until where."""

    values: Values = field(default_factory=dict)
    came: tuple[bytes, int] | None = None


@dataclass(slots=True)
class _Search:
    """The row of a table that left ``key`` right before the offset ``end``; ``names`` of it."""

    table: str
    key: bytes
    end: int
    names: frozenset[str]
    known: Values = field(default_factory=dict)
    row: _Row = field(default_factory=_Row)
    left: _Row = field(default_factory=_Row)
    alive: bool = False

    @classmethod
    def of(cls, block: Block, row: int) -> _Search:
        """For what a key change did not send."""
        schema = block.schemas[block.schema[row]]
        names = frozenset(schema.row.fields[i].name for i in block.unchanged[row])
        return cls(str(schema.table), block.moved[row], block.offsets[row], names)

    def see(self, block: Block, at: int) -> None:
        """An event of the table, oldest first: of this key, or a truncate."""
        op = block.op[at]
        if op in (TRUNCATE, DELETE):
            self.left, self.alive = self.row if self.alive else self.left, False
            return
        if not self.alive or op in (READ, CREATE):
            moved = block.moved.get(at)
            came = None if moved is None else (moved, block.offsets[at])
            self.row, self.alive = _Row(came=came), True
        self.row.values.update(_sent(block, at, self.names - self.known.keys()))

    def turn(self) -> bool:
        """All events were seen; whether to search under the key that the row had before."""
        found = self.row if self.alive else self.left
        self.known = {**found.values, **self.known}
        self.row, self.left, self.alive = _Row(), _Row(), False
        if found.came is None or self.names <= self.known.keys():
            return False
        self.key, self.end = found.came
        return True


class Refill:
    """For rows of one journal before ``until``."""

    def __init__(self, reader: JournalReader, until: int) -> None:
        self._reader, self._until = reader, until
        self._tables: dict[str, str] | None = None  # by fingerprint: all there are before until
        self._found: dict[int, Values] = {}  # by offset

    def apply(self, block: Block) -> Block:
        """The block with the values filled in, as far as they are known."""
        lacking = self._lacking(block)
        if not lacking:
            return block
        if any(block.offsets[row] not in self._found for row in lacking):
            self._found = self._look_ahead(block)
        filled = {row: _filled(block, row, self._found.pop(block.offsets[row])) for row in lacking}
        alone = {row - 1 for row, new in filled.items() if new.unchanged}  # their deletes
        out = Derived(block)
        for row in range(len(block)):
            number = out.schema(block.schemas[block.schema[row]])
            if row in filled:
                out.add(row, number, filled[row])
            elif row in alone and row in block.moved:
                parts = block.op[row], block.keys[row], block.befores[row], block.afters[row]
                out.add(row, number, NewRow(*parts, headers=block.headers.get(row)))
            else:
                out.keep(row, number)
        found = out.block()
        assert found is not None
        return found

    def _lacking(self, block: Block) -> list[int]:
        if not (block.moved and block.unchanged) or block.offsets[0] >= self._until:
            return []
        return [
            row for row in block.moved
            if row in block.unchanged and block.op[row] == CREATE
            and block.offsets[row] < self._until
            and block.schemas[block.schema[row]].kind == "table"
        ]  # fmt: skip

    def _look_ahead(self, block: Block) -> dict[int, Values]:
        searches: dict[int, _Search] = {}
        last = min(self._until, block.offsets[0] + AHEAD_ROWS)
        ahead: Block | None = block
        while ahead is not None:
            for row in self._lacking(ahead):
                searches[ahead.offsets[row]] = _Search.of(ahead, row)
            after = ahead.offsets[-1] + 1
            ahead = None
            if after < last and len(searches) < AHEAD_MAX:
                with suppress(LogError):  # whoever comes there says so
                    ahead = self._reader.read(after)
        self._run(list(searches.values()))
        return {offset: search.known for offset, search in searches.items()}

    def _run(self, searches: list[_Search]) -> None:
        """All at once: what a search costs is the journal's length."""
        tables = self._tables = self._tables or self._all_tables()
        for _ in range(CHAIN_MAX):
            if not searches:
                return
            by_key: dict[tuple[str, bytes], list[_Search]] = {}
            for search in searches:
                by_key.setdefault((search.table, search.key), []).append(search)
            wanted: dict[str, set[bytes]] = {}
            for table, key in by_key:
                wanted.setdefault(table, {b""}).add(key)
            hashes = {
                key_hash(name, key)
                for name, table in tables.items()
                for key in wanted.get(table, ())
            }
            end = max(search.end for search in searches)
            for block in self._reader.blocks_with(
                hashes, 0, end, keyless=True, lost=lambda _: None
            ):
                _show(block, [tables.get(schema.fingerprint) for schema in block.schemas], by_key)
            searches = [search for search in searches if search.turn()]

    def _all_tables(self) -> dict[str, str]:
        schemas = self._reader.schemas(lost=lambda _: None)
        return {name: str(schema.table) for name, schema in schemas.items()}


def _filled(block: Block, row: int, known: Values) -> NewRow:
    fields = block.schemas[block.schema[row]].row.fields
    still = tuple(i for i in block.unchanged[row] if fields[i].name not in known)
    after = orjson.dumps({**orjson.loads(block.afters[row] or b"{}"), **known})
    moved = None if still else block.moved[row]
    key, before, headers = block.keys[row], block.befores[row], block.headers.get(row)
    return NewRow(block.op[row], key, before, after, still, moved, headers)


def _show(
    block: Block, tables: list[str | None], by_key: dict[tuple[str, bytes], list[_Search]]
) -> None:
    """Every search sees its own events of a block."""
    for at, key in enumerate(block.keys):
        table = tables[block.schema[at]]
        if table is None:
            continue
        if block.op[at] == TRUNCATE:
            mine = [s for (of, _), each in by_key.items() if of == table for s in each]
        else:
            mine = by_key.get((table, key or b""), [])
        for search in mine:
            if block.offsets[at] < search.end:
                search.see(block, at)


def _sent(block: Block, row: int, names: Iterable[str]) -> Values:
    fields = block.schemas[block.schema[row]].row.fields
    unsent = {fields[i].name for i in block.unchanged.get(row, ())}
    values = orjson.loads(block.afters[row] or b"{}")
    return {name: values[name] for name in names if name in values and name not in unsent}
