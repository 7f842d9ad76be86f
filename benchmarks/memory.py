"""Memory of a whole sidecar, worker + source + console sink, over the whole backlog."""

from __future__ import annotations

from benchmarks.common import MB, Bench, Figure, Run, Sampler, Tree, growth, progress
from benchmarks.sidecar import sidecar, wait

TIMEOUT_S = 1800.0


def run(bench: Bench) -> list[Figure]:
    """One run over the whole stream; the console's lines are read and thrown away."""
    slot = bench.slot()
    lines = 0

    def take(chunk: bytes, _now: float) -> None:
        nonlocal lines
        lines += chunk.count(b"\n")

    source = bench.connector("unix", **{"slot.name": slot, "snapshot.mode": "no_data"})
    progress(f"memory: worker, source and console over {bench.changes:,} changes")
    try:
        with sidecar(bench, source, take) as (process, log), Sampler(Tree(process.pid)) as sampler:
            wait(process, log, lambda: lines >= bench.changes, TIMEOUT_S)
    finally:
        bench.drop_slot(slot)
    found = Run("memory", pss=sampler.samples)
    bench.results["memory"] = {"pss_mb": [round(x / MB, 1) for x in found.pss]}
    return [
        Figure(
            "memory of worker + source + console", "MB", found.pss_mb(), floor=200,
            more_is_better=False, note="peak PSS of the process tree",
        ),
        growth(
            "its growth",
            [found],
            f"over {bench.changes:,} changes; last quarter's peak over the second's",
        ),
    ]  # fmt: skip
