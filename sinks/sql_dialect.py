"""What differs between the SQL sink's targets: DDL, statements, sessions and errors.

:class:`Dialect` is the contract; :mod:`sinks.sql_postgres` and :mod:`sinks.sql_sqlite` keep it.
``PARTIAL`` is an upsert that leaves some columns alone: an UPDATE, then an INSERT of the rows
that were not there, since an INSERT … ON CONFLICT would trip over a NOT NULL column it does
not name. ``MOVE`` changes keys; the old one's fields are named with ``OLD`` in front. ``FIND``
asks which keys are there; each row has a number, the field ``NUMBER``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol

from cdc.api import PositionMembers
from schemas import Schema
from sinks.sql_types import Client, ColumnType

INSERT, UPSERT, UPDATE, PARTIAL, DELETE = "insert", "upsert", "update", "partial", "delete"
MOVE, OLD = "move", "old."
FIND, NUMBER = "find", "cdc.number"
OFFSETS = "cdc_offsets"
DOT = "\0"  # in a table's name: a dot that separates nothing


class TableName(NamedTuple):
    """A table of the target; ``schema`` is None for the session's default."""

    schema: str | None
    name: str


@dataclass(frozen=True, slots=True)
class Column:
    """One field on its way: ``field`` names it in events, ``target`` in the table.

    ``actual`` is the type of the table's column where the target needs to know, ``declared`` the
    same with its modifier where a value that this would round is to be refused.
    """

    field: str
    target: str
    type: ColumnType
    actual: str = ""
    key: bool = False
    declared: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL to run for a JSON array of rows, in order.

    ``fields`` names the parameters of each, where they are passed one by one; ``clients`` are
    the fields whose values are converted first.
    """

    sql: tuple[str, ...]
    fields: tuple[tuple[str, ...], ...]
    clients: tuple[tuple[str, Client], ...]


class Dialect(Protocol):
    """One kind of target. Holds no connection; errors of the driver pass through."""

    name: str
    placeholder: str
    add_column: str  # of ALTER TABLE: where it can, passing over one that another session has made
    refuses_narrow: bool  # its statements refuse a value that a column would change
    name_bytes_max: int | None  # what is longer would be cut off

    def fold(self, name: str) -> str:
        """What the target tells quoted names apart by."""

    def column_type(self, schema: Schema) -> ColumnType:
        """The native type of a field."""

    def table_name(self, text: str) -> TableName:
        """A name from ``table.name.format``, its dots read as this target reads them.

        ``DOT`` stands for those that belong to a name of the source.
        """

    def database_of(self, text: str) -> str:
        """What stands before schema and table in such a name: a database's. Empty: nothing."""

    def database(self, connection: Any) -> str:
        """The target's own, as a name's first part would have it."""

    def relation(self, connection: Any, table: TableName) -> tuple[str, str] | None:
        """Schema and name of a table that is there; None where a source has none such."""

    def is_origin(self, connection: Any, origin: PositionMembers) -> bool | None:
        """Whether the target is the database that a journal is of.

        None: it is that, or a copy of its server's disk.
        """

    def prepare(self, connection: Any, application: str) -> None:
        """Give a new session its settings."""

    def begin(self, connection: Any) -> None:
        """Open a transaction, if none is open."""

    def describe(self, connection: Any, table: TableName) -> dict[str, str] | None:
        """Writable columns and their types; None when there is no such table."""

    def keys(self, connection: Any, table: TableName) -> list[frozenset[str]] | None:
        """The columns of each unique index that an upsert can go by; None for a view."""

    def narrow(
        self, connection: Any, table: TableName, columns: Sequence[Column]
    ) -> dict[str, str]:
        """Field → its column's type, where that would change values of the event's in silence."""

    def create_schema(self, connection: Any, schema: str) -> None:
        """Create a schema unless it is there."""

    def statement(self, kind: str, table: str, columns: Sequence[Column]) -> Statement:
        """Plan one of the kinds above; ``table`` is quoted already."""

    def run(self, connection: Any, statement: Statement, rows: bytes) -> None:
        """Run it for a JSON array of rows."""

    def find(self, connection: Any, statement: Statement, rows: bytes) -> list[int]:
        """Run a FIND; the numbers of the rows whose keys are there."""

    def truncate(self, connection: Any, table: str) -> None:
        """Remove all rows."""

    def default(self, connection: Any, column: Column, default: Any) -> str:
        """The SQL literal of a field's default, for ADD COLUMN."""

    def culprit(
        self, connection: Any, table: str, columns: Sequence[Column], row: bytes
    ) -> Column | None:
        """The column that does not take the value of a row that was refused, if it is one."""

    def is_unavailable(self, error: Exception) -> bool:
        """Whether waiting may help."""

    def explain(self, error: Exception) -> tuple[str, str]:
        """What the target said, without row values, and a remedy."""


def quote(name: str) -> str:
    """An identifier, quoted as the standard says."""
    return '"' + name.replace('"', '""') + '"'


def names_of(columns: Sequence[Column], prefix: str = "") -> str:
    """The target's names, for a column list."""
    return ", ".join(prefix + column.target for column in columns)


def clients_of(columns: Sequence[Column]) -> tuple[tuple[str, Client], ...]:
    """The fields that are converted before they are passed."""
    return tuple((c.field, c.type.client) for c in columns if c.type.client is not None)


def old_keys(keys: Sequence[Column]) -> list[Column]:
    """The key's columns a second time, for its value before a MOVE."""
    return [replace(c, field=OLD + c.field, target=f"old_{i}") for i, c in enumerate(keys)]


def on_conflict(columns: Sequence[Column]) -> str:
    """What makes an INSERT an upsert, in both targets."""
    keys = [c for c in columns if c.key]
    values = [c for c in columns if not c.key]
    if not values:
        return f"ON CONFLICT ({names_of(keys)}) DO NOTHING"
    changes = ", ".join(f"{c.target} = excluded.{c.target}" for c in values)
    return f"ON CONFLICT ({names_of(keys)}) DO UPDATE SET {changes}"


# Types that PostgreSQL shows by other names than it is given.
SHORT_NAMES: Final = {
    "time without time zone": "time",
    "time with time zone": "timetz",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
}
REMEDIES: Final = {
    "unique": "Use insert.mode=upsert, or remove the table's own unique constraint",
    "not null": "Allow NULL in the target's column, or give it a default",
    "foreign key": "Drop the table's foreign keys: the sink writes table by table",
}
