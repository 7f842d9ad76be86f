"""The comparison that ends the demo: whoever says "differences: 0" has to find one first."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cdc.demo.compare import (
    Column,
    Difference,
    PostgresSide,
    Result,
    Row,
    SqliteSide,
    Table,
    compare,
    lasting,
    read_table,
)
from cdc.demo.texts import of_source, of_sqlite
from tests.fix_postgres import Database

TABLE = Table("public", "t", (Column("id", "int4"), Column("a", "text"), Column("b", "text")),
              ("id",))  # fmt: skip
ROWS: list[Row] = [("1", "x", "y"), ("2", "", None), ("3", None, "")]


class Rows:
    """A side that is a list."""

    def __init__(self, rows: list[Row], columns: str = "id a b") -> None:
        self._rows, self._columns = rows, columns.split()

    def columns(self, table: Table) -> frozenset[str]:
        return frozenset(self._columns)

    def rows(self, table: Table) -> Iterator[Row]:
        names = [c.name for c in TABLE.columns]
        for row in self._rows:
            yield tuple(row[names.index(column.name)] for column in table.columns)


def differences(copy: list[Row], columns: str = "id a b") -> list[tuple[str, object, object]]:
    result = compare(TABLE, Rows(ROWS), Rows(copy, columns))
    return [(d.kind, d.key, d.columns) for d in result.differences]


def test_equal_rows_in_any_order_are_no_difference() -> None:
    result = compare(TABLE, Rows(ROWS), Rows(ROWS[::-1]))
    assert (result.differences, result.source_rows, result.copy_rows) == ([], 3, 3)


def test_a_row_that_is_not_there() -> None:
    assert differences(ROWS[1:]) == [("missing", ("1",), ())]


def test_a_row_too_many() -> None:
    assert differences([*ROWS, ("4", "x", "y")]) == [("extra", ("4",), ())]


def test_a_row_that_is_there_twice() -> None:
    assert differences([*ROWS, ROWS[0]]) == [("twice", ("1",), ())]


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        (("1", "X", "y"), ("a",)),
        (("1", "x", None), ("b",)),
        (("1", "x", "NULL"), ("b",)),
        (("1", "y", "x"), ("a", "b")),
        (("1", "xy", ""), ("a", "b")),  # the same characters, in other columns
    ],
)
def test_another_value_names_its_columns(row: Row, columns: tuple[str, ...]) -> None:
    assert differences([row, *ROWS[1:]]) == [("changed", ("1",), columns)]


def test_null_and_the_empty_text_are_two_values() -> None:
    assert differences([ROWS[0], ("2", None, None), ("3", None, "")]) == [
        ("changed", ("2",), ("a",))
    ]


def test_a_column_that_is_not_there() -> None:
    assert differences(ROWS, "id a") == [("no column", (), ("b",))]


def test_without_its_key_a_table_cannot_be_compared_and_differs() -> None:
    assert differences(ROWS, "a b") == [("no column", (), ("id",))]


def test_a_table_that_is_not_there_lacks_every_row() -> None:
    assert [kind for kind, _, _ in differences([], "")] == ["missing"] * 3
    assert compare(TABLE, Rows([]), Rows([], "")).differences == []


def test_of_two_looks_only_what_stood_still_lasts() -> None:
    def look(*rows: Row) -> Result:
        return compare(TABLE, Rows([*rows, ROWS[2]]), Rows([("1", "x", "y"), ROWS[2]]))

    changing = look(("1", "new", "y"))
    assert lasting(changing, look(("1", "newer", "y"))) == []
    assert [d.kind for d in lasting(changing, look(("1", "new", "y")))] == ["changed"]
    arriving = look(ROWS[0], ROWS[1])
    assert [d.kind for d in lasting(arriving, look(ROWS[0], ROWS[1]))] == ["missing"]
    assert lasting(arriving, look(ROWS[0])) == []


def test_a_difference_is_told_in_one_line() -> None:
    text = str(Difference("orders", "changed", ("7", "2"), ("total", "note")))
    assert text == "orders (7, 2): changed total, note"


# --- the two databases --------------------------------------------------------------------

TYPES = {
    "n": ("numeric(10,2)", "1.10", "1.11"),
    "moment": ("timestamptz", "2025-01-02 03:04:05.123456+02", "2025-01-02 03:04:05.123457+02"),
    "doc": ("jsonb", '{"a": [1, null]}', '{"a": [1]}'),
    "words": ("text[]", '{a,NULL,"b,c"}', '{a,"NULL","b,c"}'),
    "numbers": ("int[]", "{1,2}", "{2,1}"),
    "flag": ("boolean", "t", "f"),
    "day": ("date", "2025-02-28", "2025-03-01"),
    "body": ("text", "x" * 9000, "x" * 8999 + "y"),
}


def fill(database: Database) -> None:
    columns = ", ".join(f"{name} {type_}" for name, (type_, _, _) in TYPES.items())
    database.execute(f"CREATE TABLE t (id int, part text, {columns}, PRIMARY KEY (part, id))")
    marks = ", ".join(["%s"] * len(TYPES))
    values = [value for _, value, _ in TYPES.values()]
    for part in ("a", "b"):
        database.execute(f"INSERT INTO t VALUES (1, %s, {marks})", [part, *values])


def test_two_postgres_databases_differ_by_any_type(
    database: Database, copy_database: Database
) -> None:
    fill(database)
    fill(copy_database)
    with database.connect() as conn:
        table = read_table(conn, "public", "t")
    assert table.key == ("part", "id")
    assert table.left_out == ()
    sides = PostgresSide(database.dsn), PostgresSide(copy_database.dsn)
    assert compare(table, *sides).differences == []
    for name, (_, _, other) in TYPES.items():
        copy_database.execute(f"UPDATE t SET {name} = %s WHERE part = 'b'", [other])
        found = compare(table, *sides).differences
        assert [(d.kind, d.key, d.columns) for d in found] == [("changed", ("b", "1"), (name,))]
        copy_database.execute(f"UPDATE t SET {name} = %s WHERE part = 'b'", [TYPES[name][1]])


def test_the_sessions_settings_do_not_matter(database: Database, copy_database: Database) -> None:
    fill(database)
    fill(copy_database)
    for setting in ("datestyle = 'German'", "timezone = 'Asia/Tokyo'", "bytea_output = 'escape'"):
        copy_database.execute(f"ALTER DATABASE {copy_database.name} SET {setting}")
    with database.connect() as conn:
        table = read_table(conn, "public", "t")
    sides = PostgresSide(database.dsn), PostgresSide(copy_database.dsn)
    assert compare(table, *sides).differences == []


def test_a_sqlite_copy_is_compared_by_value(database: Database, tmp_path: Path) -> None:
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n numeric, at timestamptz, tags text[], ok boolean,"
        " wait interval, twice int GENERATED ALWAYS AS (id * 2) STORED)"
    )
    database.execute(
        "INSERT INTO t VALUES (1, 1.50, '2025-01-02 03:04:05.5+02', '{a,null}', true, '1 day')"
    )
    path = tmp_path / "copy.sqlite"
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("CREATE TABLE public_t (id, n, at, tags, ok)")
        row = (1, "1.5", "2025-01-02T01:04:05.500000Z", '["a",null]', 1)
        conn.execute("INSERT INTO public_t VALUES (?, ?, ?, ?, ?)", row)
    with database.connect() as connection:
        table = read_table(connection, "public", "t")
    assert table.left_out == ("wait",)
    sides = PostgresSide(database.dsn, for_sqlite=True), SqliteSide(path)
    assert compare(table, *sides).differences == []
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("UPDATE public_t SET ok = 0, tags = '[\"a\"]'")
    assert [d.columns for d in compare(table, *sides).differences] == [("tags", "ok")]


@pytest.mark.parametrize(
    ("type_", "source", "copy"),
    [
        ("int4", "7", 7),
        ("bool", "f", 0),
        ("float4", "1.1", 1.1),
        ("float8", "NaN", "NaN"),
        ("numeric", "100", "100"),
        ("numeric", "100.50", "100.5"),
        ("date", "0044-03-15 BC", "-0043-03-15"),
        ("date", "10000-01-01", "+10000-01-01"),
        ("timestamp", "infinity", "infinity"),
        ("timestamptz", "2025-01-02 03:04:05+00", "2025-01-02T03:04:05.000000Z"),
        ("time", "24:00:00", "24:00:00.000000"),
        ("timetz", "03:04:05+02", "01:04:05Z"),
        ("bytea", "\\x00ff", b"\x00\xff"),
        ("bit", "1", 1),
        ("varbit", "0101", "00000101"),
        ("bpchar", "a  ", "a"),
    ],
)
def test_one_value_has_one_text(type_: str, source: str, copy: object) -> None:
    assert of_source(type_, source) == of_sqlite(type_, copy)


@pytest.mark.parametrize(
    ("type_", "source", "copy"),
    [
        ("numeric", "100", "10"),
        ("timestamp", "2025-01-02 03:04:05", "2025-01-02T03:04:05.000001"),
        ("date", "0001-01-01 BC", "0001-01-01"),
        ("timetz", "03:04:05+02", "03:04:05Z"),
        ("bytea", "\\x", b"\x00"),
        ("text", "a", "a "),
        ("bool", "t", 0),
    ],
)
def test_other_values_have_other_texts(type_: str, source: str, copy: object) -> None:
    assert of_source(type_, source) != of_sqlite(type_, copy)
