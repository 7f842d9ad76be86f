"""A source of numbers and a sink that remembers them: plugins as others would write them.

The source's "database" is the sequence 0, 1, 2, …: a snapshot of the first ``snapshot.rows``
of them, then a stream of transactions. What the runtime confirms goes to a file, as a
server would remember a slot's confirmed position; so a test sees a confirmation that came
before its rows were stored.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from cdc.api import Batch, Lane, LogState, Position, SinkContext, SinkTask, SourceTask
from cdc.block import CREATE, READ, Block, Transaction
from cdc.config import REQUIRED, Config, ConfigDef, Key, Kind
from cdc.errors import (
    ConfigError,
    ConnectionLost,
    PositionMismatch,
    SinkRejected,
    SinkUnavailable,
)
from schemas import EventSchema, Field, Schema, TableId

CONFIG = ConfigDef(
    (
        Key("topic.prefix", default=REQUIRED, doc="Logical name."),
        Key("confirmed.file", default=REQUIRED, doc="Where confirmed positions go."),
        Key("rows", Kind.INT, 1_000_000_000, "How many numbers there are."),
        Key("snapshot.rows", Kind.INT, 100, "How many of them the snapshot reads."),
        Key("transaction.rows", Kind.INT, 10, "Numbers in one streamed transaction."),
        Key("fail.file", doc="Its content says how to fail, while it is there."),
        Key("max.queue.size", Kind.INT, 8192, "Bound of the queue."),
        # The sink's
        Key("ledger.file", doc="Where the sink appends what it was given."),
    )
)
FAILURES = {
    "config": ConfigError("the counter is misspelt", key="rows", remedy="Spell it"),
    "lost": ConnectionLost("the counter went away"),
    "mismatch": PositionMismatch("the counter went back"),
    "bug": ValueError("a bug in the counter"),
    "unavailable": SinkUnavailable("the ledger is locked"),
    "rejected": SinkRejected("the ledger takes no numbers"),
}


def fail_as(path: str | None, step: str) -> None:
    """Fail when the file says so: its content is ``step=failure``."""
    if not path:
        return
    try:
        wanted, _, failure = Path(path).read_text().strip().partition("=")
    except FileNotFoundError:
        return
    if wanted == step:
        raise FAILURES[failure]


def event_schema(prefix: str) -> EventSchema:
    number = Field("n", Schema("int64"))
    topic = f"{prefix}.public.numbers"
    return EventSchema(
        topic=topic,
        table=TableId("db", "public", "numbers"),
        connector="counter",
        server=prefix,
        key=Schema("struct", name=f"{topic}.Key", fields=(number,)),
        row=Schema("struct", optional=True, name=f"{topic}.Value", fields=(number,)),
        source=Schema("struct", name="counter.Source", fields=(Field("lsn", Schema("int64")),)),
        source_template='{"lsn":%(lsn)b}',
    )


class CounterSourceTask(SourceTask):
    def __init__(self, config: Config, connector: str) -> None:
        self._config = config
        self._schema = event_schema(config["topic.prefix"])
        self._next = 0
        self._snapshot_done = False
        self._stopped = threading.Event()
        self._calls_from: set[int] = set()

    def start(self, state: LogState) -> None:
        fail_as(self._config["fail.file"], "start")
        self._snapshot_done = state.snapshot_closed
        snapshot = state.snapshot_position or {"next": 0}
        stream = state.stream_position
        rows = self._config["snapshot.rows"]
        self._next = (
            stream["next"] if stream else (rows if self._snapshot_done else snapshot["next"])
        )
        confirmed = read_confirmed(self._config["confirmed.file"])
        if confirmed > self._next:
            raise PositionMismatch(f"confirmed {confirmed}, stored {self._next}")

    def poll(self, timeout_s: float) -> list[Batch]:
        self._calls_from.add(threading.get_ident())
        fail_as(self._config["fail.file"], "poll")
        if not self._snapshot_done:
            rows = self._config["snapshot.rows"]
            end = min(rows, self._next + 50)
            block = self._block(self._next, end, READ)
            self._next, self._snapshot_done = end, end == rows
            return [Batch(Lane.SNAPSHOT, {"next": end}, block, close=self._snapshot_done)]
        end = min(self._config["rows"], self._next + self._config["transaction.rows"])
        if end <= self._next:
            self._stopped.wait(timeout_s)
            return []
        block = self._block(self._next, end, CREATE)
        self._next = end
        time.sleep(0.0005)  # a server has a pace too
        return [Batch(Lane.STREAM, {"next": end}, block)]

    def _block(self, first: int, end: int, op: int) -> Block:
        now_us = time.time_ns() // 1000
        transaction = Transaction(end, end, end, now_us, first)
        rows = []
        for ordinal, number in enumerate(range(first, end)):
            row = b'{"n":%d}' % number
            rows.append((op, 0, 0, number, ordinal, row, None, row))
        marker = "true" if op == READ else "false"
        return Block.build(rows, (self._schema,), (transaction,), now_us, marker=marker)

    def commit(self, lane: Lane, position: Position) -> None:
        self._calls_from.add(threading.get_ident())
        fail_as(self._config["fail.file"], "commit")
        if not position:
            return
        path = Path(self._config["confirmed.file"])
        part = path.with_suffix(".part")
        part.write_bytes(orjson.dumps({"next": position["next"], "at": time.monotonic()}))
        part.replace(path)

    def stop(self) -> None:
        self._stopped.set()

    def metrics(self) -> Mapping[str, float]:
        return {"cdc_snapshot_rows": min(self._next, self._config["snapshot.rows"])}


def read_confirmed(path: str | Path) -> int:
    try:
        return int(orjson.loads(Path(path).read_bytes())["next"])
    except FileNotFoundError:
        return 0


class LedgerSinkTask(SinkTask):
    """One line per put, flush and seek; numbers stay buffered until the flush."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._fd = -1
        self._buffer: list[Any] = []

    def start(self, context: SinkContext) -> None:
        fail_as(self._config["fail.file"], "start")
        self._buffer = []
        path = self._config["ledger.file"]
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def put(self, block: Block) -> None:
        fail_as(self._config["fail.file"], "put")
        for row, after in enumerate(block.afters):
            topic = block.schemas[block.schema[row]].topic
            self._buffer.append([topic, orjson.loads(after or b"null")["n"], block.offsets[row]])

    def flush(self, offset: int) -> None:
        fail_as(self._config["fail.file"], "flush")
        self._write({"flush": offset, "rows": self._buffer})
        self._buffer = []

    def seek(self, offset: int, epoch: int) -> None:
        self._write({"seek": offset, "epoch": epoch})

    def stop(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, entry: dict[str, Any]) -> None:
        os.write(self._fd, orjson.dumps(entry) + b"\n")


def ledger(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [orjson.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def numbers(path: Path) -> list[int]:
    """Everything that was flushed, in order, doubles included."""
    return [row[1] for entry in ledger(path) for row in entry.get("rows", ())]
