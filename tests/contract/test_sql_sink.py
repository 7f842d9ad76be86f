"""The SQL sink's own behaviour: its keys, tables it finds, errors it names, two tasks at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.block import Block
from cdc.errors import SinkRejected, SinkUnavailable
from schemas import EventSchema
from sinks import sql
from sinks.sql_rows import Writer
from tests.blocks import INT32, STRING, Source, event_schema, optional
from tests.contract.targets import COPY, PostgresTarget, SqliteTarget, SqlTarget, started
from tests.fix_postgres import Database


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlTarget]:
    if request.param == "sqlite":
        yield SqliteTarget(tmp_path)
    else:
        yield PostgresTarget(request.getfixturevalue("database"))


def items(shop: Source, **more: Any) -> EventSchema:
    return shop.table("items", id=INT32, note=optional(STRING), **more)


def write(target: SqlTarget, *blocks: Block) -> None:
    task = started(target)
    for block in blocks:
        task.put(block)
        task.flush(block.offsets[-1] + 1)
    task.stop()


def rows(target: SqlTarget, table: str = "items") -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in target.query(f'SELECT * FROM "{table}" ORDER BY 1')]


# --- keys and tables ---


def test_a_missing_table_is_named_unless_it_may_be_created(target: SqlTarget) -> None:
    target.options["auto.create"] = "false"
    shop = Source()
    shop.insert(items(shop), id=1)
    with pytest.raises(SinkRejected, match=r'table "items" does not exist.*auto\.create=true'):
        write(target, shop.block())


def test_a_missing_column_is_named_unless_it_may_be_added(target: SqlTarget) -> None:
    target.execute("CREATE TABLE items (id integer PRIMARY KEY)")
    target.options["auto.evolve"] = "false"
    shop = Source()
    shop.insert(items(shop), id=1, note="a")
    block = shop.block()
    with pytest.raises(SinkRejected, match=r"no column for note.*auto\.evolve=true"):
        write(target, block)
    target.options["auto.evolve"] = "true"
    write(target, block)
    assert rows(target) == [(1, "a")]


def test_an_added_column_gives_old_rows_the_default_and_leaves_unicode_alone(
    target: SqlTarget,
) -> None:
    shop = Source()
    shop.insert(items(shop), id=1, note="a")
    first = shop.block()
    wider = items(shop, extra=optional(STRING, "it's ü"), number=optional(INT32))
    shop.insert(wider, id=2, note="b")
    # The old structure may come once more, from a block that was cut before.
    write(target, first, shop.block())
    assert rows(target) == [(1, "a", "it's ü", None), (2, "b", None, None)]


def test_a_structure_that_changes_inside_a_block_keeps_the_order(target: SqlTarget) -> None:
    shop = Source()
    old, new = items(shop), items(shop, extra=optional(STRING))
    shop.insert(old, id=1, note="a")
    shop.update(new, id=1, note="b", extra="x")
    shop.insert(old, id=2, note="c")
    shop.delete(new, id=1)
    shop.insert(new, id=1, note="d", extra="y")
    write(target, shop.block())
    assert rows(target) == [(1, "d", "y"), (2, "c", None)]


@pytest.mark.parametrize("format_", ["${topic}", "copy_of_${source.schema}_${source.table}"])
def test_tables_are_named_by_the_format(target: SqlTarget, format_: str) -> None:
    target.options["table.name.format"] = format_
    shop = Source()
    table = event_schema("items", {"id": INT32}, schema="inv")
    shop.insert(table, id=1)
    write(target, shop.block())
    expected = "copy_of_inv_items"
    if format_ == "${topic}":
        expected = "srv_inv_items" if isinstance(target, SqliteTarget) else 'inv"."items'
    assert rows(target, expected) == [(1,)]


def test_awkward_names_of_tables_and_columns_are_quoted(target: SqlTarget) -> None:
    shop = Source()
    name = 'per%cent "x" {y}'
    table = event_schema(name, {"id": INT32, '50% "off" ü': STRING, "select": STRING})
    shop.insert(table, id=1, **{'50% "off" ü': "a", "select": "b"})
    shop.update(table, id=1, unchanged=["select"], **{'50% "off" ü': "c"})
    first = shop.block()
    shop.update(table, id=1, unchanged=["select"], **{'50% "off" ü': "d"})
    shop.delete(table, id=2)
    shop.truncate(event_schema("other%", {"id": INT32}))
    write(target, first, shop.block())
    assert rows(target, name.replace('"', '""')) == [(1, "d", "b")]


def test_only_listed_fields_are_written_and_the_key(target: SqlTarget) -> None:
    target.options["fields.whitelist"] = "note"
    shop = Source()
    shop.insert(items(shop, secret=STRING), id=1, note="a", secret="x")
    write(target, shop.block())
    assert [row.keys() for row in target.query("SELECT * FROM items")] == [
        {"id": 1, "note": 1}.keys()
    ]


def test_a_key_column_that_is_not_in_the_row_comes_from_the_key(target: SqlTarget) -> None:
    shop = Source()
    whole = event_schema("items", {"id": INT32, "note": STRING})
    narrow = event_schema("items", {"note": STRING}, ())
    narrow = EventSchema(**{**narrow.__dict__, "key": whole.key})
    shop.insert(narrow, id=7, note="a")
    shop.update(narrow, id=7, note="b")
    block = shop.block()
    shop.delete(narrow, id=7, note="b")
    write(target, block)
    assert rows(target) == [(7, "b")]
    write(target, shop.block())
    assert rows(target) == []


def test_part_of_a_key_and_a_values_columns_can_be_the_key(target: SqlTarget) -> None:
    shop = Source()
    table = shop.table("items", key=["id", "note"], id=INT32, note=STRING, n=INT32)
    shop.insert(table, id=1, note="a", n=1)
    shop.insert(table, id=1, note="b", n=2)
    block = shop.block()
    for name, options in (
        ("one", {"pk.fields": "id"}),
        ("two", {"pk.mode": "record_value", "pk.fields": "n,id", "delete.enabled": "false"}),
    ):
        target.options = {**COPY, "table.name.format": name, **options}
        task = target.task()
        task.start(_context(name))
        task.put(block)
        task.flush(2)
        task.stop()
    assert rows(target, "one") == [(1, "b", 2)]
    assert rows(target, "two") == [(1, 1, "a"), (2, 1, "b")]


def _context(name: str) -> Any:
    from cdc.api import SinkContext

    return SinkContext(name, Path())


def test_insert_mode_appends_every_row(target: SqlTarget) -> None:
    target.options |= {"insert.mode": "insert", "pk.mode": "none", "delete.enabled": "false"}
    shop = Source()
    table = items(shop)
    shop.insert(table, id=1, note="a")
    shop.update(table, id=1, note="b")
    shop.delete(table, id=1)
    write(target, shop.block())
    assert rows(target) == [(1, "a"), (1, "b")]


def test_insert_mode_with_a_key_keeps_the_order_of_deletes(target: SqlTarget) -> None:
    target.options |= {"insert.mode": "insert"}
    shop = Source()
    table = items(shop)
    shop.insert(table, id=9)
    shop.truncate(table)
    shop.insert(table, id=1, note="a")
    shop.delete(table, id=1)
    shop.insert(table, id=1, note="b")
    write(target, shop.block())
    assert rows(target) == [(1, "b")]
    shop.insert(table, id=1, note="c")
    with pytest.raises(SinkRejected, match=r"offset 5 \(key columns: id\).*insert\.mode=upsert"):
        write(target, shop.block())


def test_update_mode_changes_only_rows_that_are_there(target: SqlTarget) -> None:
    shop = Source()
    table = items(shop)
    shop.insert(table, id=1, note="a")
    write(target, shop.block())
    target.options["insert.mode"] = "update"
    shop.insert(table, id=1, note="b")
    shop.insert(table, id=2, note="c")
    write(target, shop.block())
    assert rows(target) == [(1, "b")]


def test_kafka_mode_keeps_topic_and_offset(target: SqlTarget) -> None:
    target.options |= {"pk.mode": "kafka", "delete.enabled": "false"}
    shop = Source(offset=5)
    table = items(shop)
    shop.insert(table, id=1, note="a")
    shop.update(table, id=1, note="b")
    write(target, shop.block())
    topic = "srv.public.items"
    found = sorted(rows(target), key=lambda row: row[2])
    assert found == [(topic, 0, 5, 1, "a"), (topic, 0, 6, 1, "b")]


def test_without_deletes_nothing_is_removed(target: SqlTarget) -> None:
    target.options["delete.enabled"] = "false"
    shop = Source()
    table = items(shop)
    shop.insert(table, id=1)
    shop.delete(table, id=1)
    shop.truncate(table)
    write(target, shop.block())
    assert rows(target) == [(1, None)]


def test_a_table_without_a_key_is_named(target: SqlTarget) -> None:
    shop = Source()
    shop.insert(shop.table("log", key=[], id=INT32), id=1)
    with pytest.raises(SinkRejected, match=r"srv\.public\.log have no key"):
        write(target, shop.block())


def test_a_column_that_must_not_be_null_does_not_stop_a_row_with_unsent_values(
    target: SqlTarget,
) -> None:
    target.execute("CREATE TABLE items (id integer PRIMARY KEY, note text, big text NOT NULL)")
    shop = Source()
    table = items(shop, big=STRING)
    shop.insert(table, id=1, note="a", big="x")
    first = shop.block()
    shop.update(table, id=1, note="b", unchanged=["big"])
    write(target, first, shop.block())
    assert rows(target) == [(1, "b", "x")]


@pytest.mark.parametrize("blocks", ["one", "several"])
def test_a_key_change_takes_unsent_values_along(target: SqlTarget, blocks: str) -> None:
    shop = Source()
    table = items(shop, big=optional(STRING))
    out = []

    def cut() -> None:
        if blocks == "several":
            out.append(shop.block())

    shop.insert(table, id=1, note="a", big="x")
    shop.insert(table, id=2, note="b", big="y")
    cut()
    shop.begin()  # two rows change places
    for old, new in ((1, -1), (2, 1), (-1, 2)):
        shop.change_key(table, {"id": old}, {"id": new, "note": "c"}, unchanged=["big"])
    shop.commit()
    cut()
    shop.update(table, id=1, note="d", unchanged=["big"])
    shop.change_key(table, {"id": 2}, {"id": 7, "note": "e"}, unchanged=["big"])
    shop.insert(table, id=2, note="f", big="z")
    out.append(shop.block())
    write(target, *out)
    assert rows(target) == [(1, "d", "y"), (2, "f", "z"), (7, "e", "x")]


def test_a_unique_value_that_moves_between_rows_gets_through(target: SqlTarget) -> None:
    target.execute("CREATE TABLE items (id integer PRIMARY KEY, note text UNIQUE)")
    shop = Source()
    table = items(shop)
    shop.insert(table, id=1, note="a")
    shop.insert(table, id=2, note="b")
    first = shop.block()
    # By key the last states are (1, b) and (2, c); in this order 1 would meet the old 2.
    shop.update(table, id=1, note="x")
    shop.update(table, id=2, note="c")
    shop.update(table, id=1, note="b")
    write(target, first, shop.block())
    assert rows(target) == [(1, "b"), (2, "c")]


# --- errors ---


def test_a_refused_row_is_named_by_offset_and_never_shown(target: SqlTarget) -> None:
    target.execute("CREATE TABLE items (id integer PRIMARY KEY, note text NOT NULL)")
    shop = Source()
    table = items(shop)
    shop.insert(table, id=1, note="fine")
    shop.insert(table, id=4711, note=None)
    block = shop.block()
    task = started(target)
    with pytest.raises(SinkRejected, match=r'table "items": the row at offset 1 ') as caught:
        task.put(block)
    assert "4711" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "Allow NULL" in caught.value.remedy
    task.stop()
    assert rows(target) == []


def test_a_target_with_another_key_is_refused_with_its_remedy(database: Database) -> None:
    target = PostgresTarget(database)
    target.execute("CREATE TABLE items (id integer, note text)")
    shop = Source()
    shop.insert(items(shop), id=1)
    with pytest.raises(SinkRejected, match=r"no primary key or unique index of id"):
        write(target, shop.block())


def test_a_locked_sqlite_file_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.sql_sqlite.BUSY_TIMEOUT_MS", 10)
    target = SqliteTarget(tmp_path)
    shop = Source()
    shop.insert(items(shop), id=1)
    block = shop.block()
    task = started(target)
    other = sqlite3.connect(target.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(SinkUnavailable, match="SQLITE_BUSY") as caught:
        task.put(block)
    assert caught.value.retry_after_s == 0.01
    other.execute("ROLLBACK")
    other.close()
    task.put(block)
    task.flush(1)
    task.stop()
    assert rows(target) == [(1, None)]


def kill_sessions(database: Database) -> None:
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name LIKE 'cdc %' AND datname = current_database()"
    )


def test_a_lost_connection_is_retried_with_the_same_block(database: Database) -> None:
    target = PostgresTarget(database)
    shop = Source()
    table = items(shop)
    shop.insert(table, id=1)
    first = shop.block()
    shop.insert(table, id=2)
    second = shop.block()
    task = started(target)
    task.put(first)
    task.flush(1)
    kill_sessions(database)
    with pytest.raises(SinkUnavailable):
        task.put(second)
    task.put(second)
    task.flush(2)
    task.stop()
    assert rows(target) == [(1, None), (2, None)]


def test_a_connection_lost_with_rows_in_it_restarts_the_task(database: Database) -> None:
    target = PostgresTarget(database)
    shop = Source()
    table = items(shop)
    shop.insert(table, id=1)
    first = shop.block()
    shop.insert(table, id=2)
    task = started(target)
    task.put(first)
    kill_sessions(database)
    with pytest.raises(sql.TransactionLost) as caught:
        task.put(shop.block())
    assert caught.value.retriable
    task.stop()
    task = started(target)
    assert task.stored_offset() is None
    task.stop()


def test_a_flush_that_fails_is_settled_by_starting_again(database: Database) -> None:
    target = PostgresTarget(database)
    shop = Source()
    shop.insert(items(shop), id=1)
    block = shop.block()
    task = started(target)
    task.put(block)
    kill_sessions(database)
    with pytest.raises(SinkUnavailable):
        task.flush(1)
    task.stop()
    task.start(_context("copy"))
    assert task.stored_offset() is None
    task.put(block)
    task.flush(1)
    task.stop()
    assert rows(target) == [(1, None)]


def test_a_block_that_failed_behind_its_inner_commit_is_continued_there(
    target: SqlTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.options |= {"insert.mode": "insert", "pk.mode": "none", "delete.enabled": "false"}
    shop = Source()
    table = items(shop)
    shop.insert(table, id=1)
    shop.begin()
    shop.insert(table, id=2)
    first = shop.block()
    shop.insert(table, id=3)
    shop.commit()
    task = started(target)
    real, calls = Writer.write, []

    def fails_once(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            error = sqlite3.OperationalError if "sqlite" in target.url else psycopg.OperationalError
            broken = error("scripted")
            vars(broken)["sqlite_errorcode"] = sqlite3.SQLITE_BUSY
            raise broken
        real(*arguments)

    monkeypatch.setattr(Writer, "write", fails_once)
    with pytest.raises(SinkUnavailable):
        task.put(first)
    assert task.stored_offset() == 1
    task.put(first)
    task.put(shop.block())
    task.flush(3)
    task.stop()
    assert rows(target) == [(1, None), (2, None), (3, None)]


def test_a_server_that_is_not_there_is_waited_for_and_shows_no_password() -> None:
    url = "jdbc:postgresql://127.0.0.1:1/x?connectTimeout=2"
    raw = {**COPY, "connection.url": url, "connection.user": "u", "connection.password": "hunter2"}
    task = sql.SqlSinkTask(sql.CONFIG.parse(raw))
    for _ in range(2):
        with pytest.raises(SinkUnavailable) as caught:
            task.start(_context("x"))
        assert "hunter2" not in str(caught.value)
    with pytest.raises(sql.TransactionLost, match=r"max\.retries"):
        task.start(_context("x"))
    task.stop()


def test_a_second_task_of_the_same_connector_is_found_out(target: SqlTarget) -> None:
    shop = Source()
    table = items(shop)
    shop.insert(table, id=1)
    block = shop.block()
    one, two = started(target), started(target)
    one.put(block)
    one.flush(1)
    two.put(block)
    with pytest.raises(sql.TransactionLost, match="another task"):
        two.flush(1)
    one.stop()
    two.stop()


def test_connectors_in_one_target_have_offsets_of_their_own(target: SqlTarget) -> None:
    shop = Source()
    shop.insert(items(shop), id=1)
    block = shop.block()
    one, two = started(target, "one"), started(target, "two")
    one.put(block)
    one.flush(1)
    assert (one.stored_offset(), two.stored_offset()) == (1, None)
    one.stop()
    two.stop()
