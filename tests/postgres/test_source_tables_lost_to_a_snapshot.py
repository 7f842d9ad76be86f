"""Tables that are truncated, rewritten, renamed or dropped before their snapshot comes to them.

One task goes on with the others, and ends in the source's rows: it is not started again.
"""

from __future__ import annotations

import itertools
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from psycopg.errors import LockNotAvailable

from cdc.api import Lane, LogState
from cdc.capture.engine import decoded
from cdc.errors import ConnectionLost
from cdc.log import Journal
from cdc.log.files import listing
from cdc.log.places import newest_snapshot
from cdc.postgres import lost, source
from cdc.postgres.linear import LinearPostgresTask
from cdc.postgres.source import PostgresSourceTask
from cdc.record import UNCHANGED
from tests.pipeline import (
    Copy,
    Event,
    Pipeline,
    SlowLog,
    config_for,
    events_of,
    source_rows,
    workload,
)
from tests.stepper import Stepper

BIG = """
CREATE TABLE a (id int PRIMARY KEY, n int, fill text);
CREATE TABLE b (id int PRIMARY KEY, n int, fill text);
CREATE TABLE c (id int PRIMARY KEY, n int, fill text);
INSERT INTO a SELECT i, 0, repeat('x', 500) FROM generate_series(1, 2000) i;
INSERT INTO b SELECT i, 0, repeat('x', 500) FROM generate_series(1, 500) i;
INSERT INTO c SELECT i, 0, repeat('x', 500) FROM generate_series(1, 500) i;
ANALYZE;
"""
CHUNKS = {"snapshot_chunk_rows": "100", "skipped_operations": "none"}
REFILL = "INSERT INTO b SELECT i, 1, repeat('y', 500) FROM generate_series(100, 300) i"
AGAIN = "DROP TABLE b; CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1)"
SWAPPED = (
    "ALTER TABLE b RENAME n TO m; ALTER TABLE b RENAME fill TO n; ALTER TABLE b RENAME m TO fill"
)
OTHER = (
    "CREATE TABLE other (id int PRIMARY KEY, n text, fill text); INSERT INTO other VALUES (1, 'x');"
    "ALTER TABLE b RENAME TO b_before; ALTER TABLE other RENAME TO b"
)


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "TABLES_INTERVAL_S", 0.1)
    monkeypatch.setattr(lost, "REST_FIRST_S", 0.2)


def agrees(stepper: Stepper, database: Any, *tables: str) -> bool:
    copy = Copy.of(stepper.events())
    return all(copy.rows(f"public.{t}") == source_rows(database, t) for t in tables)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE b ALTER n TYPE bigint", "ALTER TABLE b DROP n", "VACUUM FULL b",
        "DROP TABLE b", AGAIN, OTHER, SWAPPED,
        "ALTER TABLE b DROP n, ADD n text DEFAULT 'no number'",
    ],
)  # fmt: skip
@pytest.mark.postgres_versions(12, 18)
def test_a_table_changed_before_it_is_read_is_read_later_by_the_same_task(
    database: Any, tmp_path: Path, statement: str
) -> None:
    database.execute(BIG)
    stepper = Stepper(tmp_path / "j", database.dsn, **CHUNKS)
    stepper.until_rows(200)  # of a: b is not touched yet
    for part in statement.split(";"):
        database.execute(part)
    stepper.until_read()
    assert agrees(stepper, database, "a", "c")  # one lost table keeps nobody from going on
    database.execute("UPDATE c SET n = 7 WHERE id = 7")
    tables = ["a", "b", "c"] if "b" in names(database) else ["a", "c"]
    stepper._until(lambda: agrees(stepper, database, *tables), "agreement")
    stepper.close()


def generation(there: Stepper | Pipeline) -> int:
    return max((entry.generation for entry in listing(there.path)), default=0)


def names(database: Any) -> set[str]:
    query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    return {name for (name,) in database.execute(query)}


@pytest.mark.postgres_versions(12, 18)
def test_a_truncated_table_needs_no_other_snapshot(database: Any, tmp_path: Path) -> None:
    """From then on the stream has all of its rows; so the one there is stays a whole one."""
    database.execute(BIG)
    stepper = Stepper(tmp_path / "j", database.dsn, **CHUNKS)
    stepper.until_rows(200)
    database.execute("TRUNCATE b")
    database.execute(REFILL)
    database.execute("UPDATE b SET n = 2 WHERE id = 200")
    stepper._until(lambda: any(e.op == "t" for e in stepper.events()), "the truncate")
    stepper.until_read()
    stepper._until(lambda: agrees(stepper, database, "a", "b", "c"), "agreement")
    assert not [e for e in stepper.events() if e.table == "public.b" and e.op == "r"]
    assert generation(stepper) == 1
    assert newest_snapshot(tmp_path / "j") == 0
    stepper.close()
    with Pipeline(tmp_path / "j", database.dsn, **CHUNKS) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO b VALUES (1, 1, '')")
        events = pipeline.until_agrees(database, "public.a", "public.b", "public.c")
    assert not [e for e in events if e.table == "public.b" and e.op == "r"], "it is complete"


def test_a_table_altered_after_it_was_truncated_is_read_for_its_new_values(
    database: Any, tmp_path: Path
) -> None:
    database.execute(BIG)
    stepper = Stepper(tmp_path / "j", database.dsn, **CHUNKS)
    stepper.until_rows(200)
    database.execute("TRUNCATE b")
    database.execute(REFILL)
    database.execute("ALTER TABLE b ADD more float DEFAULT random()")
    stepper._until(lambda: agrees(stepper, database, "a", "b", "c"), "agreement")
    stepper.close()


TOAST = """
CREATE TABLE b (id int PRIMARY KEY, n int, fill text);
CREATE TABLE w (id int PRIMARY KEY, n int, fill text);
ALTER TABLE b ALTER fill SET STORAGE EXTERNAL;
ALTER TABLE w ALTER fill SET STORAGE EXTERNAL;
INSERT INTO b SELECT i, 0, repeat('z', 3000) FROM generate_series(1, 300) i;
INSERT INTO w SELECT i, 0, repeat('z', 3000) FROM generate_series(1, 300) i;
CREATE TABLE a (id int PRIMARY KEY, n int, fill text);
INSERT INTO a SELECT i, 0, repeat('x', 500) FROM generate_series(1, 3000) i;
ANALYZE;
"""


def test_tables_emptied_and_rewritten_all_the_time_end_in_the_sources_rows(
    database: Any, tmp_path: Path
) -> None:
    """Beside changes of values, of keys and of rows with TOAST; of others nothing waits."""
    database.execute(TOAST)
    dice, turns = random.Random(5), itertools.count(10_000)

    def work(connection: Any) -> None:
        turn = next(turns)
        for name in ("a", "b", "w"):
            at = dice.randrange(300)
            connection.execute(f"UPDATE {name} SET n = n + 1 WHERE id BETWEEN {at} AND {at + 9}")
            connection.execute(f"UPDATE {name} SET id = {turn * 10} WHERE id = {at + 1}")
            connection.execute(f"INSERT INTO {name} VALUES ({turn}, 0, repeat('n', 3000))")
            connection.execute(f"DELETE FROM {name} WHERE id = {turn - 20}")
        connection.execute("SET lock_timeout = '50ms'")
        with suppress(LockNotAvailable):
            connection.execute("TRUNCATE b")
            connection.execute(f"INSERT INTO b VALUES ({turn}, 1, repeat('t', 3000))")
        if turn % 4 == 0:
            with suppress(LockNotAvailable):
                connection.execute("VACUUM FULL w")

    def slow(journal: Journal) -> SlowLog:
        log = SlowLog(journal)
        log.append_s[Lane.SNAPSHOT] = 0.02
        return log

    settings = {
        **CHUNKS, "snapshot_max_threads": "2", "max_queue_size": "300", "max_batch_size": "97",
    }  # fmt: skip
    with Pipeline(tmp_path / "j", database.dsn, log=slow, **settings) as pipeline:
        with workload(work, database):
            pipeline.until(lambda _: generation(pipeline) >= 2, "w's own snapshot")
            pipeline.until(lambda es: len(es) > 5000, "the stream behind it")
        events = pipeline.until_agrees(database, "public.a", "public.b", "public.w")
    check(events)


def check(events: list[Event]) -> None:
    """No event behind its table's last row of a snapshot, or truncate, lacks a value."""
    whole = {e.table: e.offset for e in events if e.op in "rt"}
    copy = Copy()
    for event in events:
        copy.apply(event)
        if event.op in "cu" and event.offset > whole[event.table]:
            row = copy.tables[event.table][event.raw_key]
            assert UNCHANGED not in row.values(), event
    assert not copy.complaints


@pytest.mark.parametrize("held", [True, False])
def test_a_table_that_changes_as_soon_as_its_snapshot_is_taken_is_tried_again_later(
    database: Any, tmp_path: Path, held: bool
) -> None:
    """No event tells of its truncates, so only a snapshot can read it; others are not waited for.

    The table is changed, or just being changed, whenever it is looked at.
    """
    database.execute(BIG)
    database.execute(
        "CREATE PUBLICATION p FOR TABLE a, b, c WITH (publish = 'insert,update,delete')"
    )
    seen: list[int] = []  # the generation, at each attempt

    class Late(PostgresSourceTask):
        def _begin_second(self, lsn: int, holder: Any) -> None:
            seen.append(generation(stepper))
            if len(seen) > 3:
                super()._begin_second(lsn, holder)
                return
            with database.connect() as other, other.transaction(force_rollback=held):
                other.execute("TRUNCATE b")
                if held:
                    super()._begin_second(lsn, holder)
            if not held:
                database.execute(REFILL)
                super()._begin_second(lsn, holder)

    settings = {
        "snapshot_chunk_rows": "100",
        "publication_name": "p",
        "publication_autocreate_mode": "disabled",
    }
    stepper = Stepper(tmp_path / "j", database.dsn, task=Late, **settings)
    stepper.until_rows(200)
    database.execute("TRUNCATE b")
    database.execute(REFILL)
    stepper.until_read()
    stepper._until(lambda: len(seen) == 2, "two attempts in vain")
    database.execute("UPDATE c SET n = 7 WHERE id = 7")
    stepper._until(lambda: agrees(stepper, database, "a", "c"), "the stream")
    stepper._until(
        lambda: stepper.journal.state().snapshot_closed and generation(stepper) == 2, "b"
    )
    copied = Copy.of(stepper.events()).rows("public.b")
    assert set(copied) >= set(source_rows(database, "b")) != set()
    stepper.close()


def test_without_a_stream_all_is_read_again(database: Any, tmp_path: Path) -> None:
    database.execute(BIG)
    settings = {**CHUNKS, "snapshot_mode": "initial_only"}
    stepper = Stepper(tmp_path / "j", database.dsn, **settings)
    stepper.until_rows(200)
    database.execute("TRUNCATE b")
    with pytest.raises(ConnectionLost, match=r"public\.b.*all is read again"):
        stepper.until_read()
    stepper.close()
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.until(
            lambda es: [e.op for e in es if e.table == "public.c"].count("r") == 500, "c"
        )
        pipeline.until(lambda _: generation(pipeline) == 2, "the second reading")


@pytest.mark.parametrize("statement", ["TRUNCATE b", "VACUUM FULL b"])
def test_a_capture_ends_when_it_has_read_what_its_snapshot_lost(
    database: Any, statement: str
) -> None:
    database.execute(BIG)
    config = config_for(database.dsn, **CHUNKS)
    task = LinearPostgresTask(config, temporary=True, until="current")
    task.start(LogState())
    copy, rows = Copy(), 0
    while not task.finished:
        for batch in task.poll(0.05):
            for event in events_of(decoded(batch.block)) if batch.block else ():
                copy.apply(event)
                rows += 1
                if rows == 200:  # of a
                    database.execute(statement)
                    database.execute("INSERT INTO b VALUES (1000, 1, 'behind the end')")
    task.stop()
    for table in ("a", "b", "c"):
        assert copy.rows(f"public.{table}") == source_rows(database, table)
