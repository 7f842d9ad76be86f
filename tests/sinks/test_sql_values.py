"""Values at the edges of their types, from a real server into a PostgreSQL and a SQLite copy."""

from __future__ import annotations

import os
from array import array
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cdc.errors import SinkRejected
from schemas import Schema
from schemas.semantic import decimal_text
from tests.blocks import (
    DATE,
    INT32,
    INT64,
    JSON,
    MICRO_TIMESTAMP,
    STRING,
    Source,
    base64,
    bits,
    decimal,
    event_schema,
    optional,
    unscaled,
)
from tests.contract.targets import PostgresTarget, SqliteTarget, started
from tests.fix_postgres import Database
from tests.pipeline import Pipeline
from tests.sinks.journals import blocks_of


@pytest.fixture
def copy(request: pytest.FixtureRequest) -> Iterator[PostgresTarget]:
    made = Database(request.getfixturevalue("postgres_server"), f"copy_{os.getpid()}")
    made.create()
    yield PostgresTarget(made)
    made.drop()


# Type → values, as literals.
EDGES: dict[str, list[str]] = {
    "json": [r"""'{"b": "\u0000", "a":  1, "a": 2}'""", r"""'"\ud800"'""", "'null'"],
    "jsonb": ["""'{"a": 1.50, "b": "ü"}'"""],
    "date": ["'4713-01-01 BC'", "'0001-12-31 BC'", "'5874897-12-31'", "'infinity'", "'-infinity'"],
    "timestamp": ["'4713-01-01 00:00 BC'", "'0001-02-29 12:00:00.5 BC'", "'290000-01-01 0:0:0.1'",
                  "'infinity'", "'-infinity'"],
    "timestamp(3)": ["'0044-03-15 12:00:00.123 BC'", "'infinity'", "'294276-12-31 23:59:59.999'"],
    "timestamptz": ["'4713-01-01 00:00+00 BC'", "'0001-03-01 00:00:00.1+00 BC'", "'infinity'",
                    "'294276-12-31 23:59:59.999999+00'", "'-infinity'", "'99999-01-01+00'"],
    "date[]": ["'{4713-01-01 BC,0001-01-01 BC,infinity,-infinity,5874897-12-31,NULL}'"],
    "timestamp[]": ["'{4713-01-01 00:00 BC,0001-01-01 BC,infinity,-infinity,290000-01-01}'"],
    "timestamptz[]": ["'{4713-01-01+00 BC,0001-01-01+00 BC,infinity,-infinity,294276-01-01+00}'"],
    "float8": ["'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "5e-324", "1.7976931348623157e308"],
    "float4": ["'NaN'", "'-Infinity'", "1e-45", "3.4028235e38"],
    "float8[]": ["'{NaN,Infinity,-Infinity,-0,NULL}'"],
    "point": ["'(NaN,-Infinity)'", "'(1e300,-0)'"],
    "bit(8)": ["'00000101'", "'00000000'"],
    "bit": ["'1'", "'0'"],
    "varbit": ["'1'", "'1011'"],
    "interval": ["'1 day'"],
    "numeric(10,2)": ["-99999999.99"],
    "numeric": ["1e-100", "-12345678901234567890.5"],
    "text[]": ["""'{"NULL",NULL,"",Infinity}'"""],
    "json[]": [r"""ARRAY['"\u0000"', '{"a" : 1}']::json[]"""],
}  # fmt: skip
# A bit is a boolean in events.
AS_SOURCE = {"bit": "::int::bit"}


def _columns() -> list[tuple[str, str]]:
    return [(f"c{i}", type_) for i, type_ in enumerate(EDGES)]


def fill(database: Database) -> int:
    """A table with a column a type and a row a value; how many rows."""
    columns = ", ".join(f"{name} {type_}" for name, type_ in _columns())
    database.execute(f"CREATE TABLE items (id int PRIMARY KEY, {columns})")
    rows = max(map(len, EDGES.values()))
    for row in range(rows):
        values = [literals[row] if row < len(literals) else "NULL" for literals in EDGES.values()]
        database.execute(f"INSERT INTO items VALUES ({row}, {', '.join(values)})")
    return rows


def texts(database: Database, casts: dict[str, str]) -> list[tuple[Any, ...]]:
    names = ", ".join(f"({name}{casts.get(type_, '')})::text" for name, type_ in _columns())
    with database.connect() as connection:
        connection.execute("SET timezone = 'UTC'")
        sql = f"SELECT id, {names} FROM items ORDER BY id"
        return connection.execute(sql.encode()).fetchall()


@pytest.mark.parametrize("mode", ["adaptive", "isostring"])
def test_edges_of_types_arrive_as_they_are(
    database: Database, copy: PostgresTarget, tmp_path: Path, mode: str
) -> None:
    rows = fill(database)
    lite = SqliteTarget(tmp_path)
    with Pipeline(
        tmp_path / "journal", database.dsn, time_precision_mode=mode,
        interval_handling_mode="string",
    ) as source:  # fmt: skip
        source.until(lambda events: len(events) >= rows, "the rows")
    for target in (copy, lite):
        task = started(target)
        for block in blocks_of(tmp_path / "journal"):
            task.put(block)
        task.flush(rows)
        task.stop()
    assert texts(copy.database, AS_SOURCE) == texts(database, {})
    assert len(lite.query("SELECT * FROM items")) == rows


REFUSED: list[tuple[str, Schema, Any, str]] = [
    ("jsonb", JSON, r'{"a": "\u0000"}', 'column "c" of type jsonb.*ALTER "c" TYPE json,'),
    ("integer", INT64, 2**31, 'column "c" of type integer.*ALTER "c" TYPE bigint,'),
    ("varchar(3)", STRING, "four", 'column "c" of type character varying.*ALTER "c" TYPE text,'),
    ("timestamp", MICRO_TIMESTAMP, 9224318015999999999, 'column "c".*Change the value'),
    ("text", STRING, "a\0b", 'column "c" of type text.*Change the value'),
    ("numeric(4,2)", decimal(10, 2), unscaled(123456), 'column "c" of type numeric'),
    ("date", DATE, 2**31 - 1, 'column "c" of type date'),
    ("text NOT NULL", optional(STRING), None, "23502.*column c.*Allow NULL"),
]


@pytest.mark.parametrize(("type_", "schema", "value", "said"), REFUSED)
def test_a_value_that_a_column_does_not_take_is_refused_with_the_columns_name(
    copy: PostgresTarget, type_: str, schema: Schema, value: Any, said: str
) -> None:
    copy.execute(f"CREATE TABLE items (id int PRIMARY KEY, a int, c {type_}, d jsonb)")
    shop = Source()
    table = event_schema("items", {"id": INT32, "a": INT32, "c": schema, "d": optional(JSON)})
    if not schema.optional:
        shop.insert(table, id=1, a=1, c=None)
    shop.insert(table, id=2, a=1, c=value, d="{}")
    task = started(copy)
    with pytest.raises(SinkRejected, match=said):
        task.put(shop.block())
    task.stop()
    assert copy.query("SELECT * FROM items") == []


def test_a_key_that_was_widened_at_the_source_is_refused_with_its_remedy(
    copy: PostgresTarget,
) -> None:
    shop = Source()
    shop.insert(event_schema("items", {"id": INT32}), id=1)
    first = shop.block()
    wide = event_schema("items", {"id": INT64})
    shop.insert(wide, id=2)
    second = shop.block()
    shop.change_key(wide, {"id": 2}, {"id": 2**40})
    shop.change_key(wide, {"id": 2**40}, {"id": 2**41})
    third = replace(shop.block(), transaction=array("I", [0] * 4))
    task = started(copy)
    for block in (first, second):
        task.put(block)
        task.flush(block.offsets[-1] + 1)
    with pytest.raises(SinkRejected, match=r'column "id" of type integer.*ALTER "id" TYPE bigint'):
        task.put(third)
    task.stop()
    assert copy.query("SELECT id FROM items ORDER BY id") == [{"id": 1}, {"id": 2}]
    copy.execute("ALTER TABLE items ALTER id TYPE bigint")
    task = started(copy)
    task.put(third)
    task.flush(6)
    task.stop()
    assert copy.query("SELECT id FROM items ORDER BY id") == [{"id": 1}, {"id": 2**41}]


def test_bits_go_into_columns_of_bits_that_are_there(copy: PostgresTarget) -> None:
    copy.execute("CREATE TABLE items (id int PRIMARY KEY, c bit(8), d varbit(8))")
    shop = Source()
    table = event_schema("items", {"id": INT32, "c": bits(8), "d": bits(8)})
    shop.insert(table, id=1, c=base64(b"\x05"), d=base64(b"\x85"))
    task = started(copy)
    task.put(shop.block())
    task.flush(1)
    task.stop()
    assert copy.query("SELECT c::text, d::text FROM items") == [{"c": "00000101", "d": "10000101"}]


def test_a_key_of_jsonb_stays_one(copy: PostgresTarget) -> None:
    shop = Source()
    table = event_schema("items", {"id": JSON, "doc": JSON})
    for doc in ("[1]", "[2]"):
        shop.insert(table, id='{"a": 1}', doc=doc)
    task = started(copy)
    task.put(shop.block())
    task.flush(2)
    task.stop()
    assert copy.query("SELECT id, doc FROM items") == [{"id": {"a": 1}, "doc": [2]}]


def test_decimals_have_as_many_digits_as_the_source_allows() -> None:
    for number, scale, text in (
        (-(10**131_000) + 1, 0, "-" + "9" * 131_000),
        (7 * 10**9000, 9000, "7." + "0" * 9000),
        (-5, 3, "-0.005"),
        (-5, -2, "-500"),
        (0, -2, "0"),
    ):
        raw = number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
        assert decimal_text(b64encode(raw).decode(), scale) == text
