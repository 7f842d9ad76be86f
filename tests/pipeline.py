"""A source with a real journal, to be run in a thread or in a process that can be killed.

:class:`Pipeline` runs it in a thread of the test, :class:`ChildPipeline` as
``python -m tests.pipeline`` in a process of its own. :class:`Copy` is the oracle's other
side: the state that whoever reads the journal in order arrives at.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson

import cdc
from cdc.api import Batch, Lane, LogState
from cdc.block import DELETE, MESSAGE, READ, TRUNCATE, Block
from cdc.config import Config
from cdc.log import Journal, JournalReader
from cdc.postgres.config import CONFIG
from cdc.postgres.dsn import from_url
from cdc.postgres.source import PostgresSourceTask
from cdc.record import UNCHANGED, image
from cdc.runtime.observer import Observer
from cdc.runtime.source_loop import QueueLimits, SourceLoop
from tests.guard import guarded
from tests.waiting import wait_for

ROOT = Path(cdc.__file__).parent.parent
DEADLINE_S = 90.0
PACE_S = 0.005  # between a workload's turns: others are to come to their turn too

# Quick answers instead of a minute's patience: every test waits on conditions anyway.
QUICK = {
    "topic.prefix": "t",
    "slot.max.retries": "40",
    "slot.retry.delay.ms": "250",
    "snapshot.max.threads": "1",
}


def settings_for(dsn: str, **settings: str) -> dict[str, str]:
    """A connector's configuration; ``table_include_list=…`` stands for ``table.include.list``."""
    named = {name.replace("_", "."): value for name, value in settings.items()}
    slot = "s_" + from_url(dsn)["database.dbname"]
    return {**from_url(dsn), **QUICK, "slot.name": slot, **named}


def config_for(dsn: str, **settings: str) -> Config:
    return CONFIG.parse(settings_for(dsn, **settings))


def until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Wait for a true value, and return it; the test fails when there is none in time."""
    return wait_for(condition, what, deadline_s)


@dataclass(frozen=True)
class Event:
    """One row of a block, parsed."""

    offset: int
    op: str
    table: str
    key: Any
    row: Any
    before: Any
    marker: str
    lsn: int
    ordinal: int
    commit_lsn: int
    end_lsn: int
    xid: int
    moved: Any = None
    origin: str | None = None
    raw_key: bytes | None = None
    fields: tuple[str, ...] = ()


def events_of(block: Block) -> Iterator[Event]:
    """All rows of a block."""
    for n, op in enumerate(block.op):
        schema = block.schemas[block.schema[n]]
        transaction = block.transactions[block.transaction[n]]
        key, before, moved = block.keys[n], block.befores[n], block.moved.get(n)
        yield Event(
            offset=block.offsets[n] if block.offsets else -1,
            op=chr(op),
            table=str(schema.table) if op != MESSAGE else "",
            key=None if key is None else orjson.loads(key),
            row=image(block, n),
            before=None if before is None else orjson.loads(before),
            marker=block.marker_of(n),
            lsn=block.lsn[n],
            ordinal=block.ordinal[n],
            commit_lsn=transaction.commit_lsn,
            end_lsn=transaction.end_lsn,
            xid=transaction.xid,
            moved=None if moved is None else orjson.loads(moved),
            origin=transaction.origin,
            raw_key=key,
            fields=tuple(f.name for f in schema.row.fields),
        )


def read_journal(path: Path, offset: int = 0) -> list[Event]:
    """Everything readable from an offset on, in order."""
    out: list[Event] = []
    with JournalReader(path) as reader:
        oldest, after = reader.bounds()
        offset = max(offset, oldest)
        while offset < after:
            block = reader.read(offset)
            if block is None:
                break
            out += events_of(block)
            offset = block.offsets[-1] + 1
    return out


@dataclass
class Copy:
    """Tables by key, as the journal's events leave them."""

    tables: dict[str, dict[Any, dict[str, Any]]] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    _moving: dict[tuple[str, bytes], dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, events: list[Event]) -> Self:
        copy = cls()
        for event in events:
            copy.apply(event)
        return copy

    def apply(self, event: Event) -> None:
        if event.op == chr(MESSAGE):
            return
        rows = self.tables.setdefault(event.table, {})
        if event.op == chr(TRUNCATE):
            rows.clear()
        elif event.op == chr(DELETE):
            gone = rows.pop(event.raw_key, None)
            if event.moved is not None and gone is not None:
                self._moving[event.table, orjson.dumps(event.moved)] = gone
        else:
            self._upsert(rows, event)

    def _upsert(self, rows: dict[Any, dict[str, Any]], event: Event) -> None:
        # what a key change did not send comes from the row under the old key
        moving = self._moving.pop((event.table, event.raw_key or b""), None)
        known = (moving if event.moved is not None else None) or rows.get(event.raw_key) or {}
        row = {
            name: known.get(name, UNCHANGED) if value is UNCHANGED else value
            for name, value in event.row.items()
        }
        if event.op == chr(READ) and UNCHANGED in row.values():
            self.complaints.append(f"a snapshot row without a value: {event}")
        rows[event.raw_key] = row

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """A table's rows as sorted tuples, to be compared with a SELECT's."""
        return sorted(map(tuple, (r.values() for r in self.tables.get(table, {}).values())))


class Followed:
    """A journal's events, each read once however often one looks: what is there stays so."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._events: list[Event] = []
        self._copy, self._applied = Copy(), 0

    def events(self) -> list[Event]:
        """All that the journal holds by now."""
        if list(self._path.glob("*")):
            after = self._events[-1].offset + 1 if self._events else 0
            self._events += read_journal(self._path, after)
        return list(self._events)

    def copy(self) -> Copy:
        """What these events leave, by now."""
        for event in self.events()[self._applied :]:
            self._copy.apply(event)
        self._applied = len(self._events)
        return self._copy


def source_rows(database: Any, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
    """The same of the database."""
    return sorted(database.execute(f"SELECT {columns} FROM {table}"))


class Pipeline:
    """A source and its journal in this process. ``with`` runs it; errors are raised at the end."""

    def __init__(
        self,
        path: Path,
        dsn: str,
        *,
        log: Callable[[Journal], Any] = lambda journal: journal,
        task: Callable[[Config], PostgresSourceTask] = PostgresSourceTask,
        **settings: str,
    ) -> None:
        self.path, self._followed = path, Followed(path)
        self.config = config_for(dsn, **settings)
        self.error: BaseException | None = None
        self._wrap, self._make = log, task
        self._loop: SourceLoop | None = None
        self._thread: threading.Thread | None = None
        self.task: PostgresSourceTask | None = None
        self.started = threading.Event()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.stop()
        if kind is None and self.error is not None:
            raise self.error

    def start(self) -> Self:
        """Run from what the journal holds."""
        self.error = None
        self.started.clear()
        self._thread = threading.Thread(target=self._run, name="pipeline", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End in order."""
        if self._loop is not None:
            self._loop.stop()
        if self._thread is not None:
            self._thread.join(DEADLINE_S)
            assert not self._thread.is_alive(), "the source does not stop"

    def _run(self) -> None:
        try:
            with Journal.open(self.path) as journal:
                self.task = self._make(self.config)
                limits = QueueLimits(records=self.config["max.queue.size"])
                self._loop = SourceLoop(
                    self.task, self._wrap(journal), limits=limits, events=_Started(self)
                )
                self._loop.run()
        except BaseException as error:  # noqa: BLE001 - __exit__ raises it
            self.error = error
            self.started.set()

    def running(self) -> Self:
        """Wait for the source's start."""
        assert self.started.wait(DEADLINE_S), "the source does not start"
        if self.error is not None:
            raise self.error
        return self

    def events(self) -> list[Event]:
        """All that the journal holds by now."""
        return self._followed.events()

    def copy(self) -> Copy:
        """What these events leave, by now."""
        return self._followed.copy()

    def until(self, condition: Callable[[list[Event]], Any], what: str) -> list[Event]:
        """Wait until the journal's events fulfil a condition, and return them."""

        def look() -> list[Event] | None:
            if self.error is not None:
                raise self.error
            events = self.events()
            return events if condition(events) else None

        found: list[Event] = until(look, what)
        return found

    def until_agrees(self, database: Any, *tables: str) -> list[Event]:
        """Wait until applying the journal gives these tables' rows."""

        def agrees(_: list[Event]) -> bool:
            copy = self.copy()
            return all(copy.rows(t) == source_rows(database, t) for t in tables)

        try:
            self.until(agrees, "agreement")
        except AssertionError:
            for table in tables:
                assert self.copy().rows(table) == source_rows(database, table)
            raise
        return self.events()


class _Started(Observer):
    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def started(self) -> None:
        self._pipeline.started.set()


class ChildPipeline:
    """The same in a process of its own, which may be killed at any moment."""

    def __init__(self, path: Path, dsn: str, **settings: str) -> None:
        self.path, self._settings = path, settings_for(dsn, **settings)
        self._followed = Followed(path)
        self.process: subprocess.Popen[bytes] | None = None
        self.messages = path.with_suffix(".log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self, failpoints: str = "") -> None:
        """Start it; it restarts its task by itself after an error that is retriable."""
        spec = {"path": str(self.path), "settings": self._settings}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.messages.open("ab") as messages:
            self.process = guarded(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.pipeline"],
                    cwd=ROOT,
                    env={**os.environ, "CDC_FAILPOINTS": failpoints},
                    stdin=subprocess.PIPE,
                    stdout=messages,
                    stderr=subprocess.STDOUT,
                )
            )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(spec).encode())
        self.process.stdin.close()

    def kill(self) -> None:
        """``kill -9``, as often as one likes."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def events(self) -> list[Event]:
        """All that the journal holds by now."""
        return self._followed.events()

    def copy(self) -> Copy:
        """What these events leave, by now."""
        return self._followed.copy()

    def count(self) -> int:
        """How many rows the journal shows by now; cheap."""
        if not list(self.path.glob("*")):
            return 0
        with JournalReader(self.path) as reader:
            return reader.bounds()[1]

    def until_count(self, rows: int) -> None:
        """Wait until the journal shows so many; fails with its output if the process ends."""

        def look() -> bool:
            assert self.alive, self.messages.read_text()[-3000:]
            return self.count() >= rows

        until(look, f"{rows} rows", 60)


class SlowLog:
    """A journal on a slow disk: an append to a lane takes ``append_s`` of it longer."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.append_s: dict[Lane, float] = {}
        self.calls = 0

    def state(self) -> LogState:
        return self._journal.state()

    @property
    def dropped_rows(self) -> int:
        return self._journal.dropped_rows

    def append(self, batch: Batch) -> int:
        wait_s = self.append_s.get(batch.lane, 0.0)
        if wait_s:
            self.calls += 1
            time.sleep(wait_s)
        return self._journal.append(batch)


@contextmanager
def workload(work: Callable[[Any], None], database: Any) -> Iterator[None]:
    """Run ``work(connection)`` again and again in a thread, until the block ends."""
    ended = threading.Event()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            with database.connect() as connection:
                while not ended.wait(PACE_S):
                    work(connection)
        except BaseException as error:  # noqa: BLE001 - raised below
            failure.append(error)

    thread = threading.Thread(target=run, name="workload", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(DEADLINE_S)
    if failure:
        raise failure[0]


def main(spec: Mapping[str, Any]) -> None:
    """Run until killed, restarting after retriable errors as the worker does."""
    import logging

    from cdc.errors import CdcError

    logging.basicConfig(level=logging.INFO)
    while True:
        try:
            with Journal.open(spec["path"], segment_bytes=4 << 20) as journal:
                SourceLoop(PostgresSourceTask(CONFIG.parse(spec["settings"])), journal).run()
        except CdcError as error:
            logging.warning("%s: %s", type(error).__name__, error)  # noqa: LOG015 - a script's
            if not error.retriable:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    main(json.loads(sys.stdin.read()))
