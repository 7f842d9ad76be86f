"""Row by row, column by column: is the copy what the source is?

Both sides are read as text by their own plain queries; nothing here shares code with the
engine that made the copy. One side's rows are held as digests by key, the other's stream
past them. Every kind of difference has a name: a row that is missing, one too many, one
that is there twice, a column with another value, a column that is not there.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg
from psycopg import sql

from cdc.demo.texts import COMPARABLE, of_source, of_sqlite

Text = str | None
Row = tuple[Text, ...]
Key = tuple[Text, ...]

# Of how many rows the columns that differ are looked up.
DETAILED_MAX: Final = 20
# The same text for the same value, whatever the databases are set to.
_SESSION: Final = (
    "-c datestyle=ISO,YMD -c timezone=UTC -c intervalstyle=postgres -c extra_float_digits=1"
    " -c bytea_output=hex -c lc_monetary=C -c default_transaction_read_only=on"
)
_DONE: Final = b""


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``type`` is the server's name of its base type, ``_text`` an array of text."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Table:
    """What is compared of a table: columns that can be, its key among them."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    left_out: tuple[str, ...] = ()  # columns that are not compared

    @property
    def key_places(self) -> tuple[int, ...]:
        """Where the key's columns are in a row."""
        names = [column.name for column in self.columns]
        return tuple(names.index(name) for name in self.key)


@dataclass(frozen=True, slots=True)
class Difference:
    """``kind``: missing, extra, twice, changed, no column. ``seen`` tells two looks apart."""

    table: str
    kind: str
    key: Key = ()
    columns: tuple[str, ...] = ()
    seen: bytes = b""

    def __str__(self) -> str:
        key = ", ".join(str(part) for part in self.key)
        where = f"{self.table} ({key})" if key else self.table
        return f"{where}: {self.kind}{' ' + ', '.join(self.columns) if self.columns else ''}"


@dataclass(slots=True)
class Result:
    """One table's comparison."""

    table: Table
    source_rows: int = 0
    copy_rows: int = 0
    differences: list[Difference] = field(default_factory=list)


class Side(Protocol):
    """One of the two databases."""

    def columns(self, table: Table) -> frozenset[str]:
        """The columns it has of a table; none where there is no table."""

    def rows(self, table: Table) -> Iterator[Row]:
        """All rows, the table's columns in order, as canonical text."""


# --- the two databases --------------------------------------------------------------------


class PostgresSide:
    """Tables in PostgreSQL, read by COPY: the text is the type's own output function's."""

    def __init__(self, dsn: str, *, for_sqlite: bool = False) -> None:
        """``for_sqlite``: in the form that both a server and SQLite can be brought to."""
        self._dsn, self._for_sqlite = dsn, for_sqlite

    def columns(self, table: Table) -> frozenset[str]:
        """See Side."""
        with self._connect() as conn:
            rows = conn.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s)"
                " AND attnum > 0 AND NOT attisdropped",
                [sql.Identifier(table.schema, table.name).as_string(conn)],
            )
            return frozenset(row[0] for row in rows)

    def rows(self, table: Table) -> Iterator[Row]:
        """See Side."""
        converts = [_from_server(c.type) for c in table.columns] if self._for_sqlite else []
        query = sql.SQL("COPY (SELECT {} FROM ONLY {}) TO STDOUT").format(
            sql.SQL(", ").join(self._selected(column) for column in table.columns),
            sql.Identifier(table.schema, table.name),
        )
        with self._connect() as conn, conn.cursor() as cursor, cursor.copy(query) as copy:
            for row in copy.rows():
                yield _converted(row, converts) if converts else row

    def _selected(self, column: Column) -> sql.Composable:
        name = sql.Identifier(column.name)
        if self._for_sqlite and column.type.startswith("_"):
            return sql.SQL("array_to_json({})").format(name)
        return name

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            self._dsn, options=_SESSION, application_name="cdc demo compare", client_encoding="UTF8"
        )


class SqliteSide:
    """Tables in a SQLite file, named ``schema_table``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def columns(self, table: Table) -> frozenset[str]:
        """See Side."""
        with closing(self._connect()) as conn:
            return frozenset(row[1] for row in conn.execute(f"PRAGMA table_info({_name(table)})"))

    def rows(self, table: Table) -> Iterator[Row]:
        """See Side."""
        converts = [_from_sqlite(column.type) for column in table.columns]
        names = ", ".join(_quote(column.name) for column in table.columns)
        with closing(self._connect()) as conn:
            for row in conn.execute(f"SELECT {names} FROM {_name(table)}"):
                yield _converted(row, converts)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)


def _name(table: Table) -> str:
    return _quote(f"{table.schema}_{table.name}")


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _from_server(type_: str) -> Callable[[str], str]:
    if not type_.startswith("_"):
        return lambda text: of_source(type_, text)
    item = type_[1:]
    return lambda text: _array(json.loads(text, parse_float=str), lambda v: of_source(item, v))


def _from_sqlite(type_: str) -> Callable[[object], str]:
    if not type_.startswith("_"):
        return lambda value: of_sqlite(type_, value)
    item = type_[1:]
    return lambda value: _array(json.loads(str(value)), lambda v: of_sqlite(item, v))


def _array(values: list[object], convert: Callable[[str], str]) -> str:
    """JSON's true stands for PostgreSQL's t."""
    flags = {True: "t", False: "f"}
    texts = [flags[v] if isinstance(v, bool) else v for v in values]
    return json.dumps([None if v is None else convert(str(v)) for v in texts])


def _converted(row: Iterable[object], converts: Sequence[Callable[..., str]]) -> Row:
    return tuple(
        None if value is None else convert(value)
        for value, convert in zip(row, converts, strict=True)
    )


# --- what there is to compare -------------------------------------------------------------


def read_table(conn: psycopg.Connection[tuple[Any, ...]], schema: str, name: str) -> Table:
    """A table's columns and primary key, from the source's catalogue."""
    relation = sql.Identifier(schema, name).as_string(conn)
    # Generated columns are not captured. A domain is what it is made of, an enum its label.
    columns = conn.execute(
        "SELECT a.attname, CASE WHEN b.typtype = 'e' THEN 'text' ELSE b.typname END"
        " FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
        " JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END"
        " WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped"
        " AND a.attgenerated = '' ORDER BY a.attnum",
        [relation],
    ).fetchall()
    keys = conn.execute(
        "SELECT a.attname FROM pg_index i"
        " CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum"
        " WHERE i.indrelid = to_regclass(%s) AND i.indisprimary ORDER BY k.place",
        [relation],
    ).fetchall()
    every = [Column(str(column), str(type_)) for column, type_ in columns]
    kept = tuple(c for c in every if c.type.removeprefix("_") in COMPARABLE)
    left_out = tuple(c.name for c in every if c not in kept)
    return Table(schema, name, kept, tuple(str(key) for (key,) in keys), left_out)


# --- the comparison -----------------------------------------------------------------------


def compare(table: Table, source: Side, copy: Side) -> Result:
    """All rows of one table."""
    result = Result(table)
    there = copy.columns(table)
    absent = tuple(c.name for c in table.columns if c.name not in there)
    if there and absent:
        result.differences.append(Difference(table.name, "no column", (), absent))
        table = replace(table, columns=tuple(c for c in table.columns if c.name in there))
        if not set(table.key) <= there:
            return result
    key_of, digests = _key_getter(table), {}
    for row in source.rows(table):
        digests[key_of(row)] = _digest(row)
        result.source_rows += 1
    changed: dict[Key, bytes] = {}
    for row in copy.rows(table) if there else ():
        result.copy_rows += 1
        key, found = key_of(row), _digest(row)
        expected = digests.get(key)
        if expected is None:
            result.differences.append(Difference(table.name, "extra", key, seen=found))
        elif expected == _DONE:
            result.differences.append(Difference(table.name, "twice", key, seen=found))
        else:
            digests[key] = _DONE
            if expected != found:
                changed[key] = expected
    result.differences += [
        Difference(table.name, "missing", key, seen=digest)
        for key, digest in digests.items()
        if digest != _DONE
    ]
    result.differences += _explained(table, source, copy, changed)
    return result


def _explained(
    table: Table, source: Side, copy: Side, changed: dict[Key, bytes]
) -> list[Difference]:
    """Which columns differ, by a second look at (some of) the rows."""
    if not changed:
        return []
    wanted = set(list(changed)[:DETAILED_MAX])
    key_of = _key_getter(table)
    left, right = (
        {key_of(row): row for row in side.rows(table) if key_of(row) in wanted}
        for side in (source, copy)
    )
    out = []
    for key, seen in changed.items():
        pairs = zip(table.columns, left.get(key, ()), right.get(key, ()), strict=False)
        columns = tuple(column.name for column, a, b in pairs if a != b)
        out.append(Difference(table.name, "changed", key, columns, seen))
    return out


def lasting(before: Result, now: Result) -> list[Difference]:
    """Of two looks at a source in use: what differs in both, while the source stood still.

    A row that was changed between the looks says nothing; the copy was behind it each time.
    """
    known = {(d.kind, d.key, d.seen) for d in before.differences}
    return [d for d in now.differences if (d.kind, d.key, d.seen) in known]


def _key_getter(table: Table) -> Callable[[Row], Key]:
    places = table.key_places
    return lambda row: tuple(row[place] for place in places)


def _digest(row: Row) -> bytes:
    parts = (b"-" if text is None else b"%d:%b" % (len(text), text.encode()) for text in row)
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()
