"""The slot follows the journal: never ahead of it, and not behind it for long either."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from cdc.api import Batch, Lane, LogState
from cdc.errors import LogFull
from cdc.log import Journal, JournalReader
from cdc.lsn import lsn_number
from tests.pipeline import Pipeline, SlowLog, until
from tests.postgres.servers_of_tests import Plain

TABLE = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)"


def confirmed(database: Any) -> int:
    query = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s"
    rows = database.execute(query, ["s_" + database.name])
    return lsn_number(rows[0][0]) if rows and rows[0][0] else 0


def written(database: Any) -> int:
    return lsn_number(database.execute("SELECT pg_current_wal_lsn()::text")[0][0])


@pytest.mark.postgres_versions(12, 15, 18)
def test_the_last_transaction_is_confirmed(database: Any, tmp_path: Path) -> None:
    database.execute(TABLE)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO t VALUES (2, 2)")
        event = pipeline.until(lambda es: es and es[-1].op == "c", "the insert")[-1]
        until(lambda: confirmed(database) >= event.end_lsn, "its confirmation")
        assert event.end_lsn > event.commit_lsn


@pytest.mark.postgres_versions(12, 18)
def test_the_slot_of_an_idle_database_moves_on(database: Any, tmp_path: Path) -> None:
    database.execute(TABLE)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until_agrees(database, "public.t")
        # WAL of something that is not captured, then nothing more
        database.execute("CREATE TEMP TABLE x AS SELECT generate_series(1, 1000)")
        database.execute("SELECT pg_switch_wal()")
        database.execute("CREATE TABLE y (id int); DROP TABLE y")
        target = written(database)
        until(lambda: confirmed(database) >= target, "the slot to move on")
        assert len(pipeline.events()) == 1


class FullLog:
    """A journal whose disk is full while ``full`` is set."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.full = threading.Event()
        self.refused = 0

    def state(self) -> LogState:
        return self._journal.state()

    @property
    def dropped_rows(self) -> int:
        return self._journal.dropped_rows

    def append(self, batch: Batch) -> int:
        if self.full.is_set():
            self.refused += 1
            raise LogFull("no space left on device")
        return self._journal.append(batch)


@pytest.mark.slow
def test_nothing_is_confirmed_while_the_log_is_full_and_the_connection_lives(
    start_postgres: Any, tmp_path: Path
) -> None:
    with start_postgres(18, fsync=False, wal_sender_timeout="2s") as server:
        database = Plain(server)
        database.execute(TABLE)
        logs: list[FullLog] = []

        def wrap(journal: Journal) -> FullLog:
            logs.append(FullLog(journal))
            return logs[-1]

        with Pipeline(
            tmp_path / "j", database.dsn, log=wrap, slot_name="s_" + database.name,
            max_queue_size="3", max_batch_size="2",
        ) as pipeline:  # fmt: skip
            pipeline.until_agrees(database, "public.t")
            logs[0].full.set()
            until(lambda: confirmed(database), "the slot")
            before = written(database)
            for number in range(2, 60):
                database.execute(f"INSERT INTO t VALUES ({number}, 0)")
            pid = database.execute("SELECT active_pid FROM pg_replication_slots")
            database.wait_s(5)
            assert logs[0].refused
            assert confirmed(database) <= before
            assert database.execute("SELECT active_pid FROM pg_replication_slots") == pid
            logs[0].full.clear()
            events = pipeline.until_agrees(database, "public.t")
            until(lambda: confirmed(database) >= events[-1].end_lsn, "confirmation")
        assert len(logs) == 1


@pytest.mark.postgres_versions(12, 18)
def test_the_slot_moves_on_while_a_snapshot_is_read(database: Any, tmp_path: Path) -> None:
    rows = 4000
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int);"
        f"INSERT INTO t SELECT i, 0 FROM generate_series(1, {rows}) i; ANALYZE t"
    )

    def slow(journal: Journal) -> SlowLog:
        log = SlowLog(journal)
        log.append_s[Lane.SNAPSHOT] = 0.05
        return log

    settings = {"snapshot_chunk_rows": "100", "max_queue_size": "200", "max_batch_size": "100"}
    settings["status_update_interval_ms"] = "100"
    seen: list[int] = []
    with Pipeline(tmp_path / "j", database.dsn, log=slow, **settings) as pipeline:
        pipeline.running()
        for number in range(rows + 1, rows + 500):
            database.execute(f"INSERT INTO t VALUES ({number}, 0)")
            at = confirmed(database)
            with JournalReader(tmp_path / "j") as reader:
                if reader.bounds()[1] >= rows:
                    break
            seen.append(at)
        pipeline.until_agrees(database, "public.t")
    assert len(set(seen)) > 5
    assert seen == sorted(seen)


@pytest.mark.slow
def test_keep_alives_are_answered_while_the_disk_is_slow(
    start_postgres: Any, tmp_path: Path
) -> None:
    logs: list[SlowLog] = []

    def slow(journal: Journal) -> SlowLog:
        logs.append(SlowLog(journal))
        return logs[-1]

    with start_postgres(18, fsync=False, wal_sender_timeout="1s") as server:
        database = Plain(server)
        database.execute(TABLE)
        small = {"max_queue_size": "3", "max_batch_size": "2"}
        with Pipeline(tmp_path / "j", database.dsn, log=slow, **small) as pipeline:
            pipeline.until_agrees(database, "public.t")
            pid = database.execute("SELECT active_pid FROM pg_replication_slots")
            logs[0].append_s[Lane.STREAM] = 2.5  # one append outlives the server's patience
            database.execute("INSERT INTO t SELECT i, 0 FROM generate_series(2, 40) i")
            until(lambda: logs[0].calls >= 2, "an append to be done, and another to hang")
            database.wait_s(1.5)
            assert database.execute("SELECT active_pid FROM pg_replication_slots") == pid
            logs[0].append_s.clear()
            pipeline.until_agrees(database, "public.t")
        assert len(logs) == 1
