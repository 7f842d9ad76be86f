"""What is confirmed to the server is on disk: seen from outside, in the order of system calls."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import psycopg
import pytest

from tests.crash.conftest import MakeRig
from tests.crash.database import SMALL
from tests.crash.fsync_trace import confirmations
from tests.crash.rig import SOURCE, Rig, eventually
from tests.crash.workload import Workload
from tests.guard import guarded
from tests.runtime.workers import environment
from tests.servers import give_up

pytestmark = pytest.mark.slow
CALLS = "trace=fsync,fdatasync,sendto,write,pwrite64"


def trace(rig: Rig, path: Path, *, broken: bool) -> list[tuple[int, bool]]:
    if shutil.which("strace") is None:
        give_up("strace is not installed")
    config = {k: str(v) for k, v in orjson.loads((rig.folder / "shop.json").read_bytes()).items()}
    spec = {
        "connector": SOURCE,
        "kind": "source",
        "config": config,
        "data_dir": str(rig.folder / "data"),
    }
    (rig.folder / "spec.json").write_bytes(orjson.dumps(spec))
    command = ["strace", "-f", "-y", "-xx", "-s", "200000", "-o", str(path), "-e", CALLS]
    task = [sys.executable, "-m", "tests.crash.fsync_trace", str(rig.folder / "spec.json")]
    with (rig.folder / "trace.err").open("wb") as err:
        process = subprocess.Popen(
            [*command, *task, *["--broken"][: int(broken)]],
            stdin=subprocess.PIPE,
            stderr=err,
            env=environment(),
        )
    guarded(process)
    try:
        eventually(lambda: process.poll() is not None or not rig.snapshot_open())
        said = (rig.folder / "trace.err").read_text()
        if process.poll() is not None and "ptrace" in said.lower():
            give_up("tracing is not permitted here")
        assert process.poll() is None, said
        with Workload(rig.dsn, 7, SMALL, clients=2):
            start = rig.stored_lsn()
            eventually(lambda: rig.stored_lsn() > start + 400_000, "changes")
        with psycopg.connect(rig.dsn, autocommit=True) as connection:
            connection.execute("INSERT INTO marks VALUES (1, now())")
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
    assert process.returncode == 0, (rig.folder / "trace.err").read_text()
    return confirmations(path)


def test_no_lsn_is_confirmed_before_the_fsync_that_covers_it(
    make_rig: MakeRig, tmp_path: Path
) -> None:
    sent = trace(make_rig(source={"snapshot.max.threads": 1}), tmp_path / "trace", broken=False)
    # the first is START_REPLICATION's own position: nothing is stored yet
    assert len(sent) > 10
    early = [f"{lsn:X}" for lsn, durable in sent if not durable]
    assert early == [], f"{len(early)} of {len(sent)} confirmed before they were on disk"


def test_without_fsync_the_proof_fails(make_rig: MakeRig, tmp_path: Path) -> None:
    sent = trace(make_rig(source={"snapshot.max.threads": 1}), tmp_path / "trace", broken=True)
    assert len(sent) > 10
    assert sum(not durable for _, durable in sent) > len(sent) // 2
