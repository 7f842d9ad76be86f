"""What every benchmark needs: a server with the workload, and a meter for child processes.

The workload is written once, while a slot retains it; each contestant gets a copy of that
slot, so that all read the same backlog from the same first byte.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import psutil
import psycopg

from cdc.demo.postgres import PASSWORD, PostgresServer, find_embedded

Host = Literal["tcp", "unix"]

TABLE = "orders"
PUBLICATION = "bench"
BASE_SLOT = "bench_base"
CHANGES_PER_TRANSACTION = 100
ROWS_LEFT_PER_TRANSACTION = 50
MB = 1 << 20
SAMPLES_MIN = 8  # of memory, for two in each quarter of a run

_TABLE_SQL = f"""
CREATE TABLE {TABLE} (
    id bigint PRIMARY KEY,
    customer_id integer NOT NULL,
    sku text NOT NULL,
    quantity smallint NOT NULL,
    price numeric(12,2) NOT NULL,
    weight double precision,
    paid boolean NOT NULL,
    ordered_on date NOT NULL,
    changed_at timestamptz NOT NULL,
    note text
);
ALTER TABLE {TABLE} REPLICA IDENTITY FULL;
CREATE PUBLICATION {PUBLICATION} FOR TABLE {TABLE};
"""
# 60 inserts, 30 updates, 10 deletes per transaction.
_FILL_SQL = f"""
CREATE PROCEDURE fill(first int, last int) LANGUAGE plpgsql AS $$
BEGIN
    FOR t IN first .. last LOOP
        INSERT INTO {TABLE} SELECT i, i % 50000, 'SKU-' || i % 9973, i % 90 + 1,
            (i % 100000) / 100.0, (i % 1000) / 8.0, i % 3 = 0, date '2024-01-01' + (i % 366)::int,
            timestamptz '2024-01-01 12:00:00+00' + i * interval '1.000123 s',
            CASE WHEN i % 4 > 0 THEN 'to be delivered before noon, ring twice ' || i END
        FROM generate_series(t::bigint * 60, t::bigint * 60 + 59) AS i;
        UPDATE {TABLE} SET quantity = quantity + 1, paid = true,
            changed_at = changed_at + interval '1 hour'
        WHERE id BETWEEN t::bigint * 60 AND t::bigint * 60 + 29;
        DELETE FROM {TABLE} WHERE id BETWEEN t::bigint * 60 + 50 AND t::bigint * 60 + 59;
        COMMIT;
    END LOOP;
END $$
"""
_TRANSACTIONS_PER_CALL = 1000

SERVER_SETTINGS: dict[str, str | int | float | bool] = {
    "fsync": True,
    "shared_buffers": "256MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "autovacuum": False,  # it would come in the middle of somebody's turn
    "max_replication_slots": 200,
    "wal_sender_timeout": "5min",
}


class BenchError(Exception):
    """A benchmark could not be carried out; the message says why."""


@dataclass(frozen=True)
class Figure:
    """One row of the table. ``ratio`` is what ``floor`` is about, else ``ours`` is.

    ``ours`` is None for what could not be told.
    """

    name: str
    unit: str
    ours: float | None
    rival: float | None = None
    limit: float | None = None
    ratio: float | None = None
    floor: float | None = None
    more_is_better: bool = True
    note: str = ""

    @property
    def ok(self) -> bool | None:
        """Whether the floor is kept; None without a floor, and for what could not be told."""
        value = self.ours if self.ratio is None else self.ratio
        if self.floor is None or value is None:
            return None
        return value >= self.floor if self.more_is_better else value <= self.floor


@dataclass
class Run:
    """One contestant's turn. Times are of its own clock; the first batch is where they start.

    ``points`` are (seconds, rows, CPU seconds) in the course of the run.
    """

    name: str
    points: list[tuple[float, int, float]] = field(default_factory=list)
    start_to_first_s: float = 0.0
    pss: list[int] = field(default_factory=list)

    def rate(self, part: slice = slice(None)) -> float:
        """Rows a second over a part of the points."""
        (s0, r0, _), (s1, r1, _) = self._ends(part)
        return (r1 - r0) / max(s1 - s0, 1e-9)

    def cpu_us(self, part: slice = slice(None)) -> float:
        """CPU µs a row over a part of the points."""
        (_, r0, c0), (_, r1, c1) = self._ends(part)
        return (c1 - c0) * 1e6 / max(r1 - r0, 1)

    def warm(self) -> slice:
        """The points of the second half of the rows."""
        half = (self.points[0][1] + self.points[-1][1]) / 2
        return slice(max(0, sum(p[1] <= half for p in self.points) - 1), None)

    def pss_mb(self) -> float:
        """The highest memory seen."""
        return max(self.pss, default=0) / MB

    def growth(self) -> float | None:
        """Highest memory of the last quarter over that of the second: 1 is flat.

        None for a run too short to tell.
        """
        n = len(self.pss)
        if n < SAMPLES_MIN:
            return None
        return max(self.pss[-(n // 4) :]) / max(self.pss[n // 4 : n // 2])

    def _ends(self, part: slice) -> tuple[tuple[float, int, float], tuple[float, int, float]]:
        points = self.points[part]
        if len(points) < 2:
            raise BenchError(f"{self.name}: too few batches to time; use more --changes")
        return points[0], points[-1]

    def to_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "name": self.name,
            "rows": self.points[-1][1],
            "seconds": round(self.points[-1][0] - self.points[0][0], 3),
            "rows_per_s": round(self.rate()),
            "rows_per_s_warm": round(self.rate(self.warm())),
            "cpu_us_per_row": round(self.cpu_us(), 3),
            "cpu_us_per_row_warm": round(self.cpu_us(self.warm()), 3),
            "pss_mb": round(self.pss_mb(), 1),
            "pss_growth": None if (growth := self.growth()) is None else round(growth, 3),
            "start_to_first_s": round(self.start_to_first_s, 3),
        }


def growth(name: str, runs: Sequence[Run], note: str) -> Figure:
    """The memory's growth in the worst of several runs, with its floor."""
    found = [run.growth() for run in runs]
    known = [value for value in found if value is not None]
    if len(known) < len(found):
        note = f"fewer than {SAMPLES_MIN} samples; use more --changes"
    worst = max(known) if len(known) == len(found) else None
    return Figure(name, "×", worst, floor=1.1, more_is_better=False, note=note)


@dataclass
class Bench:
    """What a benchmark is given: a running server with the workload, a folder, the options."""

    server: PostgresServer
    folder: Path
    changes: int
    runs: int
    debezium: bool
    results: dict[str, Any] = field(default_factory=dict)
    _serial: int = 0
    _filled: bool = False

    def sql(self, statement: str, parameters: Any = None, db: str = "postgres") -> list[Any]:
        """Run a statement; its rows."""
        with psycopg.connect(self.server.dsn(db), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def serial(self) -> int:
        """A number nobody has had."""
        self._serial += 1
        return self._serial

    def slot(self) -> str:
        """A slot that starts where the workload starts."""
        self.fill()
        name = f"bench_{self.serial()}"
        self.sql("SELECT pg_copy_logical_replication_slot(%s, %s)", [BASE_SLOT, name])
        return name

    def drop_slot(self, name: str) -> None:
        """Give a slot back; its reader may need a moment to let go."""
        for _ in range(100):
            try:
                self.sql("SELECT pg_drop_replication_slot(%s)", [name])
                return
            except psycopg.errors.ObjectInUse:
                time.sleep(0.1)
            except psycopg.errors.UndefinedObject:
                return

    def fill(self) -> None:
        """Write the workload, once."""
        if self._filled:
            return
        self._filled = True
        transactions = self.changes // CHANGES_PER_TRANSACTION
        self.sql(_TABLE_SQL)
        self.sql(_FILL_SQL)
        self.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [BASE_SLOT])
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            connection.execute("SET synchronous_commit = off")
            for first in range(0, transactions, _TRANSACTIONS_PER_CALL):
                last = min(first + _TRANSACTIONS_PER_CALL, transactions) - 1
                connection.execute(f"CALL fill({first}, {last})".encode())
                progress(f"workload: {(last + 1) * CHANGES_PER_TRANSACTION:,} changes written")
            connection.execute(f"VACUUM (ANALYZE) {TABLE}".encode())
            connection.execute("CHECKPOINT")

    @property
    def rows(self) -> int:
        """The rows the workload leaves in the table."""
        return self.changes // CHANGES_PER_TRANSACTION * ROWS_LEFT_PER_TRANSACTION

    def connector(self, host: Host, **more: str) -> dict[str, str]:
        """Connection and scope, in the keys that both engines know."""
        return {
            "database.hostname": "127.0.0.1" if host == "tcp" else str(self.server.socket_dir),
            "database.port": str(self.server.port),
            "database.user": "postgres",
            "database.password": PASSWORD,
            "database.dbname": "postgres",
            "topic.prefix": "bench",
            "plugin.name": "pgoutput",
            "publication.name": PUBLICATION,
            "publication.autocreate.mode": "disabled",
            "table.include.list": f"public.{TABLE}",
            **more,
        }


@contextmanager
def open_bench(changes: int, runs: int, *, debezium: bool) -> Iterator[Bench]:
    """A server and a folder for the time of a run; nothing is left of either."""
    folder = Path(tempfile.mkdtemp(prefix="cdc-bench-"))
    try:
        with PostgresServer(find_embedded(), settings=SERVER_SETTINGS) as server:
            progress(f"server: PostgreSQL {server.version}, fsync on")
            yield Bench(server, folder, changes, runs, debezium)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def progress(text: str) -> None:
    """A line on standard error; it replaces the one before where there is a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
    else:
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


# --- child processes ----------------------------------------------------------------------


class Tree:
    """A process and its descendants: CPU so far and memory now."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self.pid = pid

    def cpu_s(self) -> float:
        """CPU, user and system, of the living and of the dead that were waited for."""
        total = 0.0
        for process in self._processes():
            try:
                t = process.cpu_times()
            except psutil.Error:
                continue
            total += t.user + t.system + t.children_user + t.children_system
        return total

    def pss_bytes(self) -> int:
        """Memory, shared pages divided among their users (PSS)."""
        return sum(pss_bytes(process.pid) for process in self._processes())

    def _processes(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return []


def pss_bytes(pid: int) -> int:
    """One process's PSS, RSS where the system does not know it, 0 for one that is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except FileNotFoundError:
        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:
            return 0
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


class Sampler:
    """Looks at a tree's memory twice a second, from a thread."""

    INTERVAL_S = 0.5

    def __init__(self, tree: Tree) -> None:
        self.tree, self.samples = tree, list[int]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def look(self) -> None:
        """One sample more, now."""
        found = self.tree.pss_bytes()
        if found:
            self.samples.append(found)

    def _run(self) -> None:
        while not self._stop.wait(self.INTERVAL_S):
            self.look()


def dying_with_us() -> list[str]:
    """A command prefix: the child is killed when we are, by kill -9 too (Linux)."""
    found = shutil.which("setpriv") if sys.platform == "linux" else None
    return [found, "--pdeathsig", "KILL", "--"] if found else []


@contextmanager
def child(command: list[str], **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not outlive the block."""
    process = subprocess.Popen([*dying_with_us(), *command], stdin=subprocess.DEVNULL, **more)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()


def timed(command: list[str], timeout_s: float, **more: Any) -> tuple[float, float]:
    """Wall and CPU seconds of a command that must succeed within its time."""
    before, began = os.times(), time.monotonic()
    with child(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more) as process:
        try:
            _, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{command[0]} took longer than {timeout_s:.0f} s") from None
    wall_s, after = time.monotonic() - began, os.times()
    if process.returncode:
        raise BenchError(f"{command[0]} failed: {errors.decode(errors='replace')[-500:]}")
    spent = after.children_user + after.children_system
    return wall_s, spent - before.children_user - before.children_system
