"""The SQL sink begins no transaction in its target before the source's has ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cdc.api import Batch, Lane, SinkContext
from cdc.block import Block
from cdc.log.journal import Journal
from cdc.log.reader import JournalReader
from cdc.record import whole_rows
from cdc.runtime.offsets import Offsets
from cdc.runtime.sink_loop import SinkLoop, SinkSettings
from cdc.runtime.topics import TopicFilter
from tests.blocks import INT32, Source
from tests.contract.targets import PostgresTarget
from tests.fix_postgres import Database
from tests.pipeline import until


@contextmanager
def running(target: PostgresTarget, folder: Path) -> Iterator[SinkLoop]:
    with JournalReader(folder / "shop") as reader:
        offsets = Offsets(folder / "copy.db")
        loop = SinkLoop(
            target.task(),
            SinkContext("copy", folder),
            {"shop": reader},
            offsets,
            topics=TopicFilter(regex=".*"),
            settings=SinkSettings(flush_rows=1, flush_interval_s=0.01, idle_wait_s=0.01),
        )
        thread = threading.Thread(target=loop.run, daemon=True)
        thread.start()
        try:
            yield loop
        finally:
            loop.stop()
            thread.join(10)
            assert not thread.is_alive()
        offsets.close()


def append(journal: Journal, block: Block) -> None:
    at = block.offsets[-1]
    opened = None if whole_rows(block) == len(block) else at
    journal.append(Batch(Lane.STREAM, {"at": at, "open": opened}, block))


def opened(database: Database) -> int:
    """How many transactions of the sink are open on the server."""
    (found,) = database.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cdc copy'"
        " AND (backend_xid IS NOT NULL OR state = 'idle in transaction')"
    )
    return int(found[0])


def test_no_slot_waits_for_a_sink_that_waits_for_the_rest_of_a_transaction(
    database: Database, tmp_path: Path
) -> None:
    target, shop = PostgresTarget(database), Source()
    table = shop.table("items", id=INT32)

    def ids() -> list[int]:
        if "items" not in target.tables():
            return []
        return [row["id"] for row in target.query("SELECT id FROM items ORDER BY id")]

    with Journal.open(tmp_path / "shop") as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        shop.insert(table, id=1)
        shop.begin()
        shop.insert(table, id=2)
        append(journal, shop.block())
        with running(target, tmp_path):
            until(lambda: ids() == [1], "the transaction that is whole")
            for id_ in (3, 4):
                shop.insert(table, id=id_)
                append(journal, shop.block())
            until(lambda: opened(database) == 0, "no transaction to be open")
            with database.connect(options="-c statement_timeout=5s") as connection:
                slot = f"slot_{database.name}"
                connection.execute(
                    "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot]
                )
                connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            assert ids() == [1]
            assert opened(database) == 0
            shop.insert(table, id=5)
            shop.commit()
            append(journal, shop.block())
            until(lambda: ids() == [1, 2, 3, 4, 5], "the rest")


@pytest.mark.parametrize("rest", ["another transaction", "a truncated one"])
def test_a_transaction_whose_end_nobody_says_ends_where_another_begins(
    database: Database, tmp_path: Path, rest: str
) -> None:
    target, shop = PostgresTarget(database), Source()
    table = shop.table("items", id=INT32)
    with Journal.open(tmp_path / "shop") as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        shop.begin()
        shop.insert(table, id=1)
        append(journal, shop.block())
        shop.commit()
        shop.block()
        if rest == "another transaction":
            shop.insert(table, id=2)
        else:
            shop.truncate(table)
            shop.insert(table, id=2)
        append(journal, shop.block())
        with running(target, tmp_path):
            until(
                lambda: "items" in target.tables() and target.query("SELECT 1 FROM items"),
                "rows",
            )
        found = [row["id"] for row in target.query("SELECT id FROM items ORDER BY id")]
        assert found == ([1, 2] if rest == "another transaction" else [2])
