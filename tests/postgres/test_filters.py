"""Include and exclude lists in Debezium's syntax."""

from __future__ import annotations

import pytest

from cdc.errors import ConfigError
from cdc.postgres.filters import ColumnFilter, KeyColumns, Lists, TableFilter
from schemas import Column, TableId, TableSchema
from sinks.audit_store import POSITIONS, RETIRED
from sinks.sql_dialect import OFFSETS


def table(name: str) -> TableId:
    schema, _, relation = name.partition(".")
    return TableId("db", schema, relation)


@pytest.mark.parametrize(
    ("include", "captured", "left_out"),
    [
        (r"public\.a", ["public.a", "PUBLIC.A"], ["public.ab", "xpublic.a"]),
        ("public.a, public.b", ["public.a", "public.b"], ["public.c"]),
        ("public.*", ["public.x", "publications.x"], ["other.x"]),
        (r"public\.x{1\,2}", ["public.x", "public.xx"], ["public.xxx"]),
        (r"public\.(?<name>a|b)", ["public.b"], ["public.c"]),
        (r"public\.[\p{Digit}_]+\p{Alpha}", ["public.1_2x"], ["public.x"]),
        (r"\Qpublic.a\E", ["public.a"], ["publicxa"]),
    ],
)
def test_an_include_list_is_anchored_and_ignores_case(
    include: str, captured: list[str], left_out: list[str]
) -> None:
    wanted = TableFilter.of({"table.include.list": include})
    assert all(wanted(table(name)) for name in captured)
    assert not any(wanted(table(name)) for name in left_out)


def test_an_exclude_list_takes_away() -> None:
    wanted = TableFilter.of({"table.exclude.list": "public.a", "schema.exclude.list": "audit"})
    assert wanted(table("public.b"))
    assert not wanted(table("public.a"))
    assert not wanted(table("audit.b"))


def test_system_schemas_are_never_captured_unless_told_so() -> None:
    assert not TableFilter()(table("pg_catalog.pg_class"))
    assert not TableFilter()(table("pg_temp_3.t"))
    assert TableFilter.of({"table.ignore.builtin": "false"})(table("information_schema.t"))


@pytest.mark.parametrize("name", [OFFSETS, POSITIONS, RETIRED])
def test_positions_of_sinks_are_never_captured(name: str) -> None:
    assert not TableFilter()(table(f"public.{name}"))
    assert not TableFilter.of({"table.include.list": rf"copy\.{name}"})(table(f"copy.{name}"))


@pytest.mark.parametrize("kind", ["schema", "table", "column"])
def test_include_and_exclude_of_one_kind_are_refused(kind: str) -> None:
    config = {f"{kind}.include.list": "a", f"{kind}.exclude.list": "b"}
    with pytest.raises(ConfigError, match=rf"{kind}\.exclude\.list"):
        (ColumnFilter if kind == "column" else TableFilter).of(config)


def test_an_expression_that_is_none_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"table\.include\.list"):
        TableFilter.of({"table.include.list": "a("})


def test_columns_are_matched_by_their_full_name() -> None:
    wanted = ColumnFilter.of({"column.exclude.list": r".*\.secret"})
    assert wanted(table("public.t"), "open")
    assert not wanted(table("public.t"), "Secret")


def test_message_key_columns_keep_the_order_of_the_option() -> None:
    keys = KeyColumns.of({"message.key.columns": r"public\.t:b,a;(.*).u:x"})
    columns = tuple(Column(name, 25) for name in "ab")
    assert keys.of_table(TableSchema(table("public.t"), columns)) == ("b", "a")
    assert keys.of_table(TableSchema(table("public.v"), columns)) is None


def test_message_key_columns_without_columns_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"message\.key\.columns"):
        KeyColumns.of({"message.key.columns": "public.t"})


def test_lists_take_all_of_javas_syntax() -> None:
    lists = Lists.of({"table.include.list": r"(?<s>\w+)\.\k<s>_[a-z&&[^x]]++"}, "table")
    assert lists.allows("orders.Orders_lines")
    assert not lists.allows("orders.orders_x")
