"""The supervisor: one thread that starts, hears, stops, restarts and buries task processes.

All state is guarded by ``lock``; requests change what is wanted and ``poke`` this thread,
which brings what is into line with it. Children are started here and nowhere else: the
kernel ends them when the thread that started them ends (see parent.die_with).
"""

from __future__ import annotations

import logging
import os
import selectors
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from cdc.runtime.connector import FAILED, RESTARTING, Connector, Outcome, Task
from cdc.runtime.process import TaskProcess
from cdc.runtime.retry import Action, Restarts, decide
from cdc.runtime.runners import TaskSpec
from cdc.runtime.state import DataDir
from cdc.runtime.trace import status_trace

log = logging.getLogger(__name__)

HOUSEKEEPING_S = 1.0
LOCK_PATIENCE_S = 10.0  # Connect's limit for /health


@dataclass(frozen=True, slots=True)
class Settings:
    """The worker's settings that concern tasks; ``texts`` is its configuration as written."""

    graceful_s: float = 5.0
    restarts: Restarts = field(default_factory=Restarts)
    texts: dict[str, str] = field(default_factory=dict)
    log_level: str = "INFO"


class Supervisor:
    """Keeps the processes of ``connectors`` in line with what is wanted of them."""

    def __init__(
        self,
        data: DataDir,
        settings: Settings,
        journals_of: Callable[[Connector], list[str]],
        housekeeping: Callable[[], None],
    ) -> None:
        self.connectors: dict[str, Connector] = {}
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self._data, self._settings = data, settings
        self._journals_of, self._housekeeping = journals_of, housekeeping
        self.failure: BaseException | None = None  # what ended the thread out of order
        self.on_failure: Callable[[], None] = lambda: None
        self._selector = selectors.DefaultSelector()
        self._poked, self._poke = os.pipe()
        os.set_blocking(self._poke, False)
        os.set_blocking(self._poked, False)
        self._selector.register(self._poked, selectors.EVENT_READ)
        self._closing = False
        self._next_housekeeping = 0.0
        self._last_words: list[Task] = []  # tasks of deleted connectors, still ending
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether it runs, and its lock is free."""
        if not self.lock.acquire(timeout=LOCK_PATIENCE_S):
            return False
        self.lock.release()
        return self._thread.is_alive()

    def poke(self) -> None:
        """Something is wanted that was not before. From anywhere, signal handlers included."""
        with suppress(OSError):  # full: it has not looked since the last one; or it has ended
            os.write(self._poke, b"x")

    def begin_close(self) -> None:
        """Stop every task and end. Takes no lock: a signal handler may call it."""
        self._closing = True
        self.poke()

    def close(self) -> None:
        """Stop every task in order, kill what does not end in time, and end."""
        self.begin_close()
        if self._thread.ident is not None:
            self._thread.join()
        self._selector.close()
        poked, poke = self._poked, self._poke
        self._poked = self._poke = -1  # a second signal must not write to what has its number next
        os.close(poked)
        os.close(poke)

    def tasks(self) -> list[Task]:
        """All that may have a process."""
        return [*(c.task for c in self.connectors.values()), *self._last_words]

    def bury(self, task: Task) -> None:
        """The task of a deleted connector: it ends, and nobody starts it again."""
        if task.process is not None:
            self._last_words.append(task)

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Wait, holding the lock in between, until ``ready``."""
        with self.lock:
            self.poke()
            return self.changed.wait_for(ready, timeout_s)

    # --- the thread

    def _run(self) -> None:
        try:
            self._run_until_closed()
        except BaseException as error:
            # The kernel ends all tasks with this thread: nothing is left to serve.
            self.failure = error
            log.critical("the supervisor has failed: the worker ends", exc_info=True)
            self.on_failure()
        finally:
            with self.lock:
                self.changed.notify_all()

    def _run_until_closed(self) -> None:
        while True:
            with self.lock:
                now = time.monotonic()
                self._reconcile(now)
                if self._closing and not any(task.process for task in self.tasks()):
                    break
                if now >= self._next_housekeeping:
                    self._next_housekeeping = now + HOUSEKEEPING_S
                    self._keep_house()
                self.changed.notify_all()
                timeout_s = self._idle_s(now)
            ready = self._selector.select(timeout_s)
            with self.lock:
                self._receive([key.fileobj for key, _ in ready])

    def _keep_house(self) -> None:
        for connector in self.connectors.values():
            connector.task.seen[connector.task.state] += 1
        try:
            self._housekeeping()
        except Exception:
            log.exception("housekeeping failed; it is tried again")

    def _idle_s(self, now: float) -> float:
        due = [self._next_housekeeping]
        due += [c.task.start_at for c in self.connectors.values() if self._is_waiting(c)]
        due += [task.kill_at for task in self.tasks() if task.kill_at is not None]
        return max(0.0, min(due) - now)

    def _is_waiting(self, connector: Connector) -> bool:
        return connector.wants_process and connector.task.process is None and not self._closing

    def _reconcile(self, now: float) -> None:
        for connector in self.connectors.values():
            task = connector.task
            if task.process is None:
                if self._is_waiting(connector) and now >= task.start_at:
                    self._start(connector, now)
            elif self._closing or task.again or not connector.wants_process:
                self._stop(task, now)
        for task in self._last_words:
            self._stop(task, now)
        for task in self.tasks():
            if task.process is not None and task.kill_at is not None and now >= task.kill_at:
                log.warning("%s-%d did not end in time: killed", task.connector, task.number)
                task.process.kill()
                task.kill_at = None

    def _start(self, connector: Connector, now: float) -> None:
        task = connector.task
        try:
            task.journals = self._journals_of(connector)
        except Exception as error:  # noqa: BLE001 - a damaged file is its own sink's affair
            task.outcome = Outcome(decide(error), status_trace(error))
            task.ended(0, connector.saved.target, now)
            log.warning("%s-%d cannot start: %s", connector.name, task.number, error)
            return
        task.claimed.clear()
        spec = TaskSpec(
            connector=connector.name,
            kind=connector.kind,
            config=dict(connector.saved.config),
            data_dir=str(self._data.path),
            task=task.number,
            journals=task.journals,
            worker=self._settings.texts,
            parent=os.getpid(),
            log_level=self._settings.log_level,
        )
        try:
            task.process = TaskProcess(spec)
        except OSError as error:  # no memory, no process, no descriptor left
            task.state, task.trace = RESTARTING, f"its process cannot be started: {error}"
            task.start_at = now + self._settings.restarts.most_s
            return
        self._selector.register(task.process.messages.fd, selectors.EVENT_READ, task)
        log.info("%s-%d started as process %d", task.connector, task.number, task.process.pid)

    def _stop(self, task: Task, now: float) -> None:
        assert task.process is not None
        if not task.process.told_to_stop:
            task.process.stop()
            task.kill_at = now + self._settings.graceful_s

    # --- messages

    def _receive(self, ready: list[object]) -> None:
        appended: set[str] = set()
        for fd in ready:
            if fd == self._poked:
                os.read(self._poked, 4096)
                continue
            key = self._selector.get_key(fd)  # type: ignore[arg-type]
            task: Task = key.data
            self._hear(task, appended)
            assert task.process is not None
            if task.process.messages.ended:
                self._bury_process(task)
        if appended:
            self._wake_sinks(appended)

    def _hear(self, task: Task, appended: set[str]) -> None:
        assert task.process is not None
        try:
            for message in task.process.messages.receive():
                task.hear(message)
                if message["m"] == "appended":
                    appended.add(task.connector)
                elif message["m"] == "topic":
                    self._note_topic(task, message["topic"])
        except (ValueError, KeyError, TypeError) as error:  # somebody else wrote to its pipe
            trace = f"its process sent what is no message: {error}"
            log.warning("%s-%d killed: %s", task.connector, task.number, trace)
            task.outcome = Outcome(Action.RESTART, trace)
            task.process.kill()

    def _bury_process(self, task: Task) -> None:
        assert task.process is not None
        self._selector.unregister(task.process.messages.fd)
        pid, code = task.process.pid, task.process.reap()
        connector = self.connectors.get(task.connector)
        target = connector.saved.target if connector else "STOPPED"
        expected = task.process.told_to_stop
        task.ended(code, target, time.monotonic())
        self._last_words = [t for t in self._last_words if t is not task]
        name = f"{task.connector}-{task.number}"
        if task.state == FAILED:
            log.error("%s has failed: %s", name, task.line or task.trace)
        elif expected:
            log.info("%s process %d ended (%d): %s", name, pid, code, task.state)
        else:
            reason = task.line or task.trace.strip().rpartition("\n")[2]
            log.warning("%s process %d ended (%d), %s: %s", name, pid, code, task.state, reason)

    def _note_topic(self, task: Task, topic: str) -> None:
        task.topics.add(topic)
        task.claimed.add(topic)
        if task.kind != "source":
            return
        for other in self.connectors.values():
            if other.kind != "source" or other.name == task.connector:
                continue
            if topic in other.task.claimed:
                task.fail(
                    f"The topic {topic} is already written by connector {other.name}."
                    " Give one of them another topic.prefix."
                )

    def _wake_sinks(self, sources: set[str]) -> None:
        for connector in self.connectors.values():
            task = connector.task
            if task.process is not None and not sources.isdisjoint(task.journals):
                task.process.tell({"c": "wake"})
