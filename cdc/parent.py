"""A child process dies with its parent, however the parent dies."""

from __future__ import annotations

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent_pid: int) -> None:
    """Ask the kernel for SIGKILL when the parent's *thread* that started us ends.

    Linux only; elsewhere, and when the parent is gone already, the end of its pipe is what
    tells. So a worker starts its tasks from a thread that lives as long as itself.
    """
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)
