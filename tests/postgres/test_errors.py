"""Errors of connections and sessions: what is worth another attempt, and what is not."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cdc.errors import ConnectionLost, SourceError
from cdc.postgres import replication, taking
from cdc.postgres.replication import (
    LogReader,
    connection_error,
    connection_parameters,
    session_error,
)
from cdc.postgres.sessions import connect
from cdc.postgres.taking import SnapshotTaker
from tests.pipeline import until


@pytest.mark.parametrize("open_it", [connect, LogReader])
def test_a_name_that_is_unknown_for_a_moment_is_tried_again(open_it: Any) -> None:
    """So does a container's that restarts; who misspelt it reads the cause after the attempts."""
    with pytest.raises(ConnectionLost) as caught:
        open_it({"host": "no-such-host.invalid", "dbname": "d", "user": "u"})
    assert "no-such-host.invalid" in caught.value.problem
    assert caught.value.remedy == "check database.hostname"


@pytest.mark.parametrize(
    ("text", "retriable"),
    [
        ("FATAL: sorry, too many clients already", True),
        ("FATAL: the database system is starting up", True),
        ("FATAL: remaining connection slots are reserved for roles with …", True),
        ("connection refused", True),
        ('FATAL: password authentication failed for user "u"', False),
        ('FATAL: database "d" does not exist', False),
    ],
)
def test_refused_connections(text: str, retriable: bool) -> None:
    error = connection_error(RuntimeError(text))
    assert error.retriable is retriable
    assert error.problem == text
    assert error.remedy


def test_what_helps_is_a_sentence_of_its_own_behind_what_the_server_says() -> None:
    refused = connection_error(RuntimeError("refused\n\tIs the server accepting connections?"))
    assert "Is the server accepting connections? check that" in str(refused)
    lacking = connection_error(RuntimeError("fe_sendauth: no password supplied"))
    assert "supplied. set database.password; beside a URL --password-file" in str(lacking)


@pytest.mark.parametrize(
    ("code", "text", "retriable"),
    [
        ("42501", "permission denied", False),
        ("28000", "role is not permitted to log in", False),
        ("0A000", "not supported", False),
        ("57P01", "terminating connection", True),
        ("53300", "too many connections", True),
        ("08006", "connection failure", True),
        ("XX000", "cache lookup failed", True),
        ("22023", 'invalid snapshot identifier: "1"', True),
        (None, "server closed the connection unexpectedly", True),
    ],
)
def test_errors_of_sessions(code: str | None, text: str, retriable: bool) -> None:
    class Failed(psycopg.Error):
        sqlstate = code

    error = session_error(Failed(text), "t")
    assert type(error) is (ConnectionLost if retriable else SourceError)
    assert error.problem == f"t: {text}"


def test_whatever_ends_the_taking_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(taking, "connect", fail)
    taker = SnapshotTaker({})
    with pytest.raises(ZeroDivisionError):
        taker.wait(10)
    taker.close()


def test_a_taking_given_up_at_once_ends(database: Any) -> None:
    """Not even a transaction that does not end holds it up."""
    with database.connect(autocommit=False) as other:
        other.execute("SELECT txid_current()")
        taker = SnapshotTaker(conninfo_to_dict(database.dsn))
        taker.close()
        assert not taker._thread.is_alive()


def test_a_snapshot_that_comes_after_it_was_given_up_is_let_go(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "JOIN_S", 0.0)
    monkeypatch.setattr(LogReader, "cancel", lambda _: None)  # the server does not hear of it
    held = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state LIKE %s"
    with database.connect(autocommit=False) as other:
        other.execute("SELECT txid_current()")
        taker = SnapshotTaker(conninfo_to_dict(database.dsn))
        made = "SELECT 1 FROM pg_replication_slots WHERE database = current_database()"
        until(lambda: database.execute(made), "the slot to be under way")
        taker.close()
    taker._thread.join(20)
    assert database.execute(held, ["idle in %"]) == []
    with pytest.raises(ConnectionLost, match="given up"):
        taker.wait(0)


def test_a_dead_peer_is_noticed() -> None:
    found = connection_parameters({"host": "h", "keepalives_idle": "5", "tcp_user_timeout": "9"})
    assert found["keepalives_idle"] == "5"
    assert found["keepalives_count"] == 3
    assert found["tcp_user_timeout"] == "9"
    assert "keepalives_idle" not in connection_parameters({"keepalives": "0"})


def test_a_server_that_falls_silent_is_lost(
    database: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle one is asked, and answers."""
    monkeypatch.setattr(replication, "SILENCE_MIN_S", 1.0)
    database.execute(f"ALTER DATABASE {database.name} SET wal_sender_timeout = '2s'")
    database.execute("CREATE PUBLICATION silent FOR ALL TABLES")
    between = proxy(int(database.execute("SHOW port")[0][0]))
    reader = LogReader(conninfo_to_dict(between.url(database.dsn)))
    try:
        slot = reader.create_slot(f"silent_{database.name}", temporary=True)
        options = {"proto_version": "1", "publication_names": "silent"}
        reader.start(slot.name, slot.consistent_lsn, options)

        def listen(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                reader.read(0.1, 100)
                reader.keep_alive(0.2)

        listen(5)
        between.stall()
        with pytest.raises(ConnectionLost, match="silent"):
            listen(20)
    finally:
        between.resume()
        reader.close()
