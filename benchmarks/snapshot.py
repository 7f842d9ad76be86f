"""Snapshot → journal: rows a second with one and two readers; Debezium in turn; COPY as limit.

Timed from the first rows to the last, so neither side's start counts. Debezium runs with
its default of one thread and with two; the ratio is taken to its better one.
"""

from __future__ import annotations

from statistics import median

from benchmarks.common import Bench, Figure, Host, Run, progress, timed
from benchmarks.debezium import run_debezium
from benchmarks.ours import run_source

LIMIT_TIMEOUT_S = 300.0
THREADS = (1, 2)


def run(bench: Bench) -> list[Figure]:
    """The contestants in turn, ``runs`` times."""
    bench.fill()
    ours: dict[int, list[Run]] = {n: [] for n in THREADS}
    rival: dict[int, list[Run]] = {n: [] for n in THREADS}
    unix: list[Run] = []
    limits: list[float] = []
    for _ in range(bench.runs):
        for threads in THREADS:
            ours[threads].append(_ours(bench, "tcp", threads))
            if bench.debezium:
                rival[threads].append(_debezium(bench, threads))
        unix.append(_ours(bench, "unix", 2))
        limits.append(_limit(bench))
    turns = [*ours.values(), *rival.values(), unix]
    bench.results["snapshot"] = {
        "runs": [turn.to_dict() for found in turns for turn in found],
        "limits": [round(x) for x in limits],
    }
    return _figures(ours, rival, unix, median(limits))


def _ours(bench: Bench, host: Host, threads: int) -> Run:
    config = {"snapshot.mode": "initial_only", "snapshot.max.threads": str(threads)}
    name = f"snapshot, ours over {host}, readers: {threads}"
    return run_source(bench, name, bench.rows, host, config)


def _debezium(bench: Bench, threads: int) -> Run:
    slot = f"rival_{bench.serial()}"
    config = {
        "snapshot.mode": "initial_only",
        "snapshot.max.threads": str(threads),
        "slot.name": slot,
    }
    try:
        return run_debezium(bench, f"snapshot, Debezium, threads: {threads}", bench.rows, **config)
    finally:
        bench.drop_slot(slot)


def _limit(bench: Bench) -> float:
    """Rows a second of a bare COPY."""
    progress("snapshot, limit: COPY to /dev/null")
    copy = "COPY orders TO STDOUT"
    command = [str(bench.server.bin_dir / "psql"), bench.server.dsn(), "--command", copy]
    wall_s, _ = timed(command, LIMIT_TIMEOUT_S)
    return bench.rows / wall_s


def _figures(
    ours: dict[int, list[Run]], rival: dict[int, list[Run]], unix: list[Run], limit: float
) -> list[Figure]:
    best = max((median(r.rate() for r in found) for found in rival.values() if found), default=None)
    out = []
    for threads, found in ours.items():
        rate = median(r.rate() for r in found)
        floored = threads == max(THREADS) and best
        out.append(
            Figure(
                f"snapshot → journal, readers: {threads}", "rows/s", rate, best, limit,
                rate / best if best else None, 2.5 if floored else None,
                note="TCP; Debezium with its better number of threads" if best else "TCP",
            )
        )  # fmt: skip
    rate = median(r.rate() for r in unix)
    out.append(Figure("snapshot → journal, Unix socket, readers: 2", "rows/s", rate, None, limit))
    cpu = median(r.cpu_us() for r in ours[max(THREADS)])
    theirs = min((median(r.cpu_us() for r in f) for f in rival.values() if f), default=None)
    ratio = cpu / theirs if theirs else None
    out.append(
        Figure(
            "CPU per snapshot row", "µs", cpu, theirs, None, ratio, None, more_is_better=False,
            note="source task and its readers",
        )
    )  # fmt: skip
    memory = max(r.pss_mb() for found in ours.values() for r in found)
    out.append(
        Figure(
            "memory during a snapshot", "MB", memory, None, None, more_is_better=False,
            note="peak PSS, source task and its readers",
        )
    )  # fmt: skip
    return out
