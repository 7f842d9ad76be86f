"""``kill -9`` of the source and its readers under load, from the first second on.

The invariant: from the snapshot's end on, applying the journal in order gives the source's
row for every key and every column. ``CDC_KILL_SEED`` chooses other moments.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from cdc.record import UNCHANGED
from tests.pipeline import ChildPipeline, Copy, source_rows, until, workload

pytestmark = pytest.mark.slow

SCHEMA = """
CREATE TABLE t (id int PRIMARY KEY, n int, big text) WITH (autovacuum_enabled = off);
ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
CREATE TABLE u (id int PRIMARY KEY, n int);
INSERT INTO t SELECT i, 0, repeat(md5(i::text), 70) FROM generate_series(1, 6000) i;
INSERT INTO u SELECT i, 0 FROM generate_series(1, 3000) i;
DELETE FROM t WHERE id % 50 < 8;
"""
KILLS = 9


def changes(turn: int, dice: random.Random) -> list[str]:
    low = dice.randrange(6000)
    return [
        f"UPDATE t SET n = n + 1 WHERE id BETWEEN {low} AND {low + 20}",
        f"UPDATE u SET n = n + 1 WHERE id BETWEEN {low // 2} AND {low // 2 + 5}",
        f"INSERT INTO t VALUES ({100_000 + turn}, 0, repeat('{turn}', 900))",
        f"DELETE FROM t WHERE id = {low + 30}",
        f"UPDATE t SET id = {200_000 + turn} WHERE id = {low + 40}",
        f"UPDATE t SET big = repeat('n', 2500) WHERE id = {low + 50}",
        "SAVEPOINT s",
        "UPDATE u SET n = -1",
        "ROLLBACK TO s",
    ]


@pytest.mark.parametrize("seed", [int(os.environ.get("CDC_KILL_SEED", "11"))])
@pytest.mark.postgres_versions(12, 18)
def test_kills_in_snapshot_and_stream(database: Any, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    database.execute(SCHEMA)
    database.execute("VACUUM ANALYZE")
    turns = itertools.count()

    def work(connection: Any) -> None:
        turn = next(turns)
        with connection.transaction(force_rollback=turn % 6 == 5):
            for statement in changes(turn, dice):
                connection.execute(statement)
        if turn % 60 == 30:
            # gives up at once: readers hold the table
            with suppress(psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                connection.execute("SET lock_timeout = '50ms'")
                connection.execute("VACUUM FULL t")

    settings = {
        "snapshot_chunk_rows": "150",
        "snapshot_max_threads": "2",
        "max_batch_size": "97",
        "max_queue_size": "300",
    }
    with ChildPipeline(tmp_path / "j", database.dsn, **settings) as child:
        with workload(work, database):
            for _ in range(KILLS):
                seen = child.count() + dice.choice([1, 40, 200, 900])
                child.until_count(seen)
                if dice.random() < 0.4:
                    kill_a_reader(child, dice)
                    child.until_count(seen + 50)
                child.kill()
                child.start()
        events = until(lambda: agrees(child, database), "agreement", 60)
    check(events)


def kill_a_reader(child: ChildPipeline, dice: random.Random) -> None:
    assert child.process is not None
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        readers = psutil.Process(child.process.pid).children()
        if readers:
            os.kill(dice.choice(readers).pid, signal.SIGKILL)


def agrees(child: ChildPipeline, database: Any) -> Any:
    assert child.alive, child.messages.read_text()[-3000:]
    copy = child.copy()
    same = all(copy.rows(f"public.{t}") == source_rows(database, t) for t in ("t", "u"))
    return child.events() if same else None


def check(events: list[Any]) -> None:
    copy = Copy()
    last = max(e.offset for e in events if e.op == "r")
    places = set()
    for event in events:
        copy.apply(event)
        if event.offset > last and event.op in "cu":
            row = copy.tables[event.table][event.raw_key]
            assert UNCHANGED not in row.values(), f"a value is missing after {event}"
        if event.marker == "false":
            place = (event.commit_lsn, event.ordinal, event.op)
            assert place not in places, f"twice: {event}"
            places.add(place)
    assert not copy.complaints
