"""What a sink does not subscribe to is no concern of its, whatever it comes together with."""

from __future__ import annotations

from pathlib import Path

from cdc.runtime.topics import TopicFilter
from tests.blocks import INT32, STRING, Source
from tests.contract.targets import SqliteTarget, started


def test_tables_whose_topics_are_left_out_neither_end_it_nor_are_they_made(tmp_path: Path) -> None:
    """One transaction has rows of all of them, so one block has their schemas."""
    shop, target = Source(), SqliteTarget(tmp_path, **{"pk.fields": "id"})
    orders = shop.table("orders", id=INT32)
    keyless = shop.table("logs", key=(), text=STRING)
    stock = shop.table("stock", key=("sku",), sku=STRING)
    shop.begin()
    shop.insert(keyless, text="a")
    shop.insert(orders, id=1)
    shop.insert(stock, sku="b")
    shop.commit()
    block = TopicFilter([orders.destination]).apply(shop.block())
    assert block is not None
    assert (block.schemas, list(block.offsets)) == ((orders,), [1])
    task = started(target)
    task.put(block)
    task.flush(3)
    task.stop()
    assert set(target.tables()) == {"orders", "cdc_offsets"}
