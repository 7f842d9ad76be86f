"""The search sink: documents a second, CPU a document, memory; and a query's time."""

from __future__ import annotations

import time
from statistics import median

from benchmarks.common import Bench, Figure
from benchmarks.sinks import run_sink
from sinks.search_index import search

QUERIES = ('"SKU-17"', "noon twice", "deliver*", '"ring twice 4711"')


def run(bench: Bench) -> list[Figure]:
    """Two text columns of ten; updates and deletes of documents are in the workload."""
    runs = []
    for _ in range(bench.runs):
        path = bench.folder / f"search-{bench.serial()}.db"
        config = {"search.file": str(path), "search.columns": ".*:sku,note"}
        runs.append((run_sink(bench, "search", config), _searched_ms(str(path))))
        for left in bench.folder.glob(f"{path.name}*"):
            left.unlink()
    bench.results["search"] = [
        found.to_dict() | {"query_ms": round(took, 2)} for found, took in runs
    ]
    cpu_us = median(found.cpu_us() for found, _ in runs)
    return [
        Figure(
            "search sink, FTS5", "documents/s", median(found.rate() for found, _ in runs),
            floor=20e3, note=f"{cpu_us:.1f} µs CPU a document",
        ),
        Figure(
            "memory of the search sink's task", "MB", max(found.pss_mb() for found, _ in runs),
            floor=120, more_is_better=False, note="peak PSS",
        ),
        Figure(
            "search, a query", "ms", median(took for _, took in runs), more_is_better=False,
            note="mean of four, ten best hits ranked",
        ),
    ]  # fmt: skip


def _searched_ms(path: str) -> float:
    began = time.perf_counter()
    for query in QUERIES:
        search(path, query)
    return (time.perf_counter() - began) * 1e3 / len(QUERIES)
