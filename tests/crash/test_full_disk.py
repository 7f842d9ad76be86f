"""The journal's disk is full while the stream goes on: wait or drop, as configured."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.crash.conftest import MakeRig
from tests.crash.database import LONG_TEXT, Size
from tests.crash.rig import Rig, eventually
from tests.crash.workload import Workload
from tests.runtime.workers import cdc
from tests.servers import give_up

pytestmark = pytest.mark.slow
MIB = 1 << 20
SIZE = Size(300, 800, 3, 500)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=96m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], check=False).returncode:
        give_up("mounting a small file system takes root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def walsender(rig: Rig) -> int | None:
    with psycopg.connect(rig.dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'crash'"
        ).fetchone()
    return row[0] if row else None


def test_a_full_disk_holds_the_stream_and_loses_nothing(
    make_rig: MakeRig, small_disk: Path
) -> None:
    timeout_s = 3.0
    rig = make_rig(SIZE, settings={"wal_sender_timeout": f"{timeout_s:g}s"}, data=small_disk)
    worker = rig.start()
    # A sink that reads nothing: else the full disk takes what all sinks have passed.
    assert worker("PUT", "/connectors/lines/stop").status == 204
    eventually(lambda: not rig.snapshot_open(), "the snapshot to end")
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    ballast.write_bytes(bytes(free - 2 * MIB))
    log = rig.folder / "worker.log"
    with Workload(rig.dsn, 10, SIZE, pause_s=0.005) as workload:
        eventually(lambda: "no space for the log" in log.read_text(), "the disk to be full")
    workload.check()
    pid, stored, until = walsender(rig), rig.stored_lsn(), time.monotonic() + 2.5 * timeout_s
    assert pid is not None
    while time.monotonic() < until:  # keep-alives are answered all the while
        assert walsender(rig) == pid
        assert rig.confirmed_lsn() <= rig.stored_lsn()
        time.sleep(0.2)
    assert rig.stored_lsn() - stored < MIB
    ballast.unlink()
    assert worker("PUT", "/connectors/lines/resume").status == 202
    rig.catch_up()
    assert walsender(rig) == pid
    assert rig.end() == 0
    assert rig.check().changes > 0


def test_policy_drop_says_what_is_gone_and_the_stream_goes_on(make_rig: MakeRig) -> None:
    rig = make_rig(
        SIZE,
        sinks=("lines",),
        source={"journal.full.policy": "drop", "journal.budget.bytes": 16 * MIB},
    )
    worker = rig.start()
    rig.catch_up()
    assert worker("PUT", "/connectors/lines/stop").status == 204
    log = rig.folder / "worker.log"
    body = LONG_TEXT.format(seed="(random()::text || id)")

    def fill() -> bool:
        with psycopg.connect(rig.dsn, autocommit=True) as connection:
            connection.execute(f"UPDATE accounts SET body = {body}".encode())
        return "dropped segment" in log.read_text()

    eventually(fill, "a segment to be dropped")
    assert list(rig.journal.glob("*.gap"))
    assert "is full: dropped segment" in log.read_text()
    assert worker("PUT", "/connectors/lines/resume").status == 202
    rig.catch_up("the mark behind the gap")
    assert "for want of space" in log.read_text()
    metrics = worker("GET", "/metrics").text
    dropped = [line for line in metrics.splitlines() if "dropped" in line and line[0] != "#"]
    assert any(float(line.rpartition(" ")[2]) > 0 for line in dropped), dropped
    told = "warning: its journal dropped "
    assert told in cdc("status", "--data-dir", worker.data).stdout
    assert rig.end() == 0
    assert told in cdc("status", "--data-dir", worker.data).stdout
