"""PostgreSQL as a target of the SQL sink.

A batch of rows is one parameter: their JSON as it stands in the block, read by the server
with ``json_to_recordset`` and turned into native values in SQL. That costs this process next
to nothing per row.
"""

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
from sinks.sql_types import Client, ColumnType, postgres_type, rounds

# Class or whole SQLSTATE → waiting may help: connection, resources, operator, conflicts.
_UNAVAILABLE = ("08", "53", "57P", "58", "40", "55P03", "57014", "25006")
_NO_TABLE = "Write into a table, or a view that can be updated: set table.name.format"
_REMEDIES = {
    "42P01": "Create the table, or set auto.create=true",
    "3F000": "Create the schema, or set auto.create=true",
    "42703": "Add the column, or set auto.evolve=true",
    "42P10": "Make the columns of pk.fields the table's primary key, or a unique constraint",
    "42501": "Grant the sink's user what it needs on this table",
    "23505": REMEDIES["unique"],
    "23503": REMEDIES["foreign key"],
    "23502": REMEDIES["not null"],
    "23514": "Drop the table's check, or give a partitioned table a partition for the row",
    "55000": _NO_TABLE,
    "42809": _NO_TABLE,
    "P0001": "A trigger or function of the target refuses the row: see its server's log",
}
_MEANWHILE = "Another connector has made this table at the same time: the next attempt finds it"
_PROBE = "cdc_probe"
# The column's type and the value's do not go together.
_NO_CAST = ("42846", "42804")
_NUMBERS = ("smallint", "integer", "bigint", "numeric")
_SESSION = (
    "SET timezone = 'UTC'",
    "SET datestyle = 'ISO, YMD'",
    "SET intervalstyle = 'postgres'",
    "SET standard_conforming_strings = on",
    "SET client_encoding = 'UTF8'",
    "SET extra_float_digits = 1",
)


class PostgresDialect:
    """PostgreSQL 12 and up, through psycopg 3."""

    name = "postgresql"
    placeholder = "%s"
    add_column = "ADD COLUMN IF NOT EXISTS"
    refuses_narrow = True
    name_bytes_max: int | None = 63  # NAMEDATALEN - 1

    def fold(self, name: str) -> str:
        return name

    def column_type(self, schema: Schema) -> ColumnType:
        return postgres_type(schema)

    def table_name(self, text: str) -> TableName:
        """``a.b`` is schema and table; of longer names the last two parts are."""
        parts = [part.replace(DOT, ".") for part in text.split(".")]
        return TableName(parts[-2] if len(parts) > 1 else None, parts[-1])

    def database_of(self, text: str) -> str:
        return ".".join(text.split(".")[:-2]).replace(DOT, ".")

    def database(self, connection: Any) -> str:
        return str(connection.info.dbname)

    def relation(self, connection: Any, table: TableName) -> tuple[str, str] | None:
        text = ".".join(quote(part) for part in table if part is not None)
        cursor = connection.cursor()
        cursor.execute(
            "SELECT nspname::text, relname::text FROM pg_class AS c"
            " JOIN pg_namespace AS n ON n.oid = relnamespace WHERE c.oid = to_regclass(%s)",
            [text],
        )
        found: tuple[str, str] | None = cursor.fetchone()
        return found

    def is_origin(self, connection: Any, origin: PositionMembers) -> bool | None:
        """The system identifier goes with a copy of the disk; the slot mostly does not."""
        cursor = connection.cursor()
        cursor.execute(
            "SELECT d.oid::int8, has_function_privilege('pg_control_system()', 'EXECUTE'),"
            " EXISTS (SELECT FROM pg_replication_slots AS s"
            " WHERE s.slot_name::text = %s AND s.datoid = d.oid)"
            " FROM pg_database AS d WHERE datname = current_database()",
            [str(origin.get("slot"))],
        )
        database, may_ask, has_slot = cursor.fetchone()
        if database != origin.get("database"):
            return False
        if not may_ask or not origin.get("system"):
            return bool(has_slot)
        cursor.execute("SELECT system_identifier::text FROM pg_control_system()")
        if cursor.fetchone()[0] != origin["system"]:
            return False
        return True if has_slot else None

    def prepare(self, connection: Any, application: str) -> None:
        cursor = connection.cursor()
        for setting in _SESSION:
            cursor.execute(setting)
        cursor.execute("SELECT set_config('application_name', %s, false)", [application])
        connection.commit()

    def begin(self, connection: Any) -> None:
        """Nothing: the driver opens a transaction with the first statement."""

    def describe(self, connection: Any, table: TableName) -> dict[str, str] | None:
        text = ".".join(quote(part) for part in table if part is not None)
        cursor = connection.cursor()
        cursor.execute(
            "SELECT attname, format_type(atttypid, -1), attgenerated FROM pg_attribute"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
            " ORDER BY attnum",
            [text],
        )
        rows = cursor.fetchall()
        return {name: type_ for name, type_, made in rows if not made} if rows else None

    def keys(self, connection: Any, table: TableName) -> list[frozenset[str]] | None:
        text = ".".join(quote(part) for part in table if part is not None)
        cursor = connection.cursor()
        cursor.execute(
            "SELECT c.relkind IN ('r', 'p'), ARRAY(SELECT attname::text FROM pg_attribute AS a"
            " WHERE a.attrelid = i.indrelid AND a.attnum ="
            " ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))"
            " FROM pg_class AS c LEFT JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisunique"
            " AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL"
            " WHERE c.oid = to_regclass(%s)",
            [text],
        )
        rows = cursor.fetchall()
        return [frozenset(names) for _, names in rows] if rows and rows[0][0] else None

    def narrow(
        self, connection: Any, table: TableName, columns: Sequence[Column]
    ) -> dict[str, str]:
        text = ".".join(quote(part) for part in table if part is not None)
        cursor = connection.cursor()
        cursor.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            [text],
        )
        declared = {quote(name): type_ for name, type_ in cursor.fetchall()}
        return {
            c.field: declared[c.target] for c in columns if rounds(c.type.ddl, declared[c.target])
        }

    def create_schema(self, connection: Any, schema: str) -> None:
        cursor = connection.cursor()
        # Asked first: CREATE … IF NOT EXISTS needs the privilege even if there is nothing to do.
        cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema])
        if cursor.fetchone() is None:
            cursor.execute(f"CREATE SCHEMA {quote(schema)}".replace("%", "%%"), [])

    def statement(self, kind: str, table: str, columns: Sequence[Column]) -> Statement:
        keys = [c for c in columns if c.key]
        values = [c for c in columns if not c.key]
        if kind == MOVE:
            return self._move(table, keys)
        if kind == FIND:
            return self._find(table, keys)
        rows = self._rows(keys if kind == DELETE else columns)
        match = " AND ".join(f"t.{c.target} = v.{c.target}" for c in keys)
        changes = ", ".join(f"{c.target} = v.{c.target}" for c in values)
        insert = f"INSERT INTO {table} ({names_of(columns)}) OVERRIDING SYSTEM VALUE"
        select = f"SELECT {names_of(columns, 'v.')} FROM {rows}"
        update = f"UPDATE {table} AS t SET {changes} FROM {rows} WHERE {match}"
        sql = {
            INSERT: (f"{insert} {select}",),
            UPSERT: (f"{insert} {select} {on_conflict(columns) if keys else ''}",),
            UPDATE: (update,) if changes else (),
            DELETE: (f"DELETE FROM {table} AS t USING {rows} WHERE {match}",),
            PARTIAL: (
                *((update,) if changes else ()),
                f"{insert} {select} WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {match})",
            ),
        }[kind]
        escaped = tuple(map(_escaped, sql))
        clients = clients_of(keys if kind == DELETE else columns)
        return Statement(escaped, ((),) * len(escaped), clients)

    def _move(self, table: str, keys: Sequence[Column]) -> Statement:
        old = old_keys(keys)
        changes = ", ".join(f"{c.target} = v.{c.target}" for c in keys)
        pairs = zip(keys, old, strict=True)
        match = " AND ".join(f"t.{new.target} = v.{before.target}" for new, before in pairs)
        sql = f"UPDATE {table} AS t SET {changes} FROM {self._rows([*keys, *old])} WHERE {match}"
        return Statement((_escaped(sql),), ((),), clients_of([*keys, *old]))

    def _find(self, table: str, keys: Sequence[Column]) -> Statement:
        number = Column(NUMBER, "cdc_number", ColumnType("bigint"), "bigint")
        match = " AND ".join(f"t.{c.target} = v.{c.target}" for c in keys)
        sql = (
            f"SELECT v.cdc_number FROM {self._rows([*keys, number])}"
            f" WHERE EXISTS (SELECT FROM {table} AS t WHERE {match})"
        )
        return Statement((_escaped(sql),), ((),), clients_of(keys))

    def _rows(self, columns: Sequence[Column]) -> str:
        """The parameter (a NUL stands for it) as a table ``v`` of native values."""
        outputs, inputs = [], []
        for column in columns:
            field = quote(column.field)
            wire, expression = column.type.wire, column.type.expression
            if wire is None and column.actual in ("json", "jsonb") and column.type.ddl == "text":
                wire = "text"  # a text that is JSON, not a JSON string
            if wire in _NUMBERS and column.actual in _NUMBERS:
                expression = "{x}"  # days or microseconds: the table of a sink without such types
            value = expression.format(x=f"x.{field}")
            if column.declared:
                wire = wire or column.type.ddl
                value = _exactly(f"({value})::{column.type.ddl}", column)
            elif wire is not None:
                value = f"({value})::{column.actual}"
            outputs.append(f"{value} AS {column.target}")
            inputs.append(f"{field} {wire or column.actual}")
        source = f"json_to_recordset(\0::json) AS x({', '.join(inputs)})"
        return f"(SELECT {', '.join(outputs)} FROM {source}) AS v"

    def run(self, connection: Any, statement: Statement, rows: bytes) -> None:
        rows = _converted(rows, statement.clients)
        text = rows.decode()
        cursor = connection.cursor()
        for sql in statement.sql:
            cursor.execute(sql, [text])

    def find(self, connection: Any, statement: Statement, rows: bytes) -> list[int]:
        rows = _converted(rows, statement.clients)
        cursor = connection.cursor()
        cursor.execute(statement.sql[0], [rows.decode()])
        return [number for (number,) in cursor.fetchall()]

    def truncate(self, connection: Any, table: str) -> None:
        connection.cursor().execute(f"TRUNCATE TABLE {table}".replace("%", "%%"), [])

    def default(self, connection: Any, column: Column, default: Any) -> str:
        rows = orjson.dumps([{column.field: default}])
        rows = _converted(rows, clients_of([column]))
        sql = f"SELECT quote_literal(v.{column.target}::text) FROM {self._rows([column])}"
        cursor = connection.cursor()
        cursor.execute(_escaped(sql), [rows.decode()])
        return str(cursor.fetchone()[0])

    def culprit(
        self, connection: Any, table: str, columns: Sequence[Column], row: bytes
    ) -> Column | None:
        from psycopg import DataError, Error

        cursor, values = connection.cursor(), orjson.loads(row)
        for column in columns:
            one = orjson.dumps([{column.field: values.get(column.field)}])
            value = _converted(one, clients_of([column])).decode()
            # A table of its own has the column's type with its length, and nothing else.
            made = f"CREATE TEMP TABLE {_PROBE} AS SELECT {column.target} FROM {table} LIMIT 0"
            filled = f"INSERT INTO {_PROBE} SELECT v.{column.target} FROM {self._rows([column])}"
            cursor.execute(f"SAVEPOINT {_PROBE}")
            try:
                cursor.execute(_escaped(made), [])
                cursor.execute(_escaped(filled), [value])
            except Error as error:
                if isinstance(error, DataError) or error.sqlstate in _NO_CAST:
                    return column
                return None  # no right to make temporary tables: then it stays without a name
            finally:
                cursor.execute(f"ROLLBACK TO SAVEPOINT {_PROBE}")
        return None

    def is_unavailable(self, error: Exception) -> bool:
        from psycopg import InterfaceError, OperationalError

        state = getattr(error, "sqlstate", None)
        if state is None:
            # The connection broke or was never made: there is no answer to hold a SQLSTATE.
            return isinstance(error, OperationalError | InterfaceError)
        return bool(state.startswith(_UNAVAILABLE)) or _made_meanwhile(error)

    def explain(self, error: Exception) -> tuple[str, str]:
        state = getattr(error, "sqlstate", None)
        said = [type(error).__name__ + (f", SQLSTATE {state}" if state else "")]
        diag = getattr(error, "diag", None)
        for what in ("constraint", "column", "datatype"):
            name = getattr(diag, f"{what}_name", None)
            if name:
                said.append(f"{what} {name}")
        remedy = _MEANWHILE if _made_meanwhile(error) else _REMEDIES.get(state or "", "")
        return ", ".join(said), remedy


def _made_meanwhile(error: Exception) -> bool:
    """Whether another session has made the same table while this one did.

    CREATE TABLE IF NOT EXISTS does not see what is not committed yet; it waits for it at the
    catalogue's unique index, and fails there.
    """
    state, diag = getattr(error, "sqlstate", None), getattr(error, "diag", None)
    catalogue = getattr(diag, "schema_name", None) == "pg_catalog"
    return state == "42P07" or (state == "23505" and catalogue)


def _exactly(value: str, column: Column) -> str:
    """The value as the column's type, and an error of the data where that changes it."""
    narrow = f"({value})::{column.declared}"
    return (
        f"CASE WHEN {value} IS NULL OR ({narrow})::{column.type.ddl} = {value} THEN {narrow}"
        f" ELSE (({value})::text || ' does not fit')::{column.declared} END"
    )


def _escaped(sql: str) -> str:
    """As psycopg wants it; a NUL stands for the parameter."""
    return sql.replace("%", "%%").replace("\0", "%s")


def _converted(rows: bytes, clients: Sequence[tuple[str, Client]]) -> bytes:
    if not clients:
        return rows
    parsed = orjson.loads(rows)
    for name, convert in clients:
        for row in parsed:
            value = row.get(name)
            if value is not None:
                row[name] = convert(value)
    return orjson.dumps(parsed)
