"""Between a value's JSON form and its Connect value, planned once per schema.

The JSON form is what stands in a Block's fragments and in a Schema's default: base64 for
bytes and decimals, integers for dates and times, an object with every field of a struct in
the order of its schema. A plan is None where both forms are the same. Elements that have no
schema (see :mod:`schemas.literals`) are taken for plain JSON.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from math import isfinite
from typing import Any

import orjson

from schemas.dates import DAY_MS
from schemas.floats import nearest_single, shortest_double
from schemas.model import DATE, DECIMAL, TIME, TIMESTAMP, DataError, Schema, SchemaError
from schemas.struct import Moment, Struct

Convert = Callable[[Any], Any]

# For moving a decimal point, whatever the number of digits.
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


def loader(schema: Schema) -> Convert | None:
    """From the JSON form to the Connect value; None: they are the same. Not for null."""
    if schema.type == "struct":
        return _struct_loader(schema)
    if schema.type == "array":
        return _array(None if schema.items is None else loader(schema.items))
    if schema.type == "map":
        return _map_loader(schema)
    if schema.name == DECIMAL:
        scale = decimal_scale(schema)
        return lambda text: decimal_of(text, scale)
    if schema.type == "bytes":
        return a2b_base64
    if schema.name == DATE:
        return lambda days: Moment(days * DAY_MS)
    if schema.name in (TIME, TIMESTAMP):
        return Moment
    return _FLOAT_LOADERS.get(schema.type)


def dumper(schema: Schema) -> Convert | None:
    """From the Connect value to the JSON form; None: they are the same. Not for null."""
    if schema.type == "struct":
        return _struct_dumper(schema)
    if schema.type == "array":
        return _array(None if schema.items is None else dumper(schema.items))
    if schema.type == "map":
        return _map_dumper(schema)
    if schema.name == DECIMAL:
        return _decimal_dumper(decimal_scale(schema))
    if schema.type == "bytes":
        return lambda value: b2a_base64(value, newline=False).decode()
    if schema.name == TIMESTAMP:
        return int
    return {DATE: days_of, TIME: time_of}.get(schema.name or "") or _FLOAT_DUMPERS.get(schema.type)


def value_of(text: bytes, schema: Schema | None) -> Any:
    """The Connect value of a JSON text; without a schema it is plain JSON.

    For single values; who has many of one schema plans with :func:`loader`.
    """
    value = orjson.loads(text)
    load = None if schema is None or value is None else loader(schema)
    return value if load is None else load(value)


def decimal_scale(schema: Schema) -> int:
    """A Decimal schema's scale. Raises SchemaError where the parameter is missing or no number."""
    try:
        return int(schema.parameters["scale"])
    except (KeyError, ValueError):
        raise SchemaError("Invalid Decimal schema: scale parameter not found.") from None


def decimal_of(text: str, scale: int) -> Decimal:
    """The number in a base64 text of an unscaled two's complement integer."""
    unscaled = int.from_bytes(a2b_base64(text), "big", signed=True)
    return Decimal(unscaled).scaleb(-scale, _EXACT)


def decimal_base64(value: Decimal) -> str:
    """The inverse of :func:`decimal_of`: big-endian two's complement of minimal length."""
    return _base64(int(value.scaleb(scale_of(value), _EXACT)))


def _decimal_dumper(scale: int) -> Convert:
    one = Decimal((0, (1,), -scale))

    def dump_decimal(value: Decimal) -> str:
        if not value.same_quantum(one):
            raise DataError(
                "Decimal value has mismatching scale for given Decimal schema. "
                f"Schema has scale {scale}, value has scale {scale_of(value)}."
            )
        return _base64(int(value.scaleb(scale, _EXACT)))

    return dump_decimal


def days_of(moment: Moment) -> int:
    """A Date in days since the epoch. Raises DataError for one that is not at midnight."""
    days, rest = divmod(moment, DAY_MS)
    if rest:
        raise DataError(
            "Kafka Connect Date type should not have any time fields set to non-zero values."
        )
    return days


def time_of(moment: Moment) -> int:
    """A Time in ms of the day. Raises DataError for one of another day."""
    if not 0 <= moment <= DAY_MS:
        raise DataError(
            "Kafka Connect Time type should not have any date fields set to non-zero values."
        )
    return int(moment)


def scale_of(value: Decimal) -> int:
    """A number's scale, as BigDecimal has it: digits behind the point, or minus the zeros."""
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    return -exponent


def _base64(unscaled: int) -> str:
    width = (unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1
    return b2a_base64(unscaled.to_bytes(width, "big", signed=True), newline=False).decode()


# JSON has no NaN and no infinity: Connect writes their names, as strings.


def _dump_double(value: float) -> float | str:
    return value if isfinite(value) else _NAMES[repr(value)]


def _dump_single(value: float) -> float | str:
    return shortest_double(value) if isfinite(value) else _NAMES[repr(value)]


_NAMES = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_FLOAT_LOADERS: dict[str, Convert] = {
    "double": float,
    "float": lambda value: nearest_single(float(value)),
}
_FLOAT_DUMPERS: dict[str, Convert] = {"double": _dump_double, "float": _dump_single}


def _array(each: Convert | None) -> Convert | None:
    if each is None:
        return None
    return lambda values: [None if value is None else each(value) for value in values]


def values_loader(schema: Schema) -> Callable[[bytes], list[Any]]:
    """From a struct's JSON text to its values, for :meth:`schemas.struct.Struct.of_json`."""
    load = _members_loader(schema)
    return lambda text: load(orjson.loads(text))


def _struct_loader(schema: Schema) -> Convert:
    load = _members_loader(schema)
    return lambda members: Struct(schema, load(members))


def _members_loader(schema: Schema) -> Callable[[dict[str, Any]], list[Any]]:
    names = [f.name for f in schema.fields]
    found = ((i, loader(f.schema)) for i, f in enumerate(schema.fields))
    special = [(i, load) for i, load in found if load is not None]
    count = len(names)

    def load_members(members: dict[str, Any]) -> list[Any]:
        # A fragment holds every field in order; what others wrote may not.
        whole = len(members) == count
        values = list(members.values()) if whole else [members.get(name) for name in names]
        for i, load in special:
            if values[i] is not None:
                values[i] = load(values[i])
        return values

    return load_members


def _struct_dumper(schema: Schema) -> Convert:
    names = [f.name for f in schema.fields]
    found = ((i, dumper(f.schema)) for i, f in enumerate(schema.fields))
    special = [(i, dump) for i, dump in found if dump is not None]

    def dump_struct(struct: Struct) -> Any:
        if struct.text is not None:
            return orjson.Fragment(struct.text)
        values = struct.values
        if special:
            values = values.copy()
            for i, dump in special:
                if values[i] is not None:
                    values[i] = dump(values[i])
        return dict(zip(names, values, strict=False))  # as many as fields

    return dump_struct


def _map_loader(schema: Schema) -> Convert | None:
    keys, values = schema.keys, schema.values
    load_key, load_value = (_same if of is None else loader(of) or _same for of in (keys, values))
    if (keys is None or keys.type == "string") and load_value is _same:
        return None

    def load_map(raw: Any) -> dict[Any, Any]:
        pairs = raw.items() if isinstance(raw, dict) else raw
        return {
            (None if k is None else load_key(k)): (None if v is None else load_value(v))
            for k, v in pairs
        }

    return load_map


def _map_dumper(schema: Schema) -> Convert | None:
    keys, values = schema.keys, schema.values
    dump_key, dump_value = (_same if of is None else dumper(of) or _same for of in (keys, values))
    as_object = keys is None or keys.type == "string"
    null_key = "null" if as_object else None  # as Connect names a null member
    if as_object and dump_value is _same and (keys is None or not keys.optional):
        return None

    def dump_map(value: dict[Any, Any]) -> Any:
        pairs = [
            (null_key if k is None else dump_key(k), None if v is None else dump_value(v))
            for k, v in value.items()
        ]
        return dict(pairs) if as_object else [list(pair) for pair in pairs]

    return dump_map


def _same(value: Any) -> Any:
    return value
