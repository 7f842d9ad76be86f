"""Waiting for a condition, without taking the processor from what is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PAUSE_MIN_S, PAUSE_MAX_S = 0.01, 0.25
# A condition that takes long to ask for, a whole table's say, is asked for less often.
PAUSE_PER_ASKING = 3


def wait_for(condition: Callable[[], Any], what: str, wait_s: float) -> Any:
    """Ask again until it gives a true value, and return that; else the test fails."""
    end = time.monotonic() + wait_s
    while True:
        asked = time.monotonic()
        found = condition()
        now = time.monotonic()
        if found:
            return found
        assert now < end, f"waited {wait_s:.0f} s in vain for {what}"
        pause_s = (now - asked) * PAUSE_PER_ASKING
        time.sleep(min(max(PAUSE_MIN_S, pause_s), PAUSE_MAX_S))
