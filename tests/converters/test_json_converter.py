"""Envelope and JSON converter: the bytes of the facts sheets, §1.1, §1.2, §1.8 and §4.2."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.block import Block, Transaction
from cdc.converters.json import JsonConverter
from cdc.converters.json.fragments import plan_rewrite
from cdc.converters.lines import JsonLines
from cdc.converters.rows import Converted, convert
from cdc.envelope import render_values
from cdc.errors import ConfigError
from cdc.event import events
from cdc.record import UNCHANGED, from_offset, image
from schemas import Field, Schema
from schemas.codec import decimal_of
from tests import blocks
from tests.blocks import INT32, INT64, STRING, Source, decimal, event_schema, optional

PLAIN = JsonConverter(schemas_enable=False)


def converted(
    converter: JsonConverter, block: Block, *, tombstones: bool = True
) -> list[Converted]:
    return convert(block, converter, converter, tombstones=tombstones)


def one_insert() -> Block:
    schema = event_schema("t", {"id": INT32, "n": decimal(10, 2)})
    return Block.build(
        [(ord("c"), 0, 0, 7, 0, b'{"id":1}', None, b'{"id":1,"n":"BM4="}')],
        (schema,),
        (Transaction(5, 2, 3, 1000, 1),),
        1_123_456,
        offsets=range(40, 41),
    )


def test_an_insert_has_the_bytes_of_the_facts_sheet() -> None:
    expected = (
        b'{"before":null,"after":{"id":1,"n":"BM4="},"source":{"version":"3.6.3.Final",'
        b'"connector":"postgresql","name":"srv","ts_ms":1,"snapshot":"false","db":"db",'
        b'"sequence":"[\\"1\\",\\"7\\"]","ts_us":1000,"ts_ns":1000000,"schema":"public",'
        b'"table":"t","txId":5,"lsn":7,"xmin":null,"origin":null,"origin_lsn":null},'
        b'"transaction":null,"op":"c","ts_ms":1123,"ts_us":1123456,"ts_ns":1123456000}'
    )
    assert render_values(one_insert()) == [expected]
    assert converted(PLAIN, one_insert()) == [("srv.public.t", b'{"id":1}', expected, (), 40)]


def test_the_sequence_starts_with_null_before_any_commit_was_seen() -> None:
    block = one_insert()
    block.transactions = (Transaction(5, 2, 3, 1000, 0),)
    source = orjson.loads(render_values(block)[0])["source"]
    assert orjson.loads(source["sequence"]) == [None, "7"]


def test_origin_and_missing_xid_are_shown() -> None:
    block = one_insert()
    block.transactions = (Transaction(0, 2, 3, 1000, 1, 'no"de', 99),)
    source = orjson.loads(render_values(block)[0])["source"]
    assert (source["txId"], source["origin"], source["origin_lsn"]) == (None, 'no"de', 99)


def test_a_percent_sign_in_a_name_or_a_value_is_itself() -> None:
    shop = Source()
    rates = shop.table("rates", id=INT32, note=STRING)
    shop.insert(rates, id=1, note="5 %d %% of %(lsn)b")
    (record,) = events(shop.block())
    assert record.value["after"]["note"] == "5 %d %% of %(lsn)b"


def test_a_message_has_no_images_and_no_context_headers() -> None:
    shop = Source(context={"__debezium.context.taskId": "0"})
    shop.created_us = 1000
    shop.message("foo", b"hi")
    (record,) = converted(PLAIN, shop.block())
    assert record.value is not None
    assert list(orjson.loads(record.value)) == ["op", "ts_ms", "source", "transaction", "message"]
    assert record.value.startswith(b'{"op":"m","ts_ms":1,"source":{')
    assert record.value.endswith(b'"transaction":null,"message":{"prefix":"foo","content":"aGk="}}')
    assert (record.key, record.headers) == (b'{"prefix":"foo"}', ())


def test_a_delete_is_followed_by_a_tombstone_with_the_same_key_and_headers() -> None:
    shop = Source(context={"h": "srv"})
    orders = shop.table("orders", id=INT32)
    shop.delete(orders, id=1)
    delete, tombstone = converted(PLAIN, shop.block())
    assert tombstone == delete._replace(value=None)
    assert delete.headers == (("h", b'"srv"'),)
    shop.delete(orders, id=2)
    assert len(converted(PLAIN, shop.block(), tombstones=False)) == 1


def test_a_table_without_a_key_has_tombstones_of_nothing_at_all() -> None:
    shop = Source()
    log = shop.table("log", key=[], id=INT32)
    shop.delete(log, id=1)
    block = shop.block()
    for converter in (PLAIN, JsonConverter()):
        delete, tombstone = converted(converter, block)
        assert (delete.key, tombstone.key, tombstone.value) == (None, None, None)


def test_a_truncate_has_neither_key_nor_images() -> None:
    shop = Source()
    shop.truncate(shop.table("orders", id=INT32))
    (record,) = converted(PLAIN, shop.block())
    assert record.key is None
    assert record.value is not None
    assert record.value.startswith(b'{"before":null,"after":null,"source":{')


def test_the_two_records_of_a_key_change_name_each_others_key() -> None:
    shop = Source()
    orders = shop.table("orders", id=INT32)
    shop.change_key(orders, {"id": 1}, {"id": 2})
    block = shop.block()
    delete, tombstone, create = converted(PLAIN, block)
    assert delete.headers == tombstone.headers == (("__debezium.newkey", b'{"id":2}'),)
    assert create.headers == (("__debezium.oldkey", b'{"id":1}'),)
    headers = [r.headers for r in events(block)]
    assert headers[2] == {"__debezium.oldkey": ({"id": 1}, orders.key)}


def test_schemas_enable_writes_the_layout_of_connect() -> None:
    (record,) = converted(JsonConverter(), one_insert())
    assert record.key == (
        b'{"schema":{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"}],'
        b'"optional":false,"name":"srv.public.t.Key"},"payload":{"id":1}}'
    )
    assert record.value is not None
    assert record.value.startswith(
        b'{"schema":{"type":"struct","fields":[{"type":"struct","fields":[{"type":"int32",'
        b'"optional":false,"field":"id"},{"type":"bytes","optional":false,'
        b'"name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"2",'
        b'"connect.decimal.precision":"10"},"field":"n"}],"optional":true,'
        b'"name":"srv.public.t.Value","field":"before"},{"type":"struct","fields":['
    )
    assert record.value.endswith(b',"payload":' + render_values(one_insert())[0] + b"}")
    schema = orjson.loads(record.value)["schema"]
    assert (schema["name"], schema["version"]) == ("srv.public.t.Envelope", 2)
    mark = b'"parameters":{"allowed":"true,first,first_in_data_collection,last_in_data_collection'
    assert mark + b',last,false,incremental"},"default":"false","field":"snapshot"}' in record.value


def test_snapshot_markers_differ_per_row() -> None:
    shop = Source()
    orders = shop.table("orders", id=INT32)
    shop.begin()
    for i, marker in enumerate(["first", "true", "last"]):
        shop.read(orders, marker, id=i)
    shop.commit()
    values = [r.value for r in events(shop.block())]
    assert [v["source"]["snapshot"] for v in values] == ["first", "true", "last"]
    assert {v["op"] for v in values} == {"r"}


# --- replace.null.with.default ---


def defaults_block(note: Any) -> Block:
    shop = Source()
    table = shop.table("t", id=INT32, s=optional(STRING, "x"), note=optional(STRING))
    shop.insert(table, id=1, note=note)
    return shop.block()


def after(converter: JsonConverter, block: Block) -> Any:
    value = converted(converter, block)[0].value
    assert value is not None
    return orjson.loads(value)["after"]


def test_a_null_becomes_the_default_only_where_there_is_one() -> None:
    block = defaults_block(None)
    assert after(PLAIN, block) == {"id": 1, "s": "x", "note": None}
    keep = JsonConverter(schemas_enable=False, replace_null_with_default=False)
    assert after(keep, block) == {"id": 1, "s": None, "note": None}


@pytest.mark.parametrize("text", ['"s":null', ',"s":null,', '{"s":null}', "null", '\\","s":null'])
def test_text_that_looks_like_a_null_member_is_left_alone(text: str) -> None:
    assert after(PLAIN, defaults_block(text)) == {"id": 1, "s": "x", "note": text}


def test_a_member_of_a_nested_struct_is_left_alone() -> None:
    point = Schema("struct", fields=(Field("s", optional(INT32)),))
    struct = Schema("struct", fields=(Field("p", point), Field("s", optional(INT32, 4))))
    rewrite = plan_rewrite(struct, True, False)
    assert rewrite is not None
    assert rewrite(b'{"p":{"s":null,"t":[{},{"s":null}]},"s":null}') == (
        b'{"p":{"s":null,"t":[{},{"s":null}]},"s":4}'
    )


def test_a_schema_without_defaults_costs_nothing() -> None:
    struct = Schema("struct", fields=(Field("a", optional(INT32)), Field("b", INT32)))
    assert plan_rewrite(struct, True, True) is None


_NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
_JSON = st.recursive(
    st.none()
    | st.integers(-(2**63), 2**63)
    | st.text(max_size=8)
    | st.sampled_from([',"a":null', '"', "\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(_NAMES, st.tuples(_JSON, st.booleans()), min_size=1, max_size=6))
@settings(max_examples=300)
def test_replacing_nulls_by_text_equals_replacing_them_by_parsing(
    members: dict[str, tuple[Any, bool]],
) -> None:
    nested = Schema("struct", fields=())
    fields = tuple(
        Field(name, replace(nested if isinstance(v, dict | list) else STRING, optional=True,
                            default="D" if has_default else None))
        for name, (v, has_default) in members.items()
    )  # fmt: skip
    rewrite = plan_rewrite(Schema("struct", fields=fields), True, False)
    fragment = orjson.dumps({name: v for name, (v, _) in members.items()})
    expected = {n: "D" if v is None and d else v for n, (v, d) in members.items()}
    assert (orjson.loads(rewrite(fragment)) if rewrite else orjson.loads(fragment)) == expected


# --- decimal.format ---


@pytest.mark.parametrize(
    ("number", "scale", "text"),
    [(1250, 2, "12.50"), (1, 7, "1E-7"), (1, -3, "1E+3"), (-5, 0, "-5"), (0, 2, "0.00"),
     (10**60 + 1, 2, "1" + "0" * 58 + ".01")],
)  # fmt: skip
def test_decimals_are_written_in_the_notation_of_big_decimal(
    number: int, scale: int, text: str
) -> None:
    assert str(decimal_of(blocks.unscaled(number), scale)) == text


def test_decimal_format_numeric_reaches_values_arrays_keys_and_defaults() -> None:
    shop = Source()
    price = decimal(10, 2)
    table = shop.table(
        "t",
        key=["price"],
        price=price,
        list=blocks.array_of(price),
        discount=optional(price, blocks.unscaled(150)),
        note=STRING,
    )
    cent = blocks.unscaled(1250)
    shop.insert(table, price=cent, list=[cent, None], discount=None, note='{"price":"BM4="}')
    block = shop.block()
    converter = JsonConverter(schemas_enable=False, decimal_format="numeric")
    (record,) = converted(converter, block)
    assert record.key == b'{"price":12.50}'
    assert record.value is not None
    assert (
        b'"after":{"price":12.50,"list":[12.50,null],"discount":1.50,'
        b'"note":"{\\"price\\":\\"BM4=\\"}"}' in record.value
    )
    (record,) = converted(JsonConverter(decimal_format="NUMERIC"), block)
    assert record.value is not None
    fields = orjson.loads(record.value)["schema"]["fields"][1]["fields"]
    assert fields[2]["default"] == 1.5


def test_options_are_read_under_connects_names() -> None:
    made = JsonConverter.from_config({"schemas.enable": "False", "decimal.format": "numeric"})
    assert (made.schemas_enable, made.replace_null_with_default, made.numeric) == (
        False,
        True,
        True,
    )
    with pytest.raises(ConfigError, match=r"decimal\.format"):
        JsonConverter.from_config({"decimal.format": "HEX"})
    with pytest.raises(ConfigError, match=r"schemas\.enable"):
        JsonConverter.from_config({"schemas.enable": "yes"})


# --- lines ---


def test_lines_of_records_and_of_values() -> None:
    shop = Source(context={"h": "ü"})
    orders = shop.table("orders", id=INT64, note=STRING)
    shop.insert(orders, id=1, note="line\nbreak")
    shop.delete(orders, id=1, note="")
    shop.truncate(orders)
    block = shop.block()
    parsed = [orjson.loads(line) for line in JsonLines(PLAIN, PLAIN).render(block)]
    assert [list(p) for p in parsed] == [["topic", "key", "value", "headers"]] * 4
    assert [p["key"] for p in parsed] == [{"id": 1}, {"id": 1}, {"id": 1}, None]
    assert [p["value"] and p["value"]["op"] for p in parsed] == ["c", "d", None, "t"]
    assert parsed[0]["headers"] == {"h": "ü"}
    lines = JsonLines(PLAIN, PLAIN, "value").render(block)
    assert [orjson.loads(line)["op"] for line in lines] == ["c", "d", "t"]
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in lines)


# --- records ---


def test_an_image_tells_null_unsent_and_missing_apart() -> None:
    shop = Source()
    table = shop.table("t", id=INT32, big=optional(STRING), note=optional(STRING))
    shop.update(table, id=1, note=None, unchanged=["big"])
    shop.delete(table, id=1, note=None, big="old")
    shop.truncate(table)
    block = shop.block()
    assert image(block, 0) == {"id": 1, "big": UNCHANGED, "note": None}
    assert image(block, 1) == {"id": 1, "big": "old", "note": None}
    assert image(block, 2) is None


def test_from_offset_drops_what_is_there_already() -> None:
    shop = Source(offset=10)
    table = shop.table("t", id=INT32)
    for i in range(4):
        shop.insert(table, id=i)
    block = shop.block()
    assert from_offset(block, 10) is block
    rest = from_offset(block, 12)
    assert rest is not None
    assert list(rest.offsets) == [12, 13]
    assert from_offset(block, 14) is None


@given(blocks.columns().flatmap(
    lambda c: st.tuples(st.just(c), st.lists(st.fixed_dictionaries(
        {name: blocks.values_of(schema) for name, schema in c.items() if name != "id"}
    ), max_size=5))
))  # fmt: skip
@settings(max_examples=50)
def test_random_rows_survive_the_envelope(drawn: tuple[dict[str, Schema], list[Any]]) -> None:
    columns, rows = drawn
    shop = Source()
    table = event_schema("t", columns)
    for i, row in enumerate(rows):
        shop.insert(table, id=i, **row)
    values = [r.value["after"] for r in events(shop.block())]
    assert values == [{"id": i, **row} for i, row in enumerate(rows)]
