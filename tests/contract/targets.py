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
from sinks import console, file, sql
from tests.blocks import PLACEHOLDER
from tests.fakes import Memory, ScriptedSink
from tests.fix_postgres import Database

# Table → key → row: what a target says the tables hold.
State = dict[str, dict[Any, dict[str, Any]]]


class Target(Protocol):
    """A place that outlives tasks. ``exactly_once``: it keeps the offset with the rows."""

    exactly_once: bool
    is_log: bool  # it holds events, not rows
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


class SqlTarget:
    exactly_once = True
    is_log = False
    is_transactional = True
    url: str

    def __init__(self, **options: Any) -> None:
        self.options = {**COPY, **options}

    def task(self, **options: Any) -> SinkTask:
        raw = {**self.options, "connection.url": self.url, **options}
        return sql.SqlSinkTask(sql.CONFIG.parse(raw))

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
