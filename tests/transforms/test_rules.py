"""What each transform and predicate is known to do, one rule a test."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from cdc.record import Header, Record
from cdc.transforms import find_predicate, find_transform
from cdc.transforms.base import PLANS_MAX
from cdc.transforms.errors import ConnectError, IllegalArgument, NullPointer, java_name
from schemas import DataError, Field, Moment, Schema, Struct
from schemas.model import TIMESTAMP

PACKAGE = "org.apache.kafka.connect.transforms."
OPTIONAL = Schema("string", optional=True)
INNER = Schema("struct", optional=True, fields=(Field("x", Schema("int32")),))
STAMP = Schema("int64", name=TIMESTAMP, version=1)
ROW = Schema(
    "struct",
    name="Row",
    version=2,
    doc="A row.",
    optional=True,
    fields=(
        Field("id", Schema("int32", doc="The key.")),
        Field("name", replace(OPTIONAL, default="none")),
        Field("inner", INNER),
        Field("at", STAMP),
    ),
)
AT = Moment(1_700_000_000_123)
VALUE = Struct(ROW, [300, None, Struct(INNER, [7]), AT])


def record(value: Any = VALUE, schema: Schema | None = ROW, **more: Any) -> Record:
    return replace(Record("orders", 1, None, "k", schema, value, 5), **more)


def transformed(name: str, of: Record, **options: str) -> Record:
    kind = find_transform(name if "$" not in name else PACKAGE + name)[1]
    texts = {key.replace("__", "."): text for key, text in options.items()}
    found = kind(kind.CONFIG.parse(texts)).apply(of)
    assert found is not None
    return found


def values(of: Record) -> dict[str, Any]:
    assert isinstance(of.value, Struct)
    return dict(of.value.items())


def field_schema(of: Record, name: str) -> Schema:
    assert of.value_schema is not None
    return of.value_schema.fields[of.value_schema.field_index[name]].schema


def test_cast_wraps_and_drops_doc_and_keeps_the_struct() -> None:
    found = transformed("Cast$Value", record(), spec="id:int8,name:string,none:int8")
    assert values(found)["id"] == 44
    assert field_schema(found, "id") == Schema("int8")
    assert field_schema(found, "name") == replace(OPTIONAL, default="none")
    assert found.value_schema is not None
    assert (found.value_schema.optional, found.value_schema.doc) == (True, "A row.")


def test_cast_of_a_whole_value_keeps_its_name() -> None:
    found = transformed("Cast$Value", record(AT, STAMP), spec="string")
    assert found.value == "2023-11-14T22:13:20.123Z"
    assert found.value_schema == replace(STAMP, type="string")


def test_cast_without_a_schema_makes_absent_fields_null() -> None:
    found = transformed("Cast$Value", record({"a": "5"}, None), spec="a:int64,b:int8")
    assert found.value == {"a": 5, "b": None}


def test_cast_of_garbage_says_out_of_range() -> None:
    with pytest.raises(DataError, match=r"Value \(x\) was out of range for requested data type"):
        transformed("Cast$Value", record({"a": "x"}, None), spec="a:int64")


def test_drop_headers_removes_every_header_of_a_name() -> None:
    headers = (Header("a", 1, None), Header("b", 2, None), Header("a", 3, None))
    assert transformed("DropHeaders", record(headers=headers), headers="a").headers == headers[1:2]


def test_extract_field_takes_value_and_schema() -> None:
    found = transformed("ExtractField$Value", record(), field="name")
    assert (found.value, found.value_schema) == ("none", replace(OPTIONAL, default="none"))
    kept = transformed(
        "ExtractField$Value", record(), field="name", replace__null__with__default="false"
    )
    assert kept.value is None


def test_extract_field_descends_by_dots_in_the_second_syntax() -> None:
    options = {"field": "inner.x", "field__syntax__version": "V2"}
    assert transformed("ExtractField$Value", record(), **options).value == 7
    plain = transformed("ExtractField$Value", record({"a.b": {"c": 1}}, None),
                        field="`a.b`.c", field__syntax__version="V2")  # fmt: skip
    assert plain.value == 1


def test_extract_field_of_an_unknown_field_is_an_illegal_argument() -> None:
    with pytest.raises(IllegalArgument, match="Unknown field: none") as caught:
        transformed("ExtractField$Value", record(), field="none")
    assert java_name(caught.value) == "java.lang.IllegalArgumentException"
    assert transformed("ExtractField$Value", record({}, None), field="none").value is None


def test_filter_drops_every_record() -> None:
    kind = find_transform("Filter")[1]
    assert kind(kind.CONFIG.parse({})).apply(record()) is None


def test_flatten_joins_names_and_hands_optionality_down() -> None:
    found = transformed("Flatten$Value", record(), delimiter="_")
    assert values(found) == {"id": 300, "name": "none", "inner_x": 7, "at": AT}
    assert field_schema(found, "inner_x") == Schema("int32", optional=True)
    assert found.value_schema is not None
    assert not found.value_schema.optional
    plain = transformed("Flatten$Value", record({"a": {"b": 1}, "c": [1]}, None))
    assert plain.value == {"a.b": 1, "c": [1]}


def test_flatten_refuses_a_map_in_a_struct() -> None:
    schema = Schema("struct", fields=(Field("m", Schema("map", keys=OPTIONAL, values=OPTIONAL)),))
    with pytest.raises(DataError, match="Flatten transformation does not support MAP"):
        transformed("Flatten$Value", record(Struct(schema, [{}]), schema))


@pytest.mark.parametrize(("operation", "stays"), [("move", False), ("copy", True)])
def test_header_from_gives_headers_the_fields_schema(operation: str, stays: bool) -> None:
    found = transformed("HeaderFrom$Value", record(), fields="id", headers="h", operation=operation)
    assert found.headers == (Header("h", 300, Schema("int32", doc="The key.")),)
    assert ("id" in values(found)) is stays


def test_header_from_refuses_null_and_unknown_fields() -> None:
    options = {"fields": "none", "headers": "h", "operation": "copy"}
    with pytest.raises(NullPointer):
        transformed("HeaderFrom$Value", record(), **options)
    with pytest.raises(DataError, match="Only Map objects supported in absence of schema"):
        transformed("HeaderFrom$Value", record(None, None), **options)


def test_hoist_field_wraps_null_too() -> None:
    found = transformed("HoistField$Value", record(None, OPTIONAL), field="f")
    assert values(found) == {"f": None}
    assert transformed("HoistField$Key", record(), field="f").key == {"f": "k"}
    with pytest.raises(DataError, match="null used for required field"):
        transformed("HoistField$Value", record(None, STAMP), field="f")


def test_insert_field_appends_in_a_fixed_order() -> None:
    found = transformed(
        "InsertField$Value", record(offset=9), static__field="s!", static__value="v",
        timestamp__field="t", offset__field="o", partition__field="p", topic__field="topic?",
    )  # fmt: skip
    assert list(values(found))[4:] == ["topic", "p", "o", "t", "s"]
    assert list(values(found).values())[4:] == ["orders", 1, 9, Moment(5), "v"]
    assert field_schema(found, "s") == Schema("string")
    plain = transformed("InsertField$Value", record({}, None), timestamp__field="t")
    assert plain.value == {"t": 5}
    assert transformed("InsertField$Value", record(None), topic__field="t").value is None


def test_insert_field_knows_no_offset_in_a_source() -> None:
    with pytest.raises(DataError, match=r"Only SinkRecord supported for \[field insertion\]"):
        transformed("InsertField$Value", record(), offset__field="o")


def test_insert_header_adds_and_infers_the_type() -> None:
    headers = (Header("h", "x", None),)
    found = transformed("InsertHeader", record(headers=headers), header="h", value__literal="300")
    assert found.headers == (*headers, Header("h", 300, Schema("int16")))


def test_mask_field_keeps_null_and_refuses_structs() -> None:
    found = transformed("MaskField$Value", record(), fields="id,name,at")
    assert list(found.value.values)[:2] == [0, ""]
    assert values(found)["at"] == Moment(0)
    plain = transformed("MaskField$Value", record({"n": None, "d": Decimal("1.5")}, None),
                        fields="n,d,new")  # fmt: skip
    assert plain.value == {"n": None, "d": Decimal(0), "new": None}
    with pytest.raises(DataError, match=r"Cannot mask value of type: class .*Struct"):
        transformed("MaskField$Value", record(), fields="inner")
    with pytest.raises(DataError, match="Only Map objects"):
        transformed("MaskField$Value", record(None, None), fields="id")


def test_mask_field_takes_a_replacement_for_numbers_and_texts() -> None:
    found = transformed("MaskField$Value", record(), fields="id,name", replacement="42")
    assert list(found.value.values)[:2] == [42, "42"]
    with pytest.raises(DataError, match="Date with custom replacement"):
        transformed("MaskField$Value", record(), fields="at", replacement="42")


def test_regex_router_changes_the_topic_and_not_the_partition() -> None:
    found = transformed("RegexRouter", record(), regex="(o).*", replacement="$1-x")
    assert (found.topic, found.partition) == ("o-x", 1)
    assert transformed("RegexRouter", record(), regex="o", replacement="x").topic == "orders"


def test_replace_field_filters_by_the_old_name_and_then_renames() -> None:
    found = transformed(
        "ReplaceField$Value", record(), include="id,at", exclude="at", renames="id:key"
    )
    assert values(found) == {"key": 300}
    plain = transformed("ReplaceField$Value", record({"a": 1, "b": 2}, None), exclude="b",
                        renames="a:c")  # fmt: skip
    assert plain.value == {"c": 1}


def test_replace_field_onto_a_name_that_is_there_is_a_schema_error() -> None:
    with pytest.raises(DataError, match="field name duplication name") as caught:
        transformed("ReplaceField$Value", record(), renames="id:name")
    assert java_name(caught.value).endswith("SchemaBuilderException")


def test_set_schema_metadata_renames_the_schema_of_null_too() -> None:
    found = transformed(
        "SetSchemaMetadata$Value", record(None), schema__name="N", schema__version="7"
    )
    assert found.value_schema == replace(ROW, name="N", version=7)
    with pytest.raises(DataError, match=r"Schema required for \[updating schema metadata\]"):
        transformed("SetSchemaMetadata$Value", record({}, None), schema__name="N")


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("string", "2023-11-14 22:13:20.123"),
        ("unix", 1_700_000_000_123),
        ("Date", Moment(1_699_920_000_000)),
        ("Time", Moment(80_000_123)),
        ("Timestamp", AT),
    ],
)
def test_timestamp_converter_makes_each_kind(target: str, wanted: Any) -> None:
    options = {"field": "at", "target__type": target, "format": "yyyy-MM-dd HH:mm:ss.SSS"}
    assert values(transformed("TimestampConverter$Value", record(), **options))["at"] == wanted


def test_timestamp_converter_refuses_what_is_no_time() -> None:
    with pytest.raises(ConnectError, match=r"Schema Schema\{INT32\} does not correspond"):
        transformed("TimestampConverter$Value", record(), field="id", target__type="unix")
    with pytest.raises(DataError, match="TimestampConverter does not support class"):
        transformed("TimestampConverter$Value", record(1.5, None), target__type="unix")
    assert (
        transformed("TimestampConverter$Value", record(None, STAMP), target__type="unix").value
        is None
    )


def test_timestamp_router_writes_the_records_own_time() -> None:
    found = transformed("TimestampRouter", record(timestamp=int(AT)))
    assert found.topic == "orders-20231114"
    with pytest.raises(DataError, match=r"^Timestamp missing on record: "):
        transformed("TimestampRouter", record(timestamp=None))


def test_value_to_key_takes_fields_in_the_order_of_the_option() -> None:
    found = transformed("ValueToKey", record(), fields="name,id")
    assert dict(found.key.items()) == {"name": "none", "id": 300}
    assert found.key_schema is not None
    assert found.key_schema.name is None
    assert transformed("ValueToKey", record({}, None), fields="a").key == {"a": None}
    with pytest.raises(DataError, match="Field does not exist: none"):
        transformed("ValueToKey", record(), fields="none")
    with pytest.raises(DataError, match="Only Map objects"):
        transformed("ValueToKey", record(None, None), fields="a")


def test_a_transform_of_the_key_leaves_the_value() -> None:
    found = transformed("HoistField$Key", record(), field="f")
    assert found.value is VALUE
    assert found.value_schema is ROW


@pytest.mark.parametrize(
    ("name", "options", "of", "wanted"),
    [
        ("HasHeaderKey", {"name": "h"}, record(headers=(Header("h", None, None),)), True),
        ("HasHeaderKey", {"name": "h"}, record(), False),
        ("RecordIsTombstone", {}, record(None), True),
        ("RecordIsTombstone", {}, record(), False),
        ("TopicNameMatches", {"pattern": "ord.*"}, record(), True),
        ("TopicNameMatches", {"pattern": "ord"}, record(), False),
    ],
)
def test_a_predicate_holds_or_not(
    name: str, options: dict[str, str], of: Record, wanted: bool
) -> None:
    kind = find_predicate(name)[1]
    assert kind(kind.CONFIG.parse(options)).test(of) is wanted


def test_a_plan_is_made_once_for_each_of_many_tables_and_no_end_of_them_is_kept() -> None:
    kind = find_transform(PACKAGE + "InsertField$Value")[1]
    transform: Any = kind(kind.CONFIG.parse({"topic.field": "t"}))
    tables = [Schema("struct", fields=(Field(f"f{n}", OPTIONAL),)) for n in range(300)]
    first, second = (
        [transform.apply(record(Struct(schema, [None]), schema)).value_schema for schema in tables]
        for _ in range(2)
    )
    assert all(one is other for one, other in zip(first, second, strict=True))
    for n in range(PLANS_MAX):
        schema = Schema("struct", fields=(Field(f"g{n}", OPTIONAL),))
        transform.apply(record(Struct(schema, [None]), schema))
    assert len(transform._plans) == PLANS_MAX
