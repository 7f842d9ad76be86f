"""Our side: a source task in a process of its own, as a worker runs it, writing its journal."""

from __future__ import annotations

import os
import select
import shutil
import time
from pathlib import Path

from benchmarks.common import Bench, BenchError, Host, Run, Sampler, Tree, progress
from cdc.log.reader import JournalReader
from cdc.runtime.process import TaskProcess
from cdc.runtime.runners import TaskSpec
from cdc.runtime.state import DataDir

NAME = "bench"
TIMEOUT_S = 1200.0
STOP_TIMEOUT_S = 15.0
LOOK_EVERY_S = 0.05


def run_source(
    bench: Bench,
    name: str,
    expected: int,
    host: Host,
    config: dict[str, str],
    *,
    keep: Path | None = None,
) -> Run:
    """One turn: until ``expected`` rows are in the journal; ``keep`` is where it stays."""
    data = DataDir(keep or bench.folder / f"data-{bench.serial()}")
    data.prepare()
    spec = TaskSpec(
        NAME,
        "source",
        {"name": NAME, "connector.class": "postgres", **bench.connector(host, **config)},
        str(data.path),
        parent=os.getpid(),
        log_level="WARNING",
    )
    progress(f"{name}: {expected:,} rows")
    began = time.monotonic()
    process = TaskProcess(spec)
    try:
        tree = Tree(process.pid)
        with Sampler(tree) as sampler:
            points = _watch(process, tree, data.journal(NAME), expected)
    finally:
        _end(process)
    if keep is None:
        shutil.rmtree(data.path, ignore_errors=True)
    return Run(name, points, points[0][0] - began, sampler.samples)


def _watch(
    process: TaskProcess, tree: Tree, journal: Path, expected: int
) -> list[tuple[float, int, float]]:
    """(time, rows, CPU) at the first durable rows, now and then, and at the last."""
    points: list[tuple[float, int, float]] = []
    reader: JournalReader | None = None
    deadline = time.monotonic() + TIMEOUT_S
    looked_at = 0.0
    rows = 0
    try:
        while rows < expected:
            now = time.monotonic()
            if now > deadline:
                raise BenchError(f"our source stored {rows:,} rows in {TIMEOUT_S:.0f} s")
            _heed(process, LOOK_EVERY_S)
            if points and now - looked_at < LOOK_EVERY_S:
                continue
            looked_at = now
            reader = reader or (JournalReader(journal) if journal.exists() else None)
            rows = _stored(reader)
            if rows and (not points or rows > points[-1][1]):
                points.append((time.monotonic(), rows, tree.cpu_s()))
    finally:
        if reader is not None:
            reader.close()
    return points


def _stored(reader: JournalReader | None) -> int:
    return reader.bounds()[1] if reader is not None else 0


def _heed(process: TaskProcess, timeout_s: float) -> None:
    """Wait for messages of the task. Raises BenchError when it has failed."""
    select.select([process.messages.fd], [], [], timeout_s)
    for message in process.messages.receive():
        if message["m"] == "failed":
            raise BenchError(f"our source failed: {message['trace']}")
    if process.messages.ended:
        raise BenchError("our source's process ended")


def _end(process: TaskProcess) -> None:
    process.stop()
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while not process.messages.ended and time.monotonic() < deadline:
        select.select([process.messages.fd], [], [], 0.2)
        process.messages.receive()
    if not process.messages.ended:
        process.kill()
    process.reap()
