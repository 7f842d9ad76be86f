"""Replay against the live rate: a copy in SQLite fed by a running source, then from the journal.

Live, a worker runs source and sink over the whole backlog; the rate is the sink's, from its
first stored row to its last. The replay fills a second set of tables beside the first ones by
``cdc replay --into``, its process's start included.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.common import Bench, BenchError, Figure, child, progress, timed
from cdc.runtime.offsets import Offsets
from cdc.runtime.state import DataDir

ROWS_MAX = 500_000
TIMEOUT_S = 900.0
LOOK_EVERY_S = 0.05
SOURCE, SINK = "bench", "copy"


def run(bench: Bench) -> list[Figure]:
    """Live, then replayed, ``runs`` times; the median of the pairs' ratios counts."""
    rows = min(bench.changes, ROWS_MAX)
    live, again = [], []
    for _ in range(bench.runs):
        folder = bench.folder / f"replay-{bench.serial()}"
        folder.mkdir()
        live.append(_live(bench, folder, rows))
        again.append(_replay(folder, rows))
    bench.results["replay"] = {
        "live": [round(x) for x in live],
        "replay": [round(x) for x in again],
    }
    ratio = median(r / x for r, x in zip(again, live, strict=True))
    return [
        Figure(
            "replay into a copy (SQLite)", "rows/s", median(again), limit=median(live),
            ratio=ratio, floor=1.0, note=f"{rows:,} rows; beside it: the live rate",
        )
    ]  # fmt: skip


def _live(bench: Bench, folder: Path, rows: int) -> float:
    progress(f"replay, live: {rows:,} rows")
    slot = bench.slot()
    connectors = [
        {
            "name": SOURCE, "connector.class": "postgres",
            **bench.connector("unix", **{"slot.name": slot, "snapshot.mode": "no_data"}),
        },
        {
            "name": SINK, "connector.class": "sql", "topics.regex": ".*",
            "connection.url": f"jdbc:sqlite:{folder / 'copy.db'}", "insert.mode": "upsert",
            "pk.mode": "record_key", "delete.enabled": "true", "auto.create": "true",
            "table.name.format": "${source.table}",
        },
    ]  # fmt: skip
    files = []
    for config in connectors:
        files.append(folder / f"{config['name']}.json")
        files[-1].write_text(json.dumps(config), encoding="utf-8")
    data = folder / "data"
    command = [
        sys.executable, "-m", "cdc", "run", "--data-dir", str(data), "--listen", "127.0.0.1:0",
        *map(str, files),
    ]  # fmt: skip
    try:
        with (folder / "log").open("wb") as log, child(command, stderr=log):
            return _watch(DataDir(data).sink(SINK), rows)
    finally:
        bench.drop_slot(slot)


def _watch(positions: Path, rows: int) -> float:
    """Rows a second from the first position stored to the last."""
    first: tuple[float, int] | None = None
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        at, now = _stored(positions), time.monotonic()
        if at and first is None:
            first = now, at
        if first is not None and at >= rows:
            return (at - first[1]) / max(now - first[0], 1e-9)
        time.sleep(LOOK_EVERY_S)
    raise BenchError(f"the sink stored less than {rows:,} rows in {TIMEOUT_S:.0f} s")


def _stored(path: Path) -> int:
    if not path.exists():
        return 0
    offsets = Offsets(path)
    try:
        stored = offsets.load().get(SOURCE)
    finally:
        offsets.close()
    return (stored.offset or 0) if stored is not None else 0


def _replay(folder: Path, rows: int) -> float:
    progress(f"replay, from the journal: {rows:,} rows")
    command = [
        sys.executable, "-m", "cdc", "replay", SINK, "--from", "beginning", "--to", str(rows),
        "--into", "again", "--data-dir", str(folder / "data"),
    ]  # fmt: skip
    wall_s, _ = timed(command, TIMEOUT_S)
    return rows / wall_s
