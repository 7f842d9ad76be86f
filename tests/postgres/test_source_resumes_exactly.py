"""After any cut the stream goes on with the very next change, inside one LSN too."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cdc.errors import PositionMismatch
from cdc.log import Journal
from cdc.postgres.source import PostgresSourceTask
from tests.pipeline import Copy, Event, Followed, config_for, source_rows, until

SETUP = """
CREATE TABLE t (id int PRIMARY KEY, n int, big text);
ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
CREATE TABLE u (id int PRIMARY KEY, n int);
INSERT INTO t VALUES (0, 0, repeat('t', 3000));
"""


def run_cut(path: Path, dsn: str, cuts: Any, done: Any, **settings: str) -> list[Event]:
    """Run the source again and again, each time for the next number of batches; then on."""
    config, followed = config_for(dsn, **settings), Followed(path)
    ended = False
    while not ended:
        left = next(cuts)
        with Journal.open(path) as journal:
            task = PostgresSourceTask(config)
            task.start(journal.state())
            try:
                while left > 0 and not ended:
                    # what was polled and not appended is what a crash loses
                    for batch in task.poll(0.05)[: max(left, 0)]:
                        journal.append(batch)
                        left -= 1
                        if random.random() < 0.5:
                            task.commit(batch.lane, batch.position)
                    ended = done(followed.events())
            finally:
                task.stop()
    return followed.events()


@pytest.mark.slow
@pytest.mark.postgres_versions(12, 18)
def test_rows_of_one_wal_record_and_of_one_transaction(database: Any, tmp_path: Path) -> None:
    """COPY and INSERT … SELECT put many rows under one LSN: only their number tells them apart."""
    random.seed(1)
    database.execute(SETUP)
    settings = {"max_batch_size": "11", "table_include_list": "public.t,public.u"}
    run_cut(tmp_path / "j", database.dsn, itertools.repeat(10), lambda es: len(es) >= 1, **settings)
    with database.connect() as connection, connection.transaction():
        with connection.cursor().copy("COPY u FROM STDIN") as copy:
            for number in range(300):
                copy.write_row((number, number))
        connection.execute("INSERT INTO t SELECT i, 0, 'x' FROM generate_series(1, 40) i")
        connection.execute("SAVEPOINT s")
        connection.execute("UPDATE t SET n = 5 WHERE id < 10")
        connection.execute("ROLLBACK TO s")
        connection.execute("UPDATE t SET id = id + 1000 WHERE id < 20")
        connection.execute("DELETE FROM u WHERE id % 3 = 0")
        connection.execute("TRUNCATE u")
        connection.execute("INSERT INTO u VALUES (7, 7)")
    database.execute("UPDATE t SET n = n + 1")
    copied = lambda es: Copy.of(es).rows("public.t") == source_rows(database, "t")  # noqa: E731
    cuts = itertools.chain(itertools.repeat(1, 12), (random.randint(2, 9) for _ in range(500)))
    events = run_cut(
        tmp_path / "j", database.dsn, cuts, copied, skipped_operations="none", **settings
    )
    streamed = [e for e in events if e.marker == "false"]
    counts = [sum(e.op == op and e.table == t for e in streamed) for op, t in [
        ("c", "public.u"), ("d", "public.u"), ("t", "public.u"), ("c", "public.t"),
        ("d", "public.t"), ("u", "public.t"),
    ]]  # fmt: skip
    assert counts == [301, 100, 1, 60, 20, 41]
    places = [(e.commit_lsn, e.ordinal, e.op) for e in streamed]
    assert len(places) == len(set(places))
    assert [p[:2] for p in places] == sorted(p[:2] for p in places)
    # many rows under one LSN, or this test has not tested what it says
    assert len({e.lsn for e in streamed if e.table == "public.u"}) < 200


@pytest.mark.slow
def test_a_transaction_that_outgrows_every_buffer(database: Any, tmp_path: Path) -> None:
    database.execute(SETUP)
    settings = {"max_batch_size": "2000"}
    run_cut(tmp_path / "j", database.dsn, itertools.repeat(10), lambda es: len(es) >= 1, **settings)
    database.execute("INSERT INTO u SELECT i, i FROM generate_series(1, 30000) i")
    cuts = itertools.chain([3, 1, 4], itertools.repeat(1000))
    events = run_cut(tmp_path / "j", database.dsn, cuts, lambda es: len(es) >= 30_001, **settings)
    assert [e.row["id"] for e in events[1:]] == list(range(1, 30_001))
    assert len({e.xid for e in events[1:]}) == 1


@pytest.mark.postgres_versions(15, 18)
def test_messages_inside_and_outside_of_transactions(database: Any, tmp_path: Path) -> None:
    random.seed(2)
    database.execute(SETUP)
    run_cut(tmp_path / "j", database.dsn, itertools.repeat(10), lambda es: len(es) >= 1)
    with database.connect() as connection, connection.transaction():
        for number in range(10):
            connection.execute(f"INSERT INTO u VALUES ({number}, 0)")
            connection.execute("SELECT pg_logical_emit_message(true, 'in', %s)", [str(number)])
            connection.execute("SELECT pg_logical_emit_message(false, 'out', %s)", [str(number)])
        connection.execute("INSERT INTO u VALUES (99, 0)")
    events = run_cut(
        tmp_path / "j",
        database.dsn,
        itertools.repeat(1),
        lambda es: any(e.row and e.row.get("id") == 99 for e in es),
        max_batch_size="3",
    )
    prefixes = [e.row["prefix"] for e in events if e.op == "m"]
    assert prefixes == ["out"] * 10 + ["in"] * 10, "those outside travel at once"
    assert [e.row["id"] for e in events if e.op == "c"] == [*range(10), 99]


def test_a_changed_publication_under_an_open_transaction_is_noticed(
    database: Any, tmp_path: Path
) -> None:
    """A row filter added to the past would shift the count: told by the LSN at that count."""
    database.execute(SETUP)
    path, settings = tmp_path / "j", {"max_batch_size": "5"}
    run_cut(path, database.dsn, itertools.repeat(10), lambda es: len(es) >= 1, **settings)
    for number in range(1, 3):
        database.execute(f"INSERT INTO u SELECT i, 0 FROM generate_series({number}0, {number}9) i")
    run_cut(path, database.dsn, itertools.repeat(2), lambda es: len(es) >= 4, **settings)
    config = config_for(database.dsn, **settings)
    with Journal.open(path) as journal:
        state = journal.state()
        stored = dict(state.stream_position or {})
        assert stored["open"], "the journal ends inside a transaction"
        for change in ({"lsn": stored["open"]["lsn"] + 8}, {"commit_lsn": 7}, {"ordinal": 500}):
            wrong = {**stored, "open": {**stored["open"], **change}}
            task = PostgresSourceTask(config)
            task.start(replace(state, stream_position=wrong))

            def poll(task: PostgresSourceTask = task) -> bool:
                task.poll(0.05)
                return False

            with pytest.raises(PositionMismatch, match="drop the slot"):
                until(poll, "a mismatch")
            task.stop()
