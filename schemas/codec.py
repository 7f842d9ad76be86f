"""Between a value's JSON form and its Connect value, planned once per schema.

The JSON form is what stands in a Block's fragments and in a Schema's default: base64 for
bytes and decimals, integers for dates and times, an object with every field of a struct in
the order of its schema. A plan is None where both forms are the same.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from schemas.model import Schema, SchemaError
from schemas.struct import Moment, Struct

Convert = Callable[[Any], Any]

CONNECT = "org.apache.kafka.connect.data."
DECIMAL, DATE, TIME, TIMESTAMP = (
    CONNECT + name for name in ("Decimal", "Date", "Time", "Timestamp")
)
DAY_MS = 86_400_000


def loader(schema: Schema) -> Convert | None:
    """From the JSON form to the Connect value; None: they are the same. Not for null."""
    if schema.type == "struct":
        return _struct_loader(schema)
    if schema.type == "array":
        return _array(loader(_of(schema.items)))
    if schema.type == "map":
        return _map_loader(schema)
    if schema.name == DECIMAL:
        scale = decimal_scale(schema)
        return lambda text: decimal_of(text, scale)
    if schema.type == "bytes":
        return b64decode
    if schema.name == DATE:
        return lambda days: Moment(days * DAY_MS)
    return Moment if schema.name in (TIME, TIMESTAMP) else None


def dumper(schema: Schema) -> Convert | None:
    """From the Connect value to the JSON form; None: they are the same. Not for null."""
    if schema.type == "struct":
        return _struct_dumper(schema)
    if schema.type == "array":
        return _array(dumper(_of(schema.items)))
    if schema.type == "map":
        return _map_dumper(schema)
    if schema.name == DECIMAL:
        return decimal_base64
    if schema.type == "bytes":
        return lambda value: b64encode(value).decode()
    if schema.name == DATE:
        return lambda moment: moment // DAY_MS
    return int if schema.name in (TIME, TIMESTAMP) else None


def decimal_scale(schema: Schema) -> int:
    """A Decimal schema's scale. Raises SchemaError where the parameter is missing or no number."""
    try:
        return int(schema.parameters["scale"])
    except (KeyError, ValueError):
        raise SchemaError("Invalid Decimal schema: scale parameter not found.") from None


def decimal_of(text: str, scale: int) -> Decimal:
    """The number in a base64 text of an unscaled two's complement integer."""
    unscaled = int.from_bytes(b64decode(text), "big", signed=True)
    # A tuple, not scaleb(): that one rounds to the context's 28 digits.
    sign, digits = (1, str(-unscaled)) if unscaled < 0 else (0, str(unscaled))
    return Decimal((sign, tuple(map(int, digits)), -scale))


def decimal_base64(value: Decimal) -> str:
    """The inverse of :func:`decimal_of`: big-endian two's complement of minimal length."""
    sign, digits, _ = value.as_tuple()
    number = int("".join(map(str, digits)) or "0")
    unscaled = -number if sign else number
    width = (unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1
    return b64encode(unscaled.to_bytes(width, "big", signed=True)).decode()


def _of(schema: Schema | None) -> Schema:
    if schema is None:
        raise SchemaError("an array or map schema needs the schemas of its elements")
    return schema


def _array(each: Convert | None) -> Convert | None:
    if each is None:
        return None
    return lambda values: [None if value is None else each(value) for value in values]


def _struct_loader(schema: Schema) -> Convert:
    names = [f.name for f in schema.fields]
    found = ((i, loader(f.schema)) for i, f in enumerate(schema.fields))
    special = [(i, load) for i, load in found if load is not None]
    count = len(names)

    def load_struct(members: dict[str, Any]) -> Struct:
        # A fragment holds every field in order; what others wrote may not.
        whole = len(members) == count
        values = list(members.values()) if whole else [members.get(name) for name in names]
        for i, load in special:
            if values[i] is not None:
                values[i] = load(values[i])
        return Struct(schema, values)

    return load_struct


def _struct_dumper(schema: Schema) -> Convert:
    names = [f.name for f in schema.fields]
    found = ((i, dumper(f.schema)) for i, f in enumerate(schema.fields))
    special = [(i, dump) for i, dump in found if dump is not None]

    def dump_struct(struct: Struct) -> dict[str, Any]:
        values = struct.values
        if special:
            values = values.copy()
            for i, dump in special:
                if values[i] is not None:
                    values[i] = dump(values[i])
        return dict(zip(names, values, strict=True))

    return dump_struct


def _map_loader(schema: Schema) -> Convert | None:
    keys, values = _of(schema.keys), _of(schema.values)
    load_key, load_value = loader(keys) or _same, loader(values) or _same
    if keys.type == "string" and load_value is _same:
        return None

    def load_map(raw: Any) -> dict[Any, Any]:
        pairs = raw.items() if isinstance(raw, dict) else raw
        return {
            (None if k is None else load_key(k)): (None if v is None else load_value(v))
            for k, v in pairs
        }

    return load_map


def _map_dumper(schema: Schema) -> Convert | None:
    keys, values = _of(schema.keys), _of(schema.values)
    dump_key, dump_value = dumper(keys) or _same, dumper(values) or _same
    as_object = keys.type == "string"
    if as_object and dump_value is _same:
        return None

    def dump_map(value: dict[Any, Any]) -> Any:
        pairs = [
            (None if k is None else dump_key(k), None if v is None else dump_value(v))
            for k, v in value.items()
        ]
        return dict(pairs) if as_object else [list(pair) for pair in pairs]

    return dump_map


def _same(value: Any) -> Any:
    return value
