"""The worker: connectors, what is wanted of them, and what survives a restart.

Requests come from the HTTP side's threads, or from a command that runs the worker itself;
the supervisor's thread does what they want. A connector file given at the start wins over
what is kept; target states and connectors made over REST survive.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cdc.config import Config
from cdc.errors import ConfigError
from cdc.metrics import Startups
from cdc.runtime import replay, validation
from cdc.runtime.choice import Choice
from cdc.runtime.connector import FAILED, RESTARTING, Connector, Refused, Task
from cdc.runtime.offsets import Offsets
from cdc.runtime.orphans import Watcher, keep_former
from cdc.runtime.replay import Plan, Sink
from cdc.runtime.retry import Restarts
from cdc.runtime.state import TARGETS, DataDir, Saved, Store, Target
from cdc.runtime.supervisor import Settings, Supervisor
from cdc.runtime.trace import status_trace

log = logging.getLogger(__name__)

INITIAL_STATES: dict[str, Target] = {
    "RUNNING": "STARTED",
    "PAUSED": "PAUSED",
    "STOPPED": "STOPPED",
}


class Worker:
    """All methods may be called from any thread; they raise Refused."""

    def __init__(self, data: DataDir, settings: Settings, worker_id: str) -> None:
        self.data, self.settings, self.worker_id = data, settings, worker_id
        self.store = Store(data)
        self.supervisor = Supervisor(data, settings, self._journals_of, self._housekeeping)
        self.lock = self.supervisor.lock
        self.started_at = 0.0
        # What replays that are under way still need, and the processes of those with into.
        self.holds: list[tuple[str, int]] = []
        self.helpers: list[subprocess.Popen[bytes]] = []
        self.connector_startups, self.task_startups = Startups(), Startups()
        self._choice = Choice(data)
        self._unreadable: set[str] = set()  # sinks whose positions cannot be read; said once
        self.orphans = Watcher(self.store, settings.texts, self._idle_sources)

    # --- life

    def start(self, given: Iterable[Saved] = ()) -> None:
        """Load what is kept and what was given, and run it.

        Raises ConfigError, before anything is changed, when what was given is not sound.
        """
        kept = {saved.name: saved for saved in self.store.load()}
        names = []
        for saved in given:
            # The file wins, but a stop or pause by request is kept.
            saved.target = kept[saved.name].target if saved.name in kept else saved.target
            saved.config = validation.named(saved.config, saved.name, "file")
            kept[saved.name] = saved
            names.append(saved.name)
        with self.lock:
            for saved in sorted(kept.values(), key=lambda saved: saved.name):
                self.supervisor.connectors[saved.name] = self._load(saved)
        for name in names:
            connector = self.supervisor.connectors[name]
            if connector.trace:
                raise ConfigError(f"connector {name}: {connector.trace}")
            keep_former(self.store, connector.saved)
            self.store.save(connector.saved)
        self.started_at = time.time()
        self.supervisor.start()
        self.orphans.start()

    def begin_close(self) -> None:
        """Begin to stop; safe in a signal handler."""
        self.supervisor.begin_close()
        for helper in tuple(self.helpers):
            helper.kill()  # what it has sent is stored; the same command goes on from there

    def close(self) -> None:
        """Stop all tasks in order; returns when they are gone."""
        self.orphans.stop()
        self.supervisor.close()
        with self.lock:
            if self.started_at:
                self._save_statuses()

    def _load(self, saved: Saved) -> Connector:
        """A kept connector that is no longer sound is there, FAILED, with the reason."""
        try:
            checked = validation.check(
                saved.config, self.settings.texts, self.supervisor.connectors.values()
            )
        except Refused as error:
            log.error("connector %s: %s", saved.name, error.message)  # noqa: TRY400
            trace = "\n".join(error.problems)
            self.connector_startups.count(False)
            kind = validation.kind_of(saved.config)
            return Connector(saved, kind, self._task(saved, kind), trace)
        task = self._task(saved, checked.kind)
        self.connector_startups.count(True)
        return Connector(
            saved, checked.kind, task, relevant=checked.relevant, task_class=checked.task_class
        )

    def _task(self, saved: Saved, kind: str) -> Task:
        limits = self.settings.restarts
        restarts = Restarts(limits.limit, limits.first_s, limits.most_s)
        task = Task(saved.name, kind, restarts, startups=self.task_startups)
        task.settle(saved.target)
        return task

    # --- what there is

    def names(self) -> list[str]:
        """All connectors."""
        with self.lock:
            return sorted(self.supervisor.connectors)

    def connector(self, name: str, text: str = "Connector {} not found") -> Connector:
        """One connector; Refused with 404."""
        found = self.supervisor.connectors.get(name)
        if found is None:
            raise Refused(404, text.format(name))
        return found

    def info(self, name: str) -> dict[str, Any]:
        """Connect's ConnectorInfo."""
        with self.lock:
            return self.connector(name).info()

    def status(self, name: str) -> dict[str, Any]:
        """Connect's status body."""
        with self.lock:
            found = self.connector(name, "No status found for connector {}")
            return found.status(self.worker_id)

    def task(self, name: str, number: int, text: str) -> Task:
        """One task; Refused with 404."""
        found = self.supervisor.connectors.get(name)
        tasks = {task.number: task for task in found.tasks} if found else {}
        if number not in tasks:
            raise Refused(404, text.format(f"{name}-{number}"))
        return tasks[number]

    def task_configs(self, name: str) -> list[dict[str, Any]]:
        """Connect's list of tasks with their configuration."""
        with self.lock:
            found = self.connector(name)
            return [
                {
                    "id": {"connector": name, "task": task.number},
                    "config": {**found.saved.config, "task.class": found.task_class},
                }
                for task in found.tasks
            ]

    @property
    def cluster_id(self) -> str:
        """Stands for Kafka's cluster id: names this data folder's journals."""
        return uuid5(NAMESPACE_URL, self.data.path.as_uri()).hex[:22]

    def is_healthy(self) -> bool:
        """Whether the supervisor goes on."""
        return self.supervisor.is_alive()

    # --- changes

    def create(
        self, name: str, config: Mapping[str, Any], initial_state: str | None = None
    ) -> dict[str, Any]:
        """A new connector."""
        config = validation.named(validation.texts(config), name)
        state = (initial_state or "RUNNING").upper()
        if state not in INITIAL_STATES:
            raise Refused(500, f"{initial_state} is no initial_state: {', '.join(INITIAL_STATES)}")
        with self.lock:
            if name in self.supervisor.connectors:
                raise Refused(409, f"Connector {name} already exists")
            return self._put(Saved(name, config, INITIAL_STATES[state]))

    def configure(self, name: str, config: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
        """Make a connector or change one; whether it is new, and its info."""
        config = validation.named(validation.texts(config), name)
        with self.lock:
            old = self.supervisor.connectors.get(name)
            target: Target = old.saved.target if old else "STARTED"
            return old is None, self._put(Saved(name, config, target))

    def patch(self, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change single keys; null removes one."""
        with self.lock:
            config: dict[str, Any] = {**self.connector(name).saved.config, **changes}
            kept = {key: value for key, value in config.items() if value is not None}
            return self.configure(name, kept)[1]

    def _put(self, saved: Saved) -> dict[str, Any]:
        connectors = self.supervisor.connectors
        checked = validation.check(saved.config, self.settings.texts, connectors.values())
        old = connectors.get(saved.name)
        if old is not None and old.kind not in ("unknown", checked.kind):
            raise validation.invalid(
                [f"{saved.name} is a {old.kind} connector: delete it before it becomes another"]
            )
        keep_former(self.store, saved)
        self.store.save(saved)
        task = old.task if old is not None else self._task(saved, checked.kind)
        task.kind = checked.kind
        new = Connector(
            saved, checked.kind, task, relevant=checked.relevant, task_class=checked.task_class
        )
        connectors[saved.name] = new
        self._choice.forget(saved.name)
        self.connector_startups.count(True)
        if old is not None and saved.target == "STARTED":
            task.restart(time.monotonic())
        self._regroup()
        self.orphans.look_now()
        return new.info()

    def delete(self, name: str, *, dropped: bool = False) -> None:
        """Remove a connector. Journal and offsets stay; ``dropped``: nothing is at the server."""
        with self.lock:
            found = self.connector(name)
            del self.supervisor.connectors[name]
            self.store.delete(name, remember=found.kind == "source" and not dropped)
            self.supervisor.bury(found.task)
            self._regroup()
            self.supervisor.wait_until(
                lambda: found.task.process is None, self.settings.graceful_s + 1
            )
        self.orphans.look_now()

    def set_target(self, name: str, target: Target, text: str = "Unknown connector {}") -> None:
        """Pause, resume or stop. A stop waits until the task's process is gone."""
        assert target in TARGETS
        with self.lock:
            found = self.connector(name, text)
            if found.saved.target != target:
                changed = replace(found.saved, target=target)
                self.store.save(changed)  # what cannot be kept is not done
                found.saved = changed
                if found.task.state != FAILED or target == "STOPPED":
                    found.task.settle(target)
                    found.task.start_at = 0.0
            if target == "STOPPED":
                self.supervisor.wait_until(
                    lambda: found.task.process is None, self.settings.graceful_s + 1
                )
        self.supervisor.poke()
        self.orphans.look_now()

    def restart(self, name: str, *, include_tasks: bool, only_failed: bool) -> dict[str, Any]:
        """Restart the connector instance and, if asked, its tasks; the status to answer."""
        with self.lock:
            found = self.connector(name, "Unknown connector: {}")
            instance = not only_failed or found.state == FAILED
            if found.trace:
                found = self.supervisor.connectors[name] = self._load(found.saved)
                self._regroup()
            wanted = [t for t in found.tasks if t.state == FAILED or not only_failed]
            restarted = wanted if include_tasks else []
            for task in restarted:
                self._restart(found, task)
            answer = found.status(self.worker_id)
        numbers = {task.number for task in restarted}
        again = [task for task in answer["tasks"] if task["id"] in numbers]
        for part in [*again, answer["connector"]] if instance else again:
            part["state"] = RESTARTING
            part.pop("trace", None)
        self.supervisor.poke()
        return answer

    def restart_task(self, name: str, number: int) -> None:
        """Restart one task."""
        with self.lock:
            task = self.task(name, number, "Unknown task: {}")
            self._restart(self.connector(name), task)
        self.supervisor.poke()

    def _restart(self, connector: Connector, task: Task) -> None:
        """One that is paused starts as what it is to be: paused, whether it had failed or not."""
        task.restart(time.monotonic())
        if connector.saved.target != "STARTED" and task.process is None:
            task.settle(connector.saved.target)

    # --- replays

    def sink(self, name: str) -> Sink:
        """A sink as a replay sees it. Raises Refused with 404."""
        with self.lock:
            found = self.connector(name)
            return Sink(
                name,
                found.saved.config,
                self.settings.texts,
                self._journals_of(found),
                self.stored_positions(name),
            )

    def replay(self, plan: Plan) -> None:
        """Move a sink's position: persist that, then have the task stopped and started."""
        with self.lock, self.holding(plan.journal, plan.start):
            found = self.connector(plan.connector)
            replay.intend(self.data, plan)
            task, process = found.task, found.task.process
            if found.saved.target == "STARTED":
                task.restart(time.monotonic())
            self.supervisor.wait_until(
                lambda: process is None or task.process is not process,
                self.settings.graceful_s + 1,
            )
            if task.process is None:
                replay.settle(self.data, plan.connector)
            task.positions.clear()
        self.supervisor.poke()

    @contextmanager
    def holding(self, journal: str, offset: int) -> Iterator[None]:
        """Retention leaves a journal alone from an offset on."""
        hold = (journal, offset)
        with self.lock:
            self.holds.append(hold)
            self._tell_needed()
        try:
            yield
        finally:
            with self.lock:
                self.holds.remove(hold)

    # --- which journals a sink reads

    def _journals_of(self, connector: Connector) -> list[str]:
        """By the sink's ``source``, else every source whose topics it can name.

        A source that is gone is read on by the sinks that began with it. A sink of one journal
        goes on with the one it began with, whatever sources come beside that. So does one whose
        configuration is unsound: what that would name is not known.
        """
        if not self._is_sink(connector):
            return []
        chosen = connector.relevant.get("source")
        if chosen:
            return sorted(chosen)
        begun = set(self.stored_positions(connector.name)) & set(self.data.journals())
        one = len(begun) == 1 and connector.relevant.get("one.journal")
        if one or connector.trace:
            return sorted(begun)
        running = {
            other.name
            for other in self.supervisor.connectors.values()
            # what an unsound one would write is not known either, and it writes nothing
            if other.kind == "source"
            and not other.trace
            and self._choice.may_read(connector, other)
        }
        return sorted(running | begun)

    def _is_sink(self, connector: Connector) -> bool:
        """Of an unknown class, say of a plugin that is not installed now, where it was one."""
        kept = connector.kind == "unknown" and self.data.sink(connector.name).exists()
        return kept or connector.kind == "sink"

    def _known_journals_of(self, connector: Connector) -> list[str] | None:
        """None when its positions cannot be read: nobody else is to suffer from that.

        Its own start says so; one that is paused has failed.
        """
        try:
            return self._journals_of(connector)
        except Exception as error:  # noqa: BLE001 - a damaged file, a disk that is gone
            self._note_unreadable(connector, error)
            return None

    def _note_unreadable(self, connector: Connector, error: Exception) -> None:
        if connector.name not in self._unreadable:
            self._unreadable.add(connector.name)
            log.warning(
                "%s: its positions cannot be read, so retention takes nothing: %s",
                connector.name, error,
            )  # fmt: skip
        if connector.saved.target == "PAUSED" and connector.task.process is None:
            connector.task.fail(status_trace(error))

    def stored_positions(self, name: str) -> dict[str, int]:
        """A sink's positions, from its file."""
        path = self.data.sink(name)
        if not path.exists():
            return {}
        offsets = Offsets(path)
        try:
            stored = offsets.load()
        finally:
            offsets.close()
        return {journal: at.offset for journal, at in stored.items() if at.offset is not None}

    def _regroup(self) -> None:
        """Sources came or went: sinks that read other journals now are started again.

        One that does not run will read them once it does, and holds them until then.
        """
        for connector in self.supervisor.connectors.values():
            task = connector.task
            if connector.kind != "sink" or task.again:
                continue
            journals = self._known_journals_of(connector)
            if journals is None or journals == task.journals:
                continue
            if task.process is not None:
                task.restart(time.monotonic())
            else:
                task.journals = journals
        self.supervisor.poke()

    def _idle_sources(self) -> list[Saved]:
        """Those whose slot nobody reads."""
        with self.lock:
            connectors = self.supervisor.connectors.values()
            return [c.saved for c in connectors if c.kind == "source" and c.task.process is None]

    # --- now and then

    def _housekeeping(self) -> None:
        """From the supervisor's thread, with the lock: retention and statuses."""
        self._tell_needed()
        self._save_statuses()

    def _tell_needed(self) -> None:
        """Tell every source's task what its retention must spare."""
        needed: dict[str, list[int]] = {}
        for journal, held in self.holds:
            needed.setdefault(journal, []).append(held)
        for connector in self.supervisor.connectors.values():
            if not self._is_sink(connector):
                continue
            for journal, at in self._needed_by(connector).items():
                needed.setdefault(journal, []).append(at)
        for connector in self.supervisor.connectors.values():
            task = connector.task
            if connector.kind != "source" or task.process is None:
                continue
            offset = min(needed.get(connector.name, ()), default=None)
            new = task.needed != offset and task.state == "RUNNING"
            if new and task.process.tell({"c": "needed", "offset": offset}):
                task.needed = offset

    def _needed_by(self, sink: Connector) -> dict[str, int]:
        """By journal; everything, of every source, while its positions cannot be read."""
        positions = sink.task.positions
        try:
            if not positions:
                positions.update(self.stored_positions(sink.name))
            journals = sink.task.journals or self._journals_of(sink)
        except Exception as error:  # noqa: BLE001 - see _known_journals_of
            self._note_unreadable(sink, error)
            return dict.fromkeys(self.supervisor.connectors, 0)
        self._unreadable.discard(sink.name)
        return {journal: positions.get(journal, 0) for journal in journals}

    def _save_statuses(self) -> None:
        for connector in self.supervisor.connectors.values():
            try:
                self.store.save_status(connector.name, connector.status(self.worker_id))
            except OSError as error:  # a full disk must not end the worker
                log.warning("status of %s not saved: %s", connector.name, error)


def settings_of(config: Config, log_level: str = "INFO") -> Settings:
    """The worker's settings from its configuration."""
    return Settings(
        graceful_s=config["task.shutdown.graceful.timeout.ms"] / 1000,
        restarts=Restarts(
            config["task.restart.max"],
            config["task.restart.backoff.ms"] / 1000,
            config["task.restart.backoff.max.ms"] / 1000,
        ),
        texts=dict(config.raw),
        log_level=log_level,
    )
