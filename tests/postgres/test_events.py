"""Event schemas: names, order of fields, key, source block."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from cdc.errors import ConfigError
from cdc.postgres.events import EventOptions, build_event_schema, build_message_schema
from cdc.postgres.topics import TopicNaming, adjust_name, sanitize
from cdc.postgres.types import TypeCatalog
from cdc.postgres.values import plan_column
from schemas import Column, EventSchema, TableId, TableSchema

INT4, TEXT = 23, 25
OPTIONS = EventOptions(server="srv", database="db")
TABLE = TableSchema(
    id=TableId("db", "public", "t"),
    columns=(
        Column("id", INT4, nullable=False, default="nextval('t_id_seq'::regclass)"),
        Column("note", TEXT),
        Column("odd", 999_999),
    ),
    key=("id",),
)


def build(
    table: TableSchema = TABLE,
    *,
    options: EventOptions = OPTIONS,
    key: Sequence[str] | None = None,
    excluded: Sequence[str] = (),
) -> EventSchema:
    plans = [plan_column(column, TypeCatalog()) for column in table.columns]
    return build_event_schema(
        table,
        [plan for plan in plans if plan],
        topic="srv.public.t",
        options=options,
        key=key,
        excluded=excluded,
    )


def source(schema: EventSchema) -> dict[str, object]:
    values = {
        b"ts_ms": 1, b"ts_us": 1000, b"ts_ns": 1000000, b"snapshot": b'"false"',
        b"sequence": rb'"[\"1\",\"2\"]"', b"txId": b"5", b"lsn": b"7", b"xmin": b"null",
        b"origin": b"null", b"origin_lsn": b"null",
    }  # fmt: skip
    found: dict[str, object] = json.loads(schema.source_template.encode() % values)
    return found


def test_names_and_optionality_are_debeziums() -> None:
    schema = build()
    assert schema.envelope.name == "srv.public.t.Envelope"
    assert (schema.row.name, schema.row.version, schema.row.optional) == (
        "srv.public.t.Value",
        None,
        True,
    )
    assert schema.key is not None
    assert (schema.key.name, schema.key.optional) == ("srv.public.t.Key", False)


def test_a_serial_key_carries_its_default_in_the_key_too() -> None:
    schema = build()
    assert schema.key is not None
    assert schema.key.fields[0].schema.to_dict() == {
        "type": "int32",
        "optional": False,
        "default": 0,
    }


def test_an_unmapped_column_is_absent() -> None:
    assert [field.name for field in build().row.fields] == ["id", "note"]


def test_the_source_block_is_in_debeziums_order() -> None:
    expected = (
        '{"version":"3.6.3.Final","connector":"postgresql","name":"srv","ts_ms":1,'
        '"snapshot":"false","db":"db","sequence":"[\\"1\\",\\"2\\"]","ts_us":1000,'
        '"ts_ns":1000000,"schema":"public","table":"t","txId":5,"lsn":7,"xmin":null,'
        '"origin":null,"origin_lsn":null}'
    )
    assert json.dumps(source(build()), separators=(",", ":")) == expected


def test_a_percent_sign_in_a_name_is_no_placeholder() -> None:
    table = TableSchema(TableId("db", "public", '50%(x)s"'), TABLE.columns)
    assert source(build(table))["table"] == '50%(x)s"'


def test_a_table_without_a_key_has_none() -> None:
    assert build(TableSchema(TABLE.id, TABLE.columns)).key is None


def test_message_key_columns_replace_the_key() -> None:
    schema = build(key=("note", "id"))
    assert schema.key_names == ("note", "id")


def test_a_key_column_the_table_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"message\.key\.columns"):
        build(key=("nope",))


def test_an_excluded_key_column_stays_in_the_key() -> None:
    schema = build(excluded=("id",))
    assert schema.key_names == ("id",)
    assert [field.name for field in schema.row.fields] == ["note"]


def test_the_schema_survives_its_stored_form() -> None:
    schema = build()
    assert EventSchema.from_json(schema.json).fingerprint == schema.fingerprint


def test_a_message_has_no_images() -> None:
    schema = build_message_schema(topic="srv.message", options=OPTIONS)
    assert schema.key is not None
    assert schema.key.name == "io.debezium.connector.postgresql.MessageKey"
    assert schema.row.name == "io.debezium.connector.postgresql.Message"
    assert [field.name for field in schema.envelope.fields] == [
        "op",
        "ts_ms",
        "source",
        "transaction",
        "message",
    ]
    assert source(schema)["table"] == ""


def test_names_are_adjusted_for_avro() -> None:
    options = EventOptions("srv", "db", "avro", "avro")
    table = TableSchema(TABLE.id, (Column("1st-name", TEXT),))
    schema = build(table, options=options)
    assert schema.row.fields[0].name == "_1st_name"
    assert adjust_name("a-b.c", "avro") == "a_b.c"
    assert adjust_name("a.b", "avro", dots=False) == "a_b"
    assert adjust_name("a_b-ä", "avro_unicode") == "a_u005fb_u002d_u00e4"
    assert adjust_name("a-b", "none") == "a-b"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.b c", "a.b_c"), ("größe", "gr__e"), ("a😀", "a__"), ("x" * 300, "x" * 249), ("..", "__")],
)
def test_topics_are_names_kafka_accepts(name: str, expected: str) -> None:
    assert sanitize(name) == expected


def test_topics_by_kind() -> None:
    naming = TopicNaming("srv", delimiter="-")
    assert naming.data(TableId("db", "s", "t$")) == "srv-s-t_"
    assert naming.messages == "srv.message"
