"""A replay into a second target beside the first: one run of a sink's own code, to an end.

The sink's module says how its configuration changes for another target, by a function
``into(config, name) -> {key: value}``; a sink without one cannot do it. The first target,
its connector and its position are not touched.

What is asked for is persisted before the first row is sent (``replays/<connector>/NAME.json``,
with the position beside it), so the same command goes on after a kill where the target is,
and another one under the same name is refused: no target ever holds two replays mixed.

As a program (``python -m cdc.runtime.into PARENT``): a job as JSON on standard input, the
result as JSON on standard output. The worker runs it so, since a task is a process.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from cdc import failpoints
from cdc.api import SinkContext
from cdc.block import Block
from cdc.config import Config
from cdc.durable import lock, make_folder
from cdc.errors import CdcError, ConfigError, LogError
from cdc.log.identity import origin_of
from cdc.log.reader import JournalReader
from cdc.parent import die_with
from cdc.runtime import plugins
from cdc.runtime.delivery import Delivery
from cdc.runtime.observer import Observer
from cdc.runtime.offsets import Offsets
from cdc.runtime.sink_loop import SinkLoop, SinkSettings
from cdc.runtime.state import DataDir, file_name, read_json, write_json
from cdc.runtime.topics import TablesOf, TopicFilter

log = logging.getLogger(__name__)

REPORT_S: Final = 1.0
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Job:
    """One replay into a second target. ``asked`` are the places as they were written."""

    connector: str
    name: str
    config: dict[str, str]
    worker: dict[str, str]
    data_dir: str
    journal: str
    start: int
    end: int
    tables: str
    asked: list[str]

    @property
    def label(self) -> str:
        """What the target knows the writer as."""
        return f"{self.connector}--{self.name}"

    @property
    def folder(self) -> Path:
        """Where this connector's replays keep what they must remember."""
        return DataDir(self.data_dir).path / "replays" / file_name(self.connector)

    @property
    def identity(self) -> dict[str, Any]:
        """What two runs must agree in to be one replay. An end that moves on is the first's."""
        return {"journal": self.journal, "tables": self.tables, "asked": self.asked}


def second_target(
    plugin: plugins.Plugin, config: Config, connector: str, name: str
) -> Mapping[str, str]:
    """The keys that differ for a second target. Raises ConfigError where a sink has none."""
    changes: Mapping[str, str] | None = plugin.load().into(config, name)
    if changes is None:
        raise ConfigError(
            f"{connector} cannot be replayed into a second target: {plugin.name} has none",
            key="into",
        )
    return changes


def run(job: Job, progress: Progress = lambda _: None) -> dict[str, Any]:
    """Send the rows; returns when they are durable in the target. Raises CdcError."""
    plugin, config = plugins.configure(job.config, job.worker)
    changes = second_target(plugin, config, job.connector, job.name)
    plugin, config = plugins.configure({**job.config, **changes}, job.worker)
    folder = job.folder
    make_folder(folder, 0o700)
    with _alone(folder / f"{job.name}.lock", job):
        start, end = _begin(folder / f"{job.name}.json", job)
        failpoints.hit("into.begun")
        rows = _send(_target(plugin, config, job), job, start, end, progress)
        write_json(
            folder / f"{job.name}.json",
            {**job.identity, "start": start, "end": end, "done": True},
        )
        for file in folder.glob(f"{job.name}.db*"):
            file.unlink()
    return {
        "connector": job.connector, "into": job.name, "source": job.journal,
        "from": start, "to": end, "rows": rows, "target": changes,
    }  # fmt: skip


@contextmanager
def _alone(path: Path, job: Job) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not lock(fd):
            raise ConfigError(f"the replay into {job.name} is under way", key="into")
        yield
    finally:
        os.close(fd)


def _begin(path: Path, job: Job) -> tuple[int, int]:
    """Persist what is asked for, or go on with it; the rows to send."""
    found = read_json(path)
    if found is None:
        write_json(path, {**job.identity, "start": job.start, "end": job.end, "done": False})
        return job.start, job.end
    if found["done"]:
        raise ConfigError(
            f"the replay into {job.name} is complete: offsets {found['start']} to"
            f" {found['end'] - 1} of {found['journal']}", key="into",
            remedy="Choose another name",
        )  # fmt: skip
    if {key: found[key] for key in job.identity} != job.identity:
        asked = " to ".join(found["asked"])
        raise ConfigError(
            f"{job.name} is the target of another replay, from {asked}, which was cut off",
            key="into",
            remedy="Repeat that one to finish it, or choose another name",
        )
    return int(found["start"]), int(found["end"])


class _Target(NamedTuple):
    """A task that was not started, and what it is to be given."""

    task: Any
    topics: TopicFilter
    settings: SinkSettings
    delivery: Delivery


def _target(plugin: plugins.Plugin, config: Config, job: Job) -> _Target:
    task_class = plugin.load()
    task = task_class(config)
    topics = TablesOf(plugins.topic_filter(config, messages=task.wants_messages), job.tables)
    # Its failures are logged only: the dead letters are those of the first target.
    delivery = Delivery.of(
        config, None, connector=job.label, takes_records=task_class.takes_records
    )
    return _Target(task, topics, plugins.sink_settings(config, job.worker), delivery)


def _send(target: _Target, job: Job, start: int, end: int, progress: Progress) -> int:
    data = DataDir(job.data_dir)
    reader = Bounded(data.journal(job.journal), end)
    offsets = Offsets(job.folder / f"{job.name}.db")
    try:
        new = job.journal not in offsets.load()
        if new:  # not a move: a target that is new has nothing to seek in
            offsets.store({job.journal: start})
        watch = _Watch(job, end, progress, begin=start if new else None)
        watch.loop = loop = SinkLoop(
            target.task,
            SinkContext(
                job.label,
                data.path / "sinks",
                {"journals": (job.journal,)},
                origin=lambda name: origin_of(data.journal(name)),
            ),
            {job.journal: reader},
            offsets,
            topics=target.topics,
            delivery=target.delivery,
            settings=replace(target.settings, new_target=True),
            events=watch,
        )
        loop.run()
        if watch.at < end:
            raise LogError(f"the replay into {job.name} ended at offset {watch.at} of {end}")
        return watch.rows
    finally:
        reader.close()
        offsets.close()


class Bounded:
    """A journal that ends at an offset, as a sink loop reads it."""

    def __init__(self, path: Path, end: int) -> None:
        self.path = path
        self._reader, self._end = JournalReader(path), end

    def read(self, offset: int) -> Block | None:
        """As :meth:`JournalReader.read`."""
        if offset >= self._end:
            return None
        block = self._reader.read(offset)
        if block is not None and block.offsets[-1] >= self._end:
            return block.select(range(self._end - block.offsets[0]))
        return block

    def bounds(self) -> tuple[int, int]:
        """As :meth:`JournalReader.bounds`."""
        first, after = self._reader.bounds()
        return first, min(after, self._end)

    def settled(self) -> bool:
        """Nothing comes behind the end: a transaction that it cuts goes as far as it is asked."""
        return True

    def close(self) -> None:
        """Release files."""
        self._reader.close()


class _Watch(Observer):
    """Ends the loop when all is stored."""

    def __init__(self, job: Job, end: int, progress: Progress, *, begin: int | None) -> None:
        self.loop: SinkLoop
        self.at = self.rows = 0
        self._job, self._end, self._progress, self._begin = job, end, progress, begin
        self._told = time.monotonic()

    def put(self, block: Block) -> None:
        self.rows += len(block)

    def stored(self, positions: Mapping[str, int]) -> None:
        self.at = max(positions.values(), default=0)
        if self._begin is not None and self.at != self._begin:
            raise ConfigError(
                f"{self._job.name} is there already: its target is at offset {self.at}",
                key="into",
                remedy="Choose another name",
            )
        self._begin = None
        if self.at >= self._end:
            self.loop.stop()
        now = time.monotonic()
        if now - self._told >= REPORT_S:
            self._told = now
            self._progress(self.at)


def main() -> int:
    """The program."""
    job = Job(**orjson.loads(sys.stdin.buffer.readline()))
    die_with(int(sys.argv[1]))
    form = f"%(asctime)s %(levelname)s [{job.label}] %(message)s (%(name)s)"
    logging.basicConfig(level="INFO", format=form, stream=sys.stderr)
    try:
        answer = run(job)
    except CdcError as error:
        answer = {"error": str(error), "config": isinstance(error, ConfigError)}
    sys.stdout.buffer.write(orjson.dumps(answer))
    return int("error" in answer)


def encode(job: Job) -> bytes:
    """The line that :func:`main` reads."""
    return orjson.dumps(asdict(job)) + b"\n"


if __name__ == "__main__":
    sys.exit(main())
