"""Text of a value in, JSON fragment out: one row of the type tables at a time."""

from __future__ import annotations

import json
import logging

import pytest

from cdc.errors import ConfigError, RecordError
from cdc.postgres.types import PgType, TypeCatalog
from cdc.postgres.values import ValueOptions, plan_column
from schemas import Column
from tests.postgres.plans import OIDS, TYPES, load, numeric, plan

# --- §2.1, not temporal ---


@pytest.mark.parametrize(
    ("type_name", "modifier", "raw", "expected"),
    [
        ("bool", -1, b"t", "true"),
        ("bool", -1, b"f", "false"),
        ("bit", 1, b"1", "true"),
        ("varbit", 1, b"0", "false"),
        ("bit", 3, b"101", '"BQ=="'),
        ("bit", 3, b"000", '""'),
        ("bit", 16, b"1000000000000001", '"AYA="'),
        ("varbit", -1, b"", '""'),
        ("int2", -1, b"-1", "-1"),
        ("int4", -1, b"2147483647", "2147483647"),
        ("int8", -1, b"9223372036854775807", "9223372036854775807"),
        ("oid", -1, b"4294967295", "4294967295"),
        ("float4", -1, b"0.1", "0.1"),
        ("float8", -1, b"1", "1.0"),
        ("float8", -1, b"1.5", "1.5"),
        ("float8", -1, b"NaN", '"NaN"'),
        ("float8", -1, b"-Infinity", '"-Infinity"'),
        ("numeric", numeric(10, 2), b"12.30", '"BM4="'),
        ("numeric", numeric(10, 2), b"-1.28", '"gA=="'),
        ("numeric", numeric(10, 2), b"1.28", '"AIA="'),
        ("numeric", numeric(5, 0), b"0", '"AA=="'),
        ("numeric", numeric(4, -2), b"1200", '"DA=="'),
        ("numeric", numeric(3, 5), b"0.00123", '"ew=="'),
        ("numeric", -1, b"1.50", '{"scale":1,"value":"Dw=="}'),
        ("numeric", -1, b"150", '{"scale":0,"value":"AJY="}'),
        ("numeric", -1, b"0.00", '{"scale":0,"value":"AA=="}'),
        ("money", -1, b"$12.34", '"BNI="'),
        ("money", -1, b"-$1,234.56", '"/h3A"'),
        ("bpchar", 8, b"ab  ", '"ab  "'),
        ("text", -1, 'q"\\\n\x01äß€😀'.encode(), r'"q\"\\\n\u0001äß€😀"'),
        ("name", -1, b"n", '"n"'),
        ("char", -1, b"c", '"c"'),
        ("citext", -1, b"C", '"C"'),
        ("bytea", -1, rb"\x0102ff", '"AQL/"'),
        ("json", -1, b'{"a": 1}', r'"{\"a\": 1}"'),
        ("jsonb", -1, b'{"a": 1}', r'"{\"a\": 1}"'),
        ("xml", -1, b"<a/>", '"<a/>"'),
        ("uuid", -1, b"b68a35a7-17ad-35b3-af2a-ae46edb4545a", None),
        ("inet", -1, b"::1/64", '"::1/64"'),
        ("cidr", -1, b"10.0.0.0/8", '"10.0.0.0/8"'),
        ("macaddr", -1, b"08:00:2b:01:02:03", None),
        ("macaddr8", -1, b"08:00:2b:01:02:03:04:05", None),
        ("int4range", -1, b"[1,5)", '"[1,5)"'),
        ("tsrange", -1, b'["2024-01-01 00:00:00",)', r'"[\"2024-01-01 00:00:00\",)"'),
        ("ltree", -1, b"Top.Science", '"Top.Science"'),
        ("tsvector", -1, b"'a':1", "\"'a':1\""),
        ("mood", -1, b"b", '"b"'),
        ("mood", -1, b"added later", '"added later"'),
        ("cents", -1, b"1.5000", '"Opg="'),
        ("small_cents", -1, b"1.5000", '"Opg="'),
        ("vector", -1, b"[1,2.5]", "[1.0,2.5]"),
        ("halfvec", -1, b"[1,2.5]", "[1.0,2.5]"),
        ("sparsevec", -1, b"{1:0.5,3:2}/5", '{"dimensions":5,"vector":[[1,0.5],[3,2.0]]}'),
        ("hstore", -1, b'"k"=>"v", "n"=>NULL', r'"{\"k\":\"v\",\"n\":null}"'),
    ],
)
def test_a_value_becomes_debeziums_json(
    type_name: str, modifier: int, raw: bytes, expected: str | None
) -> None:
    assert load(type_name, raw, modifier) == (expected or f'"{raw.decode()}"')


def test_point_carries_its_well_known_binary() -> None:
    assert json.loads(load("point", b"(1,2)")) == {
        "x": 1.0,
        "y": 2.0,
        "wkb": "AQEAAAAAAAAAAADwPwAAAAAAAABA",
        "srid": None,
    }


def test_a_point_may_be_nowhere() -> None:
    found = json.loads(load("point", b"(NaN,-Infinity)"))
    assert (found["x"], found["y"]) == ("NaN", "-Infinity")


def test_geometry_keeps_ewkb_and_names_its_srid() -> None:
    plain = b"0101000000000000000000F03F0000000000000040"
    with_srid = b"0101000020E6100000000000000000F03F0000000000000040"
    assert json.loads(load("geometry", plain))["srid"] is None
    assert json.loads(load("geography", with_srid))["srid"] == 4326
    assert plan("geometry", nullable=False).schema.optional


@pytest.mark.parametrize(
    ("type_name", "raw", "options", "expected"),
    [
        ("numeric", b"12.30", {"decimal_handling_mode": "double"}, "12.3"),
        ("numeric", b"NaN", {"decimal_handling_mode": "double"}, '"NaN"'),
        ("numeric", b"9" * 400, {"decimal_handling_mode": "double"}, '"Infinity"'),
        ("numeric", b"12.30", {"decimal_handling_mode": "string"}, '"12.30"'),
        ("numeric", b"NaN", {"decimal_handling_mode": "string"}, '"NAN"'),
        ("numeric", b"-Infinity", {"decimal_handling_mode": "string"}, '"NEGATIVE_INFINITY"'),
        ("money", b"-$1,234.50", {"decimal_handling_mode": "double"}, "-1234.5"),
        ("money", b"$1.00", {"decimal_handling_mode": "string"}, '"1.00"'),
        ("money", b"$1.25", {"money_fraction_digits": 1}, '"DQ=="'),
        ("money", b"$1.25", {"money_fraction_digits": 3}, '"BOI="'),
        ("bytea", rb"\xfbff", {"binary_handling_mode": "base64"}, '"+/8="'),
        ("bytea", rb"\xfbff", {"binary_handling_mode": "base64-url-safe"}, '"-_8="'),
        ("bytea", rb"\xFBff", {"binary_handling_mode": "hex"}, '"fbff"'),
        ("hstore", b'"k"=>"v"', {"hstore_handling_mode": "map"}, '{"k":"v"}'),
        ("xid", b"5", {"include_unknown_datatypes": True}, '"NQ=="'),
    ],
)
def test_a_mode_changes_the_form(
    type_name: str, raw: bytes, options: dict[str, object], expected: str
) -> None:
    assert load(type_name, raw, **options) == expected


@pytest.mark.parametrize(
    "type_name", ["xid", "pg_lsn", "box", "_money", "_name", "_xml", "_point", "_cents"]
)
def test_types_without_a_form_are_left_out(type_name: str) -> None:
    assert plan_column(Column("c", OIDS[type_name]), TYPES) is None


def test_a_type_nobody_knows_is_left_out_or_opaque() -> None:
    column = Column("c", 4242)
    assert plan_column(column, TYPES) is None
    assert plan_column(column, TYPES, ValueOptions(include_unknown_datatypes=True))


def test_a_type_created_later_is_looked_up_once() -> None:
    asked = []

    def lookup(oid: int) -> PgType:
        asked.append(oid)
        return PgType(oid, "colour", "public", "e", "E", labels=("red",))

    types = TypeCatalog(lookup=lookup)
    plans = [plan_column(Column(name, 777), types) for name in "ab"]
    assert [p.schema.parameters for p in plans if p] == [{"allowed": "red"}] * 2
    assert asked == [777]


# --- arrays ---


@pytest.mark.parametrize(
    ("type_name", "raw", "expected"),
    [
        ("_int4", b"{1,NULL,-3}", [1, None, -3]),
        ("_int4", b"{}", []),
        ("_int4", b"[0:1]={1,2}", [1, 2]),
        ("_text", rb'{a,"b \"q\" \\ ,{}",NULL,"NULL",""}', ["a", r'b "q" \ ,{}', None, "NULL", ""]),
        ("_bool", b"{t,f,NULL}", [True, False, None]),
        ("_float8", b"{1,NaN}", [1.0, "NaN"]),
        ("_bytea", rb'{"\\x01ff",NULL}', ["Af8=", None]),
        ("_timestamp", b'{"2024-01-02 03:04:05.123456"}', [1704164645123456]),
        ("_date", b"{2024-01-02}", [19724]),
        ("_mood", b"{a,b}", ["a", "b"]),
    ],
)
def test_arrays_of_one_dimension(type_name: str, raw: bytes, expected: list[object]) -> None:
    assert json.loads(load(type_name, raw)) == expected


def test_a_matrix_has_no_form() -> None:
    with pytest.raises(ValueError, match="one-dimensional"):
        load("_int4", b"{{1,2},{3,4}}")


def test_enum_items_are_required_so_null_has_no_form() -> None:
    assert plan("_mood").schema.items is not None
    assert not plan("_mood").schema.items.optional  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="null"):
        load("_mood", b"{a,NULL}")


def test_hstore_comes_in_the_order_of_javas_hash_map() -> None:
    raw = b'"a"=>NULL, "b c"=>"d\\"e", "xxx"=>"3", "yyy"=>"2", "zzz"=>"1", "key1"=>"1", "key2"=>"2"'
    keys = json.loads(load("hstore", raw, hstore_handling_mode="map")).keys()
    assert list(keys) == ["key1", "a", "key2", "b c", "yyy", "xxx", "zzz"]


# --- fallbacks of NOT NULL columns ---


@pytest.mark.parametrize(
    ("type_name", "modifier", "expected"),
    [
        ("int4", -1, "0"),
        ("float8", -1, "0.0"),
        ("bool", -1, "false"),
        ("text", -1, '""'),
        ("bytea", -1, '""'),
        ("numeric", numeric(10, 2), '"AA=="'),
        ("numeric", -1, '{"scale":0,"value":"AA=="}'),
        ("timestamptz", -1, '"1970-01-01T00:00:00Z"'),
        ("timetz", -1, '"00:00:00Z"'),
        ("timestamp", -1, "0"),
        ("date", -1, "0"),
        ("interval", -1, "0"),
        ("_int4", -1, "[]"),
        ("hstore", -1, '"{}"'),
    ],
)
def test_null_in_a_not_null_column_is_the_types_fallback(
    type_name: str, modifier: int, expected: str
) -> None:
    made = plan(type_name, modifier, nullable=False)
    assert made.fallback.decode() == expected
    assert made.null == made.fallback
    assert plan(type_name, modifier).null == b"null"


# --- §2.3, defaults ---


@pytest.mark.parametrize(
    ("type_name", "modifier", "expression", "expected"),
    [
        ("int4", -1, "5", 5),
        ("int4", -1, "'-5'::integer", -5),
        ("int4", -1, "nextval('t_id_seq'::regclass)", 0),
        ("int4", -1, "(1 + 2)", None),
        ("bool", -1, "true", True),
        ("bool", -1, "f()", False),
        ("text", -1, "'it''s'::text", "it's"),
        ("text", -1, "upper('x'::text)", ""),
        ("text", -1, "NULL::text", None),
        ("numeric", numeric(10, 2), "12.3", "BM4="),
        ("numeric", numeric(10, 2), "1.234", None),
        ("numeric", -1, "1.5", None),
        ("float8", -1, "'-1.25'::numeric", -1.25),
        ("jsonb", -1, "'{\"k\": 1}'::jsonb", '{"k": 1}'),
        ("json", -1, "json_build_object()", "{}"),
        ("uuid", -1, "gen_random_uuid()", "00000000-0000-0000-0000-000000000000"),
        ("date", -1, "CURRENT_DATE", 0),
        ("timestamp", -1, "now()", 0),
        ("timestamptz", -1, "CURRENT_TIMESTAMP", "1970-01-01T00:00:00.000000Z"),
        ("timestamptz", -1, "'2020-01-02 03:04:05+00'::timestamp with time zone", None),
        ("timestamptz", -1, "'infinity'::timestamp with time zone", None),
        ("interval", -1, "'1 day'::interval", 86400000000),
        ("bit", 3, "B'011'::\"bit\"", "Aw=="),
        ("bit", 1, "B'1'::\"bit\"", True),
        ("mood", -1, "'b'::mood", "b"),
        ("mood", -1, "'b'::public.mood", "b"),
        ("mood", -1, "'b'::text", None),
        ("Mood", -1, "'x'::other.\"Mood\"", "x"),
        ("bytea", -1, r"'\x01'::bytea", None),
        ("_int4", -1, "'{}'::integer[]", None),
        ("point", -1, "'(0,0)'::point", None),
        ("inet", -1, "'1.1.1.1'::inet", None),
        ("cents", -1, "3", None),
    ],
)
def test_the_default_expression_becomes_the_schemas_default(
    type_name: str, modifier: int, expression: str, expected: object
) -> None:
    found = plan(type_name, modifier, default=expression).schema.default
    if "2020" in expression:
        expected = "2020-01-02T03:04:05.000000Z"
    assert found == expected
    assert type(found) is type(expected)


def test_a_default_in_string_mode_has_the_declared_digits() -> None:
    made = plan("numeric", numeric(10, 2), default="12.3", decimal_handling_mode="string")
    assert made.schema.default == "12.30"


def test_null_in_a_not_null_column_is_the_default_where_there_is_one() -> None:
    assert plan("int4", nullable=False, default="7").null == b"7"


# --- §3.2, unchanged TOAST ---

PLACEHOLDER = "__debezium_unavailable_value"


@pytest.mark.parametrize(
    ("type_name", "options", "expected"),
    [
        ("text", {}, PLACEHOLDER),
        ("jsonb", {}, PLACEHOLDER),
        ("tsvector", {}, PLACEHOLDER),
        ("bytea", {}, "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="),
        ("bytea", {"binary_handling_mode": "hex"}, PLACEHOLDER),
        ("bytea", {"binary_handling_mode": "base64"}, None),
        ("_text", {}, [PLACEHOLDER]),
        ("_jsonb", {}, [PLACEHOLDER]),
        ("_bytea", {}, ["X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="]),
        ("_int4", {}, list(PLACEHOLDER.encode())),
        ("_int8", {}, list(PLACEHOLDER.encode())),
        ("_date", {}, list(PLACEHOLDER.encode())),
        ("_date", {"time_precision_mode": "isostring"}, None),
        ("_uuid", {}, ["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]),
        ("hstore", {}, json.dumps({PLACEHOLDER: PLACEHOLDER}, separators=(",", ":"))),
        ("hstore", {"hstore_handling_mode": "map"}, {PLACEHOLDER: PLACEHOLDER}),
        ("numeric", {}, None),
        ("numeric", {"decimal_handling_mode": "string"}, PLACEHOLDER),
        ("_numeric", {}, None),
        ("text", {"unavailable_value_placeholder": "hex:414243"}, "ABC"),
        ("text", {"unavailable_value_placeholder": "hex:ff"}, "\ufffd"),
    ],
)
def test_an_unchanged_toast_value(
    type_name: str, options: dict[str, object], expected: object
) -> None:
    made = plan(type_name, **options)  # type: ignore[arg-type]
    assert json.loads(made.unavailable) == expected


# --- failures ---


def test_a_failing_value_is_null_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    made = plan("numeric", numeric(10, 2))
    with caplog.at_level(logging.WARNING):
        assert made.recover(b"NaN") == b"null"
        assert made.recover(b"NaN") == b"null"
    assert len(caplog.records) == 1
    assert "NaN" not in caplog.text


@pytest.mark.parametrize("mode", ["warn", "skip", "fail"])
@pytest.mark.parametrize("default", [None, "5"])
def test_a_failing_value_of_a_not_null_column_is_never_another_value(
    mode: str, default: str | None
) -> None:
    made = plan("numeric", numeric(10, 2), nullable=False, default=default, failure_mode=mode)
    with pytest.raises(RecordError, match=r"column c cannot be converted.*nor null") as caught:
        made.recover(b"NaN")
    assert "decimal.handling.mode=string" in str(caught.value.remedy)


def test_mode_fail_raises_and_names_the_column() -> None:
    with pytest.raises(RecordError, match="column c"):
        plan("numeric", numeric(10, 2), failure_mode="fail").recover(b"NaN")


@pytest.mark.parametrize("mode", ["warn", "skip", "fail"])
def test_text_that_is_not_utf_8_is_never_replaced(mode: str) -> None:
    with pytest.raises(RecordError, match=r"column c holds bytes that are not UTF-8.*SQL_ASCII"):
        plan("text", failure_mode=mode).recover(b"caf\xe9")


def test_a_numeric_of_more_digits_than_pythons_limit() -> None:
    found = json.loads(load("numeric", b"9" * 6000 + b".5"))
    assert found["scale"] == 1
    assert len(load("numeric", b"9" * 6000, numeric(1000, 0))) > 3000


def test_an_option_that_is_none_of_the_choices_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"decimal\.handling\.mode"):
        ValueOptions(decimal_handling_mode="exact")
