"""What is done about an error: one table, decided by class, never by text.

The loops retry what they can finish in place (a full disk, a target out of reach). All
else ends the task, and this table says whether the worker starts it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cdc.errors import (
    CdcError,
    ConfigError,
    ConnectionLost,
    LogLocked,
    SinkUnavailable,
    SlotBusy,
)

BACKOFF_FIRST_S = 0.2
BACKOFF_MOST_S = 10.0
RESTARTS_MAX = 10  # task.restart.max: restarts in a row without a durable block


class Action(Enum):
    """What the worker does with a task that ended with an error."""

    RESTART = "restart"
    # The other side is away: again and again, for as long as it takes. A database that is
    # down for an hour must not need a person afterwards (Debezium's errors.max.retries=-1).
    WAIT = "wait"
    STOP = "stop"


# First match wins; a class that is not here is decided by its ``retriable`` attribute.
DECISIONS: tuple[tuple[type[BaseException], Action], ...] = (
    (ConfigError, Action.STOP),
    # The task's previous process may still be on its way out.
    (LogLocked, Action.RESTART),
    (ConnectionLost, Action.WAIT),
    (SlotBusy, Action.WAIT),
    (SinkUnavailable, Action.WAIT),
    # An import that fails now fails again: a missing extra, a broken installation.
    (ImportError, Action.STOP),
)


def decide(error: BaseException) -> Action:
    """The action for an error. What is not ours (a crash, a bug) is worth another attempt."""
    for kind, action in DECISIONS:
        if isinstance(error, kind):
            return action
    if isinstance(error, CdcError):
        return Action.RESTART if error.retriable else Action.STOP
    return Action.RESTART


@dataclass(slots=True)
class Backoff:
    """Delays that double from ``first_s`` to ``most_s``; ``reset`` after progress."""

    first_s: float = BACKOFF_FIRST_S
    most_s: float = BACKOFF_MOST_S
    attempts: int = 0

    def next_s(self) -> float:
        """The delay before the next attempt."""
        delay = min(self.most_s, self.first_s * 2.0 ** min(self.attempts, 30))
        self.attempts += 1
        return delay

    def reset(self) -> None:
        """There was progress: the next delay is the first one again."""
        self.attempts = 0


@dataclass(slots=True)
class Restarts:
    """A task's restarts: at once, then backed off, ``limit`` times without progress."""

    limit: int = RESTARTS_MAX
    first_s: float = BACKOFF_FIRST_S
    most_s: float = BACKOFF_MOST_S
    total: int = 0
    in_a_row: int = 0

    def next_s(self, action: Action) -> float | None:
        """The delay before the next start; None: the task stays failed."""
        spent = action is Action.RESTART and self.in_a_row >= self.limit
        if action is Action.STOP or spent:
            return None
        self.in_a_row += 1
        self.total += 1
        if self.in_a_row == 1:
            return 0.0
        return Backoff(self.first_s, self.most_s, self.in_a_row - 2).next_s()

    def progress(self) -> None:
        """A block became durable: the task is worth its full number of restarts again."""
        self.in_a_row = 0
