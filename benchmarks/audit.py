"""The audit sink into SQLite and Parquet: records a second, CPU, memory; a chain verified."""

from __future__ import annotations

import importlib.util
import shutil
import time
from pathlib import Path
from statistics import median

from benchmarks.common import Bench, BenchError, Figure, Run, progress
from benchmarks.sinks import run_sink
from sinks.audit_chain import Hasher, verify
from sinks.audit_target import open_store

PARQUET_ROWS = 100_000  # of a file, so that several are sealed under the meter


def run(bench: Bench) -> list[Figure]:
    """The workload has both images of every row, so changed columns are looked for, too."""
    figures = _figures(bench, "SQLite", "jdbc:sqlite:")
    if importlib.util.find_spec("pyarrow") is None:
        progress("without Parquet: it needs pyarrow, pip install 'cdc-engine[parquet]'")
        return figures
    return figures + _figures(bench, "Parquet", "parquet:")


def _figures(bench: Bench, target: str, scheme: str) -> list[Figure]:
    runs: list[tuple[Run, float]] = []
    for _ in range(bench.runs):
        path = bench.folder / f"audit-{bench.serial()}"
        config = {"connection.url": f"{scheme}{path}", "audit.parquet.rows": str(PARQUET_ROWS)}
        found = run_sink(bench, "audit", config)
        runs.append((found, _verified(str(path))))
        _remove(path)
    bench.results[f"audit {target}"] = [
        found.to_dict() | {"verified_per_s": round(rate)} for found, rate in runs
    ]
    cpu_us = median(found.cpu_us() for found, _ in runs)
    return [
        Figure(
            f"audit sink, {target}", "records/s", median(found.rate() for found, _ in runs),
            floor=40e3, note=f"{cpu_us:.1f} µs CPU a record",
        ),
        Figure(
            f"memory of its task, {target}", "MB", max(found.pss_mb() for found, _ in runs),
            floor=120, more_is_better=False, note="peak PSS",
        ),
        Figure(
            f"audit chain, verify, {target}", "records/s", median(rate for _, rate in runs)
        ),
    ]  # fmt: skip


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    for left in path.parent.glob(f"{path.name}*"):
        left.unlink()


def _verified(path: str) -> float:
    store = open_store(path, existing=True)
    try:
        store.begin_read()
        (position,) = store.positions()
        began = time.perf_counter()
        report = verify(store.records(position.table), Hasher(None), kept=position.end)
        took_s = time.perf_counter() - began
    finally:
        store.close()
    if not report.ok:
        raise BenchError(f"the audit chain is broken: {report.problem}")
    return report.records / took_s
