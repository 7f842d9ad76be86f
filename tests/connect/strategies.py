"""Strategies for Connect's schemas and values, as :mod:`schemas.struct` holds them."""

from __future__ import annotations

import struct
from dataclasses import replace
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from schemas import Field, Moment, Schema, Struct
from schemas.codec import dumper
from schemas.dates import DAY_MS
from schemas.model import DATE, DECIMAL, TIME, TIMESTAMP

BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
LOGICAL = {DATE: "int32", TIME: "int32", TIMESTAMP: "int64", DECIMAL: "bytes"}
PRIMITIVES = (*BITS, "float", "double", "boolean", "string", "bytes")

# Java's char is half of one beyond U+FFFF; a lone half is no text.
TEXT = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(list('a"\\/\b\f\n\r\t\x00\x1f\x7f\x80é€\u2028\ufffd😀𝄞')),
    ),
    max_size=8,
)
NAMES = st.one_of(
    st.sampled_from(["id", "name", "a", "b", "c", "d.e", "ü", "$", "😀"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4),
)
DOUBLES = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, -0.0, 1e7, 1e-3, 9999999.0, 1e16, 1e21, 4.9e-324, 2e23, 1.7976931348623157e308]
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.sampled_from(
    [0.0, -0.0, 1e7, struct.unpack("f", struct.pack("f", 1.1))[0], 2.0**-149]
)
# Far enough to pass years 0 and 9999, near enough for Java's calendars.
MILLIS = st.integers(-(10**15), 10**15)


def _logical(name: str, scale: int) -> Schema:
    parameters = {"scale": str(scale)} if name == DECIMAL else {}
    return Schema(LOGICAL[name], name=name, version=1, parameters=parameters)


@st.composite
def leaves(draw: st.DrawFn) -> Schema:
    """A primitive or a logical type, required and bare."""
    name = draw(st.sampled_from([*PRIMITIVES, *LOGICAL]))
    return _logical(name, draw(st.integers(-2, 6))) if name in LOGICAL else Schema(name)


@st.composite
def schemas(draw: st.DrawFn, *, depth: int = 2, defaults: bool = True) -> Schema:
    """Any schema: nested, named, documented, with parameters and defaults."""
    kind = draw(st.sampled_from(["leaf"] * 3 + ["struct", "array", "map"])) if depth else "leaf"
    if kind == "leaf":
        found = draw(leaves())
    elif kind == "struct":
        found = draw(structs(depth=depth - 1, defaults=defaults))
    elif kind == "array":
        found = Schema("array", items=draw(schemas(depth=depth - 1, defaults=defaults)))
    else:
        keys = draw(st.sampled_from([Schema("string"), Schema("int32"), Schema("string", True)]))
        values = draw(schemas(depth=depth - 1, defaults=defaults))
        found = Schema("map", keys=keys, values=values)
    return draw(_adorned(found, defaults=defaults))


@st.composite
def structs(draw: st.DrawFn, *, depth: int = 1, defaults: bool = True) -> Schema:
    """A struct of up to five fields."""
    names = draw(st.lists(NAMES, max_size=5, unique=True))
    fields = [Field(name, draw(schemas(depth=depth, defaults=defaults))) for name in names]
    return Schema("struct", fields=tuple(fields))


@st.composite
def _adorned(draw: st.DrawFn, schema: Schema, *, defaults: bool) -> Schema:
    """The schema with any optionality, doc and default; with a name, where it has none."""
    found = replace(schema, optional=draw(st.booleans()))
    if schema.name is None and draw(st.booleans()):
        found = replace(
            found,
            name=draw(st.sampled_from(["n", "io.debezium.time.Date", "My.Näme"])),
            version=draw(st.none() | st.integers(1, 9)),
            parameters=draw(st.dictionaries(NAMES, TEXT, max_size=2)),
        )
    if draw(st.integers(0, 3)) == 0:
        found = replace(found, doc=draw(TEXT))
    if defaults and schema.type not in ("struct", "map") and draw(st.integers(0, 2)) == 0:
        value = draw(values(replace(found, optional=False), edges=False))
        dump = dumper(found)
        found = replace(found, default=value if dump is None else dump(value))
    return found


def values(schema: Schema, *, edges: bool = True) -> st.SearchStrategy[Any]:
    """Values that the schema allows, null where it is optional.

    ``edges`` adds NaN and the infinities.
    """
    found = _required(schema, edges)
    return st.none() | found if schema.optional else found


def _required(schema: Schema, edges: bool) -> st.SearchStrategy[Any]:
    if schema.name in LOGICAL and schema.type == LOGICAL[schema.name]:
        return _logical_values(schema)
    if schema.type in BITS:
        bits = BITS[schema.type]
        return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if schema.type == "array":
        assert schema.items is not None
        return st.lists(values(schema.items, edges=edges), max_size=3)
    if schema.type == "map":
        assert schema.keys is not None
        assert schema.values is not None
        keys = values(replace(schema.keys, optional=False), edges=False)
        return st.dictionaries(keys, values(schema.values, edges=edges), max_size=3)
    if schema.type == "struct":
        each = [values(f.schema, edges=edges) for f in schema.fields]
        return st.tuples(*each).map(lambda found: Struct(schema, list(found)))
    special = st.sampled_from([float("nan"), float("inf"), float("-inf")])
    doubles, floats = (DOUBLES | special, FLOATS | special) if edges else (DOUBLES, FLOATS)
    return {
        "float": floats,
        "double": doubles,
        "boolean": st.booleans(),
        "string": TEXT,
        "bytes": st.binary(max_size=6),
    }[schema.type]


def _logical_values(schema: Schema) -> st.SearchStrategy[Any]:
    if schema.name == DATE:
        return st.integers(-(10**5), 10**5).map(lambda days: Moment(days * DAY_MS))
    if schema.name == TIME:
        return st.integers(0, DAY_MS - 1).map(Moment)
    if schema.name == TIMESTAMP:
        return MILLIS.map(Moment)
    scale = int(schema.parameters["scale"])
    return st.integers(-(10**25), 10**25).map(lambda unscaled: _decimal(unscaled, scale))


def _decimal(unscaled: int, scale: int) -> Decimal:
    digits = tuple(map(int, str(abs(unscaled))))
    return Decimal((int(unscaled < 0), digits, -scale))


@st.composite
def typed(draw: st.DrawFn, *, depth: int = 2, defaults: bool = True) -> tuple[Schema, Any]:
    """A schema and a value of it."""
    schema = draw(schemas(depth=depth, defaults=defaults))
    return schema, draw(values(schema))


# What a chain sees of JSON without schemas: Connect's reader makes every whole number a long.
PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | DOUBLES | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
