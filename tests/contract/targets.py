"""The targets of the contract suite, each behind the same few questions."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import orjson
import pytest

from cdc.api import SinkContext, SinkTask
from cdc.runtime import plugins
from sinks import audit, console, file, search, sql
from sinks.audit_chain import COLUMNS, Hasher, verify
from sinks.audit_target import open_store
from sinks.search_index import unpacked
from tests.blocks import PLACEHOLDER
from tests.fakes import Memory, ScriptedSink
from tests.fix_postgres import Database

# Table → key → row: what a target says the tables hold.
State = dict[str, dict[Any, dict[str, Any]]]


class Target(Protocol):
    """A place that outlives tasks. ``exactly_once``: it keeps the offset with the rows."""

    exactly_once: bool
    is_log: bool  # it holds events, not rows
    has_tombstones: bool
    is_transactional: bool

    def task(self) -> SinkTask:
        """A new task, not started."""

    def state(self) -> State:
        """The tables, as another client of the target sees them."""

    def lines(self) -> list[dict[str, Any]]:
        """A log's records."""


def started(target: Target, name: str = "copy") -> SinkTask:
    task = target.task()
    task.start(SinkContext(name, Path()))
    return task


def replayed(lines: list[dict[str, Any]]) -> State:
    """What tables look like after the events of a log."""
    state: State = {}
    for line in lines:
        value = line["value"]
        if value is None or value["op"] == "m":
            continue
        table = state.setdefault(value["source"]["table"], {})
        op, key = value["op"], orjson.dumps(line["key"])
        if op == "t":
            table.clear()
        elif op == "d":
            table.pop(key, None)
        else:
            known = table.get(key, {})
            table[key] = {
                name: known.get(name) if v == PLACEHOLDER else v
                for name, v in value["after"].items()
            }
    return _by_id(state)


def _by_id(state: Mapping[str, Mapping[Any, dict[str, Any]]]) -> State:
    return {name: {row["id"]: row for row in rows.values()} for name, rows in state.items() if rows}


class _Log:
    is_log = True
    has_tombstones = True
    is_transactional = False

    def lines(self) -> list[dict[str, Any]]:
        raise NotImplementedError

    def state(self) -> State:
        return replayed(self.lines())


class ConsoleTarget(_Log):
    exactly_once = False

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.stdout = path.open("w")
        # Not sys.stdout itself: that one is pytest's to replace.
        monkeypatch.setattr(console, "sys", SimpleNamespace(stdout=self.stdout))

    def task(self) -> SinkTask:
        return console.ConsoleSinkTask(console.CONFIG.parse({}))

    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.path.read_bytes().splitlines()]


class FileTarget(_Log):
    exactly_once = True

    def __init__(self, folder: Path, **options: Any) -> None:
        self.path = folder / "out.jsonl"
        self.config = file.CONFIG.parse({"file": str(self.path), **options})

    def task(self) -> SinkTask:
        return file.FileSinkTask(self.config)

    def lines(self) -> list[dict[str, Any]]:
        rotated = sorted(self.path.parent.glob("out.jsonl.0*"))
        return [
            orjson.loads(line)
            for path in [*rotated, self.path]
            for line in path.read_bytes().splitlines()
        ]


class ScriptedTarget(_Log):
    exactly_once = True
    is_transactional = True

    def __init__(self) -> None:
        self.memory = Memory()

    def task(self) -> SinkTask:
        return ScriptedSink(self.memory)

    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.memory.lines]


COPY = {
    "insert.mode": "upsert",
    "pk.mode": "record_key",
    "auto.create": "true",
    "auto.evolve": "true",
    "delete.enabled": "true",
    "table.name.format": "${source.table}",
    "max.retries": "2",
    "retry.backoff.ms": "10",
}


class AuditTarget(_Log):
    """Records of the table in use; the chain is verified at every look."""

    exactly_once = True
    is_transactional = True
    has_tombstones = False

    def __init__(self, url: str, **options: Any) -> None:
        self.url, self.options = url, options

    def task(self, **options: Any) -> SinkTask:
        raw = {"connection.url": self.url, **self.options, **options}
        return audit.AuditSinkTask(audit.CONFIG.parse(raw))

    def records(self) -> list[dict[str, Any]]:
        path = self.url.removeprefix("jdbc:sqlite:")
        store = open_store(path, existing=True)
        try:
            store.begin_read()
            (position,) = store.positions()
            hasher = Hasher(self.options.get("audit.hash.key"))
            report = verify(store.records(position.table), hasher, kept=position.end)
            assert report.ok, report.problem
            return [
                {
                    name: value.decode() if isinstance(value, bytes) else value
                    for name, value in zip(COLUMNS, row, strict=True)
                }
                for row in store.records(position.table)
            ]
        finally:
            store.close()

    def lines(self) -> list[dict[str, Any]]:
        def parsed(text: str | None) -> Any:
            return None if text is None else orjson.loads(text)

        return [
            {
                "key": parsed(record["key"]),
                "value": {
                    "op": record["op"],
                    "source": {"table": record["table_name"].partition(".")[2]},
                    "before": parsed(record["before"]),
                    "after": parsed(record["after"]),
                },
            }
            for record in self.records()
        ]


class SearchTarget:
    """The documents' texts; FTS5 compares its words with them at every look."""

    exactly_once = True
    is_log = False
    has_tombstones = False
    is_transactional = True

    def __init__(self, folder: Path, **options: Any) -> None:
        self.path = folder / "search.db"
        self.options = {"search.columns": ".*:id,note,big,k", **options}

    def task(self, **options: Any) -> SinkTask:
        raw = {"search.file": str(self.path), **self.options, **options}
        return search.SearchSinkTask(search.CONFIG.parse(raw))

    def lines(self) -> list[dict[str, Any]]:
        raise NotImplementedError

    def state(self) -> State:
        connection = sqlite3.connect(self.path, timeout=0.0)
        try:
            rows = connection.execute(
                "SELECT t.name, t.columns, d.layout, d.body FROM documents AS d"
                " JOIN tables AS t ON t.id = table_id"
            ).fetchall()
            check_words(self.path)
        finally:
            connection.close()
        state: State = {}
        for name, columns, layout, body in rows:
            texts = unpacked(layout, body)
            row = {column: texts.get(column) for column in orjson.loads(columns)}
            row["id"] = int(row["id"])
            state.setdefault(name.partition(".")[2], {})[row["id"]] = row
        return state


def check_words(path: Path) -> None:
    """On a copy, since the check writes and the sink may hold the file."""
    with sqlite3.connect(path) as source, sqlite3.connect(":memory:") as copy:
        source.backup(copy)
        copy.execute("INSERT INTO search (search, rank) VALUES ('integrity-check', 1)")
    source.close()
    copy.close()


NAMED = {"name": "copy", "connector.class": "sql", "topics.regex": ".*"}


class SqlTarget:
    exactly_once = True
    is_log = False
    has_tombstones = False
    is_transactional = True
    url: str

    def __init__(self, **options: Any) -> None:
        self.options = {**COPY, **options}

    def task(self, **options: Any) -> SinkTask:
        raw = {**NAMED, **self.options, "connection.url": self.url, **options}
        return sql.SqlSinkTask(plugins.configure(raw)[1])

    def lines(self) -> list[dict[str, Any]]:
        raise NotImplementedError

    def query(self, statement: str) -> list[dict[str, Any]]:
        raise NotImplementedError

    def execute(self, statement: str) -> None:
        raise NotImplementedError

    def tables(self) -> list[str]:
        raise NotImplementedError

    def state(self) -> State:
        tables = [name for name in self.tables() if name != "cdc_offsets"]
        rows = {name: self.query(f'SELECT * FROM "{name}"') for name in tables}
        return {name: {row["id"]: row for row in found} for name, found in rows.items() if found}


class SqliteTarget(SqlTarget):
    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(**options)
        self.path = folder / "copy.db"
        self.url = f"jdbc:sqlite:{self.path}"

    def query(self, statement: str) -> list[dict[str, Any]]:
        connection = sqlite3.connect(self.path)
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(statement)]
        finally:
            connection.close()

    def execute(self, statement: str) -> None:
        connection = sqlite3.connect(self.path)
        connection.execute(statement)
        connection.commit()
        connection.close()

    def tables(self) -> list[str]:
        found = self.query("SELECT name FROM sqlite_schema WHERE type = 'table'")
        return [row["name"] for row in found]


class PostgresTarget(SqlTarget):
    def __init__(self, database: Database, **options: Any) -> None:
        super().__init__(**options)
        self.database = database
        self.url = database.dsn

    def query(self, statement: str) -> list[dict[str, Any]]:
        from psycopg.rows import dict_row

        with self.database.connect(row_factory=dict_row) as connection:
            return list(connection.execute(statement.encode()).fetchall())

    def execute(self, statement: str) -> None:
        self.database.execute(statement)

    def tables(self) -> list[str]:
        found = self.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return [row["tablename"] for row in found]
