"""Small tables are stored many at once, in order, and none of them is held back for long."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.block import READ, Block, EncodedBlock, Transaction
from cdc.postgres import gather
from cdc.postgres.chunks import Chunk, TableProgress
from cdc.postgres.gather import Gatherer, Stored
from tests.blocks import INT32, event_schema
from tests.pipeline import events_of

SCHEMAS = [event_schema(f"t{n}", {"id": INT32}) for n in range(4)]


def table(number: int, rows: int) -> tuple[list[Chunk], EncodedBlock]:
    """One of a few tables, so that some come again, as partitions do under their root's name."""
    key = [b'{"id":%d}' % row for row in range(rows)]
    block = Block.build(
        [(READ, 0, 0, 5, 0, k, None, k) for k in key],
        (SCHEMAS[number % 4],),
        (Transaction(1, 5, 5, 7, 0),),
        9,
        marker="true",
        markers={0: f"first of {number}"},
    )
    return [Chunk(str(number), 0, 0, None)], block.encode()


def rows_of(stored: list[Stored]) -> list[tuple[str, Any, str]]:
    blocks = [b.decode() if isinstance(b, EncodedBlock) else b.encode().decode() for _, b in stored]
    return [(e.table, e.key, e.marker) for block in blocks for e in events_of(block)]


@given(st.lists(st.tuples(st.integers(1, 700), st.booleans()), max_size=12))
def test_whatever_is_held_back_comes_in_order_with_its_chunks(
    tables: list[tuple[int, bool]],
) -> None:
    gatherer, out, put = Gatherer(), [], []
    for number, (rows, hold) in enumerate(tables):
        chunks, block = table(number, rows)
        put.append((chunks, block))
        out += gatherer.put(chunks, block, hold=hold)
        held = sum(b.rows for _, b in put) - sum(map(count, out))
        assert held <= gather.GATHER_ROWS if hold else held == 0
    out += gatherer.flush()
    assert [c for chunks, _ in out for c in chunks] == [c for chunks, _ in put for c in chunks]
    assert rows_of(out) == rows_of(put)
    if all(hold for _, hold in tables):  # then in as few as there can be
        assert all(count(a) + count(b) > gather.GATHER_ROWS for a, b in pairwise(out))


def count(stored: Stored) -> int:
    block = stored[1]
    return block.rows if isinstance(block, EncodedBlock) else len(block)


def test_nothing_is_held_back_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    gatherer = Gatherer()
    assert gatherer.put(*table(0, 1), hold=True) == gatherer.due() == []
    monkeypatch.setattr(gather, "GATHER_S", 0.0)
    assert [count(stored) for stored in gatherer.due()] == [1]
    assert gatherer.due() == []


def test_many_bytes_are_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks, block = table(0, 10)
    monkeypatch.setattr(gather, "GATHER_BYTES", block.nbytes - 1)
    assert Gatherer().put(chunks, block, hold=True) == [(chunks, block)]


def test_only_the_one_chunk_of_a_table_is_all_of_it() -> None:
    one, more = TableProgress(1, 10, 1, "1:1:"), TableProgress(1, 10, 2, "1:1:")
    keyed = TableProgress(1, 0, 0, "1:1:")
    assert one.is_all(next(one.remaining("t")))
    assert not any(map(more.is_all, more.remaining("t")))
    assert keyed.is_all(next(keyed.remaining("t")))
    assert not keyed.is_all(Chunk("t", 0, 0, None, "keyed", more=True))
    assert not keyed.is_all(Chunk("t", 1, 0, None, "keyed"))
