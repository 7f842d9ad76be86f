"""Strategies for records, and for options that fit them more or less."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from cdc.record import Header, Record
from schemas import Field, Schema, Struct
from schemas.codec import dumper
from tests.connect import strategies

NAMES = ("id", "name", "a", "b", "c")
# Names of fields as they can stand in a list option.
FIELDS = st.sampled_from(NAMES)
TOPICS = st.sampled_from(["orders", "server.inventory.orders", "a-b", "t"])
BOOLEANS = st.sampled_from(["true", "false"])


@st.composite
def struct_schemas(draw: st.DrawFn, *, depth: int = 1) -> Schema:
    """A struct with fields that options know by name; sometimes with a default of its own."""
    names = draw(st.lists(FIELDS, min_size=1, max_size=5, unique=True))
    fields = tuple(Field(name, draw(strategies.schemas(depth=depth))) for name in names)
    plain = Schema(
        "struct",
        fields=fields,
        name=draw(st.none() | st.just("server.orders.Value")),
        version=draw(st.none() | st.integers(1, 9)),
        doc=draw(st.none() | st.just("A row.")),
        parameters=draw(st.sampled_from([{}, {"k": "v"}])),
    )
    default = None
    if draw(st.integers(0, 5)) == 0:
        dump = dumper(plain)
        assert dump is not None
        default = dump(draw(strategies.values(plain, edges=False)))
    return replace(plain, optional=draw(st.booleans()), default=default)


@st.composite
def structs(draw: st.DrawFn, schema: Schema) -> Struct:
    """A value of the schema; nulls, too, where a default can stand in."""
    values = []
    for field in schema.fields:
        nullable = field.schema.default is not None or draw(st.integers(0, 19)) == 0
        of = replace(field.schema, optional=True) if nullable else field.schema
        value = draw(strategies.values(of))
        values.append(_of(field.schema, value))
    return Struct(schema, values)


def _of(schema: Schema, value: Any) -> Any:
    return Struct(schema, value.values) if isinstance(value, Struct) else value


@st.composite
def parts(draw: st.DrawFn, *, depth: int = 1) -> tuple[Schema | None, Any]:
    """A schema and a value: mostly structs and maps, sometimes null, or anything else."""
    kind = draw(st.sampled_from(["struct"] * 5 + ["map"] * 3 + ["null", "any", "plain"]))
    if kind == "struct":
        schema = draw(struct_schemas(depth=depth))
        return schema, draw(structs(schema))
    if kind == "map":
        return None, draw(st.dictionaries(FIELDS, strategies.PLAIN, max_size=5))
    if kind == "null":
        return draw(st.none() | struct_schemas()), None
    if kind == "any":
        return draw(strategies.typed(depth=1))
    return None, draw(strategies.PLAIN)


HEADERS = st.lists(
    st.builds(
        lambda name, typed: Header(name, typed[1], typed[0]),
        st.sampled_from(["h", "trace", "id"]),
        strategies.typed(depth=0) | st.tuples(st.none(), strategies.PLAIN),
    ),
    max_size=3,
).map(tuple)


@st.composite
def records(draw: st.DrawFn, *, is_key: bool = False, depth: int = 1) -> Record:
    """A record of a source or of a sink, with the generated part as key or value."""
    part = draw(parts(depth=depth))
    other = (Schema("string", optional=True), draw(st.none() | st.just("other")))
    key, value = (part, other) if is_key else (other, part)
    offset = draw(st.sampled_from([-1, 0, 7]))
    partition = draw(st.integers(0, 3)) if offset >= 0 else draw(st.sampled_from([None, 2]))
    timestamp = draw(st.none() | st.integers(0, 4 * 10**12))
    headers = draw(HEADERS)
    return Record(draw(TOPICS), partition, *key, *value, timestamp, headers, offset)


def listed(*, minimum: int = 0) -> st.SearchStrategy[str]:
    """Some names, as a list option; now and then with what such a list must not have."""
    names = st.lists(FIELDS, min_size=minimum, max_size=3, unique=True).map(",".join)
    return names | st.sampled_from(["a,a", "id, name", "", "a,,b"]) if not minimum else names


def optional(**options: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, str]]:
    """Each of the options or none of it; names have dots for underscores."""
    named = {name.replace("_", "."): strategy for name, strategy in options.items()}
    return st.fixed_dictionaries({}, optional=named)
