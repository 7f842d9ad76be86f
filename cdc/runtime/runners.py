"""From a task's specification to a running loop: plugin, configuration, log or readers.

The same in a task process, in ``cdc capture``'s relatives and in tests.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cdc.api import SinkContext
from cdc.config import Config
from cdc.runtime import plugins
from cdc.runtime.observer import Observer
from cdc.runtime.state import DataDir

if TYPE_CHECKING:
    from cdc.log.journal import Journal


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a task needs to know. JSON-like: it travels through a pipe.

    ``config`` is the connector's, as written: placeholders are resolved where the task runs.
    ``journals`` are the sources a sink reads.
    """

    connector: str
    kind: str
    config: dict[str, str]
    data_dir: str
    task: int = 0
    journals: list[str] = field(default_factory=list)
    worker: dict[str, str] = field(default_factory=dict)
    parent: int = 0
    log_level: str = "INFO"


class Runner(Protocol):
    """A task, ready to run."""

    def run(self) -> None:
        """Run until stopped; raises what ended it."""

    def stop(self) -> None:
        """End soon and in order. From any thread."""

    def obey(self, command: Mapping[str, Any]) -> None:
        """A command of the worker's. From any thread."""


def make_runner(spec: TaskSpec, events: Observer) -> Runner:
    """Raises ConfigError for what is wrong with the configuration."""
    return (SourceRunner if spec.kind == "source" else SinkRunner)(spec, events)


class SourceRunner:
    """A source task writing its journal."""

    def __init__(self, spec: TaskSpec, events: Observer) -> None:
        from cdc.runtime.chain import source_chain
        from cdc.runtime.source_loop import QueueLimits, SourceLoop

        plugin, config = plugins.configure(spec.config, spec.worker)
        self._needed: int | None = 0  # until the worker says so, retention takes nothing
        self._journal = open_journal(
            DataDir(spec.data_dir).journal(spec.connector), config, lambda: self._needed
        )
        try:
            task = plugin.load()(config, spec.connector)
            self._loop = SourceLoop(
                task,
                self._journal,
                limits=QueueLimits.of(config),
                events=events,
                upkeep=self._journal.retain,
                chain=source_chain(config, spec.connector, spec.task),
            )
        except BaseException:
            self._journal.close()
            raise

    def run(self) -> None:
        """See Runner."""
        try:
            self._loop.run()
        finally:
            self._journal.close()

    def stop(self) -> None:
        """See Runner."""
        self._loop.stop()

    def obey(self, command: Mapping[str, Any]) -> None:
        """``needed``: the lowest offset that a sink still needs, None without sinks."""
        if command["c"] == "needed":
            self._needed = command["offset"]


class SinkRunner:
    """A sink task reading one or more journals."""

    def __init__(self, spec: TaskSpec, events: Observer) -> None:
        self._spec, self._events = spec, events
        self._plugin, self._config = plugins.configure(spec.config, spec.worker)
        self._stopping = threading.Event()
        self._loop: Any = None

    def run(self) -> None:
        """Files are opened here: readers and positions belong to the thread that runs."""
        from cdc.log.identity import origin_of
        from cdc.log.reader import JournalReader
        from cdc.runtime.delivery import Delivery
        from cdc.runtime.offsets import Offsets
        from cdc.runtime.sink_loop import SinkLoop
        from cdc.runtime.topics import Unmatched

        spec, config, data = self._spec, self._config, DataDir(self._spec.data_dir)
        offsets = Offsets(data.sink(spec.connector))
        readers = {name: JournalReader(data.journal(name)) for name in spec.journals}
        task_class = self._plugin.load()
        delivery = Delivery.of(
            config,
            data.sink(spec.connector),
            connector=spec.connector,
            task=spec.task,
            stopping=self._stopping,
            takes_records=task_class.takes_records,
        )
        try:
            context = SinkContext(
                spec.connector,
                Path(spec.data_dir) / "sinks",
                {"journals": tuple(spec.journals)},
                delivery.reporter,
                lambda name: origin_of(data.journal(name)),
                offsets.witness(),
            )
            task = task_class(config)
            topics = plugins.topic_filter(config, messages=task.wants_messages)
            journals = {name: data.journal(name) for name in spec.journals or data.journals()}
            self._loop = SinkLoop(
                task,
                context,
                readers,
                offsets,
                topics=topics,
                delivery=delivery,
                unmatched=Unmatched(topics, journals, self._events),
                settings=plugins.sink_settings(config, spec.worker),
                events=self._events,
            )
            if self._stopping.is_set():
                return
            self._loop.run()
        finally:
            for reader in readers.values():
                reader.close()
            delivery.close()
            offsets.close()

    def stop(self) -> None:
        """See Runner."""
        self._stopping.set()
        if self._loop is not None:
            self._loop.stop()

    def obey(self, command: Mapping[str, Any]) -> None:
        """``wake``: a source has appended; ``redeliver``: dead letters are asked for."""
        if self._loop is None:
            return
        if command["c"] == "wake":
            self._loop.wake()
        elif command["c"] == "redeliver":
            self._loop.redeliver()


def open_journal(path: Path, config: Config, needed: Any) -> Journal:
    """A source's journal, by its ``journal.*`` keys; -1 stands for no limit there."""
    from cdc.log.journal import Journal

    def limit(key: str) -> int | None:
        value = int(config[key])
        return None if value == -1 else value

    return Journal.open(
        path,
        segment_bytes=config["journal.segment.bytes"],
        segment_seconds=config["journal.segment.ms"] / 1000,
        retention_ms=limit("journal.retention.ms"),
        retention_bytes=limit("journal.retention.bytes"),
        budget_bytes=config["journal.budget.bytes"],
        full_policy=config["journal.full.policy"],
        needed=needed,
    )
