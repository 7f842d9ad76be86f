"""The sink loop, in this process, over real journals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc.api import NOT_KEPT, Batch, Lane, SinkContext
from cdc.errors import (
    ConfigError,
    LogError,
    OffsetOutOfRange,
    SinkError,
    SinkRejected,
)
from cdc.log.journal import Journal
from cdc.log.reader import JournalReader
from cdc.record import whole_rows
from cdc.runtime import sink_loop
from cdc.runtime.delivery import Delivery
from cdc.runtime.offsets import Offsets
from cdc.runtime.retry import Backoff
from cdc.runtime.sink_loop import SinkLoop, SinkSettings
from cdc.runtime.tolerance import ErrorCounters, Operator, Tolerance
from cdc.runtime.topics import TopicFilter
from tests.blocks import INT32, INT64, Source
from tests.plugins import counter
from tests.runtime.loops import Watch, run_in_time, run_source, write


@pytest.fixture
def journal(tmp_path: Path, source_config: Any) -> Path:
    path = tmp_path / "journal"
    with Journal.open(path) as journal:
        run_source(journal, source_config(rows=1000), 1000)
    return path


class Bench:
    """A sink loop over journals, run until a condition holds."""

    def __init__(self, tmp_path: Path, config: Any, *journals: Path) -> None:
        self.tmp_path, self.config, self.journals = tmp_path, config, journals
        self.db = tmp_path / "sinks" / "ledger.db"
        self.watch = Watch()
        self.task: Any = counter.LedgerSinkTask(config)
        self.tolerance, self.operator = Tolerance(), Operator()

    def run(self, until: Callable[[], bool], topics: str = ".*", **settings: Any) -> Watch:
        offsets, self.operator = Offsets(self.db), Operator(self.tolerance)
        readers = {path.name: JournalReader(path) for path in self.journals}
        loop = SinkLoop(
            self.task,
            SinkContext("ledger", self.tmp_path),
            readers,
            offsets,
            topics=TopicFilter(regex=topics),
            delivery=Delivery(self.operator),
            settings=SinkSettings(**settings),
            events=self.watch,
        )
        self.watch.loop, self.watch.until = loop, until
        try:
            run_in_time(loop)
        finally:
            for reader in readers.values():
                reader.close()
            offsets.close()
        return self.watch

    def run_to(self, offset: int, **more: Any) -> Watch:
        return self.run(lambda: f"stored {offset}" in self.watch.log, **more)

    @property
    def numbers(self) -> list[int]:
        return counter.numbers(self.tmp_path / "ledger")

    @property
    def flushes(self) -> list[int]:
        entries = counter.ledger(self.tmp_path / "ledger")
        return [entry["flush"] for entry in entries if "flush" in entry]


@pytest.fixture
def bench(tmp_path: Path, source_config: Any, journal: Path) -> Bench:
    return Bench(tmp_path, source_config(), journal)


def test_a_sink_gets_the_snapshot_then_the_stream_once_each(bench: Bench) -> None:
    bench.run_to(1000)
    assert bench.numbers == list(range(1000))
    bench.watch.log.clear()
    bench.run(lambda: bool(bench.watch.log))
    assert bench.numbers == list(range(1000))


def test_a_position_is_stored_only_after_its_flush(bench: Bench) -> None:
    def check() -> bool:
        stored = int(bench.watch.log[-1].removeprefix("stored "))
        assert stored == 0 or stored in bench.flushes
        return stored == 1000

    bench.run(check, flush_rows=100)
    assert len(bench.flushes) > 1


def test_rows_of_other_topics_are_passed_by_and_the_position_moves(bench: Bench) -> None:
    bench.run_to(1000, topics="other", flush_interval_s=0.01)
    assert bench.numbers == []


def test_a_topics_regex_must_match_the_whole_topic() -> None:
    assert not TopicFilter(regex="count").takes("count.public.numbers")
    assert TopicFilter(regex="count.*").takes("count.public.numbers")


@pytest.mark.parametrize(
    ("names", "regex", "text"),
    [
        ((), "", "Must configure one of topics or topics.regex"),
        (("a",), "a", "mutually exclusive"),
        ((), "(", "not a regular expression"),
    ],
)
def test_a_sink_without_a_topic_choice_is_refused(
    names: tuple[str, ...], regex: str, text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        TopicFilter(names, regex)


def test_a_filter_picks_rows_by_schema() -> None:
    source = Source()
    one, two = source.table("one", id=INT32), source.table("two", id=INT32)
    for i in range(4):
        source.insert((one, two)[i % 2], id=i)
    wanted = TopicFilter(["srv.public.two"])
    block = wanted.apply(source.block())
    assert block is not None
    assert list(block.offsets) == [1, 3]
    source.insert(one, id=9)
    assert wanted.apply(source.block()) is None


def test_a_target_out_of_reach_gets_the_same_rows_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_loop, "Backoff", lambda: Backoff(first_s=0.01))
    for step in ("start", "put", "flush"):
        write(bench.tmp_path / "fail", f"{step}=unavailable")
        tries = iter(range(100))

        def until(tries: Iterator[int] = tries) -> bool:
            if bench.watch.log[-1] == "retrying" and next(tries) == 1:
                (bench.tmp_path / "fail").unlink()
            return bench.watch.log[-1] == "stored 1000"

        bench.run(until)
        assert bench.watch.log.count("retrying") >= 2
        bench.watch.log.clear()
        assert sorted(set(bench.numbers)) == list(range(1000))
        bench.db.unlink()


@pytest.mark.parametrize(("failure", "error"), [("rejected", SinkRejected), ("bug", ValueError)])
def test_a_rejecting_target_ends_the_task_and_stores_nothing(
    bench: Bench, failure: str, error: type[Exception]
) -> None:
    """Whatever is tolerated: nobody knows which record put() means, unless it reports one."""
    bench.tolerance = Tolerance(tolerate=True)
    write(bench.tmp_path / "fail", f"put={failure}")
    with pytest.raises(error):
        bench.run(lambda: False)
    assert bench.operator.count == ErrorCounters()
    offsets = Offsets(bench.db)
    assert offsets.load()["journal"].offset == 0
    offsets.close()


def test_start_from_latest_skips_what_is_stored(bench: Bench) -> None:
    bench.run_to(1000, start_from="latest")
    assert bench.numbers == []


def test_a_new_sink_is_refused_by_name_where_retention_took_the_snapshot(
    tmp_path: Path, source_config: Any
) -> None:
    path = tmp_path / "journal"
    with Journal.open(path, segment_bytes=1) as journal:
        run_source(journal, source_config(rows=1000), 1000)
        assert journal.prune(500)
    bench = Bench(tmp_path, source_config(), path)
    with pytest.raises(LogError, match=r"ledger is new.*journal journal.*start.from=earliest"):
        bench.run(lambda: False)
    bench.run_to(1000, start_from="earliest")
    assert bench.numbers[-1] == 999
    assert 0 < bench.numbers[0] <= 500


def test_an_offset_that_retention_took_is_named_and_nothing_is_skipped(
    tmp_path: Path, source_config: Any
) -> None:
    path = tmp_path / "journal"
    bench = Bench(tmp_path, source_config(), path)
    with Journal.open(path, segment_bytes=1) as journal:
        run_source(journal, source_config(rows=1000), 1000)
        bench.run(lambda: bench.watch.log[-1] != "stored 0", flush_rows=1)
        assert journal.prune(900)
    with pytest.raises(OffsetOutOfRange, match=r"ledger.*PATCH"):
        bench.run(lambda: False)


def test_a_moved_position_reaches_the_task_as_a_seek_with_a_growing_epoch(bench: Bench) -> None:
    bench.run_to(1000)
    for epoch, offset in ((1, 990), (2, 995)):
        offsets = Offsets(bench.db)
        offsets.move("journal", offset)
        offsets.close()
        bench.watch.log.clear()
        bench.run_to(1000)
        entries = counter.ledger(bench.tmp_path / "ledger")
        assert {"seek": offset, "epoch": epoch} in entries
    assert bench.numbers == [*range(1000), *range(990, 1000), *range(995, 1000)]


def test_a_reset_position_begins_as_a_new_sink_would(bench: Bench) -> None:
    bench.run_to(1000)
    offsets = Offsets(bench.db)
    offsets.move("journal", None)
    offsets.close()
    bench.watch.log.clear()
    bench.run_to(1000)
    assert bench.numbers == [*range(1000)] * 2


class _Keeper(counter.LedgerSinkTask):
    """A target that keeps the offset itself."""

    keeps_offset = True
    kept: int | None = None

    def stored_offset(self) -> int | None:
        return self.kept

    def flush(self, offset: int) -> None:
        super().flush(offset)
        self.kept = offset

    def seek(self, offset: int, epoch: int) -> None:
        super().seek(offset, epoch)
        self.kept = offset


def test_the_targets_own_offset_wins(bench: Bench) -> None:
    bench.task = _Keeper(bench.config)
    bench.task.kept = 900
    bench.run_to(1000)
    assert bench.numbers == list(range(900, 1000))


def test_a_target_that_was_emptied_is_not_filled_from_the_middle(bench: Bench) -> None:
    bench.task = _Keeper(bench.config)
    bench.run_to(1000)
    bench.task = _Keeper(bench.config)
    with pytest.raises(LogError, match=r"no longer holds .* offset, which was 1000"):
        bench.run_to(1000)


def test_several_journals_have_a_position_each_and_no_offset_in_the_target(
    tmp_path: Path, source_config: Any, journal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A sink of somebody else's that keeps one offset."""
    other = tmp_path / "other"
    with Journal.open(other) as writer:
        (tmp_path / "confirmed.json").unlink()
        run_source(writer, source_config(rows=500), 500)
    bench = Bench(tmp_path, source_config(), journal, other)
    bench.task = _Keeper(bench.config)
    bench.task.kept = 700  # of a time when there was one journal
    bench.run_to(1500)
    assert sorted(bench.numbers) == sorted([*range(1000), *range(500)])
    assert bench.task.kept == NOT_KEPT
    assert "at least once; name one of them as source" in caplog.text
    caplog.clear()
    offsets = Offsets(bench.db)
    assert {name: s.offset for name, s in offsets.load().items()} == {"journal": 1000, "other": 500}
    offsets.close()
    # Back to one journal: the stale offset of the target is not believed.
    alone = Bench(tmp_path, source_config(), other)
    alone.task = bench.task
    alone.run_to(500)
    assert alone.task.kept == 500
    assert "at least once" not in caplog.text


def test_with_one_journal_a_flush_never_cuts_a_transaction(
    tmp_path: Path, source_config: Any
) -> None:
    """Every block ends inside a transaction, so each has to be cut to be flushed at all."""
    source = Source()
    table = source.table("t", n=INT64, key=["n"])
    number, ends = 0, {0}
    with Journal.open(tmp_path / "journal") as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, close=True))
        source.begin()
        for _ in range(20):
            for _ in range(3):
                source.insert(table, n=number)
                number += 1
            source.commit()
            ends.add(number)
            source.begin()
            source.insert(table, n=number)
            number += 1
            journal.append(Batch(Lane.STREAM, {}, source.block()))
        source.commit()
        source.insert(table, n=number)
        journal.append(Batch(Lane.STREAM, {}, source.block()))
        ends.add(number + 1)
    bench = Bench(tmp_path, source_config(), tmp_path / "journal")
    bench.run_to(number + 1, flush_rows=1)
    assert bench.numbers == list(range(number + 1))
    assert len(bench.flushes) >= 20
    assert set(bench.flushes) <= ends


def test_the_end_of_what_is_whole_in_a_block() -> None:
    source = Source()
    table = source.table("t", id=INT32)
    source.read(table, id=0)
    assert whole_rows(source.block()) == 1
    source.insert(table, id=1)
    source.begin()
    source.insert(table, id=2)
    source.insert(table, id=3)
    assert whole_rows(source.block()) == 1
    source.insert(table, id=4)
    assert whole_rows(source.block()) == 0
    source.commit()
    source.message("prefix", b"text")
    assert whole_rows(source.block()) == 1


def test_a_transaction_lost_at_the_target_starts_the_task_again_in_place(bench: Bench) -> None:
    class Lost(SinkError):
        retriable = True

    class Loser(counter.LedgerSinkTask):
        starts = 0

        def start(self, context: SinkContext) -> None:
            self.starts += 1
            super().start(context)

        def put(self, block: Any) -> None:
            if self.starts == 1 and block.offsets[0] > 500:
                raise Lost("the transaction is gone")
            super().put(block)

    bench.task = Loser(bench.config)
    bench.run_to(1000)
    assert bench.task.starts == 2
    assert sorted(set(bench.numbers)) == list(range(1000))


def test_a_task_of_a_quiet_journal_is_told_that_time_passes_once_all_is_flushed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_loop, "MEASURE_S", 0.0)
    ticks: list[int] = []

    class Ticking(counter.LedgerSinkTask):
        def tick(self) -> None:
            assert self._buffer == []
            ticks.append(len(bench.numbers))

    bench.task = Ticking(bench.config)
    monkeypatch.setattr(bench.watch, "measured", lambda _: bench.watch._look())
    bench.run(lambda: ticks.count(1000) >= 2, idle_wait_s=0.01)
