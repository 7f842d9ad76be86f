"""Keys as people write them, and as they stand in a journal.

A block's filter knows a key by its exact bytes, so a key is written as the source writes it,
once for every structure the table has had: ``42`` is ``{"id":42}`` while the column is an
integer and ``{"id":"42"}`` once it is a text. Values may be given in readable form (``12.50``,
``2026-03-01``) or, in JSON, in the events' own.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as BinasciiError
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import orjson

from cdc.errors import ConfigError
from schemas import EventSchema, Schema
from schemas.semantic import CONNECT, DATA, TIME, Convert

Key = Mapping[str, Any] | str | int
_EPOCH_DAY = date(1970, 1, 1)
_INTEGERS = {"int8": 7, "int16": 15, "int32": 31, "int64": 63}
_US = timedelta(microseconds=1)


def key_fragments(schemas: Sequence[EventSchema], key: Key) -> set[bytes]:
    """The key's bytes under every structure it fits. Raises ConfigError where it fits none."""
    table = schemas[0].table
    keyed = [schema for schema in schemas if schema.key_names]
    if not keyed:
        raise ConfigError(f"{table} has no key, so its rows cannot be told apart", key="key")
    found: set[bytes] = set()
    problems: dict[str, None] = {}
    for schema in reversed(keyed):  # the newest structure's problem is told
        try:
            found.add(_fragment(schema, _values(schema, key)))
        except ConfigError as error:
            problems[str(error)] = None
    if not found:
        raise ConfigError(next(iter(problems)), key="key")
    return found


def _values(schema: EventSchema, key: Key) -> dict[str, Any]:
    """Name → value; the names are those of the key."""
    names = schema.key_names
    if isinstance(key, Mapping):
        values = dict(key)
    elif isinstance(key, str) and key.lstrip().startswith("{"):
        values = _json(key)
    else:
        values = _assigned(str(key), names) or {}
        if not values and len(names) == 1:
            values = {names[0]: key}
    shown = f"the key of {schema.table} is {', '.join(names)}"
    missing = [name for name in names if name not in values]
    if missing:
        given = ",".join(f"{name}=…" for name in names)
        raise ConfigError(f"{', '.join(missing)} is missing: {shown}", remedy=f"Give {given}")
    extra = [name for name in values if name not in names]
    if extra:
        raise ConfigError(f"{', '.join(extra)} is not in the key: {shown}")
    return {name: values[name] for name in names}


def _json(text: str) -> dict[str, Any]:
    try:
        values: dict[str, Any] = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{text} is not JSON: {error}") from None
    return values


def _assigned(text: str, names: Sequence[str]) -> dict[str, Any] | None:
    """``id=42,line=3``; None where no name of the key stands before an equals sign."""
    alternatives = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    marks = list(re.finditer(rf"(?:^|,)\s*({alternatives})=", text))
    if not marks or marks[0].start():
        return None
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return {m[1]: text[m.end() : end].strip() for m, end in zip(marks, ends, strict=True)}


def _fragment(schema: EventSchema, values: Mapping[str, Any]) -> bytes:
    assert schema.key is not None
    members = []
    for field in schema.key.fields:
        value = values[field.name]
        try:
            text = orjson.dumps(to_wire(field.schema, value))
        except (ValueError, TypeError, ArithmeticError, LookupError, BinasciiError):
            kind = (field.schema.name or field.schema.type).rpartition(".")[2]
            raise ConfigError(f"{field.name}: {value!r} is no {kind}") from None
        members.append(orjson.dumps(field.name) + b":" + text)
    return b"{" + b",".join(members) + b"}"


# --- values -----------------------------------------------------------------------------


def to_wire(schema: Schema, value: Any) -> Any:
    """A value of a key in the events' form. Raises ValueError and its like."""
    if value is None:
        if schema.optional:
            return None
        raise ValueError("null")
    if schema.name == CONNECT + "Decimal":
        return _unscaled(Decimal(str(value)), int(schema.parameters["scale"]))
    named = _NAMED.get(schema.name or "")
    if named is not None:
        return value if isinstance(value, int | dict) else named(str(value))
    if schema.type in _INTEGERS:
        return _integer(value, _INTEGERS[schema.type])
    return _BASE.get(schema.type, lambda value: value)(value)


def _integer(value: Any, bits: int) -> int:
    if isinstance(value, bool | float):
        raise TypeError(value)
    number = int(value)
    if not -(1 << bits) <= number < 1 << bits:
        raise ValueError(value)
    return number


def _boolean(value: Any) -> bool:
    texts = {"true": True, "t": True, "false": False, "f": False}
    return value if isinstance(value, bool) else texts[str(value).lower()]


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(value)
    return str(value)


def _bytes(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    if value.startswith("\\x"):
        return b64encode(bytes.fromhex(value[2:])).decode()
    b64decode(value, validate=True)
    return value


def _unscaled(number: Decimal, scale: int) -> str:
    whole = number.scaleb(scale)
    if not whole.is_finite() or whole != whole.to_integral_value():
        raise ValueError(number)
    unscaled = int(whole)
    size = (unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1
    return b64encode(unscaled.to_bytes(size, "big", signed=True)).decode()


def _variable_decimal(text: str) -> dict[str, Any]:
    number = Decimal(text)
    _, _, fraction = f"{number:f}".partition(".")
    scale = len(fraction.rstrip("0"))
    return {"scale": scale, "value": _unscaled(number, scale)}


def _days(text: str) -> int:
    return (date.fromisoformat(text) - _EPOCH_DAY).days


def _clock(per_us: tuple[int, int]) -> Convert:
    def convert(text: str) -> int:
        t = time.fromisoformat(text)
        since = timedelta(hours=t.hour, minutes=t.minute, seconds=t.second) // _US + t.microsecond
        return since * per_us[0] // per_us[1]

    return convert


def _moment(per_us: tuple[int, int]) -> Convert:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)

    def convert(text: str) -> int:
        when = datetime.fromisoformat(text)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return (when - epoch) // _US * per_us[0] // per_us[1]

    return convert


_MILLIS, _MICROS, _NANOS = (1, 1000), (1, 1), (1000, 1)  # units in a microsecond
_NAMED: dict[str, Convert] = {
    CONNECT + "Date": _days,
    CONNECT + "Time": _clock(_MILLIS),
    CONNECT + "Timestamp": _moment(_MILLIS),
    TIME + "Date": _days,
    TIME + "Time": _clock(_MILLIS),
    TIME + "MicroTime": _clock(_MICROS),
    TIME + "NanoTime": _clock(_NANOS),
    TIME + "Timestamp": _moment(_MILLIS),
    TIME + "MicroTimestamp": _moment(_MICROS),
    TIME + "NanoTimestamp": _moment(_NANOS),
    DATA + "VariableScaleDecimal": _variable_decimal,
    DATA + "Uuid": str.lower,
}
_BASE: dict[str, Callable[[Any], Any]] = {
    "boolean": _boolean,
    "float": float,
    "double": float,
    "string": _string,
    "bytes": _bytes,
}
