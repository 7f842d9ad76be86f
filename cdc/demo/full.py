"""The whole demo: an embedded server, a shop, a worker, a crash, and the comparison."""

from __future__ import annotations

import os
import random
import shlex
import signal
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import psutil
import psycopg

from cdc.demo import parts, shop
from cdc.demo.compare import PostgresSide, Result, compare, read_table
from cdc.demo.postgres import PostgresServer, SettingValue, find_embedded
from cdc.demo.show import Show, Tail, by_operation
from cdc.demo.stage import AUDIT, CONSOLE, COPY, SEARCH, SOURCE, DemoFailed, Stage, patience
from cdc.demo.uses import Uses, configs
from cdc.demo.workload import Tally, Workload, close_the_books
from cdc.postgres.dsn import from_url
from cdc.runtime.scrape import folder_bytes

SHOP_DB, COPY_DB = "shop", "shop_copy"
SETTINGS: Final[dict[str, SettingValue]] = {
    # The time of each commit is kept: that is how the latency of the copy is measured.
    "track_commit_timestamp": True,
    "max_wal_size": "2GB",
}
SNAPSHOT_TIMEOUT_S: Final = 20.0
CATCH_UP_TIMEOUT_S: Final = 15.0
RECOVERY_TIMEOUT_S: Final = 15.0
LOOK_S: Final = 0.02
EVENT_EVERY_S: Final = 0.12  # on a terminal
PLAIN_EVENT_EVERY_S: Final = 0.6
STATUS_EVERY_S: Final = 0.5
KILL_AT: Final = 0.5  # of the live part
MIB: Final = 1 << 20


@dataclass(slots=True)
class Numbers:
    """What the summary tells."""

    snapshot_rows: int = 0
    snapshot_s: float = 0.0
    copied_s: float = 0.0
    changes: int = 0  # in the journal, the snapshot's too
    streamed: int = 0
    live_s: float = 0.0
    recovery_s: float = 0.0
    evening_rows: int = 0
    evening_s: float = 0.0
    caught_up_s: float = 0.0
    restarts: int = 0
    journal_bytes: int = 0
    latencies_ms: tuple[float, ...] = ()


class FullDemo:
    """One run. Whatever happens, everything it started is ended and removed."""

    def __init__(self, seconds: float, keep: Path | None, show: Show | None = None) -> None:
        self._seconds, self._keep = seconds, keep
        self._show = show or Show()
        self._numbers = Numbers()
        self._server: PostgresServer
        self._stage: Stage
        self._size: shop.Size

    def run(self) -> int:
        """Tell the story; 0 when source and copy are equal. Raises DemoFailed."""
        show = self._show
        with ExitStack() as stack:
            folder = stack.enter_context(parts.folder(self._keep))
            self._start_server(stack, folder)
            self._stage = Stage(folder)
            stack.callback(self._stage.stop)
            self._start_worker()
            tally = self._live()
            self._catch_up(tally)
            results = self._compare()
            uses = Uses(show, self._stage, self._server.dsn(SHOP_DB))
            uses.run(tally, self._numbers.changes)
            self._summarise(tally, uses.summary)
            differences = [d for result in results for d in result.differences]
            parts.verdict(show, differences)
            if self._keep is not None:
                self._wait_for_the_end()
        return 0

    # --- the parts of the story -----------------------------------------------------------

    def _start_server(self, stack: ExitStack, folder: Path) -> None:
        show = self._show
        show.step("A PostgreSQL server and a shop")
        kept = folder / "postgres" if self._keep is not None else None
        if kept is not None:
            folder.chmod(0o755)  # the server's own user has to get through
        server = PostgresServer(find_embedded(), settings=SETTINGS, data_dir=kept)
        self._server = stack.enter_context(server)
        show.say(f"PostgreSQL {server.version}, process {server.pid}, port {server.port}")
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            for name in (SHOP_DB, COPY_DB):
                conn.execute(f"CREATE DATABASE {name}".encode())
        self._size = size = shop.create(server.dsn(SHOP_DB))
        self._numbers.snapshot_rows = size.rows
        show.say(
            f"database {SHOP_DB}: customers {size.customers:,}, products {size.products:,},"
            f" orders {size.orders:,}, order_items {size.orders * size.items:,}"
        )
        show.say(f"database {COPY_DB}: empty")

    def _start_worker(self) -> None:
        show, stage, numbers = self._show, self._stage, self._numbers
        show.step("A worker: one source, four sinks")
        stage.add(SOURCE, self._source_config())
        stage.add(CONSOLE, parts.CONSOLE_CONFIG)
        stage.add(COPY, {**parts.COPY_CONFIG, "connection.url": self._server.dsn(COPY_DB)})
        for name, config in configs(stage.folder).items():
            stage.add(name, config)
        began = time.monotonic()
        stage.start()
        parts.show_worker(show, stage)
        for name in stage.connectors:
            show.say(f"  {stage.folder.name}/{name}.json  {_described(name)}", "bright_black")
        show.step(f"The snapshot: {numbers.snapshot_rows:,} rows")
        start_s = time.monotonic() - began
        numbers.snapshot_s, numbers.copied_s = (
            start_s + seconds
            for seconds in parts.watch_snapshot(
                show, stage, numbers.snapshot_rows, SNAPSHOT_TIMEOUT_S
            )
        )

    def _source_config(self) -> dict[str, str]:
        return {
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "topic.prefix": SOURCE,
            **from_url(self._server.dsn(SHOP_DB)),
            "slot.name": "shop",
            "publication.name": "shop",
            "publication.autocreate.mode": "filtered",
            "table.include.list": ",".join(rf"{shop.SCHEMA}\.{name}" for name in shop.TABLES),
        }

    def _live(self) -> Tally:
        show = self._show
        show.step("Customers come; the source's process is killed in the middle")
        workload = Workload(self._server.dsn(SHOP_DB), self._size)
        live = _Live(show, self._stage, workload, self._seconds)
        workload.start()
        try:
            live.run()
        finally:
            workload.stop()
        workload.check()
        tally = workload.tally
        self._numbers.live_s = workload.seconds
        self._numbers.recovery_s = live.recovery_s
        show.say(
            f"{tally.transactions:,} transactions committed, {tally.rolled_back:,} rolled back,"
            f" {tally.changes:,} rows changed in {workload.seconds:.1f} s"
        )
        if live.sample is not None:
            show.say("one of the events, whole:")
            show.sample(live.sample)
        return tally

    def _catch_up(self, tally: Tally) -> None:
        show, stage, numbers = self._show, self._stage, self._numbers
        show.step("Closing time: one big transaction, and the wait until the sinks have all")
        evening = close_the_books(self._server.dsn(SHOP_DB))
        tally.transactions += 1
        tally.changes += evening.rows
        tally.signed += evening.rows
        tally.messages += 1
        numbers.evening_rows = evening.rows
        stage.wait_journalled(evening.lsn + 1, CATCH_UP_TIMEOUT_S)
        numbers.evening_s = time.monotonic() - evening.committed_at
        stage.wait_stored(CATCH_UP_TIMEOUT_S)
        numbers.caught_up_s = time.monotonic() - evening.committed_at
        numbers.changes, messages = stage.count()
        numbers.streamed = numbers.changes - numbers.snapshot_rows
        numbers.restarts = parts.restarts(stage)
        numbers.journal_bytes = folder_bytes(stage.data.journal(SOURCE))
        show.say(
            f"{evening.rows:,} rows in one transaction: in the journal {numbers.evening_s:.2f} s"
            f" after its commit, stored by all sinks after {numbers.caught_up_s:.2f} s"
        )
        show.say(
            f"rows changed by the shop {tally.changes:,}, changes in the journal"
            f" {numbers.streamed:,}"
        )
        show.say(
            f"transactions that said who and why {tally.messages:,}, such messages in the journal"
            f" {messages:,}"
        )
        if (numbers.streamed, messages) != (tally.changes, tally.messages):
            raise DemoFailed(
                f"the shop changed {tally.changes} rows and sent {tally.messages} messages, but"
                f" the journal holds {numbers.streamed} changes and {messages} messages"
            )

    def _compare(self) -> list[Result]:
        show = self._show
        show.step("Every row and every column of source and copy, as text")
        source, copy = (PostgresSide(self._server.dsn(name)) for name in (SHOP_DB, COPY_DB))
        with psycopg.connect(self._server.dsn(SHOP_DB), autocommit=True) as conn:
            tables = [read_table(conn, shop.SCHEMA, name) for name in shop.TABLES]
        results = [compare(table, source, copy) for table in tables]
        parts.show_results(show, results)
        self._numbers.latencies_ms = tuple(self._latencies())
        return results

    def _latencies(self) -> list[float]:
        """Commit at the source → commit in the copy, by the server's own clock.

        Of the rows' last changes: the copy is at rest, so both are of the same change.
        """
        taken = []
        for database in (SHOP_DB, COPY_DB):
            with psycopg.connect(self._server.dsn(database)) as conn:
                rows = conn.execute(
                    "SELECT id, extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM orders"
                    " WHERE id > %s",
                    [self._size.orders],
                )
                taken.append({key: float(at) for key, at in rows if at is not None})
        source, copy = taken
        return [1000 * (copy[key] - at) for key, at in source.items() if key in copy]

    def _summarise(self, tally: Tally, uses: list[tuple[str, str]]) -> None:
        show, n = self._show, self._numbers
        show.step("In numbers")
        latency = statistics.median(n.latencies_ms) if n.latencies_ms else float("nan")
        live = n.streamed - n.evening_rows
        rows = [
            ("rows in the snapshot", f"{n.snapshot_rows:,}"),
            ("  in the journal after", f"{n.snapshot_s:.1f} s"),
            ("  in the copy after", f"{n.copied_s:.1f} s"),
            ("transactions", f"{tally.transactions:,}"),
            ("rolled back, never seen", f"{tally.rolled_back:,}"),
            ("changes streamed", f"{n.streamed:,}"),
            ("  events a second, shop open", f"{live / max(n.live_s, 0.001):,.0f}"),
            ("  events a second, big one", f"{n.evening_rows / max(n.evening_s, 0.001):,.0f}"),
            ("commit → copy, median", f"{latency:.1f} ms"),
            ("kill -9 of the source", "1"),
            ("  it went on after", f"{n.recovery_s:.2f} s"),
            ("restarts", f"{n.restarts}"),
            ("journal with its write-ahead", f"{n.journal_bytes / MIB:.1f} MiB"),
            *uses,
        ]
        show.table(("", ""), rows)

    def _wait_for_the_end(self) -> None:
        show, stage = self._show, self._stage
        if not (show.lively and sys.stdin.isatty()):
            show.say(f"kept: {stage.folder}")
            return
        psql = f"psql '{self._server.dsn(SHOP_DB)}'"
        parts.how_to_go_on(show, stage, [psql, psql.replace(f"/{SHOP_DB}", f"/{COPY_DB}")])
        show.say(f"Ctrl-C ends server and worker; {shlex.quote(str(stage.folder))} stays.")
        try:
            while True:
                time.sleep(1)
                stage.check()
        except KeyboardInterrupt:
            show.console.print()


def _described(name: str) -> str:
    return {
        SOURCE: "PostgreSQL source: publication and slot of its own",
        CONSOLE: "console sink: every event as a line of JSON",
        COPY: f"SQL sink: tables in database {COPY_DB}, made and kept equal",
        AUDIT: "audit sink: who changed what, when and why, in a chain of hashes",
        SEARCH: "search sink: a full-text index of names, products and notes",
    }[name]


class _Live:
    """The shop's opening hours: events scroll by, and a process is killed."""

    def __init__(self, show: Show, stage: Stage, workload: Workload, seconds: float) -> None:
        self._show, self._stage, self._workload = show, stage, workload
        self._seconds = seconds
        self._tail = Tail(stage.console_path)
        self._event_every_s = EVENT_EVERY_S if show.lively else PLAIN_EVENT_EVERY_S
        self._random = random.Random(1)
        self._killed_at = 0.0
        self._end_at_kill = 0
        self.recovery_s = 0.0
        self.sample: dict[str, Any] | None = None

    def run(self) -> None:
        """Until the time is over and the source goes on."""
        began = event_at = status_at = time.monotonic()
        try:
            with self._show.status() as tell:
                while True:
                    self._workload.check()
                    now = time.monotonic()
                    if not self._killed_at and now - began >= self._seconds * KILL_AT:
                        self._kill()
                    self._look_for_recovery(now)
                    if now - began >= self._seconds and self.recovery_s:
                        return
                    if now >= event_at:
                        event_at = now + self._event_every_s
                        self._show_event()
                    if now >= status_at:
                        status_at = now + STATUS_EVERY_S
                        tell(self._status())
                    time.sleep(LOOK_S)
        finally:
            self._tail.close()

    def _status(self) -> str:
        self._stage.check()
        tally, lag = self._workload.tally, parts.lag_records(self._stage)
        return (
            f"{self._workload.seconds:4.1f} s   {tally.transactions:,} transactions, "
            f"{tally.changes:,} rows changed   sinks behind: {lag:,} records"
        )

    def _show_event(self) -> None:
        groups = by_operation(self._tail.lines())
        if not groups:
            return
        record = orjson.loads(self._random.choice(self._random.choice(groups)))
        if record["value"]["op"] == "u" and record["value"]["before"]:
            self.sample = record
        self._show.event(record)

    def _kill(self) -> None:
        pid = self._stage.pids(SOURCE)[-1]
        task = psutil.Process(pid)
        if "cdc.runtime.task" not in task.cmdline():
            raise DemoFailed(f"process {pid} is not the source's task any more")
        os.kill(pid, signal.SIGKILL)
        self._killed_at = time.monotonic()
        self._show.say(f"kill -9 {pid}   (the source's process; the shop stays open)", "bold red")
        psutil.wait_procs([task], timeout=1)
        self._end_at_kill = self._stage.journal_end()

    def _look_for_recovery(self, now: float) -> None:
        """It went on once there are new records behind those there were at its death."""
        if not self._killed_at or self.recovery_s:
            return
        if self._stage.journal_end() > self._end_at_kill:
            self.recovery_s = time.monotonic() - self._killed_at
            pid = self._stage.pids(SOURCE)[-1]
            text = f"process {pid} goes on where it was, {self.recovery_s:.2f} s later"
            self._show.say(text, "bold green")
        elif now - self._killed_at > patience(RECOVERY_TIMEOUT_S):
            raise DemoFailed("the source did not go on after it was killed")
