"""The audit sink into SQLite: records a second, CPU a record, memory; and a chain verified."""

from __future__ import annotations

import time
from statistics import median

from benchmarks.common import Bench, BenchError, Figure
from benchmarks.sinks import run_sink
from sinks.audit_chain import Hasher, verify
from sinks.audit_store import open_store


def run(bench: Bench) -> list[Figure]:
    """The workload has both images of every row, so changed columns are looked for, too."""
    runs = []
    for _ in range(bench.runs):
        path = bench.folder / f"audit-{bench.serial()}.db"
        found = run_sink(bench, "audit", {"connection.url": f"jdbc:sqlite:{path}"})
        runs.append((found, _verified(str(path))))
        for left in bench.folder.glob(f"{path.name}*"):
            left.unlink()
    bench.results["audit"] = [
        found.to_dict() | {"verified_per_s": round(rate)} for found, rate in runs
    ]
    cpu_us = median(found.cpu_us() for found, _ in runs)
    return [
        Figure(
            "audit sink, SQLite", "records/s", median(found.rate() for found, _ in runs),
            floor=40e3, note=f"{cpu_us:.1f} µs CPU a record",
        ),
        Figure(
            "memory of the audit sink's task", "MB", max(found.pss_mb() for found, _ in runs),
            floor=120, more_is_better=False, note="peak PSS",
        ),
        Figure("audit chain, verify", "records/s", median(rate for _, rate in runs)),
    ]  # fmt: skip


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
