"""JSON to Connect values, as Connect's JsonConverter reads it with Jackson: leniently.

What is of another JSON type than the schema's is nought, false or null, widths wrap, text
behind the value is not looked at, and leading zeros are passed over. All kept as it is there,
since a record that Connect reads must not stop here.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any, NoReturn

from schemas import DataError, Field, Moment, Schema, SchemaBuilderError, SchemaError, Struct
from schemas.codec import decimal_of, decimal_scale, dumper
from schemas.dates import DAY_MS
from schemas.floats import single_of
from schemas.model import DATE, DECIMAL, TIME, TIMESTAMP, TYPES, type_name
from schemas.struct import validate_value

UNREADABLE = "Converting byte[] to Kafka Connect data failed due to serialization error: "
_LEADING_ZEROS = re.compile(r'("(?:[^"\\]|\\.)*")|(?<![\d.eE+])(-?)0+(?=\d)', re.DOTALL)
# Jackson passes over blanks and control characters between the groups of four.
_BASE64 = re.compile(
    r"[\0- ]*(?:(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)[\0- ]*)*\Z"
)
_IN_WORDS = re.compile(r"[\w\U00010000-\U0010ffff]")
_NUMBER_LENGTH_MAX = 1000  # Jackson's limit
_BLANKS = re.compile(r"[\0- ]+")
# What is not there at all: neither a value nor null.
MISSING: Any = type("Missing", (), {"__repr__": lambda _: "MISSING"})()


def parse(data: bytes) -> Any:
    """JSON as Python has it, whole numbers exact and fractions as Decimal. Raises DataError."""
    try:
        text = data.decode(json.detect_encoding(data))
    except UnicodeDecodeError as error:
        raise DataError(UNREADABLE) from error
    text = text.lstrip(" \t\r\n")
    if not text:
        return MISSING
    try:
        with suppress(ValueError):  # Jackson, asked leniently, takes more
            return _first(text)
        return _first(_LEADING_ZEROS.sub(lambda m: m[1] or m[2], text))
    except (ValueError, RecursionError) as error:
        raise DataError(UNREADABLE) from error


def _first(text: str) -> Any:
    """What a text begins with; a number or a word must end there. Raises ValueError."""
    node, end = _DECODER.raw_decode(text)
    after = text[end : end + 1]
    if after and isinstance(node, int | Decimal | None):
        number = isinstance(node, Decimal) or type(node) is int
        if after not in " \t\r\n" if number else _IN_WORDS.match(after):
            raise ValueError(f"{after!r} right behind a value")
    return node


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"Non-standard token '{name}'")


def _fraction(text: str) -> Decimal:
    number = Decimal(_limited(text))
    return number or number.copy_abs()  # Jackson's decimals know no -0.0


def _limited(text: str) -> str:
    if len(text) > _NUMBER_LENGTH_MAX:
        raise ValueError(f"Number value length ({len(text)}) exceeds the maximum allowed")
    return text


_DECODER = json.JSONDecoder(
    parse_float=_fraction,
    parse_int=lambda text: int(_limited(text)),
    parse_constant=_no_number,
)


def read(schema: Schema | None, node: Any, *, replace_null: bool) -> Any:
    """The Connect value of parsed JSON. Raises DataError with Connect's texts."""
    if schema is None:
        return _plain(node)
    if node is None:
        if schema.default is not None and replace_null:
            return schema.default_value
        if schema.optional:
            return None
        raise DataError(f"Invalid null value for required {type_name(schema)} field")
    logical = _LOGICAL.get(schema.name or "")
    if logical is not None:
        return logical(schema, node)
    scalar = _SCALARS.get(schema.type)
    if scalar is not None:
        return scalar(node)
    return {"array": _array, "map": _map, "struct": _struct}[schema.type](
        schema, node, replace_null
    )


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(each) for each in node]
    if isinstance(node, dict):
        return {name: _plain(each) for name, each in node.items()}
    if isinstance(node, Decimal):
        return float(node)
    return None if node is MISSING else _wrap(node, 64) if type(node) is int else node


# --- scalars ---


def _wrap(number: int, bits: int) -> int:
    limit = 1 << bits - 1
    return (number + limit) % (2 * limit) - limit


def _whole(node: Any, bits: int) -> int:
    if isinstance(node, Decimal):
        # 10**64 has 64 factors of two: nothing of it is left in a long.
        node = 0 if node.adjusted() > 400 else int(node)
    return _wrap(node, bits) if type(node) is int else 0


def _is_number(node: Any) -> bool:
    return isinstance(node, Decimal) or type(node) is int


def _bytes(node: Any) -> bytes | None:
    if not isinstance(node, str):
        return None
    try:
        return _binary(node)
    except ValueError as error:
        raise DataError("Invalid bytes field") from error


def _binary(text: str) -> bytes:
    if not _BASE64.match(text):
        raise ValueError("broken Base64 encoding")
    joined = _BLANKS.sub("", text)
    return b"".join(b64decode(joined[at : at + 4]) for at in range(0, len(joined), 4))


_SCALARS: dict[str, Callable[[Any], Any]] = {
    # Narrower ones are cut from an int, as Java casts them.
    "int8": lambda node: _wrap(_whole(node, 32), 8),
    "int16": lambda node: _wrap(_whole(node, 32), 16),
    "int32": lambda node: _whole(node, 32),
    "int64": lambda node: _whole(node, 64),
    "float": lambda node: single_of(Decimal(node)) if _is_number(node) else 0.0,
    "double": lambda node: float(Decimal(node)) if _is_number(node) else 0.0,
    "boolean": lambda node: node is True,
    "string": lambda node: node if isinstance(node, str) else None,
    "bytes": _bytes,
}


# --- logical types ---


def _decimal(schema: Schema, node: Any) -> Decimal:
    if _is_number(node):
        return Decimal(node)
    if not isinstance(node, str):
        raise DataError(
            "Invalid type for Decimal, underlying representation should be numeric or bytes "
            f"but was {_kind(node)}"
        )
    try:
        data = _binary(node)
        if not data:
            raise ValueError("Zero length BigInteger")
        return decimal_of(b64encode(data).decode(), decimal_scale(schema))
    except ValueError as error:
        raise DataError("Invalid bytes for Decimal field") from error


def _date(_schema: Schema, node: Any) -> Moment:
    return Moment(_int(node, "Date", 32) * DAY_MS)


def _time(_schema: Schema, node: Any) -> Moment:
    found = _int(node, "Time", 32)
    if not 0 <= found <= DAY_MS:
        raise DataError(
            "Time values must use number of milliseconds greater than 0 and less than 86400000"
        )
    return Moment(found)


def _timestamp(_schema: Schema, node: Any) -> Moment:
    if type(node) is not int:
        raise DataError(
            "Invalid type for Timestamp, underlying representation should be integral "
            f"but was {_kind(node)}"
        )
    return Moment(_wrap(node, 64))


def _int(node: Any, name: str, bits: int) -> int:
    if type(node) is not int or _wrap(node, bits) != node:
        raise DataError(
            f"Invalid type for {name}, underlying representation should be integer "
            f"but was {_kind(node)}"
        )
    return node


_LOGICAL: dict[str, Callable[[Schema, Any], Any]] = {
    DECIMAL: _decimal,
    DATE: _date,
    TIME: _time,
    TIMESTAMP: _timestamp,
}


# --- what holds others ---


def _array(schema: Schema, node: Any, replace_null: bool) -> list[Any]:
    # Jackson goes over an object's values as well, and over nothing else.
    found = node.values() if isinstance(node, dict) else node
    if not isinstance(node, dict | list):
        found = ()
    return [read(schema.items, each, replace_null=replace_null) for each in found]


def _map(schema: Schema, node: Any, replace_null: bool) -> dict[Any, Any]:
    keys, values = schema.keys, schema.values
    if keys is None or keys.type == "string":
        if not isinstance(node, dict):
            raise DataError(
                "Maps with string fields should be encoded as JSON objects, "
                f"but found {_kind(node)}"
            )
        pairs = node.items()
        return {name: read(values, each, replace_null=replace_null) for name, each in pairs}
    if not isinstance(node, list):
        raise DataError(
            "Maps with non-string fields should be encoded as JSON array of tuples, but found "
            f"{_kind(node)}"
        )
    out = {}
    for pair in node:
        if not isinstance(pair, list):
            raise DataError(f"Found invalid map entry instead of array tuple: {_kind(pair)}")
        if len(pair) != 2:
            raise DataError(f"Found invalid map entry, expected length 2 but found :{len(pair)}")
        key, each = pair
        out[read(keys, key, replace_null=replace_null)] = read(
            values, each, replace_null=replace_null
        )
    return out


def _struct(schema: Schema, node: Any, replace_null: bool) -> Struct:
    if not isinstance(node, dict):
        raise DataError(f"Structs should be encoded as JSON objects, but found {_kind(node)}")
    found = Struct(schema)
    for field in schema.fields:
        value = read(field.schema, node.get(field.name), replace_null=replace_null)
        found.put(field.name, value)
    return found


def _kind(node: Any) -> str:
    """Jackson's name of a node's type."""
    if node is None or node is MISSING:
        return "MISSING" if node is MISSING else "NULL"
    names = {bool: "BOOLEAN", str: "STRING", list: "ARRAY", dict: "OBJECT"}
    return names.get(type(node), "NUMBER")


# --- schemas ---


def read_schema(node: Any, *, replace_null: bool = True) -> Schema | None:
    """A schema from Connect's JSON form. Raises DataError, SchemaError with Connect's texts."""
    if node is None:
        return None
    kind = node.get("type") if isinstance(node, dict) else None
    if not isinstance(kind, str):
        raise DataError("Schema must contain 'type' field")
    if kind not in TYPES:
        raise DataError(f"Unknown schema type: {kind}")
    version, name, doc = node.get("version"), node.get("name"), node.get("doc")
    schema = Schema(
        kind,
        optional=node.get("optional") is True,
        name=name if isinstance(name, str) else None,
        version=_wrap(version, 32) if type(version) is int else None,
        doc=doc if isinstance(doc, str) else None,
        parameters=_parameters(node.get("parameters")),
        **_parts(kind, node, replace_null),
    )
    if "default" not in node:
        return schema
    value = read(schema, node["default"], replace_null=replace_null)
    try:
        validate_value(schema, value)
    except DataError as error:
        raise SchemaBuilderError("Invalid default value") from error
    dump = dumper(schema)
    return replace(schema, default=value if dump is None or value is None else dump(value))


def _parameters(node: Any) -> dict[str, str]:
    if not isinstance(node, dict):
        return {}
    if not all(isinstance(value, str) for value in node.values()):
        raise DataError("Schema parameters must have string values.")
    return node


def _parts(kind: str, node: dict[str, Any], replace_null: bool) -> dict[str, Any]:
    if kind == "array":
        if node.get("items") is None:
            raise DataError("Array schema did not specify the element type")
        return {"items": read_schema(node["items"], replace_null=replace_null)}
    if kind == "map":
        for member, what in (("keys", "key"), ("values", "value")):
            if member not in node:
                raise DataError(f"Map schema did not specify the {what} type")
        parts = {m: read_schema(node[m], replace_null=replace_null) for m in ("keys", "values")}
        for member in ("keys", "values"):
            if parts[member] is None:
                raise SchemaBuilderError(f"{member[:-1]}Schema cannot be null.")
        return parts
    return {"fields": tuple(_fields(node.get("fields"), replace_null))} if kind == "struct" else {}


def _fields(nodes: Any, replace_null: bool) -> list[Field]:
    if not isinstance(nodes, list):
        raise DataError('Struct schema\'s "fields" argument is not an array.')
    out = []
    for node in nodes:
        name = node.get("field") if isinstance(node, dict) else None
        if not isinstance(name, str):
            raise DataError("Struct schema's field name not specified properly")
        schema = read_schema(node, replace_null=replace_null)
        if schema is None:
            raise SchemaError("fieldSchema for field cannot be null.")
        out.append(Field(name, schema))
    return out
