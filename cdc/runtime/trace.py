"""The ``trace`` of a failed task's status: first what tools made for Connect show, then ours.

They show its first line, and match Connect's texts in it: so each exception and its causes
stand there by their Java names, as the heads of Java's stack trace do. Python's follows.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Final

from cdc.runtime.tolerance import exception_names
from cdc.transforms.errors import CONNECT

# A note on what a sink's ``put()`` has raised; there Connect wraps it with this text.
EXITING: Final = "Exiting WorkerSinkTask due to unrecoverable exception."


def status_trace(error: BaseException, hints: Sequence[str] = ()) -> str:
    """Its last line is Python's last one, which says what to do, with ``hints`` behind it."""
    told = traceback.TracebackException.from_exception(error)
    notes: list[str] = getattr(error, "__notes__", [])
    heads = [f"{CONNECT}ConnectException: {EXITING}"] if EXITING in notes else []
    told.__notes__ = [note for note in notes if note != EXITING]
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        heads.append(": ".join(filter(None, exception_names(cause))))
        cause = cause.__cause__
    trace = "\nCaused by: ".join(heads) + "\n" + "".join(told.format())
    return f"{trace.rstrip()} ({'; '.join(hints)})\n" if hints else trace
