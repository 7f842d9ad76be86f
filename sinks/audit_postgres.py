"""Audit records in a PostgreSQL table, written with COPY.

Give the sink's role INSERT and SELECT on the tables of records and on ``cdc_audit_retired``,
and UPDATE on ``cdc_audit`` only: then not even the sink can change what it wrote.
"""

# ruff: noqa: D102 - sinks.audit_store.Store says what each method does

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from sinks.audit_chain import COLUMNS, GENESIS, NUMBERS, REQUIRED, Link, Record
from sinks.audit_store import FIELDS, POSITIONS, RETIRED, Filter, Position, known_fields
from sinks.sql_dialect import quote
from sinks.sql_postgres import PostgresDialect

if TYPE_CHECKING:
    from sqlalchemy import URL

_NAMES: Final = ", ".join(map(quote, COLUMNS))
_FETCH: Final = 5_000
# No such column, no such table, an operator that the column's type lacks; data_corrupted and
# what else the server says of itself.
_DAMAGE: Final = ("42703", "42P01", "42883", "XX")


class PostgresStore:
    """One database; tables may be written ``schema.table``."""

    def __init__(self, url: URL) -> None:
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        self._dialect = PostgresDialect()
        engine = create_engine(url, poolclass=NullPool)
        try:
            self._pooled = engine.raw_connection()
        except Exception as error:  # noqa: BLE001 - raised again, without SQLAlchemy's wrapper
            raise getattr(error, "orig", None) or error from None
        self._connection: Any = self._pooled.driver_connection

    # --- writing ---

    def prepare(self, connector: str) -> None:
        self._dialect.prepare(self._connection, f"cdc {connector}")
        there = self._columns(POSITIONS)
        if there is None:
            self._create_positions(POSITIONS, "PRIMARY KEY")
        elif "identity" not in there:  # made by an older version
            self._run(f"ALTER TABLE {POSITIONS} ADD COLUMN IF NOT EXISTS identity text")

    def _create_positions(self, table: str, of_connector: str) -> None:
        self._run(
            f"CREATE TABLE IF NOT EXISTS {table} (connector text {of_connector},"
            " base text NOT NULL, table_name text NOT NULL UNIQUE, next_offset bigint,"
            " epoch bigint NOT NULL, seq bigint NOT NULL, hash text NOT NULL,"
            " key_check text NOT NULL, identity text)"
        )

    def positions(self) -> list[Position]:
        return self._positions(POSITIONS)

    def retired(self) -> list[Position]:
        return self._positions(RETIRED)

    def _positions(self, table: str) -> list[Position]:
        there = self._columns(table)
        if there is None:
            return []
        names = ", ".join(known_fields(there))
        rows = self._run(f"SELECT {names} FROM {table} ORDER BY epoch, table_name").fetchall()
        return [Position(*row) for row in rows]

    def retire(self, position: Position) -> None:
        if self._columns(RETIRED) is None:
            self._create_positions(RETIRED, "NOT NULL")
        marks = ", ".join(["%s"] * len(FIELDS))
        self._run(f"INSERT INTO {RETIRED} ({', '.join(FIELDS)}) VALUES ({marks})", position.values)

    def has(self, table: str) -> bool:
        return self._columns(table) is not None

    def _columns(self, table: str) -> Collection[str] | None:
        return self._dialect.describe(self._connection, self._dialect.table_name(table))

    def create(self, table: str) -> None:
        name = self._dialect.table_name(table)
        if name.schema is not None:
            self._dialect.create_schema(self._connection, name.schema)
        columns = ", ".join(
            f"{quote(column)} {'bigint' if column in NUMBERS else 'text'}"
            f"{' PRIMARY KEY' if column == 'seq' else ' NOT NULL' if column in REQUIRED else ''}"
            for column in COLUMNS
        )
        unique = "UNIQUE (journal, journal_offset)"
        self._run(f"CREATE TABLE {self._sql(table)} ({columns}, {unique})")

    def last(self, table: str) -> Link:
        row = self._run(
            f"SELECT seq, hash FROM {self._sql(table)} ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        return Link(0, GENESIS) if row is None else Link(*row)

    def hash_at(self, table: str, seq: int) -> str | None:
        row = self._run(f"SELECT hash FROM {self._sql(table)} WHERE seq = %s", [seq]).fetchone()
        return None if row is None else str(row[0])

    def insert(self, table: str, records: Sequence[Record]) -> None:
        sql = f"COPY {self._sql(table)} ({_NAMES}) FROM STDIN"
        with self._connection.cursor() as cursor, cursor.copy(sql) as copy:
            for record in records:
                copy.write_row(record)

    def save(self, position: Position, previous: Position | None) -> bool:
        values = position.values
        if previous is None:
            cursor = self._run(
                f"INSERT INTO {POSITIONS} ({', '.join(FIELDS)}) VALUES"
                f" ({', '.join(['%s'] * len(FIELDS))}) ON CONFLICT DO NOTHING",
                values,
            )
        else:
            cursor = self._run(
                f"UPDATE {POSITIONS} SET {', '.join(f'{name} = %s' for name in FIELDS)} WHERE"
                " connector = %s AND epoch = %s AND seq = %s AND next_offset IS NOT DISTINCT FROM"
                " %s::bigint",
                [*values, position.connector, previous.epoch, previous.seq, previous.next_offset],
            )
        return bool(cursor.rowcount == 1)

    def commit(self, position: Position | None = None) -> None:  # noqa: ARG002 - Parquet's
        self._connection.commit()

    def tick(self, position: Position) -> None:
        pass

    # --- reading ---

    def begin_read(self) -> None:
        self._connection.rollback()
        self._run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    def tables(self) -> list[str]:
        rows = self._run(
            "SELECT CASE WHEN pg_table_is_visible(c.oid) THEN '' ELSE nspname || '.' END || relname"
            " FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = attrelid"
            " JOIN pg_namespace AS n ON n.oid = relnamespace"
            " WHERE attname = 'previous_hash' AND relkind IN ('r', 'p') ORDER BY 1"
        ).fetchall()
        return [row[0] for row in rows]

    def records(self, table: str) -> Iterator[Sequence[Any]]:
        return self.find(table, Filter())

    def find(self, table: str, wanted: Filter) -> Iterator[Sequence[Any]]:
        where, values = wanted.sql("%s")
        with self._connection.cursor("cdc_audit") as cursor:
            cursor.itersize = _FETCH
            sql = f"SELECT {_NAMES} FROM {self._sql(table)} WHERE {where} ORDER BY seq"
            cursor.execute(sql, values)
            for row in cursor:
                yield [x.encode() if isinstance(x, str) else x for x in row]

    # --- the rest ---

    def is_driver_error(self, error: Exception) -> bool:
        from psycopg import Error

        return isinstance(error, Error)

    def is_damage(self, error: Exception) -> bool:
        return (getattr(error, "sqlstate", None) or "").startswith(_DAMAGE)

    def is_unavailable(self, error: Exception) -> bool:
        return self._dialect.is_unavailable(error)

    def explain(self, error: Exception) -> tuple[str, str]:
        return self._dialect.explain(error)

    def close(self) -> None:
        self._pooled.invalidate()

    def _run(self, sql: str, values: Sequence[Any] = ()) -> Any:
        cursor = self._connection.cursor()
        cursor.execute(sql, values or None)
        return cursor

    def _sql(self, table: str) -> str:
        name = self._dialect.table_name(table)
        return ".".join(quote(part) for part in name if part is not None)
