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
from datetime import date
from functools import cache
from typing import Any, NamedTuple

import orjson

from schemas import Schema

Client = Callable[[Any], Any]

_CONNECT = "org.apache.kafka.connect.data."
_DATA = "io.debezium.data."
_TIME = "io.debezium.time."

DAY_US = 86_400_000_000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_DAYS_CACHED_MAX = 20_000
# What Debezium writes for infinity: by days, and by nanoseconds in a timestamp's unit.
_INFINITE_DAYS = {-2147472692: "infinity", -2147472691: "-infinity"}
_INFINITE = {
    1_000_000: (9223372036825200, -9223372036832400),
    1_000: (9223372036825200000, -9223372036832400000),
    1: (2**63 - 1, -(2**63)),
}
UNLIMITED_BITS = 2147483647


class ColumnType(NamedTuple):
    """``ddl`` is the native type; ``wire`` None means: read as the column's own type."""

    ddl: str
    client: Client | None = None
    wire: str | None = None
    expression: str = "{x}"


# --- values both targets share ---


def decimal_text(value: str, scale: int) -> str:
    """A Decimal's base64 as plain digits with ``scale`` decimals."""
    unscaled = int.from_bytes(b64decode(value), "big", signed=True)
    if scale <= 0:
        return str(unscaled * 10**-scale)
    digits = str(abs(unscaled)).rjust(scale + 1, "0")
    return f"{'-' if unscaled < 0 else ''}{digits[:-scale]}.{digits[-scale:]}"


def _variable_decimal(value: dict[str, Any]) -> str:
    return decimal_text(value["value"], value["scale"])


def _bits(length: int) -> Client:
    """Little-endian bytes, cut at the highest set bit, as ``0101``.

    A varying column's length is not in the event, so the declared one is filled up to.
    """
    width = 0 if length >= UNLIMITED_BITS else length

    def convert(value: str) -> str:
        number = int.from_bytes(b64decode(value), "little")
        return f"{number:b}".rjust(width, "0") if number else "0" * width

    return convert


def _point(value: dict[str, Any]) -> str:
    return f"({value['x']!r},{value['y']!r})"


def _wkb(value: dict[str, Any]) -> Any:
    return value["wkb"]


def _decimal(schema: Schema) -> Client:
    scale = int(schema.parameters["scale"])
    return lambda value: decimal_text(value, scale)


def _bit_length(schema: Schema) -> int:
    return int(schema.parameters.get("length", UNLIMITED_BITS))


# --- PostgreSQL ---


def _pg_timestamp(unit_ns: int) -> str:
    """Days first: a product with an interval is a double, exact only for small numbers."""
    infinite, minus_infinite = _INFINITE[unit_ns]
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
    + " ".join(f"WHEN {days} THEN date '{text}'" for days, text in _INFINITE_DAYS.items())
    + " ELSE date '1970-01-01' + {x} END"
)
# Java signs years before 1 and past 9999; PostgreSQL writes BC, and no plus.
_PG_ZONED = (
    "CASE WHEN left({x}, 1) NOT IN ('-', '+') OR {x} = '-infinity' THEN {x}"
    " WHEN left({x}, 1) = '+' THEN substr({x}, 2) ELSE lpad((split_part(substr({x}, 2), '-', 1)"
    "::int + 1)::text, 4, '0') || substr({x}, 2 + length(split_part(substr({x}, 2), '-', 1)))"
    " || ' BC' END"
)
_PG_ISO = "rtrim({x}, 'Z')"
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
    _CONNECT + "Date": _PG_DAYS,
    _CONNECT + "Time": _PG_MS_TIME,
    _CONNECT + "Timestamp": _PG_MS_TIMESTAMP,
    _TIME + "Date": _PG_DAYS,
    _TIME + "Time": _PG_MS_TIME,
    _TIME + "MicroTime": ColumnType("time", None, "bigint", _pg_time("{x}")),
    _TIME + "NanoTime": ColumnType("time", None, "bigint", _pg_time("({x} / 1000)")),
    _TIME + "Timestamp": _PG_MS_TIMESTAMP,
    _TIME + "MicroTimestamp": ColumnType("timestamp", None, "bigint", _pg_timestamp(1_000)),
    _TIME + "NanoTimestamp": ColumnType("timestamp", None, "bigint", _pg_timestamp(1)),
    _TIME + "IsoDate": ColumnType("date", None, "text", _PG_ISO),
    _TIME + "IsoTime": ColumnType("time", None, "text", _PG_ISO),
    _TIME + "IsoTimestamp": ColumnType("timestamp", None, "text", _PG_ZONED),
    _TIME + "ZonedTimestamp": ColumnType("timestamptz", None, "text", _PG_ZONED),
    _TIME + "ZonedTime": ColumnType("timetz"),
    _TIME + "MicroDuration": ColumnType("interval", None, "bigint", _PG_DURATION),
    _TIME + "Interval": ColumnType("interval"),
    _DATA + "Json": ColumnType("jsonb", None, "text"),
    _DATA + "Uuid": ColumnType("uuid"),
    _DATA + "Xml": ColumnType("xml"),
    _DATA + "Tsvector": ColumnType("tsvector"),
    _DATA + "VariableScaleDecimal": ColumnType("numeric", _variable_decimal),
    _DATA + "geometry.Point": ColumnType("point", _point),
    _DATA + "geometry.Geometry": ColumnType("bytea", _wkb, "text", "decode({x}, 'base64')"),
    _DATA + "geometry.Geography": ColumnType("bytea", _wkb, "text", "decode({x}, 'base64')"),
}


def postgres_type(schema: Schema) -> ColumnType:
    """The column type of a field in PostgreSQL."""
    if schema.name == _CONNECT + "Decimal":
        precision = schema.parameters.get("connect.decimal.precision")
        scale = schema.parameters["scale"]
        ddl = f"numeric({precision},{scale})" if precision else "numeric"
        return ColumnType(ddl, _decimal(schema))
    if schema.name == _DATA + "Bits":
        length = _bit_length(schema)
        ddl = "bit varying" if length >= UNLIMITED_BITS else f"bit varying({length})"
        return ColumnType(ddl, _bits(length))
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
    if schema.type == "string":
        return str
    return sqlite_type(schema).client or str


# --- SQLite ---


@cache
def _day_text(day: int) -> str:
    return date.fromordinal(day + _EPOCH_ORDINAL).isoformat()


def _date_text(day: int) -> str:
    """ISO; years outside 1–9999 with a sign, as in ISO 8601."""
    if day in _INFINITE_DAYS:
        return _INFINITE_DAYS[day]
    if _day_text.cache_info().currsize > _DAYS_CACHED_MAX:
        _day_text.cache_clear()
    try:
        return _day_text(day)
    except (ValueError, OverflowError):
        # The calendar repeats itself every 400 years.
        cycles, rest = divmod(day, 146097)
        year, month, dom = _day_text(rest).split("-")
        full = int(year) + 400 * cycles
        return f"{'-' if full < 0 else '+'}{abs(full):04d}-{month}-{dom}"


def _clock_text(micros: int) -> str:
    seconds, fraction = divmod(micros, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}.{fraction:06d}"


def _moment_text(unit_ns: int) -> Client:
    infinite, minus_infinite = _INFINITE[unit_ns]
    special = {infinite: "infinity", minus_infinite: "-infinity"}
    # Units: ms × 1000, µs × 1, ns // 1000.
    factor = {1_000_000: 1000, 1_000: 1, 1: 1}[unit_ns]
    divisor = 1000 if unit_ns == 1 else 1

    def convert(value: int) -> str:
        if value in special:
            return special[value]
        day, clock = divmod(value * factor // divisor, DAY_US)
        return f"{_date_text(day)}T{_clock_text(clock)}"

    return convert


def _json_text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _strip_zone(value: str) -> str:
    return value.rstrip("Z")


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
_SQLITE_MS = ColumnType("TEXT", _moment_text(1_000_000))
_SQLITE_MS_TIME = ColumnType("TEXT", lambda value: _clock_text(value * 1000))
_SQLITE_DATE = ColumnType("TEXT", _date_text)
_SQLITE_NAMED = {
    _CONNECT + "Date": _SQLITE_DATE,
    _CONNECT + "Time": _SQLITE_MS_TIME,
    _CONNECT + "Timestamp": _SQLITE_MS,
    _TIME + "Date": _SQLITE_DATE,
    _TIME + "Time": _SQLITE_MS_TIME,
    _TIME + "MicroTime": ColumnType("TEXT", _clock_text),
    _TIME + "NanoTime": ColumnType("TEXT", lambda value: _clock_text(value // 1000)),
    _TIME + "Timestamp": _SQLITE_MS,
    _TIME + "MicroTimestamp": ColumnType("TEXT", _moment_text(1_000)),
    _TIME + "NanoTimestamp": ColumnType("TEXT", _moment_text(1)),
    _TIME + "IsoDate": ColumnType("TEXT", _strip_zone),
    _TIME + "IsoTime": ColumnType("TEXT", _strip_zone),
    _TIME + "IsoTimestamp": ColumnType("TEXT", _strip_zone),
    _DATA + "VariableScaleDecimal": ColumnType("TEXT", _variable_decimal),
    _DATA + "geometry.Point": ColumnType("TEXT", _point),
    _DATA + "geometry.Geometry": ColumnType("BLOB", lambda value: b64decode(value["wkb"])),
    _DATA + "geometry.Geography": ColumnType("BLOB", lambda value: b64decode(value["wkb"])),
}


def sqlite_type(schema: Schema) -> ColumnType:
    """The column type of a field in SQLite."""
    if schema.name == _CONNECT + "Decimal":
        return ColumnType("TEXT", _decimal(schema))
    if schema.name == _DATA + "Bits":
        return ColumnType("TEXT", _bits(_bit_length(schema)))
    if schema.type == "array" and schema.items is not None:
        each = sqlite_type(schema.items).client
        if each is None or (schema.items.type == "bytes" and not schema.items.name):
            return ColumnType("TEXT", _json_text)
        items = _each(each)
        return ColumnType("TEXT", lambda value: _json_text(items(value)))
    return _SQLITE_NAMED.get(schema.name or "") or _SQLITE_BASE[schema.type]


def _each(convert: Client) -> Client:
    return lambda values: [None if value is None else convert(value) for value in values]
