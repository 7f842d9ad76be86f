"""The fast path over fragments and the general path over Connect values write the same."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from math import isfinite
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.block import Block
from cdc.converters.json import JsonConverter
from cdc.converters.rows import convert, convert_keys, convert_values
from cdc.envelope import render_values
from schemas import DataError, EventSchema, Field, Schema
from schemas.codec import dumper, loader
from schemas.floats import shortest_double
from tests import blocks
from tests.blocks import (
    DOUBLE,
    FLOAT,
    HSTORE_MAP,
    INT32,
    STRING,
    VARIABLE_DECIMAL,
    Source,
    array_of,
    decimal,
    optional,
    unscaled,
)
from tests.connect.compared import agree_json

TEXTS = st.sampled_from(["", "x", "null", "\x1f\x0b\\u001f", 'a"b,"c0":null', "😀"])
NAMES_OF_FLOATS = st.sampled_from(["NaN", "Infinity", "-Infinity"])
NUMBERS = st.integers(-(10**20) + 1, 10**20 - 1).map(unscaled)
VARIABLE = st.builds(
    lambda scale, value: {"scale": scale, "value": value}, st.integers(0, 30), NUMBERS
)
MEMBERS = st.sampled_from(["c0", "c1", "c2"]) | TEXTS  # some named as columns are
# Column type → its values, in JSON form: what those of tests.blocks leave out, too.
KINDS: dict[str, tuple[Schema, st.SearchStrategy[Any]]] = {
    **blocks.VALUES,
    "string": (STRING, TEXTS),
    "float": (FLOAT, st.floats(width=32).filter(isfinite).map(shortest_double) | NAMES_OF_FLOATS),
    "double": (DOUBLE, st.floats().filter(isfinite) | NAMES_OF_FLOATS),
    "variable": (VARIABLE_DECIMAL, VARIABLE),
    "numeric[]": (array_of(decimal(20, 4)), st.lists(st.none() | NUMBERS, max_size=3)),
    "variable[]": (array_of(VARIABLE_DECIMAL), st.lists(st.none() | VARIABLE, max_size=3)),
    "hstore": (HSTORE_MAP, st.dictionaries(MEMBERS, st.none() | TEXTS, max_size=3)),
}
Row = dict[str, Any]


@st.composite
def columns(draw: st.DrawFn) -> dict[str, tuple[Schema, st.SearchStrategy[Any]]]:
    """An ``id`` and up to seven columns: required or not, with a default or without."""
    names = [f"c{i}" for i in range(draw(st.integers(1, 7)))]
    if draw(st.booleans()):
        names[0] = 'c0 "ü"'
    found = {"id": (INT32, st.just(0))}
    for name in names:
        of, values = KINDS[draw(st.sampled_from(sorted(KINDS)))]
        default = draw(st.none() | values)
        required = draw(st.booleans())
        schema = replace(of, optional=not required, default=default)
        # The source writes no null where a column is required.
        found[name] = schema, values if required else st.none() | values
    return found


@st.composite
def filled(draw: st.DrawFn) -> Block:
    """A block of one table, and messages: all operations, names and texts beyond ASCII too."""
    shop, drawn = Source(context={"h": "😀"}), draw(columns())
    schemas = {name: schema for name, (schema, _) in drawn.items()}
    required = [name for name, schema in schemas.items() if not schema.optional]
    key = draw(st.sampled_from([["id"], required, []]))
    table = shop.table(draw(st.sampled_from(["t", "tä", "😀"])), key, **schemas)
    texts = [name for name, schema in schemas.items() if schema.type == "string"]
    for id_ in range(draw(st.integers(1, 4))):
        row = {name: draw(values) for name, (_, values) in drawn.items()} | {"id": id_}
        unsent = draw(st.lists(st.sampled_from(texts), unique=True)) if texts else []
        _happen(shop, table, draw(st.sampled_from("rcudtmk")), row, set(unsent).difference(key))
    return shop.block()


def _happen(shop: Source, table: EventSchema, op: str, row: Row, unsent: Collection[str]) -> None:
    if op == "k" and table.key is not None:
        new = row | {"id": 1000}
        shop.change_key(table, row, new, unchanged=sorted(unsent))
    elif op == "u":
        shop.update(table, unchanged=sorted(unsent), **row)
    elif op == "t":
        shop.truncate(table)
    elif op == "m":
        shop.message("ü", b"\x00null")
    else:
        {"r": shop.read, "d": shop.delete}.get(op, shop.insert)(table, **row)


OPTIONS = st.fixed_dictionaries(
    {
        "schemas.enable": st.sampled_from(["true", "false"]),
        "decimal.format": st.sampled_from(["BASE64", "NUMERIC"]),
        "replace.null.with.default": st.sampled_from(["true", "false"]),
    }
)


@settings(max_examples=300, deadline=None)
@given(block=filled(), options=OPTIONS)
def test_the_fast_path_writes_what_the_general_path_writes(
    block: Block, options: dict[str, str]
) -> None:
    fast = JsonConverter.from_config(options)
    keys, values = fast.keys(block), fast.values(block)
    for row, (key, value) in enumerate(zip(keys, values, strict=True)):
        schema = block.schemas[block.schema[row]]
        for of, fragment, written in (
            (schema.key, block.keys[row], key),
            (schema.envelope, render_values(block)[row], value),
        ):
            assert (written is None) == (fragment is None)
            if fragment is not None:
                general = _general(fast, of, fragment)
                agree_json(("value", written), ("value", general), singles=False)


def _general(converter: JsonConverter, of: Schema | None, fragment: bytes) -> bytes | None:
    assert of is not None
    load = loader(of)
    assert load is not None
    return converter.from_connect("", of, load(orjson.loads(fragment)))


@settings(max_examples=200, deadline=None)
@given(block=filled(), options=OPTIONS)
def test_rows_that_a_chain_has_made_are_written_as_the_general_path_writes(
    block: Block, options: dict[str, str]
) -> None:
    converter = JsonConverter.from_config(options)
    schemas = [replace(s, kind="record", value=s.envelope) for s in block.schemas]
    texts = render_values(block)
    nothing = [None] * len(block)
    records = replace(block, schemas=tuple(schemas), befores=nothing, afters=texts)
    written = convert_values(records, converter)
    of_tables = converter.values(block)
    for row, (text, value) in enumerate(zip(texts, written, strict=True)):
        general = _general(converter, schemas[block.schema[row]].value, text)
        agree_json(("value", value), ("value", general), singles=False)
        agree_json(("value", value), ("value", of_tables[row]), singles=False)


INNER = Schema("struct", fields=(Field("d", optional(STRING, "x")), Field("n", optional(STRING))))
PARTS = {
    "required": (INT32, [b'{"f":1}', b'{"f":null}']),
    "default": (optional(STRING, "x"), [b'{"f":null}', b'{"f":"null"}']),
    "required default": (replace(INT32, default=5), [b'{"f":null}', b'{"f":7}']),
    "inner": (INNER, [b'{"f":{"d":null,"n":null}}', b'{"f":{"d":"y","n":null}}']),
    "optional inner": (replace(INNER, optional=True), [b'{"f":null}']),
    "elements": (Schema("array", items=INT32), [b'{"f":[1,null]}', b'{"f":[1,2]}', b'{"f":[]}']),
    "map": (Schema("map", keys=STRING, values=INT32), [b'{"f":{"a":null}}', b'{"f":{"a":1}}']),
}


@pytest.mark.parametrize("replace_null", [True, False])
@pytest.mark.parametrize("part", PARTS)
def test_a_null_that_is_an_error_or_a_default_is_seen_wherever_it_is(
    part: str, replace_null: bool
) -> None:
    field, texts = PARTS[part]
    of = Schema("struct", fields=(Field("f", field),))
    converter = JsonConverter(False, replace_null)
    load = loader(of)
    assert load is not None
    for text in texts:
        found: list[object] = []
        for call in (
            lambda text=text: converter.of_fragment(of, text),
            lambda text=text: converter.from_connect("", of, load(orjson.loads(text))),
        ):
            try:
                found.append(call())
            except DataError as error:
                found.append(str(error))
        assert found[0] == found[1]


@settings(max_examples=100, deadline=None)
@given(block=filled())
def test_what_is_loaded_is_dumped_as_it_was(block: Block) -> None:
    for row, text in enumerate(render_values(block)):
        schema = block.schemas[block.schema[row]].envelope
        assert schema is not None
        load, dump = loader(schema), dumper(schema)
        assert load is not None
        assert dump is not None
        assert dump(load(orjson.loads(text))) == orjson.loads(text)


def test_surrogate_pairs_and_control_characters_are_escaped_as_jackson_does() -> None:
    shop = Source(context={"h": "😀"})
    table = shop.table("😀", key=["k"], k=STRING, note=STRING)
    shop.insert(table, k="é😀", note="\x1f\\u001f 𝄞")
    (record,) = convert(shop.block(), JsonConverter(False), JsonConverter())
    assert record.key == '{"k":"é\\uD83D\\uDE00"}'.encode()
    assert record.headers == (("h", b'"\\uD83D\\uDE00"'),)
    assert record.value is not None
    assert b'"note":"\\u001F\\\\u001f \\uD834\\uDD1E"' in record.value
    assert b'"name":"srv.public.\\uD83D\\uDE00.Value"' in record.value
    assert b'"table":"\\uD83D\\uDE00"' in record.value
    assert "😀".encode() not in record.value


def test_rows_of_records_take_the_general_path_with_keys_and_values_of_any_type() -> None:
    shop = Source()
    table = shop.table("t", id=INT32, note=STRING)
    for i in range(3):
        shop.insert(table, id=i, note="n")
    block = shop.block()
    record = replace(
        block.schemas[0],
        topic="final",
        kind="record",
        key=INT32,
        value=optional(STRING, "d"),
        row=replace(block.schemas[0].row, fields=()),
    )
    block.schemas = (record,)
    block.keys, block.afters = (b"1", b"2", None), (b'"a"', None, b'"c"')
    plain = JsonConverter(False)
    assert list(convert_values(block, plain)) == [b'"a"', b'"d"', b'"c"']
    block.schemas = (replace(record, key=optional(INT32), value=None),)
    block.headers = {0: (("h", b'"1"', None), ("h", b"2", INT32))}
    found = convert(block, plain, plain)
    assert [(r.topic, r.key, r.value) for r in found] == [
        ("final", b"1", b'"a"'),
        ("final", b"2", None),
        ("final", b"null", b'"c"'),
    ]
    assert found[0].headers == (("h", b'"1"'), ("h", b"2"))
    assert list(convert_keys(block, plain)) == [b"1", b"2", b"null"]
