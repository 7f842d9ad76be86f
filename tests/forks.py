"""Forks: processes to be killed that have imported everything when they begin.

A test that kills the same program a dozen times spends most of its time in imports else. The
fork server is a process of its own without threads or connections; what it forks is killed
like any other process.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self

from cdc import failpoints

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "tests.contract.test_file_sink",
        "tests.runtime.test_several_journals",
        "tests.sinks.history",
    ]
)

Tell = Callable[[object], None]
END_S = 60.0


def _begin(run: Callable[..., None], tell: Connection[Any, Any], points: str, *args: Any) -> None:
    failpoints.arm(points)
    run(tell.send, *args)


class Fork:
    """``run(tell, *args)`` in a process of its own; what it tells is heard here, in order."""

    def __init__(self, run: Callable[..., None], *args: Any, points: str = "") -> None:
        self._heard, theirs = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_begin, args=(run, theirs, points, *args))
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        self._heard.close()

    def hear(self) -> Any:
        """The next that it tells; None when it has ended."""
        try:
            return self._heard.recv()
        except (EOFError, OSError):  # OSError: killed in the middle of a word
            return None

    def kill(self) -> int:
        """``kill -9``, if it has not ended by itself; its exit code."""
        self._process.kill()
        return self.end()

    def end(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        self._process.join(END_S)
        assert self._process.exitcode is not None, "it has not ended"
        return self._process.exitcode
