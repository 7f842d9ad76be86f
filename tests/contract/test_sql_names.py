"""The SQL sink's names: dots, folding, and names that could be SQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cdc.api import PositionMembers, SinkContext
from cdc.errors import ConfigError, SinkRejected
from tests.blocks import INT32, STRING, Source, event_schema
from tests.contract.targets import PostgresTarget, SqliteTarget, SqlTarget
from tests.contract.test_sql_sink import rows, target, write
from tests.fix_postgres import Database

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
    ("class_", "format_", "in_postgres"),
    [
        ("io.debezium.connector.jdbc.JdbcSinkConnector", "cdc_${topic}", "cdc_srv_public_items"),
        ("io.confluent.connect.jdbc.JdbcSinkConnector", "${topic}", "items"),
        ("io.confluent.connect.jdbc.JdbcSinkConnector", "${topic}_copy", "items_copy"),
        ("io.confluent.connect.jdbc.JdbcSinkConnector", "srv.public.${source.table}", "items"),
        ("io.confluent.connect.jdbc.JdbcSinkConnector", "{database}.public.mine", "mine"),
    ],
)
def test_a_topics_dots_are_what_the_class_makes_of_them(
    target: SqlTarget, class_: str, format_: str, in_postgres: str
) -> None:
    if "{database}" in format_ and isinstance(target, PostgresTarget):
        format_ = format_.replace("{database}", target.database.name)
    target.options |= {"connector.class": class_, "collection.name.format": format_}
    del target.options["table.name.format"]
    shop = Source()
    shop.insert(event_schema("items", {"id": INT32}, schema="public"), id=1)
    write(target, shop.block())
    found = in_postgres
    if isinstance(target, SqliteTarget):
        found = format_.replace("${topic}", "srv_public_items").replace(".", "_")
        found = found.replace("${source_table}", "items")
    assert set(target.tables()) == {"cdc_offsets", found}
    assert rows(target, found) == [(1,)]


@pytest.mark.parametrize("format_", ["cdc_${topic}", "backup.${topic}", "other.public.items"])
@pytest.mark.parametrize("tolerance", ["none", "all"])
def test_a_prefix_that_would_be_a_database_is_refused(
    database: Database, format_: str, tolerance: str
) -> None:
    """The prefix was dropped, and the rows went into public.items, whosever that was."""
    target = PostgresTarget(database)
    target.options |= {
        "connector.class": "io.confluent.connect.jdbc.JdbcSinkConnector",
        "table.name.format": format_,
        "errors.tolerance": tolerance,
    }
    target.execute("CREATE TABLE items (id integer PRIMARY KEY)")
    shop = Source()
    shop.insert(event_schema("items", {"id": INT32}, schema="public"), id=1)
    named = format_.replace("${topic}", "srv.public.items").rsplit(".", 2)[0]
    with pytest.raises(ConfigError, match=rf"in database {named}, and.*cdc_\$\{{source\.table"):
        write(target, shop.block())
    assert rows(target, "items") == []


class Looped(NamedTuple):
    """A target that is the source: its table, its slot, and what the journal says of them."""

    target: PostgresTarget
    origin: PositionMembers

    def write(self, *, table: str = "items", **origin: Any) -> None:
        shop = Source()
        shop.insert(event_schema(table, {"id": INT32}, schema="public"), id=1)
        task = self.target.task()
        found = {**self.origin, **origin}
        task.start(SinkContext("copy", Path(), origin=lambda _: found))  # type: ignore[arg-type,return-value]
        task.turn_to("shop")
        try:
            task.put(shop.block())
            task.flush(1)
        finally:
            task.stop()


@pytest.fixture
def looped(database: Database) -> Iterator[Looped]:
    database.execute("CREATE TABLE items (id integer PRIMARY KEY)")
    slot = f"slot_{database.name}"
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    ((system, oid),) = database.execute(
        "SELECT system_identifier::text, d.oid::int8 FROM pg_control_system(), pg_database AS d"
        " WHERE datname = current_database()"
    )
    target = PostgresTarget(database, **{"auto.create": "true"})
    yield Looped(target, {"system": system, "database": oid, "slot": slot, "lsn": 1})
    database.execute("SELECT pg_drop_replication_slot(%s)", [slot])


@pytest.mark.parametrize("format_", ["${source.table}", "${topic}", "public.${source.table}"])
def test_a_sink_does_not_write_into_the_very_table_its_source_captures(
    looped: Looped, format_: str
) -> None:
    looped.target.options["table.name.format"] = format_
    with pytest.raises(ConfigError, match=r"public\.items .*feedback loop.*connection\.url"):
        looped.write()
    assert looped.target.query("SELECT * FROM items") == []


@pytest.mark.parametrize(
    "differs", [{"system": "1"}, {"database": 1}, {"slot": "gone", "system": ""}]
)
def test_a_table_of_the_same_name_on_another_server_or_in_another_database_is_none_of_it(
    looped: Looped, differs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    looped.write(**differs)
    assert looped.target.query("SELECT * FROM items") == [{"id": 1}]
    assert "feedback" not in caplog.text


def test_a_copy_of_the_sources_disk_is_named_and_written(
    looped: Looped, caplog: pytest.LogCaptureFixture
) -> None:
    looped.write(slot="left_at_home")
    assert looped.target.query("SELECT * FROM items") == [{"id": 1}]
    assert "not the slot left_at_home" in caplog.text


def test_another_table_of_the_sources_own_database_is_written(looped: Looped) -> None:
    looped.target.options["table.name.format"] = "${source.table}_copy"
    looped.write()
    assert looped.target.query("SELECT * FROM items_copy") == [{"id": 1}]


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
