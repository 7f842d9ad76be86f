"""What the source says of a server it cannot use: cause, remedy, and nothing created."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.api import LogState
from cdc.errors import (
    CdcError,
    ConfigError,
    ConnectionLost,
    LogLost,
    RecordError,
    SlotBusy,
    SourceError,
)
from cdc.log import Journal
from cdc.lsn import lsn_text
from cdc.postgres.check import check
from cdc.postgres.linear import LinearPostgresTask
from cdc.postgres.position import Position
from cdc.postgres.source import PostgresSourceTask
from tests.capture.commands import left_behind
from tests.pipeline import Copy, Event, Pipeline, config_for, source_rows, until
from tests.postgres.servers_of_tests import Plain, pgbouncer, replaced

TABLE = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)"


def refusal(dsn: str, kind: type[CdcError] = SourceError, **settings: str) -> str:
    """What a start says."""
    settings = {"slot_max_retries": "0", **settings}
    task = PostgresSourceTask(config_for(dsn, **settings))
    try:
        with pytest.raises(kind) as caught:
            task.start(LogState())
    finally:
        task.stop()
    assert caught.value.remedy or isinstance(caught.value, SlotBusy)
    assert "shop-secret" not in str(caught.value)
    return str(caught.value)


def nothing_created(database: Any) -> None:
    assert left_behind(database) == []


# --- connections ----------------------------------------------------------------------------


def test_wrong_password(database: Any) -> None:
    text = refusal(replaced(database.dsn, password="wrong"))
    assert "password authentication failed" in text
    assert "database.password" in text


def test_wrong_database_and_user(database: Any) -> None:
    assert "database.dbname" in refusal(replaced(database.dsn, path="/nowhere"))
    assert "database.user" in refusal(replaced(database.dsn, user="nobody_here"))


@pytest.mark.parametrize("parts", [{"port": 1}, {"host": "no-such-host.invalid"}])
def test_wrong_host_or_port(database: Any, parts: dict[str, Any]) -> None:
    text = refusal(replaced(database.dsn, **parts))
    assert "database.hostname" in text


def test_a_pooler_in_between(database: Any, tmp_path: Path) -> None:
    with pgbouncer(database, tmp_path) as port:
        text = refusal(replaced(database.dsn, port=port))
    assert "pooler" in text
    assert "connect to the server itself" in text
    nothing_created(database)


# --- the server -----------------------------------------------------------------------------


def test_wal_level_is_not_logical(start_postgres: Any) -> None:
    with start_postgres(18, fsync=False, wal_level="replica") as server:
        database = Plain(server)
        database.execute(TABLE)
        text = refusal(database.dsn)
        assert "wal_level is replica" in text
        assert "ALTER SYSTEM SET wal_level = logical" in text
        nothing_created(database)


@pytest.mark.postgres_versions(12, 18)
def test_a_role_without_replication(database: Any) -> None:
    database.execute(TABLE)
    role = database.create_role("LOGIN")
    text = refusal(replaced(database.dsn, user=role))
    assert f'ALTER ROLE "{role}" REPLICATION' in text
    nothing_created(database)


@pytest.mark.postgres_versions(12, 18)
def test_a_role_that_may_not_read(database: Any) -> None:
    database.execute(TABLE)
    role = database.create_role("LOGIN REPLICATION")
    text = refusal(replaced(database.dsn, user=role))
    statement = f'GRANT SELECT ON "public"."t" TO "{role}"'
    assert statement in text
    assert "GRANT USAGE" not in text
    database.execute(f"{statement}; CREATE SCHEMA s; CREATE TABLE s.u (id int PRIMARY KEY);"
                     f" GRANT SELECT ON s.u TO {role}")  # fmt: skip
    text = refusal(replaced(database.dsn, user=role))
    assert f'may not read s.u. GRANT USAGE ON SCHEMA "s" TO "{role}"' in text
    assert "GRANT SELECT" not in text
    nothing_created(database)


def test_a_statement_that_mends_it_names_what_is_named_oddly(database: Any) -> None:
    database.execute('CREATE TABLE "Odd ""name" (id int PRIMARY KEY)')
    role = database.create_role("LOGIN REPLICATION")
    text = refusal(replaced(database.dsn, user=role))
    statement = f'GRANT SELECT ON "public"."Odd ""name" TO "{role}"'
    assert statement in text
    database.execute(statement)


def test_a_role_that_may_not_publish(database: Any) -> None:
    database.execute(TABLE)
    role = database.create_role("LOGIN REPLICATION")
    database.execute(f"GRANT SELECT ON t TO {role}")
    for mode in ("all_tables", "filtered"):
        text = refusal(replaced(database.dsn, user=role), publication_autocreate_mode=mode)
        assert "cannot be created" in text
        nothing_created(database)
    database.execute(f"REVOKE SELECT ON t FROM {role}")


def test_no_free_slot_and_no_free_walsender(start_postgres: Any) -> None:
    settings = {"max_replication_slots": 1, "max_wal_senders": 1}
    with start_postgres(18, fsync=False, **settings) as server:
        database = Plain(server)
        database.execute(TABLE)
        database.execute("SELECT pg_create_physical_replication_slot('idle')")
        text = refusal(database.dsn)
        assert "max_replication_slots=1" in text
        assert "idle" in text
        assert "pg_drop_replication_slot" in text
        nothing_created(database)
        database.execute("SELECT pg_drop_replication_slot('idle')")
        with Pipeline(server._base / "other", database.dsn) as pipeline:
            pipeline.running()
            text = refusal(database.dsn, ConnectionLost, slot_name="other")
            assert "max_wal_senders" in text
            said = [f.text for f in check(config_for(database.dsn, slot_name="s2")).findings]
            assert "no WAL sender is free: 1 of max_wal_senders=1 run" in said


@pytest.mark.postgres_versions(12, 18)
def test_a_slot_that_somebody_else_reads(database: Any, tmp_path: Path) -> None:
    database.execute(TABLE)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.running()
        (pid,) = database.execute(
            "SELECT active_pid FROM pg_replication_slots WHERE database = current_database()"
        )[0]
        text = refusal(database.dsn, SlotBusy)
    assert f"pid {pid} from 127.0.0.1 (cdc)" in text
    assert "slot.name" in text


def test_a_busy_slot_is_waited_for(database: Any, tmp_path: Path) -> None:
    database.execute(TABLE)
    with Pipeline(tmp_path / "j", database.dsn) as first:
        first.until_agrees(database, "public.t")
        second = PostgresSourceTask(config_for(database.dsn, snapshot_mode="no_data"))
        thread = threading.Thread(target=second.start, args=[LogState()])
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join(20)
    assert not thread.is_alive()
    second.stop()


def test_a_slot_of_another_kind(database: Any) -> None:
    database.execute(TABLE)
    name = "phys_" + database.name
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_create_physical_replication_slot(%s)", [name])
        try:
            assert "physical" in refusal(database.dsn, slot_name=name)
        finally:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [name])
    nothing_created(database)


# --- tables ---------------------------------------------------------------------------------


def test_a_publication_without_the_table(database: Any) -> None:
    database.execute(TABLE + "; CREATE TABLE u (id int PRIMARY KEY); CREATE PUBLICATION p FOR"
                     " TABLE u")  # fmt: skip
    text = refusal(
        database.dsn,
        publication_name="p",
        publication_autocreate_mode="disabled",
        table_include_list="public.t",
    )
    assert 'ALTER PUBLICATION "p" ADD TABLE ONLY "public"."t"' in text


@pytest.mark.postgres_versions(12, 18)
@pytest.mark.parametrize("mode", ["all_tables", "filtered"])
def test_an_update_that_publishing_would_break(database: Any, mode: str) -> None:
    database.execute(
        "CREATE TABLE k (id int); INSERT INTO k VALUES (1);"
        "CREATE TABLE n (id int PRIMARY KEY); ALTER TABLE n REPLICA IDENTITY NOTHING"
    )
    text = refusal(database.dsn, publication_autocreate_mode=mode)
    assert 'ALTER TABLE "public"."k" REPLICA IDENTITY FULL' in text
    assert 'ALTER TABLE "public"."n" REPLICA IDENTITY FULL' in text
    nothing_created(database)
    database.execute("UPDATE k SET id = 2")  # the application goes on


@pytest.mark.postgres_versions(12, 18)
def test_row_level_security(database: Any) -> None:
    database.execute(TABLE + "; ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    role = database.create_role("LOGIN REPLICATION")
    database.execute(f"GRANT SELECT ON t TO {role}; CREATE PUBLICATION p FOR ALL TABLES")
    text = refusal(replaced(database.dsn, user=role), publication_name="p")
    assert "row-level security" in text
    assert f'ALTER ROLE "{role}" BYPASSRLS' in text
    query = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
    assert not database.execute(query)
    database.execute(f"REVOKE ALL ON t FROM {role}")


@pytest.mark.parametrize("place", ["snapshot", "stream"])
def test_bytes_that_are_not_utf8(ascii_database: Any, tmp_path: Path, place: str) -> None:
    with ascii_database.connect(client_encoding="SQL_ASCII") as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")

        def spoil() -> None:
            connection.execute(rb"INSERT INTO t VALUES (1, E'caf\xe9')")

        if place == "snapshot":
            spoil()
        pipeline = Pipeline(tmp_path / "j", ascii_database.dsn).start()
        if place == "stream":
            pipeline.running()
            spoil()
        error = until(lambda: pipeline.error, "an error")
    assert isinstance(error, RecordError)
    text = str(error)
    assert "public.t" in text
    assert "name" in text
    assert "SQL_ASCII" in text
    assert "column.exclude.list" in text
    settings = {"column_exclude_list": "public.t.name"}
    with Pipeline(tmp_path / "j", ascii_database.dsn, **settings) as pipeline:
        events = pipeline.until(bool, "the row without it")
    assert events[0].row == {"id": 1}


# --- a log that does not go on --------------------------------------------------------------


def lose(
    tmp_path: Path, database: Any, accident: Callable[[], Any], **settings: str
) -> tuple[str, list[Event]]:
    """Capture, have an accident, and start again: see :func:`refused_then_read_again`."""
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.until_agrees(database, "public.t")
        database.execute("INSERT INTO t SELECT i, 0 FROM generate_series(2, 50) i")
        pipeline.until_agrees(database, "public.t")
    accident()
    return refused_then_read_again(tmp_path / "j", database, **settings)


def refused_then_read_again(
    journal: Path, database: Any, **settings: str
) -> tuple[str, list[Event]]:
    """What is said; what when_needed then reads, until that alone is a true copy."""
    objects = left_behind(database)
    with (
        pytest.raises(LogLost) as caught,
        Pipeline(journal, database.dsn, **settings) as pipeline,
    ):
        pipeline.running()
    assert left_behind(database) == objects
    known = len(pipeline.events())
    with Pipeline(journal, database.dsn, **{**settings, "snapshot_mode": "when_needed"}) as again:
        again.running()
        database.execute("INSERT INTO t VALUES (7000, 0)")

        def agrees(events: list[Event]) -> bool:
            return Copy.of(events[known:]).rows("public.t") == source_rows(database, "t")

        return str(caught.value), again.until(agrees, "a copy of what is read again")[known:]


def drop_slot(database: Any) -> None:
    slot = "s_" + database.name
    database.execute("SELECT pg_drop_replication_slot(%s)", [slot])


@pytest.mark.postgres_versions(12, 18)
def test_a_slot_that_is_gone(database: Any, tmp_path: Path) -> None:
    database.execute(TABLE)
    text, _ = lose(tmp_path, database, lambda: drop_slot(database))
    assert "is gone" in text
    assert "when_needed" in text


ADVANCE = "SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())"
# What was done to the slot, by whoever may. Behind a checkpoint an advanced slot begins to
# decode elsewhere, as a new one does: nobody can tell the two apart.
MOVES = {
    "made again": (
        "SELECT pg_drop_replication_slot('{slot}')",
        "INSERT INTO t VALUES (1000, 0)",
        "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')",
    ),
    "advanced": (
        "INSERT INTO t VALUES (1000, 0)",
        "CHECKPOINT",
        "INSERT INTO t VALUES (1001, 0)",
        "CHECKPOINT",
        "INSERT INTO t VALUES (1002, 0)",
        ADVANCE,
    ),
}


@pytest.mark.postgres_versions(12, 18)
@pytest.mark.parametrize("move", MOVES)
def test_a_slot_that_starts_behind_the_log(database: Any, tmp_path: Path, move: str) -> None:
    database.execute(TABLE)
    slot, told = "s_" + database.name, []

    def accident() -> None:
        for statement in MOVES[move]:
            database.execute(statement.format(slot=slot))
        query = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s"
        ((starts,),) = database.execute(query, [slot])
        with Journal.open(tmp_path / "j") as journal:
            stored = Position.from_dict(journal.state().stream_position or {})
        told.append(
            f"the replication slot {slot} was moved on, or dropped and created again, by somebody "
            f"else: it starts at {starts}, changes from {lsn_text(stored.lsn)} to there are lost. "
            "set snapshot.mode=when_needed to read the tables again"
        )

    text, _ = lose(tmp_path, database, accident)
    assert [text] == told


@pytest.mark.slow
@pytest.mark.postgres_versions(13, 18)
def test_a_slot_invalidated_by_too_much_wal(start_postgres: Any, tmp_path: Path) -> None:
    settings = {"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    with start_postgres(fsync=False, **settings) as server:
        database = Plain(server)
        database.execute(TABLE)
        with Pipeline(tmp_path / "j", database.dsn) as pipeline:
            pipeline.until_agrees(database, "public.t")

        def lost() -> bool:
            database.execute("SELECT pg_switch_wal() FROM txid_current()")
            database.execute("CHECKPOINT")
            return bool(
                database.execute("SELECT 1 FROM pg_replication_slots WHERE wal_status = 'lost'")
            )

        until(lost, "the slot's end")
        with (
            pytest.raises(LogLost) as caught,
            Pipeline(tmp_path / "j", database.dsn) as pipeline,
        ):
            pipeline.running()
        assert re.search(r"invalidated \((wal_removed|required WAL r)", str(caught.value))
        needed = {"snapshot_mode": "when_needed"}
        # a capture has not made every slot it uses, and drops none
        with (
            pytest.raises(LogLost, match=r"invalidated .*pg_drop_replication_slot"),
            Pipeline(
                tmp_path / "j", database.dsn, **needed,
                task=lambda config: LinearPostgresTask(config, temporary=False),
            ) as pipeline,
        ):  # fmt: skip
            pipeline.running()
        with Pipeline(tmp_path / "j", database.dsn, **needed) as pipeline:
            pipeline.until(lambda es: len(es) == 2, "the second snapshot")
            database.execute("INSERT INTO t VALUES (1000, 0)")
            pipeline.until_agrees(database, "public.t")


@pytest.mark.slow
def test_another_server_and_one_that_lost_its_end(start_postgres: Any, tmp_path: Path) -> None:
    with start_postgres(18, fsync=False) as one, start_postgres(18, fsync=False) as two:
        first, second = Plain(one), Plain(two)
        for database in (first, second):
            database.execute(TABLE)
        with Pipeline(tmp_path / "j", first.dsn) as pipeline:
            pipeline.until_agrees(first, "public.t")
        # a copy of the files of before: the same server, with an older end
        one.stop("fast")
        backup = tmp_path / "backup"
        subprocess.run(["cp", "-a", one.data_dir, backup], check=True)
        one.start()
        with Pipeline(tmp_path / "j", first.dsn) as pipeline:
            pipeline.running()
            first.execute("INSERT INTO t SELECT i, 0 FROM generate_series(2, 5000) i")
            pipeline.until_agrees(first, "public.t")
        one.stop("immediate")
        subprocess.run(["rm", "-r", one.data_dir], check=True)
        subprocess.run(["cp", "-a", backup, one.data_dir], check=True)
        one.start()
        text, events = refused_then_read_again(tmp_path / "j", first)
        assert "it was restored, or it lost what it had written" in text
        assert [e.row["id"] for e in events] == [1, 7000]
        # and a log that was written from one server is taken to another, to a database of it
        second.execute("UPDATE t SET n = 2")
        second.execute("CREATE DATABASE other")
        other = Plain(two, "other")
        other.execute(TABLE)
        text, events = refused_then_read_again(tmp_path / "j", second)
        assert "this is another server: its system identifier is" in text
        assert events[0].row == {"id": 1, "n": 2}
        text, events = refused_then_read_again(tmp_path / "j", other)
        assert "this is another database: oid" in text
        assert events[0].row == {"id": 1, "n": 1}


@pytest.mark.slow
def test_a_promotion_that_the_log_reaches_up_to_is_no_loss(
    start_postgres: Any, tmp_path: Path
) -> None:
    with start_postgres(18, fsync=False) as server:
        database = Plain(server)
        database.execute(TABLE)
        with Pipeline(tmp_path / "j", database.dsn) as pipeline:
            pipeline.until_agrees(database, "public.t")
        # recovery to its end and a promotion: what becomes of a standby, in place
        server.stop("fast")
        signal_file = server.data_dir / "standby.signal"
        signal_file.touch(mode=0o644)
        server.start()
        database.execute("SELECT pg_promote()")
        until(lambda: database.execute("SELECT NOT pg_is_in_recovery()")[0][0], "promotion")
        database.execute("INSERT INTO t VALUES (7, 7)")
        with Pipeline(tmp_path / "j", database.dsn) as pipeline:
            events = pipeline.until_agrees(database, "public.t")
        assert [e.op for e in events] == ["r", "c"]


@pytest.mark.slow
def test_a_server_that_forgot_a_confirmation_goes_on(start_postgres: Any, tmp_path: Path) -> None:
    """A crash takes the slot back to its last checkpoint: behind the journal, which knows."""
    with start_postgres(12, fsync=False) as server:
        database = Plain(server)
        database.execute(TABLE)
        query = "SELECT confirmed_flush_lsn FROM pg_replication_slots"
        with Pipeline(tmp_path / "j", database.dsn) as pipeline:
            pipeline.until_agrees(database, "public.t")
            database.execute("CHECKPOINT")
            database.execute("INSERT INTO t SELECT i, 0 FROM generate_series(2, 50) i")
            pipeline.until_agrees(database, "public.t")
            database.execute("INSERT INTO t VALUES (1000, 0)")
            event = pipeline.until_agrees(database, "public.t")[-1]
            sent = "SELECT 1 FROM pg_replication_slots WHERE confirmed_flush_lsn >= %s::pg_lsn"
            place = f"{event.end_lsn >> 32:X}/{event.end_lsn & 0xFFFFFFFF:X}"
            until(lambda: database.execute(sent, [place]), "the confirmation")
        before = database.execute(query)
        server.stop("immediate")
        server.start()
        assert database.execute(query) < before
        database.execute("INSERT INTO t VALUES (1001, 0)")
        with Pipeline(tmp_path / "j", database.dsn) as pipeline:
            events = pipeline.until_agrees(database, "public.t")
        assert len(events) == 52


def test_lists_that_are_no_expressions(database: Any) -> None:
    with pytest.raises(ConfigError, match=r"table\.include\.list"):
        PostgresSourceTask(config_for(database.dsn, table_include_list="public.(t"))
