"""Keys as people write them, and as they stand in a journal.

A block's filter knows a key by its exact bytes, so a key is written as the source writes it,
once for every structure the table has had: ``42`` is ``{"id":42}`` while the column is an
integer and ``{"id":"42"}`` once it is a text. Values may be given in readable form (``12.50``,
``2026-03-01``), and counted ones (days, microseconds) as the number that stands in events.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as BinasciiError
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import product
from math import isfinite
from typing import Any
from uuid import UUID

import orjson

from cdc.errors import ConfigError
from cdc.keytext import Key, key_values
from schemas import EventSchema, Field, Schema
from schemas.model import CONNECT
from schemas.semantic import (
    DATA,
    DAY_US,
    INFINITE,
    INFINITE_DAYS,
    TIME,
    Convert,
    clock_text,
    date_text,
)

KEY = "key"  # what a key that is one value, no struct, is called
_EPOCH_DAY = date(1970, 1, 1)
_INTEGERS = {"int8": 7, "int16": 15, "int32": 31, "int64": 63}
_US = timedelta(microseconds=1)


def key_fragments(schemas: Sequence[EventSchema], key: Key) -> set[bytes]:
    """The key's bytes under every structure it fits. Raises ConfigError where it fits none."""
    table = schemas[0].table
    keyed = [schema for schema in schemas if key_struct(schema) is not None]
    if not keyed:
        raise ConfigError(f"{table} has no key, so its rows cannot be told apart", key="key")
    found: set[bytes] = set()
    problems: dict[str, None] = {}
    for schema in reversed(keyed):  # the newest structure's problem is told
        try:
            found.update(_fragments(schema, key))
        except ConfigError as error:
            problems[str(error)] = None
    if not found:
        raise ConfigError(next(iter(problems)), key="key")
    return found


def key_struct(schema: EventSchema) -> Schema | None:
    """The key's struct; where transforms made it one value, a struct of that; None: no key."""
    key = schema.key
    if key is not None and key.type != "struct":
        return Schema("struct", fields=(Field(KEY, key),))
    return key if key is not None and key.fields else None


def _fragments(schema: EventSchema, key: Key) -> list[bytes]:
    struct = key_struct(schema)
    assert struct is not None
    names = [field.name for field in struct.fields]
    values = key_values(str(schema.table), names, key)
    members = []
    for field in struct.fields:
        value = values[field.name]
        try:
            texts = [orjson.dumps(form) for form in to_wire(field.schema, value)]
        except (ValueError, TypeError, ArithmeticError, LookupError, BinasciiError):
            kind = (field.schema.name or field.schema.type).rpartition(".")[2]
            raise ConfigError(f"{field.name}: {value!r} is no {kind}") from None
        if struct is not schema.key:
            return texts
        members.append([orjson.dumps(field.name) + b":" + text for text in texts])
    return [b"{" + b",".join(chosen) + b"}" for chosen in product(*members)]


# --- values -----------------------------------------------------------------------------


def to_wire(schema: Schema, value: Any) -> list[Any]:
    """A key's value in the events' form; forms, where one value is written in several.

    Raises ValueError and its like for what is no value of that type.
    """
    if value is None:
        if schema.optional:
            return [None]
        raise ValueError("null")
    if isinstance(value, bool) and schema.type != "boolean":
        raise TypeError(value)
    if schema.name == CONNECT + "Decimal":
        return [_unscaled(Decimal(str(value)), int(schema.parameters["scale"]))]
    if schema.name == DATA + "Enum":
        return [_label(value, schema.parameters.get("allowed"))]
    if schema.name == TIME + "ZonedTimestamp":
        return _zoned_moment(_text(value))
    named = _NAMED.get(schema.name or "")
    if named is not None:
        return [value if _is_wire(schema, value) else named(_text(value))]
    if schema.type in _INTEGERS:
        return [_integer(value, _INTEGERS[schema.type])]
    if schema.type == "array":
        return _array(schema, value)
    return [_BASE[schema.type](value)]


def _is_wire(schema: Schema, value: Any) -> bool:
    """Whether it is in the events' form already, as it can be in JSON."""
    if schema.type == "struct":
        return isinstance(value, dict)
    return schema.type in _INTEGERS and isinstance(value, int)


def _text(value: Any) -> str:
    if not isinstance(value, str | int | float | datetime | date | time | UUID):
        raise TypeError(value)
    return str(value)


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


def _float(value: Any) -> float | str:
    number = float(value)
    return number if isfinite(number) else _NOT_FINITE[str(number)]


def _string(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(value)
    return str(value)


def _bytes(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    if value.startswith("\\x"):
        return b64encode(bytes.fromhex(value[2:])).decode()
    b64decode(value, validate=True)
    return value


def _bits(text: str) -> str:
    """From ``0101``, as :func:`schemas.semantic.bits_text` writes it, or base64."""
    if not re.fullmatch("[01]*", text):
        return _bytes(text)
    number = int(text or "0", 2)
    return b64encode(number.to_bytes((number.bit_length() + 7) // 8, "little")).decode()


def _array(schema: Schema, value: Any) -> list[Any]:
    values = orjson.loads(value) if isinstance(value, str) else value
    if not isinstance(values, list) or schema.items is None:
        raise TypeError(value)
    items = schema.items
    forms = [[None] if each is None else to_wire(items, each) for each in values]
    return [list(chosen) for chosen in product(*forms)]


def _record(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(value)
    return value


def _label(value: Any, allowed: str | None) -> str:
    text = _string(value)
    if allowed is not None and f",{text}," not in f",{allowed},":
        raise ValueError(text)
    return text


def _uuid(text: str) -> str:
    return str(UUID(text))


def _unscaled(number: Decimal, scale: int) -> str:
    if not number.is_finite():
        raise ValueError(number)
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if abs(exponent) > _EXPONENT_MAX:
        raise ValueError(number)
    unscaled, lost = int(Decimal((sign, digits, 0))), 0
    if exponent + scale >= 0:
        unscaled *= 10 ** (exponent + scale)
    else:
        size, lost = divmod(abs(unscaled), 10 ** -(exponent + scale))
        unscaled = -size if sign else size
    if lost:
        raise ValueError(number)
    length = (unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1
    return b64encode(unscaled.to_bytes(length, "big", signed=True)).decode()


def _variable_decimal(text: str) -> dict[str, Any]:
    number = Decimal(text)
    _, _, fraction = f"{number:f}".partition(".")
    scale = len(fraction.rstrip("0"))
    return {"scale": scale, "value": _unscaled(number, scale)}


# --- dates and times: as people and PostgreSQL write them, in any year ---


def _in_reach(text: str) -> tuple[str, int]:
    """A date's text in the years 2000 to 2399, and the 400-year cycles it is away from them."""
    found = _YEAR.fullmatch(text)
    if found is None:
        raise ValueError(text)
    cycles, year = divmod(int(found[1]) - 2000, 400)
    return f"{year + 2000}{found[2]}", cycles


def _days(text: str) -> int:
    for days, name in INFINITE_DAYS.items():
        if text == name:
            return days
    near, cycles = _in_reach(text)
    return (date.fromisoformat(near) - _EPOCH_DAY).days + cycles * _CYCLE_DAYS


def _us(text: str) -> int:
    """Microseconds since the epoch; without a zone it is UTC."""
    near, cycles = _in_reach(text)
    when = datetime.fromisoformat(near)
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return (when - _EPOCH) // _US + cycles * _CYCLE_DAYS * DAY_US


def _clock_us(text: str) -> int:
    """Microseconds since midnight UTC."""
    if text in ("24:00", "24:00:00"):
        return DAY_US
    t = time.fromisoformat(text)
    since = timedelta(hours=t.hour, minutes=t.minute, seconds=t.second) // _US + t.microsecond
    return since if t.tzinfo is None else (since - (t.utcoffset() or _US * 0) // _US) % DAY_US


def _clock(per_us: tuple[int, int]) -> Convert:
    return lambda text: _clock_us(text) * per_us[0] // per_us[1]


def _moment(per_us: tuple[int, int]) -> Convert:
    names = dict(zip(("infinity", "-infinity"), INFINITE[1_000 * per_us[1] // per_us[0]],
                     strict=True))  # fmt: skip

    def convert(text: str) -> int:
        return names[text] if text in names else _us(text) * per_us[0] // per_us[1]

    return convert


def _iso_clock(us: int) -> str:
    """With the shortest fraction."""
    text = clock_text(us)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _iso_moment(us: int) -> str:
    day, clock = divmod(us, DAY_US)
    return f"{date_text(day)}T{_iso_clock(clock)}"


def _zoned_moment(text: str) -> list[Any]:
    """In UTC, the fraction as long as the column declares it, which no event tells."""
    if text in ("infinity", "-infinity"):
        return [text]
    whole, _, fraction = _iso_moment(_us(text)).partition(".")
    padded = [fraction.ljust(width, "0") for width in range(len(fraction), _FRACTION_MAX + 1)]
    return [f"{whole}.{digits}Z" if digits else f"{whole}Z" for digits in padded]


def _interval(text: str) -> str:
    if not _INTERVAL.fullmatch(text):
        raise ValueError(text)
    return text


_EXPONENT_MAX = 200_000  # PostgreSQL's numeric has up to 131,072 digits
_FRACTION_MAX = 6
_CYCLE_DAYS = 146_097
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR = re.compile(r"([+-]?\d{4,})(-\d\d-\d\d.*)")
_INTERVAL = re.compile(r"P-?\d+Y-?\d+M-?\d+DT-?\d+H-?\d+M-?\d+(?:\.\d{1,6})?S")
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
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
    TIME + "IsoDate": lambda text: date_text(_days(text.removesuffix("Z"))) + "Z",
    TIME + "IsoTime": lambda text: _iso_clock(_clock_us(text) % DAY_US) + "Z",
    TIME + "IsoTimestamp": lambda text: _iso_moment(_us(text)) + "Z",
    TIME + "ZonedTime": lambda text: _iso_clock(_clock_us(text) % DAY_US) + "Z",
    TIME + "Interval": _interval,
    DATA + "VariableScaleDecimal": _variable_decimal,
    DATA + "Bits": _bits,
    DATA + "Uuid": _uuid,
}
_BASE: dict[str, Callable[[Any], Any]] = {
    "boolean": _boolean,
    "float": _float,
    "double": _float,
    "string": _string,
    "bytes": _bytes,
    "struct": _record,
    "map": _record,
}
