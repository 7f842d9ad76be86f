"""The journal alone: rows a second written, read as blocks, and read as parsed records.

The blocks are the workload's own: one stream run fills a journal, whose blocks are then
written to a second one, each durable, encoded and compressed anew. Reading slices every
fragment; a Record has its key and value parsed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.common import Bench, BenchError, Figure, progress
from benchmarks.ours import NAME, run_source
from cdc.api import Batch, Lane
from cdc.block import Block
from cdc.event import events
from cdc.log.journal import Journal
from cdc.log.reader import JournalReader
from cdc.runtime.state import DataDir

ROWS_MAX = 500_000
RECORDS_MAX = 100_000


def run(bench: Bench) -> list[Figure]:
    """Fill a journal once, then write and read it ``runs`` times."""
    bench.fill()
    expected = min(bench.changes, ROWS_MAX)
    keep = bench.folder / "journal-source"
    slot = bench.slot()
    config = {"slot.name": slot, "snapshot.mode": "no_data"}
    try:
        run_source(bench, "journal, source of its blocks", expected, "tcp", config, keep=keep)
    finally:
        bench.drop_slot(slot)
    source = DataDir(keep).journal(NAME)
    blocks = load_blocks(source, expected)
    progress(f"journal: {expected:,} rows written and read")
    rates: dict[str, list[float]] = {"write": [], "read": [], "records": []}
    for _ in range(max(bench.runs, 3)):
        target = bench.folder / f"journal-{bench.serial()}"
        rates["write"].append(_write(blocks, target))
        rates["read"].append(_read(target))
        rates["records"].append(_read_records(target))
        shutil.rmtree(target)
    shutil.rmtree(keep)
    bench.results["journal"] = {name: [round(x) for x in r] for name, r in rates.items()}
    note = f"blocks of {len(blocks[0]):,} rows"
    return [
        Figure("journal, write", "rows/s", median(rates["write"]), floor=500e3, note=note),
        Figure("journal, read blocks", "rows/s", median(rates["read"]), floor=1e6),
        Figure("journal, read parsed records", "rows/s", median(rates["records"]), floor=100e3),
    ]


def load_blocks(path: Path, rows: int) -> list[Block]:
    """Blocks as a decoder hands them over: fragments are objects already."""
    out: list[Block] = []
    for block in _blocks(path):
        block.keys, block.befores, block.afters = (
            tuple(column) for column in (block.keys, block.befores, block.afters)
        )
        out.append(block)
        if block.offsets[-1] + 1 >= rows:
            return out
    raise BenchError(f"{path} holds less than {rows:,} rows")


def _blocks(path: Path) -> Iterator[Block]:
    with JournalReader(path) as reader:
        offset = 0
        while (block := reader.read(offset)) is not None:
            yield block
            offset = block.offsets[-1] + 1


def _write(blocks: list[Block], path: Path) -> float:
    rows = sum(map(len, blocks))
    with Journal.open(path) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        began = time.perf_counter()
        for n, block in enumerate(blocks):
            journal.append(Batch(Lane.STREAM, {"lsn": n}, block))
        return rows / (time.perf_counter() - began)


def _read(path: Path) -> float:
    rows, began = 0, time.perf_counter()
    for block in _blocks(path):
        for column in (block.keys, block.befores, block.afters):
            column[0]
        rows += len(block)
    return rows / (time.perf_counter() - began)


def _read_records(path: Path) -> float:
    """Without tombstones: they would make it look faster."""
    rows, began = 0, time.perf_counter()
    for block in _blocks(path):
        for _ in events(block, tombstones=False):
            rows += 1
        if rows >= RECORDS_MAX:
            break
    return rows / (time.perf_counter() - began)
