"""The other converters against Connect's: generated values, bytes and encodings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cdc.aliases import CONVERTERS
from cdc.converters.factory import converter_config, make_converter, make_header_converter
from schemas import Schema
from tests.connect import strategies
from tests.connect.compared import agree, agree_text, declared, has_bytes, outcome
from tests.connect.judge import Judge
from tests.connect.seeded import generated

STRING = "org.apache.kafka.connect.storage.StringConverter"
SIMPLE = "org.apache.kafka.connect.storage.SimpleHeaderConverter"
PACKAGE = "org.apache.kafka.connect.converters."
TYPES = {
    "Short": "int16",
    "Integer": "int32",
    "Long": "int64",
    "Float": "float",
    "Double": "double",
    "Boolean": "boolean",
    "ByteArray": "bytes",
}
ENCODINGS = st.sampled_from(
    ["UTF-8", "ISO-8859-1", "US-ASCII", "UTF-16", "UTF-16LE", "UTF-16BE", "nope"]
)


@generated(150)
@given(typed=strategies.typed())
def test_strings_are_written_as_connect_writes_them(
    judge: Judge, typed: tuple[Schema, Any]
) -> None:
    schema, value = typed
    assume(not has_bytes(value))
    ours = outcome(lambda: make_converter(STRING, {}).from_connect("t", schema, value))
    agree_text(ours, outcome(lambda: judge.from_connect(STRING, {}, "t", schema, value)))


@generated(100)
@given(text=strategies.TEXT, encoding=ENCODINGS)
def test_strings_are_encoded_as_java_encodes_them(judge: Judge, text: str, encoding: str) -> None:
    options = {"converter.encoding": encoding}
    ours = outcome(lambda: make_converter(STRING, options).from_connect("t", None, text))
    agree(ours, outcome(lambda: judge.from_connect(STRING, options, "t", None, text)))


@generated(100)
@given(text=strategies.TEXT, encoding=ENCODINGS, tail=st.sampled_from([b"", b"\xff", b"\xe2\x82"]))
def test_bytes_are_decoded_as_java_decodes_them(
    judge: Judge, text: str, encoding: str, tail: bytes
) -> None:
    assume(encoding in ("UTF-8", "nope") or not tail)
    options = {"converter.encoding": encoding}
    plain = "UTF-8" if encoding == "nope" else encoding
    data = text.encode(plain, "replace") + tail
    ours = outcome(lambda: make_converter(STRING, options).to_connect("t", data))
    agree(ours, outcome(lambda: judge.to_connect(STRING, options, "t", data)))


@pytest.mark.parametrize("name", TYPES)
@generated(40)
@given(data=st.data())
def test_values_of_its_type_are_written_and_read_as_connect_does(
    judge: Judge, name: str, data: st.DataObject
) -> None:
    java_class = f"{PACKAGE}{name}Converter"
    converter = make_converter(java_class, {})
    schema = Schema(TYPES[name], optional=True)
    value = data.draw(strategies.values(schema))
    ours = outcome(lambda: converter.from_connect("t", schema, value))
    agree(ours, outcome(lambda: judge.from_connect(java_class, {}, "t", schema, value)))
    back = outcome(lambda: converter.to_connect("t", ours[1]))
    agree(back, outcome(lambda: judge.to_connect(java_class, {}, "t", ours[1])))


@pytest.mark.parametrize("name", TYPES)
@generated(20)
@given(typed=strategies.typed(depth=1), data=st.binary(max_size=9))
def test_anything_else_is_written_or_refused_as_connect_does(
    judge: Judge, name: str, typed: tuple[Schema, Any], data: bytes
) -> None:
    java_class = f"{PACKAGE}{name}Converter"
    converter = make_converter(java_class, {})
    ours = outcome(lambda: converter.from_connect("t", *typed))
    agree(ours, outcome(lambda: judge.from_connect(java_class, {}, "t", *typed)))
    back = outcome(lambda: converter.to_connect("t", data))
    agree(back, outcome(lambda: judge.to_connect(java_class, {}, "t", data)))


@pytest.mark.parametrize("java_class", [STRING, *(f"{PACKAGE}{name}Converter" for name in TYPES)])
@generated(25)
@given(typed=strategies.typed(depth=1), data=st.none() | st.binary(max_size=9))
def test_headers_are_written_and_read_as_values_are(
    judge: Judge, java_class: str, typed: tuple[Schema, Any], data: bytes | None
) -> None:
    assume(java_class != STRING or not has_bytes(typed[1]))
    converter, config = make_header_converter(java_class, {}), {"converter.type": "header"}
    ours = outcome(lambda: converter.from_connect_header("t", "h", *typed))
    agree_text(ours, outcome(lambda: judge.header_from(java_class, config, "h", *typed)))
    back = outcome(lambda: converter.to_connect_header("t", "h", data))
    agree(back, outcome(lambda: judge.header_to(java_class, config, "h", data)))


@generated(150)
@given(typed=strategies.typed())
def test_headers_are_written_as_connect_writes_them(
    judge: Judge, typed: tuple[Schema, Any]
) -> None:
    converter = make_header_converter(SIMPLE, {})
    ours = outcome(lambda: converter.from_connect_header("t", "h", *typed))
    agree_text(ours, outcome(lambda: judge.header_from(SIMPLE, {}, "h", *typed)))


@generated(100)
@given(data=st.binary(max_size=6) | strategies.TEXT.map(str.encode))
def test_headers_are_read_as_connect_reads_them(judge: Judge, data: bytes) -> None:
    converter = make_header_converter(SIMPLE, {})
    ours = outcome(lambda: converter.to_connect_header("t", "h", data))
    agree(ours, outcome(lambda: judge.header_to(SIMPLE, {}, "h", data)))


@pytest.mark.parametrize(
    "java_class",
    [name for known in CONVERTERS if known.name != "avro" for name in known.java_classes],
)
def test_converters_declare_what_connects_declare(judge: Judge, java_class: str) -> None:
    theirs = judge.config(java_class, {})["keys"]
    # Which says key, value or header: told otherwise here.
    assert declared(converter_config(java_class)) == [
        key for key in theirs if key["name"] != "converter.type"
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"\xed\xa0", b"\xed\xa0\x80", b"\xed\xa0x", b"\xed\xbf\xbf\xed", b"\xed\x9f", b"\xed\x9fx",
        b"\xe0\x80\x80", b"\xe2\x82", b"\xe2\x82x", b"\xf0\x9f\x98", b"\xf0\x80\x80", b"\xf5\x80",
        b"\xf4\x90\x80\x80", b"\xc0\x80", b"\x80\x80", b"a\xffb",
    ],
)  # fmt: skip
def test_bytes_that_are_no_text_are_replaced_as_in_java(judge: Judge, data: bytes) -> None:
    ours = outcome(lambda: make_converter(STRING, {}).to_connect("t", data))
    agree(ours, outcome(lambda: judge.to_connect(STRING, {}, "t", data)))
