"""Guard: what a test run has started ends with it, also where that is killed.

Fixtures end what they have started, unless the run is killed or interrupted twice. Then this
does, a process of its own that outlives the run for a moment, and takes along what theirs have
started. The kernel's way, PR_SET_PDEATHSIG, would end a process with the *thread* that started
it, of which tests have some that are long gone by then.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil

LOOK_S: Final = 0.5  # a fork of the run may keep our pipe open
ROOT: Final = Path(__file__).resolve().parents[1]
Process = TypeVar("Process", bound=subprocess.Popen[Any])

_guard: subprocess.Popen[bytes] | None = None


def guarded(process: Process) -> Process:
    """The same process; it does not outlive this one."""
    global _guard  # noqa: PLW0603 - one for all that this process starts
    if _guard is None or _guard.poll() is not None:
        _guard = subprocess.Popen(
            [sys.executable, "-m", "tests.guard", str(os.getpid())],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the run
        )
        atexit.register(_dismiss, _guard, os.getpid())
    assert _guard.stdin is not None
    _guard.stdin.write(b"%d\n" % process.pid)
    return process


def _dismiss(guard: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() == owner and guard.stdin is not None:  # not a fork of it
        guard.stdin.close()
        guard.wait()


def main(parent: int) -> None:
    """Keep the processes whose ids come in; kill what is left of them when there is no parent."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    kept: list[psutil.Process] = []
    while True:
        kept = [process for process in kept if process.is_running()]
        if not select.select([sys.stdin], [], [], LOOK_S)[0]:
            if os.getppid() == parent:
                continue
            break
        data = os.read(sys.stdin.fileno(), 4096)
        if not data:
            break
        for number in data.split():
            with suppress(psutil.NoSuchProcess):
                kept.append(psutil.Process(int(number)))
    for process in kept:
        kill(process)


def kill(process: psutil.Process) -> None:
    """It and all that it has started."""
    with suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()


if __name__ == "__main__":
    main(int(sys.argv[1]))
