"""Semantic types to SQL types: which column a field gets, and how its JSON becomes a value.

A :class:`ColumnType` is planned once per field. PostgreSQL parses the JSON itself: a row goes
there as it is, ``wire`` is the type its JSON member is read as and ``expression`` the SQL that
makes the value; only what SQL cannot do well (``client``) is done here first. SQLite gets
values: ``client`` makes them.

SQLite has no dates and no decimals: both become text that sorts and compares, dates in ISO
form (``2024-01-02T03:04:05.123456``, always six digits), decimals with all their digits, since
its NUMERIC would round them to 15.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from schemas import Schema
from schemas.model import CONNECT
from schemas.semantic import (
    DATA,
    DAY_US,
    INFINITE,
    INFINITE_DAYS,
    TIME,
    UNLIMITED_BITS,
    bit_length,
    bits_text,
    clock_text,
    date_text,
    decimal_text,
    moment_text,
    point_text,
    strip_zone,
    variable_decimal_text,
)

Client = Callable[[Any], Any]


class ColumnType(NamedTuple):
    """``ddl`` is the native type; ``wire`` None means: read as the column's own type."""

    ddl: str
    client: Client | None = None
    wire: str | None = None
    expression: str = "{x}"


def _wkb(value: dict[str, Any]) -> Any:
    return value["wkb"]


def _decimal(schema: Schema) -> Client:
    scale = int(schema.parameters["scale"])
    return lambda value: decimal_text(value, scale)


# --- PostgreSQL ---


def _pg_timestamp(unit_ns: int) -> str:
    """Days first: a product with an interval is a double, exact only for small numbers."""
    infinite, minus_infinite = INFINITE[unit_ns]
    day = DAY_US * 1000 // unit_ns
    unit, scaled = "1 microsecond", f"({{x}} % {day})"
    if unit_ns == 1_000_000:
        unit = "1 millisecond"
    elif unit_ns == 1:
        scaled = f"({scaled} / 1000)"
    return (
        f"CASE {{x}} WHEN {infinite} THEN timestamp 'infinity'"
        f" WHEN {minus_infinite} THEN timestamp '-infinity' ELSE"
        f" (date '1970-01-01' + ({{x}} / {day})::int)::timestamp"
        f" + {scaled} * interval '{unit}' END"
    )


def _pg_time(micros: str) -> str:
    """Adding to a time wraps at midnight: what is no time of a day must be an error instead."""
    return (
        f"CASE WHEN {micros} BETWEEN 0 AND {DAY_US - 1}"
        f" THEN time '00:00' + {micros} * interval '1 microsecond'"
        f" WHEN {micros} = {DAY_US} THEN time '24:00' ELSE ({micros})::text::time END"
    )


_PG_DATE = (
    "CASE {x} "
    + " ".join(f"WHEN {days} THEN date '{text}'" for days, text in INFINITE_DAYS.items())
    + " ELSE date '1970-01-01' + {x} END"
)
# Java has a year 0, and signs those before it and past 9999; PostgreSQL writes BC, and no plus.
_PG_ZONED = (
    "CASE WHEN left({x}, 5) = '0000-' THEN '0001' || substr({x}, 5) || ' BC'"
    " WHEN left({x}, 1) NOT IN ('-', '+') OR {x} = '-infinity' THEN {x}"
    " WHEN left({x}, 1) = '+' THEN substr({x}, 2) ELSE lpad((split_part(substr({x}, 2), '-', 1)"
    "::int + 1)::text, 4, '0') || substr({x}, 2 + length(split_part(substr({x}, 2), '-', 1)))"
    " || ' BC' END"
)
# What Debezium makes of infinity where a date or timestamp is a text.
_ISO_INFINITE = {
    "-5877611-06-21": "infinity",
    "-5877611-06-22": "-infinity",
    "+294247-01-10T04:00:25.2": "infinity",
    "-290308-12-21T19:59:27.6": "-infinity",
}
_PG_ISO = "rtrim({x}, 'Z')"
_PG_ISO_ERA = (
    f"CASE {_PG_ISO} "
    + " ".join(f"WHEN '{text}' THEN '{name}'" for text, name in _ISO_INFINITE.items())
    + f" ELSE {_PG_ZONED.replace('{x}', _PG_ISO)} END"
)
_PG_DURATION = "({x} / 1000000) * interval '1 second' + ({x} % 1000000) * interval '1 microsecond'"

_PG_BASE = {
    "boolean": ColumnType("boolean"),
    "int8": ColumnType("smallint"),
    "int16": ColumnType("smallint"),
    "int32": ColumnType("integer"),
    "int64": ColumnType("bigint"),
    "float": ColumnType("real"),
    "double": ColumnType("double precision"),
    "string": ColumnType("text"),
    "bytes": ColumnType("bytea", None, "text", "decode({x}, 'base64')"),
    # The server reads a JSON object or array into jsonb as it is.
    "struct": ColumnType("jsonb"),
    "map": ColumnType("jsonb"),
}
_PG_MS_TIMESTAMP = ColumnType("timestamp", None, "bigint", _pg_timestamp(1_000_000))
_PG_MS_TIME = ColumnType("time", None, "bigint", _pg_time("({x} * 1000)"))
_PG_DAYS = ColumnType("date", None, "integer", _PG_DATE)
_PG_NAMED = {
    CONNECT + "Date": _PG_DAYS,
    CONNECT + "Time": _PG_MS_TIME,
    CONNECT + "Timestamp": _PG_MS_TIMESTAMP,
    TIME + "Date": _PG_DAYS,
    TIME + "Time": _PG_MS_TIME,
    TIME + "MicroTime": ColumnType("time", None, "bigint", _pg_time("{x}")),
    TIME + "NanoTime": ColumnType("time", None, "bigint", _pg_time("({x} / 1000)")),
    TIME + "Timestamp": _PG_MS_TIMESTAMP,
    TIME + "MicroTimestamp": ColumnType("timestamp", None, "bigint", _pg_timestamp(1_000)),
    TIME + "NanoTimestamp": ColumnType("timestamp", None, "bigint", _pg_timestamp(1)),
    TIME + "IsoDate": ColumnType("date", None, "text", _PG_ISO_ERA),
    TIME + "IsoTime": ColumnType("time", None, "text", _PG_ISO),
    TIME + "IsoTimestamp": ColumnType("timestamp", None, "text", _PG_ISO_ERA),
    TIME + "ZonedTimestamp": ColumnType("timestamptz", None, "text", _PG_ZONED),
    TIME + "ZonedTime": ColumnType("timetz"),
    TIME + "MicroDuration": ColumnType("interval", None, "bigint", _PG_DURATION),
    TIME + "Interval": ColumnType("interval"),
    # Not jsonb: that takes neither \u0000 nor half a surrogate pair, and orders an object anew.
    DATA + "Json": ColumnType("json", None, "text"),
    DATA + "Uuid": ColumnType("uuid"),
    DATA + "Xml": ColumnType("xml"),
    DATA + "Tsvector": ColumnType("tsvector"),
    DATA + "VariableScaleDecimal": ColumnType("numeric", variable_decimal_text),
    DATA + "geometry.Point": ColumnType("point", point_text),
    DATA + "geometry.Geometry": ColumnType("bytea", _wkb, "text", "decode({x}, 'base64')"),
    DATA + "geometry.Geography": ColumnType("bytea", _wkb, "text", "decode({x}, 'base64')"),
}


def postgres_type(schema: Schema) -> ColumnType:
    """The column type of a field in PostgreSQL."""
    if schema.name == CONNECT + "Decimal":
        precision = schema.parameters.get("connect.decimal.precision")
        scale = schema.parameters["scale"]
        ddl = f"numeric({precision},{scale})" if precision else "numeric"
        return ColumnType(ddl, _decimal(schema))
    if schema.name == DATA + "Bits":
        length = bit_length(schema)
        ddl = "bit varying" if length >= UNLIMITED_BITS else f"bit varying({length})"
        return ColumnType(ddl, bits_text(length))
    if schema.type == "array" and schema.items is not None:
        return _postgres_array(schema.items)
    return _PG_NAMED.get(schema.name or "") or _PG_BASE[schema.type]


def _postgres_array(items: Schema) -> ColumnType:
    if items.type == "array" or (items.type in ("struct", "map") and not items.name):
        return ColumnType("jsonb")
    item = postgres_type(items)
    if item.expression == "{x}" and item.wire is None:
        each = item.client
        return ColumnType(f"{item.ddl}[]", None if each is None else _each(each))
    # No SQL over the elements: each becomes text that the type's own input understands.
    texts = _each(_element_text(items))
    return ColumnType(f"{item.ddl}[]", texts, "text[]")


def _element_text(schema: Schema) -> Client:
    """An element as a text of PostgreSQL's own input; temporal ones as ISO."""
    if schema.type == "bytes" and not schema.name:
        return lambda value: "\\x" + b64decode(value).hex()
    if schema.name in _DATED:
        text = sqlite_type(schema).client or str
        return lambda value: _pg_era(text(value))
    if schema.type == "string":
        return str
    return sqlite_type(schema).client or str


_INTEGERS = ("smallint", "integer", "bigint")
# What PostgreSQL rounds or cuts off when it assigns a value, instead of refusing it.
_ROUNDING = {
    "numeric": ("numeric", "real", "double precision"),
    "real": (*_INTEGERS[1:], "numeric", "double precision"),
    "double precision": ("bigint", "numeric"),
    "date": ("timestamp", "timestamptz"),
}


def rounds(wide: str, narrow: str) -> bool:
    """Whether a column declared as ``narrow`` can round what a ``wide`` one holds, in PostgreSQL.

    Not of times and timestamps of fewer digits: whoever declares such a column means it.
    """
    if wide.endswith("[]") != narrow.endswith("[]"):
        return False
    wide_name, _, _ = wide.removesuffix("[]").partition("(")
    name, _, size = narrow.removesuffix("[]").partition("(")
    if name == "numeric" and not size:
        return False
    return wide != narrow and wide_name in _ROUNDING.get(name, ())


_DATED = frozenset(
    name for name, type_ in _PG_NAMED.items() if type_.ddl in ("date", "timestamp", "timestamptz")
)


def _pg_era(text: str) -> str:
    """Java's text of a date or moment as PostgreSQL reads it, as ``_PG_ISO_ERA`` does."""
    text = _ISO_INFINITE.get(text, text).removeprefix("+")
    if text.startswith("0000-"):
        return f"0001{text[4:]} BC"
    if text.startswith("-") and text != "-infinity":
        year, _, rest = text[1:].partition("-")
        return f"{int(year) + 1:04d}-{rest} BC"
    return text


# --- SQLite ---


def _json_text(value: Any) -> str:
    return orjson.dumps(value).decode()


_SQLITE_BASE = {
    "boolean": ColumnType("INTEGER"),
    "int8": ColumnType("INTEGER"),
    "int16": ColumnType("INTEGER"),
    "int32": ColumnType("INTEGER"),
    "int64": ColumnType("INTEGER"),
    "float": ColumnType("REAL"),
    # NaN and infinity are texts in JSON and stay so: SQLite would make NaN a NULL.
    "double": ColumnType("REAL"),
    "string": ColumnType("TEXT"),
    "bytes": ColumnType("BLOB", b64decode),
    "struct": ColumnType("TEXT", _json_text),
    "map": ColumnType("TEXT", _json_text),
}
_SQLITE_MS = ColumnType("TEXT", moment_text(1_000_000))
_SQLITE_MS_TIME = ColumnType("TEXT", lambda value: clock_text(value * 1000))
_SQLITE_DATE = ColumnType("TEXT", date_text)
_SQLITE_NAMED = {
    CONNECT + "Date": _SQLITE_DATE,
    CONNECT + "Time": _SQLITE_MS_TIME,
    CONNECT + "Timestamp": _SQLITE_MS,
    TIME + "Date": _SQLITE_DATE,
    TIME + "Time": _SQLITE_MS_TIME,
    TIME + "MicroTime": ColumnType("TEXT", clock_text),
    TIME + "NanoTime": ColumnType("TEXT", lambda value: clock_text(value // 1000)),
    TIME + "Timestamp": _SQLITE_MS,
    TIME + "MicroTimestamp": ColumnType("TEXT", moment_text(1_000)),
    TIME + "NanoTimestamp": ColumnType("TEXT", moment_text(1)),
    TIME + "IsoDate": ColumnType("TEXT", strip_zone),
    TIME + "IsoTime": ColumnType("TEXT", strip_zone),
    TIME + "IsoTimestamp": ColumnType("TEXT", strip_zone),
    DATA + "VariableScaleDecimal": ColumnType("TEXT", variable_decimal_text),
    DATA + "geometry.Point": ColumnType("TEXT", point_text),
    DATA + "geometry.Geometry": ColumnType("BLOB", lambda value: b64decode(value["wkb"])),
    DATA + "geometry.Geography": ColumnType("BLOB", lambda value: b64decode(value["wkb"])),
}


def sqlite_type(schema: Schema) -> ColumnType:
    """The column type of a field in SQLite."""
    if schema.name == CONNECT + "Decimal":
        return ColumnType("TEXT", _decimal(schema))
    if schema.name == DATA + "Bits":
        return ColumnType("TEXT", bits_text(bit_length(schema)))
    if schema.type == "array" and schema.items is not None:
        each = sqlite_type(schema.items).client
        if each is None or (schema.items.type == "bytes" and not schema.items.name):
            return ColumnType("TEXT", _json_text)
        items = _each(each)
        return ColumnType("TEXT", lambda value: _json_text(items(value)))
    return _SQLITE_NAMED.get(schema.name or "") or _SQLITE_BASE[schema.type]


def _each(convert: Client) -> Client:
    return lambda values: [None if value is None else convert(value) for value in values]
