"""Any sequence of changes, replays, kills and retention leaves the copy as the source was."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from cdc.api import Batch, Lane, SinkContext
from cdc.block import Block
from cdc.errors import ConfigError
from cdc.log.journal import Journal
from cdc.log.reader import JournalReader
from cdc.runtime import replay
from cdc.runtime.events import Events
from cdc.runtime.offsets import Offsets
from cdc.runtime.replay import Sink
from cdc.runtime.sink_loop import SinkLoop, SinkSettings
from cdc.runtime.state import DataDir
from cdc.runtime.topics import TopicFilter
from sinks import sql
from tests.blocks import INT32, STRING, Source, optional
from tests.contract.targets import COPY
from tests.runtime.loops import WAIT_S

IDS = st.integers(1, 6)


class Killed(BaseException):
    """The end of a process, as a loop sees it: nothing runs any more."""


class Mortal(sql.SqlSinkTask):
    """A sink that dies at its n-th call, before or after it; the target takes back what is open."""

    life = 1 << 30

    def _live(self) -> None:
        self.life -= 1
        if self.life <= 0:
            raise Killed

    def put(self, block: Block) -> None:
        self._live()
        super().put(block)
        self._live()

    def flush(self, offset: int) -> None:
        self._live()
        super().flush(offset)
        self._live()

    def seek(self, offset: int, epoch: int) -> None:
        self._live()
        super().seek(offset, epoch)
        self._live()


class Until(Events):
    """Ends the loop when all is stored."""

    loop: SinkLoop

    def __init__(self, end: int) -> None:
        self.end = end

    def stored(self, positions: Mapping[str, int]) -> None:
        if positions["shop"] >= self.end:
            self.loop.stop()


class Copies(RuleBasedStateMachine):
    """``rows`` is the source's table; the copy must be it after every complete run."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.data = DataDir(self.folder.name)
        self.data.prepare()
        self.db = Path(self.folder.name) / "copy.db"
        config = {**COPY, "connection.url": f"jdbc:sqlite:{self.db}"}
        self.config = sql.CONFIG.parse(config)
        self.written = {"name": "copy", "connector.class": "sql", "topics.regex": ".*", **config}
        self.needed = 0
        self.journal = Journal.open(
            self.data.journal("shop"), segment_bytes=1, segment_seconds=0.0,
            needed=lambda: self.needed,
        )  # fmt: skip
        self.shop = Source()
        self.table = self.shop.table("items", id=INT32, note=optional(STRING))
        self.rows: dict[int, str] = {}
        self.journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))

    @rule(changes=st.lists(st.tuples(IDS, st.sampled_from("ud"), st.text("ab", max_size=2)),
                           min_size=1, max_size=6), cuts=st.booleans())  # fmt: skip
    def change(self, changes: list[tuple[int, str, str]], cuts: bool) -> None:
        shop = self.shop
        shop.begin()
        for number, (id_, op, note) in enumerate(changes):
            if op == "d" and id_ in self.rows:
                shop.delete(self.table, id=id_, note=self.rows.pop(id_))
            elif op == "u" and id_ in self.rows:
                shop.update(self.table, id=id_, note=note)
                self.rows[id_] = note
            elif op == "u":
                shop.insert(self.table, id=id_, note=note)
                self.rows[id_] = note
            if cuts and number == 2:  # the transaction goes on in the next block
                self._append()
        self.rows[9] = "last"  # a source's block that ends a transaction has rows
        shop.insert(self.table, id=9, note="last")
        shop.commit()
        self._append()

    def _append(self) -> None:
        block = self.shop.block()
        if len(block):
            self.journal.append(Batch(Lane.STREAM, {"n": self.shop.offset}, block))

    @rule(share=st.floats(0, 1), kind=st.sampled_from(["offset", "lsn", "beginning"]),
          settled=st.booleans())  # fmt: skip
    def replay(self, share: float, kind: str, settled: bool) -> None:
        with JournalReader(self.journal.path) as reader:
            first, after = reader.bounds()
        offset = first + int(share * (after - first))
        text = {"offset": str(offset), "beginning": "beginning"}.get(kind) or self._lsn(offset)
        sink = Sink("copy", self.written, {}, ["shop"], self._positions())
        try:
            plan = replay.make_plan(self.data, sink, replay.read_request({"from": text}))
        except ConfigError:  # ahead of the sink, or nothing is there
            return
        replay.intend(self.data, plan)
        if settled:
            replay.settle(self.data, "copy")

    def _lsn(self, offset: int) -> str:
        with JournalReader(self.journal.path) as reader:
            block = reader.read(offset)
        lsn = block.lsn[0] if block is not None and len(block) else 1
        return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"

    @rule()
    def retention(self) -> None:
        """What the sink has passed may go."""
        self.needed = min(self._positions().values(), default=0)
        self.journal.prune(self.needed)

    @rule(life=st.integers(1, 12))
    def run_and_be_killed(self, life: int) -> None:
        self._run(life)

    @rule()
    def run(self) -> None:
        self._run(1 << 30)
        with JournalReader(self.journal.path) as reader:
            after = reader.bounds()[1]
        if self.db.exists() and after:
            assert self._copied() == self.rows

    def _run(self, life: int) -> None:
        with JournalReader(self.journal.path) as reader:
            first, after = reader.bounds()
            if first == after:
                return
            offsets = Offsets(self.data.sink("copy"))
            task, until = Mortal(self.config), Until(after)
            task.life = life
            until.loop = loop = SinkLoop(
                task, SinkContext("copy", Path(self.folder.name)), {"shop": reader}, offsets,
                topics=TopicFilter(regex=".*"), settings=SinkSettings(flush_rows=3),
                events=until,
            )  # fmt: skip
            timer = threading.Timer(WAIT_S, loop.stop)
            timer.start()
            try:
                loop.run()
            except Killed:
                pass
            finally:
                timer.cancel()
                task.stop()
                offsets.close()

    def _positions(self) -> dict[str, int]:
        offsets = Offsets(self.data.sink("copy"))
        with closing(offsets):
            return {name: at.offset for name, at in offsets.load().items() if at.offset is not None}

    def _copied(self) -> dict[int, str]:
        with closing(sqlite3.connect(self.db)) as db:
            if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'items'").fetchone():
                return {}
            return dict(db.execute("SELECT id, note FROM items"))

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.run()
            self.journal.close()
            self.folder.cleanup()


Copies.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.slow
class TestCopies(Copies.TestCase):  # type: ignore[name-defined,misc]
    """Hypothesis finds the sequences."""


def test_one_sequence_of_each(tmp_path: Any) -> None:
    machine: Any = Copies()
    machine.begin()
    machine.change([(1, "u", "a"), (2, "u", "b")], cuts=False)
    machine.run()
    machine.change([(1, "d", ""), (3, "u", "a"), (2, "u", ""), (4, "u", "b")], cuts=True)
    machine.replay(0.0, "beginning", settled=False)
    machine.run_and_be_killed(3)
    machine.run_and_be_killed(2)
    machine.retention()
    machine.run()
    machine.replay(0.6, "lsn", settled=True)
    machine.run_and_be_killed(4)
    machine.teardown()
