"""Failpoints: named places at which a test makes this process die, fail or dawdle.

Production code calls :func:`hit` at every step that persists something; when nothing is
armed that costs one global check. Armed through the environment, before the start::

    CDC_FAILPOINTS="journal.append.before_commit=kill@3,journal.seal.after_mark=sleep:50"

``kill`` is SIGKILL to the own process, ``error`` raises OSError(ENOSPC), ``sleep:ms``
waits; ``@n`` acts at the n-th hit and at none before (``error`` and ``kill``: at that only).
"""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass

VARIABLE = "CDC_FAILPOINTS"


@dataclass(slots=True)
class _Failpoint:
    action: str
    argument: str
    at_hit: int
    hits: int = 0


_armed: dict[str, _Failpoint] = {}


def arm(spec: str) -> None:
    """Arm what ``spec`` names and nothing else; an empty spec disarms all."""
    _armed.clear()
    for item in filter(None, (part.strip() for part in spec.split(","))):
        name, _, rest = item.partition("=")
        rest, _, count = rest.partition("@")
        action, _, argument = rest.partition(":")
        if action not in ("kill", "error", "sleep"):
            raise ValueError(f"{VARIABLE}: {item!r} is not name=kill|error|sleep:ms[@n]")
        _armed[name] = _Failpoint(action, argument, int(count or 0))


def hit(name: str) -> None:
    """A place where a failure is interesting. Free unless something is armed."""
    if _armed:
        _fire(name)


def _fire(name: str) -> None:
    point = _armed.get(name)
    if point is None:
        return
    point.hits += 1
    if point.at_hit in (0, point.hits):
        if point.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif point.action == "error":
            raise OSError(errno.ENOSPC, f"failpoint {name}")
        else:
            time.sleep(float(point.argument or 0) / 1000)


arm(os.environ.get(VARIABLE, ""))
