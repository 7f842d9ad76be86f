"""What the log and the status say of errors and of topics that match nothing; wake-ups."""

from __future__ import annotations

import logging
import os
import selectors
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from cdc.api import Batch, Lane
from cdc.block import Block
from cdc.log.journal import Journal
from cdc.log.reader import JournalReader
from cdc.runtime.channel import Receiver
from cdc.runtime.connector import Connector, Task
from cdc.runtime.observer import Observer
from cdc.runtime.retry import Restarts
from cdc.runtime.state import DataDir, Saved
from cdc.runtime.supervisor import Settings, Supervisor
from cdc.runtime.topics import TopicFilter, Unmatched, nearest
from tests.blocks import INT64, Source
from tests.runtime.loops import WAIT_S
from tests.runtime.workers import Worker, cdc, eventually

METRICS = "kafka_connect_connect_worker_metrics_"


# --- errors


def test_a_foreseen_error_is_one_line_in_the_log_and_a_trace_in_the_status(
    worker: Worker, tmp_path: Path
) -> None:
    (tmp_path / "count.fail").write_text("start=mismatch")
    worker.create(worker.counter())
    worker.until("count", "RUNNING", "FAILED")
    assert worker.trace("count").startswith(
        "org.apache.kafka.connect.errors.ConnectException: the counter went back\nTraceback (most"
    )
    line = "count-0 has failed: PositionMismatch: the counter went back ("
    eventually(lambda: line in worker.log.read_text())
    assert "Traceback" not in worker.log.read_text()


def test_a_bug_keeps_its_trace_in_the_log(start: Callable[..., Worker], tmp_path: Path) -> None:
    settings = tmp_path / "worker.properties"
    settings.write_text("task.restart.max=0\n")
    begun = start(settings)
    (tmp_path / "count.fail").write_text("start=bug")
    begun.create(begun.counter())
    begun.until("count", "RUNNING", "FAILED")
    line = "a bug in the counter\nTraceback (most recent call last)"
    text = eventually(lambda: line in begun.log.read_text() and begun.log.read_text())
    assert "ValueError: a bug in the counter" in text


def test_starts_are_counted_and_shares_of_the_time_too(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "bad.fail").write_text("start=mismatch")
    worker.create(worker.counter())
    worker.create(worker.counter("bad"))
    worker.until("bad", "RUNNING", "FAILED")
    worker.until("count", "RUNNING", "RUNNING")
    text = worker("GET", "/metrics").text
    for sample in (
        "connector_startup_attempts_total 2",
        "connector_startup_success_total 2",
        "connector_startup_failure_total 0",
        "task_startup_attempts_total 2",
        "task_startup_success_total 1",
        "task_startup_success_percentage 0.5",
        "task_startup_failure_total 1",
    ):
        assert f"{METRICS}{sample}\n" in text, sample
    own = 'connector="count"'
    said = f'connector_metrics_connector_class{{{own},connector_class="counter"}} 1'
    assert f"kafka_connect_{said}" in text
    ratio = f'kafka_connect_connector_task_metrics_%s_ratio{{{own},task="0"}} '
    rate = f'kafka_connect_source_task_metrics_source_record_%s_rate{{{own},task="0"}} '

    def value(name: str) -> float:
        found = [line for line in worker("GET", "/metrics").text.splitlines() if name in line]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    eventually(lambda: value(ratio % "running") > 0.5)
    eventually(lambda: value(rate % "write") > 10)
    assert value(rate % "poll") > 10
    worker("PUT", "/connectors/count/pause")
    eventually(lambda: 0 < value(ratio % "pause") < 1)


def test_a_task_that_starts_again_in_place_is_one_start() -> None:
    task = Task("copy", "sink", Restarts())
    for message in ({"m": "note", "text": "no topic"}, {"m": "started"}, {"m": "started"}):
        task.hear(message)
    assert (task.startups.success, task.status("w")["trace"]) == (1, "no topic")
    task.ended(-9, "STARTED", 0.0)
    task.ended(1, "STARTED", 0.0)  # the next process did not get as far
    assert (task.startups.success, task.startups.failure) == (1, 1)
    assert "no topic" not in task.status("w")["trace"]


def test_a_sink_whose_target_is_out_of_reach_says_so_until_it_is_not() -> None:
    task = Task("copy", "sink", Restarts())
    away = {"m": "retrying", "error": "login refused\n  by the target (retry)"}
    said = "target out of reach, tried again: login refused by the target (retry)"
    task.ended(-9, "STARTED", 0.0)
    task.hear(away)  # before its first start, or after one that ended
    assert (task.state, task.status("w")["trace"]) == ("RESTARTING", said)
    for heard in ({"m": "started"}, {"m": "metrics", "values": {}}):
        task.hear(heard)
        assert (task.state, "trace" in task.status("w")) == ("RUNNING", False)
        task.hear(away)
        assert task.status("w")["trace"] == said
    task.ended(0, "PAUSED", 0.0)
    task.settle("PAUSED")
    assert "trace" not in task.status("w")


def test_a_copy_that_cannot_reach_its_target_is_seen_in_the_status(worker: Worker) -> None:
    worker.create(worker.counter(rows=200))
    worker.create(
        {
            "name": "copy",
            "connector.class": "sql",
            "topics.regex": "count.*",
            "connection.url": "jdbc:postgresql://127.0.0.1:1/copy",
        }
    )
    said = "target out of reach, tried again: "
    found = eventually(lambda: worker.trace("copy"))
    assert found.startswith(said)
    assert "onnection refused" in found
    assert said in cdc("status", "--data-dir", worker.data).stdout
    assert worker.state("copy") == ("RUNNING", "UNASSIGNED")


# --- topics that match nothing


def test_misspelt_topics_are_said_once_with_the_nearest(worker: Worker) -> None:
    worker.create(worker.counter(rows=200))
    worker.create(worker.ledger(topics="count.public.number", topics_regex=""))
    said = (
        "topics=count.public.number matches none of the 1 topics in count."
        " The nearest: count.public.numbers"
    )
    assert eventually(lambda: worker.trace("ledger")) == said
    assert worker.state("ledger") == ("RUNNING", "RUNNING")
    shown = cdc("status", "--data-dir", worker.data)
    assert said in shown.stdout
    assert shown.returncode == 0
    assert worker.log.read_text().count(said) == 1
    # mended, it is silent
    worker("PATCH", "/connectors/ledger/config", {"topics": "count.public.numbers"})
    eventually(lambda: worker.trace("ledger") == "")


def test_topics_of_no_source_are_said_too(worker: Worker) -> None:
    """With another prefix the sink has no journal to read at all."""
    worker.create(worker.counter(rows=200))
    eventually(lambda: len(worker.stored()) == 200)
    worker.create(worker.ledger(topics="conut.public.numbers", topics_regex=""))
    said = eventually(lambda: worker.trace("ledger"))
    assert said.endswith("The nearest: count.public.numbers")


class Heard(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def noted(self, text: str) -> None:
        self.notes.append(text)


def journal_of(path: Path, *tables: str, closed: bool = True) -> Block:
    source = Source()
    for table in tables:
        source.insert(source.table(table, n=INT64, key=["n"]), n=1)
    block = source.block()
    with Journal.open(path) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None if closed else block, close=closed))
        if closed:
            journal.append(Batch(Lane.STREAM, {}, block))
    return block


def test_what_matches_later_takes_the_note_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal_of(tmp_path / "j", "items", "orders", "ordered")
    topics, heard = TopicFilter(["srv.public.order"]), Heard()
    unmatched = Unmatched(topics, {"j": tmp_path / "j"}, heard)
    with caplog.at_level(logging.WARNING):
        unmatched.look()
        unmatched.look()
    (said,) = heard.notes
    assert said == (
        "topics=srv.public.order matches none of the 3 topics in j."
        " The nearest: srv.public.orders, srv.public.ordered, srv.public.items"
    )
    assert caplog.messages == [said]
    assert topics.apply(journal_of(tmp_path / "later", "order"))
    unmatched.look()
    assert heard.notes == [said, ""]


@pytest.mark.parametrize(
    ("regex", "tables", "closed"),
    [
        (r"srv\.public\..*", ["orders"], True),  # it matches what was read before this start
        ("nothing", ["orders"], False),  # the snapshot is under way
        ("nothing", [], True),  # nobody knows any topic yet
    ],
)
def test_a_choice_that_may_be_right_is_not_remarked_upon(
    tmp_path: Path, regex: str, tables: list[str], closed: bool
) -> None:
    journal_of(tmp_path / "j", *tables, closed=closed)
    heard = Heard()
    Unmatched(TopicFilter(regex=regex), {"j": tmp_path / "j"}, heard).look()
    Unmatched(TopicFilter(regex=regex), {"j": tmp_path / "absent"}, heard).look()
    assert heard.notes == []


def test_the_nearest_topics_of_a_regular_expression() -> None:
    held = ["shop.public.orders", "shop.public.items", "crm.public.people"]
    assert nearest(TopicFilter(regex=r"shop\.pubic\.orders?"), held)[0] == "shop.public.orders"
    assert nearest(TopicFilter(regex="zzz"), held) == sorted(held)


# --- wake-ups


def test_a_sink_that_is_woken_reads_at_once(tmp_path: Path, source_config: Any) -> None:
    """With nothing but the wake-up to go by: its own look would come after half a minute."""
    from cdc.api import SinkContext
    from cdc.runtime.offsets import Offsets
    from cdc.runtime.sink_loop import SinkLoop, SinkSettings
    from tests.plugins import counter

    source = Source()
    table = source.table("t", n=INT64, key=["n"])
    stored: list[int] = []

    class Stored(Observer):
        def stored(self, positions: Any) -> None:
            stored.append(positions["j"])

    with Journal.open(tmp_path / "j") as journal, JournalReader(tmp_path / "j") as reader:
        journal.append(Batch(Lane.SNAPSHOT, {}, close=True))

        def run() -> None:
            offsets = Offsets(tmp_path / "sink.db")
            loops.append(
                SinkLoop(
                    counter.LedgerSinkTask(source_config()),
                    SinkContext("ledger", tmp_path),
                    {"j": reader},
                    offsets,
                    topics=TopicFilter(regex=".*"),
                    settings=SinkSettings(idle_wait_s=WAIT_S),
                    events=Stored(),
                )
            )
            loops[0].run()
            offsets.close()

        loops: list[SinkLoop] = []
        thread = threading.Thread(target=run)
        thread.start()
        try:
            eventually(lambda: stored)
            time.sleep(1.5)  # it has nothing left to do, and waits
            for number in range(3):
                source.insert(table, n=number)
                journal.append(Batch(Lane.STREAM, {}, source.block()))
                began = time.monotonic()
                loops[0].wake()
                eventually(lambda: stored[-1] == number + 1)  # noqa: B023
                assert time.monotonic() - began < 5
        finally:
            loops[0].stop()
            thread.join()


def test_what_a_source_appends_wakes_the_sinks_that_read_it(tmp_path: Path) -> None:
    class Process:
        """A task's process as far as it is told things."""

        def __init__(self, messages: Receiver | None = None) -> None:
            self.messages, self.told = messages, list[dict[str, Any]]()

        def tell(self, command: dict[str, Any]) -> bool:
            self.told.append(command)
            return True

    made = Supervisor(DataDir(tmp_path), Settings(), lambda _: [], lambda: None)
    read, write = os.pipe()
    processes: dict[str, Any] = {}
    for name, kind, journals in (
        ("shop", "source", []),
        ("copy", "sink", ["shop", "crm"]),
        ("other", "sink", ["crm"]),
    ):
        task = Task(name, kind, Restarts(), journals=journals)
        messages = Receiver(read) if kind == "source" else None
        task.process = processes[name] = Process(messages)  # type: ignore[assignment]
        made.connectors[name] = Connector(Saved(name, {}, "STARTED"), kind, task)
    made._selector.register(read, selectors.EVENT_READ, made.connectors["shop"].task)
    os.write(write, orjson.dumps({"m": "appended", "rows": 1}) + b"\n")
    made._receive([read])
    assert processes["copy"].told == [{"c": "wake"}]
    assert processes["other"].told == processes["shop"].told == []
    made._selector.unregister(read)
    os.close(read)
    os.close(write)
    for task in made.tasks():
        task.process = None
    made.close()
