"""The fine print of the transforms, case by case: ours, Connect's, and what is expected."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from cdc.converters.json import JsonConverter
from cdc.record import Record
from schemas import DataError, Field, Moment, Schema, Struct
from schemas.dates import DAY_MS
from schemas.model import DATE, DECIMAL, TIME, TIMESTAMP
from tests.connect.judge import Judge
from tests.transforms.compare import Refusal, compare

INT, TEXT = Schema("int32"), Schema("string")
DAY = Schema("int32", name=DATE, version=1)
CLOCK = Schema("int32", name=TIME, version=1)
STAMP = Schema("int64", name=TIMESTAMP, version=1)
PRICE = Schema("bytes", name=DECIMAL, version=1, parameters={"scale": "2"})
DATA_ERROR = "org.apache.kafka.connect.errors.DataException"
NO_CAST = "Cast transformation does not support casting"


def of_value(value: Any, schema: Schema | None = None, **more: Any) -> Record:
    return replace(Record("orders", 1, None, None, schema, value, 5), **more)


def struct(**fields: Schema) -> Schema:
    return Schema("struct", fields=tuple(Field(name, of) for name, of in fields.items()))


# --- schemas and shapes

ROW = replace(
    struct(a=INT, b=replace(TEXT, optional=True)),
    optional=True, name="Row", version=3, doc="A row.", parameters={"k": "v"},
    default={"a": 1, "b": None},
)  # fmt: skip
KEPT = {
    "Cast$Value": ({"spec": "a:int64"}, True),
    "TimestampConverter$Value": ({"field": "b", "target.type": "unix", "format": "yyyy"}, True),
    "InsertField$Value": ({"topic.field": "t"}, False),
    "ReplaceField$Value": ({"exclude": "b"}, False),
    "HeaderFrom$Value": ({"fields": "b", "headers": "h", "operation": "move"}, False),
    "Flatten$Value": ({}, False),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_changed_struct_keeps_its_name_and_some_keep_that_it_is_optional(
    judge: Judge, name: str
) -> None:
    config, kept = KEPT[name]
    schema = ROW if name != "Cast$Value" else replace(ROW, default=None)  # it refuses a default
    found = compare(judge, name, config, of_value(Struct(schema, [1, None]), schema))
    changed = found.value_schema
    assert (changed.name, changed.version, changed.doc, changed.parameters) == (
        "Row", 3, "A row.", {"k": "v"},
    )  # fmt: skip
    assert changed.optional is kept
    assert (changed.default is not None) is (kept and schema.default is not None)


SHAPES = {
    "Cast": ({"spec": "a:int8"}, "cast types"),
    "ExtractField": ({"field": "a"}, "field extraction"),
    "Flatten": ({}, "flattening"),
    "HeaderFrom": ({"fields": "a", "headers": "h", "operation": "copy"}, "header copy"),
    "InsertField": ({"topic.field": "t"}, "field insertion"),
    "MaskField": ({"fields": "a"}, "mask fields"),
    "ReplaceField": ({"exclude": "a"}, "field replacement"),
    "TimestampConverter": (
        {"field": "a", "target.type": "unix"},
        "converting timestamp formats",
    ),
}


@pytest.mark.parametrize("part", ["Key", "Value"])
@pytest.mark.parametrize("name", SHAPES)
def test_what_is_no_map_and_no_struct_is_refused_with_the_purpose(
    judge: Judge, name: str, part: str
) -> None:
    config, purpose = SHAPES[name]
    record = Record("t", 0, None, "x", None, "x", 5)
    found = compare(judge, f"{name}${part}", config, record)
    text = f"Only Map objects supported in absence of schema for [{purpose}], found: "
    assert found == Refusal(DATA_ERROR, f"{text}java.lang.String")
    typed = replace(record, key_schema=TEXT, value_schema=TEXT)
    found = compare(judge, f"{name}${part}", config, typed)
    if name != "Cast":  # which looks at the schema first
        text = f"Only Struct objects supported for [{purpose}], found: java.lang.String"
        assert found == Refusal(DATA_ERROR, text)


# --- Cast


@pytest.mark.parametrize(
    ("value", "schema", "target", "wanted"),
    [
        (300, INT, "int8", 44),
        (2**40 + 1, Schema("int64"), "int32", 1),
        (-1.9, Schema("double"), "int8", -1),
        (1e10, Schema("double"), "int32", 2**31 - 1),
        (1e10, Schema("double"), "int8", -1),  # an int first
        (float("nan"), Schema("double"), "int64", 0),
        (0.5, Schema("double"), "boolean", False),
        (-1.5, Schema("float"), "boolean", True),
        ("TRUE", TEXT, "boolean", True),
        ("1", TEXT, "boolean", False),
        ("+7", TEXT, "int8", 7),
        (True, Schema("boolean"), "int16", 1),
        (False, Schema("boolean"), "float64", 0.0),
        (b"ab", Schema("bytes"), "string", "YWI="),
        (Moment(3 * DAY_MS), DAY, "int32", 3),
        (Moment(3 * DAY_MS), DAY, "string", "1970-01-04"),
        (Moment(5), CLOCK, "int64", 5),
        (Moment(5), CLOCK, "string", "00:00:00.005Z"),
        (Moment(DAY_MS + 1), STAMP, "int64", DAY_MS + 1),
        (Moment(DAY_MS + 1), STAMP, "string", "1970-01-02T00:00:00.001Z"),
        (Decimal("12.50"), PRICE, "string", "12.50"),
        (Decimal("300.99"), PRICE, "int8", 44),
        (Decimal("12.50"), PRICE, "float64", 12.5),
    ],
)
def test_a_field_is_cast(
    judge: Judge, value: Any, schema: Schema, target: str, wanted: Any
) -> None:
    of = struct(f=schema)
    found = compare(judge, "Cast$Value", {"spec": f"f:{target}"}, of_value(Struct(of, [value]), of))
    assert found.value.values == [wanted]
    assert type(found.value.values[0]) is type(wanted)


@pytest.mark.parametrize(
    ("value", "schema", "target", "text"),
    [
        ("x", TEXT, "int64", "Value (x) was out of range for requested data type"),
        ("300", TEXT, "int8", "Value (300) was out of range for requested data type"),
        ("9" * 5000, TEXT, "int64", "Value (999"),
        ("𝟎", TEXT, "int8", "Value (𝟎) was out of range for requested data type"),
        (b"ab", Schema("bytes"), "int8", "Unexpected type in Cast transformation: class "),
        ([1], Schema("array", items=INT), "int8", f"{NO_CAST} from ARRAY; "),
        ({}, Schema("map", keys=TEXT, values=INT), "string", f"{NO_CAST} from MAP; "),
        (Struct(struct(), []), struct(), "string", f"{NO_CAST} from STRUCT; "),
    ],
)
def test_what_cannot_be_cast_is_refused(
    judge: Judge, value: Any, schema: Schema, target: str, text: str
) -> None:
    of = struct(f=schema)
    found = compare(judge, "Cast$Value", {"spec": f"f:{target}"}, of_value(Struct(of, [value]), of))
    assert isinstance(found, Refusal)
    assert (found.java_class, found.text[: len(text)]) == (DATA_ERROR, text)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("", "Must specify at least one field to cast."),
        ("a:int", "No enum constant org.apache.kafka.connect.data.Schema.Type.INT"),
        ("a:bytes", "Cast transformation does not support casting to BYTES; "),
        ("a:b:int8", "Invalid rename mapping: a:b:int8"),
        ("int8,a:int8", "may only specify a single cast in their spec"),
    ],
)
def test_a_wrong_spec_is_refused(judge: Judge, spec: str, text: str) -> None:
    found = compare(judge, "Cast$Value", {"spec": spec}, of_value({"a": 1}))
    assert isinstance(found, Refusal)
    assert found.java_class.endswith("ConfigException")
    assert text in found.text


# --- the others


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("a.b", 1),
        ("`a.b`.c", 2),
        ("`x`y`", 3),
        ("`x\\`.y`", 4),
        ("a.none.b", None),
        ("`a", "Incomplete backtick pair in path: [`a], consider adding a backslash before"),
    ],
)
def test_a_path_descends_by_dots_and_quotes_by_backticks(
    judge: Judge, path: str, wanted: Any
) -> None:
    value = {"a": {"b": 1}, "a.b": {"c": 2}, "x`y": 3, "x`.y": 4}
    config = {"field": path, "field.syntax.version": "V2"}
    found = compare(judge, "ExtractField$Value", config, of_value(value))
    if isinstance(found, Refusal):
        assert found.java_class.endswith("ConfigException")
        assert str(wanted) in found.text
    else:
        assert found.value == wanted


def test_flatten_refuses_a_name_that_is_there_twice(judge: Judge) -> None:
    inner = struct(b=INT)
    of = Schema("struct", fields=(Field("a.b", INT), Field("a", inner)))
    found = compare(judge, "Flatten$Value", {}, of_value(Struct(of, [1, Struct(inner, [2])]), of))
    assert "Cannot create field because of field name duplication a.b" in found.text


def test_a_masked_decimal_is_zero_of_no_scale(judge: Judge) -> None:
    of = struct(p=PRICE)
    found = compare(
        judge, "MaskField$Value", {"fields": "p"}, of_value(Struct(of, [Decimal("1.50")]), of)
    )
    assert str(found.value.values[0]) == "0"
    with pytest.raises(DataError, match="Schema has scale 2, value has scale 0"):
        JsonConverter().from_connect("t", of, found.value)


def test_a_mask_is_not_empty(judge: Judge) -> None:
    config = {"fields": "a", "replacement": ""}
    found = compare(judge, "MaskField$Value", config, of_value({"a": "x"}))
    assert "String must be non-empty" in found.text


def test_a_required_field_of_nothing_is_found_by_the_converter(judge: Judge) -> None:
    of = struct(a=INT)
    record = of_value(Struct(of, [1]), of, partition=None)
    found = compare(judge, "InsertField$Value", {"partition.field": "p!"}, record)
    assert found.value.values == [1, None]
    with pytest.raises(DataError, match="null value for field that is required"):
        JsonConverter().from_connect("t", found.value_schema, found.value)


@pytest.mark.parametrize(
    ("value", "config", "wanted"),
    [
        ("2020-13-45", {"target.type": "Date", "format": "yyyy-MM-dd"}, Moment(18_672 * DAY_MS)),
        (1_500_999, {"target.type": "Timestamp", "unix.precision": "microseconds"}, Moment(1_500)),
        (Moment(DAY_MS + 5), {"target.type": "Date"}, Moment(DAY_MS)),
        (Moment(DAY_MS + 5), {"target.type": "Time"}, Moment(5)),
        (Moment(-(2**63)), {"target.type": "Date"}, Moment(2**63 - 60_424_192)),  # it wraps
        (Moment(0), {"target.type": "string", "format": "yyyy-MM-dd HH:mm z"},
         "1970-01-01 00:00 UTC"),
    ],
)  # fmt: skip
def test_a_time_is_read_leniently_and_loses_what_is_below_a_millisecond(
    judge: Judge, value: Any, config: dict[str, str], wanted: Any
) -> None:
    found = compare(judge, "TimestampConverter$Value", config, of_value(value))
    assert found.value == wanted


def test_a_time_as_a_text_needs_a_format(judge: Judge) -> None:
    found = compare(judge, "TimestampConverter$Value", {"target.type": "string"}, of_value(5))
    assert found.java_class.endswith("ConfigException")
    assert "requires format option to be specified when using string timestamps" in found.text


def test_a_null_leaf_is_allowed_where_a_struct_around_it_is_optional(judge: Judge) -> None:
    of = replace(struct(a=INT), optional=True)
    found = compare(judge, "Flatten$Value", {}, of_value(Struct(of, [None]), of))
    assert found.value.values == [None]


def test_a_null_that_is_refused_is_named_as_the_new_struct_names_it(judge: Judge) -> None:
    of = struct(a=INT, b=TEXT)
    record = of_value(Struct(of, [None, "x"]), of)
    for renames, named in (("a:c", "c"), ("a:b,b:a", "b")):
        found = compare(judge, "ReplaceField$Value", {"renames": renames}, record)
        assert f'null used for required field: "{named}"' in found.text


def test_a_number_in_another_fields_place_has_its_own_class(judge: Judge) -> None:
    of = struct(a=Schema("int8"), b=INT)
    record = of_value(Struct(of, [7, 8]), of)
    found = compare(judge, "ReplaceField$Value", {"renames": "a:b", "exclude": "a"}, record)
    text = "Invalid Java object for schema with type INT32: class java.lang.Byte for field: "
    assert found == Refusal(DATA_ERROR, f'{text}"b"')


@pytest.mark.parametrize("fields", ["a,none", "none,a"])
def test_a_header_of_null_wants_an_optional_schema(judge: Judge, fields: str) -> None:
    of = struct(a=INT)
    config = {"fields": fields, "headers": "h,i", "operation": "copy"}
    found = compare(judge, "HeaderFrom$Value", config, of_value(Struct(of, [None]), of))
    first = "A null value requires an optional schema but was Schema{INT32}"
    assert (found.text == first) is fields.startswith("a")


def test_the_default_of_a_struct_is_converted_with_its_field(judge: Judge) -> None:
    of = replace(struct(a=STAMP, b=replace(INT, default=4)), default={"a": 5, "b": None})
    config = {"field": "a", "target.type": "string", "format": "SSS"}
    moment = of_value(Struct(of, [Moment(7), 1]), of)
    found = compare(judge, "TimestampConverter$Value", config, moment)
    assert found.value_schema.default_value.values == ["005", 4]
