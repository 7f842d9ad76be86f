"""JsonConverter against Connect's: generated schemas, values, JSON and options."""

from __future__ import annotations

import json
from typing import Any

import orjson
from hypothesis import assume, given
from hypothesis import strategies as st

from cdc.block import Block
from cdc.converters.factory import make_header_converter
from cdc.converters.json import JsonConverter
from cdc.envelope import render_values
from schemas import Schema
from schemas.codec import loader
from tests.connect import strategies
from tests.connect.compared import agree, agree_json, beyond_single, has_floats, outcome
from tests.connect.judge import Judge
from tests.connect.seeded import generated
from tests.converters.test_paths_agree import OPTIONS as PATH_OPTIONS
from tests.converters.test_paths_agree import filled

JSON = "org.apache.kafka.connect.json.JsonConverter"

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "schemas.enable": st.sampled_from(["true", "false"]),
        "decimal.format": st.sampled_from(["BASE64", "NUMERIC", "numeric"]),
        "replace.null.with.default": st.sampled_from(["true", "false"]),
    },
)
NODES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-300, 300)
    | strategies.DOUBLES
    | strategies.TEXT
    | st.sampled_from(["AQ==", "AQ", "", "NaN", "5", 86_400_000, 86_400_001, 1e300]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(strategies.NAMES, inner, max_size=3)
    ),
    max_leaves=5,
)


def _text(node: Any) -> bytes:
    # orjson knows no number beyond 64 bits.
    return json.dumps(node, ensure_ascii=False).encode()


@generated(220)
@given(typed=strategies.typed(), options=OPTIONS)
def test_values_are_written_as_connect_writes_them(
    judge: Judge, typed: tuple[Schema, Any], options: dict[str, str]
) -> None:
    schema, value = typed
    ours = outcome(lambda: JsonConverter.from_config(options).from_connect("t", schema, value))
    theirs = outcome(lambda: judge.from_connect(JSON, options, "t", schema, value))
    if has_floats(schema):
        agree_json(ours, theirs, singles=has_floats(schema, ("float",)))
    else:
        agree(ours, theirs)


@generated(150)
@given(typed=strategies.typed(defaults=False), other=strategies.schemas(defaults=False))
def test_values_of_another_schema_are_refused_with_connects_words(
    judge: Judge, typed: tuple[Schema, Any], other: Schema
) -> None:
    schema, value = typed
    assume(schema.type != other.type)
    assume(not (has_floats(other, ("float",)) and beyond_single(value)))
    ours = outcome(lambda: JsonConverter().from_connect("t", other, value))
    theirs = outcome(lambda: judge.from_connect(JSON, {}, "t", other, value))
    agree_json(ours, theirs, singles=True)


@generated(120)
@given(value=strategies.PLAIN, options=OPTIONS)
def test_plain_values_are_written_as_connect_writes_them(
    judge: Judge, value: Any, options: dict[str, str]
) -> None:
    ours = outcome(lambda: JsonConverter.from_config(options).from_connect("t", None, value))
    theirs = outcome(lambda: judge.from_connect(JSON, options, "t", None, value))
    agree_json(ours, theirs, singles=False)


@generated(150)
@given(typed=strategies.typed() | st.tuples(st.none(), strategies.PLAIN), options=OPTIONS)
def test_headers_are_written_and_read_as_connect_does(
    judge: Judge, typed: tuple[Schema | None, Any], options: dict[str, str]
) -> None:
    converter = make_header_converter(JSON, options)
    config = options | {"converter.type": "header"}
    ours = outcome(lambda: converter.from_connect_header("t", "h", *typed))
    theirs = outcome(lambda: judge.header_from(JSON, config, "h", *typed))
    agree_json(ours, theirs, singles=has_floats(typed[0], ("float",)))
    if theirs[0] == "value":
        back = outcome(lambda: converter.to_connect_header("t", "h", theirs[1]))
        agree(back, outcome(lambda: judge.header_to(JSON, config, "h", theirs[1])))


@generated(140)
@given(typed=strategies.typed(), options=OPTIONS)
def test_what_is_written_is_read_as_connect_reads_it(
    judge: Judge, typed: tuple[Schema, Any], options: dict[str, str]
) -> None:
    schema, value = typed
    converter = JsonConverter.from_config(options)
    written = outcome(lambda: converter.from_connect("t", schema, value))
    assume(written[0] == "value")
    ours = outcome(lambda: converter.to_connect("t", written[1]))
    agree(ours, outcome(lambda: judge.to_connect(JSON, options, "t", written[1])))


@generated(160)
@given(schema=strategies.schemas(), node=NODES, options=OPTIONS)
def test_any_json_is_read_by_any_schema_as_connect_reads_it(
    judge: Judge, schema: Schema, node: Any, options: dict[str, str]
) -> None:
    options = options | {"schemas.enable": "true"}
    data = b'{"schema":%b,"payload":%b}' % (orjson.dumps(schema.to_dict()), _text(node))
    ours = outcome(lambda: JsonConverter.from_config(options).to_connect("t", data))
    agree(ours, outcome(lambda: judge.to_connect(JSON, options, "t", data)))


@generated(100)
@given(schema=strategies.schemas(), node=NODES)
def test_json_is_read_by_the_schema_of_the_configuration_as_connect_reads_it(
    judge: Judge, schema: Schema, node: Any
) -> None:
    options = {"schema.content": schema.to_json().decode()}
    data = _text(node)
    ours = outcome(lambda: JsonConverter.from_config(options).to_connect("t", data))
    agree(ours, outcome(lambda: judge.to_connect(JSON, options, "t", data)))


@generated(120)
@given(node=NODES)
def test_plain_json_is_read_as_connect_reads_it(judge: Judge, node: Any) -> None:
    options, data = {"schemas.enable": "false", "schema.content": '{"type":"int8"}'}, _text(node)
    ours = outcome(lambda: JsonConverter.from_config(options).to_connect("t", data))
    agree(ours, outcome(lambda: judge.to_connect(JSON, options, "t", data)))


# What is hardly JSON, or more than it: Jackson reads some of it, and stops behind one value.
SHORT = '0 1 - . e + true null false "a" $ _ , : [ ] {} [] 00 07 " é / 1.5 -0 E1 tru NaN "a": \' x'
PIECES = st.sampled_from([*SHORT.split(), " ", "\t", "\n", "😀", "9" * 1001])
TEXTS = st.lists(PIECES, min_size=1, max_size=4).map("".join)


@generated(200)
@given(text=TEXTS | TEXTS.map("[{}]".format) | TEXTS.map('{{"k":{}}}'.format))
def test_any_text_is_read_or_refused_as_connect_does(judge: Judge, text: str) -> None:
    options, data = {"schemas.enable": "false"}, text.encode()
    ours = outcome(lambda: JsonConverter.from_config(options).to_connect("t", data))
    agree(ours, outcome(lambda: judge.to_connect(JSON, options, "t", data)))


BROKEN = st.sampled_from(
    [
        ("type", None),
        ("type", "int128"),
        ("type", 5),
        ("optional", "true"),
        ("name", 5),
        ("version", "1"),
        ("version", 2**40),
        ("version", 1.0),
        ("doc", {}),
        ("parameters", {"a": 1}),
        ("parameters", []),
        ("default", None),
        ("default", "x"),
        ("default", 5),
        ("default", []),
        ("fields", None),
        ("fields", [{"type": "int32"}]),
        ("fields", [{"type": "int32", "field": ""}]),
        ("fields", [{"type": "int32", "field": "a"}, {"type": "int8", "field": "a"}]),
        ("items", None),
        ("keys", None),
        ("values", None),
    ]
)


@generated(100)
@given(schema=strategies.schemas(), broken=BROKEN)
def test_broken_schemas_are_read_or_refused_as_connect_does(
    judge: Judge, schema: Schema, broken: tuple[str, Any]
) -> None:
    member, content = broken
    data = orjson.dumps({"schema": schema.to_dict() | {member: content}, "payload": None})
    ours = outcome(lambda: JsonConverter().to_connect("t", data))
    agree(ours, outcome(lambda: judge.to_connect(JSON, {}, "t", data)))


@generated(60)
@given(block=filled(), options=PATH_OPTIONS)
def test_rows_take_a_shorter_path_to_the_bytes_that_connect_writes(
    judge: Judge, block: Block, options: dict[str, str]
) -> None:
    """Keys and values of a table's rows, joined from what the journal holds of them."""
    converter, texts = JsonConverter.from_config(options), render_values(block)
    keys, values = converter.keys(block), converter.values(block)
    for row, written in enumerate(zip(keys, values, strict=True)):
        schema = block.schemas[block.schema[row]]
        for of, fragment, ours, is_key in (
            (schema.key, block.keys[row], written[0], True),
            (schema.envelope, texts[row], written[1], False),
        ):
            if of is None or fragment is None:
                assert ours is None
                continue
            load = loader(of)
            assert load is not None
            value = load(orjson.loads(fragment))
            theirs = _written(judge, options, of, value, is_key=is_key)
            if theirs[1] == "Mismatching schema." and b'"default":{' in of.to_json():
                continue  # a struct for a default has the schema's builder there, not the schema
            agree_json(("value", ours), theirs, singles=has_floats(of, ("float",)))


def _written(
    judge: Judge, options: dict[str, str], schema: Schema, value: Any, *, is_key: bool
) -> tuple[str, Any]:
    return outcome(lambda: judge.from_connect(JSON, options, "t", schema, value, is_key=is_key))
