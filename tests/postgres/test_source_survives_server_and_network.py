"""Restarts of the server and a network that misbehaves: nothing lost, nothing twice."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import ChildPipeline, Event, source_rows, until, workload
from tests.postgres.servers_of_tests import Plain

pytestmark = pytest.mark.slow

TABLE = """
CREATE TABLE t (id int PRIMARY KEY, n int, big text);
ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
INSERT INTO t SELECT i, 0, repeat(md5(i::text), 70) FROM generate_series(1, 3000) i;
ANALYZE t;
"""
SMALL = {"snapshot_chunk_rows": "100", "status_update_interval_ms": "200"}


def agree(child: ChildPipeline, database: Any, table: str = "t") -> list[Event]:
    """Wait until the journal has it all; fails with what the child said."""
    want = source_rows(database, table)
    assert child.alive, child.messages.read_text()

    def same() -> bool:
        assert child.alive, child.messages.read_text()[-3000:]
        return child.copy().rows(f"public.{table}") == want

    until(same, "agreement", 60)
    return child.events()


def streamed_once(events: list[Event]) -> None:
    places = [(e.commit_lsn, e.ordinal, e.op) for e in events if e.marker == "false"]
    assert len(places) == len(set(places))
    assert [p[:2] for p in places] == sorted(p[:2] for p in places)


def write(database: Any, numbers: Any, count: int) -> None:
    for _ in range(count):
        number = next(numbers)
        database.execute(
            f"UPDATE t SET n = n + 1 WHERE id % 3000 BETWEEN {number % 3000} AND"
            f" {number % 3000 + 3}; INSERT INTO t VALUES ({number}, 0, 'x')"
        )


@pytest.mark.parametrize("when", ["snapshot", "stream"])
@pytest.mark.postgres_versions(12, 18)
def test_an_immediate_restart_of_the_server(start_postgres: Any, tmp_path: Path, when: str) -> None:
    numbers = itertools.count(10_000)
    with start_postgres(fsync=False) as server:
        database = Plain(server)
        database.execute(TABLE)
        rows = 300 if when == "snapshot" else 3000
        with ChildPipeline(tmp_path / "j", database.dsn, **SMALL) as child:
            for _ in range(3):
                child.until_count(rows)
                write(database, numbers, 5)
                server.stop("immediate")
                server.start()
                write(database, numbers, 5)
                rows += 10
            events = agree(child, database)
    streamed_once(events)


def test_connections_that_are_cut(database: Any, proxy: Any, tmp_path: Path) -> None:
    database.execute(TABLE)
    port = int(database.execute("SHOW port")[0][0])
    between = proxy(port)
    numbers = itertools.count(10_000)
    with ChildPipeline(tmp_path / "j", between.url(database.dsn), **SMALL) as child:
        child.until_count(200)

        def work(_: Any) -> None:
            write(database, numbers, 1)

        with workload(work, database):
            for _ in range(6):
                seen = child.count()
                between.cut()
                child.until_count(seen + 20)
        events = agree(child, database)
    streamed_once(events)


def test_a_stall_and_a_trickle(start_postgres: Any, proxy: Any, tmp_path: Path) -> None:
    """The server gives up on a stalled connection; a slow one goes on."""
    with start_postgres(18, fsync=False, wal_sender_timeout="1s") as server:
        database = Plain(server)
        database.execute(TABLE)
        between = proxy(server.port)
        named = {"driver.tcp_user_timeout": "2000", "snapshot.chunk.rows": "100"}
        with ChildPipeline(tmp_path / "j", between.url(database.dsn), **named) as child:
            child.until_count(3000)
            between.stall()
            database.execute("UPDATE t SET n = 1 WHERE id <= 500")
            until(
                lambda: not database.execute("SELECT 1 FROM pg_stat_replication"),
                "the server to give up",
            )
            between.resume()
            streamed_once(agree(child, database))
            between.trickle(200_000)
            database.execute("UPDATE t SET n = 2, big = repeat('y', 2000) WHERE id <= 300")
            streamed_once(agree(child, database))
