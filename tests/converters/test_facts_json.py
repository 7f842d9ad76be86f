"""JsonConverter as the facts sheet has it: §4.2, row by row."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from cdc.converters.json.converter import NO_ENVELOPE, JsonConverter
from schemas import DataError, Field, Moment, Schema, Struct
from schemas.model import DATE, DECIMAL

PLAIN, WHOLE = JsonConverter(schemas_enable=False), JsonConverter()
INT = Schema("int32")
HEAD = b'{"schema":{"type":"int32","optional":%b},"payload":%b}'
PRICE = Schema("bytes", name=DECIMAL, version=1, parameters={"scale": "2"})


def struct(**fields: Schema) -> Schema:
    return Schema("struct", fields=tuple(Field(name, of) for name, of in fields.items()))


def read(schema: Schema, payload: bytes) -> Any:
    return WHOLE.to_connect("t", b'{"schema":%b,"payload":%b}' % (schema.to_json(), payload)).value


def refusal(schema: Schema | bytes, payload: bytes = b"1") -> str:
    text = schema if isinstance(schema, bytes) else schema.to_json()
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (a DataError or a SchemaError)
        WHOLE.to_connect("t", b'{"schema":%b,"payload":%b}' % (text, payload))
    return str(caught.value)


# --- options ---


def test_schemas_enable_puts_an_envelope_around_everything_by_default() -> None:
    made = JsonConverter.from_config({})
    assert made.from_connect("t", INT, 5) == HEAD % (b"false", b"5")
    off = JsonConverter.from_config({"schemas.enable": "FALSE"})
    assert off.from_connect("t", INT, 5) == b"5"


def test_schemas_cache_size_bounds_what_is_kept() -> None:
    made = JsonConverter.from_config({"schemas.cache.size": "2"})
    schemas = [Schema("int32", version=n) for n in range(5)]
    for n, schema in enumerate(schemas):
        assert b'"version":%d}' % n in (made.from_connect("t", schema, 1) or b"")
    assert JsonConverter.from_config({}).cache_size == 1000


def test_decimal_format_writes_numbers_in_any_spelling_of_numeric() -> None:
    for text, written in (("BASE64", b'"BOI="'), ("NUMERIC", b"12.50"), ("numeric", b"12.50")):
        made = JsonConverter.from_config({"schemas.enable": "false", "decimal.format": text})
        assert made.from_connect("t", PRICE, Decimal("12.50")) == written


def test_replace_null_with_default_writes_and_reads_defaults_for_nulls() -> None:
    schema = struct(a=Schema("int32", optional=True, default=3))
    off = JsonConverter.from_config({"replace.null.with.default": "false"})
    record = Struct(schema, [None])
    for made, payload, value in ((WHOLE, b'{"a":3}', 3), (off, b'{"a":null}', None)):
        data = made.from_connect("t", schema, record)
        assert data is not None
        assert data.endswith(b'"payload":' + payload + b"}")
        null = data.replace(payload, b'{"a":null}')
        assert made.to_connect("t", null).value.values == [value]


def test_schema_content_is_the_schema_of_bare_payloads() -> None:
    made = JsonConverter.from_config({"schema.content": struct(a=INT).to_json().decode()})
    schema, value = made.to_connect("t", b'{"a":5}')
    assert (schema, value) == (struct(a=INT), Struct(struct(a=INT), [5]))


@pytest.mark.parametrize("content", [struct(a=INT).to_json().decode(), "{"])
def test_schema_content_is_ignored_without_schemas(content: str) -> None:
    made = JsonConverter.from_config({"schemas.enable": "false", "schema.content": content})
    assert made.to_connect("t", b'{"a":5}') == (None, {"a": 5})


# --- writing ---


def test_without_schema_and_value_there_are_no_bytes() -> None:
    assert (WHOLE.from_connect("t", None, None), PLAIN.from_connect("t", None, None)) == (
        None,
        None,
    )


def test_a_null_of_a_schema_is_no_tombstone() -> None:
    optional = Schema("int32", optional=True)
    assert WHOLE.from_connect("t", optional, None) == HEAD % (b"true", b"null")
    assert PLAIN.from_connect("t", optional, None) == b"null"


def test_a_value_without_schema_has_a_null_for_it() -> None:
    assert WHOLE.from_connect("t", None, {"a": 1}) == b'{"schema":null,"payload":{"a":1}}'
    assert PLAIN.from_connect("t", None, {"a": 1}) == b'{"a":1}'


def test_a_value_with_a_schema_stands_beside_it() -> None:
    assert WHOLE.from_connect("t", INT, 1) == HEAD % (b"false", b"1")
    assert PLAIN.from_connect("t", INT, 1) == b"1"


def test_the_example_of_the_facts_sheet_is_written_byte_for_byte() -> None:
    array = Schema("array", optional=True, items=Schema("int64"))
    map_ = Schema("map", keys=Schema("string"), values=Schema("double", optional=True))
    fields = (
        Field("id", INT),
        Field("s", Schema("string", optional=True, default="x")),
        Field("d", PRICE),
        Field("a", array),
        Field("m", map_),
        Field("dt", Schema("int32", name=DATE, version=1)),
    )
    schema = Schema("struct", name="server.inventory.customers.Value", fields=fields)
    day = Moment(19_000 * 86_400_000)
    record = Struct(schema, [1, None, Decimal("10.00"), [1, 2], {"k": 1.5}, day])
    written = JsonConverter(replace_null_with_default=False).from_connect("t", schema, record)
    assert written == (
        b'{"schema":{"type":"struct","fields":['
        b'{"type":"int32","optional":false,"field":"id"},'
        b'{"type":"string","optional":true,"default":"x","field":"s"},'
        b'{"type":"bytes","optional":false,"name":"org.apache.kafka.connect.data.Decimal",'
        b'"version":1,"parameters":{"scale":"2"},"field":"d"},'
        b'{"type":"array","items":{"type":"int64","optional":false},"optional":true,"field":"a"},'
        b'{"type":"map","keys":{"type":"string","optional":false},'
        b'"values":{"type":"double","optional":true},"optional":false,"field":"m"},'
        b'{"type":"int32","optional":false,"name":"org.apache.kafka.connect.data.Date",'
        b'"version":1,"field":"dt"}],'
        b'"optional":false,"name":"server.inventory.customers.Value"},'
        b'"payload":{"id":1,"s":null,"d":"A+g=","a":[1,2],"m":{"k":1.5},"dt":19000}}'
    )
    with_default = WHOLE.from_connect("t", schema, record)
    assert with_default == written.replace(b'"s":null', b'"s":"x"')


def test_output_is_compact_utf_8_with_every_field_in_order() -> None:
    schema = struct(b=Schema("string"), a=Schema("string", optional=True))
    written = PLAIN.from_connect("t", schema, Struct(schema, ["é\x1f😀", None]))
    assert written == '{"b":"é\\u001F\\uD83D\\uDE00","a":null}'.encode()


def test_bytes_are_base64_with_padding() -> None:
    assert PLAIN.from_connect("t", Schema("bytes"), b"a") == b'"YQ=="'


def test_numbers_that_json_does_not_know_are_strings() -> None:
    for value, text in ((float("nan"), b"NaN"), (float("inf"), b"Infinity")):
        for kind in ("float", "double"):
            assert PLAIN.from_connect("t", Schema(kind), value) == b'"%b"' % text
    assert PLAIN.from_connect("t", None, -float("inf")) == b'"-Infinity"'


def test_maps_are_objects_where_their_keys_are_strings_and_pairs_where_not() -> None:
    numbers = Schema("map", keys=INT, values=INT)
    strings = Schema("map", keys=Schema("string"), values=INT)
    assert PLAIN.from_connect("t", strings, {"a": 1}) == b'{"a":1}'
    assert PLAIN.from_connect("t", numbers, {1: 2}) == b"[[1,2]]"
    assert PLAIN.from_connect("t", None, {"a": 1, 2: 3}) == b'[["a",1],[2,3]]'


def test_numeric_decimals_keep_their_zeros_and_may_have_an_exponent() -> None:
    made = JsonConverter(False, decimal_format="NUMERIC")
    for text, scale in (("12.50", 2), ("1E-7", 7), ("1E+3", -3)):
        schema = Schema("bytes", name=DECIMAL, version=1, parameters={"scale": str(scale)})
        assert made.from_connect("t", schema, Decimal(text)) == text.encode()


def test_a_null_in_a_required_field_without_default_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        PLAIN.from_connect("t", struct(a=INT), Struct(struct(a=INT)))
    assert str(caught.value) == (
        "Conversion error: null value for field that is required and has no default value"
    )


def test_a_class_that_json_has_nothing_for_is_refused_without_a_schema() -> None:
    with pytest.raises(DataError) as caught:
        PLAIN.from_connect("t", None, Moment(5))
    assert str(caught.value) == (
        "Java class class java.util.Date does not have corresponding schema type."
    )


# --- reading ---


def test_no_bytes_are_neither_schema_nor_value() -> None:
    assert WHOLE.to_connect("t", None) == (None, None)


@pytest.mark.parametrize(
    "data", [b"1", b"{}", b'{"schema":null}', b'{"schema":1,"payload":1,"x":1}']
)
def test_with_schemas_enabled_exactly_the_two_members_are_taken(data: bytes) -> None:
    with pytest.raises(DataError) as caught:
        WHOLE.to_connect("t", data)
    assert str(caught.value) == NO_ENVELOPE


@pytest.mark.parametrize("data", [b"{", b"nope", b"NaN", b'"\xff"', b"{'a':1}"])
def test_broken_json_is_refused(data: bytes) -> None:
    with pytest.raises(DataError) as caught:
        PLAIN.to_connect("t", data)
    assert str(caught.value) == (
        "Converting byte[] to Kafka Connect data failed due to serialization error: "
    )


def test_numbers_without_schema_are_longs_that_wrap_and_doubles() -> None:
    data = b"[1,9223372036854775808,1.0,1e400]"
    assert PLAIN.to_connect("t", data).value == [1, -(2**63), 1.0, float("inf")]


def test_objects_and_arrays_without_schema_are_maps_and_lists() -> None:
    assert PLAIN.to_connect("t", b'{"a":[null,{}]}').value == {"a": [None, {}]}


def test_a_schemas_attributes_of_other_types_are_passed_over_but_not_its_parameters() -> None:
    odd = b'{"type":"int32","optional":"true","version":"1","name":5,"doc":[]}'
    assert WHOLE.to_connect("t", b'{"schema":%b,"payload":1}' % odd) == (INT, 1)
    wrong = b'{"type":"int32","parameters":{"a":1}}'
    assert refusal(wrong) == "Schema parameters must have string values."


def test_a_missing_field_is_a_null() -> None:
    schema = struct(a=Schema("int32", default=4), b=Schema("int32", optional=True))
    assert read(schema, b"{}").values == [4, None]
    assert refusal(struct(a=INT), b"{}") == "Invalid null value for required INT32 field"


def test_fields_that_the_schema_does_not_have_are_passed_over() -> None:
    assert read(struct(a=INT), b'{"a":1,"z":2}').values == [1]


def test_decimals_are_read_from_numbers_and_base64_whatever_decimal_format_says() -> None:
    for payload, text in ((b'"BOI="', "12.50"), (b"12.5", "12.5"), (b"1E+3", "1E+3")):
        assert str(read(PRICE, payload)) == text


def test_an_unknown_type_and_none_are_refused() -> None:
    assert refusal(b'{"type":"x"}') == "Unknown schema type: x"
    assert refusal(b"{}") == "Schema must contain 'type' field"


@pytest.mark.parametrize(
    ("kind", "payload", "value"),
    [
        ("int32", b'"5"', 0),
        ("int64", b'"5"', 0),
        ("double", b'"5"', 0.0),
        ("boolean", b"1", False),
        ("int8", b"300", 44),
        ("int32", b"4294967297", 1),
        ("int16", b"5.9", 5),
    ],
)
def test_another_type_is_nought_or_false_and_widths_wrap(
    kind: str, payload: bytes, value: Any
) -> None:
    assert read(Schema(kind), payload) == value


def test_a_string_of_another_type_is_null_and_then_refused_where_it_is_required() -> None:
    assert read(struct(a=Schema("string", optional=True)), b'{"a":5}').values == [None]
    assert refusal(struct(a=Schema("string")), b'{"a":5}') == (
        'Invalid value: null used for required field: "a", schema type: STRING'
    )


def test_maps_and_structs_of_another_kind_are_refused() -> None:
    assert refusal(struct(a=INT), b"[]") == (
        "Structs should be encoded as JSON objects, but found ARRAY"
    )
    strings = Schema("map", keys=Schema("string"), values=INT)
    assert refusal(strings, b"5") == (
        "Maps with string fields should be encoded as JSON objects, but found NUMBER"
    )
    assert refusal(Schema("map", keys=INT, values=INT), b"{}") == (
        "Maps with non-string fields should be encoded as JSON array of tuples, but found OBJECT"
    )


def test_defaults_in_a_schema_are_written_as_values_are() -> None:
    items = Schema("boolean", optional=True, default=True)
    of = Schema("array", items=items, default=[False, None])
    for replaced, text in ((True, b"[false,true]"), (False, b"[false,null]")):
        made = JsonConverter(replace_null_with_default=replaced)
        data = made.from_connect("t", of, [])
        assert data is not None
        assert data.startswith(b'{"schema":{"type":"array","items":{')
        assert b'"default":%b},"payload":[]}' % text in data


def test_a_default_beyond_64_bits_is_read() -> None:
    of = b'{"type":"bytes","name":"%b","version":1,"parameters":{"scale":"0"},"default":%b}'
    of %= DECIMAL.encode(), b"1" + b"0" * 25
    data = b'{"schema":%b,"payload":null}' % of
    assert WHOLE.to_connect("t", data).value == Decimal(10**25)


def test_only_what_is_below_nought_is_a_negative_nought() -> None:
    for text, sign in ((b"-0.0", "0.0"), (b"-1e-400", "-0.0")):
        assert repr(read(Schema("double"), text)) == sign
        assert repr(read(Schema("float"), text)) == sign
    assert str(read(PRICE, b"-0.00")) == "0.00"


def test_base64_may_have_blanks_and_controls_between_its_groups() -> None:
    assert read(Schema("bytes"), b'" \\u0000AQID\\n\\u001fBA=="') == b"\1\2\3\4"
    assert read(Schema("bytes"), b'"\\u0000"') == b""
    with pytest.raises(DataError, match="Invalid bytes field"):
        read(Schema("bytes"), '"\u00a0"'.encode())


def test_leading_zeros_are_accepted() -> None:
    assert PLAIN.to_connect("t", b'{"a":007,"b":-00.50,"c":"007","d":100}').value == {
        "a": 7,
        "b": -0.5,
        "c": "007",
        "d": 100,
    }
    assert [PLAIN.to_connect("t", text).value for text in (b"007", b"-01", b"00")] == [7, -1, 0]


def test_headers_follow_the_same_rules() -> None:
    data = WHOLE.from_connect_header("t", "h", INT, 5)
    assert data == HEAD % (b"false", b"5")
    assert WHOLE.to_connect_header("t", "h", data) == (INT, 5)
