"""A sink loop with its delivery over a real journal and a real target, for tests."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from cdc.api import Batch, Lane, SinkContext
from cdc.block import Block
from cdc.log.journal import Journal
from cdc.log.reader import JournalReader
from cdc.record import Record
from cdc.runtime import plugins
from cdc.runtime.chain import Chain
from cdc.runtime.deadletters import DeadLetters, Letter
from cdc.runtime.delivery import Delivery
from cdc.runtime.offsets import Offsets
from cdc.runtime.sink_loop import SinkLoop, SinkSettings
from schemas import DataError, EventSchema
from tests.blocks import INT32, STRING, Source, optional
from tests.runtime.loops import WAIT_S, Watch
from tests.runtime.steps import Step

CAST = "org.apache.kafka.connect.transforms.Cast$Value"
DEAD = {
    "errors.tolerance": "all",
    "errors.deadletterqueue.topic.name": "dead",
    "errors.deadletterqueue.context.headers.enable": "true",
}


class Copy:
    """A connector named ``copy``: its journal ``shop``, or several, its store, its target."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, str] | None = None,
        journals: Sequence[str] = ("shop",),
    ) -> None:
        self.folder = folder
        self.journals = {name: folder / "journal" / name for name in journals}
        self.journal = folder / "journal" / "shop"
        self.store = folder / "sinks" / "copy.db"
        self.target = folder / "copy.sqlite"
        self.written = {
            "name": "copy",
            "connector.class": "sql",
            "topics.regex": "srv.*",
            "connection.url": f"sqlite:///{self.target}",
            "insert.mode": "upsert",
            "pk.mode": "record_key",
            "delete.enabled": "true",
            "auto.create": "true",
            "table.name.format": "${source.table}",
            **(config or {}),
        }
        self.watch = Watch()
        self.delivery: Delivery

    def append(self, *blocks: Block, to: str = "shop") -> int:
        """Store blocks as a source does; the next offset."""
        with Journal.open(self.journals[to]) as journal:
            state = journal.state()
            if not state.snapshot_closed:
                journal.append(Batch(Lane.SNAPSHOT, {"lsn": 0}, close=True))
            for block in blocks:
                journal.append(Batch(Lane.STREAM, {"lsn": max(block.lsn)}, block))
        with JournalReader(self.journals[to]) as reader:
            return reader.bounds()[1]

    def run(
        self,
        steps: Sequence[Step] | None = None,
        *,
        until: Callable[[], bool] | None = None,
    ) -> None:
        """Run the sink to the journals' ends, or until a condition holds, or an error.

        ``steps`` stand for the configured chain.
        """
        plugin, config = plugins.configure(self.written)
        task_class = plugin.load()
        self.delivery = Delivery.of(
            config, self.store, connector="copy", takes_records=task_class.takes_records
        )
        if steps is not None:
            self.delivery.chain = Chain(steps, self.delivery.operator, sink=True)
        offsets = Offsets(self.store)
        readers = {name: JournalReader(path) for name, path in self.journals.items()}
        end = sum(reader.bounds()[1] for reader in readers.values())
        self.watch = Watch()
        loop = SinkLoop(
            task_class(config),
            SinkContext("copy", self.folder, {}, self.delivery.reporter),
            readers,
            offsets,
            topics=plugins.topic_filter(config),
            delivery=self.delivery,
            settings=SinkSettings(flush_interval_s=0.05),
            events=self.watch,
        )
        self.watch.loop = loop
        self.watch.until = until or (lambda: f"stored {end}" in self.watch.log)
        timer = threading.Timer(WAIT_S, loop.stop)
        timer.start()
        try:
            loop.run()
        finally:
            timer.cancel()
            for reader in readers.values():
                reader.close()
            offsets.close()
            self.delivery.close()

    def rows(self, table: str = "orders") -> list[dict[str, Any]]:
        """A table of the target; none where it is not there."""
        with closing(sqlite3.connect(self.target)) as database:
            database.row_factory = sqlite3.Row
            known = "SELECT 1 FROM sqlite_master WHERE name = ?"
            if database.execute(known, [table]).fetchone() is None:
                return []
            return [dict(row) for row in database.execute(f'SELECT * FROM "{table}" ORDER BY 1')]

    def letters(self) -> list[Letter]:
        with closing(DeadLetters(self.store)) as store:
            return list(store.letters())

    def ask(self, *, stale: bool = False) -> int:
        with closing(DeadLetters(self.store)) as store:
            return store.ask(None, stale=stale)

    def position(self) -> int | None:
        with closing(Offsets(self.store)) as offsets:
            return offsets.load()["shop"].offset


class Shop:
    """A source with one table, which a test says the rows of."""

    def __init__(self) -> None:
        self.source = Source(context={"run": "7"})
        self.orders: EventSchema = self.source.table(
            "orders", id=INT32, note=optional(STRING), price=optional(INT32)
        )

    def insert(self, *ids: int) -> Block:
        for number in ids:
            self.source.insert(self.orders, id=number, note=f"n{number}", price=number * 10)
        return self.source.block()


def bad(*ids: int, error: Exception | None = None) -> Step:
    """A transform that fails for some rows, deletes included."""

    def call(record: Record) -> Record:
        if record.key.get("id") in ids:
            raise error or DataError("Field price is not what it should be")
        return record

    return Step(call, CAST)


def with_check(copy: Copy) -> None:
    """The target takes no row with the price 30 or 50."""
    with closing(sqlite3.connect(copy.target)) as database:
        database.execute(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT, price INTEGER,"
            " CHECK (price NOT IN (30, 50)))"
        )
        database.commit()


def refused(copy: Copy, shop: Shop) -> None:
    with_check(copy)
    copy.append(shop.insert(1, 2, 3, 4))
    copy.run()


def mend(copy: Copy) -> None:
    with closing(sqlite3.connect(copy.target)) as database:
        database.executescript(
            "CREATE TABLE new (id INTEGER PRIMARY KEY, note TEXT, price INTEGER);"
            "INSERT INTO new SELECT * FROM orders; DROP TABLE orders;"
            "ALTER TABLE new RENAME TO orders"
        )


def drained(copy: Copy) -> Callable[[], bool]:
    return lambda: not any(letter.replay for letter in copy.letters())


def until_drained(copy: Copy) -> None:
    """Run until no letter is asked for any more, stopping from the side."""
    ended = threading.Event()

    def watch() -> None:
        done = drained(copy)
        while not ended.wait(0.02):
            if copy.watch.loop is not None and done():
                copy.watch.loop.stop()

    thread = threading.Thread(target=watch)
    copy.watch.loop = None
    thread.start()
    try:
        copy.run(until=lambda: False)
    finally:
        ended.set()
        thread.join()
