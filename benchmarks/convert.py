"""JSON from Blocks: what JsonConverter costs an event, by the fast path over fragments.

The blocks are the workload's own, read from a journal that one stream run has filled; the
time is that of one thread, without reading, and the median of several turns over all of them.
"""

from __future__ import annotations

import shutil
import time
from statistics import median

from benchmarks.common import Bench, Figure, progress
from benchmarks.journal import load_blocks
from benchmarks.ours import NAME, run_source
from cdc.block import Block
from cdc.converters.json import JsonConverter
from cdc.runtime.state import DataDir

ROWS_MAX = 200_000
TURNS_MIN = 5


def run(bench: Bench) -> list[Figure]:
    """Fill a journal once, then convert its blocks several times."""
    bench.fill()
    expected = min(bench.changes, ROWS_MAX)
    keep = bench.folder / "convert-source"
    slot = bench.slot()
    config = {"slot.name": slot, "snapshot.mode": "no_data"}
    try:
        run_source(bench, "convert, source of its blocks", expected, "tcp", config, keep=keep)
    finally:
        bench.drop_slot(slot)
    blocks = load_blocks(DataDir(keep).journal(NAME), expected)
    progress(f"convert: {expected:,} rows as JSON")
    costs: dict[str, list[float]] = {"plain": [], "schemas": []}
    for _ in range(max(bench.runs, TURNS_MIN)):
        costs["plain"].append(_cost_us(blocks, JsonConverter(schemas_enable=False)))
        costs["schemas"].append(_cost_us(blocks, JsonConverter()))
    shutil.rmtree(keep)
    bench.results["convert"] = {name: [round(x, 3) for x in c] for name, c in costs.items()}
    note = f"blocks of {len(blocks[0]):,} rows"
    plain, schemas = median(costs["plain"]), median(costs["schemas"])
    return [
        Figure(
            "JSON without schemas", "µs/event", plain, floor=1.0, more_is_better=False, note=note
        ),
        Figure("JSON with schemas", "µs/event", schemas, more_is_better=False),
    ]


def _cost_us(blocks: list[Block], converter: JsonConverter) -> float:
    """CPU µs an event: its value, as a line of a sink has it."""
    rows = sum(map(len, blocks))
    began = time.process_time()
    for block in blocks:
        converter.values(block)
    return (time.process_time() - began) / rows * 1e6
