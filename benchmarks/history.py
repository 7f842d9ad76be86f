"""A single row's history on a journal of 50 million events, from memory and from disk.

The journal is written here: some real blocks again and again, each time with a filter of keys
that no other block has, and now and then the block that holds the row looked for. "Cold" is
after the kernel was told to forget the files. On its own: ``python -m benchmarks.history
--events 5000000``.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.common import Bench, BenchError, Figure, progress
from benchmarks.report import table
from cdc.api import Batch, Lane
from cdc.block import CREATE, ENTRY_BYTES, Block, EncodedBlock, Transaction
from cdc.history import history
from cdc.log.journal import Journal
from schemas import EventSchema, Field, Schema, TableId

EVENTS = 50_000_000
ROWS = 2048  # max.batch.size
VERSIONS = 100
POOL = 32
KEY = 42


def run(bench: Bench) -> list[Figure]:
    """Write the journal, ask it."""
    figures, times = measure(bench.folder, EVENTS, max(bench.runs, 3))
    bench.results["history"] = times
    return figures


def measure(folder: Path, events: int, runs: int) -> tuple[list[Figure], dict[str, list[float]]]:
    """Seconds for the history of one row, warm and cold."""
    path = folder / "history"
    began = time.perf_counter()
    _fill(path, events)
    progress(f"history: {events:,} events written in {time.perf_counter() - began:.0f} s")
    times: dict[str, list[float]] = {"warm": [], "cold": []}
    _ask(path)
    for _ in range(runs):
        times["warm"].append(_ask(path))
    for _ in range(runs):
        if not _forget(path):
            break
        times["cold"].append(_ask(path))
    shutil.rmtree(path)
    note = f"{VERSIONS} versions among {events / 1e6:g} M events"
    figures = [
        Figure(f"history of a row, {name}", "s", median(seconds), floor=2.0, more_is_better=False,
               note=note)
        for name, seconds in times.items()
        if seconds
    ]  # fmt: skip
    return figures, times


def _schema() -> EventSchema:
    fields = tuple(
        Field(name, Schema(type_))
        for name, type_ in (("id", "int64"), ("customer", "int32"), ("note", "string"))
    )
    return EventSchema(
        "bench.public.orders", TableId("db", "public", "orders"), "postgresql", "bench",
        Schema("struct", fields=fields[:1]), Schema("struct", optional=True, fields=fields),
        Schema("struct"), "{}",
    )  # fmt: skip


def _block(schema: EventSchema, source: random.Random, key: int | None = None) -> EncodedBlock:
    ids = [source.randrange(1000, 1 << 40) for _ in range(ROWS)]
    if key is not None:
        ids[ROWS // 2] = key
    rows = [
        (CREATE, 0, 0, n, n, b'{"id":%d}' % i, None,
         b'{"id":%d,"customer":%d,"note":"to be delivered before noon, ring twice %d"}'
         % (i, i % 50000, i % 9973))
        for n, i in enumerate(ids)
    ]  # fmt: skip
    transaction = Transaction(7, ROWS, ROWS + 8, 1_700_000_000_000_000, 0)
    return Block.build(rows, (schema,), (transaction,), 1_700_000_000_000_000).encode()


def _fill(path: Path, events: int) -> None:
    schema, source = _schema(), random.Random(1)
    pool = [_block(schema, source) for _ in range(POOL)]
    wanted = _block(schema, source, KEY)
    count = events // ROWS
    places = set(range(0, count, max(count // VERSIONS, 1))[:VERSIONS])
    with Journal.open(path, retention_ms=None) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        for n in range(count):
            block = pool[n % POOL]
            block = wanted if n in places else replace(block, filter=os.urandom(ROWS * ENTRY_BYTES))
            journal.append(Batch(Lane.STREAM, {"lsn": n}, block))
            if n % 2048 == 0:
                progress(f"history: {n * ROWS:,} of {events:,} events written")


def _ask(path: Path) -> float:
    began = time.perf_counter()
    versions = history(path, "orders", KEY)
    seconds = time.perf_counter() - began
    if len(versions) != VERSIONS:
        raise BenchError(f"{len(versions)} versions were found instead of {VERSIONS}")
    return seconds


def _forget(path: Path) -> bool:
    """Make the kernel drop what it keeps of the files; False where it cannot be told."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for file in path.iterdir():
        fd = os.open(file, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
    return True


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="cdc-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Without the other benchmarks and their server."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS, help="default 50,000,000")
    parser.add_argument("--runs", type=int, default=3, help="medians are shown")
    args = parser.parse_args()
    if args.events < ROWS * VERSIONS or args.runs < 1:
        parser.error(f"--events is at least {ROWS * VERSIONS:,}, --runs at least 1")
    with _folder() as folder:
        figures, _ = measure(folder, args.events, args.runs)
    print(table(figures))
    return int(any(figure.ok is False for figure in figures))


if __name__ == "__main__":
    raise SystemExit(main())
