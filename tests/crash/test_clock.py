"""The wall clock is set while everything runs: nothing is lost, nothing goes wild.

The clock is Python's, moved in every process of the worker by a ``sitecustomize`` that adds a
file's number of seconds: the engine reads no other wall clock. libfaketime was tried first; it
makes Python's ``time.sleep`` fail (EINVAL from clock_nanosleep), which no clock step does.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.crash import oracle
from tests.crash.conftest import MakeRig
from tests.crash.database import Size
from tests.crash.rig import SINKS, SOURCE, eventually
from tests.crash.workload import Workload
from tests.runtime import workers

pytestmark = pytest.mark.slow
DAY_S = 86_400


STEPPED = """
import pathlib, time
_file, _now, _now_ns = pathlib.Path({clock!r}), time.time, time.time_ns
time.time = lambda: _now() + int(_file.read_text() or 0)
time.time_ns = lambda: _now_ns() + int(_file.read_text() or 0) * 10**9
"""


def set_clock(clock: Path, step_s: int) -> None:
    new = clock.with_suffix(".new")
    new.write_text(str(step_s))
    new.rename(clock)


def test_clock_steps_lose_nothing_and_restart_nothing(
    make_rig: MakeRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, folder = tmp_path / "clock", tmp_path / "site"
    set_clock(clock, 0)
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(STEPPED.format(clock=str(clock)))
    real = workers.environment()
    moved = {**real, "PYTHONPATH": f"{folder}:{real['PYTHONPATH']}"}
    size = Size(200, 800, 3, 500)
    source = {"journal.segment.ms": 1000, "journal.retention.ms": 7 * DAY_S * 1000}
    rig = make_rig(size, source=source)
    with monkeypatch.context() as patch:
        patch.setattr(workers, "environment", lambda: moved)
        worker = rig.start()
    eventually(lambda: not rig.snapshot_open(), "the snapshot to end")
    with Workload(rig.dsn, 8, size) as workload:
        pids = {name: eventually(lambda: rig.pid(name)) for name in (SOURCE, *SINKS)}  # noqa: B023
        for step_s in (-400 * DAY_S, 0, -3600, 3 * DAY_S, -60, 2 * DAY_S):
            rows = rig.stored_rows()
            set_clock(clock, step_s)
            eventually(lambda: rig.stored_rows() > rows, "progress")  # noqa: B023
    workload.check()
    rig.catch_up()
    assert {name: rig.pid(name) for name in pids} == pids, "a task was restarted"
    report = oracle.check_journal(rig.journal, rig.dsn)
    # far beyond the retention: what every sink has passed may go, and nothing else
    set_clock(clock, 400 * DAY_S)
    with Workload(rig.dsn, 9, size) as workload:
        files = len(list(rig.journal.glob("*.seg")))
        eventually(lambda: len(list(rig.journal.glob("*.seg"))) < files or workload.committed > 400)
    rig.catch_up()
    assert {name: rig.pid(name) for name in pids} == pids, "a task was restarted"
    assert worker("GET", "/health").status == 200
    assert rig.end() == 0
    with psycopg.connect(rig.dsn, autocommit=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        tables = oracle.source_tables(connection)
    oracle.compare_tables(oracle.postgres_copy(rig.copy_dsn), tables, "the copy")
    oracle.compare_tables(oracle.sqlite_copy(rig.sqlite), tables, "the copy in SQLite")
    assert report.changes > 0
