"""Semantic types: what a logical type's JSON form means, as text a person can read.

The names are those of Connect's and Debezium's logical types; a value is what
stands in an event's JSON (a Decimal's base64, a date's days). Dates and times come out in ISO
form, ``2024-01-02T03:04:05.123456`` with always six digits, so that texts sort as the values
do; decimals with all their digits. Used wherever a value leaves the events' form: by sinks
without such types, and by the history that people read.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import a2b_base64
from collections.abc import Callable, Collection, Mapping
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Any

from schemas.model import CONNECT, Schema

Convert = Callable[[Any], Any]
# What a conversion may raise for a value that is not of its type: it is shown as it is.
CONVERT_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)

DATA = "io.debezium.data."
TIME = "io.debezium.time."

DAY_US = 86_400_000_000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_DAYS_CACHED_MAX = 20_000
# What Debezium writes for infinity: by days, and by nanoseconds in a timestamp's unit.
INFINITE_DAYS = {-2147472692: "infinity", -2147472691: "-infinity"}
INFINITE = {
    1_000_000: (9223372036825200, -9223372036832400),
    1_000: (9223372036825200000, -9223372036832400000),
    1: (2**63 - 1, -(2**63)),
}
UNLIMITED_BITS = 2147483647
_LONG = 1 << 1000


def decimal_text(value: str, scale: int) -> str:
    """A Decimal's base64 as plain digits with ``scale`` decimals."""
    unscaled = int.from_bytes(a2b_base64(value), "big", signed=True)
    # A Decimal takes as many digits as PostgreSQL; str(int) stops at 4,300.
    number = abs(unscaled)
    digits = str(number if number < _LONG else Decimal(number))
    sign = "-" if unscaled < 0 else ""
    if scale <= 0:
        return sign + (digits + "0" * -scale if unscaled else "0")
    digits = digits.rjust(scale + 1, "0")
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}"


def variable_decimal_text(value: dict[str, Any]) -> str:
    """A VariableScaleDecimal as plain digits."""
    return decimal_text(value["value"], value["scale"])


def bits_text(length: int) -> Convert:
    """Little-endian bytes, cut at the highest set bit, as ``0101``.

    A varying column's length is not in the event, so the declared one is filled up to.
    """
    width = 0 if length >= UNLIMITED_BITS else length

    def convert(value: str) -> str:
        number = int.from_bytes(b64decode(value), "little")
        return f"{number:b}".rjust(width, "0") if number else "0" * width

    return convert


def point_text(value: dict[str, Any]) -> str:
    """PostgreSQL's own text of a point; what is no number is a text in JSON too."""
    return f"({value['x']},{value['y']})"


def bit_length(schema: Schema) -> int:
    """The declared length of a Bits type."""
    return int(schema.parameters.get("length", UNLIMITED_BITS))


@cache
def _day_text(day: int) -> str:
    return date.fromordinal(day + _EPOCH_ORDINAL).isoformat()


def date_text(day: int) -> str:
    """ISO; years outside 1–9999 with a sign, as in ISO 8601."""
    if day in INFINITE_DAYS:
        return INFINITE_DAYS[day]
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


def clock_text(micros: int) -> str:
    """A time of day, ``hh:mm:ss.ffffff``."""
    seconds, fraction = divmod(micros, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}.{fraction:06d}"


def moment_text(unit_ns: int) -> Convert:
    """From a timestamp in this unit to its ISO text."""
    infinite, minus_infinite = INFINITE[unit_ns]
    special = {infinite: "infinity", minus_infinite: "-infinity"}
    # Units: ms × 1000, µs × 1, ns // 1000.
    factor = {1_000_000: 1000, 1_000: 1, 1: 1}[unit_ns]
    divisor = 1000 if unit_ns == 1 else 1

    def convert(value: int) -> str:
        if value in special:
            return special[value]
        day, clock = divmod(value * factor // divisor, DAY_US)
        return f"{date_text(day)}T{clock_text(clock)}"

    return convert


def strip_zone(value: str) -> str:
    """An Iso type's text without the ``Z`` that Debezium adds."""
    return value.rstrip("Z")


def bytes_text(value: str) -> str:
    """Base64 as PostgreSQL writes bytes: ``\\x`` and hex digits."""
    return "\\x" + b64decode(value).hex()


def _wkb_text(value: dict[str, Any]) -> str:
    return bytes_text(value["wkb"])


_MS = moment_text(1_000_000)
_READABLE: dict[str, Convert] = {
    CONNECT + "Date": date_text,
    CONNECT + "Time": lambda value: clock_text(value * 1000),
    CONNECT + "Timestamp": _MS,
    TIME + "Date": date_text,
    TIME + "Time": lambda value: clock_text(value * 1000),
    TIME + "MicroTime": clock_text,
    TIME + "NanoTime": lambda value: clock_text(value // 1000),
    TIME + "Timestamp": _MS,
    TIME + "MicroTimestamp": moment_text(1_000),
    TIME + "NanoTimestamp": moment_text(1),
    TIME + "IsoDate": strip_zone,
    TIME + "IsoTime": strip_zone,
    TIME + "IsoTimestamp": strip_zone,
    DATA + "VariableScaleDecimal": variable_decimal_text,
    DATA + "geometry.Point": point_text,
    DATA + "geometry.Geometry": _wkb_text,
    DATA + "geometry.Geography": _wkb_text,
}


def readable(schema: Schema) -> Convert | None:
    """From a value of this schema to what a person reads, still JSON; None: it is that already.

    The result takes no None: NULL is NULL in any form.
    """
    if schema.name == CONNECT + "Decimal":
        scale = int(schema.parameters["scale"])
        return lambda value: decimal_text(value, scale)
    if schema.name == DATA + "Bits":
        return bits_text(bit_length(schema))
    if schema.type == "array" and schema.items is not None:
        each = readable(schema.items)
        if each is None:
            return None
        return lambda values: [None if value is None else each(value) for value in values]
    if schema.type == "bytes" and not schema.name:
        return bytes_text
    return _READABLE.get(schema.name or "")


def readable_fields(struct: Schema | None) -> dict[str, Convert]:
    """Of a row's or a key's schema: what makes a field readable, for those that are not."""
    found = {f.name: readable(f.schema) for f in struct.fields} if struct else {}
    return {name: convert for name, convert in found.items() if convert is not None}


def make_readable(
    values: dict[str, Any], fields: Mapping[str, Convert], skip: Collection[str] = ()
) -> None:
    """Change the values of a row or a key in place; those named in ``skip`` stay."""
    for name, convert in fields.items():
        value = values.get(name)
        if value is not None and name not in skip:
            try:
                values[name] = convert(value)
            except CONVERT_ERRORS:
                continue
