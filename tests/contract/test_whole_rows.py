"""Where a block ends inside a transaction: one rule for the runtime and for every sink."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc.record import whole_rows
from tests.blocks import INT32, Source

STEPS = ("insert", "begin", "commit", "read", "block")


@given(st.lists(st.sampled_from(STEPS), max_size=40))
def test_what_is_not_whole_is_the_tail_of_the_transaction_that_is_open(steps: list[str]) -> None:
    shop = Source()
    table = shop.table("items", id=INT32)
    inside = unfinished = 0  # rows of the open transaction in this block
    for step in [*steps, "block"]:
        if step == "begin" and shop._open is None:
            shop.begin()
            inside = 1
        elif step == "commit" and shop._open is not None:
            shop.commit()
            inside = unfinished = 0
        elif step == "insert":
            shop.insert(table, id=1)
            unfinished += inside
        elif step == "read" and not inside:
            shop.read(table, id=1)
        elif step == "block":
            block = shop.block()
            assert whole_rows(block) == len(block) - unfinished
            unfinished = 0


def test_rows_of_a_snapshot_are_whole_wherever_their_block_ends() -> None:
    shop = Source()
    table = shop.table("items", id=INT32)
    shop.begin()
    shop.read(table, "first", id=1)
    assert whole_rows(shop.block()) == 1
