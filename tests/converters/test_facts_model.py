"""Connect's data model as the facts sheet has it: §4.1, row by row."""

from __future__ import annotations

from decimal import Decimal

import pytest

from cdc.converters.json import JsonConverter
from schemas import DataError, Field, Moment, Schema, SchemaBuilderError, Struct
from schemas.codec import dumper, loader
from schemas.model import DATE, DECIMAL, TIME, TIMESTAMP
from schemas.struct import validate_value

DAY = 86_400_000
CONNECT = "org.apache.kafka.connect.data."


def logical(kind: str, name: str, **parameters: str) -> Schema:
    return Schema(kind, name=name, version=1, parameters=parameters)


def struct(**fields: Schema) -> Schema:
    return Schema("struct", fields=tuple(Field(name, of) for name, of in fields.items()))


def refusal(schema: Schema, value: object) -> str:
    with pytest.raises(DataError) as caught:
        validate_value(schema, value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "bits"), [("int8", 8), ("int16", 16), ("int32", 32), ("int64", 64)]
)
def test_whole_numbers_have_a_width(kind: str, bits: int) -> None:
    schema, end = Schema(kind), 1 << bits - 1
    validate_value(schema, end - 1)
    validate_value(schema, -end)
    assert refusal(schema, end).startswith(
        f"Invalid Java object for schema with type {kind.upper()}: class java.lang."
    )


def test_fractions_are_called_float_and_double_in_json_and_single_ones_print_short() -> None:
    for kind, java in (("float", "FLOAT32"), ("double", "FLOAT64")):
        assert Schema(kind).to_json() == b'{"type":"%b","optional":false}' % kind.encode()
        assert f"type {java}:" in refusal(Schema(kind), 1)
    single = 1.100000023841858  # 1.1 in single precision
    assert JsonConverter(False).from_connect("t", Schema("float"), single) == b"1.1"


def test_booleans_strings_and_bytes_are_bool_str_and_bytes() -> None:
    values = {"boolean": True, "string": "x", "bytes": b"x"}
    for kind, value in values.items():
        validate_value(Schema(kind), value)
        for other in values.values():
            if other is not value:
                assert refusal(Schema(kind), other)


def test_arrays_maps_and_structs_are_validated_all_the_way_down() -> None:
    number = Schema("int32")
    array, map_ = Schema("array", items=number), Schema("map", keys=Schema("string"), values=number)
    assert refusal(array, [1, "x"]) == (
        "Invalid Java object for schema with type INT32: class java.lang.String "
        "for element of array value"
    )
    assert refusal(map_, {"a": None}) == (
        "Invalid value: null used for required value of map value, schema type: INT32"
    )
    assert refusal(struct(a=number), Struct(struct(a=number))) == (
        'Invalid value: null used for required field: "a", schema type: INT32'
    )


def test_a_decimal_is_the_bytes_of_its_unscaled_number_as_short_as_can_be() -> None:
    schema = logical("bytes", DECIMAL, scale="2")
    load, dump = loader(schema), dumper(schema)
    assert load is not None
    assert dump is not None
    assert (CONNECT + "Decimal", dump(Decimal("10.00")), dump(Decimal("-1.28"))) == (
        DECIMAL,
        "A+g=",
        "gA==",
    )
    assert str(load("A+g=")) == "10.00"


def test_a_date_is_days_since_the_epoch_and_midnight() -> None:
    schema = logical("int32", DATE)
    plain = JsonConverter(False)
    assert plain.from_connect("t", schema, Moment(19_000 * DAY)) == b"19000"
    with pytest.raises(
        DataError, match="Date type should not have any time fields set to non-zero"
    ):
        plain.from_connect("t", schema, Moment(19_000 * DAY + 1))


def test_a_time_is_milliseconds_of_the_first_day() -> None:
    schema = logical("int32", TIME)
    plain = JsonConverter(False)
    assert plain.from_connect("t", schema, Moment(DAY - 1)) == b"86399999"
    for outside in (-1, DAY + 1):
        with pytest.raises(DataError, match="Time type should not have any date fields set to non"):
            plain.from_connect("t", schema, Moment(outside))


def test_a_timestamp_is_milliseconds_since_the_epoch() -> None:
    schema = logical("int64", TIMESTAMP)
    assert JsonConverter(False).from_connect("t", schema, Moment(-5)) == b"-5"


def test_a_decimal_of_another_scale_is_refused_not_rescaled() -> None:
    schema = logical("bytes", DECIMAL, scale="2")
    with pytest.raises(DataError) as caught:
        JsonConverter().from_connect("t", schema, Decimal("1.5"))
    assert str(caught.value) == (
        "Decimal value has mismatching scale for given Decimal schema. "
        "Schema has scale 2, value has scale 1."
    )


def test_debeziums_logical_names_are_named_schemas_over_their_base_types() -> None:
    for name, kind, value in (
        ("io.debezium.time.Date", "int32", 5),
        ("io.debezium.time.MicroTimestamp", "int64", 5),
        ("io.debezium.data.Json", "string", "{}"),
    ):
        schema = logical(kind, name)
        validate_value(schema, value)
        converter = JsonConverter()
        data = converter.from_connect("t", schema, value)
        assert converter.to_connect("t", data) == (schema, value)


def test_put_validates_type_and_null_at_once() -> None:
    record = Struct(struct(a=Schema("int32"), b=Schema("int32", optional=True)))
    record.put("a", 1).put("b", None)
    with pytest.raises(DataError) as caught:
        record.put("a", None)
    assert str(caught.value) == (
        'Invalid value: null used for required field: "a", schema type: INT32'
    )
    with pytest.raises(DataError, match="c is not a valid field name"):
        record.put("c", 1)
    assert record.values == [1, None]


def test_get_gives_the_default_of_a_null_field_and_get_without_default_does_not() -> None:
    record = Struct(struct(a=Schema("int32", optional=True, default=7)))
    assert (record.get("a"), record.get_without_default("a")) == (7, None)


def test_structs_are_the_same_where_schemas_and_values_are() -> None:
    number, text = Schema("double"), Schema("string")
    nan = float("nan")
    assert Struct(struct(a=number), [nan]) == Struct(struct(a=number), [float("nan")])
    assert Struct(struct(a=number), [0.0]) != Struct(struct(a=number), [-0.0])
    assert Struct(struct(a=text), [None]) != Struct(struct(b=text), [None])
    decimals = struct(a=logical("bytes", DECIMAL, scale="2"))
    assert Struct(decimals, [Decimal("1.00")]) != Struct(decimals, [Decimal("1.0")])


def test_a_struct_has_no_two_fields_of_one_name() -> None:
    with pytest.raises(SchemaBuilderError) as caught:
        Schema("struct", fields=(Field("x", Schema("int8")), Field("x", Schema("int8"))))
    assert str(caught.value) == "Cannot create field because of field name duplication x"
