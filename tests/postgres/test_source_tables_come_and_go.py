"""Tables added, left out, dropped, made again and rewritten, before, while and after a snapshot."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from cdc.api import SinkContext
from cdc.errors import ConnectionLost
from cdc.log import JournalReader
from cdc.postgres import source
from tests.contract.targets import SqliteTarget
from tests.pipeline import Copy, Pipeline, source_rows, until, workload
from tests.postgres.servers_of_tests import Plain
from tests.stepper import Stepper

TABLES = """
CREATE TABLE a (id int PRIMARY KEY, n int);
CREATE TABLE b (id int PRIMARY KEY, n int);
INSERT INTO a SELECT i, 0 FROM generate_series(1, 100) i;
INSERT INTO b SELECT i, 0 FROM generate_series(1, 100) i;
"""


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "TABLES_INTERVAL_S", 0.1)


@pytest.mark.postgres_versions(12, 18)
def test_a_table_added_to_the_publication_is_read_while_the_stream_goes_on(
    database: Any, tmp_path: Path
) -> None:
    database.execute(TABLES + "CREATE PUBLICATION p FOR TABLE a")
    settings = {"publication_name": "p", "publication_autocreate_mode": "disabled"}
    turns = itertools.count(1000)

    def work(connection: Any) -> None:
        turn = next(turns)
        connection.execute(f"UPDATE a SET n = n + 1 WHERE id = {turn % 100 + 1}")
        connection.execute(f"UPDATE b SET n = n + 1 WHERE id = {turn % 100 + 1}")
        connection.execute(f"INSERT INTO b VALUES ({turn}, 0)")

    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.until(lambda es: len(es) >= 100, "the first snapshot")
        with workload(work, database):
            pipeline.until(lambda es: len(es) > 150, "the stream")
            database.execute("ALTER PUBLICATION p ADD TABLE b")
            pipeline.until(
                lambda es: any(e.table == "public.b" and e.op == "u" for e in es), "b's stream"
            )
        events = pipeline.until_agrees(database, "public.a", "public.b")
    reads = [e for e in events if e.op == "r"]
    assert len([e for e in reads if e.table == "public.a"]) == 100
    assert len([e for e in reads if e.table == "public.b"]) >= 100
    streamed = [(e.lsn, e.ordinal) for e in events if e.marker == "false"]
    assert len(streamed) == len(set(streamed))


@pytest.mark.slow
def test_a_long_transaction_holds_up_the_later_snapshot_but_not_the_connection(
    start_postgres: Any, tmp_path: Path
) -> None:
    server = start_postgres(18, fsync=False, wal_sender_timeout="1s")
    with server:
        database = Plain(server)
        database.execute(TABLES + "CREATE PUBLICATION p FOR TABLE a")
        settings = {"publication_name": "p", "publication_autocreate_mode": "disabled"}
        with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
            pipeline.until(lambda es: len(es) >= 100, "the first snapshot")
            with database.connect() as other, other.transaction():
                other.execute("UPDATE a SET n = 5 WHERE id = 1")
                database.execute("ALTER PUBLICATION p ADD TABLE b")
                until(
                    lambda: database.execute(
                        "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'transactionid'"
                    ),
                    "the slot's wait",
                )
                database.wait_s(3)  # three times wal_sender_timeout
            pipeline.until_agrees(database, "public.a", "public.b")
        assert pipeline.error is None


def test_a_newly_included_table_is_read_at_the_next_start(database: Any, tmp_path: Path) -> None:
    database.execute(TABLES)
    with Pipeline(tmp_path / "j", database.dsn, table_include_list="public.a") as pipeline:
        pipeline.until_agrees(database, "public.a")
    database.execute("UPDATE b SET n = 3 WHERE id = 3; UPDATE a SET n = 3 WHERE id = 3")
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.running()
        database.execute("UPDATE b SET n = 4 WHERE id = 4")
        events = pipeline.until_agrees(database, "public.a", "public.b")
    assert len([e for e in events if e.op == "r"]) == 200
    assert len([e for e in events if e.table == "public.a" and e.op == "u"]) == 1


def test_a_table_that_was_left_out_for_a_while_is_read_again(database: Any, tmp_path: Path) -> None:
    database.execute(TABLES)
    for lists in ("public.a,public.b", "public.a", "public.a,public.b"):
        database.execute("UPDATE a SET n = n + 1; UPDATE b SET n = n + 1")
        with Pipeline(tmp_path / "j", database.dsn, table_include_list=lists) as pipeline:
            pipeline.running()
            database.execute("UPDATE a SET n = n + 1; UPDATE b SET n = n + 1")
            tables = [f"{name}" for name in lists.split(",")]
            pipeline.until_agrees(database, *tables)


AGAIN = "DROP TABLE b; CREATE TABLE b (id int PRIMARY KEY, n int); INSERT INTO b VALUES (1, 77)"


def copied(path: Path, target: SqliteTarget) -> set[tuple[int, int]]:
    """Table b of a SQL copy that has read the whole journal."""
    task = target.task()
    task.start(SinkContext("copy", path))
    with JournalReader(path) as reader:
        offset, after = reader.bounds()
        while offset < after and (block := reader.read(offset)) is not None:
            task.put(block)
            offset = block.offsets[-1] + 1
    task.flush(offset)
    task.stop()
    return {(row["id"], row["n"]) for row in target.query("SELECT id, n FROM b")}


@pytest.mark.parametrize("mode", ["all_tables", "filtered"])
@pytest.mark.parametrize("away", ["away", "there"])
def test_a_table_dropped_and_made_again_empties_the_copies_of_the_one_before(
    database: Any, tmp_path: Path, mode: str, away: str
) -> None:
    database.execute(TABLES)
    settings = {"publication_autocreate_mode": mode, "table_include_list": "public.*",
                "skipped_operations": "none"}  # fmt: skip
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.until_agrees(database, "public.a", "public.b")
        if away == "there":
            database.execute(AGAIN)
            if mode == "filtered":
                database.execute("ALTER PUBLICATION dbz_publication ADD TABLE b")
            pipeline.until_agrees(database, "public.a", "public.b")
    if away == "away":
        database.execute(AGAIN)
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO b VALUES (1000, 78)")
        pipeline.until_agrees(database, "public.a", "public.b")
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.running()
        events = pipeline.until_agrees(database, "public.a", "public.b")
    assert [e.table for e in events if e.op == "t"] == ["public.b"], "once"
    assert copied(tmp_path / "j", SqliteTarget(tmp_path)) == {(1, 77), (1000, 78)}


def test_a_table_made_again_after_a_start_without_it(database: Any, tmp_path: Path) -> None:
    database.execute(TABLES)
    settings = {"skipped_operations": "none"}
    for statement in ("SELECT 1", "DROP TABLE b", AGAIN.partition(";")[2]):
        database.execute(statement)
        with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
            pipeline.running()
            database.execute("UPDATE a SET n = n + 1")
            tables = ["public.a"] if "DROP" in statement else ["public.a", "public.b"]
            pipeline.until_agrees(database, *tables)


def test_without_truncates_the_rows_of_the_one_before_stay(database: Any, tmp_path: Path) -> None:
    """As Debezium leaves them; ``skipped.operations`` leaves truncates out by default."""
    database.execute(TABLES)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until_agrees(database, "public.a", "public.b")
    database.execute(AGAIN)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        events = pipeline.until(
            lambda es: any(e.op == "r" and e.row["n"] == 77 for e in es), "the new table's row"
        )
    assert len(Copy.of(events).rows("public.b")) == 100


def test_a_table_dropped_while_streaming_ends_quietly(database: Any, tmp_path: Path) -> None:
    database.execute(TABLES)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until_agrees(database, "public.a", "public.b")
        with database.connect() as connection, connection.transaction():
            # its changes are decoded when the catalogue no longer has it
            connection.execute("UPDATE b SET n = 9 WHERE id = 9")
            connection.execute("DROP TABLE b")
        database.execute("UPDATE a SET n = 9 WHERE id = 9")
        events = pipeline.until_agrees(database, "public.a")
    assert [(e.table, e.row["id"]) for e in events if e.op == "u"] == [
        ("public.b", 9), ("public.a", 9),
    ]  # fmt: skip


# --- in the middle of a snapshot: one poll at a time ---------------------------------------


BIG = """
CREATE TABLE a (id int PRIMARY KEY, n int, fill text);
CREATE TABLE b (id int PRIMARY KEY, n int, fill text);
INSERT INTO a SELECT i, 0, repeat('x', 500) FROM generate_series(1, 2000) i;
INSERT INTO b SELECT i, 0, repeat('x', 500) FROM generate_series(1, 2000) i;
ANALYZE;
"""
SMALL_CHUNKS = {"snapshot_chunk_rows": "100"}


SWAPPED = (
    "ALTER TABLE b RENAME n TO m; ALTER TABLE b RENAME fill TO n; ALTER TABLE b RENAME m TO fill"
)
OTHER = (
    "CREATE TABLE other (id int PRIMARY KEY, n text, fill text); INSERT INTO other VALUES (1, 'x');"
    "ALTER TABLE b RENAME TO b_before; ALTER TABLE other RENAME TO b"
)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE b ALTER n TYPE bigint", "TRUNCATE b", "DROP TABLE b", "ALTER TABLE b DROP n",
        "ALTER TABLE b DROP n, ADD n text DEFAULT 'no number'", SWAPPED, OTHER,
    ],
)  # fmt: skip
@pytest.mark.postgres_versions(12, 18)
def test_a_table_changed_before_it_is_read_is_read_again(
    database: Any, tmp_path: Path, statement: str
) -> None:
    database.execute(BIG)
    stepper = Stepper(tmp_path / "j", database.dsn, **SMALL_CHUNKS)
    stepper.until_rows(200)  # of a: b is not touched yet
    database.execute(statement)
    with pytest.raises(ConnectionLost, match=r"public\.b.*again"):
        stepper.until_rows(4000)
    stepper.close()
    tables = ["public.a"] if "DROP TABLE" in statement else ["public.a", "public.b"]
    with Pipeline(tmp_path / "j", database.dsn, **SMALL_CHUNKS) as pipeline:
        pipeline.until_agrees(database, *tables)


def test_a_table_left_out_in_the_middle_of_its_snapshot(database: Any, tmp_path: Path) -> None:
    database.execute(BIG)
    stepper = Stepper(tmp_path / "j", database.dsn, **SMALL_CHUNKS)
    stepper.until_rows(200)
    stepper.close()
    settings = {**SMALL_CHUNKS, "table_exclude_list": "public.a"}
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.until_agrees(database, "public.b")
    database.execute("UPDATE a SET n = 1 WHERE id = 1")
    with Pipeline(tmp_path / "j", database.dsn, **SMALL_CHUNKS) as pipeline:
        pipeline.until_agrees(database, "public.a", "public.b")


@pytest.mark.postgres_versions(12, 13, 14, 15, 16, 17, 18)
def test_a_cut_snapshot_goes_on_where_it_stopped(database: Any, tmp_path: Path) -> None:
    database.execute(BIG)
    stepper = Stepper(tmp_path / "j", database.dsn, **SMALL_CHUNKS)
    stepper.until_rows(2500)
    done = len(stepper.events())
    stepper.close()
    database.execute("UPDATE a SET n = 1 WHERE id = 1; DELETE FROM b WHERE id > 1990")
    with Pipeline(tmp_path / "j", database.dsn, **SMALL_CHUNKS) as pipeline:
        events = pipeline.until_agrees(database, "public.a", "public.b")
    again = len([e for e in events if e.op == "r"]) - done
    rest = 4000 - done  # of which ten are deleted
    assert rest - 50 <= again <= rest + 100, "only the rest, and what moved, is read"


def test_a_table_rewritten_between_two_snapshots_starts_again(
    database: Any, tmp_path: Path
) -> None:
    database.execute(BIG + "DELETE FROM a WHERE id % 2 = 0")
    stepper = Stepper(tmp_path / "j", database.dsn, **SMALL_CHUNKS)
    stepper.until_rows(500)
    stepper.close()
    database.execute("VACUUM FULL a")
    with Pipeline(tmp_path / "j", database.dsn, **SMALL_CHUNKS) as pipeline:
        events = pipeline.until_agrees(database, "public.a", "public.b")
    assert {e.row["id"] for e in events if e.table == "public.a"} == set(range(1, 2001, 2))


@pytest.mark.postgres_versions(12, 18)
def test_killed_readers_are_replaced_under_the_same_snapshot(database: Any, tmp_path: Path) -> None:
    database.execute(BIG)
    settings = {**SMALL_CHUNKS, "snapshot_max_threads": "3"}
    stepper = Stepper(tmp_path / "j", database.dsn, **settings)
    for rows in (300, 1500, 3000):
        stepper.until_rows(rows)
        os.kill(stepper.readers()[0].process.pid, signal.SIGKILL)
        database.execute("UPDATE a SET n = n + 1 WHERE id = 1")
    stepper.until_read()
    reads = [(e.table, e.row["id"]) for e in stepper.events() if e.op == "r"]
    stepper.close()
    assert len(reads) == len(set(reads)) == 4000
    assert threading.active_count() < 20


def test_a_row_moved_to_a_range_already_read_is_found(database: Any, tmp_path: Path) -> None:
    """And with its unchanged TOAST value, which the stream's update does not have."""
    database.execute(
        "CREATE TABLE a (id int PRIMARY KEY, n int, big text) WITH (autovacuum_enabled = off);"
        "ALTER TABLE a ALTER big SET STORAGE EXTERNAL;"
        "INSERT INTO a SELECT i, 0, repeat(md5(i::text), 100) FROM generate_series(1, 3000) i;"
        "DELETE FROM a WHERE id <= 300"
    )
    database.execute("VACUUM ANALYZE a")
    settings = {"snapshot_chunk_rows": "300"}
    stepper = Stepper(tmp_path / "j", database.dsn, **settings)
    stepper.until_rows(900)
    stepper.close()
    # into the free space at the front, by savepoints too
    with database.connect() as connection, connection.transaction():
        for number in range(2000, 2300, 10):
            connection.execute("SAVEPOINT s")
            connection.execute("UPDATE a SET n = 1 WHERE id / 10 = %s", [number // 10])
    (moved,) = database.execute(
        "SELECT count(*) FROM a WHERE n = 1 AND (ctid::text::point)[0] < 4"
    )[0]
    assert moved
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        events = pipeline.until_agrees(database, "public.a")
    copy = Copy.of(events)
    assert copy.rows("public.a") == source_rows(database, "a")
