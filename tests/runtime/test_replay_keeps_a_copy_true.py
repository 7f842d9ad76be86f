"""Any sequence of changes, replays, kills and retention leaves the target as the journal says.

A copy and a search index are the source's rows; the chain in use of an audit is the journal from
where the last replay began. Which places are there is known: those are taken, others refused.

Rows change their keys, and values are not sent; not so where retention takes the values that a
replay needs then: the target has to know them, which it does not where it deletes them again.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from cdc.api import Batch, Lane, SinkContext
from cdc.block import Block
from cdc.errors import ConfigError
from cdc.log.journal import Journal
from cdc.log.reader import JournalReader
from cdc.runtime import replay
from cdc.runtime.observer import Observer
from cdc.runtime.offsets import Offsets
from cdc.runtime.replay import Sink
from cdc.runtime.sink_loop import SinkLoop, SinkSettings
from cdc.runtime.state import DataDir
from cdc.runtime.topics import TopicFilter
from sinks import audit, search, sql
from sinks.audit_chain import Hasher
from sinks.audit_check import check, tables_of
from sinks.audit_target import open_store
from sinks.search_index import unpacked
from tests.blocks import INT32, STRING, Source, optional
from tests.contract.targets import COPY, check_words
from tests.runtime.loops import run_in_time

IDS = st.integers(1, 6)


def lsn_text(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def moment_text(us: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).isoformat()


class Killed(BaseException):
    """The end of a process, as a loop sees it: nothing runs any more."""


class Mortal:
    """A sink that dies at its n-th call, before or after it; the target takes back what is open.

    To be put before a sink's class among its bases.
    """

    life = 1 << 30

    def _live(self) -> None:
        self.life -= 1
        if self.life <= 0:
            raise Killed

    def put(self, block: Block) -> None:
        self._live()
        super().put(block)  # type: ignore[misc]
        self._live()

    def flush(self, offset: int) -> None:
        self._live()
        super().flush(offset)  # type: ignore[misc]
        self._live()

    def seek(self, offset: int, epoch: int) -> None:
        self._live()
        super().seek(offset, epoch)  # type: ignore[misc]
        self._live()


class Until(Observer):
    """Ends the loop when all is stored."""

    loop: SinkLoop

    def __init__(self, end: int) -> None:
        self.end = end

    def stored(self, positions: Mapping[str, int]) -> None:
        if positions["shop"] >= self.end:
            self.loop.stop()


class MortalCopy(Mortal, sql.SqlSinkTask):
    """Rows in SQLite."""


class MortalIndex(Mortal, search.SearchSinkTask):
    """Documents."""


class MortalAudit(Mortal, audit.AuditSinkTask):
    """A chain."""


class Transaction(NamedTuple):
    """Offsets ``[begin, end)`` of one in the journal, and its commit."""

    begin: int
    end: int
    lsn: int
    us: int


class Replays(RuleBasedStateMachine):
    """``rows`` is the source's table; the target must be it after every complete run.

    ``begun``: where the last replay began. ``tried``: how many were taken and refused.
    """

    task: type[Any] = MortalCopy
    tried: ClassVar[Counter[bool]] = Counter()

    @initialize(empty=st.integers(0, 3), unsent=st.booleans())
    def begin(self, empty: int = 0, unsent: bool = False) -> None:
        self.unsent = unsent
        self.folder = tempfile.TemporaryDirectory()
        self.data = DataDir(self.folder.name)
        self.data.prepare()
        self.db = Path(self.folder.name) / "target.db"
        self.written = {"name": "copy", "topics.regex": ".*", **self.options()}
        self.needed = self.begun = 0
        self.journal = Journal.open(
            self.data.journal("shop"), segment_bytes=1, segment_seconds=0.0,
            needed=lambda: self.needed,
        )  # fmt: skip
        self.shop = Source()
        self.table = self.shop.table("items", id=INT32, note=optional(STRING))
        self.rows: dict[int, str] = {}
        self.transactions: list[Transaction] = []
        self.journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        if empty:  # 1 in 4 stays so at first: there a replay has nowhere to begin
            self.change([(1, "u", "a")], False)

    def options(self) -> dict[str, str]:
        """The sink's own."""
        return {"connector.class": "sql", **COPY, "connection.url": f"jdbc:sqlite:{self.db}"}

    def check(self) -> None:
        """After a complete run."""
        assert self._copied() == self.rows

    @rule(changes=st.lists(st.tuples(IDS, st.sampled_from("udkm"), st.text("ab", max_size=2)),
                           min_size=1, max_size=6), cuts=st.booleans())  # fmt: skip
    def change(self, changes: list[tuple[int, str, str]], cuts: bool) -> None:
        shop, begin = self.shop, self.shop.offset
        shop.begin()
        for number, (id_, op, note) in enumerate(changes):
            if op in "km":
                self._leave_unsent(id_, len(note) if op == "m" else None)
            elif op == "d" and id_ in self.rows:
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
        last = shop._transactions[-1]
        self._append()
        self.transactions.append(Transaction(begin, shop.offset, last.commit_lsn, last.commit_us))

    def _leave_unsent(self, id_: int, by: int | None) -> None:
        """Change a row without its note; ``by``: to another key."""
        if not self.unsent or id_ not in self.rows:
            return
        new = None if by is None else (id_ + by) % 6 + 1
        if new is None:
            self.shop.update(self.table, unchanged=["note"], id=id_)
        elif new not in self.rows:
            note = self.rows[new] = self.rows.pop(id_)
            old = {"id": id_, "note": note}
            self.shop.change_key(self.table, old, {"id": new}, unchanged=["note"])

    def _append(self) -> None:
        block = self.shop.block()
        if len(block):
            self.journal.append(Batch(Lane.STREAM, {"n": self.shop.offset}, block))

    @rule(share=st.floats(0, 1),
          kind=st.sampled_from(["offset", "lsn", "time", "beginning", "none"]),
          settled=st.booleans())  # fmt: skip
    def replay(self, share: float, kind: str, settled: bool) -> None:
        with JournalReader(self.journal.path) as reader:
            first, after = reader.bounds()
        offset = first + int(share * (after - first))
        positions = self._positions()
        text, start = self._place(kind, offset, first)
        legal = start is not None and after > first and start <= positions.get("shop", start)
        self.tried[legal] += 1
        sink = Sink("copy", self.written, {}, ["shop"], positions)
        request = replay.read_request({"from": text})
        if not legal:
            before = self._positions()
            with pytest.raises(ConfigError):
                replay.make_plan(self.data, sink, request)
            assert self._positions() == before
            return
        plan = replay.make_plan(self.data, sink, request)
        assert (plan.start, plan.end) == (start, after)
        replay.intend(self.data, plan)
        if settled:
            replay.settle(self.data, "copy")
        self.begun = plan.start

    def _place(self, kind: str, offset: int, first: int) -> tuple[str, int | None]:
        """A place, and where a replay from there begins; None where it is not in the journal."""
        there = [t for t in self.transactions if t.end > first]
        found = next((t for t in there if t.end > offset), there[-1] if there else None)
        if kind == "beginning":
            return kind, first
        if kind == "none" or found is None:
            beyond = self.transactions[-1] if self.transactions else Transaction(0, 0, 1, 1)
            us = beyond.us + 3_600_000_000
            return [str(self.shop.offset + 1), lsn_text(beyond.lsn + (1 << 40)), moment_text(us)][
                offset % 3
            ], None
        begin = max(found.begin, first)
        if kind == "offset":
            return str(offset), begin if offset < found.end else offset
        return lsn_text(found.lsn) if kind == "lsn" else moment_text(found.us), begin

    @rule()
    def retention(self) -> None:
        """What the sink has passed may go."""
        if self.unsent:
            return
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
            self.check()

    def _run(self, life: int) -> None:
        with JournalReader(self.journal.path) as reader:
            first, after = reader.bounds()
            if first == after:
                return
            offsets = Offsets(self.data.sink("copy"))
            task, until = self._task(), Until(after)
            task.life = life
            until.loop = loop = SinkLoop(
                task, SinkContext("copy", Path(self.folder.name)), {"shop": reader}, offsets,
                topics=TopicFilter(regex=".*"), settings=SinkSettings(flush_rows=3),
                events=until,
            )  # fmt: skip
            try:
                run_in_time(loop)
            except Killed:
                pass
            finally:
                task.stop()
                offsets.close()

    def _task(self) -> Any:
        declared: Any = {"sql": sql, "search": search, "audit": audit}
        config = declared[self.written["connector.class"]].CONFIG.parse(self.options())
        return self.task(config)

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


class Documents(Replays):
    """A search index."""

    task = MortalIndex
    tried: ClassVar[Counter[bool]] = Counter()

    def options(self) -> dict[str, str]:
        return {
            "connector.class": "search", "search.file": str(self.db), "search.columns": ".*:note",
        }  # fmt: skip

    def check(self) -> None:
        check_words(self.db)
        with closing(sqlite3.connect(self.db)) as db:
            found = db.execute("SELECT key, layout, body FROM documents").fetchall()
        notes = {int(key): unpacked(layout, body).get("note", "") for key, layout, body in found}
        assert notes == self.rows


class Chains(Replays):
    """An audit: nothing of what is in a table ever changes."""

    task = MortalAudit
    tried: ClassVar[Counter[bool]] = Counter()

    def options(self) -> dict[str, str]:
        return {"connector.class": "audit", "connection.url": f"jdbc:sqlite:{self.db}"}

    def check(self) -> None:
        store = open_store(str(self.db), existing=True)
        try:
            tables = tables_of(store)
            for table in tables:
                report = check(store, table, Hasher(None))
                assert report.ok, report.problem
                offsets = [row[2] for row in store.records(table.name)]
                assert offsets == list(range(offsets[0], offsets[-1] + 1)) if offsets else True
            assert [table.retired for table in tables].count(False) == 1
            assert offsets == list(range(self.begun, self.shop.offset))
        finally:
            store.close()


MACHINES = {"copy": (Replays, 15), "search": (Documents, 10), "audit": (Chains, 10)}


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_any_sequence(name: str) -> None:
    machine, examples = MACHINES[name]
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


@pytest.mark.parametrize("name", ["copy", "search"])
def test_a_key_change_takes_no_value_of_the_row_that_has_its_key_by_now(name: str) -> None:
    """Replayed on a target that is ahead: under the old key it has another row, or none."""
    for between in ([(1, "u", "other")], [], [(1, "u", "other"), (1, "m", "aa")]):
        machine: Any = MACHINES[name][0]()
        machine.begin(empty=0, unsent=True)
        machine.change([(1, "u", "own")], cuts=False)
        machine.change([(1, "k", "")], cuts=False)
        machine.change([(1, "m", "")], cuts=False)  # 1 → 2, with its note
        machine.change([(2, "k", "")], cuts=True)
        if between:
            machine.change(between, cuts=False)
        machine.run()
        assert machine.rows[2] == "own"
        for transaction in machine.transactions:
            share = transaction.begin / machine.shop.offset
            machine.replay(share, "offset", settled=False)
            machine.run_and_be_killed(3)
            machine.run()
        machine.teardown()


@pytest.mark.parametrize("name", MACHINES)
def test_one_sequence_of_each(name: str) -> None:
    machine: Any = MACHINES[name][0]()
    machine.tried.clear()
    machine.begin()
    machine.change([(1, "u", "a"), (2, "u", "b")], cuts=False)
    machine.run()
    machine.change([(1, "d", ""), (3, "u", "a"), (2, "u", ""), (4, "u", "b")], cuts=True)
    machine.replay(1.0, "offset", settled=False)  # ahead of the sink
    machine.replay(0.0, "beginning", settled=False)
    machine.run_and_be_killed(3)
    machine.run_and_be_killed(2)
    machine.retention()
    machine.run()
    for kind in ("lsn", "time"):
        machine.replay(0.6, kind, settled=True)
        machine.run_and_be_killed(4)
    for share in (0.0, 0.3, 0.6):
        machine.replay(share, "none", settled=True)
    assert machine.tried == {True: 3, False: 4}
    machine.teardown()
