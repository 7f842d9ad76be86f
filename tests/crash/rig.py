"""A whole system to be broken: server, worker with source and sinks, and hands that kill."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import psycopg

from cdc.demo.postgres import PASSWORD, PostgresServer
from cdc.log.files import LANES, STREAM, listing
from cdc.log.segment import SegmentReader
from cdc.lsn import lsn_number
from cdc.runtime.offsets import Offsets
from tests.crash import oracle, oracle_targets
from tests.crash.database import SCHEMA, TABLES, Size, create
from tests.runtime.workers import Worker, alive
from tests.waiting import wait_for

WAIT_S = 180.0
SOURCE = "shop"
SINKS = ("copy-postgres", "copy-sqlite", "lines")
EVERY = (*SINKS, "audit", "search")
WORKER_SETTINGS = {"task.restart.max": 1000, "task.restart.backoff.max.ms": 500}
STARTED = re.compile(r"(\S+)-0 started as process (\d+)")


def eventually(
    condition: Callable[[], Any], what: str = "the condition", wait_s: float = WAIT_S
) -> Any:
    """Ask again until it holds; its value."""
    return wait_for(condition, what, wait_s)


class Rig:
    """``server`` holds the source database and the copy; the worker's folder is ``folder``."""

    def __init__(
        self,
        folder: Path,
        server: PostgresServer,
        size: Size,
        *,
        source_url: str | None = None,
        copy_url: str | None = None,
        sinks: tuple[str, ...] = SINKS,
        source: Mapping[str, Any] | None = None,
        sink: Mapping[str, Any] | None = None,
        worker: Mapping[str, Any] | None = None,
        data: Path | None = None,
    ) -> None:
        self.folder, self.server, self.sinks = folder, server, sinks
        self.dsn, self.copy_dsn = server.dsn("crash"), server.dsn("copy")
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            for name in ("crash", "copy"):
                connection.execute(f"CREATE DATABASE {name}".encode())
        create(self.dsn, size)
        folder.mkdir(exist_ok=True)
        settings = {**WORKER_SETTINGS, **(worker or {})}
        self._files = [self._write("worker.properties", settings)]
        configs = self._configs(source_url or self.dsn, source or {})
        configs["copy-postgres"]["connection.url"] = copy_url or self.copy_dsn
        for name in EVERY:
            configs[name]["topics.regex"] = "shop\\..*"
        configs["lines"].update(sink or {})
        for name in (SOURCE, *sinks):
            self._files.append(self._write(f"{name}.json", configs[name]))
        self.worker: Worker | None = None
        self._marks = 0
        if data is not None:
            (folder / "data").mkdir(exist_ok=True)
            (folder / "data" / "journal").symlink_to(data)

    def _write(self, name: str, config: Mapping[str, Any]) -> Path:
        path = self.folder / name
        if name.endswith("json"):
            path.write_bytes(orjson.dumps({k: str(v) for k, v in config.items()}))
        else:
            path.write_text("".join(f"{k}={v}\n" for k, v in config.items()))
        return path

    def _configs(self, url: str, more: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        parts = urlsplit(url)
        tables = ",".join(f"{SCHEMA}.{table}" for table in TABLES)
        copy = {
            "connector.class": "sql",
            "insert.mode": "upsert",
            "pk.mode": "record_key",
            "delete.enabled": "true",
            "auto.create": "true",
            "table.name.format": "${source.table}",
            "retry.backoff.ms": 200,
        }
        return {
            SOURCE: {
                "name": SOURCE,
                "connector.class": "postgres",
                "topic.prefix": "shop",
                "database.hostname": parts.hostname,
                "database.port": parts.port,
                "database.user": "postgres",
                "database.password": PASSWORD,
                "database.dbname": "crash",
                "slot.name": "crash",
                "publication.name": "crash",
                "publication.autocreate.mode": "filtered",
                "table.include.list": tables,
                "skipped.operations": "none",
                "decimal.handling.mode": "string",
                "snapshot.max.threads": 2,
                "snapshot.chunk.rows": 10,
                "max.batch.size": 500,
                "journal.segment.bytes": 1 << 20,
                "status.update.interval.ms": 500,
                **more,
            },
            "copy-postgres": {"name": "copy-postgres", **copy},
            "copy-sqlite": {
                "name": "copy-sqlite",
                "connection.url": f"sqlite:///{self.sqlite}",
                **copy,
            },
            "lines": {
                "name": "lines",
                "connector.class": "file",
                "file": str(self.lines),
                "file.rotate.bytes": 8 << 20,
            },
            "audit": {
                "name": "audit",
                "connector.class": "audit",
                "connection.url": f"sqlite:///{self.audit}",
                "audit.hash.key": oracle_targets.HASH_KEY,
            },
            "search": {
                "name": "search",
                "connector.class": "search",
                "search.file": self.index,
                "search.columns": oracle_targets.SEARCHED,
            },
        }

    @property
    def sqlite(self) -> Path:
        return self.folder / "copy.sqlite"

    @property
    def lines(self) -> Path:
        return self.folder / "lines.out"

    @property
    def audit(self) -> Path:
        return self.folder / "audit.sqlite"

    @property
    def index(self) -> Path:
        return self.folder / "search.sqlite"

    @property
    def journal(self) -> Path:
        return self.folder / "data" / "journal" / SOURCE

    # --- life

    def start(self) -> Worker:
        self.worker = Worker(self.folder, *self._files)
        return self.worker

    def end(self) -> int:
        assert self.worker is not None
        return self.worker.end()

    def close(self) -> None:
        if self.worker is not None and self.worker.process.poll() is None:
            self.worker.kill()

    # --- processes

    def pid(self, name: str) -> int | None:
        """The process of a connector's task, if it lives."""
        assert self.worker is not None
        found = [pid for n, pid in STARTED.findall(self.worker.log.read_text()) if n == name]
        pid = int(found[-1]) if found else 0
        return pid if pid in self.worker.pids() and alive(pid) else None

    def readers(self) -> list[int]:
        """The source's snapshot readers."""
        source = self.pid(SOURCE)
        return [] if source is None else [pid for pid in children(source) if alive(pid)]

    def kill(self, pid: int | None) -> bool:
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def stop_hard(self) -> None:
        """kill -9 of the worker; its children die with it."""
        assert self.worker is not None
        tasks = self.worker.pids() if self.worker.process.poll() is None else []
        self.worker.kill()
        eventually(lambda: not any(map(alive, tasks)), "the tasks to die with their worker")

    def kill_worker(self) -> None:
        """kill -9 of the worker, and a new one."""
        self.stop_hard()
        self.start()

    # --- how far it is

    def stored_lsn(self) -> int:
        """The stream position in the journal: what may have been confirmed, at most."""
        for entry in reversed(listing(self.journal)):
            if entry.lane == STREAM and not entry.gap:
                with SegmentReader(self.journal, entry) as segment:
                    position = segment.state().position
                return int(orjson.loads(position)["lsn"]) if position else 0
        return 0

    def stored_rows(self) -> int:
        """Rows in the newest segment of each lane of the newest generation, as lane counts."""
        entries = [entry for entry in listing(self.journal) if not entry.gap]
        total = 0
        for lane in range(len(LANES)):
            mine = [e for e in entries if e.lane == lane]
            if mine:
                with SegmentReader(self.journal, mine[-1]) as segment:
                    total += segment.state().next + (mine[-1].generation << 32)
        return total

    def snapshot_open(self) -> bool:
        """Whether rows are still being read."""
        entries = [e for e in listing(self.journal) if not e.gap and e.lane != STREAM]
        if not entries:
            return True
        with SegmentReader(self.journal, entries[-1]) as segment:
            state = segment.state()
        position = orjson.loads(state.position) if state.position else {}
        tables = position.get("tables", {})
        return not (state.closed and tables and all(t.get("complete") for t in tables.values()))

    def sink_offset(self, sink: str) -> int:
        """How far a sink is, as its file has it."""
        path = self.folder / "data" / "sinks" / f"{sink}.db"
        if not path.exists():
            return 0
        with closing(Offsets(path)) as offsets:
            return max((stored.offset or 0 for stored in offsets.load().values()), default=0)

    def confirmed_lsn(self) -> int:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            row = connection.execute(
                "SELECT confirmed_flush_lsn::text FROM pg_replication_slots"
                " WHERE slot_name = 'crash'"
            ).fetchone()
        return lsn_number(row[0]) if row and row[0] else 0

    # --- the end

    def catch_up(self, what: str = "everything to arrive") -> None:
        """Wait until a row inserted now is everywhere."""
        eventually(lambda: not self.snapshot_open(), "the snapshot to end")
        self._marks += 1
        number = self._marks
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("INSERT INTO marks VALUES (%s, clock_timestamp())", [number])
        arrived: dict[str, Callable[[], bool]] = {
            "copy-postgres": lambda: self._in_postgres(number),
            "copy-sqlite": lambda: _in_file(self.sqlite, "marks WHERE id = ?", number),
            "audit": lambda: _in_file(self.audit, _AUDITED, f'{{"id":{number}}}'),
            "search": lambda: _in_file(self.index, _INDEXED, str(number)),
            "lines": lambda: self._in_lines(number),
        }
        for sink in self.sinks:
            eventually(arrived[sink], f"{what} in {sink}")

    def _in_postgres(self, number: int) -> bool:
        try:
            with psycopg.connect(self.copy_dsn) as connection:
                found = connection.execute("SELECT 1 FROM marks WHERE id = %s", [number])
                return found.fetchone() is not None
        except psycopg.errors.UndefinedTable:
            return False

    def _in_lines(self, number: int) -> bool:
        """The mark is the last change there is, so it is among the last lines."""
        files = [self.lines, *sorted(self.lines.parent.glob(f"{self.lines.name}.[0-9]*"))[-1:]]
        return any(
            b'"table":"marks"' in line and b'"key":{"id":%d}' % number in line
            for file in files
            if file.exists()
            for line in file.read_bytes().splitlines()[-2000:]
        )

    def check(self) -> oracle.Report:
        """The whole oracle. Nothing may be running but the servers."""
        report = oracle.check_journal(self.journal, self.dsn)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            source = oracle.source_tables(connection)
        if "copy-postgres" in self.sinks:
            copy = oracle.postgres_copy(self.copy_dsn)
            oracle.compare_tables(copy, source, "the copy in PostgreSQL")
        if "copy-sqlite" in self.sinks:
            oracle.compare_tables(oracle.sqlite_copy(self.sqlite), source, "the copy in SQLite")
        if "lines" in self.sinks:
            oracle.check_file(self.lines, self.journal)
        if "audit" in self.sinks:
            oracle_targets.check_audit(self.audit, self.journal, self.dsn)
        if "search" in self.sinks:
            oracle_targets.check_index(self.index, source)
        confirmed, stored = self.confirmed_lsn(), self.stored_lsn()
        assert confirmed <= stored, f"confirmed {confirmed:X}, stored {stored:X}"
        return report


_AUDITED = "audit WHERE table_name = 'public.marks' AND \"key\" = ?"
_INDEXED = (
    "documents JOIN tables ON tables.id = table_id"
    " WHERE tables.name = 'public.marks' AND documents.key = ?"
)


def _in_file(path: Path, where: str, value: Any) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            found = connection.execute(f"SELECT 1 FROM {where}", [value])
            return found.fetchone() is not None
    except sqlite3.OperationalError:  # no such file or table yet
        return False


def children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        try:
            found += map(int, (thread / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
