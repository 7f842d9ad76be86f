"""Rows that a chain of transforms has made: how a Block holds, stores and renders them."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from cdc.block import CREATE, DELETE, Block, decode_block
from cdc.converters.factory import make_converter
from cdc.converters.json import JsonConverter
from cdc.converters.rows import convert
from cdc.errors import LogVersion
from cdc.event import events
from cdc.record import has_tombstone
from cdc.runtime.chain import Chain
from cdc.runtime.tolerance import Operator
from schemas import DataError, EventSchema, Field, Schema
from schemas.codec import dumper, values_loader
from schemas.struct import Struct
from tests.blocks import INT32, STRING, Source, event_schema, optional
from tests.runtime.steps import Step

FLAT = Schema("struct", name="flat", fields=(Field("id", INT32), Field("note", STRING)))


def record_schema(value: Schema | None = FLAT, key: Schema | None = INT32) -> EventSchema:
    base = event_schema("orders", {"id": INT32})
    row = value if value is not None and value.type == "struct" else Schema("struct")
    return replace(base, topic="flat", key=key, row=row, kind="record", value=value)


def record_block() -> Block:
    shop = Source(context={"run": "7"})
    orders = shop.table("orders", id=INT32, note=optional(STRING))
    shop.insert(orders, id=1, note="a")
    shop.delete(orders, id=1)
    shop.delete(orders, id=1)
    block = shop.block()
    return replace(
        block,
        schemas=(record_schema(),),
        keys=[b"1", b"1", None],
        befores=[None] * 3,
        afters=[b'{"id":1,"note":"a"}', b'{"id":1,"note":"b"}', None],
        headers={1: (("n", b"5", INT32), ("n", b"6", INT32)), 2: (("m", b'"x"', None),)},
    )


def stored(block: Block) -> Block:
    encoded = block.encode()
    known = {s.fingerprint: EventSchema.from_json(s.json) for s in block.schemas}
    return decode_block(encoded.header, encoded.body, encoded.crc, known.__getitem__, 0)


def test_record_rows_and_their_headers_survive_storage() -> None:
    block, read = record_block(), stored(record_block())
    assert read.schemas == block.schemas
    assert list(read.keys) == list(block.keys)
    assert list(read.afters) == list(block.afters)
    assert read.headers == block.headers


def test_a_row_of_a_selection_keeps_its_headers() -> None:
    assert record_block().select([2]).headers == {0: (("m", b'"x"', None),)}


def test_an_event_of_a_record_row_is_its_key_value_and_headers() -> None:
    first, second, third = events(record_block())
    assert (first.topic, first.key, first.value) == ("flat", 1, {"id": 1, "note": "a"})
    assert (first.key_schema, first.value_schema) == (INT32, FLAT)
    assert first.headers == {"run": ("7", None)}
    assert second.headers == {"n": (6, INT32)}
    assert (third.key, third.value, third.headers) == (None, None, {"m": ("x", None)})


def test_no_tombstone_follows_a_record_row() -> None:
    block = record_block()
    assert [block.op[row] for row in range(3)] == [CREATE, DELETE, DELETE]
    assert [has_tombstone(block, row) for row in range(3)] == [False] * 3


def test_a_block_of_tables_alone_is_written_as_before() -> None:
    shop = Source()
    shop.insert(shop.table("orders", id=INT32), id=1)
    block = shop.block()
    assert orjson.loads(block.encode().header)["v"] == 1
    assert "headers" not in orjson.loads(block.encode().header)
    assert "value" not in orjson.loads(block.schemas[0].json)
    assert "routed" not in orjson.loads(block.schemas[0].json)


@pytest.mark.parametrize(
    "changed",
    [
        replace(record_block(), headers={}),
        replace(record_block(), schemas=(event_schema("o", {"id": INT32}),)),
        replace(
            record_block(),
            headers={},
            schemas=(replace(event_schema("o", {"id": INT32}), routed="r"),),
        ),
    ],
    ids=["records", "headers", "routed"],
)
def test_what_an_older_reader_would_get_wrong_is_format_2(
    changed: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = changed.encode()
    assert orjson.loads(encoded.header)["v"] == 2
    known = {s.fingerprint: s for s in changed.schemas}
    monkeypatch.setattr("cdc.block.block.FORMAT", 1)  # an older reader
    with pytest.raises(LogVersion, match="block format 2 is newer than 1"):
        decode_block(encoded.header, encoded.body, encoded.crc, known.__getitem__, 0)


def test_a_routed_table_is_written_to_its_destination_and_keeps_its_schema_names() -> None:
    shop = Source()
    orders = shop.table("orders", id=INT32)
    shop.insert(orders, id=1)
    block = replace(shop.block(), schemas=(replace(orders, routed="elsewhere"),))
    event = next(events(stored(block)))
    assert event.topic == "elsewhere"
    assert event.value_schema is not None
    assert event.value_schema.name == "srv.public.orders.Envelope"


def test_schemaless_and_primitive_values_are_held_too() -> None:
    for schema, text in ((None, b'{"a":[1]}'), (STRING, b'"x"')):
        block = replace(record_block().select([0]), schemas=(record_schema(schema),), afters=[text])
        event = next(events(stored(block)))
        assert event.value == orjson.loads(text)
        assert event.value_schema == schema


def test_a_struct_of_json_is_read_once_and_only_where_somebody_asks() -> None:
    calls: list[bytes] = []

    def load(text: bytes) -> list[object]:
        calls.append(text)
        return values_loader(FLAT)(text)

    text = b'{"id":7,"note":"n"}'
    struct, dump = Struct.of_json(FLAT, text, load), dumper(FLAT)
    assert dump is not None
    assert orjson.dumps(dump(struct)) == text
    assert calls == []
    assert (struct.get("id"), struct.get("note")) == (7, "n")
    assert calls == [text]
    assert struct == Struct(FLAT, [7, "n"])
    assert orjson.dumps(dump(struct)) == text
    assert dump(struct.put("id", 8)) == {"id": 8, "note": "n"}
    with pytest.raises(AttributeError):
        _ = struct.nothing  # type: ignore[attr-defined]


def test_an_image_that_no_transform_looks_at_is_handed_on_as_it_is() -> None:
    shop = Source()
    table = shop.table("t", id=INT32, note=optional(STRING))
    shop.insert(table, id=1, note="x")
    block = shop.block()
    image = b'{ "id" : 1, "note":"\\u0078" }'  # nobody else writes it like this
    block.afters = [image]
    steps = [Step(lambda record: replace(record, topic="other"))]
    found = Chain(steps, Operator(), sink=True).apply(block)
    assert found is not None
    assert b'"after":' + image in (found.afters[0] or b"")
    assert found.keys[0] is block.keys[0]


def test_the_connectors_headers_are_converted_only_for_rows_that_have_them() -> None:
    """IntegerConverter refuses the connector's texts: rows with headers of their own pass."""
    block, plain = record_block(), JsonConverter(False)
    block.headers[0] = (("n", b"4", INT32),)
    numbers = make_converter("integer", {})
    found = convert(block.select([0, 1]), plain, plain, numbers)
    assert [headers for *_, headers, _ in found] == [
        (("n", b"\0\0\0\4"),),
        (("n", b"\0\0\0\5"), ("n", b"\0\0\0\6")),
    ]
    with pytest.raises(DataError):
        convert(replace(block, headers={}), plain, plain, numbers)
