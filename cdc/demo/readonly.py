"""``cdc demo --source URL``: somebody's own database, reading only, into a SQLite copy.

The one thing a capture needs at the server is a replication slot and a publication. Both
get generated names, are announced before they exist, and are dropped at the end, whatever
happens in between.
"""

from __future__ import annotations

import re
import statistics
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cdc.demo import parts
from cdc.demo.compare import PostgresSide, Result, SqliteSide, compare, lasting, read_table
from cdc.demo.show import OPERATIONS, Show, Tail
from cdc.demo.stage import CONSOLE, COPY, SOURCE, DemoFailed, Stage
from cdc.errors import CdcError, ConfigError
from cdc.metrics import SNAPSHOT_ROWS
from cdc.postgres.dsn import conninfo, from_url
from cdc.runtime import plugins
from cdc.runtime.scrape import folder_bytes

# What is taken of a database when nobody says which tables: all in well under a minute.
ROWS_MAX: Final = 200_000
BYTES_MAX: Final = 200 << 20
ROW_BYTES_GUESS: Final = 100  # of a table that was never analysed
CONNECT_TIMEOUT_S: Final = 10
SNAPSHOT_TIMEOUT_S: Final = 25.0
CATCH_UP_TIMEOUT_S: Final = 10.0
DROP_TIMEOUT_S: Final = 8.0
LOOK_S: Final = 0.1
STATUS_EVERY_S: Final = 0.5
ROUNDS_MAX: Final = 4
EVENTS_SHOWN_MAX: Final = 40
MIB: Final = 1 << 20

_TABLES: Final = b"""
SELECT n.nspname, c.relname, greatest(c.reltuples, 0)::bigint, pg_table_size(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname <> 'information_schema'
  AND n.nspname NOT LIKE 'pg\\_%' AND c.relreplident IN ('d', 'f')
  AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
  AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
ORDER BY pg_table_size(c.oid), 1, 2
"""
_LSN: Final = b"""
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
       ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn
"""


@dataclass(frozen=True, slots=True)
class Found:
    """A table that can be taken."""

    schema: str
    name: str
    rows: int
    nbytes: int

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(slots=True)
class Seen:
    """What went by while we watched."""

    events: int = 0
    shown: int = 0
    transactions: set[Any] = field(default_factory=set)
    delays_ms: list[float] = field(default_factory=list)

    def note(self, record: dict[str, Any]) -> None:
        """Count one event."""
        value = record["value"]
        self.events += 1
        self.transactions.add(value["source"].get("txId"))
        self.delays_ms.append((value["ts_us"] - value["source"]["ts_us"]) / 1000)


class ReadOnlyDemo:
    """One run."""

    def __init__(
        self, url: str, tables: str, seconds: float, keep: Path | None, show: Show | None = None
    ) -> None:
        name = f"cdc_demo_{uuid.uuid4().hex[:8]}"
        self._config = {
            "name": SOURCE,
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "topic.prefix": SOURCE,
            **from_url(url),
            "slot.name": name,
            "publication.name": name,
            "publication.autocreate.mode": "filtered",
        }
        self._name, self._pattern, self._seconds, self._keep = name, tables, seconds, keep
        plugin, parsed = plugins.configure(self._config)
        self._admin, self._parsed = plugin.admin(), parsed
        self._dsn = make_conninfo(**{"connect_timeout": str(CONNECT_TIMEOUT_S), **conninfo(parsed)})
        self._show = show or Show()
        self._tables: list[Found] = []
        self._snapshot: tuple[int, float, float] = (0, 0.0, 0.0)
        self._seen = Seen()
        self._stage: Stage

    def run(self) -> int:
        """Tell the story; 0 when source and copy are equal. Raises DemoFailed."""
        with ExitStack() as stack:
            self._look_around()
            folder = stack.enter_context(parts.folder(self._keep))
            self._stage = Stage(folder)
            stack.callback(self._drop)
            stack.callback(self._stage.stop)
            self._start(folder)
            self._watch()
            results = self._compare(folder)
            self._summarise()
        # Here the slot and the publication are gone.
        parts.verdict(self._show, [d for result in results for d in result.differences])
        if self._keep is not None:
            self._show.say(f"kept: {self._stage.folder}")
        return 0

    # --- the parts of the story -----------------------------------------------------------

    def _look_around(self) -> None:
        show = self._show
        show.step("Your database")
        try:
            with psycopg.connect(self._dsn, autocommit=True) as conn:
                conn.execute("SET default_transaction_read_only = on")
                version = conn.execute("SHOW server_version").fetchone()
                level = conn.execute("SHOW wal_level").fetchone()
                rows = conn.execute(_TABLES).fetchall()
        except psycopg.OperationalError as error:
            raise DemoFailed(f"no connection: {' '.join(str(error).split())}") from None
        show.say(f"PostgreSQL {version[0] if version else '?'}")
        if level and level[0] != "logical":
            raise DemoFailed(
                f"wal_level is {level[0]}",
                remedy="ALTER SYSTEM SET wal_level = logical, restart the server, try again.",
            )
        found = [Found(schema, name, n or size // ROW_BYTES_GUESS, size)
                 for schema, name, n, size in rows]  # fmt: skip
        self._tables, left_out = choose(found, self._pattern)
        if not self._tables:
            raise DemoFailed(
                "there is no table to take: none with a primary key that this role may read"
                + (f" matches {self._pattern}" if self._pattern else ""),
                remedy="Name tables with --tables 'schema\\.table'.",
            )
        for table in self._tables:
            show.say(f"  {table}   about {table.rows:,} rows")
        if left_out:
            show.say(f"  not taken: {len(left_out)} larger tables (choose with --tables)", "yellow")
        name = self._name
        show.say("What is created in it now, and dropped at the end; nothing else is written:")
        show.say(f"  publication       {name}   of these {len(self._tables)} tables")
        show.say(f"  replication slot  {name}")
        show.say(
            "Should this machine lose its power in between, drop them by hand:", "bright_black"
        )
        show.say(f"  SELECT pg_drop_replication_slot('{name}'); DROP PUBLICATION {name};",
                 "bright_black")  # fmt: skip

    def _start(self, folder: Path) -> None:
        show, stage = self._show, self._stage
        show.step("A worker: your database, a console, a SQLite copy")
        # In an include list a comma ends an expression.
        names = [re.escape(str(table)).replace(",", "\\,") for table in self._tables]
        stage.add(SOURCE, {**self._config, "table.include.list": ",".join(names)})
        stage.add(CONSOLE, parts.CONSOLE_CONFIG)
        copy = {"connection.url": f"jdbc:sqlite:{folder / 'copy.sqlite'}"}
        stage.add(COPY, {**parts.COPY_CONFIG, **copy})
        began = time.monotonic()
        stage.start()
        parts.show_worker(show, stage)
        show.step("The snapshot")
        rows = max(1, self._count_rows())
        start_s = time.monotonic() - began
        journalled, copied = parts.watch_snapshot(show, stage, rows, SNAPSHOT_TIMEOUT_S)
        stage.wait(
            "the snapshot is counted",
            lambda: SNAPSHOT_ROWS in stage.metrics(SOURCE),
            CATCH_UP_TIMEOUT_S,
        )
        self._snapshot = (rows, start_s + journalled, start_s + copied)

    def _count_rows(self) -> int:
        total = 0
        with self._connect() as conn:
            for table in self._tables:
                query = sql.SQL("SELECT count(*) FROM ONLY {}").format(
                    sql.Identifier(table.schema, table.name)
                )
                row = conn.execute(query).fetchone()
                total += int(row[0]) if row else 0
        return total

    def _watch(self) -> None:
        show, stage, seen = self._show, self._stage, self._seen
        show.step(
            f"Changes, for {self._seconds:g} s: make some, if you like (values are not shown)"
        )
        tail, began = Tail(stage.console_path), time.monotonic()
        checked = began
        try:
            with show.status() as tell:
                while time.monotonic() - began < self._seconds:
                    for line in tail.lines():
                        self._see(orjson.loads(line))
                    if time.monotonic() - checked >= STATUS_EVERY_S:
                        checked = time.monotonic()
                        stage.check()
                        tell(f"{checked - began:4.1f} s   {seen.events:,} events")
                    time.sleep(LOOK_S)
        finally:
            tail.close()
        if seen.events > seen.shown:
            show.say(f"… {seen.events:,} events in all")
        elif not seen.events:
            show.say("none came: nobody changed these tables")

    def _see(self, record: dict[str, Any]) -> None:
        value = record.get("value")
        if not isinstance(value, dict) or value["op"] not in OPERATIONS:
            return  # a tombstone, a message
        self._seen.note(record)
        if self._seen.shown < EVENTS_SHOWN_MAX:
            self._seen.shown += 1
            self._show.event(record, values=False)

    def _compare(self, folder: Path) -> list[Result]:
        show = self._show
        show.step("Every row of source and copy")
        source = PostgresSide(self._dsn, for_sqlite=True)
        copy = SqliteSide(folder / "copy.sqlite")
        with self._connect() as conn:
            tables = [read_table(conn, found.schema, found.name) for found in self._tables]
        results, looked_again = [], False
        for table in tables:
            self._catch_up()
            result = compare(table, source, copy)
            for _ in range(ROUNDS_MAX - 1):
                if not result.differences:
                    break
                # The source is in use, and the copy a moment behind: what lasts is different.
                self._catch_up()
                again = compare(table, source, copy)
                again.differences = lasting(result, again)
                result = again
                looked_again = True
            results.append(result)
        parts.show_results(show, results)
        if looked_again:
            show.say(
                "The source changed meanwhile: where a row differed at first, it was looked at"
            )
            show.say("again once the copy had caught up; the counts are of different moments.")
        return results

    def _catch_up(self) -> None:
        with self._connect() as conn:
            row = conn.execute(_LSN).fetchone()
        self._stage.wait_journalled(int(row[0]) if row else 0, CATCH_UP_TIMEOUT_S)
        self._stage.wait_stored(CATCH_UP_TIMEOUT_S)

    def _summarise(self) -> None:
        stage, seen = self._stage, self._seen
        rows, journalled, copied = self._snapshot
        delay = f"{statistics.median(seen.delays_ms):.1f} ms" if seen.delays_ms else "none came"
        self._show.step("In numbers")
        self._show.table(
            ("", ""),
            [
                ("rows in the snapshot", f"{rows:,}"),
                ("  in the journal after", f"{journalled:.1f} s"),
                ("  in the copy after", f"{copied:.1f} s"),
                ("changes watched", f"{seen.events:,}"),
                ("transactions among them", f"{len(seen.transactions):,}"),
                ("commit → event, median", delay),
                ("restarts", str(parts.restarts(stage))),
                ("journal", f"{folder_bytes(stage.data.journal(SOURCE)) / MIB:.1f} MiB"),
            ],
        )

    # --- at the server --------------------------------------------------------------------

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            self._dsn, autocommit=True, options="-c default_transaction_read_only=on"
        )

    def _drop(self) -> None:
        """Slot and publication go, whatever came before; the server may need a moment."""
        deadline = time.monotonic() + DROP_TIMEOUT_S
        while True:
            try:
                done = self._admin.drop(self._parsed)
                break
            except (CdcError, psycopg.Error) as error:
                if time.monotonic() > deadline:
                    raise DemoFailed(
                        f"slot and publication {self._name} are still there: {error}",
                        remedy=f"SELECT pg_drop_replication_slot('{self._name}');"
                        f" DROP PUBLICATION {self._name}",
                    ) from None
                time.sleep(LOOK_S)
        self._show.say("")
        for sentence in done:
            self._show.say(sentence)


def choose(found: Sequence[Found], pattern: str) -> tuple[list[Found], list[Found]]:
    """The tables to take and those left out: by name, else the smallest up to a limit."""
    if pattern:
        try:
            wanted = re.compile(pattern, re.IGNORECASE)
        except re.error as error:
            raise ConfigError(f"no regular expression: {error}", key="--tables") from None
        return [table for table in found if wanted.fullmatch(str(table))], []
    taken: list[Found] = []
    left_out: list[Found] = []
    rows = nbytes = 0
    for table in found:
        rows, nbytes = rows + table.rows, nbytes + table.nbytes
        (taken if rows <= ROWS_MAX and nbytes <= BYTES_MAX else left_out).append(table)
    return taken, left_out
