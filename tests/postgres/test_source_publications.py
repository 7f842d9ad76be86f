"""What the publication says decides, for snapshot and stream alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cdc.errors import SourceError
from cdc.postgres import source
from tests.pipeline import Copy, Pipeline, until

TABLES = """
CREATE TABLE a (id int PRIMARY KEY, n int);
CREATE TABLE b (id int PRIMARY KEY, n int);
INSERT INTO a VALUES (1, 1);
INSERT INTO b VALUES (1, 1);
"""


def published(database: Any) -> list[str]:
    rows = database.execute("SELECT tablename FROM pg_publication_tables ORDER BY 1")
    return [name for (name,) in rows]


@pytest.mark.postgres_versions(14, 18)  # pgoutput has messages from 14 on
@pytest.mark.parametrize(
    ("mode", "tables"), [("all_tables", ["a", "b"]), ("filtered", ["a"]), ("no_tables", [])]
)
def test_autocreate_modes(database: Any, tmp_path: Path, mode: str, tables: list[str]) -> None:
    database.execute(TABLES)
    settings = {"publication_autocreate_mode": mode, "publication_name": "p"}
    if mode != "no_tables":
        settings["table_include_list"] = "public.a"
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.running()
        assert published(database) == tables
        database.execute("INSERT INTO b VALUES (2, 2)")
        database.execute("INSERT INTO a VALUES (2, 2)")
        if mode == "no_tables":
            database.execute("SELECT pg_logical_emit_message(true, 'end', 'x')")
            events = pipeline.until(lambda es: es and es[-1].op == "m", "the message")
            assert [e.op for e in events] == ["m"]
        else:
            events = pipeline.until_agrees(database, "public.a")
            assert {e.table for e in events} == {"public.a"}


@pytest.mark.parametrize("mode", ["all_tables", "filtered"])
def test_the_publication_is_there_before_the_slot(database: Any, tmp_path: Path, mode: str) -> None:
    """Else the first changes of a slot would be decoded without it, which the server refuses."""
    database.execute(TABLES)
    begun = (
        "SELECT 1 FROM pg_replication_slots WHERE database = current_database()"
        " AND confirmed_flush_lsn IS NULL"
    )
    pipeline = Pipeline(tmp_path / "j", database.dsn, publication_autocreate_mode=mode)
    with database.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO a VALUES (2, 2)")  # the slot waits for its end
        pipeline.start()
        until(lambda: database.execute(begun), "the slot's beginning")
        there = published(database)
    pipeline.until_agrees(database, "public.a")
    pipeline.stop()
    assert there == ["a", "b"]


def test_a_disabled_autocreate_takes_what_is_there(database: Any, tmp_path: Path) -> None:
    database.execute(TABLES + "CREATE PUBLICATION mine FOR TABLE a")
    settings = {"publication_autocreate_mode": "disabled", "publication_name": "mine"}
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO b VALUES (2, 2)")
        database.execute("INSERT INTO a VALUES (2, 2)")
        events = pipeline.until_agrees(database, "public.a")
    assert {e.table for e in events} == {"public.a"}


def test_filtered_follows_the_lists_on_the_next_start(database: Any, tmp_path: Path) -> None:
    database.execute(TABLES)
    settings = {"publication_autocreate_mode": "filtered"}
    with Pipeline(
        tmp_path / "j", database.dsn, table_include_list="public.a", **settings
    ) as pipeline:
        pipeline.until_agrees(database, "public.a")
        assert published(database) == ["a"]
    database.execute("UPDATE b SET n = 7")
    with Pipeline(
        tmp_path / "j", database.dsn, table_include_list="public.a,public.b", **settings
    ) as pipeline:
        pipeline.running()
        assert published(database) == ["a", "b"]
        database.execute("UPDATE b SET n = n + 1")
        pipeline.until_agrees(database, "public.a", "public.b")


@pytest.mark.postgres_versions(15, 18)
def test_filtered_leaves_row_filters_and_column_lists_as_they_are(
    database: Any, tmp_path: Path
) -> None:
    """Whoever wrote them keeps rows and columns from the stream: they stay when tables come."""
    name = 'a "\u00fc"'
    database.execute(
        'CREATE TABLE "a ""\u00fc""" (id int PRIMARY KEY, "N" int, s text);'
        + TABLES.replace("TABLE a", "TABLE c").replace("INTO a", "INTO c")
    )
    listed = '"a ""\u00fc""" (id, "N") WHERE ("N" % 2 = 0 AND id <> ALL (\'{7}\'))'
    database.execute(
        f'INSERT INTO "a ""\u00fc""" SELECT i, i, i FROM generate_series(1, 8) i;'
        f"CREATE PUBLICATION dbz_publication FOR TABLE {listed}, c"
    )
    before = database.execute("SELECT prrelid, prqual, prattrs::text FROM pg_publication_rel"
                              " WHERE prattrs IS NOT NULL")  # fmt: skip
    settings = {"publication_autocreate_mode": "filtered", "table_exclude_list": "public.c"}
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        events = pipeline.until(lambda es: len(es) >= 5, "the snapshot")
        assert published(database) == [name, "b"]
    after = database.execute("SELECT prrelid, prqual, prattrs::text FROM pg_publication_rel"
                             " WHERE prattrs IS NOT NULL")  # fmt: skip
    assert after == before
    rows = [e.row for e in events if e.table == f"public.{name}"]
    assert rows == [{"id": i, "N": i} for i in (2, 4, 6, 8)]


@pytest.mark.postgres_versions(12, 18)
def test_a_table_that_is_taken_out_while_it_streams_is_named(
    database: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two sources that filter one publication take each other's tables out."""
    monkeypatch.setattr(source, "TABLES_INTERVAL_S", 0.1)
    database.execute(TABLES)
    settings = {"publication_autocreate_mode": "filtered"}
    first = {**settings, "table_include_list": "public.a"}
    second = {**settings, "table_include_list": "public.b", "slot_name": f"b_{database.name}"}
    with Pipeline(tmp_path / "a", database.dsn, **first) as pipeline:
        pipeline.until_agrees(database, "public.a")
        with Pipeline(tmp_path / "b", database.dsn, **second) as other:
            other.running()
        until(lambda: "public.a: taken out of the publication" in caplog.text, "the warning")
    assert "public.b: taken out" not in caplog.text


def test_exclude_lists_of_tables_schemas_and_columns(database: Any, tmp_path: Path) -> None:
    database.execute(
        TABLES + "CREATE SCHEMA other; CREATE TABLE other.c (id int PRIMARY KEY, secret text,"
        " shown text); INSERT INTO other.c VALUES (1, 's', 'v');"
        "CREATE SCHEMA gone; CREATE TABLE gone.d (id int PRIMARY KEY); INSERT INTO gone.d VALUES(1)"
    )
    settings = {
        "table_exclude_list": "public.b",
        "column_exclude_list": "other.c.secret",
        "schema_exclude_list": "gone",
    }
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO other.c VALUES (2, 's2', 'v2')")
        database.execute("INSERT INTO b VALUES (5, 5); INSERT INTO gone.d VALUES (5)")
        database.execute("INSERT INTO a VALUES (5, 5)")
        events = pipeline.until_agrees(database, "public.a")
    assert {e.table for e in events} == {"public.a", "other.c"}
    rows = [e.row for e in events if e.table == "other.c"]
    assert rows == [{"id": 1, "shown": "v"}, {"id": 2, "shown": "v2"}]


@pytest.mark.postgres_versions(15, 18)
def test_column_lists_and_row_filters_hold_for_the_snapshot_too(
    database: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int, hidden text);"
        "INSERT INTO t VALUES (1, 1, 'x'), (2, 50, 'x');"
        "CREATE PUBLICATION p FOR TABLE t (id, n) WHERE (id > 1)"
    )
    settings = {"publication_autocreate_mode": "disabled", "publication_name": "p"}
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO t VALUES (0, 7, 'x'), (3, 60, 'x')")
        events = pipeline.until(lambda es: len(es) >= 2, "snapshot and stream")
    assert [e.row for e in events] == [{"id": 2, "n": 50}, {"id": 3, "n": 60}]
    assert "public.t: the publication filters its rows: (id > 1)" in caplog.text
    assert "public.t: the publication's column list leaves out hidden" in caplog.text
    assert "does not publish" not in caplog.text


@pytest.mark.parametrize(
    "case",
    [
        ("insert", "t", "does not publish update, delete:"),
        ("insert, update, delete", "none", "does not publish truncate:"),
        ("insert, update", "d,t", ""),
        ("insert, update, delete", "t", ""),
    ],
)
def test_operations_that_are_not_published_are_named(
    database: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, case: tuple[str, str, str]
) -> None:
    publish, skipped, said = case
    database.execute(TABLES + f"CREATE PUBLICATION p FOR TABLE a, b WITH (publish = '{publish}')")
    settings = {"publication_autocreate_mode": "disabled", "publication_name": "p"}
    settings["skipped_operations"] = skipped
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.until_agrees(database, "public.a", "public.b")
        database.execute("INSERT INTO a VALUES (2, 2)")
        pipeline.until_agrees(database, "public.a")
    assert (said in caplog.text) if said else ("does not publish" not in caplog.text)


def test_a_type_without_a_form_is_named_once_per_column(
    database: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, x xid, y xid); INSERT INTO t VALUES (1, '1', '2')"
    )
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until(bool, "the snapshot")
        database.execute("INSERT INTO t VALUES (2); INSERT INTO t VALUES (3)")
        events = pipeline.until(lambda es: len(es) == 3, "the stream")
    assert [e.row for e in events] == [{"id": 1}, {"id": 2}, {"id": 3}]
    said = [r.getMessage().partition(":")[0] for r in caplog.records if "no form" in r.msg]
    assert said == ["public.t.x is left out", "public.t.y is left out"]
    assert "left out" not in capfd.readouterr().err, "nor by the snapshot's readers"


@pytest.mark.postgres_versions(18)  # publish_generated_columns
def test_generated_columns_are_captured_where_the_stream_has_them(
    database: Any, tmp_path: Path
) -> None:
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);"
        "CREATE TABLE u (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);"
        "INSERT INTO t VALUES (1); INSERT INTO u VALUES (1);"
        "CREATE PUBLICATION p FOR TABLE t WITH (publish_generated_columns = stored);"
        "CREATE PUBLICATION q FOR TABLE u"
    )
    for publication, row in (("p", {"id": 1, "twice": 2}), ("q", {"id": 1})):
        settings = {"publication_autocreate_mode": "disabled", "publication_name": publication}
        settings["slot_name"] = f"s_{database.name}_{publication}"
        table = "t" if publication == "p" else "u"
        with Pipeline(tmp_path / publication, database.dsn, **settings) as pipeline:
            pipeline.running()
            database.execute(f"INSERT INTO {table} VALUES (2)")
            events = pipeline.until(lambda es: len(es) >= 2, "snapshot and stream")
        assert events[0].row == row
        assert events[0].fields == events[1].fields


@pytest.mark.parametrize(
    "settings",
    [
        {"column_include_list": "public.t.id,public.t.shown", "table_include_list": "public.t"},
        {"schema_include_list": "public", "column_exclude_list": r"public\.t\.secret"},
    ],
    ids=["columns", "schemas"],
)
def test_include_lists_hold_for_snapshot_and_stream(
    database: Any, tmp_path: Path, settings: dict[str, str]
) -> None:
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, secret text, shown text);"
        "INSERT INTO t VALUES (1, 's', 'v');"
        "CREATE SCHEMA other; CREATE TABLE other.t (id int PRIMARY KEY, shown text);"
        "INSERT INTO other.t VALUES (1, 'v')"
    )
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO other.t VALUES (2, 'x')")
        database.execute("INSERT INTO t VALUES (2, 's', 'x')")
        database.execute("UPDATE t SET shown = 'y', secret = 'z' WHERE id = 1")
        events = pipeline.until(lambda es: len(es) >= 3, "snapshot and stream")
    assert [(e.op, e.table, e.row) for e in events] == [
        ("r", "public.t", {"id": 1, "shown": "v"}),
        ("c", "public.t", {"id": 2, "shown": "x"}),
        ("u", "public.t", {"id": 1, "shown": "y"}),
    ]


PARTITIONED = """
CREATE TABLE parts (id int, day int, n int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
INSERT INTO parts VALUES (1, 1, 1), (2, 11, 1);
"""


def test_partitions_are_tables_of_their_own(database: Any, tmp_path: Path) -> None:
    database.execute(PARTITIONED)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO parts VALUES (3, 2, 1)")
        # an update that moves a row to another partition is a delete and an insert
        database.execute("UPDATE parts SET day = 12 WHERE id = 1")
        events = pipeline.until_agrees(database, "public.parts_1", "public.parts_2")
    assert {e.table for e in events} == {"public.parts_1", "public.parts_2"}


@pytest.mark.postgres_versions(15, 18)
@pytest.mark.parametrize("mode", ["filtered", "all_tables"])
def test_partitions_can_appear_as_their_root(database: Any, tmp_path: Path, mode: str) -> None:
    database.execute(PARTITIONED)
    settings = {
        "publication_autocreate_mode": mode,
        "publish_via_partition_root": "true",
        "table_include_list": "public.parts",
    }
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO parts VALUES (3, 2, 1)")
        database.execute("UPDATE parts SET day = 12 WHERE id = 1")
        database.execute("CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (20) TO (30)")
        database.execute("INSERT INTO parts VALUES (4, 21, 1)")
        events = pipeline.until_agrees(database, "public.parts")
    assert {e.table for e in events} == {"public.parts"}
    assert Copy.of(events).rows("public.parts") == sorted(database.execute("SELECT * FROM parts"))


def test_an_unlogged_table_is_left_out(database: Any, tmp_path: Path) -> None:
    database.execute(TABLES + "CREATE UNLOGGED TABLE u (id int); INSERT INTO u VALUES (1)")
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        events = pipeline.until_agrees(database, "public.a", "public.b")
    assert {e.table for e in events} == {"public.a", "public.b"}


def test_a_missing_publication_may_not_be_made(database: Any, tmp_path: Path) -> None:
    database.execute(TABLES)
    with (
        pytest.raises(SourceError, match=r"does not exist.*CREATE PUBLICATION"),
        Pipeline(tmp_path / "j", database.dsn, publication_autocreate_mode="disabled") as pipeline,
    ):
        pipeline.running()
