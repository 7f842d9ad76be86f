"""A connector and its task as the worker knows them: states, and Connect's bodies.

Plain data and decisions: processes are started by the supervisor, requests checked by the
worker. A connector has one task, whatever ``tasks.max`` says: order is total per journal.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cdc import metrics as names
from cdc.metrics import Startups
from cdc.runtime.process import TaskProcess
from cdc.runtime.retry import Action, Restarts
from cdc.runtime.state import Saved, Target

RUNNING, PAUSED, STOPPED = "RUNNING", "PAUSED", "STOPPED"
FAILED, RESTARTING, UNASSIGNED = "FAILED", "RESTARTING", "UNASSIGNED"

# A connector's state while it is sound, by target state.
STATES: dict[Target, str] = {"STARTED": RUNNING, "PAUSED": PAUSED, "STOPPED": STOPPED}


class Refused(Exception):
    """A request that cannot be granted, with the status and text of Connect's answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.problems = [message]  # one by one, for people who do not use HTTP


class Outcome(NamedTuple):
    """How a task ended. ``line``: what the log says instead of the trace of a foreseen error."""

    action: Action
    trace: str
    line: str = ""


@dataclass(slots=True)
class Task:
    """One task: its process while it has one, and what is to become of it."""

    connector: str
    kind: str
    restarts: Restarts
    number: int = 0
    state: str = UNASSIGNED
    trace: str = ""
    process: TaskProcess | None = None
    start_at: float = 0.0  # monotonic; when to start, while it has no process
    kill_at: float | None = None  # monotonic; when its order to stop runs out
    again: bool = False  # a stop that is asked for is a restart
    is_up: bool = False  # its process has started the task
    outcome: Outcome | None = None  # what the process said of its end
    line: str = ""  # the trace's in the log, where one line says enough
    note: str = ""  # what a running task's status says
    away: str = ""  # why its target cannot be reached, while that is tried again
    journals: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    topics: set[str] = field(default_factory=set)  # for people, who may reset them
    claimed: set[str] = field(default_factory=set)  # all that its process has written or read
    needed: Any = ()  # what the process was last told
    startups: Startups = field(default_factory=Startups)
    seen: Counter[str] = field(default_factory=Counter)  # states, one look a second

    def hear(self, message: dict[str, Any]) -> None:
        """A message of the process's, as far as it concerns this task alone."""
        match message["m"]:
            case "started":
                self.state, self.trace, self.away = RUNNING, "", ""
                if not self.is_up:  # a sink starts its task again in place
                    self.startups.count(True)
                self.is_up = True
            case "appended":
                if message["rows"]:
                    self.restarts.progress()
            case "retrying":
                self._wait_for_target(message["error"])
            case "stored":
                self._store(message["positions"])
            case "metrics":
                self.metrics, self.away = message["values"], ""  # none come while it waits
            case "failed":
                self.outcome = Outcome(Action(message["action"]), message["trace"], message["line"])
            case "note":
                self.note = message["text"]
            case _:
                pass

    def _wait_for_target(self, error: str) -> None:
        self.away = f"target out of reach, tried again: {' '.join(error.split())}"
        if self.state == RESTARTING:  # why it waits, not why its last process ended
            self.trace = ""

    def _store(self, positions: dict[str, int]) -> None:
        """Every start stores where it begins: only what rises is progress."""
        if any(at > self.positions.get(journal, at) for journal, at in positions.items()):
            self.restarts.progress()
        self.positions.update(positions)

    def ended(self, code: int, target: Target, now: float) -> None:
        """The process is gone: decide what comes next."""
        process, self.process, self.kill_at = self.process, None, None
        outcome, self.outcome = self.outcome, None
        was_up, self.is_up = self.is_up, False
        self.metrics, self.needed, self.note, self.away = {}, (), "", ""
        asked = self.again or (process is not None and process.told_to_stop)
        if asked and self.state != FAILED:  # how it ended is of what was there before
            self.settle(target)
            if self.again and target == "STARTED":
                self.state, self.start_at = RESTARTING, now
            self.again = False
            return
        if self.state == FAILED:
            return
        if not was_up:
            self.startups.count(False)
        outcome = outcome or Outcome(Action.RESTART, how_it_ended(code))
        delay_s = self.restarts.next_s(outcome.action)
        self.trace, self.line = outcome.trace, outcome.line
        if delay_s is None:
            self.state = FAILED
        else:
            self.state, self.start_at = RESTARTING, now + delay_s

    def settle(self, target: Target) -> None:
        """The state of a sound task without a process."""
        self.state = PAUSED if target == "PAUSED" else UNASSIGNED
        self.trace = ""

    def fail(self, trace: str) -> None:
        """Stay down until somebody restarts it."""
        self.state, self.trace, self.line = FAILED, trace, ""

    def restart(self, now: float) -> None:
        """By request: a new start with all restarts ahead of it."""
        self.restarts.in_a_row = 0
        self.state, self.trace, self.start_at = RESTARTING, "", now
        self.again = self.process is not None

    def ratios(self) -> dict[str, float]:
        """Shares of its life, as far as they have been looked at, by metric name."""
        looks = max(self.seen.total(), 1)
        return {
            names.RUNNING_RATIO: self.seen[RUNNING] / looks,
            names.PAUSE_RATIO: self.seen[PAUSED] / looks,
        }

    def status(self, worker_id: str) -> dict[str, Any]:
        """Connect's body; a sound task's ``trace`` is what it has to say."""
        body = {"id": self.number, "state": self.state, "worker_id": worker_id}
        trace = self.trace or self.away or self.note
        return body | ({"trace": trace} if trace else {})


def how_it_ended(code: int) -> str:
    """For a process that could not say it itself."""
    if code < 0:
        return f"The task's process was ended by signal {-code}."
    return f"The task's process ended with exit code {code} and no word of why."


@dataclass(slots=True)
class Connector:
    """A connector. ``trace`` is set when its configuration is no longer sound."""

    saved: Saved
    kind: str
    task: Task
    trace: str = ""
    task_class: str = ""
    relevant: dict[str, Any] = field(default_factory=dict)  # typed keys others look at

    @property
    def name(self) -> str:
        """Its name."""
        return self.saved.name

    @property
    def connector_class(self) -> str:
        """As it was written."""
        return self.saved.config.get("connector.class", "")

    @property
    def state(self) -> str:
        """Connect's state of the Connector instance."""
        return FAILED if self.trace else STATES[self.saved.target]

    @property
    def tasks(self) -> list[Task]:
        """None while it is stopped or unsound."""
        return [] if self.trace or self.saved.target == "STOPPED" else [self.task]

    @property
    def wants_process(self) -> bool:
        """Whether its task is to run."""
        return bool(self.tasks) and self.saved.target == "STARTED" and self.task.state != FAILED

    def status(self, worker_id: str) -> dict[str, Any]:
        """Connect's status body."""
        own: dict[str, Any] = {"state": self.state, "worker_id": worker_id}
        if self.trace:
            own["trace"] = self.trace
        return {
            "name": self.name,
            "connector": own,
            "tasks": [task.status(worker_id) for task in self.tasks],
            "type": self.kind,
        }

    def info(self) -> dict[str, Any]:
        """Connect's ConnectorInfo."""
        return {
            "name": self.name,
            "config": dict(self.saved.config),
            "tasks": [{"connector": self.name, "task": task.number} for task in self.tasks],
            "type": self.kind,
        }
