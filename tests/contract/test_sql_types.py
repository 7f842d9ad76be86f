"""Debezium's semantic types in the SQL sink's targets: native column types, exact values."""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc.api import SinkContext
from cdc.errors import SinkRejected
from schemas import Field, Schema
from tests import blocks
from tests.blocks import (
    BOOLEAN,
    BYTES,
    DATE,
    DOUBLE,
    ENUM,
    FLOAT,
    INT16,
    INT32,
    INT64,
    INTERVAL,
    JSON,
    MICRO_DURATION,
    MICRO_TIME,
    MICRO_TIMESTAMP,
    NANO_TIME,
    NANO_TIMESTAMP,
    STRING,
    TIME,
    TIMESTAMP,
    UUID,
    VARIABLE_DECIMAL,
    ZONED_TIME,
    ZONED_TIMESTAMP,
    Source,
    array_of,
    base64,
    bits,
    decimal,
    optional,
    unscaled,
)
from tests.contract.targets import PostgresTarget, SqliteTarget, SqlTarget, started
from tests.fix_postgres import Database

_numbers = itertools.count()


def _named(type_: str, name: str) -> Schema:
    return Schema(type_, name=name, version=1)


_ID = "b68a35a7-17ad-35b3-af2a-ae46edb4545a"
_POINT = Schema(
    "struct",
    name="io.debezium.data.geometry.Point",
    version=1,
    fields=(
        Field("x", DOUBLE),
        Field("y", DOUBLE),
        Field("wkb", BYTES.as_optional()),
        Field("srid", INT32.as_optional()),
    ),
)
_NUMBER = {"scale": 1, "value": base64(b"\x0f")}
_BIG = 10**37 + 7
_BIG_TEXT = "1" + "0" * 26 + "0.0000000007"
_DAY = "2024-01-02"
_MOMENT = 1704164645123456
_FAR = 253402300800000000 + 1  # the first microsecond but one of the year 10000
_ARRAY = [1, None, -3]

# Name, schema, value in JSON, PostgreSQL's type and text, SQLite's value.
CASES: list[tuple[str, Schema, Any, str, str, Any]] = [
    ("boolean", BOOLEAN, True, "boolean", "true", 1),
    ("int16", INT16, -32768, "smallint", "-32768", -32768),
    ("int32", INT32, 2**31 - 1, "integer", "2147483647", 2**31 - 1),
    ("int64", INT64, -(2**63), "bigint", str(-(2**63)), -(2**63)),
    ("float", FLOAT, 0.1, "real", "0.1", 0.1),
    ("double", DOUBLE, 1.5e300, "double precision", "1.5e+300", 1.5e300),
    ("nan", DOUBLE, "NaN", "double precision", "NaN", "NaN"),
    ("infinite", DOUBLE, "-Infinity", "double precision", "-Infinity", "-Infinity"),
    ("text", STRING, "ü\n'\"\\", "text", "ü\n'\"\\", "ü\n'\"\\"),
    ("bytes", BYTES, base64(b"\x00\xff"), "bytea", "\\x00ff", b"\x00\xff"),
    ("no_bytes", BYTES, "", "bytea", "\\x", b""),
    ("decimal", decimal(10, 2), unscaled(-1205), "numeric(10,2)", "-12.05", "-12.05"),
    ("cent", decimal(10, 2), unscaled(-5), "numeric(10,2)", "-0.05", "-0.05"),
    ("huge", decimal(38, 10), unscaled(_BIG), "numeric(38,10)", _BIG_TEXT, _BIG_TEXT),
    ("whole", decimal(20, 0), unscaled(2**64 - 1), "numeric(20,0)", str(2**64 - 1), str(2**64 - 1)),
    ("variable", VARIABLE_DECIMAL, _NUMBER, "numeric", "1.5", "1.5"),
    ("date", DATE, 19724, "date", _DAY, _DAY),
    ("old", DATE, -735160, "date", "0044-03-15 BC", "-0043-03-15"),
    ("always", DATE, -2147472692, "date", "infinity", "infinity"),
    ("time", TIME, 11045123, "time without time zone", "03:04:05.123", "03:04:05.123000"),
    ("micros", MICRO_TIME, 11045123456, "time without time zone", "03:04:05.123456",
     "03:04:05.123456"),
    ("nanos", NANO_TIME, 11045123456000, "time without time zone", "03:04:05.123456",
     "03:04:05.123456"),
    ("midnight", MICRO_TIME, 86400000000, "time without time zone", "24:00:00", "24:00:00.000000"),
    ("ms", TIMESTAMP, _MOMENT // 1000, "timestamp without time zone", "2024-01-02 03:04:05.123",
     "2024-01-02T03:04:05.123000"),
    ("us", MICRO_TIMESTAMP, _MOMENT, "timestamp without time zone", "2024-01-02 03:04:05.123456",
     "2024-01-02T03:04:05.123456"),
    ("ns", NANO_TIMESTAMP, _MOMENT * 1000, "timestamp without time zone",
     "2024-01-02 03:04:05.123456", "2024-01-02T03:04:05.123456"),
    ("before", MICRO_TIMESTAMP, -1, "timestamp without time zone", "1969-12-31 23:59:59.999999",
     "1969-12-31T23:59:59.999999"),
    ("far", MICRO_TIMESTAMP, _FAR, "timestamp without time zone", "10000-01-01 00:00:00.000001",
     "+10000-01-01T00:00:00.000001"),
    ("never", MICRO_TIMESTAMP, -9223372036832400000, "timestamp without time zone", "-infinity",
     "-infinity"),
    ("zoned", ZONED_TIMESTAMP, "2024-01-02T03:04:05.120000Z", "timestamp with time zone",
     "2024-01-02 03:04:05.12+00", "2024-01-02T03:04:05.120000Z"),
    ("zoned_far", ZONED_TIMESTAMP, "+12024-01-02T03:04:05Z", "timestamp with time zone",
     "12024-01-02 03:04:05+00", "+12024-01-02T03:04:05Z"),
    ("zoned_old", ZONED_TIMESTAMP, "-0043-03-15T00:00:00.5Z", "timestamp with time zone",
     "0044-03-15 00:00:00.5+00 BC", "-0043-03-15T00:00:00.5Z"),
    ("zoned_never", ZONED_TIMESTAMP, "-infinity", "timestamp with time zone", "-infinity",
     "-infinity"),
    ("timetz", ZONED_TIME, "10:15:30.12Z", "time with time zone", "10:15:30.12+00",
     "10:15:30.12Z"),
    ("iso_date", _named("string", "io.debezium.time.IsoDate"), _DAY + "Z", "date", _DAY, _DAY),
    ("iso_time", _named("string", "io.debezium.time.IsoTime"), "03:04:05.1Z",
     "time without time zone", "03:04:05.1", "03:04:05.1"),
    ("iso_moment", _named("string", "io.debezium.time.IsoTimestamp"), "2024-01-02T03:04:05Z",
     "timestamp without time zone", "2024-01-02 03:04:05", "2024-01-02T03:04:05"),
    ("connect_date", _named("int32", "org.apache.kafka.connect.data.Date"), 19724, "date", _DAY,
     _DAY),
    ("duration", MICRO_DURATION, 3723000001, "interval", "01:02:03.000001", 3723000001),
    ("interval", INTERVAL, "P1Y2M3DT4H5M6.78S", "interval", "1 year 2 mons 3 days 04:05:06.78",
     "P1Y2M3DT4H5M6.78S"),
    ("json", JSON, '{"a": [1, "x"]}', "json", '{"a": [1, "x"]}', '{"a": [1, "x"]}'),
    ("json_null", JSON, "null", "json", "null", "null"),
    ("uuid", UUID, _ID, "uuid", _ID, _ID),
    ("enum", ENUM, "b", "text", "b", "b"),
    ("bits", bits(5), base64(b"\x05"), "bit varying(5)", "00101", "00101"),
    ("no_bits", bits(3), "", "bit varying(3)", "000", "000"),
    ("varbits", bits(2147483647), base64(b"\x01\x01"), "bit varying", "100000001", "100000001"),
    ("hstore", blocks.HSTORE_MAP, {"k": "v", "n": None}, "jsonb", '{"k": "v", "n": null}',
     '{"k":"v","n":null}'),
    ("point", _POINT, {"x": 1.5, "y": -2.0, "wkb": None, "srid": None}, "point", "(1.5,-2)",
     "(1.5,-2.0)"),
    ("ints", array_of(INT32), _ARRAY, "integer[]", "{1,NULL,-3}", "[1,null,-3]"),
    ("texts", array_of(STRING), ["a,b", None, '"'], "text[]", '{"a,b",NULL,"\\""}',
     '["a,b",null,"\\""]'),
    ("empty", array_of(STRING), [], "text[]", "{}", "[]"),
    ("dates", array_of(DATE), [19724, None], "date[]", "{2024-01-02,NULL}",
     '["2024-01-02",null]'),
    ("moments", array_of(MICRO_TIMESTAMP), [_MOMENT], "timestamp without time zone[]",
     '{"2024-01-02 03:04:05.123456"}', '["2024-01-02T03:04:05.123456"]'),
    ("zones", array_of(ZONED_TIMESTAMP), ["2024-01-02T03:04:05Z"], "timestamp with time zone[]",
     '{"2024-01-02 03:04:05+00"}', '["2024-01-02T03:04:05Z"]'),
    ("numbers", array_of(decimal(10, 2)), [unscaled(150), None], "numeric(10,2)[]", "{1.50,NULL}",
     '["1.50",null]'),
    ("blobs", array_of(BYTES), [base64(b"\x01")], "bytea[]", '{"\\\\x01"}', '["AQ=="]'),
    ("jsons", array_of(JSON), ['{"a": 1}'], "json[]", '{"{\\"a\\": 1}"}', '["{\\"a\\": 1}"]'),
    ("uuids", array_of(UUID), [_ID], "uuid[]", f"{{{_ID}}}", f'["{_ID}"]'),
]  # fmt: skip


def write(target: SqlTarget) -> None:
    shop = Source()
    columns = {name: optional(schema) for name, schema, *_ in CASES}
    table = blocks.event_schema("types", {"id": INT32, **columns})
    shop.insert(table, id=1, **{name: value for name, _, value, *_ in CASES})
    shop.insert(table, id=2)
    task = started(target)
    task.put(shop.block())
    task.flush(2)
    task.stop()


def test_postgres_gets_native_types_and_exact_values(database: Database) -> None:
    target = PostgresTarget(database)
    write(target)
    found = target.query(
        "SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute"
        " WHERE attrelid = 'types'::regclass AND attnum > 0"
    )
    types = {row["attname"]: row["type"] for row in found}
    assert {name: types[name] for name, *_ in CASES} == {name: t for name, _, _, t, _, _ in CASES}
    texts = ", ".join(f'"{name}"::text' for name, *_ in CASES)
    (row,) = target.query(
        f"SELECT {texts} FROM types, set_config('timezone', 'UTC', false) WHERE id = 1"
    )
    assert row == {name: text for name, _, _, _, text, _ in CASES}
    (row,) = target.query("SELECT * FROM types WHERE id = 2")
    assert {value for name, value in row.items() if name != "id"} == {None}


def test_sqlite_gets_text_that_compares_and_loses_nothing(tmp_path: Path) -> None:
    target = SqliteTarget(tmp_path)
    write(target)
    row, empty = target.query("SELECT * FROM types ORDER BY id")
    del row["id"]
    assert row == {name: value for name, _, _, _, _, value in CASES}
    assert {value for name, value in empty.items() if name != "id"} == {None}


@pytest.fixture
def actual(database: Database) -> PostgresTarget:
    target = PostgresTarget(database)
    target.execute("CREATE TYPE mood AS ENUM ('a', 'b')")
    target.execute(
        "CREATE TABLE items (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mood mood,"
        " tag varchar(3), at text, j json,"
        " amount double precision, twice int GENERATED ALWAYS AS (2) STORED,"
        ' "Mixed" int)'
    )
    return target


def test_columns_that_are_there_keep_their_own_types(actual: PostgresTarget) -> None:
    shop = Source()
    table = shop.table(
        "items",
        id=INT32,
        mood=STRING,
        tag=STRING,
        at=MICRO_TIMESTAMP,
        j=STRING,
        amount=decimal(10, 2),
        mixed=INT32,
    )
    row = {"id": 1, "mood": "b", "tag": "abc", "at": _MOMENT, "j": "[1]", "mixed": 5}
    shop.insert(table, amount=unscaled(125), **row)
    task = started(actual)
    task.put(shop.block())
    task.flush(1)
    task.stop()
    (stored,) = actual.query("SELECT * FROM items")
    assert stored == {
        "id": 1,
        "mood": "b",
        "tag": "abc",
        "at": "2024-01-02 03:04:05.123456",
        "j": [1],
        "amount": 1.25,
        "twice": 2,
        "Mixed": 5,
    }


def test_a_table_made_by_a_sink_without_such_types_gets_their_numbers(database: Database) -> None:
    """What Confluent's JDBC sink makes of Debezium's dates and times: INT and BIGINT."""
    target, shop = PostgresTarget(database), Source()
    columns = {
        "day": DATE,
        "at": MICRO_TIMESTAMP,
        "ms": TIMESTAMP,
        "clock": MICRO_TIME,
        "took": MICRO_DURATION,
    }
    target.execute(
        "CREATE TABLE items (id int PRIMARY KEY, day int, at bigint, ms numeric, clock bigint,"
        " took bigint)"
    )
    values = {"day": 19724, "at": _MOMENT, "ms": _MOMENT // 1000, "clock": 86399999999, "took": -1}
    shop.insert(shop.table("items", id=INT32, **columns), id=1, **values)
    task = started(target)
    task.put(shop.block())
    task.flush(1)
    task.stop()
    assert target.query("SELECT * FROM items") == [{"id": 1, **values}]


def test_a_column_of_a_type_that_nothing_leads_to_is_named(database: Database) -> None:
    target, shop = PostgresTarget(database), Source()
    target.execute("CREATE TABLE items (id int PRIMARY KEY, at boolean)")
    shop.insert(shop.table("items", id=INT32, at=MICRO_TIMESTAMP), id=1, at=_MOMENT)
    task = started(target)
    with pytest.raises(SinkRejected, match='42846, column "at" of type boolean') as caught:
        task.put(shop.block())
    assert str(caught.value.remedy).startswith('ALTER TABLE "items" ALTER "at" TYPE timestamp, or')
    task.stop()


def test_a_time_that_is_none_is_refused_not_wrapped(database: Database) -> None:
    target = PostgresTarget(database)
    shop = Source()
    table = shop.table("items", id=INT32, at=MICRO_TIME)
    shop.insert(table, id=1, at=-1)
    task = started(target)
    with pytest.raises(SinkRejected, match="22007"):
        task.put(shop.block())
    task.stop()


# --- both targets against each other ---


def _comparable(value: Any) -> Any:
    """A value as psycopg reads it, in the form SQLite holds it."""
    if isinstance(value, dt.datetime | dt.time):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, dt.date | uuid.UUID):
        return str(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    return int(value) if isinstance(value, bool) else value


def _tables() -> st.SearchStrategy[tuple[dict[str, Schema], list[dict[str, Any]]]]:
    def with_rows(columns: dict[str, Schema]) -> st.SearchStrategy[Any]:
        values = {n: blocks.values_of(s) for n, s in columns.items() if n != "id"}
        return st.tuples(st.just(columns), st.lists(st.fixed_dictionaries(values), max_size=4))

    return blocks.columns().flatmap(with_rows)


@given(_tables())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_tables_are_the_same_in_both_targets(
    database: Database, tmp_path: Path, drawn: tuple[dict[str, Schema], list[dict[str, Any]]]
) -> None:
    columns, rows = drawn
    name = f"t{next(_numbers)}"
    shop = Source()
    table = blocks.event_schema(name, columns)
    for i, row in enumerate(rows):
        shop.insert(table, id=i, **row)
    block = shop.block()
    found = []
    for target in (PostgresTarget(database), SqliteTarget(tmp_path)):
        task = target.task()
        task.start(SinkContext(name, tmp_path))
        task.put(block)
        task.flush(len(block))
        task.stop()
        found.append(target.query(f'SELECT * FROM "{name}" ORDER BY id') if rows else [])
    there, here = found
    for row in here:
        for column, value in row.items():
            schema = columns[column]
            if value is not None and (schema.type == "array" or schema.name == JSON.name):
                row[column] = orjson.loads(value)
    assert [{n: _comparable(v) for n, v in row.items()} for row in there] == here
    assert len(here) == len(rows)
