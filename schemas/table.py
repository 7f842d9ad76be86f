"""Tables as a database describes them: :class:`TableId`, :class:`Column`, :class:`TableSchema`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, order=True, slots=True)
class TableId:
    """A table's full name. PostgreSQL: ``schema.table`` within one database (``catalog``)."""

    catalog: str
    schema: str
    table: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}"


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    ``type_id``/``modifier`` are the server's own (PostgreSQL: pg_type oid and typmod);
    ``nullable`` and ``default`` (the SQL expression's text) come from the catalogue, and
    where that does not know the column any more it is nullable without a default.
    """

    name: str
    type_id: int
    modifier: int = -1
    nullable: bool = True
    default: str | None = None


@dataclass(frozen=True)
class TableSchema:
    """A table's structure at one position in the log.

    ``key`` names the columns of the record key, in key order: the primary key, else the
    first unique index; empty for a table without either. ``relation_id`` is the server's
    id of the table (PostgreSQL: pg_class oid).
    """

    id: TableId
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    relation_id: int = 0
    comment: str | None = None

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """In column order."""
        return tuple(c.name for c in self.columns)

    def column(self, name: str) -> Column:
        """Raises KeyError for a name that is no column."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)
