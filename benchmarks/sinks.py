"""What the benchmarks of sinks share: the workload's journal, and a sink task that reads it.

The sink runs in a process of its own, as under a worker, over a journal that is there already:
what is measured is the sink with its loop, not the source.
"""

from __future__ import annotations

import os
import select
import shutil
import time
from pathlib import Path

from benchmarks.common import Bench, BenchError, Run, Sampler, Tree, progress
from benchmarks.ours import NAME, run_source
from cdc.api import Batch, Lane
from cdc.block import Block
from cdc.log import Journal, JournalReader
from cdc.record import whole_rows
from cdc.runtime.offsets import Offsets
from cdc.runtime.process import TaskProcess
from cdc.runtime.runners import TaskSpec
from cdc.runtime.state import DataDir

ROWS_MAX = 500_000
TIMEOUT_S = 600.0
LOOK_EVERY_S = 0.1


def journal(bench: Bench) -> Path:
    """A data folder whose journal holds the workload, up to a limit; made once."""
    keep = bench.folder / "sinks-journal"
    if not keep.exists():
        slot, made = bench.slot(), bench.folder / "sinks-source"
        config = {"slot.name": slot, "snapshot.mode": "no_data"}
        expected = min(bench.changes, ROWS_MAX)
        try:
            run_source(bench, "source of the sinks' journal", expected, "tcp", config, keep=made)
        finally:
            bench.drop_slot(slot)
        data = DataDir(keep)
        data.prepare()
        _copy_whole(DataDir(made).journal(NAME), data.journal(NAME))
        shutil.rmtree(made)
    return keep


def _copy_whole(source: Path, target: Path) -> None:
    """The journal without the part of a transaction at its end, since no sink stores that."""
    with JournalReader(source) as reader, Journal.open(target) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        waiting: list[Block] = []
        at = 0
        while (block := reader.read(at)) is not None:
            at += len(block)
            whole = whole_rows(block)
            if whole:
                waiting.append(block.select(range(whole)))
                for ready in waiting:
                    journal.append(Batch(Lane.STREAM, {}, ready))
                waiting = []
            if whole < len(block):
                waiting.append(block.select(range(whole, len(block))))


def run_sink(bench: Bench, kind: str, config: dict[str, str]) -> Run:
    """One sink task from the journal's beginning to its end: rows over time, CPU and memory."""
    data = DataDir(journal(bench))
    name = f"{kind}-{bench.serial()}"
    with JournalReader(data.journal(NAME)) as reader:
        expected = reader.bounds()[1]
    progress(f"{kind}: {expected:,} rows")
    written = {"name": name, "connector.class": kind, "topics.regex": ".*", **config}
    spec = TaskSpec(
        name, "sink", written, str(data.path), journals=[NAME], parent=os.getpid(),
        log_level="WARNING",
    )  # fmt: skip
    began = time.monotonic()
    process = TaskProcess(spec)
    try:
        tree = Tree(process.pid)
        with Sampler(tree) as sampler:
            points = _watch(process, tree, data.sink(name), expected)
            sampler.look()
    finally:
        process.kill()
        process.reap()
    return Run(name, points, points[0][0] - began, sampler.samples)


def _watch(
    process: TaskProcess, tree: Tree, positions: Path, expected: int
) -> list[tuple[float, int, float]]:
    """(time, rows, CPU) from the task's start on, of every position seen to the last.

    However fast the task is, there are two: where it started, and where it ended.
    """
    points: list[tuple[float, int, float]] = []
    deadline = time.monotonic() + TIMEOUT_S
    while not points or points[-1][1] < expected:
        if time.monotonic() > deadline:
            raise BenchError(f"the sink stored less than {expected:,} rows in {TIMEOUT_S:.0f} s")
        select.select([process.messages.fd], [], [], LOOK_EVERY_S)
        for message in process.messages.receive():
            if message["m"] == "failed":
                raise BenchError(f"the sink failed: {message['trace']}")
            if message["m"] == "started" and not points:
                points.append((time.monotonic(), 0, tree.cpu_s()))
        if process.messages.ended:
            raise BenchError("the sink's process ended")
        rows = _stored(positions)
        if points and rows is not None and rows > points[-1][1]:
            points.append((time.monotonic(), rows, tree.cpu_s()))
    return points


def _stored(path: Path) -> int | None:
    if not path.exists():
        return None
    offsets = Offsets(path)
    try:
        stored = offsets.load().get(NAME)
    finally:
        offsets.close()
    return stored.offset if stored is not None else None
