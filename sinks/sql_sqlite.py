"""SQLite as a target of the SQL sink: parameters row by row, in one ``executemany`` a batch."""

# ruff: noqa: D102 - sinks.sql_dialect.Dialect says what each method does

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from cdc.api import PositionMembers
from schemas import Schema
from sinks.sql_dialect import (
    DELETE,
    DOT,
    FIND,
    INSERT,
    MOVE,
    NUMBER,
    PARTIAL,
    REMEDIES,
    UPDATE,
    UPSERT,
    Column,
    Statement,
    TableName,
    clients_of,
    names_of,
    old_keys,
    on_conflict,
    quote,
)
from sinks.sql_types import ColumnType, sqlite_type

# Primary result codes: busy, locked, out of memory, I/O error, disk full, cannot open.
_UNAVAILABLE = frozenset((5, 6, 7, 10, 13, 14))
_REMEDIES = {
    "SQLITE_CONSTRAINT_UNIQUE": REMEDIES["unique"],
    "SQLITE_CONSTRAINT_PRIMARYKEY": REMEDIES["unique"],
    "SQLITE_CONSTRAINT_NOTNULL": REMEDIES["not null"],
    "SQLITE_CONSTRAINT_FOREIGNKEY": REMEDIES["foreign key"],
    "SQLITE_READONLY": "Make the file and its folder writable",
    "SQLITE_BUSY": "Another program holds its lock: let that end",
    "SQLITE_FULL": "Make room on its disk",
    "SQLITE_CORRUPT": "It is damaged: restore it, or name a new one and replay from the beginning",
}
BUSY_TIMEOUT_MS = 5_000
# The file that was named is none, or not for us: waiting mends nothing.
NO_TARGET = ("SQLITE_CANTOPEN", "SQLITE_NOTADB", "SQLITE_READONLY")


class SqliteDialect:
    """SQLite 3.35 and up, through Python's own module."""

    name = "sqlite"
    placeholder = "?"
    add_column = "ADD COLUMN"
    refuses_narrow = False
    name_bytes_max: int | None = None

    def fold(self, name: str) -> str:
        """The case of ASCII letters tells nothing apart."""
        return "".join(c.lower() if c.isascii() else c for c in name)

    def column_type(self, schema: Schema) -> ColumnType:
        return sqlite_type(schema)

    def table_name(self, text: str) -> TableName:
        """There are no schemas: dots become underscores, as Debezium's JDBC sink does it."""
        return TableName(None, text.replace(".", "_").replace(DOT, "_"))

    def database_of(self, text: str) -> str:  # noqa: ARG002 - no part of a name
        return ""

    def database(self, connection: Any) -> str:  # noqa: ARG002 - nor this
        return ""

    def relation(self, connection: Any, table: TableName) -> None:  # noqa: ARG002 - no source's
        return None

    def is_origin(self, connection: Any, origin: PositionMembers) -> bool:  # noqa: ARG002
        return False

    def prepare(self, connection: Any, application: str) -> None:  # noqa: ARG002 - PostgreSQL's
        # The module must not open transactions on its own: DDL and data go together.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        # Readers of the copy then never wait for the writer, nor it for them.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    def begin(self, connection: Any) -> None:
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")

    def describe(self, connection: Any, table: TableName) -> dict[str, str] | None:
        rows = connection.execute(f"PRAGMA table_xinfo({quote(table.name)})").fetchall()
        # Hidden columns are generated ones.
        return {row[1]: row[2] for row in rows if not row[6]} if rows else None

    def keys(self, connection: Any, table: TableName) -> list[frozenset[str]] | None:
        name = quote(table.name)
        sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ? COLLATE NOCASE"
        if connection.execute(sql, [table.name]).fetchone() is None:
            return None
        primary = [row[1] for row in connection.execute(f"PRAGMA table_info({name})") if row[5]]
        found = [frozenset(primary)]
        for _, index, unique, _, partial in connection.execute(f"PRAGMA index_list({name})"):
            if unique and not partial:
                columns = connection.execute(f"PRAGMA index_info({quote(index)})")
                found.append(frozenset(row[2] or "" for row in columns))  # none: an expression
        return found

    def narrow(
        self,
        connection: Any,  # noqa: ARG002 - PostgreSQL's
        table: TableName,  # noqa: ARG002 - PostgreSQL's
        columns: Sequence[Column],
    ) -> dict[str, str]:
        """Columns of numbers, to which a text that looks like one is changed ('007' to 7)."""
        return {
            c.field: c.actual for c in columns if c.type.ddl == "TEXT" and _is_numeric(c.actual)
        }

    def create_schema(self, connection: Any, schema: str) -> None:
        """Never asked: names have no schema here."""

    def statement(self, kind: str, table: str, columns: Sequence[Column]) -> Statement:
        keys = [c for c in columns if c.key]
        values = [c for c in columns if not c.key]
        if kind == MOVE:
            return self._move(table, keys)
        marks = ", ".join("?" * len(columns))
        match = " AND ".join(f"{c.target} = ?" for c in keys)
        changes = ", ".join(f"{c.target} = ?" for c in values)
        insert = f"INSERT INTO {table} ({names_of(columns)})"
        update = f"UPDATE {table} SET {changes} WHERE {match}"
        missing = f"WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE {match})"
        all_, of_key = tuple(c.field for c in columns), tuple(c.field for c in keys)
        changed = (*(c.field for c in values), *of_key)
        upsert = f"{insert} VALUES ({marks}) {on_conflict(columns) if keys else ''}"
        planned: dict[str, list[tuple[str, tuple[str, ...]]]] = {
            INSERT: [(f"{insert} VALUES ({marks})", all_)],
            UPSERT: [(upsert, all_)],
            UPDATE: [(update, changed)] if changes else [],
            DELETE: [(f"DELETE FROM {table} WHERE {match}", of_key)],
            FIND: [(f"SELECT 1 FROM {table} WHERE {match}", of_key)],
            PARTIAL: [
                *([(update, changed)] if changes else []),
                (f"{insert} SELECT {marks} {missing}", (*all_, *of_key)),
            ],
        }
        sql, fields = zip(*planned[kind], strict=True) if planned[kind] else ((), ())
        clients = clients_of(keys if kind in (DELETE, FIND) else columns)
        return Statement(tuple(sql), tuple(fields), clients)

    def _move(self, table: str, keys: Sequence[Column]) -> Statement:
        old = old_keys(keys)
        changes = ", ".join(f"{c.target} = ?" for c in keys)
        match = " AND ".join(f"{c.target} = ?" for c in keys)
        fields = tuple(c.field for c in [*keys, *old])
        sql = f"UPDATE {table} SET {changes} WHERE {match}"
        return Statement((sql,), (fields,), clients_of([*keys, *old]))

    def run(self, connection: Any, statement: Statement, rows: bytes) -> None:
        done = _columns(statement, orjson.loads(rows))
        for sql, fields in zip(statement.sql, statement.fields, strict=True):
            columns = [done[name] for name in fields]
            connection.executemany(sql, zip(*columns, strict=True))

    def find(self, connection: Any, statement: Statement, rows: bytes) -> list[int]:
        parsed = orjson.loads(rows)
        done = _columns(statement, parsed)
        keys = zip(*(done[name] for name in statement.fields[0]), strict=True)
        return [
            row[NUMBER]
            for row, key in zip(parsed, keys, strict=True)
            if connection.execute(statement.sql[0], key).fetchone() is not None
        ]

    def truncate(self, connection: Any, table: str) -> None:
        connection.execute(f"DELETE FROM {table}")

    def default(self, connection: Any, column: Column, default: Any) -> str:
        value = default if column.type.client is None else column.type.client(default)
        return str(connection.execute("SELECT quote(?)", [value]).fetchone()[0])

    def culprit(
        self, connection: Any, table: str, columns: Sequence[Column], row: bytes
    ) -> Column | None:
        """None: a column takes values of any type; what it refuses the error names."""

    def is_unavailable(self, error: Exception) -> bool:
        code = getattr(error, "sqlite_errorcode", None)
        return code is not None and code & 0xFF in _UNAVAILABLE

    def explain(self, error: Exception) -> tuple[str, str]:
        name = getattr(error, "sqlite_errorname", "")
        text = ", ".join(filter(None, (type(error).__name__, name)))
        primary = "_".join(name.split("_")[:2])  # of SQLITE_BUSY_SNAPSHOT, say
        return text, _REMEDIES.get(name) or _REMEDIES.get(primary, "")


def _columns(statement: Statement, rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The values of a statement's parameters by field, converted."""
    clients = dict(statement.clients)
    done: dict[str, list[Any]] = {}
    for field in dict.fromkeys(name for fields in statement.fields for name in fields):
        values = [row.get(field) for row in rows]
        convert = clients.get(field)
        if convert is not None:
            values = [None if v is None else convert(v) for v in values]
        done[field] = values
    return done


def _is_numeric(declared: str) -> bool:
    """Whether a column has INTEGER, REAL or NUMERIC affinity (sqlite.org/datatype3.html, 3.1)."""
    name = declared.upper()
    return "INT" in name or not (
        name == "" or any(part in name for part in ("CHAR", "CLOB", "TEXT", "BLOB"))
    )
