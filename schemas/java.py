"""What Java shows of a Connect value: names of classes and types, and ``toString``.

Errors of Connect name classes; ``StringConverter`` and casts to string write these texts.
Without a schema, numbers are what ``JsonConverter`` makes of them: Long and Double.

One text cannot be had: ``byte[]`` prints as the address of the object (``[B@1b2c3d``), which
says nothing and differs in each run; base64 stands there instead.
"""

from __future__ import annotations

import codecs
from base64 import b64encode
from decimal import Decimal
from typing import Any

from schemas.dates import DAY_MS, calendar
from schemas.floats import shortest_double
from schemas.model import DATE, DECIMAL, TIME, TIMESTAMP, Schema, type_name
from schemas.struct import Moment, Struct

_BY_TYPE = {
    "boolean": "java.lang.Boolean",
    "int8": "java.lang.Byte",
    "int16": "java.lang.Short",
    "int32": "java.lang.Integer",
    "int64": "java.lang.Long",
    "float": "java.lang.Float",
    "double": "java.lang.Double",
    "string": "java.lang.String",
    "bytes": "[B",
    "array": "java.util.ArrayList",
    "map": "java.util.HashMap",
    "struct": "org.apache.kafka.connect.data.Struct",
}
_BY_NAME = {
    DATE: "java.util.Date",
    TIME: "java.util.Date",
    TIMESTAMP: "java.util.Date",
    DECIMAL: "java.math.BigDecimal",
}
_BY_CLASS: dict[type, str] = {
    bool: "java.lang.Boolean",
    int: "java.lang.Long",
    float: "java.lang.Double",
    str: "java.lang.String",
    bytes: "[B",
    list: "java.util.ArrayList",
    dict: "java.util.HashMap",
    Struct: "org.apache.kafka.connect.data.Struct",
    Moment: "java.util.Date",
    Decimal: "java.math.BigDecimal",
}
_BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
_DAYS = "Mon Tue Wed Thu Fri Sat Sun".split()
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def schema_text(schema: Schema) -> str:
    """A schema as Java prints it."""
    kind = type_name(schema)
    return f"Schema{{{kind}}}" if schema.name is None else f"Schema{{{schema.name}:{kind}}}"


def class_of_schema(schema: Schema) -> str:
    """The name of the class that a schema's values have."""
    return _BY_NAME.get(schema.name or "") or _BY_TYPE[schema.type]


def class_name(value: Any, schema: Schema | None = None) -> str:
    """The name of a value's class; ``null`` for null. A schema tells the width of a number.

    Not a logical one: its values are dates and decimals, and a number there is of no width.
    """
    if value is None:
        return "null"
    kind = type(value)
    if schema is not None and schema.name not in _BY_NAME:
        if kind is float and schema.type == "float":
            return _BY_TYPE["float"]
        limit = 1 << _BITS.get(schema.type, 64) - 1
        if kind is int and schema.type in _BITS and -limit <= value < limit:
            return _BY_TYPE[schema.type]
    return _BY_CLASS.get(kind, "java.lang.Object")


# --- toString ---


def text(value: Any, schema: Schema | None = None) -> str:
    """``String.valueOf`` of a value. A schema tells single from double precision."""
    if value is None:
        return "null"
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is float:
        single = schema is not None and schema.type == "float"
        return float_text(value) if single else double_text(value)
    if kind is Struct:
        return _struct_text(value)
    if kind is list:
        items = None if schema is None else schema.items
        return f"[{', '.join([text(each, items) for each in value])}]"
    if kind is dict:
        keys, values = (None, None) if schema is None else (schema.keys, schema.values)
        pairs = [f"{text(k, keys)}={text(v, values)}" for k, v in value.items()]
        return f"{{{', '.join(pairs)}}}"
    if kind is bytes:
        return b64encode(value).decode()
    # BigDecimal.toString follows the same rule as Python's, exponents included.
    return _date_text(value) if kind is Moment else str(value)


def _struct_text(struct_: Struct) -> str:
    """Nulls are left out; a default does not stand in for one."""
    fields = zip(struct_.schema.fields, struct_.values, strict=True)
    pairs = [f"{f.name}={text(v, f.schema)}" for f, v in fields if v is not None]
    return f"Struct{{{','.join(pairs)}}}"


def double_text(value: float) -> str:
    """``Double.toString``: the shortest digits that give this number (as from Java 19 on)."""
    return _java_number(repr(value), value)


def float_text(value: float) -> str:
    """``Float.toString``: the shortest digits that give this number in single precision."""
    return _java_number(repr(shortest_double(value)), value)


def _java_number(shortest: str, value: float) -> str:
    """Python's shortest text in Java's form: ``1.0E10``, ``1.0E-5``, ``100.0``."""
    if value != value:  # noqa: PLR0124 (NaN)
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    number = Decimal(shortest)
    if len(number.as_tuple().digits) == 1 and float(f"{value:.1e}") == value:
        number = Decimal(f"{value:.1e}")  # Java has two digits where Python has one: 4.9E-324
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    figures = "".join(map(str, digits)).rstrip("0") or "0"
    point = len(digits) + exponent  # digits before the decimal point
    minus = "-" if sign else ""
    if value == 0:
        return f"{minus}0.0"
    if -3 < point <= 7:
        if point <= 0:
            return f"{minus}0.{'0' * -point}{figures}"
        whole, rest = figures[:point].ljust(point, "0"), figures[point:] or "0"
        return f"{minus}{whole}.{rest}"
    return f"{minus}{figures[0]}.{figures[1:] or '0'}E{point - 1}"


def _date_text(moment: Moment) -> str:
    """``Date.toString`` in UTC: ``Thu Jan 01 00:00:00 UTC 1970``; years BC without a mark."""
    year, at = calendar(moment)
    shown = year if year > 0 else 1 - year
    day = _DAYS[(moment // DAY_MS + 3) % 7]
    return f"{day} {_MONTHS[at.month - 1]} {at:%d %H:%M:%S} UTC {shown}"


def replace_malformed(error: UnicodeError) -> tuple[str, int]:
    """Java's U+FFFD for bytes that are no text: one for an encoded surrogate, whole or cut off.

    Otherwise as Unicode recommends and Python does: one for as much as could have begun one.
    """
    assert isinstance(error, UnicodeDecodeError)
    end = error.end
    first, *rest = error.object[error.start : error.start + 3]
    if error.encoding == "utf-8" and first == 0xED and rest and 0xA0 <= rest[0] <= 0xBF:
        end = error.start + 2 + (len(rest) > 1 and 0x80 <= rest[1] <= 0xBF)
    return "\ufffd", end


# What bytes.decode() is given as ``errors``.
REPLACED = "java"
codecs.register_error(REPLACED, replace_malformed)
