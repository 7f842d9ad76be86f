from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from cdc.capture.output import Output
from cdc.capture.settings import make_settings
from cdc.errors import ConfigError, LogFull
from tests.capture.commands import (
    ROOT,
    Running,
    capture,
    command,
    is_streaming,
    left_behind,
    lines,
    until,
)
from tests.fix_postgres import Database, ServerPool, StartPostgres
from tests.servers import give_up

# Where nothing is to be waited for.
AT_ONCE = ("--set", "slot.max.retries=0")

PACKAGE = "org.apache.kafka.connect."


@pytest.fixture
def shop(database: Database) -> Database:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    database.execute("INSERT INTO t VALUES (1, 'one')")
    return database


def refused(url: str, *arguments: str | Path, code: int = 1) -> str:
    """The one line that says why."""
    done = capture(url, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr


def as_role(database: Database, role: str, password: str = "shop-secret") -> str:
    scheme, _, rest = database.dsn.partition("://")
    return f"{scheme}://{role}:{password}@{rest.rpartition('@')[2]}"


def test_a_wrong_password(shop: Database) -> None:
    text = refused(as_role(shop, "postgres", "not-the-password"))
    assert "password authentication failed" in text
    assert "check database.user and database.password" in text
    assert "not-the-password" not in text


def test_a_password_that_nothing_answers_to_is_named(shop: Database) -> None:
    done = capture(as_role(shop, "postgres"), "--set", "database.password=${env:CDC_IS_NOT_SET}")
    assert done.returncode == 1
    said, error = done.stderr.splitlines()
    assert said == (
        "WARNING: database.password: ${env:CDC_IS_NOT_SET} stays as it is: nothing has that name"
    )
    assert "password authentication failed" in error


def test_a_wrong_host_and_a_wrong_port(shop: Database) -> None:
    text = refused("postgresql://me:x@no-such-host.invalid/db")
    assert "no-such-host.invalid" in text
    assert "database.hostname" in text
    text = refused("postgresql://me:x@127.0.0.1:1/db")
    assert "check that the server runs" in text


def test_a_url_that_is_none(shop: Database) -> None:
    assert "a URL begins with postgresql://" in refused("mysql://localhost/db", code=2)
    done = subprocess.run(
        command(shop.dsn)[:4], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    assert done.returncode == 2
    assert "no database is named" in done.stderr


def test_a_file_of_a_sink_or_without_its_database_is_named_as_that(tmp_path: Path) -> None:
    file = tmp_path / "connector.properties"
    for text, said in (
        ("connector.class=io.confluent.connect.jdbc.JdbcSinkConnector", "is no source"),
        ("connector.class=postgres\ndatabase.hostnam=db", "did you mean database.hostname?"),
    ):
        file.write_text(f"name=it\n{text}\n")
        with pytest.raises(ConfigError, match=re.escape(said)):
            make_settings(None, file=file)


def test_a_misspelt_property_is_named_with_the_nearest_one(shop: Database) -> None:
    text = refused(shop.dsn, "--set", "table.include.lst=public.t", code=2)
    assert "unknown configuration table.include.lst. Did you mean table.include.list?" in text
    assert "--set: not of the form key=value" in refused(shop.dsn, "--set", "secret", code=2)
    text = refused(shop.dsn, "--set", "snapshot.mode=sometimes", code=2)
    assert "Invalid value sometimes for configuration snapshot.mode" in text


def test_an_until_that_is_none(shop: Database) -> None:
    assert "neither 'current' nor an LSN" in refused(shop.dsn, "--until", "tomorrow", code=2)


def test_converters_that_nobody_knows_or_that_cannot_write_what_comes(shop: Database) -> None:
    for part in ("converter", "value.converter", "header.converter"):
        text = refused(shop.dsn, "--set", f"{part}=org.example.NoConverter", code=2)
        assert "which name matches org.example.NoConverter" in text
        assert "Traceback" not in text
    converter = f"value.converter={PACKAGE}converters.ByteArrayConverter"
    text = refused(shop.dsn, "--set", converter, code=2)
    assert "the converters cannot write an event: Invalid schema type for ByteArray" in text
    assert "Traceback" not in text


def test_a_role_that_may_not_replicate(shop: Database) -> None:
    role = shop.create_role("LOGIN")
    text = refused(as_role(shop, role))
    assert "may not" in text
    shop.execute(f"GRANT CREATE ON DATABASE {shop.name} TO {role}")
    assert f'the role {role} may not replicate. ALTER ROLE "{role}" REPLICATION' in refused(
        as_role(shop, role)
    )
    assert left_behind(shop) == []


def test_a_role_that_may_only_read_is_told_how_to_be_given_a_publication(shop: Database) -> None:
    role = shop.create_role("LOGIN REPLICATION")
    shop.execute(f"GRANT SELECT ON t TO {role}")
    url = as_role(shop, role)
    text = refused(url)
    assert f"the role {role} may not create publications" in text
    assert "--set publication.name=cdc --set publication.autocreate.mode=disabled" in text
    shop.execute("CREATE PUBLICATION cdc FOR ALL TABLES")
    done = capture(
        url, "--until", "current", "--set", "publication.name=cdc",
        "--set", "publication.autocreate.mode=disabled",
    )  # fmt: skip
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, "")
    assert left_behind(shop) == ["cdc"]


def test_a_wal_level_that_does_not_do(start_postgres: StartPostgres) -> None:
    server = start_postgres(wal_level="replica")
    text = refused(server.dsn())
    assert "wal_level is replica" in text
    assert "ALTER SYSTEM SET wal_level = logical" in text


def test_no_slot_and_no_wal_sender_is_free(start_postgres: StartPostgres) -> None:
    server = start_postgres(max_replication_slots=1, max_wal_senders=1)
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot('other', 'pgoutput')")
        text = refused(server.dsn())
        assert "1 of max_replication_slots=1 are in use (inactive: other)" in text
        connection.execute("SELECT pg_drop_replication_slot('other')")
        with psycopg.connect(server.dsn(), replication="true", autocommit=True):
            text = refused(server.dsn())
        assert 'exceeds "max_wal_senders" (currently 1). raise max_wal_senders' in text
        assert connection.execute("SELECT pubname FROM pg_publication").fetchall() == []


def test_a_slot_that_somebody_else_reads_is_told_with_pid_and_client(
    shop: Database, tmp_path: Path
) -> None:
    arguments = ("--set", f"slot.name=shared_{shop.name}", "--set", "publication.name=shared")
    with Running(shop.dsn, "--state", tmp_path / "one", *arguments) as running:
        until(lambda: is_streaming(shop))
        ((pid,),) = shop.execute(
            "SELECT active_pid FROM pg_replication_slots WHERE database = current_database()"
        )
        text = refused(shop.dsn, "--state", tmp_path / "two", *arguments, *AT_ONCE)
        assert f"is active for pid {pid} from 127.0.0.1 (cdc)" in text
        assert running.end(signal.SIGTERM) == 0


SLOT = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
DROP_SLOT = "SELECT pg_drop_replication_slot('{slot}')"
ADVANCE_SLOT = "SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())"
MOVED = (
    r"the replication slot {slot} was moved on, or dropped and created again, by somebody else: it"
    r" starts at \w+/\w+, changes from \w+/\w+ to there are lost\. set snapshot\.mode=when_needed"
)
# What happened to the database while the capture was away → how it is told.
ACCIDENTS = {
    "slot gone": (
        (DROP_SLOT,),
        r"the replication slot {slot} is gone: changes after \w+/\w+ are lost\. .*when_needed",
    ),
    "slot made again": (
        (
            DROP_SLOT,
            "INSERT INTO t VALUES (2, 'two')",
            "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')",
        ),
        MOVED,
    ),
    "slot advanced": (("INSERT INTO t VALUES (2, 'two')", ADVANCE_SLOT), MOVED),
    "publication gone": (("DROP PUBLICATION {publication}",), r"{publication} was dropped"),
    "table no longer published": (
        ("ALTER PUBLICATION {publication} DROP TABLE t", "INSERT INTO t VALUES (2, 'two')"),
        r"public\.t",
    ),
}


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_an_accident_at_the_server_ends_it_and_changes_nothing(
    shop: Database, tmp_path: Path, accident: str
) -> None:
    """Non-zero, one line that says what, and output and state byte for byte as they were."""
    out, state = tmp_path / "out.jsonl", tmp_path / "state"
    filtered = ("--set", "publication.autocreate.mode=filtered")
    arguments = ("--output", out, "--state", state, "--until", "current", *filtered)
    assert capture(shop.dsn, *arguments).returncode == 0
    ((slot,),) = shop.execute(SLOT)
    ((publication,),) = shop.execute("SELECT pubname FROM pg_publication")
    before = out.read_bytes(), (state / "state.json").read_bytes()
    statements, said = ACCIDENTS[accident]
    for statement in statements:
        shop.execute(statement.format(slot=slot, publication=publication))
    text = refused(shop.dsn, *arguments, *AT_ONCE)
    assert re.search(said.format(slot=slot, publication=publication), text), text
    assert before == (out.read_bytes(), (state / "state.json").read_bytes())


def test_a_state_of_another_database_and_of_another_server(
    shop: Database,
    copy_database: Database,
    postgres_pool: ServerPool,
    postgres_major: int,
    tmp_path: Path,
) -> None:
    arguments = ("--state", tmp_path / "state", "--until", "current")
    assert capture(shop.dsn, *arguments).returncode == 0
    before = (tmp_path / "state" / "state.json").read_bytes()
    text = refused(copy_database.dsn, *arguments)
    assert "this is another database: oid" in text
    assert "check database.dbname, or set snapshot.mode=when_needed" in text
    other = postgres_pool.get(12 if postgres_major != 12 else 18)
    text = refused(other.dsn(), *arguments)
    assert "this is another server: its system identifier is" in text
    assert "connect to the right server, or set snapshot.mode=when_needed" in text
    assert (tmp_path / "state" / "state.json").read_bytes() == before
    assert left_behind(copy_database) == []


@pytest.mark.parametrize("place", ["snapshot", "stream"])
def test_bytes_that_are_not_utf8_are_told_with_their_column(
    ascii_database: Database, tmp_path: Path, place: str
) -> None:
    ascii_database.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    arguments = ("--state", tmp_path / "state", "--output", tmp_path / "out.jsonl")
    if place == "stream":
        assert capture(ascii_database.dsn, *arguments, "--until", "current").returncode == 0
    with ascii_database.connect(client_encoding="SQL_ASCII") as connection:
        connection.execute(rb"INSERT INTO t VALUES (1, E'caf\xe9')")
    text = refused(ascii_database.dsn, *arguments)
    assert "public.t" in text
    assert "column.exclude.list" in text
    assert lines(tmp_path / "out.jsonl") == []
    left_out = ("--set", "column.exclude.list=public.t.name", "--until", "current")
    done = capture(ascii_database.dsn, *arguments, *left_out)
    assert (done.returncode, done.stderr) == (0, "")
    assert [e["value"]["after"] for e in lines(tmp_path / "out.jsonl")] == [{"id": 1}]


def test_rows_behind_a_policy_are_not_left_out_unsaid(shop: Database, tmp_path: Path) -> None:
    role = shop.create_role("LOGIN REPLICATION")
    shop.execute(f"GRANT SELECT ON t TO {role}; GRANT CREATE ON DATABASE {shop.name} TO {role}")
    shop.execute(f"ALTER TABLE t OWNER TO {role}")
    shop.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY")
    out = tmp_path / "out.jsonl"
    text = refused(as_role(shop, role), "--output", out, "--until", "current")
    assert "row-level security" in text.lower().replace("row level", "row-level"), text
    assert not out.exists() or not out.read_bytes()


def test_a_state_that_another_capture_uses(shop: Database, tmp_path: Path) -> None:
    with Running(shop.dsn, "--state", tmp_path) as running:
        until(lambda: is_streaming(shop))
        text = refused(shop.dsn, "--state", tmp_path)
        assert f"is in use by process {running.process.pid}" in text


def test_an_output_that_cannot_be_written(shop: Database, tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "out.jsonl"
    assert "No such file or directory" in refused(shop.dsn, "--output", missing, code=2)
    assert "is a folder" in refused(shop.dsn, "--output", tmp_path, code=2)
    file = tmp_path / "file"
    file.write_text("")
    text = refused(shop.dsn, "--state", file / "state", code=2)
    assert "--state" in text
    assert "cannot be used" in text
    assert left_behind(shop) == []


def test_an_output_that_lost_what_was_written(shop: Database, tmp_path: Path) -> None:
    out, state = tmp_path / "out.jsonl", tmp_path / "state"
    arguments = ("--until", "current", "--output", out, "--state", state)
    assert capture(shop.dsn, *arguments).returncode == 0
    length = out.stat().st_size
    out.write_text("")
    text = refused(shop.dsn, *arguments)
    assert f"has 0 bytes, and the state says that {length} were written" in text
    shop.execute("INSERT INTO t VALUES (2, 'two')")
    other = tmp_path / "other.jsonl"
    done = capture(shop.dsn, "--until", "current", "--output", other, "--state", state)
    assert done.returncode == 0
    assert [e["key"]["id"] for e in lines(other)] == [2]


def test_a_state_that_is_damaged_or_newer(shop: Database, tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text("{")
    assert "is damaged" in refused(shop.dsn, "--state", tmp_path)
    file.write_text(json.dumps({"format": 99}))
    assert "format 99, newer than 1" in refused(shop.dsn, "--state", tmp_path)


def test_a_file_size_limit_ends_it_and_leaves_whole_lines(shop: Database, tmp_path: Path) -> None:
    shop.execute("INSERT INTO t SELECT i, 'x' FROM generate_series(2, 5000) i")
    out, state = tmp_path / "out.jsonl", tmp_path / "state"
    limit = 3_000_000
    arguments = (
        "--until", "current", "--output", out, "--state", state,
        "--set", "snapshot.chunk.rows=500",
    )  # fmt: skip

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = capture(shop.dsn, *arguments, preexec_fn=lower)
    assert done.returncode == 1
    assert "File too large. raise the limit of file sizes" in done.stderr
    assert out.read_bytes().endswith(b"}\n")
    assert capture(shop.dsn, *arguments).returncode == 0
    assert sorted({e["key"]["id"] for e in lines(out)}) == list(range(1, 5001))


def test_a_full_disk_takes_back_the_half_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output(str(tmp_path / "out.jsonl"))
    output.write(b"one\n")
    write, room = os.write, [2]

    def full(fd: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data[: room.pop()])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(LogFull, match=r"No space left on device\. make room"):
        output.write(b"two\n")
    monkeypatch.undo()
    assert (tmp_path / "out.jsonl").read_bytes() == b"one\n"
    output.write(b"two\n")
    output.close()
    assert (tmp_path / "out.jsonl").read_bytes() == b"one\ntwo\n"


def mounted_small(folder: Path) -> bool:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    return subprocess.run(mount, check=False, capture_output=True).returncode == 0


CONFIRMED = (
    "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots"
    " WHERE database = current_database()"
)


def test_a_full_disk_is_waited_for_and_nothing_is_confirmed(shop: Database, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    if not mounted_small(disk):
        give_up("mounting a small file system takes root")
    try:
        arguments = ("--output", disk / "out.jsonl", "--state", tmp_path / "state")
        with Running(shop.dsn, *arguments) as running:
            until(lambda: is_streaming(shop) and len(lines(disk / "out.jsonl")) == 1)
            stuffing = disk / "stuffing"
            with stuffing.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"x" * 4096)
                except OSError:
                    pass
            shop.execute("INSERT INTO t SELECT i, 'x' FROM generate_series(2, 100) i")
            ((before,),) = shop.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
            time.sleep(1)
            assert shop.execute(CONFIRMED)[0][0] < before
            assert len(lines(disk / "out.jsonl")) == 1
            stuffing.unlink()
            until(lambda: len(lines(disk / "out.jsonl")) == 100)
            until(lambda: shop.execute(CONFIRMED)[0][0] >= before)
            assert running.end(signal.SIGTERM) == 0
            assert "no space for the log, next attempt in" in running.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)
