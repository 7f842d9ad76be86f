"""Commit → console at 1,000 transactions a second, through worker, journal and sink.

Each row carries the server's clock of its INSERT; it is compared with the moment its line
is seen on the console sink's pipe. So the time of the commit itself, fsync included, is in.
"""

from __future__ import annotations

import re
import time
from statistics import quantiles

from benchmarks.common import Bench, BenchError, Figure, progress, timed
from benchmarks.sidecar import sidecar, wait

DATABASE = "latency"
RATE = 1000
SECONDS = 20
WARM_UP_S = 4
START_TIMEOUT_S = 60.0
_SENT = re.compile(rb'"after":\{"id":\d+,"sent_us":(\d+)')
_SCRIPT = (
    "INSERT INTO ticks (sent_us)"
    " VALUES ((extract(epoch FROM clock_timestamp()) * 1000000)::bigint);\n"
)


def run(bench: Bench) -> list[Figure]:
    """One run; pgbench is the load."""
    bench.sql(f"CREATE DATABASE {DATABASE}")
    bench.sql(
        "CREATE TABLE ticks (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sent_us bigint);"
        "CREATE PUBLICATION bench FOR TABLE ticks;"
        f"INSERT INTO ticks (sent_us) VALUES ({time.time_ns() // 1000})",
        db=DATABASE,
    )
    try:
        pieces = _run_load(bench)
    finally:
        bench.drop_slot("latency")
        bench.sql(f"DROP DATABASE {DATABASE} WITH (FORCE)")
    ms = _latencies_ms(pieces)
    if len(ms) < RATE * (SECONDS - WARM_UP_S) * 0.5:
        raise BenchError(f"only {len(ms):,} rows arrived: the load was not {RATE} tx/s")
    cuts = quantiles(ms, n=1000)
    p50, p99, p999 = cuts[499], cuts[989], cuts[998]
    rate = len(ms) / (SECONDS - WARM_UP_S)
    bench.results["latency"] = {
        "rows": len(ms), "tx_per_s": round(rate), "p50_ms": p50, "p99_ms": p99, "p999_ms": p999,
        "max_ms": max(ms),
    }  # fmt: skip
    note = f"at {rate:,.0f} tx/s; p99.9 {p999:.1f}, max {max(ms):.0f}"
    return [
        Figure("commit → console, p50", "ms", p50, floor=10, more_is_better=False, note=note),
        Figure("commit → console, p99", "ms", p99, floor=50, more_is_better=False),
    ]


def _run_load(bench: Bench) -> list[tuple[bytes, float]]:
    pieces: list[tuple[bytes, float]] = []
    source = {
        **bench.connector("unix"),
        "database.dbname": DATABASE,
        "slot.name": "latency",
        "table.include.list": "public.ticks",
    }
    script = bench.folder / "ticks.sql"
    script.write_text(_SCRIPT, encoding="ascii")
    command = [
        str(bench.server.bin_dir / "pgbench"), "--no-vacuum", f"--file={script}",
        f"--rate={RATE}", "--client=8", "--jobs=1", f"--time={SECONDS}", "--protocol=prepared",
        bench.server.dsn(DATABASE, host="unix"),
    ]  # fmt: skip
    with sidecar(bench, source, lambda chunk, now: pieces.append((chunk, now))) as (process, log):
        wait(process, log, lambda: bool(pieces), START_TIMEOUT_S)
        progress(f"latency: {RATE:,} transactions a second for {SECONDS} s")
        timed(command, SECONDS + 60.0)
        time.sleep(0.5)
    return pieces


def _latencies_ms(pieces: list[tuple[bytes, float]]) -> list[float]:
    """Of the rows sent after the warm-up. A line counts when its last byte is here."""
    out: list[tuple[int, float]] = []
    rest = b""
    for chunk, now in pieces:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            found = _SENT.search(line)
            if found:
                out.append((int(found[1]), now * 1e6))
    first = out[1][0] if len(out) > 1 else 0  # out[0] is the snapshot's row
    return [(now - sent) / 1e3 for sent, now in out[1:] if sent - first >= WARM_UP_S * 1e6]
