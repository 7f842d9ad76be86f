"""The slot is watched: what the server keeps for it, and what is said before it is too late."""

from __future__ import annotations

import logging
import time

import psycopg
import pytest

from cdc import metrics as names
from cdc.errors import ConnectionLost
from cdc.postgres import watch
from cdc.postgres.watch import (
    OLDEST_TRANSACTION_WARN_S,
    RETAINED_WARN_BYTES,
    XMIN_WARN_TRANSACTIONS,
    Watch,
    look,
    warnings,
)
from tests.fix_postgres import Database, StartPostgres

GIB = 1 << 30


@pytest.mark.postgres_versions(12, 15, 18)
def test_every_version_says_what_it_knows(database: Database, postgres_major: int) -> None:
    slot = f"watch_{database.name}"
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    database.execute("CREATE TABLE t (id int)")
    with database.connect() as conn, database.connect(autocommit=False) as other:
        other.execute("INSERT INTO t VALUES (1)")
        seen = look(conn, slot)
        assert seen.retained_bytes is not None
        assert seen.retained_bytes > 0
        assert seen.oldest_s is not None
        assert seen.oldest_s > 0
        assert seen.xmin_age is not None
        found = seen.metrics()
        assert (names.SLOT_WAL_STATUS in found) == (postgres_major >= 13)
        assert found.get(names.SLOT_WAL_STATUS, 0.0) == 0.0
        assert names.SLOT_WAL_KEEP_BYTES not in found
        none = look(conn, "no_such_slot")
        assert none.retained_bytes is None
        assert set(none.metrics()) == {names.SOURCE_OLDEST_TRANSACTION}


def test_a_role_that_may_not_see_others_transactions_reports_none(database: Database) -> None:
    role = database.create_role("LOGIN REPLICATION")
    with database.connect(user=role) as conn, database.connect(autocommit=False) as other:
        other.execute("SELECT txid_current()")
        assert look(conn, "any").oldest_s is None


def test_a_slot_is_warned_of_before_it_is_lost(
    start_postgres: StartPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_postgres(
        max_slot_wal_keep_size="64MB", max_wal_size="10GB", checkpoint_timeout="1h", fsync=False
    )
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as conn:
        conn.execute("SELECT pg_create_logical_replication_slot('shop', 'pgoutput')")
        conn.execute("CREATE TABLE t (id int)")
        first = look(conn, "shop").metrics()
        assert first[names.SLOT_WAL_KEEP_BYTES] == 64 << 20
        assert warnings(first) == []
        said: list[str] = []
        found = first
        with caplog.at_level(logging.WARNING):
            for _ in range(40):
                conn.execute("INSERT INTO t VALUES (1)")
                conn.execute("SELECT pg_switch_wal()")
                found = look(conn, "shop").metrics()
                if warnings(found) and not said:
                    Watch(lambda: conn, "shop").metrics(lambda lsn: {})
                said += warnings(found)
                if found.get(names.SLOT_SAFE_WAL_BYTES, -1) < 0:
                    break
        assert said[0].startswith("the slot is lost after")
        assert "max_slot_wal_keep_size" in said[0]
        assert "slot shop: the slot is lost after" in caplog.text
        conn.execute("CHECKPOINT")
        lost = look(conn, "shop").metrics()
        assert lost[names.SLOT_WAL_STATUS] == 3
        assert "the slot is lost: the WAL it needs is gone" in warnings(lost)[0]


def test_thresholds() -> None:
    def said(**values: float) -> str:
        return " ".join(warnings({getattr(names, name): v for name, v in values.items()}))

    assert said() == ""
    assert said(SLOT_RETAINED_BYTES=RETAINED_WARN_BYTES) == ""
    assert "keep 11.0 GB" in said(SLOT_RETAINED_BYTES=11 * GIB)
    assert said(SLOT_RETAINED_BYTES=11 * GIB, SLOT_WAL_KEEP_BYTES=100 * GIB,
                SLOT_SAFE_WAL_BYTES=25 * GIB) == ""  # fmt: skip
    assert "lost after 24.0 GB more" in said(SLOT_WAL_KEEP_BYTES=100 * GIB,
                                             SLOT_SAFE_WAL_BYTES=24 * GIB)  # fmt: skip
    assert said(SOURCE_OLDEST_TRANSACTION=OLDEST_TRANSACTION_WARN_S) == ""
    assert "open for 20 minutes" in said(SOURCE_OLDEST_TRANSACTION=1200)
    assert said(SLOT_XMIN_AGE=XMIN_WARN_TRANSACTIONS) == ""
    assert "300 million" in said(SLOT_XMIN_AGE=3e8)


def test_a_server_that_does_not_answer_leaves_the_values(database: Database) -> None:
    conn = database.connect()
    watch = Watch(lambda: conn, "none")
    before = watch.metrics(lambda lsn: {"lag": float(lsn)})
    assert before["lag"] > 0
    conn.close()
    watch._at = float("-inf")
    assert watch.metrics(lambda lsn: {}) == before


def test_a_warning_is_not_repeated_at_every_look(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc.postgres.watch.OLDEST_TRANSACTION_WARN_S", -1.0)
    with database.connect() as conn, database.connect(autocommit=False) as other:
        other.execute("SELECT txid_current()")
        watch = Watch(lambda: conn, "none")
        for _ in range(3):
            watch._at = float("-inf")
            watch.metrics(lambda lsn: {})
    assert caplog.text.count("a transaction has been open") == 1


def test_a_server_that_does_not_answer_holds_nobody_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_QUERY", "SELECT pg_sleep(60), %s::text")
    with database.connect() as conn:
        began = time.monotonic()
        assert Watch(lambda: conn, "shop").metrics(lambda _: {}) == {}
        assert time.monotonic() - began < 10
        assert conn.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_a_server_that_cannot_be_reached_ends_nothing() -> None:
    def unreachable() -> psycopg.Connection[object]:
        raise ConnectionLost("refused")

    assert Watch(unreachable, "shop").metrics(lambda _: {}) == {}
