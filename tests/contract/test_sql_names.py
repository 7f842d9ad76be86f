"""The SQL sink's names: dots, folding, and names that could be SQL."""

from __future__ import annotations

import pytest

from cdc.errors import SinkRejected
from tests.blocks import INT32, STRING, Source, event_schema
from tests.contract.targets import PostgresTarget, SqlTarget
from tests.contract.test_sql_sink import rows, target, write

__all__ = ["target"]  # the fixture: both targets


@pytest.mark.parametrize("format_", ["${source.table}", "${source.schema}.${source.table}"])
def test_dots_in_a_tables_own_name_separate_nothing(target: SqlTarget, format_: str) -> None:
    target.options["table.name.format"] = format_
    shop = Source()
    shop.insert(event_schema("audit.log", {"id": INT32}, schema="public"), id=1)
    write(target, shop.block())
    if isinstance(target, PostgresTarget):
        assert rows(target, "audit.log") == [(1,)]
        assert not target.query("SELECT 1 FROM pg_namespace WHERE nspname = 'audit'")
    else:
        found = "audit_log" if format_ == "${source.table}" else "public_audit_log"
        assert rows(target, found) == [(1,)]


def test_names_without_quotes_are_folded_and_found_again(target: SqlTarget) -> None:
    target.options |= {"quote.sql.identifiers": "NEVER", "table.name.format": "${source.table}"}
    for offset in (0, 1):  # the second time the table is there
        shop = Source(offset=offset)
        shop.insert(event_schema("Order", {"id": INT32, "User": STRING}), id=offset, User="a")
        write(target, shop.block())
    assert rows(target, "order") == [(0, "a"), (1, "a")]
    assert set(target.query('SELECT * FROM "order"')[0]) == {"id", "user"}


HOSTILE = "x (id int); CREATE TABLE mine (id int); --"


@pytest.mark.parametrize(
    ("table", "column"), [(HOSTILE, "note"), ("items", HOSTILE), ("ünits", "note"), ("t\n", "n")]
)
def test_names_that_need_quotes_are_refused_where_there_are_none(
    target: SqlTarget, table: str, column: str
) -> None:
    target.options |= {"quote.sql.identifiers": "NEVER", "table.name.format": "${source.table}"}
    shop = Source()
    shop.insert(event_schema(table, {"id": INT32, column: STRING}), id=1, **{column: "a"})
    with pytest.raises(
        SinkRejected, match=r"needs quotes.*quote\.sql\.identifiers=ALWAYS"
    ) as caught:
        write(target, shop.block())
    assert (table if table != "items" else column) in str(caught.value)
    assert set(target.tables()) <= {"cdc_offsets"}


@pytest.mark.parametrize(
    ("class_", "in_postgres"),
    [
        ("io.debezium.connector.jdbc.JdbcSinkConnector", "cdc_srv_public_items"),
        ("io.confluent.connect.jdbc.JdbcSinkConnector", "items"),
    ],
)
def test_a_topics_dots_are_what_the_class_makes_of_them(
    target: SqlTarget, class_: str, in_postgres: str
) -> None:
    target.options |= {"connector.class": class_, "collection.name.format": "cdc_${topic}"}
    del target.options["table.name.format"]
    shop = Source()
    shop.insert(event_schema("items", {"id": INT32}, schema="public"), id=1)
    write(target, shop.block())
    expected = in_postgres if isinstance(target, PostgresTarget) else "cdc_srv_public_items"
    assert set(target.tables()) == {"cdc_offsets", expected}
    assert rows(target, expected) == [(1,)]


def test_topics_that_only_underscores_tell_apart_are_refused_with_debeziums_class(
    target: SqlTarget,
) -> None:
    target.options |= {
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "table.name.format": "${topic}",
    }
    shop = Source()
    shop.insert(event_schema("c", {"id": INT32}, schema="a_b"), id=1)
    shop.insert(event_schema("b_c", {"id": INT32}, schema="a"), id=1)
    with pytest.raises(SinkRejected, match=r"a_b\.c and a\.b_c would both be table"):
        write(target, shop.block())
