"""Transactions whose end a chain has dropped before the journal: no sink waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cdc.api import Batch, Lane, SinkContext
from cdc.block import Block
from cdc.log.journal import Journal
from cdc.log.reader import JournalReader
from cdc.runtime.offsets import Offsets
from cdc.runtime.sink_loop import SinkLoop, SinkSettings
from cdc.runtime.topics import TopicFilter
from tests.blocks import INT64, Source
from tests.fix_postgres import Database
from tests.plugins import counter
from tests.runtime.loops import WAIT_S, Watch
from tests.runtime.test_postgres_through_a_worker import copy, rows, source
from tests.runtime.workers import Worker, eventually

OPEN = {"commit_lsn": 7, "ordinal": 2, "lsn": 5}
SECONDS = 5.0


def half_a_transaction() -> Block:
    shop = Source()
    table = shop.table("t", n=INT64, key=["n"])
    shop.begin()
    shop.insert(table, n=1)
    shop.insert(table, n=2)
    return shop.block()


class Whole(counter.LedgerSinkTask):
    whole_transactions = True


@pytest.mark.parametrize("sink", [counter.LedgerSinkTask, Whole])
def test_what_a_position_says_is_whole_is_flushed_without_its_end(
    tmp_path: Path, source_config: Callable[..., Any], sink: Any
) -> None:
    watch = Watch()
    with Journal.open(tmp_path / "journal") as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, close=True))
        journal.append(Batch(Lane.STREAM, {"open": OPEN}, half_a_transaction()))
        with JournalReader(tmp_path / "journal") as reader:
            assert not reader.settled()
            task = sink(source_config())
            loop = watch.loop = SinkLoop(
                task,
                SinkContext("ledger", tmp_path),
                {"journal": reader},
                Offsets(tmp_path / "ledger.db"),
                topics=TopicFilter(regex=".*"),
                settings=SinkSettings(flush_interval_s=0.01, idle_wait_s=0.01),
                events=watch,
            )
            watch.until = lambda: "stored 2" in watch.log
            thread = threading.Thread(target=loop.run)
            thread.start()
            try:
                time.sleep(0.3)  # thirty looks, and nothing to be seen of the end
                assert "stored 2" not in watch.log
                journal.append(Batch(Lane.STREAM, {"open": None}))
                assert watch.flag.wait(WAIT_S)
            finally:
                loop.stop()
                thread.join(WAIT_S)
    assert len(counter.numbers(tmp_path / "ledger")) == 2


def test_the_newest_stream_position_says_whether_all_stored_is_whole(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal, JournalReader(tmp_path) as reader:
        assert reader.settled()
        journal.append(Batch(Lane.SNAPSHOT, {"open": OPEN}))  # no stream's
        assert reader.settled()
        journal.append(Batch(Lane.SNAPSHOT, {}, close=True))
        for opened in (OPEN, None, OPEN):
            journal.append(Batch(Lane.STREAM, {"open": opened}))
            assert reader.settled() is (opened is None)
        journal.append(Batch(Lane.STREAM, {}, close=True))  # a source that never cuts one
        assert reader.settled()


def test_a_copy_has_a_transaction_whose_last_rows_were_filtered_away(
    worker: Worker, database: Database
) -> None:
    for table in ("a", "b"):
        database.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, note text)")
    drop_b = {
        "transforms": "drop",
        "transforms.drop.type": "org.apache.kafka.connect.transforms.Filter",
        "transforms.drop.predicate": "of_b",
        "predicates": "of_b",
        "predicates.of_b.type": "org.apache.kafka.connect.transforms.predicates.TopicNameMatches",
        "predicates.of_b.pattern": r".*\.b",
    }
    worker.create(source(database, **drop_b, **{"max.batch.size": "500"}))
    worker.create(copy(worker))
    target = worker.folder / "copy.db"
    database.execute("INSERT INTO a VALUES (0, 'first')")
    eventually(lambda: rows(target, "a") == {0: "first"})
    with database.connect() as connection, connection.transaction():
        for table in ("a", "b"):
            connection.execute(
                f"INSERT INTO {table} SELECT i, 'new' FROM generate_series(1, 5000) i".encode()
            )
    began = time.monotonic()
    eventually(lambda: len(rows(target, "a")) == 5001)
    assert time.monotonic() - began < SECONDS
    assert rows(target, "b") == {}
