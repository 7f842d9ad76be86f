"""How a worker with a real source ends, and who may not run beside it."""

from __future__ import annotations

import signal
import time

import pytest

from tests.crash.conftest import MakeRig
from tests.crash.database import SMALL
from tests.crash.rig import SOURCE, eventually
from tests.crash.workload import Workload
from tests.runtime.workers import alive, cdc

pytestmark = pytest.mark.slow
GRACEFUL_S = 10.0


def test_sigterm_under_load_flushes_confirms_and_ends_in_time(make_rig: MakeRig) -> None:
    rig = make_rig(worker={"task.shutdown.graceful.timeout.ms": int(GRACEFUL_S * 1000)})
    worker = rig.start()
    with Workload(rig.dsn, 11, SMALL, pause_s=0.005):
        for _ in range(2):
            before = rig.stored_lsn()
            eventually(lambda: rig.stored_lsn() > before + 50_000, "changes")  # noqa: B023
            tasks = worker.pids()
            assert len(tasks) == 4
            began = time.monotonic()
            worker.process.send_signal(signal.SIGTERM)
            assert worker.process.wait(30) == 0
            assert time.monotonic() - began < GRACEFUL_S
            assert "killed" not in worker.log.read_text()
            assert not any(map(alive, tasks))
            # in order: what is stored is confirmed, to the last transaction
            assert rig.confirmed_lsn() == rig.stored_lsn()
            worker = rig.start()
    rig.catch_up()
    assert rig.end() == 0
    rig.check()


def test_kill_9_and_sigterm_in_a_snapshot_take_tasks_and_readers_along(make_rig: MakeRig) -> None:
    rig = make_rig(worker={"task.shutdown.graceful.timeout.ms": 20_000})
    for end in (signal.SIGKILL, signal.SIGTERM):
        worker = rig.start()
        readers = eventually(rig.readers, "snapshot readers")
        tasks = worker.pids()
        worker.process.send_signal(end)
        assert worker.process.wait(30) == (0 if end == signal.SIGTERM else -end)
        eventually(lambda: not any(map(alive, [*tasks, *readers])), "all of them to die")  # noqa: B023
        assert rig.snapshot_open()
    assert "killed" not in worker.log.read_text()
    rig.start()
    rig.catch_up()
    assert rig.end() == 0
    rig.check()


def test_a_second_worker_and_a_second_reader_of_the_slot_are_refused_by_name(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(sinks=("lines",), source={"slot.max.retries": 1, "slot.retry.delay.ms": 200})
    worker = rig.start()
    done = cdc("run", "--data-dir", worker.data, "--listen", "127.0.0.1:0")
    assert done.returncode == 2
    assert f"is in use by the worker with pid {worker.process.pid}" in done.stderr
    config = worker("GET", f"/connectors/{SOURCE}/config").body
    second = {**config, "name": "second", "topic.prefix": "second"}
    refused = worker("POST", "/connectors", {"name": "second", "config": second})
    assert refused.status == 400
    assert "connector shop already reads this slot of this database" in refused.text
    worker.create({**second, "database.hostname": "localhost"})  # another name of that server
    eventually(lambda: "SlotBusy" in worker.log.read_text(), "the slot to be refused")
    said = worker.log.read_text().partition("SlotBusy")[2].partition("\n")[0]
    assert "crash" in said
    assert "pid" in said
    assert worker("DELETE", "/connectors/second").status == 204
    rig.catch_up()
    assert rig.end() == 0
    rig.check()
