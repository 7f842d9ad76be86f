"""Audit records in a SQLite file. Readers are never in the way of the sink, nor it in theirs."""

# ruff: noqa: D102 - sinks.audit_store.Store says what each method does

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from cdc.errors import ConfigError
from sinks.audit_chain import COLUMNS, GENESIS, NUMBERS, REQUIRED, Link, Record
from sinks.audit_store import FIELDS, POSITIONS, RETIRED, Filter, Position, known_fields
from sinks.readonly import open_readonly, unreadable
from sinks.sql_dialect import TableName, quote
from sinks.sql_sqlite import NO_TARGET, SqliteDialect

# With the table before it: SQLite takes a quoted name that is no column for a text.
_NAMES: Final = ", ".join(f"t.{quote(name)}" for name in COLUMNS)
_CREATE: Final = """
CREATE TABLE IF NOT EXISTS {} (
    connector TEXT PRIMARY KEY, base TEXT NOT NULL, table_name TEXT NOT NULL UNIQUE,
    next_offset INTEGER, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, hash TEXT NOT NULL,
    key_check TEXT NOT NULL, identity TEXT
) STRICT
"""


class SqliteStore:
    """One file. ``existing``: opened for reading only."""

    def __init__(self, path: str, *, existing: bool = False) -> None:
        self._path = path
        self._dialect = SqliteDialect()
        if existing and not Path(path).is_file():
            raise ConfigError(f"there is no file {path}", remedy="Name a file that an audit sink"
                              " writes, a folder of Parquet files, or a URL")  # fmt: skip
        try:
            if existing:
                self._connection = open_readonly(path)
            else:
                self._connection = sqlite3.connect(path, isolation_level=None)
        except sqlite3.Error as error:
            if existing:
                remedy = "A backup of it, and the journal as far as that reaches, hold the records"
                raise unreadable(path, error, what="audit", remedy=remedy) from None
            raise _unusable(path, error) from None
        # Records are hashed as the bytes they are; damaged UTF-8 is to be found, not to be an
        # error.
        self._connection.text_factory = bytes

    # --- writing ---

    def prepare(self, connector: str) -> None:
        try:
            self._dialect.prepare(self._connection, connector)
            self._begin()
            self._connection.execute(_CREATE.format(POSITIONS))
            if "identity" not in (self._columns(POSITIONS) or ()):  # made by an older version
                self._connection.execute(f"ALTER TABLE {POSITIONS} ADD COLUMN identity TEXT")
        except sqlite3.Error as error:
            self._connection.close()
            if getattr(error, "sqlite_errorname", "").startswith(NO_TARGET):
                raise _unusable(self._path, error) from None
            raise

    def positions(self) -> list[Position]:
        return self._positions(POSITIONS)

    def retired(self) -> list[Position]:
        return self._positions(RETIRED)

    def _positions(self, table: str) -> list[Position]:
        there = self._columns(table)
        if there is None:
            return []
        names = ", ".join(known_fields(there))
        rows = self._connection.execute(f"SELECT {names} FROM {table} ORDER BY rowid")
        return [Position(*map(_text, row)) for row in rows]

    def retire(self, position: Position) -> None:
        self._begin()
        self._connection.execute(
            _CREATE.format(RETIRED).replace("connector TEXT PRIMARY KEY", "connector TEXT NOT NULL")
        )
        marks = ", ".join("?" * len(FIELDS))
        self._connection.execute(
            f"INSERT INTO {RETIRED} ({', '.join(FIELDS)}) VALUES ({marks})", position.values
        )

    def _columns(self, table: str) -> Collection[str] | None:
        found = self._dialect.describe(self._connection, TableName(None, table))
        return None if found is None else [_text(name) for name in found]  # texts are bytes here

    def has(self, table: str) -> bool:
        sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?"
        return self._connection.execute(sql, [self._name(table)]).fetchone() is not None

    def create(self, table: str) -> None:
        self._begin()
        columns = ", ".join(
            f"{quote(name)} {'INTEGER' if name in NUMBERS else 'TEXT'}"
            f"{' PRIMARY KEY' if name == 'seq' else ' NOT NULL' if name in REQUIRED else ''}"
            for name in COLUMNS
        )
        self._connection.execute(
            f"CREATE TABLE {self._sql(table)} ({columns}, UNIQUE (journal, journal_offset)) STRICT"
        )

    def last(self, table: str) -> Link:
        sql = f"SELECT seq, hash FROM {self._sql(table)} ORDER BY seq DESC LIMIT 1"
        row = self._connection.execute(sql).fetchone()
        return Link(0, GENESIS) if row is None else Link(row[0], _text(row[1]))

    def hash_at(self, table: str, seq: int) -> str | None:
        sql = f"SELECT hash FROM {self._sql(table)} WHERE seq = ?"
        row = self._connection.execute(sql, [seq]).fetchone()
        return None if row is None else str(_text(row[0]))

    def insert(self, table: str, records: Sequence[Record]) -> None:
        self._begin()
        marks = ", ".join("?" * len(COLUMNS))
        self._connection.executemany(f"INSERT INTO {self._sql(table)} VALUES ({marks})", records)

    def save(self, position: Position, previous: Position | None) -> bool:
        self._begin()
        values = position.values
        if previous is None:
            marks = ", ".join("?" * len(FIELDS))
            cursor = self._connection.execute(
                f"INSERT INTO {POSITIONS} ({', '.join(FIELDS)}) VALUES ({marks})"
                " ON CONFLICT DO NOTHING",
                values,
            )
        else:
            changes = ", ".join(f"{name} = ?" for name in FIELDS)
            cursor = self._connection.execute(
                f"UPDATE {POSITIONS} SET {changes} WHERE connector = ? AND epoch = ? AND seq = ?"
                " AND next_offset IS ?",
                [*values, position.connector, previous.epoch, previous.seq, previous.next_offset],
            )
        return cursor.rowcount == 1

    def commit(self, position: Position | None = None) -> None:  # noqa: ARG002 - Parquet's
        self._connection.commit()

    def tick(self, position: Position) -> None:
        pass

    def delete_up_to(self, table: str, seq: int) -> None:
        """Drop records that are kept elsewhere by now."""
        self._begin()
        self._connection.execute(f"DELETE FROM {self._sql(table)} WHERE seq <= ?", [seq])

    # --- reading ---

    def begin_read(self) -> None:
        self._connection.execute("BEGIN")

    def tables(self) -> list[str]:
        sql = (
            "SELECT name FROM sqlite_schema AS s WHERE type = 'table' AND EXISTS"
            " (SELECT 1 FROM pragma_table_info(s.name) WHERE name = 'previous_hash')"
            " ORDER BY name"
        )
        return [_text(row[0]) for row in self._connection.execute(sql)]

    def records(self, table: str) -> Iterator[Sequence[Any]]:
        return self._connection.execute(
            f"SELECT {_NAMES} FROM {self._sql(table)} AS t ORDER BY seq"
        )

    def find(self, table: str, wanted: Filter) -> Iterator[Sequence[Any]]:
        where, values = wanted.sql("?")
        sql = f"SELECT {_NAMES} FROM {self._sql(table)} AS t WHERE {where} ORDER BY seq"
        return self._connection.execute(sql, values)

    # --- the rest ---

    def is_driver_error(self, error: Exception) -> bool:
        return isinstance(error, sqlite3.Error)

    def is_damage(self, error: Exception) -> bool:
        name = getattr(error, "sqlite_errorname", "")
        return name.startswith("SQLITE_CORRUPT") or (
            name == "SQLITE_ERROR" and str(error).startswith("no such ")
        )

    def is_unavailable(self, error: Exception) -> bool:
        return self._dialect.is_unavailable(error)

    def explain(self, error: Exception) -> tuple[str, str]:
        return self._dialect.explain(error)

    def close(self) -> None:
        self._connection.close()

    def _begin(self) -> None:
        self._dialect.begin(self._connection)

    def _name(self, table: str) -> str:
        return self._dialect.table_name(table).name

    def _sql(self, table: str) -> str:
        return quote(self._name(table))


def _unusable(path: str, error: sqlite3.Error) -> ConfigError:
    return ConfigError(
        f"{path} cannot be used: {error}",
        key="connection.url",
        remedy="Name a SQLite file in a folder that exists and can be written",
    )


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
