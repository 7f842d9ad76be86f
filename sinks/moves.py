"""Moves: the rows of a transaction in an order in which no key ever stands for two of them.

A deferrable primary key need not hold before the end of its statement or transaction: within
``UPDATE t SET id = id + 1`` row 1 becomes 2 while the old 2 is still there. Applied by key, as
the changes come, the delete of the old 2 would take away the row that has just become 2.

Between transactions a key stands for one row at most, and what the target has under it is that
row. From there on each change says which row it means: a create adds one; a delete or an update
means the one that looks as its image before says. That image is whole: with such a key
PostgreSQL takes no REPLICA IDENTITY but FULL. So a create whose key is taken waits, the delete
of the row that has the key lets it in, and a delete of one that waits takes both away.

When a transaction ends nobody waits. If somebody does, the key is none (several rows have it),
or the target is ahead of the journal, as in a replay: then the newest row wins, as it does
anywhere else. A replay arrives at the source's state all the same. Which keys are there differs
only after a transaction that deletes as many rows of a key as it creates, and then until the
next one that does not; where none follows, the target had the last state to begin with.

What this costs: a key is asked for in the target only where it is created, by a key change or
together with a delete, in one transaction. A plain insert under a key that is taken (with the
constraint deferred) is seen if the delete lies in the same block.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import compress

import orjson

from cdc.block import CREATE, DELETE, STREAMED, TRUNCATE, UPDATE, Block, Derived, Fragment
from cdc.record import whole_rows

# A table and a key in it, as the record's key is written.
Place = tuple[str, bytes]
# By op: whether it is one.
_CREATES = bytes(op == CREATE for op in range(256))
_DELETES = bytes(op == DELETE for op in range(256))
# Which of some keys of a table the target holds.
Present = Callable[[str, Sequence[bytes]], Collection[bytes]]


class Moves:
    """Puts the rows of blocks in order; keeps what waits when a block ends in a transaction."""

    def __init__(self) -> None:
        self._held: Block | None = None
        self._first = 0  # how many rows of the joined block have waited

    def join(self, block: Block) -> Block:
        """The block behind what waits."""
        held = self.release()
        self._first = 0 if held is None else len(held)
        return block if held is None else _joined(held, block)

    def release(self) -> Block | None:
        """What waits, because everything so far is to be made durable."""
        held, self._held = self._held, None
        return held

    def arrange(self, block: Block, tables: Sequence[str | None], present: Present) -> Block | None:
        """A joined block's rows in order; None: none is left for now.

        ``tables`` names the target's table by schema index, None where rows have no key there.
        """
        suspects = _suspects(block, tables, self._first)
        if not suspects:
            return block
        order = _Order(block, self._first)
        places = _places(block, tables, suspects)
        asked = [place for place, rows in places.items() if order.is_open(rows)]
        taken = _taken(asked, present)
        for place, rows in places.items():
            order.settle(rows, taken=place in taken or not order.creates(rows[0]))
        if order.held:
            self._held = block.select(sorted(order.held))
        return order.block()


class _Order:
    """The new order of a block's rows: what follows which row, and what is left out."""

    def __init__(self, block: Block, first: int) -> None:
        self._of, self._first, self._whole = block, first, whole_rows(block)
        self._displaced: set[int] = set()
        self._behind: defaultdict[int, list[int]] = defaultdict(list)
        self.held: list[int] = []

    def creates(self, row: int) -> bool:
        """Whether a row adds one: a create, or what an update has made of one that waits."""
        return self._of.op[row] == CREATE or row < self._first

    def is_open(self, rows: Sequence[int]) -> bool:
        """Whether it matters if one key's first row finds the key taken."""
        return self.creates(rows[0]) and (len(rows) > 1 or rows[0] >= self._whole)

    def settle(self, rows: Sequence[int], *, taken: bool) -> None:
        """One key's rows; ``taken``: the target holds a row under it before the first."""
        block, waiting, last = self._of, list[int](), rows[0]
        for row in rows:
            if block.transaction[row] != block.transaction[last]:
                self._let_in(waiting, last)
            op, before = block.op[row], block.befores[row]
            own = _find(block, waiting, before)
            if op == TRUNCATE:
                waiting.clear()
                taken = False
            elif self.creates(row) and taken and row not in block.unchanged:
                self._displaced.add(row)
                waiting.append(row)
            elif op == DELETE and own >= 0:
                self._displaced.add(row)
                del waiting[own]
            elif op == DELETE:
                taken = bool(waiting)
                self._let_in(waiting, row, 1)
            elif op == UPDATE and own >= 0:
                self._displaced.add(row)
                waiting[own] = row
            else:
                if before is None:  # no identity that is FULL, so no key twice
                    self._let_in(waiting, last)
                taken = True
            last = row
        if last >= self._whole:
            self.held += waiting
        else:
            self._let_in(waiting, last)

    def _let_in(self, waiting: list[int], row: int, most: int | None = None) -> None:
        """Those who waited follow this row, or the other half of its key change."""
        block = self._of
        if block.op[row] == DELETE and row in block.moved and row + 1 in block.moved:
            row += 1
        self._behind[row] += waiting[:most]
        del waiting[:most]

    def block(self) -> Block | None:
        """The rows in their new order."""
        block = self._of
        out = Derived(block)
        numbers = [out.schema(schema) for schema in block.schemas]
        for row in self._rows():
            out.keep(row, numbers[block.schema[row]])
        return out.block()

    def _rows(self) -> Iterator[int]:
        for row in range(len(self._of)):
            if row not in self._displaced:
                yield row
            yield from self._behind.get(row, ())


def _suspects(block: Block, tables: Sequence[str | None], first: int) -> set[Place]:
    """Keys that may stand for two rows at once: created in a transaction that moves or deletes."""
    rows = [*range(first), *_made_and_deleted(block)]
    rows += [row for row in block.moved if block.op[row] == CREATE and row not in block.unchanged]
    places = ((tables[block.schema[row]], block.keys[row]) for row in rows)
    return {(table, key) for table, key in places if table is not None and key is not None}


def _made_and_deleted(block: Block) -> Iterator[int]:
    """Deletes of keys that the same transaction has created before, or a later row creates."""
    ops, keys, transactions = block.op, block.keys, block.transaction
    if DELETE not in ops or CREATE not in ops:
        return
    rows, creates = range(len(ops)), ops.translate(_CREATES)
    newest = dict(zip(compress(keys, creates), compress(rows, creates), strict=True))
    for row in compress(rows, ops.translate(_DELETES)):
        made = newest.get(keys[row])
        if made is not None and (made > row or transactions[made] == transactions[row]):
            yield row


def _places(
    block: Block, tables: Sequence[str | None], suspects: set[Place]
) -> dict[Place, list[int]]:
    """The rows of each suspect, truncates of its table among them."""
    wanted = {key for _, key in suspects}
    names = {table for table, _ in suspects}
    rows: dict[Place, list[int]] = {place: [] for place in suspects}
    for row, key in enumerate(block.keys):
        table = tables[block.schema[row]]
        if table is None:
            continue
        if key is not None and key in wanted and (table, key) in rows:
            rows[table, key].append(row)
        elif block.op[row] == TRUNCATE and table in names:
            for place in suspects:
                if place[0] == table:
                    rows[place].append(row)
    return rows


def _taken(asked: Sequence[Place], present: Present) -> set[Place]:
    """The places where the target has a row."""
    keys: defaultdict[str, list[bytes]] = defaultdict(list)
    for table, key in asked:
        keys[table].append(key)
    return {(table, key) for table, some in keys.items() for key in present(table, some)}


def _find(block: Block, waiting: Sequence[int], before: Fragment) -> int:
    """Which of the rows that wait looks like this image; -1: none."""
    if waiting and before is not None:
        for i, row in enumerate(waiting):
            if _alike(block.afters[row] or b"{}", before):
                return i
    return -1


def _alike(one: bytes, other: bytes) -> bool:
    if one == other:
        return True
    # A column may have been added or dropped in between.
    a, b = orjson.loads(one), orjson.loads(other)
    return all(a[name] == b[name] for name in a.keys() & b.keys())


def _joined(held: Block, block: Block) -> Block:
    """Rows that wait, of one transaction, and the block that came behind them."""
    waits = held.transactions[held.transaction[0]]
    same = [
        i
        for i, other in enumerate(block.transactions)
        if (other.xid, other.commit_lsn) == (waits.xid, waits.commit_lsn)
    ]
    number = same[0] if same else len(block.transactions)
    first, schemas = len(held), len(held.schemas)
    streamed = {} if block.marker == STREAMED else dict.fromkeys(range(first), STREAMED)
    return replace(
        block,
        schemas=(*held.schemas, *block.schemas),
        transactions=block.transactions if same else (*block.transactions, waits),
        op=held.op + block.op,
        schema=held.schema + array("H", [schemas + i for i in block.schema]),
        transaction=array("I", [number] * first) + block.transaction,
        lsn=held.lsn + block.lsn,
        ordinal=held.ordinal + block.ordinal,
        keys=[*held.keys, *block.keys],
        befores=[*held.befores, *block.befores],
        afters=[*held.afters, *block.afters],
        unchanged={first + row: v for row, v in block.unchanged.items()},
        moved=held.moved | {first + row: v for row, v in block.moved.items()},
        markers=streamed | {first + row: v for row, v in block.markers.items()},
        offsets=[*held.offsets, *block.offsets],
        headers=held.headers | {first + row: v for row, v in block.headers.items()},
    )
