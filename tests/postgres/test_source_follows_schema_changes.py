"""ALTER TABLE, new enum values, and transactions of every kind while the stream runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.log import JournalReader
from cdc.postgres import planner
from cdc.postgres.planner import Planner
from tests.pipeline import Pipeline, source_rows, until

TABLE = "CREATE TABLE t (id int PRIMARY KEY, n int, note text); INSERT INTO t VALUES (1, 1, 'a')"


@pytest.fixture
def pipeline(database: Any, tmp_path: Path) -> Iterator[Pipeline]:
    database.execute(TABLE)
    with Pipeline(tmp_path / "j", database.dsn) as running:
        running.until_agrees(database, "public.t")
        yield running


@pytest.mark.postgres_versions(12, 18)
def test_alter_table_while_streaming(database: Any, pipeline: Pipeline) -> None:
    for number, statement in enumerate(
        [
            "ALTER TABLE t ADD extra int DEFAULT 7",
            "ALTER TABLE t DROP n",
            "ALTER TABLE t RENAME note TO remark",
            "ALTER TABLE t ALTER extra TYPE text",
            "ALTER TABLE t ADD PRIMARY KEY USING INDEX k",
        ],
        2,
    ):
        if "USING INDEX" in statement:
            database.execute("CREATE UNIQUE INDEX k ON t (id); ALTER TABLE t DROP CONSTRAINT"
                             " t_pkey")  # fmt: skip
        database.execute(statement)
        database.execute(f"INSERT INTO t (id) VALUES ({number})")
    events = pipeline.until(lambda es: len(es) == 6, "all rows")
    assert [e.fields for e in events[1:]] == [
        ("id", "n", "note", "extra"),
        ("id", "note", "extra"),
        ("id", "remark", "extra"),
        ("id", "remark", "extra"),
        ("id", "remark", "extra"),
    ]
    assert [e.row["extra"] for e in events[1:]] == [7, 7, 7, "7", "7"]
    assert all(e.key == {"id": n} for n, e in enumerate(events, 1))


def test_a_relation_is_planned_once_however_many_rows_and_messages_of_it_come(
    database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls[name] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr(planner, "build_plan", counted("plans", planner.build_plan))
    monkeypatch.setattr(Planner, "describe", counted("relations", Planner.describe))
    database.execute(TABLE)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.running()
        for number in range(4):
            first = 100 + 1000 * number
            # storage parameters change no column, and have the server send the relation again
            database.execute(f"ALTER TABLE t SET (fillfactor = {90 + number})")
            database.execute(f"INSERT INTO t SELECT i, 0, 'b' FROM generate_series({first},"
                             f" {first + 999}) i")  # fmt: skip
        pipeline.until(lambda es: len(es) == 4001, "all rows")
        assert calls == {"relations": 4, "plans": 1}
        database.execute("ALTER TABLE t ADD extra int")
        database.execute("UPDATE t SET n = 1")
        pipeline.until(lambda es: len(es) == 8002, "all rows again")
        assert calls == {"relations": 5, "plans": 2}


def test_changes_decoded_long_after_the_table_was_altered(database: Any, tmp_path: Path) -> None:
    """The catalogue shows the present; the WAL's rows have the columns of their time."""
    database.execute(TABLE)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until_agrees(database, "public.t")
    for statement in (
        "UPDATE t SET n = 2",
        "UPDATE t SET n = NULL",
        "ALTER TABLE t RENAME n TO m",
        "UPDATE t SET m = 3",
        "ALTER TABLE t DROP m",
        "ALTER TABLE t ADD n text NOT NULL DEFAULT 'x'",
        "UPDATE t SET n = 'y'",
    ):
        database.execute(statement)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        events = pipeline.until(lambda es: len(es) == 5, "the updates")
    assert [e.row for e in events[1:]] == [
        {"id": 1, "n": 2, "note": "a"},
        {"id": 1, "n": None, "note": "a"},
        {"id": 1, "m": 3, "note": "a"},
        {"id": 1, "note": "a", "n": "y"},
    ]
    # today's NOT NULL and DEFAULT are of another column
    known = [(f.schema.optional, f.schema.default) for f in fields_of(tmp_path / "j", "n")]
    assert known == [(True, None), (True, None), (True, None), (False, "x")]


def fields_of(journal: Path, name: str) -> list[Any]:
    """A column as the schema of each row has it, for rows that do."""
    found: list[Any] = []
    with JournalReader(journal) as reader:
        offset, after = reader.bounds()
        while offset < after and (block := reader.read(offset)) is not None:
            for schema in (block.schemas[n] for n in block.schema):
                found += [f for f in schema.row.fields if f.name == name]
            offset = block.offsets[-1] + 1
    return found


@pytest.mark.postgres_versions(12, 18)
def test_a_new_enum_value_and_a_new_type(database: Any, pipeline: Pipeline) -> None:
    database.execute("CREATE TYPE mood AS ENUM ('sad')")
    database.execute("CREATE TABLE e (id int PRIMARY KEY, m mood)")
    database.execute("INSERT INTO e VALUES (1, 'sad')")
    database.execute("ALTER TYPE mood ADD VALUE 'glad'")
    database.execute("INSERT INTO e VALUES (2, 'glad')")
    database.execute("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'")
    database.execute("INSERT INTO e VALUES (3, 'blue')")
    events = pipeline.until(lambda es: len(es) == 4, "all rows")
    assert [e.row["m"] for e in events[1:]] == ["sad", "glad", "blue"]


def test_a_renamed_table_is_another_topic(database: Any, pipeline: Pipeline) -> None:
    database.execute("ALTER TABLE t RENAME TO s")
    database.execute("INSERT INTO s VALUES (2, 2, 'b')")
    events = pipeline.until(lambda es: len(es) == 2, "the row")
    assert events[-1].table == "public.s"


@pytest.mark.postgres_versions(12, 18)
def test_savepoints_and_rollbacks(database: Any, pipeline: Pipeline) -> None:
    with database.connect() as connection:
        with connection.transaction():
            connection.execute("INSERT INTO t VALUES (2, 2, 'in')")
            with connection.transaction(force_rollback=True):
                connection.execute("INSERT INTO t VALUES (3, 3, 'out')")
                with connection.transaction():
                    connection.execute("INSERT INTO t VALUES (4, 4, 'out')")
            with connection.transaction():
                connection.execute("INSERT INTO t VALUES (5, 5, 'in')")
        with connection.transaction(force_rollback=True):
            connection.execute("INSERT INTO t VALUES (6, 6, 'out')")
    events = pipeline.until_agrees(database, "public.t")
    assert [e.row["id"] for e in events] == [1, 2, 5]
    assert events[1].xid == events[2].xid
    assert [e.ordinal for e in events[1:]] == [1, 2]


def test_interleaved_transactions_come_in_commit_order(database: Any, pipeline: Pipeline) -> None:
    with database.connect() as one, database.connect() as two:
        one.execute("BEGIN")
        one.execute("INSERT INTO t VALUES (10, 0, 'one')")
        two.execute("BEGIN")
        two.execute("INSERT INTO t VALUES (20, 0, 'two')")
        one.execute("INSERT INTO t VALUES (11, 0, 'one')")
        two.execute("COMMIT")
        one.execute("INSERT INTO t VALUES (12, 0, 'one')")
        one.execute("COMMIT")
    events = pipeline.until_agrees(database, "public.t")[1:]
    assert [e.row["id"] for e in events] == [20, 10, 11, 12]
    assert [e.commit_lsn for e in events] == sorted(e.commit_lsn for e in events)
    assert events[0].lsn > events[1].lsn, "a change's own LSN may go back, its commit's may not"
    assert all(e.lsn < e.commit_lsn < e.end_lsn for e in events)


def test_a_prepared_transaction_comes_when_it_is_committed(
    start_postgres: Any, tmp_path: Path
) -> None:
    with (
        start_postgres(18, fsync=False, max_prepared_transactions=5) as server,
        psycopg.connect(server.dsn(), autocommit=True) as connection,
    ):
        connection.execute(TABLE)
        with Pipeline(tmp_path / "j", server.dsn()) as pipeline:
            pipeline.until(lambda es: len(es) == 1, "the snapshot")
            connection.execute("BEGIN")
            connection.execute("INSERT INTO t VALUES (2, 2, 'prepared')")
            connection.execute("PREPARE TRANSACTION 'p'")
            connection.execute("INSERT INTO t VALUES (3, 3, 'meanwhile')")
            connection.execute("BEGIN")
            connection.execute("INSERT INTO t VALUES (4, 4, 'gone')")
            connection.execute("PREPARE TRANSACTION 'q'")
            pipeline.until(lambda es: len(es) == 2, "the other row")
            connection.execute("COMMIT PREPARED 'p'")
            connection.execute("ROLLBACK PREPARED 'q'")
            events = pipeline.until(lambda es: len(es) == 3, "the prepared row")
    assert [e.row["id"] for e in events] == [1, 3, 2]


def test_the_origin_of_a_replicated_change_is_named(database: Any, pipeline: Pipeline) -> None:
    name = "origin_" + database.name
    with database.connect() as connection:
        connection.execute("SELECT pg_replication_origin_create(%s)", [name])
        connection.execute("SELECT pg_replication_origin_session_setup(%s)", [name])
        with connection.transaction():
            connection.execute("SELECT pg_replication_origin_xact_setup('0/123456', now())")
            connection.execute("INSERT INTO t VALUES (2, 2, 'from elsewhere')")
        connection.execute("SELECT pg_replication_origin_session_reset()")
        connection.execute("INSERT INTO t VALUES (3, 3, 'from here')")
    events = pipeline.until_agrees(database, "public.t")
    with database.connect() as connection:
        connection.execute("SELECT pg_replication_origin_drop(%s)", [name])
    assert [e.origin for e in events] == [None, name, None]


def test_toast_values_and_key_changes_under_every_identity(database: Any, tmp_path: Path) -> None:
    for name, identity in (("d", "DEFAULT"), ("f", "FULL")):
        database.execute(
            f"CREATE TABLE {name} (id int PRIMARY KEY, n int, big text NOT NULL);"
            f"ALTER TABLE {name} ALTER big SET STORAGE EXTERNAL;"
            f"ALTER TABLE {name} REPLICA IDENTITY {identity};"
            f"INSERT INTO {name} SELECT i, 0, repeat(i::text, 3000) FROM generate_series(1, 4) i"
        )
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until_agrees(database, "public.d", "public.f")
        for name in "df":
            database.execute(
                f"UPDATE {name} SET n = 1; UPDATE {name} SET id = id + 10 WHERE id < 3;"
                f"DELETE FROM {name} WHERE id = 3; UPDATE {name} SET big = 'short' WHERE id = 4"
            )
        events = pipeline.until_agrees(database, "public.d", "public.f")
    moved = [(e.table, e.op, e.key["id"], e.moved["id"]) for e in events if e.moved]
    for table in ("public.d", "public.f"):
        assert [m[1:] for m in moved if m[0] == table] == [
            ("d", 1, 11), ("c", 11, 1), ("d", 2, 12), ("c", 12, 2),
        ]  # fmt: skip
    deleted = {e.table: e.before for e in events if e.op == "d" and e.key == {"id": 3}}
    assert deleted["public.d"] == {"id": 3, "n": None, "big": ""}
    assert deleted["public.f"] == {"id": 3, "n": 1, "big": "3" * 3000}


def test_truncate_of_several_tables(database: Any, tmp_path: Path) -> None:
    database.execute(TABLE + "; CREATE TABLE s (id int PRIMARY KEY REFERENCES t)")
    with Pipeline(tmp_path / "j", database.dsn, skipped_operations="none") as pipeline:
        pipeline.until_agrees(database, "public.t")
        database.execute("TRUNCATE t CASCADE")
        events = pipeline.until(lambda es: len(es) == 3, "two truncates")
    assert sorted((e.op, e.table) for e in events[1:]) == [("t", "public.s"), ("t", "public.t")]
    assert len({(e.lsn, e.ordinal) for e in events[1:]}) == 1


@pytest.mark.slow
def test_a_huge_transaction(database: Any, pipeline: Pipeline) -> None:
    database.execute(
        "INSERT INTO t SELECT i, i, repeat('x', 100) FROM generate_series(2, 200000) i"
    )
    until(lambda: len(pipeline.events()) == 200_000, "all rows", 60)
    assert len(source_rows(database, "t")) == 200_000
