"""Start → first event: from the start of a process to its first line of output."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
import time
from statistics import median

from benchmarks.common import Bench, BenchError, Figure, child, progress
from benchmarks.debezium import run_debezium
from benchmarks.sidecar import Output, sidecar, wait

DATABASE = "start"
TABLE_ROWS = 10
RUNS_MIN = 5
TIMEOUT_S = 60.0


def run(bench: Bench) -> list[Figure]:
    """A small table each time, a new slot each time."""
    bench.sql(f"CREATE DATABASE {DATABASE}")
    bench.sql(
        "CREATE TABLE orders (id int PRIMARY KEY, note text);"
        f"INSERT INTO orders SELECT i, 'n' FROM generate_series(1, {TABLE_ROWS}) AS i;"
        "CREATE PUBLICATION bench FOR TABLE orders",
        db=DATABASE,
    )
    runs = range(max(bench.runs, RUNS_MIN))
    times: dict[str, list[float]] = {"run": [_run(bench) for _ in runs]}
    if importlib.util.find_spec("cdc.cli.capture"):
        times["capture"] = [_capture(bench) for _ in runs]
    rival = None
    if bench.debezium:
        times["debezium"] = [_debezium(bench) for _ in range(bench.runs)]
        rival = median(times["debezium"])
    bench.sql(f"DROP DATABASE {DATABASE} WITH (FORCE)")
    bench.results["start"] = {name: [round(x, 3) for x in found] for name, found in times.items()}
    names = {
        "run": "start → first event, cdc run to console",
        "capture": "start → first event, cdc capture",
    }
    return [
        Figure(name, "s", median(times[key]), rival, floor=1.0, more_is_better=False)
        for key, name in names.items()
        if key in times
    ]


def _source(bench: Bench, slot: str) -> dict[str, str]:
    return {**bench.connector("unix"), "database.dbname": DATABASE, "slot.name": slot}


def _run(bench: Bench) -> float:
    slot = f"start_{bench.serial()}"
    progress("start: cdc run")
    seen: list[float] = []
    began = time.time()
    try:
        with sidecar(bench, _source(bench, slot), lambda _, now: seen.append(now)) as (p, log):
            wait(p, log, lambda: bool(seen), TIMEOUT_S)
    finally:
        bench.drop_slot(slot)
    return seen[0] - began


def _capture(bench: Bench) -> float:
    progress("start: cdc capture")
    url = bench.server.dsn(DATABASE, host="unix")
    command = [sys.executable, "-m", "cdc", "capture", url]
    seen: list[float] = []
    first = threading.Event()

    def take(_chunk: bytes, now: float) -> None:
        seen.append(now)
        first.set()

    began = time.time()
    log = (bench.folder / "capture.log").open("wb")
    with log, child(command, stdout=subprocess.PIPE, stderr=log) as process:
        output = Output(process, take)
        if not first.wait(TIMEOUT_S):
            raise BenchError(f"cdc capture gave nothing within {TIMEOUT_S:.0f} s")
        process.terminate()
        output.join()
    return seen[0] - began


def _debezium(bench: Bench) -> float:
    slot = f"start_{bench.serial()}"
    config = {"database.dbname": DATABASE, "slot.name": slot, "snapshot.mode": "initial"}
    try:
        found = run_debezium(bench, "start, Debezium", TABLE_ROWS, **config)
    finally:
        bench.drop_slot(slot)
    return found.start_to_first_s
