"""The source loop, in this process, over a real journal."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from cdc.api import Batch, Lane
from cdc.errors import (
    ConnectionLost,
    LogError,
    LogFull,
    LogLocked,
)
from cdc.log.journal import Journal
from cdc.runtime import source_loop
from cdc.runtime.chain import Chain
from cdc.runtime.observer import Observer
from cdc.runtime.runners import TaskSpec, make_runner
from cdc.runtime.source_loop import QueueLimits, SourceLoop
from cdc.runtime.state import DataDir
from cdc.runtime.tolerance import ErrorCounters, Operator, Tolerance
from tests.fix_postgres import Database
from tests.plugins import counter
from tests.runtime.loops import WAIT_S, Watch, run_source, stored_numbers, write
from tests.runtime.workers import eventually


def test_a_graceful_stop_appends_and_confirms_what_was_polled(
    tmp_path: Path, source_config: Any
) -> None:
    config = source_config()
    with Journal.open(tmp_path / "journal") as journal:
        run_source(journal, config, 500)
        position = journal.state().stream_position
    stored = stored_numbers(tmp_path / "journal")
    assert len(stored) >= 500
    assert stored == list(range(len(stored)))
    assert position == {"next": len(stored)}
    assert counter.read_confirmed(config["confirmed.file"]) == len(stored)


def test_a_second_run_continues_without_gap_or_double(tmp_path: Path, source_config: Any) -> None:
    for _ in range(3):
        with Journal.open(tmp_path / "journal") as journal:
            run_source(journal, source_config(), 300)
    stored = stored_numbers(tmp_path / "journal")
    assert len(stored) >= 900
    assert stored == list(range(len(stored)))


@pytest.mark.parametrize(("failure", "error"), [("lost", ConnectionLost), ("bug", ValueError)])
def test_an_error_of_the_task_ends_the_loop_and_keeps_what_was_polled(
    tmp_path: Path, source_config: Any, failure: str, error: type[Exception]
) -> None:
    """Whatever is tolerated: that is of records, and what poll() raises is of none."""
    tolerant = Chain([], Operator(Tolerance(tolerate=True)), sink=False)
    with Journal.open(tmp_path / "journal") as journal:
        task = counter.CounterSourceTask(source_config(), "count")
        watch = Watch()
        watch.loop = loop = SourceLoop(task, journal, events=watch, chain=tolerant)
        watch.until = lambda: watch.rows >= 200 and write(tmp_path / "fail", f"poll={failure}")
        loop.stop = lambda: None  # type: ignore[method-assign]
        with pytest.raises(error):
            loop.run()
    assert tolerant.operator.count == ErrorCounters()
    stored = stored_numbers(tmp_path / "journal")
    assert stored == list(range(len(stored)))
    assert len(stored) >= 200


def test_an_error_of_the_log_ends_the_loop_and_confirms_nothing_more(source_config: Any) -> None:
    class Broken(_FakeSpace):
        def append(self, batch: Batch) -> int:
            raise LogError("the disk is gone")

    config = source_config()
    with pytest.raises(LogError, match="the disk is gone"):
        SourceLoop(counter.CounterSourceTask(config, "count"), Broken()).run()
    assert counter.read_confirmed(config["confirmed.file"]) == 0


class _FakeSpace:
    """A log without space until it is given some: the journal's LogFull, on demand."""

    dropped_rows = 0

    def __init__(self) -> None:
        self.full = False
        self.stored: list[Batch] = []
        self.refused = threading.Event()

    def state(self) -> Any:
        from cdc.api import LogState

        return LogState()

    def append(self, batch: Batch) -> int:
        if self.full:
            self.refused.set()
            raise LogFull(f"no space: {errno.ENOSPC}")
        self.stored.append(batch)
        return 1

    def read(self, offset: int) -> None:
        return None


class _Commits(counter.CounterSourceTask):
    """Tells what was committed, in order."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.commits: list[tuple[Lane, int]] = []
        self.again = threading.Semaphore(0)
        self.polls = 0

    def poll(self, timeout_s: float) -> list[Batch]:
        self.polls += 1
        return super().poll(timeout_s)

    def commit(self, lane: Lane, position: Any) -> None:
        self.commits.append((lane, position.get("next", -1)))
        self.again.release()
        super().commit(lane, position)


def test_a_full_log_stops_polling_but_not_keep_alives_and_nothing_is_confirmed(
    source_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_loop, "FULL_WAIT_S", 0.01)
    log, task = _FakeSpace(), _Commits(source_config(), "count")
    loop = SourceLoop(task, log, limits=QueueLimits(records=200))
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        while len(log.stored) < 20:
            assert task.again.acquire(timeout=WAIT_S)
        log.full = True
        assert log.refused.wait(WAIT_S)
        stored = log.stored[-1].position["next"]
        while task.commits.count((Lane.STREAM, stored)) < 5:  # the newest, again and again
            assert task.again.acquire(timeout=WAIT_S)
        polls = task.polls
        for _ in range(5):
            assert task.again.acquire(timeout=WAIT_S)
        assert task.polls == polls
        assert max(position for _, position in task.commits) == stored
        log.full = False
    finally:
        loop.stop()
        thread.join(WAIT_S)
    assert not thread.is_alive()


def test_a_log_that_is_full_from_the_start_keeps_the_connection_alive(
    source_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_loop, "FULL_WAIT_S", 0.01)
    log, task = _FakeSpace(), _Commits(source_config(), "count")
    log.full = True
    loop = SourceLoop(task, log, limits=QueueLimits(records=200))
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        for _ in range(5):  # an empty position, again and again
            assert task.again.acquire(timeout=WAIT_S)
    finally:
        loop.stop()
        thread.join(WAIT_S)
    assert set(task.commits) == {(Lane.STREAM, -1)}


def test_a_stop_does_not_wait_for_space(source_config: Any) -> None:
    log = _FakeSpace()
    log.full = True
    loop = SourceLoop(counter.CounterSourceTask(source_config(), "count"), log)
    thread = threading.Thread(target=loop.run)
    thread.start()
    assert log.refused.wait(WAIT_S)
    loop.stop()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert not log.stored


def test_the_queue_is_bounded_in_bytes_too(source_config: Any) -> None:
    log = _FakeSpace()
    log.full = True
    task = _Commits(source_config(), "count")
    loop = SourceLoop(task, log, limits=QueueLimits(records=1 << 30, nbytes=2000))
    thread = threading.Thread(target=loop.run)
    thread.start()
    assert log.refused.wait(WAIT_S)
    loop.stop()
    thread.join(WAIT_S)
    assert 0 < loop._queue.nbytes < 2 * 2000  # one poll may overshoot


def test_poll_and_commit_come_from_one_thread(tmp_path: Path, source_config: Any) -> None:
    with Journal.open(tmp_path / "journal") as journal:
        watch = Watch()
        task = counter.CounterSourceTask(source_config(), "count")
        watch.loop = SourceLoop(task, journal, events=watch)
        watch.until = lambda: watch.rows >= 300
        watch.loop.run()
    assert task._calls_from == {threading.get_ident()}


def test_a_locked_journal_ends_a_source_before_it_touches_the_server(
    tmp_path: Path, database: Database
) -> None:
    """Else the second of two workers would make, or take over, a slot that it cannot serve."""
    with database.connect() as connection:
        info = connection.info
        config = {
            "name": "shop", "connector.class": "postgres", "topic.prefix": "shop",
            "database.hostname": info.host, "database.port": str(info.port),
            "database.user": info.user, "database.password": info.password,
            "database.dbname": database.name, "slot.name": f"slot_{database.name}",
        }  # fmt: skip
    spec = TaskSpec("shop", "source", config, str(tmp_path))
    slots = "SELECT 1 FROM pg_replication_slots WHERE database = current_database()"
    with Journal.open(DataDir(tmp_path).journal("shop")):
        with pytest.raises(LogLocked):
            make_runner(spec, Observer()).run()
        assert not database.execute(slots)
        assert not database.execute("SELECT 1 FROM pg_publication")
    # The order it is that keeps the slot away: with the journal free, the same task makes one.
    runner = make_runner(spec, Observer())
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        eventually(lambda: database.execute(slots))
    finally:
        runner.stop()
        thread.join()
