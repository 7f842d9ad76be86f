"""snapshot.mode: what is read, and from where the stream goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cdc.log import JournalReader
from cdc.postgres import gather
from tests.pipeline import Pipeline, until
from tests.stepper import Stepper

TABLE = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1), (2, 2)"


def ops(events: list[Any]) -> list[str]:
    return [e.op for e in events]


@pytest.mark.parametrize("mode", ["no_data", "never"])
def test_no_data_reads_the_stream_only(database: Any, tmp_path: Path, mode: str) -> None:
    database.execute(TABLE)
    with Pipeline(tmp_path / "j", database.dsn, snapshot_mode=mode) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO t VALUES (3, 3)")
        events = pipeline.until(bool, "an event")
    assert ops(events) == ["c"]


@pytest.mark.parametrize("way", ["dsn", "socket_dsn"])
def test_initial_reads_once(database: Any, tmp_path: Path, way: str) -> None:
    database.execute(TABLE)
    for number in (3, 4):
        with Pipeline(tmp_path / "j", getattr(database, way)) as pipeline:
            pipeline.running()
            database.execute(f"INSERT INTO t VALUES ({number}, 0)")
            events = pipeline.until_agrees(database, "public.t")
    assert ops(events) == ["r", "r", "c", "c"]
    assert [e.marker for e in events] == ["first", "last", "false", "false"]


def test_always_reads_at_every_start(database: Any, tmp_path: Path) -> None:
    database.execute(TABLE)
    for number in (3, 4):

        def read_again(events: list[Any], times: int = number - 2) -> bool:
            return [e.marker for e in events].count("last") == times

        with Pipeline(tmp_path / "j", database.dsn, snapshot_mode="always") as pipeline:
            pipeline.until(read_again, "a snapshot")
            database.execute(f"INSERT INTO t VALUES ({number}, 0)")
            events = pipeline.until_agrees(database, "public.t")
    assert ops(events) == ["r", "r", "c", "r", "r", "r", "c"]


def test_initial_only_makes_no_slot(database: Any, tmp_path: Path) -> None:
    database.execute(TABLE)
    for _ in range(2):
        with Pipeline(tmp_path / "j", database.dsn, snapshot_mode="initial_only") as pipeline:
            events = pipeline.until(lambda es: len(es) == 2, "the snapshot")
            assert ops(events) == ["r", "r"]
            assert not database.execute("SELECT * FROM pg_replication_slots WHERE database ="
                                        " current_database()")  # fmt: skip
            assert not database.execute("SELECT * FROM pg_publication")


def test_initial_only_that_was_cut_begins_anew_and_so_does_what_follows_it(
    database: Any, tmp_path: Path
) -> None:
    """Of the time without a slot there are no changes: a truncate takes what may be gone."""
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, fill text);"
        "INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 1000) i; ANALYZE t"
    )
    settings = {"snapshot_chunk_rows": "100", "skipped_operations": "none"}
    stepper = Stepper(tmp_path / "j", database.dsn, snapshot_mode="initial_only", **settings)
    stepper.until_rows(300)
    stepper.close()
    for first, mode in ((1, "initial_only"), (11, "initial")):
        database.execute(f"DELETE FROM t WHERE id BETWEEN {first} AND {first + 9}")
        with Pipeline(tmp_path / "j", database.dsn, snapshot_mode=mode, **settings) as pipeline:
            events = pipeline.until_agrees(database, "public.t")
    truncates = [e.offset for e in events if e.op == "t"]
    assert len(truncates) == 2
    assert truncates == [e.offset - 1 for e in events if e.marker == "first"][1:]


def test_when_needed_reads_again_what_the_slot_has_lost(database: Any, tmp_path: Path) -> None:
    database.execute(TABLE)
    with Pipeline(tmp_path / "j", database.dsn, snapshot_mode="when_needed") as pipeline:
        pipeline.until_agrees(database, "public.t")
    database.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                     " WHERE database = current_database()")  # fmt: skip
    database.execute("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (9, 9)")
    with Pipeline(tmp_path / "j", database.dsn, snapshot_mode="when_needed") as pipeline:
        events = pipeline.until(lambda es: any(e.row == {"id": 9, "n": 9} for e in es), "row 9")
    assert ops(events) == ["r", "r", "r", "r"]


def test_a_slot_without_a_log_starts_where_it_stands(database: Any, tmp_path: Path) -> None:
    database.execute(TABLE)
    slot = "s_" + database.name
    database.execute("CREATE PUBLICATION dbz_publication FOR ALL TABLES")
    database.execute(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    database.execute("INSERT INTO t VALUES (3, 3)")
    with Pipeline(tmp_path / "a", database.dsn, snapshot_mode="no_data") as pipeline:
        events = pipeline.until(bool, "the change since")
        assert [(e.op, e.row["id"]) for e in events] == [("c", 3)]


@pytest.mark.postgres_versions(12, 18)
def test_a_slot_without_a_log_and_initial_takes_a_later_snapshot(
    database: Any, tmp_path: Path
) -> None:
    """The changes before it are in it, and are not streamed once more, crash or not."""
    database.execute(TABLE)
    slot = "s_" + database.name
    database.execute("CREATE PUBLICATION dbz_publication FOR ALL TABLES")
    database.execute(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    database.execute("INSERT INTO t VALUES (3, 3)")
    for number in (4, 5):
        with Pipeline(tmp_path / "j", database.dsn) as pipeline:
            pipeline.running()
            database.execute(f"INSERT INTO t VALUES ({number}, 0)")
            events = pipeline.until_agrees(database, "public.t")
    assert [(e.op, e.row["id"]) for e in events] == [
        ("r", 1), ("r", 2), ("r", 3), ("c", 4), ("c", 5),
    ]  # fmt: skip


def test_an_empty_database_is_captured_from_its_first_table_on(
    database: Any, tmp_path: Path
) -> None:
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.running()
        database.execute(TABLE)
        events = pipeline.until_agrees(database, "public.t")
        database.execute("CREATE TABLE empty (id int PRIMARY KEY)")
    assert ops(events) == ["c", "c"]
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO empty VALUES (1)")
        events = pipeline.until_agrees(database, "public.empty")
    assert ops(events) == ["c", "c", "c"]


def test_slot_drop_on_stop(database: Any, tmp_path: Path) -> None:
    database.execute(TABLE)
    with Pipeline(tmp_path / "j", database.dsn, slot_drop_on_stop="true") as pipeline:
        pipeline.until_agrees(database, "public.t")
    query = "SELECT * FROM pg_replication_slots WHERE database = current_database()"
    until(lambda: not database.execute(query), "the slot to go")


def test_markers_of_several_tables_that_are_stored_at_once(
    database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "GATHER_S", 60.0)
    database.execute(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);"
        "CREATE TABLE c (id int PRIMARY KEY); CREATE TABLE d (id int PRIMARY KEY);"
        "INSERT INTO a SELECT generate_series(1, 3); INSERT INTO b VALUES (1);"
        "INSERT INTO d SELECT generate_series(1, 2)"
    )
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        events = pipeline.until(lambda es: len(es) == 6, "the snapshot")
    with JournalReader(tmp_path / "j") as reader:
        block = reader.read(0)
    assert block is not None
    assert len(block) == 6
    assert [(e.table, e.marker) for e in events] == [
        ("public.a", "first"),
        ("public.a", "true"),
        ("public.a", "last_in_data_collection"),
        ("public.b", "last_in_data_collection"),
        ("public.d", "first_in_data_collection"),
        ("public.d", "last"),
    ]
