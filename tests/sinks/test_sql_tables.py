"""What the SQL sink refuses before a row is written: names that fold, keys that are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cdc.api import SinkContext
from cdc.block import Block
from cdc.connectors import SINK_CONFIG
from cdc.errors import ConfigError, SinkRejected
from schemas import EventSchema
from sinks import sql
from tests.blocks import INT32, STRING, Source, event_schema
from tests.contract.targets import COPY, PostgresTarget, SqliteTarget, SqlTarget
from tests.contract.test_sql_sink import rows, target, write
from tests.fix_postgres import Database

__all__ = ["target"]  # the fixture: both targets


def table(name: str, schema: str = "public", **columns: object) -> EventSchema:
    return event_schema(name, {"id": INT32, **columns}, schema=schema)  # type: ignore[arg-type]


# --- names ---


@pytest.mark.parametrize(
    ("one", "other", "format_", "in_postgres"),
    [
        (("Items", "public"), ("items", "public"), "${source.table}", False),
        (("a.b", "public"), ("a_b", "public"), "${source.table}", False),
        (("b", "a"), ("a_b", "public"), "${source.schema}.${source.table}", False),
        (("x", "a.b"), ("x", "b"), "${topic}", True),
    ],
)
def test_two_tables_that_would_be_one_are_refused_by_name(
    target: SqlTarget, one: tuple[str, str], other: tuple[str, str], format_: str, in_postgres: bool
) -> None:
    """At once, and after a restart."""
    target.options["table.name.format"] = format_
    blocks = []
    for offset, name in enumerate((one, other)):
        shop = Source(offset=offset)
        shop.insert(table(*name), id=1)
        blocks.append(shop.block())
    folds = isinstance(target, PostgresTarget) == in_postgres
    if format_ == "${source.schema}.${source.table}":
        folds = False  # a_b and public_a_b
    if not folds:
        write(target, *blocks)
        return
    for some in (blocks, blocks[1:]):
        with pytest.raises(SinkRejected, match=r"both be table.*table\.name\.format") as caught:
            write(target, *some)
        for name, schema in (one, other):
            assert f"{schema}.{name}" in str(caught.value)


def test_a_table_that_was_renamed_at_the_source_goes_on_once_that_is_said(tmp_path: Path) -> None:
    target, before, after = SqliteTarget(tmp_path), Source(), Source(offset=1)
    before.insert(table("Items"), id=1)
    write(target, before.block())
    after.insert(table("items"), id=2)
    renamed = after.block()
    with pytest.raises(SinkRejected, match="UPDATE cdc_offsets SET tables = NULL in the target"):
        write(target, renamed)
    target.execute("UPDATE cdc_offsets SET tables = NULL")
    write(target, renamed)
    assert rows(target) == [(1,), (2,)]


def test_another_spelling_of_the_format_and_an_older_versions_offsets_go_on(tmp_path: Path) -> None:
    target, shop = SqliteTarget(tmp_path), Source()
    for format_ in ("${source.schema}_${source.table}", "${source.schema}.${source.table}"):
        target.options["table.name.format"] = format_
        shop.insert(table("items"), id=shop.offset)
        write(target, shop.block())
    target.execute("ALTER TABLE cdc_offsets DROP COLUMN tables")
    shop.insert(table("items"), id=shop.offset)
    write(target, shop.block())
    assert rows(target, "public_items") == [(0,), (1,), (2,)]


def test_tables_of_one_name_that_the_format_makes_are_named_once(
    target: SqlTarget, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Source()
    shop.insert(table("items", "north"), id=1)
    shop.insert(table("items", "south"), id=2)
    write(target, shop.block())
    assert rows(target) == [(1,), (2,)]
    assert caplog.text.count("north.items and south.items are both copied into table items") == 1


def test_columns_that_differ_in_case_only_are_two_or_refused(target: SqlTarget) -> None:
    shop = Source()
    shop.insert(table("items", note=STRING), id=1, note="a")
    first = shop.block()
    shop.insert(table("items", note=STRING, Note=STRING), id=2, note="b", Note="B")
    if isinstance(target, PostgresTarget):
        write(target, first, shop.block())
        assert rows(target) == [(1, "a", None), (2, "b", "B")]
        return
    with pytest.raises(SinkRejected, match="note and Note would both be one column"):
        write(target, first, shop.block())


@pytest.mark.parametrize("column", ["note", "ü" * 32])
def test_names_that_postgres_would_cut_off_are_refused(target: SqlTarget, column: str) -> None:
    target.options["table.name.format"] = "x" * 60 + "${source.table}" if column == "note" else "t"
    shop = Source()
    shop.insert(table("items", **{column: STRING}), id=1, **{column: "a"})
    if isinstance(target, PostgresTarget):
        with pytest.raises(SinkRejected, match="more than 63 bytes"):
            write(target, shop.block())
    else:
        write(target, shop.block())


def test_no_table_takes_the_place_of_the_sinks_own(target: SqlTarget) -> None:
    shop = Source()
    shop.insert(table("cdc_offsets"), id=1)
    with pytest.raises(SinkRejected, match="where this sink keeps its offsets"):
        write(target, shop.block())


# --- keys ---


@pytest.mark.parametrize(
    "index",
    [
        "CREATE INDEX i ON items (id)",
        "CREATE UNIQUE INDEX i ON items (id) WHERE id > 0",
        "CREATE UNIQUE INDEX i ON items (id, note)",
        "CREATE UNIQUE INDEX i ON items (abs(id))",
        "ALTER TABLE items ADD PRIMARY KEY (id) DEFERRABLE",
    ],
)
def test_an_upsert_without_a_unique_key_in_the_target_is_refused(
    target: SqlTarget, index: str
) -> None:
    if "ALTER" in index and not isinstance(target, PostgresTarget):
        return  # SQLite has no such keys
    target.execute("CREATE TABLE items (id integer NOT NULL, note text)")
    target.execute(index)
    shop = Source()
    shop.insert(table("items", note=STRING), id=1, note="a")
    with pytest.raises(SinkRejected, match=r"no primary key or unique index of id.*partial"):
        write(target, shop.block())
    assert rows(target) == []


def test_any_unique_index_of_the_key_will_do_and_a_view_may_have_one(target: SqlTarget) -> None:
    target.execute('CREATE TABLE base ("ID" integer NOT NULL, note text)')
    target.execute('CREATE UNIQUE INDEX i ON base ("ID")')
    shop = Source()
    shop.insert(table("base", note=STRING), id=1, note="a")
    if isinstance(target, PostgresTarget):
        target.execute('CREATE VIEW items AS SELECT "ID" AS id, note FROM base')
        shop.insert(table("items", note=STRING), id=1, note="b")
    write(target, shop.block())
    assert rows(target, "base") == [(1, "b" if isinstance(target, PostgresTarget) else "a")]


def test_a_field_that_is_not_in_the_key_is_named_as_by_confluent(target: SqlTarget) -> None:
    target.options["pk.fields"] = "ID"
    shop = Source()
    shop.insert(table("items", note=STRING), id=1, note="a")
    said = (
        r"PK mode for table 'items' is RECORD_KEY with configured PK fields \[ID\], but record key"
        r" schema does not contain field: ID\. Did you mean id\?"
    )
    with pytest.raises(ConfigError, match=said):
        write(target, shop.block())


def test_a_key_that_is_no_struct_needs_one_name(target: SqlTarget) -> None:
    shop = Source()
    whole = table("items", note=STRING)
    bare = replace(whole, key=INT32)

    def events() -> Block:
        shop.insert(whole, id=1, note="a")
        shop.insert(whole, id=2, note="b")
        shop.delete(whole, id=1, note="a")
        block = shop.block()
        return replace(block, schemas=(bare,), keys=[b"1", b"2", b"1"])

    block = events()
    with pytest.raises(ConfigError, match="Need exactly one PK column defined since the key"):
        write(target, block)
    target.options["pk.fields"] = "id"
    write(target, block)
    assert rows(target) == [(2, "b")]


class Letters:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str]] = []

    def report(self, block: Block, row: int, error: Exception) -> None:
        self.told.append((block.offsets[row], str(error)))


def test_a_table_without_a_key_can_be_left_out_and_the_others_go_on(target: SqlTarget) -> None:
    shop, letters = Source(), Letters()
    loose = shop.table("log", key=[], id=INT32)
    shop.insert(table("items"), id=1)
    shop.insert(loose, id=1)
    shop.insert(loose, id=2)
    shop.insert(table("items"), id=2)
    task = target.task()
    task.start(SinkContext("copy", Path(), reporter=letters))
    task.put(shop.block())
    task.flush(4)
    task.stop()
    assert rows(target) == [(1,), (2,)]
    assert [offset for offset, _ in letters.told] == [1, 2]
    assert (
        "PK mode for table 'log' is RECORD_KEY, but record key schema is missing"
        in (letters.told[0][1])
    )


def test_more_tasks_than_one_are_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    raw = {**COPY, "name": "copy", "connector.class": "sql", "topics": "t", "tasks.max": "4",
           "connection.url": "jdbc:sqlite:x.db"}  # fmt: skip
    config = (SINK_CONFIG + sql.CONFIG).parse(raw)
    said = [warning for warning in config.warnings if "tasks.max" in warning]
    assert len(said) == 1
    assert "one task, since order is total" in said[0]


# --- tables that take no row ---

HAVE_IT_WRITABLE = "Write into a table, or a view that can be updated"
TRIGGER = (
    "CREATE TABLE items (id int PRIMARY KEY, note text);"
    " CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION 'secret %', new.id; END $$;"
    " CREATE TRIGGER no BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION no()"
)
INDEXED = "CREATE MATERIALIZED VIEW items AS SELECT 1 AS id; CREATE UNIQUE INDEX ON items (id)"


@pytest.mark.parametrize(
    ("made", "remedy"),
    [
        ("CREATE VIEW items AS SELECT 1 AS id", HAVE_IT_WRITABLE),
        (INDEXED, HAVE_IT_WRITABLE),
        ("CREATE TABLE items (id int PRIMARY KEY) PARTITION BY RANGE (id)", "a partition for"),
        (TRIGGER, "A trigger or function of the target refuses the row"),
    ],
    ids=["view", "materialized view", "partitioned", "trigger"],
)
def test_what_takes_no_row_is_refused_with_what_helps(
    database: Database, made: str, remedy: str
) -> None:
    target = PostgresTarget(database)
    target.execute(made)
    shop = Source()
    shop.insert(table("items"), id=4711)
    with pytest.raises(SinkRejected) as caught:
        write(target, shop.block())
    assert remedy in caught.value.remedy
    assert "4711" not in str(caught.value)
