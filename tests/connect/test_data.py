"""Values, schemas and literals against Connect's own classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from schemas import Field, Schema, Struct
from schemas.literals import convert_to_string, parse_string
from schemas.projector import project
from schemas.struct import validate_value
from tests.connect import strategies
from tests.connect.compared import agree, agree_text, has_bytes, outcome
from tests.connect.judge import Judge
from tests.connect.seeded import generated

PIECES = (
    "1 -5 +7 128 300 70000 5000000000 99999999999999999999 1.5 -0.25 1e5 1E400 1.0 .5 +.5 5. 1e-50 "
    '3.14159265358979 true false null [ ] { } , : " \\ a é 😀 2020-01-02 12:34:56.789Z '
    '2020-01-02T03:04:05.678Z 2020-13-45 99:99:99.999Z 1-1-1-1-1- 0001-01-01 1582-10-10 \\: "x" '
    '"2020-01-02" [1,2] ٣ 𝟎 Infinity NaN 0x10 1_000 1d 1e38 4e38 1e309 [] {} -- + - 16777217.0'
).split(" ")
PIECE = st.sampled_from([*PIECES, " ", "\t", "b c", "2020- 1- 1"])
LITERALS = (
    st.lists(PIECE, max_size=6).map("".join)
    | st.lists(PIECE, max_size=4).map(lambda each: f"[{','.join(each)}]")
    | st.dictionaries(PIECE, PIECE, max_size=3).map(
        lambda each: f"{{{','.join(f'{k}:{v}' for k, v in each.items())}}}"
    )
    | strategies.TEXT
)


@generated(250)
@given(text=LITERALS)
def test_literals_are_parsed_as_connect_parses_them(judge: Judge, text: str) -> None:
    try:
        theirs = outcome(lambda: judge.parse(text))
    except TypeError:  # a list or a map for a key, which a dict cannot have
        theirs = "value", (Schema("string"), text)
    agree(outcome(lambda: parse_string(text)), theirs)


@generated(150)
@given(typed=strategies.typed())
def test_values_have_the_text_that_connect_gives_them(
    judge: Judge, typed: tuple[Schema, Any]
) -> None:
    schema, value = typed
    assume(value is not None)
    ours = outcome(lambda: convert_to_string(value, schema))
    agree_text(ours, outcome(lambda: judge.text(schema, value)))


@generated(150)
@given(typed=strategies.typed(), other=strategies.schemas())
def test_values_are_validated_as_connect_does(
    judge: Judge, typed: tuple[Schema, Any], other: Schema
) -> None:
    value = typed[1]
    ours = outcome(lambda: validate_value(other, value))
    agree(ours, outcome(lambda: judge.validate(other, value)))


@generated(150)
@given(typed=strategies.typed(), other=strategies.schemas())
def test_a_struct_takes_the_values_that_connects_takes(
    judge: Judge, typed: tuple[Schema, Any], other: Schema
) -> None:
    schema, value = Schema("struct", fields=(Field("f", other),)), typed[1]

    def put() -> None:
        Struct(schema).put("f", value)

    agree(outcome(put), outcome(lambda: judge.put(schema, "f", value)))


@generated(80)
@given(schema=strategies.structs(), data=st.data())
def test_a_null_is_the_default_of_its_field(
    judge: Judge, schema: Schema, data: st.DataObject
) -> None:
    assume(schema.fields)
    values = [data.draw(st.none() | strategies.values(f.schema)) for f in schema.fields]
    struct = Struct(schema, values)
    name = data.draw(st.sampled_from([f.name for f in schema.fields]))
    agree(outcome(lambda: struct.get(name)), outcome(lambda: judge.get(struct, name)))
    ours = outcome(struct.validate)
    agree(ours, outcome(lambda: judge.validate_struct(struct)))


@generated(60)
@given(one=strategies.schemas(depth=1), data=st.data())
def test_schemas_are_the_same_where_connect_says_so(
    judge: Judge, one: Schema, data: st.DataObject
) -> None:
    other = data.draw(
        st.sampled_from(
            [
                one,
                replace(one, optional=not one.optional),
                replace(one, doc="another"),
                replace(one, version=77),
                replace(one, parameters={**one.parameters, "another": "1"}),
            ]
        )
        | strategies.schemas(depth=1)
    )
    theirs = judge.same_schema(one, other)
    # Java compares bytes in a list by their addresses, and a default may hold such.
    assert (one == other) is theirs or (one == other and _has_lists_of_bytes(one))


def _has_lists_of_bytes(schema: Schema) -> bool:
    inner = (schema.items, schema.keys, schema.values, *(f.schema for f in schema.fields))
    own = schema.type == "array" and schema.default is not None and has_bytes(schema.default_value)
    return own or any(_has_lists_of_bytes(of) for of in inner if of is not None)


@st.composite
def later(draw: st.DrawFn, schema: Schema) -> Schema:
    """The schema some versions later: wider, with fields come and gone, or wholly another."""
    wider = draw(st.sampled_from(["int8", "int16", "int32", "int64", "float", "double"]))
    numeric = schema.type in ("int8", "int16", "int32", "int64", "float", "double")
    if numeric and schema.name is None and schema.default is None:
        return replace(schema, type=wider, optional=draw(st.booleans()))
    if schema.type == "struct":
        kept = [f for f in schema.fields if draw(st.integers(0, 3))]
        fields = [Field(f.name, draw(later(f.schema))) for f in kept]
        names = {f.name for f in fields}
        if draw(st.booleans()) and "new" not in names:
            fields.append(Field("new", draw(strategies.schemas(depth=0))))
        return replace(schema, fields=tuple(fields))
    if schema.items is not None:
        return replace(schema, items=draw(later(schema.items)), default=None)
    return schema if draw(st.integers(0, 5)) else draw(strategies.schemas(depth=1))


@generated(140)
@given(typed=strategies.typed(), data=st.data())
def test_values_are_projected_as_connect_projects_them(
    judge: Judge, typed: tuple[Schema, Any], data: st.DataObject
) -> None:
    schema, value = typed
    target = data.draw(later(schema))
    ours = outcome(lambda: project(schema, value, target))
    agree(ours, outcome(lambda: judge.project(schema, value, target)))
