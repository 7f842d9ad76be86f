"""The other converters as the facts sheet has them: §4.3, row by row; names and lines."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from cdc.config import Config, RawConfig
from cdc.converters.factory import CLASSES, converter_config, make_converter, make_header_converter
from cdc.converters.lines import JsonLines
from cdc.errors import ConfigError
from schemas import DataError, Field, Moment, Schema, Struct
from schemas.literals import parse_string
from schemas.model import DATE, DECIMAL, TIME, TIMESTAMP
from tests.blocks import INT32, STRING, Source

CONVERTERS = "org.apache.kafka.connect.converters."
STRING_CLASS = "org.apache.kafka.connect.storage.StringConverter"
SIMPLE_CLASS = "org.apache.kafka.connect.storage.SimpleHeaderConverter"


def test_a_string_is_the_java_text_of_any_value() -> None:
    made = make_converter(STRING_CLASS, {})
    schema = Schema(
        "struct",
        fields=(
            Field("a", Schema("int32")),
            Field("n", Schema("string", optional=True)),
            Field("b", Schema("string")),
        ),
    )
    for value, text in (
        (Struct(schema, [1, None, "x"]), "Struct{a=1,b=x}"),
        ({"a": 1, "b": None}, "{a=1, b=null}"),
        ([1, 2], "[1, 2]"),
        (True, "true"),
        (1e10, "1.0E10"),
        (Decimal("1E+3"), "1E+3"),
        (Moment(0), "Thu Jan 01 00:00:00 UTC 1970"),
        (b"ab", "YWI="),
    ):
        assert made.from_connect("t", None, value) == text.encode()
    assert made.from_connect("t", None, None) is None
    assert made.to_connect("t", b"a\xff") == (Schema("string", optional=True), "a\ufffd")
    latin = make_converter(STRING_CLASS, {"converter.encoding": "ISO-8859-1"})
    assert latin.from_connect("t", None, "é😀") == b"\xe9?"


def test_a_byte_array_is_itself_and_nothing_else() -> None:
    made = make_converter(f"{CONVERTERS}ByteArrayConverter", {})
    assert made.from_connect("t", Schema("bytes"), b"\x00") == b"\x00"
    assert made.to_connect("t", b"\x00") == (Schema("bytes", optional=True), b"\x00")
    with pytest.raises(DataError, match="Invalid schema type for ByteArrayConverter: STRING"):
        made.from_connect("t", Schema("string"), "x")
    with pytest.raises(DataError, match=r"not compatible with objects of type class java.lang.Str"):
        made.from_connect("t", None, "x")


@pytest.mark.parametrize(
    ("name", "kind", "size"), [("Short", "int16", 2), ("Integer", "int32", 4), ("Long", "int64", 8)]
)
def test_whole_numbers_are_big_endian(name: str, kind: str, size: int) -> None:
    made = make_converter(f"{CONVERTERS}{name}Converter", {})
    data = made.from_connect("t", Schema(kind), -2)
    assert data == b"\xff" * (size - 1) + b"\xfe"
    assert made.to_connect("t", data) == (Schema(kind, optional=True), -2)
    with pytest.raises(DataError) as caught:
        made.to_connect("t", b"abc")
    assert str(caught.value) == f"Failed to deserialize {name.lower()}: "
    assert str(caught.value.__cause__) == (
        f"Size of data received by {name}Deserializer is not {size}"
    )


@pytest.mark.parametrize(("name", "kind", "data"), [
    ("Float", "float", b"\x3f\xc0\x00\x00"),
    ("Double", "double", b"\x3f\xf8\x00\x00\x00\x00\x00\x00"),
])  # fmt: skip
def test_fractions_are_ieee_big_endian(name: str, kind: str, data: bytes) -> None:
    made = make_converter(f"{CONVERTERS}{name}Converter", {})
    assert made.from_connect("t", Schema(kind), 1.5) == data
    assert made.to_connect("t", data) == (Schema(kind, optional=True), 1.5)


def test_a_boolean_is_one_byte() -> None:
    made = make_converter(f"{CONVERTERS}BooleanConverter", {})
    assert [made.from_connect("t", None, v) for v in (True, False)] == [b"\x01", b"\x00"]
    assert made.to_connect("t", b"\x01") == (Schema("boolean", optional=True), True)
    with pytest.raises(DataError, match="Failed to deserialize boolean: "):
        made.to_connect("t", b"\x02")


def test_a_header_is_text_quoted_inside_only() -> None:
    made = make_header_converter(SIMPLE_CLASS, {})
    for value, text in (
        ("x", b"x"),
        (b"ab", b"YWI="),
        ([1, "a"], b'[1,"a"]'),
        ({"a": 1.5}, b'{"a":1.5}'),
        (Moment(5), b"00:00:00.005Z"),
        (Moment(-1), b"23:59:59.999Z"),
        (Moment(86_400_000), b"1970-01-02"),
        (Moment(86_400_001), b"1970-01-02T00:00:00.001Z"),
    ):
        assert made.from_connect_header("t", "h", None, value) == text
    assert made.from_connect_header("t", "h", None, None) is None


DAY_SCHEMA, CLOCK_SCHEMA = (Schema("int32", name=name, version=1) for name in (DATE, TIME))
INSTANT_SCHEMA = Schema("int64", name=TIMESTAMP, version=1)


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("null", None, None),
        ("true", Schema("boolean"), True),
        ("2020-01-02", DAY_SCHEMA, Moment(1_577_923_200_000)),
        ("12:34:56.789Z", CLOCK_SCHEMA, Moment(45_296_789)),
        ("1970-01-02T00:00:00.001Z", INSTANT_SCHEMA, Moment(86_400_001)),
        ("1", Schema("int8"), 1),
        ("1.0", Schema("int8"), 1),
        ("-300", Schema("int16"), -300),
        ("+70000", Schema("int32"), 70_000),
        ("5000000000", Schema("int64"), 5_000_000_000),
        ("0.1", Schema("float"), 0.10000000149011612),
        ("1e-300", Schema("float"), 0.0),
        ("1.5e300", Schema("double"), 1.5e300),
        (
            "1E400",
            Schema("bytes", name=DECIMAL, version=1, parameters={"scale": "-400"}),
            Decimal("1E+400"),
        ),
        ("[1,300]", Schema("array", items=Schema("int16")), [1, 300]),
        ('{"a":true}', Schema("map", keys=Schema("string"), values=Schema("boolean")), {"a": True}),
        ("true}", Schema("string"), "true}"),
        (" x ", Schema("string"), " x "),
        ("[1,", Schema("string"), "[1,"),
    ],
)
def test_the_type_of_a_header_is_inferred(text: str, schema: Schema | None, value: Any) -> None:
    assert parse_string(text) == (schema, value)


# --- names ---


@pytest.mark.parametrize("name", [n for n in CLASSES if n != "simple"])
def test_every_short_name_makes_a_converter_that_says_what_its_options_are(name: str) -> None:
    assert make_converter(name, {}).CONFIG is converter_config(name)


def test_what_is_no_converter_of_values_is_refused_with_a_remedy() -> None:
    for name, why in ((SIMPLE_CLASS, "for headers only"), ("avro", "not implemented")):
        with pytest.raises(ConfigError, match=why) as caught:
            make_converter(name, {})
        assert caught.value.key == "value.converter"
    with pytest.raises(ConfigError, match="Failed to find any class"):
        make_converter("org.example.Nope", {})


def test_a_bad_option_is_named_with_its_whole_key() -> None:
    with pytest.raises(ConfigError) as caught:
        make_converter("json", {"decimal.format": "HEX"}, "key.converter")
    assert caught.value.key == "key.converter.decimal.format"
    with pytest.raises(ConfigError) as caught:
        make_converter("json", {"schema.content": "{"})
    assert caught.value.key == "value.converter.schema.content"


# --- lines ---


def lines(format_: str = "record", **raw: str) -> list[bytes]:
    raw = {name.replace("_", "."): value for name, value in raw.items()}
    shop = Source(context={"h": "ü"})
    orders = shop.table("orders", id=INT32, note=STRING)
    shop.insert(orders, id=1, note='a "b"')
    values = {"format": format_, "tombstones.on.delete": True}
    return JsonLines.from_config(Config(values, RawConfig(raw, set()))).render(shop.block())


def test_text_of_another_converter_is_a_string_in_a_line() -> None:
    (line,) = lines(key_converter=STRING_CLASS, value_converter=STRING_CLASS)
    assert line.startswith(b'{"topic":"srv.public.orders","key":"Struct{id=1}","value":"Struct{')
    assert b'after=Struct{id=1,note=a \\"b\\"},source=Struct{' in line
    assert line.endswith('"headers":{"h":"ü"}}\n'.encode())
    (alone,) = lines("value", value_converter=STRING_CLASS)
    assert alone.startswith(b'Struct{after=Struct{id=1,note=a "b"},source=')


def test_headers_are_written_by_the_header_converter_that_is_named() -> None:
    (line,) = lines(header_converter=SIMPLE_CLASS)
    assert line.endswith('"headers":{"h":"ü"}}\n'.encode())
    (line,) = lines(header_converter="json", header_converter_schemas_enable="true")
    assert line.endswith('"headers":{"h":{"schema":null,"payload":"ü"}}}\n'.encode())


def test_a_value_that_a_converter_cannot_write_is_refused() -> None:
    with pytest.raises(DataError, match="Invalid schema type for ByteArrayConverter: STRUCT"):
        lines(value_converter=f"{CONVERTERS}ByteArrayConverter")
