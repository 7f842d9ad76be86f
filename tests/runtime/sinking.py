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
from cdc.runtime import plugins
from cdc.runtime.chain import Chain
from cdc.runtime.deadletters import DeadLetters, Letter
from cdc.runtime.delivery import Delivery
from cdc.runtime.offsets import Offsets
from cdc.runtime.sink_loop import SinkLoop, SinkSettings
from tests.runtime.loops import WAIT_S, Watch
from tests.runtime.steps import Step

DEAD = {
    "errors.tolerance": "all",
    "errors.deadletterqueue.topic.name": "dead",
    "errors.deadletterqueue.context.headers.enable": "true",
}


class Copy:
    """A connector named ``copy``: its journal ``shop``, its store, its target."""

    def __init__(self, folder: Path, config: Mapping[str, str] | None = None) -> None:
        self.folder = folder
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

    def append(self, *blocks: Block) -> int:
        """Store blocks as a source does; the next offset."""
        with Journal.open(self.journal) as journal:
            state = journal.state()
            if not state.snapshot_closed:
                journal.append(Batch(Lane.SNAPSHOT, {"lsn": 0}, close=True))
            for block in blocks:
                journal.append(Batch(Lane.STREAM, {"lsn": max(block.lsn)}, block))
        with JournalReader(self.journal) as reader:
            return reader.bounds()[1]

    def run(
        self,
        steps: Sequence[Step] | None = None,
        *,
        until: Callable[[], bool] | None = None,
    ) -> None:
        """Run the sink to the journal's end, or until a condition holds, or an error.

        ``steps`` stand for the configured chain.
        """
        plugin, config = plugins.configure(self.written)
        task_class = plugin.load()
        takes_records = getattr(task_class, "takes_records", False)
        self.delivery = Delivery.of(
            config, self.store, connector="copy", takes_records=takes_records
        )
        if steps is not None:
            self.delivery.chain = Chain(steps, self.delivery.operator, sink=True)
        offsets, reader = Offsets(self.store), JournalReader(self.journal)
        end = reader.bounds()[1]
        self.watch = Watch()
        loop = SinkLoop(
            task_class(config),
            SinkContext("copy", self.folder, {}, self.delivery.reporter),
            {"shop": reader},
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
            return store.letters()

    def ask(self, *, stale: bool = False) -> int:
        with closing(DeadLetters(self.store)) as store:
            return store.ask(None, stale=stale)

    def position(self) -> int | None:
        with closing(Offsets(self.store)) as offsets:
            return offsets.load()["shop"].offset
