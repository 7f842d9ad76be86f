"""Workers and their task processes: what happens when either dies, stops or fails."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plugins import counter
from tests.runtime import workers
from tests.runtime.test_chain import chain_config
from tests.runtime.workers import Worker, alive, eventually

KILLS = 20
CONNECT = "org.apache.kafka.connect.errors.ConnectException: "


def test_whatever_is_killed_the_journal_holds_every_number_once(
    start: Callable[..., Worker],
) -> None:
    worker = start()
    worker.create(worker.counter(transaction_rows=7))
    worker.create(worker.ledger())
    chance = random.Random(20)
    for _ in range(KILLS):
        before = len(worker.numbers())
        step = chance.randrange(1, 400)
        eventually(lambda: len(worker.numbers()) > before + step, "more numbers")  # noqa: B023
        victims = worker.pids()
        if victims:
            os.kill(chance.choice(victims), signal.SIGKILL)
    assert worker.end() == 0
    stored = worker.stored()
    assert stored == list(range(len(stored)))
    assert set(worker.numbers()) == set(range(max(worker.numbers()) + 1))
    assert counter.read_confirmed(worker.folder / "count.confirmed") == len(stored)


def test_a_killed_worker_takes_its_tasks_along_and_the_next_one_goes_on(
    start: Callable[..., Worker],
) -> None:
    worker = start()
    worker.create(worker.counter())
    worker.create(worker.ledger())
    for _ in range(3):
        before = len(worker.numbers())
        eventually(lambda: len(worker.numbers()) > before + 100)  # noqa: B023
        tasks = worker.pids()
        assert len(tasks) == 2
        worker.kill()
        eventually(lambda: not any(map(alive, tasks)), "the tasks to die")  # noqa: B023
        worker = start()
    assert worker.end() == 0
    stored = worker.stored()
    assert stored == list(range(len(stored)))
    assert set(worker.numbers()) == set(range(max(worker.numbers()) + 1))


def test_without_the_kernels_help_a_task_still_ends_with_its_worker(
    start: Callable[..., Worker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, which has no PR_SET_PDEATHSIG: the end of the worker's pipe is what tells."""
    asked = tmp_path / "asked"
    (tmp_path / "sitecustomize.py").write_text(
        "from pathlib import Path\n"
        "from cdc import parent\n"
        f"parent.die_with = lambda pid: Path({str(asked)!r}).open('a').write('x')\n"
    )
    path = workers.environment()["PYTHONPATH"]
    more = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{path}"}
    monkeypatch.setattr(workers, "environment", lambda: {**os.environ, **more})
    worker = start()
    worker.create(worker.counter())
    worker.create(worker.ledger())
    eventually(worker.numbers)
    tasks = worker.pids()
    assert len(tasks) == len(asked.read_text()) == 2
    worker.kill()
    eventually(lambda: not any(map(alive, tasks)), "the tasks to end")


def test_sigterm_ends_it_flushed_and_confirmed(start: Callable[..., Worker]) -> None:
    worker = start()
    worker.create(worker.counter())
    worker.create(worker.ledger())
    eventually(lambda: len(worker.numbers()) > 500)
    tasks = worker.pids()
    assert worker.end() == 0
    assert not any(map(alive, tasks))
    assert not (worker.data / "worker.json").exists()
    stored = worker.stored()
    assert counter.read_confirmed(worker.folder / "count.confirmed") == len(stored)
    flushed = counter.ledger(worker.folder / "ledger")[-1]["flush"]
    assert worker.numbers() == list(range(flushed))


def test_a_task_that_cannot_end_is_killed_and_the_worker_goes(
    start: Callable[..., Worker], tmp_path: Path
) -> None:
    settings = tmp_path / "worker.properties"
    settings.write_text("task.shutdown.graceful.timeout.ms=300\n")
    worker = start(settings)
    worker.create(worker.counter())
    worker.until("count", "RUNNING", "RUNNING")
    (task,) = worker.pids()
    os.kill(task, signal.SIGSTOP)
    assert worker.end() == 0
    assert not alive(task)


def test_an_error_restarts_the_task_until_its_restarts_are_used_up(
    start: Callable[..., Worker], tmp_path: Path
) -> None:
    settings = tmp_path / "worker.properties"
    settings.write_text("task.restart.max=2\ntask.restart.backoff.ms=10\n")
    worker = start(settings)
    (tmp_path / "count.fail").write_text("start=bug")
    worker.create(worker.counter())
    worker.until("count", "RUNNING", "FAILED")
    assert "ValueError: a bug in the counter" in worker.trace("count")
    assert restarts(worker) == 2
    (tmp_path / "count.fail").unlink()
    assert worker("POST", "/connectors/count/tasks/0/restart").status == 204
    worker.until("count", "RUNNING", "RUNNING")
    assert worker.trace("count") == ""


def test_a_server_that_is_away_is_waited_for(start: Callable[..., Worker], tmp_path: Path) -> None:
    settings = tmp_path / "worker.properties"
    settings.write_text(
        "task.restart.max=1\ntask.restart.backoff.ms=10\ntask.restart.backoff.max.ms=20\n"
    )
    worker = start(settings)
    (tmp_path / "count.fail").write_text("start=lost")
    worker.create(worker.counter())
    eventually(lambda: restarts(worker) >= 4)
    (tmp_path / "count.fail").unlink()
    worker.until("count", "RUNNING", "RUNNING")


def test_progress_gives_a_task_all_its_restarts_back(
    start: Callable[..., Worker], tmp_path: Path
) -> None:
    settings = tmp_path / "worker.properties"
    settings.write_text("task.restart.max=1\ntask.restart.backoff.ms=10\n")
    worker = start(settings)
    worker.create(worker.counter())
    for killed in range(1, 4):
        before = len(worker.stored()) if killed > 1 else 0
        eventually(lambda: worker.stored() and len(worker.stored()) > before)  # noqa: B023
        worker.until("count", "RUNNING", "RUNNING")
        (task,) = worker.pids()
        os.kill(task, signal.SIGKILL)
        eventually(lambda: restarts(worker) == killed)  # noqa: B023
    worker.until("count", "RUNNING", "RUNNING")


def test_an_error_that_waiting_does_not_mend_is_never_retried(
    worker: Worker, tmp_path: Path
) -> None:
    chain = chain_config(("ExtractField$Value", {"field": "nope"}))
    unset = "${env:CDC_IS_NOT_SET}"
    said = f"went back (password: {unset} stays as it is: nothing has that name)\n"
    for failure, more, text in (
        ("start=config", {}, "ConfigError: rows: the counter is misspelt. Spell it"),
        ("start=mismatch", {"password": unset}, f"PositionMismatch: the counter {said}"),
        ("none", chain, f"{CONNECT}Tolerance exceeded in error handler\nCaused by: java.lang."),
    ):
        (tmp_path / "count.fail").write_text(failure)
        worker.create(worker.counter(**more))
        worker.until("count", "RUNNING", "FAILED")
        assert text in worker.trace("count")
        assert restarts(worker) == 0
        assert worker("DELETE", "/connectors/count").status == 204
    assert worker.stored() == []
    assert not (tmp_path / "count.confirmed").exists()


def test_a_bug_in_a_task_touches_nobody_else(worker: Worker, tmp_path: Path) -> None:
    worker.create(worker.counter())
    worker.create(worker.ledger())
    worker.create(worker.ledger("other"))
    eventually(lambda: worker.numbers("other"))
    (tmp_path / "other.fail").write_text("put=rejected")
    worker.until("other", "RUNNING", "FAILED")
    trace = worker.trace("other")
    assert trace.startswith(
        f"{CONNECT}Exiting WorkerSinkTask due to unrecoverable exception.\n"
        f"Caused by: {CONNECT}the ledger takes no numbers\nTraceback (most recent call last)"
    )
    assert trace.splitlines()[-1] == "cdc.errors.SinkRejected: the ledger takes no numbers"
    seen = len(worker.numbers())
    eventually(lambda: len(worker.numbers()) > seen + 100)
    (tmp_path / "other.fail").unlink()
    answer = worker("POST", "/connectors/other/restart?includeTasks=true&onlyFailed=true")
    assert answer.status == 202
    assert [task["state"] for task in answer.body["tasks"]] == ["RESTARTING"]
    eventually(lambda: len(worker.numbers("other")) > seen)
    numbers = worker.numbers("other")
    assert sorted(set(numbers)) == list(range(len(set(numbers))))


def test_a_target_out_of_reach_is_waited_for(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "ledger.fail").write_text("put=unavailable")
    worker.create(worker.counter())
    worker.create(worker.ledger())
    worker.until("ledger", "RUNNING", "RUNNING")
    eventually(lambda: "[ledger|task-0] target out of reach" in worker.log.read_text())
    assert restarts(worker, "ledger") == 0
    (tmp_path / "ledger.fail").unlink()
    eventually(lambda: len(worker.numbers()) > 200)


def test_a_pause_a_stop_and_a_connector_made_over_rest_survive_a_restart(
    start: Callable[..., Worker],
) -> None:
    worker = start()
    worker.create(worker.counter())
    worker.create(worker.ledger("stopped"))
    assert worker("PUT", "/connectors/count/pause").status == 202
    assert worker("PUT", "/connectors/stopped/stop").status == 204
    worker.until("count", "PAUSED", "PAUSED")
    worker.until("stopped", "STOPPED", "")
    assert worker.end() == 0
    worker = start()
    assert worker.state("count") == ("PAUSED", "PAUSED")
    assert worker.state("stopped") == ("STOPPED", "")
    assert worker.pids() == []
    assert worker("PUT", "/connectors/count/resume").status == 202
    worker.until("count", "RUNNING", "RUNNING")
    assert worker("PUT", "/connectors/stopped/resume").status == 202
    eventually(lambda: worker.numbers("stopped"))


def test_a_file_wins_over_what_was_kept(start: Callable[..., Worker], tmp_path: Path) -> None:
    worker = start()
    worker.create(worker.counter(rows=200))
    worker.end()
    file = tmp_path / "count.json"
    file.write_text(json.dumps(worker.counter(rows=300)))
    worker = start(file)
    assert worker("GET", "/connectors/count/config").body["rows"] == "300"
    eventually(lambda: len(worker.stored()) == 300)


def test_a_source_that_is_deleted_and_made_again_goes_on(worker: Worker) -> None:
    worker.create(worker.ledger())
    worker.create(worker.counter(rows=200))
    eventually(lambda: len(worker.numbers()) == 200)
    assert worker("DELETE", "/connectors/count").status == 204
    assert worker("GET", "/connectors/count").status == 404
    assert 'cdc_slot_orphaned{connector="count"} 1' in worker("GET", "/metrics").text
    worker.create(worker.counter(rows=400))
    eventually(lambda: len(worker.numbers()) == 400)
    assert worker.numbers() == list(range(400))
    assert "cdc_slot_orphaned" not in worker("GET", "/metrics").text


def test_a_sink_takes_up_a_source_that_comes_later(worker: Worker) -> None:
    worker.create(worker.counter(rows=200))
    worker.create(worker.ledger())
    eventually(lambda: len(worker.numbers()) == 200)
    worker.create(worker.counter("second", rows=150))
    eventually(lambda: len(worker.numbers()) == 350)
    offsets = worker("GET", "/connectors/ledger/offsets").body["offsets"]
    eventually(lambda: len(worker("GET", "/connectors/ledger/offsets").body["offsets"]) == 2)
    assert all(entry["partition"]["kafka_partition"] == 0 for entry in offsets)


def test_a_changed_configuration_restarts_the_task(worker: Worker) -> None:
    worker.create(worker.counter(rows=200))
    eventually(lambda: len(worker.stored()) == 200 if worker.pids() else 0)
    answer = worker("PUT", "/connectors/count/config", worker.counter(rows=350))
    assert answer.status == 200
    eventually(lambda: len(worker.stored()) == 350)
    answer = worker("PATCH", "/connectors/count/config", {"rows": 400, "tasks.max": None})
    assert answer.body["config"]["rows"] == "400"
    eventually(lambda: len(worker.stored()) == 400)
    assert worker.stored() == list(range(400))


def restarts(worker: Worker, name: str = "count") -> int:
    prefix = f'cdc_task_restarts_total{{connector="{name}",task="0"}} '
    lines = worker("GET", "/metrics").text.splitlines()
    return int(next((x.removeprefix(prefix) for x in lines if x.startswith(prefix)), -1))
