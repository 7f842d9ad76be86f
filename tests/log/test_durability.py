"""When append returns, the disk has it: seen from outside, in the order of system calls."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.servers import give_up

WRITER = """
import os, sys
from cdc.log import Journal
from tests.log.rows import snapshot, stream

mark = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
with Journal.open(sys.argv[1], segment_bytes=120_000) as journal:
    journal.append(snapshot(0, 0, close=True))
    for number in range(12):
        batch = stream(number * 10, 10 * (number % 3), width=2000)
        os.write(mark, b"begin")
        journal.append(batch)
        os.write(mark, b"done")
"""
CALL = re.compile(r"(\w+)\((\d+)<([^>]*)>")


def test_append_returns_after_the_fsync_of_what_it_wrote(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        give_up("strace is not installed")
    trace, mark = tmp_path / "trace", tmp_path / "mark"
    calls = "trace=write,pwrite64,pwritev,fsync,fdatasync,ftruncate"
    command = ["strace", "-f", "-y", "-o", str(trace), "-e", calls]
    run = subprocess.run(
        [*command, sys.executable, "-c", WRITER, str(tmp_path / "j"), str(mark)],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    if "ptrace" in run.stderr.lower():
        give_up("tracing is not permitted here")
    assert run.returncode == 0, run.stderr
    within, unsynced, synced, appends = False, set[str](), 0, 0
    for line in trace.read_text().splitlines():
        found = CALL.search(line)
        if found is None:
            continue
        call, file = found[1], found[3]
        if file == str(mark):
            within = "begin" in line
            if not within:
                assert not unsynced, f"append {appends} returned before fsync of {unsynced}"
                assert synced, f"append {appends} returned without an fsync"
                appends += 1
            synced = 0
        elif within and call in ("fsync", "fdatasync"):
            assert line.rstrip().endswith("= 0")
            unsynced.discard(file)
            synced += 1
        elif within and call.startswith("pwrite") and not file.endswith("-shm"):
            unsynced.add(file)
    assert appends == 12
