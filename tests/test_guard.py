"""What tests have started does not outlive a run that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.guard import ROOT
from tests.waiting import wait_for

WORKER = """
from tests.runtime.workers import Worker
worker = Worker(Path(sys.argv[1]))
print(worker.process.pid, flush=True)
"""
# from a thread that ends at once; with one that ignores what it can, started by it in turn
THREAD = """
import subprocess, threading
from tests.guard import guarded
code = "import signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
code += "print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
started = []
def start():
    child = guarded(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE))
    started.append((child.pid, int(child.stdout.readline())))
thread = threading.Thread(target=start)
thread.start()
thread.join()
print(*started[0], flush=True)
"""


@pytest.mark.parametrize("program", [WORKER, THREAD], ids=["worker", "thread"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_a_run_has_started_ends_with_it(
    tmp_path: Path, program: str, number: signal.Signals
) -> None:
    code = f"import sys, time; from pathlib import Path\n{program}\ntime.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        pids = [int(word) for word in run.stdout.readline().split()]
        assert pids
        assert all(map(runs, pids))
        run.send_signal(number)
    try:
        wait_for(lambda: not any(map(runs, pids)), "their end", 20)
    finally:
        for pid in filter(runs, pids):
            psutil.Process(pid).kill()


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
