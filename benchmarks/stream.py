"""Stream → journal: rows a second, CPU an event, memory; Debezium in turn; the limit.

Debezium's JDBC driver knows TCP only, so the ratio is TCP against TCP; our Unix socket,
the default beside a database, is a figure of its own. The limit is pg_recvlogical, which
receives the same bytes and throws them away.
"""

from __future__ import annotations

from statistics import median

from benchmarks.common import Bench, Figure, Host, Run, growth, progress, timed
from benchmarks.debezium import run_debezium
from benchmarks.ours import run_source

LIMIT_TIMEOUT_S = 600.0


def run(bench: Bench) -> list[Figure]:
    """The contestants in turn, ``runs`` times."""
    bench.fill()
    turns: dict[str, list[Run]] = {"ours, unix": [], "ours, tcp": [], "debezium": []}
    limits: dict[str, list[float]] = {"unix": [], "tcp": []}
    for _ in range(bench.runs):
        turns["ours, tcp"].append(_ours(bench, "tcp"))
        if bench.debezium:
            turns["debezium"].append(_debezium(bench))
        turns["ours, unix"].append(_ours(bench, "unix"))
        for host in ("tcp", "unix"):
            limits[host].append(_limit(bench, host))
    bench.results["stream"] = {
        "runs": [turn.to_dict() for found in turns.values() for turn in found],
        "limits": {host: [round(x) for x in found] for host, found in limits.items()},
    }
    return _figures(turns, limits)


def _ours(bench: Bench, host: Host) -> Run:
    slot = bench.slot()
    name = f"stream, ours over {host}"
    try:
        config = {"slot.name": slot, "snapshot.mode": "no_data"}
        return run_source(bench, name, bench.changes, host, config)
    finally:
        bench.drop_slot(slot)


def _debezium(bench: Bench) -> Run:
    slot = bench.slot()
    config = {"slot.name": slot, "snapshot.mode": "no_data"}
    try:
        return run_debezium(bench, "stream, Debezium over tcp", bench.changes, **config)
    finally:
        bench.drop_slot(slot)


def _limit(bench: Bench, host: Host) -> float:
    """What pg_recvlogical receives a second."""
    slot = bench.slot()
    progress(f"stream, limit: pg_recvlogical over {host}")
    ((end,),) = bench.sql("SELECT pg_current_wal_insert_lsn()::text")
    command = [
        str(bench.server.bin_dir / "pg_recvlogical"), "--start", "--no-loop", "--file=/dev/null",
        f"--slot={slot}", f"--dbname={bench.server.dsn(host=host)}", f"--endpos={end}",
        "--option=proto_version=1", "--option=publication_names=bench",
    ]  # fmt: skip
    try:
        wall_s, _ = timed(command, LIMIT_TIMEOUT_S)
    finally:
        bench.drop_slot(slot)
    return bench.changes / wall_s


def _figures(turns: dict[str, list[Run]], limits: dict[str, list[float]]) -> list[Figure]:
    tcp, unix, rival = turns["ours, tcp"], turns["ours, unix"], turns["debezium"]
    rate = median(r.rate() for r in tcp)
    cpu = median(r.cpu_us() for r in tcp)
    warm = median(r.rate(r.warm()) for r in rival) if rival else None
    warm_cpu = median(r.cpu_us(r.warm()) for r in rival) if rival else None
    cold = median(r.rate() for r in rival) if rival else 0
    memory = max(r.pss_mb() for r in (*tcp, *unix))
    rival_memory = max(r.pss_mb() for r in rival) if rival else None
    return [
        Figure(
            "stream → journal, TCP", "rows/s", rate, warm, median(limits["tcp"]),
            rate / warm if warm else None, 1.8 if warm else None,
            note=f"Debezium warm; {cold:,.0f} with its start" if warm else "",
        ),
        Figure(
            "stream → journal, Unix socket", "rows/s", median(r.rate() for r in unix), None,
            median(limits["unix"]), note="Debezium's driver has no Unix sockets",
        ),
        Figure(
            "CPU per event, TCP", "µs", cpu, warm_cpu, None,
            cpu / warm_cpu if warm_cpu else None, 0.45 if warm_cpu else None,
            more_is_better=False,
        ),
        Figure(
            "memory of a source task", "MB", memory, rival_memory, None, None, 100,
            more_is_better=False, note="peak PSS",
        ),
        growth("memory's growth", [*tcp, *unix], "last quarter's peak over the second quarter's"),
    ]  # fmt: skip
