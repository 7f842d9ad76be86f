from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.capture.commands import (
    ROOT,
    Running,
    capture,
    command,
    events_of,
    is_streaming,
    left_behind,
    lines,
    until,
)
from tests.fix_postgres import Database

ROWS = 3

PACKAGE = "org.apache.kafka.connect."


@pytest.fixture
def shop(database: Database) -> Database:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(5, 2) DEFAULT 1.5)")
    database.execute("INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 3) i")
    return database


def test_records_are_compact_objects_in_a_fixed_order(shop: Database) -> None:
    done = capture(shop.dsn, "--until", "current")
    assert (done.returncode, done.stderr) == (0, "")
    first = done.stdout.splitlines()[0]
    prefix = '{"topic":"%s.public.t","key":{"id":1},"value":{"before":null,"after":{"id":1,'
    assert first.startswith(prefix % shop.name)
    assert list(json.loads(first)) == ["topic", "key", "value", "headers"]
    assert len(done.stdout.splitlines()) == ROWS
    assert left_behind(shop) == []


def test_values_are_written_alone_and_without_tombstones(shop: Database, tmp_path: Path) -> None:
    state = tmp_path / "state"
    arguments = ("--state", state, "--format", "value")
    assert len(events_of(shop.dsn, *arguments)) == ROWS
    shop.execute("DELETE FROM t WHERE id = 1")
    (event,) = events_of(shop.dsn, *arguments)
    assert (event["op"], event["before"]["id"], event["after"]) == ("d", 1, None)


def test_a_tombstone_is_a_record_with_a_null_value(shop: Database, tmp_path: Path) -> None:
    arguments = ("--state", tmp_path / "state")
    events_of(shop.dsn, *arguments)
    shop.execute("DELETE FROM t WHERE id = 1")
    delete, tombstone = events_of(shop.dsn, *arguments)
    assert (delete["value"]["op"], tombstone["value"]) == ("d", None)
    assert tombstone["key"] == delete["key"] == {"id": 1}
    shop.execute("DELETE FROM t WHERE id = 2")
    assert len(events_of(shop.dsn, *arguments, "--set", "tombstones.on.delete=false")) == 1


def test_properties_beat_the_url_and_a_file_is_beaten_by_both(
    shop: Database, tmp_path: Path
) -> None:
    file = tmp_path / "shop.json"
    config = {
        "topic.prefix": "of_the_file",
        "database.dbname": "of_the_file",
        "decimal.handling.mode": "string",
        "name": "shop",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    }
    file.write_text(json.dumps(config))
    (event, *_) = events_of(shop.dsn, "--config", file)
    assert event["topic"] == "of_the_file.public.t"
    assert event["value"]["after"]["n"] == "1.50"
    (event, *_) = events_of(shop.dsn, "--config", file, "--set", "topic.prefix=typed")
    assert event["topic"] == "typed.public.t"
    elsewhere = shop.dsn.rpartition("/")[0] + "/postgres"
    (event, *_) = events_of(elsewhere, "--set", f"database.dbname={shop.name}")
    assert event["topic"] == f"{shop.name}.public.t"


def test_converters_take_their_options(shop: Database) -> None:
    (event, *_) = events_of(
        shop.dsn, "--set", "converter.schemas.enable=true",
        "--set", "key.converter.schemas.enable=false",
        "--set", "value.converter.decimal.format=NUMERIC",
    )  # fmt: skip
    assert event["key"] == {"id": 1}
    assert event["value"]["payload"]["after"]["n"] == 1.5
    assert event["value"]["schema"]["type"] == "struct"


def test_converters_are_those_of_the_console_and_of_files(shop: Database) -> None:
    (event, *_) = events_of(
        shop.dsn, "--set", f"converter={PACKAGE}json.JsonConverter",
        "--set", "converter.schemas.enable=true",
        "--set", f"key.converter={PACKAGE}storage.StringConverter",
        "--set", f"header.converter={PACKAGE}storage.SimpleHeaderConverter",
        "--set", "custom.metric.tags=a=b",
        "--set", "transforms=h", "--set", f"transforms.h.type={PACKAGE}transforms.InsertHeader",
        "--set", "transforms.h.header=n", "--set", "transforms.h.value.literal=[1,2]",
    )  # fmt: skip
    assert event["key"] == "Struct{id=1}"
    assert event["value"]["payload"]["after"]["n"] == "AJY="
    assert event["headers"]["n"] == "[1,2]"
    found = events_of(shop.dsn, "--set", "converter=string", "--format", "record")
    assert found[0]["value"].startswith("Struct{after=Struct{id=1,")


def test_a_password_may_come_from_a_file_or_a_config_provider(
    shop: Database, tmp_path: Path
) -> None:
    scheme, _, rest = shop.dsn.partition("://")
    login, _, place = rest.rpartition("@")
    user, _, password = login.partition(":")
    file = tmp_path / "password"
    file.write_text(f"{password}\n")
    without = f"{scheme}://{user}@{place}"
    assert len(events_of(without, "--password-file", file)) == ROWS
    placeholder = f"${{dir:{tmp_path}:word}}"
    (tmp_path / "word").write_text(password)
    assert len(events_of(without, "--set", f"database.password={placeholder}")) == ROWS
    config = tmp_path / "shop.json"
    config.write_text(json.dumps({"database.password": placeholder}))
    assert len(events_of(without, "--config", config)) == ROWS


def test_until_current_ends_on_an_idle_database_at_once(shop: Database, tmp_path: Path) -> None:
    arguments = ("--state", tmp_path / "state")
    events_of(shop.dsn, *arguments)
    began = time.monotonic()
    assert events_of(shop.dsn, *arguments) == []
    assert time.monotonic() - began < 5


def test_until_current_has_all_that_was_committed_before_and_ends_on_a_busy_database(
    shop: Database, tmp_path: Path
) -> None:
    arguments = ("--state", tmp_path / "state")
    events_of(shop.dsn, *arguments)
    ended = threading.Event()

    def work() -> None:
        with shop.connect() as connection:
            number = 1000
            while not ended.is_set():
                number += 1
                connection.execute("INSERT INTO t VALUES (%s, 'busy')", [number])

    worker = threading.Thread(target=work)
    worker.start()
    try:
        time.sleep(0.5)
        with shop.connect() as connection:
            row = connection.execute("SELECT max(id) FROM t").fetchone()
        found = [e["key"]["id"] for e in events_of(shop.dsn, *arguments)]
    finally:
        ended.set()
        worker.join()
    assert row is not None
    assert found == list(range(1001, found[-1] + 1))
    assert found[-1] >= row[0]
    rest = [e["key"]["id"] for e in events_of(shop.dsn, *arguments)]
    assert rest[0] == found[-1] + 1


def test_until_an_lsn_ends_before_the_first_transaction_behind_it(
    shop: Database, tmp_path: Path
) -> None:
    arguments = ("--state", tmp_path / "state")
    events_of(shop.dsn, *arguments)
    shop.execute("INSERT INTO t VALUES (10, 'in')")
    ((lsn,),) = shop.execute("SELECT pg_current_wal_insert_lsn()::text")
    shop.execute("INSERT INTO t VALUES (11, 'out')")
    done = capture(shop.dsn, *arguments, "--until", lsn)
    assert done.returncode == 0
    assert [json.loads(line)["key"]["id"] for line in done.stdout.splitlines()] == [10]
    assert [e["key"]["id"] for e in events_of(shop.dsn, *arguments)] == [11]


def test_a_snapshot_alone_ends_by_itself_and_needs_no_slot(shop: Database) -> None:
    done = capture(shop.dsn, "--set", "snapshot.mode=initial_only")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, ROWS)
    assert left_behind(shop) == []


def test_changes_during_the_snapshot_are_written_behind_it(shop: Database, tmp_path: Path) -> None:
    shop.execute("INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(10, 60000) i")
    out = tmp_path / "out.jsonl"
    with Running(shop.dsn, "--output", out, "--set", "snapshot.chunk.rows=2000") as running:
        until(lambda: out.exists() and out.stat().st_size > 0)
        shop.execute("UPDATE t SET v = 'new' WHERE id <= 3")
        until(lambda: len(lines(out)) >= 59_994 + 3)
        assert running.end(signal.SIGTERM) == 0
    assert [e["value"]["op"] for e in lines(out)] == ["r"] * 59_994 + ["u"] * 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_flushes_confirms_and_leaves_nothing_behind(
    shop: Database, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "out.jsonl"
    with Running(shop.dsn, "--output", out) as running:
        until(lambda: is_streaming(shop) and len(lines(out)) == ROWS)
        with shop.connect() as connection:
            connection.execute("INSERT INTO t SELECT i, 'x' FROM generate_series(100, 5000) i")
        until(lambda: out.stat().st_size > 100_000)
        assert running.end(number) == 0
        assert running.stderr == ""
    assert out.read_bytes().endswith(b"}\n")
    assert left_behind(shop) == []


def test_a_kill_takes_the_slot_with_it_and_leaves_the_publication(shop: Database) -> None:
    """As the README's known limits say, with the statement that removes it."""
    with Running(shop.dsn) as running:
        until(lambda: is_streaming(shop))
        running.process.kill()
    (name,) = until(lambda: len(names := left_behind(shop)) == 1 and names)
    assert shop.execute("SELECT pubname FROM pg_publication") == [(name,)]
    shop.execute("CREATE PUBLICATION mine FOR TABLE t")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (find,) = re.findall(r"`(SELECT format\('DROP PUBLICATION [^`]+)`", readme)
    ((drop,),) = shop.execute(" ".join(find.split()))
    shop.execute(drop)
    assert left_behind(shop) == ["mine"]


def test_a_signal_confirms_what_the_state_holds(shop: Database, tmp_path: Path) -> None:
    out, state = tmp_path / "out.jsonl", tmp_path / "state"
    arguments = ("--output", out, "--state", state)
    with Running(shop.dsn, *arguments) as running:
        until(lambda: is_streaming(shop) and len(lines(out)) == ROWS)
        shop.execute("INSERT INTO t VALUES (10, 'x')")
        until(lambda: len(lines(out)) == ROWS + 1)
        assert running.end(signal.SIGTERM) == 0
    stored = json.loads((state / "state.json").read_text())
    ((confirmed,),) = shop.execute(
        "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots"
        " WHERE database = current_database()"
    )
    assert confirmed == stored["lanes"]["stream_position"]["lsn"]
    assert stored["output"]["length"] == out.stat().st_size
    names = left_behind(shop)
    assert len(names) == 2  # they stay, for the next start
    assert all(name.startswith("cdc_capture_") for name in names)


def test_a_signal_before_until_is_reached_is_told_by_the_exit_code(shop: Database) -> None:
    with Running(shop.dsn, "--until", "FFFF/0") as running:
        until(lambda: is_streaming(shop))
        assert running.end(signal.SIGTERM) == 143
    assert left_behind(shop) == []


def test_a_signal_while_the_slot_waits_for_a_transaction_is_heard(shop: Database) -> None:
    with shop.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO t VALUES (50, 'open')")
        with Running(shop.dsn) as running:
            until(lambda: any("cdc_capture" in name for name in left_behind(shop)))
            time.sleep(0.5)
            assert running.end(signal.SIGTERM) == 0
        connection.rollback()
    assert left_behind(shop) == []


def test_on_standard_output_a_kill_repeats_lines_and_loses_none(
    shop: Database, tmp_path: Path
) -> None:
    """A pipe cannot be cut back: at least once, in order, where a file has exactly once."""
    arguments = ("--state", tmp_path / "state")
    with Running(shop.dsn, *arguments) as running:
        stream = running.process.stdout
        assert stream is not None
        text = "".join(stream.readline() for _ in range(ROWS))
        for first in range(100, 2000, 100):
            some = f"generate_series({first}, {first + 99}) i"
            shop.execute(f"INSERT INTO t SELECT i, 'x' FROM {some}")
        text += "".join(stream.readline() for _ in range(700))
        running.process.kill()
        text += stream.read()
    before = [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]
    ids = [event["key"]["id"] for event in [*before, *events_of(shop.dsn, *arguments)]]
    wanted = [id_ for (id_,) in shop.execute("SELECT id FROM t ORDER BY id")]
    assert ROWS + 700 <= len(before) < len(wanted) + 1
    assert list(dict.fromkeys(ids)) == wanted


def test_a_reader_that_has_enough_ends_the_capture_quietly(shop: Database) -> None:
    shop.execute("INSERT INTO t SELECT i, 'x' FROM generate_series(100, 20000) i")
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -n 1; exit ${PIPESTATUS[0]}', "-", *command(shop.dsn)],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    until(lambda: left_behind(shop) == [])


def test_only_what_the_capture_made_is_dropped(shop: Database) -> None:
    shop.execute("CREATE PUBLICATION mine FOR TABLE t")
    mine = f"mine_{shop.name}"
    shop.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [mine])
    assert len(events_of(shop.dsn, "--set", "publication.name=mine")) == ROWS
    done = capture(shop.dsn, "--set", f"slot.name={mine}", "--until", "current")
    assert done.returncode == 1
    assert f"the replication slot {mine} exists already" in done.stderr
    assert left_behind(shop) == ["mine", mine]


def test_what_a_state_keeps_at_the_server_is_dropped_on_request(
    shop: Database, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    assert capture(shop.dsn, "--state", state, "--until", "current").returncode == 0
    (name,) = set(left_behind(shop))
    shop.execute("CREATE PUBLICATION mine FOR TABLE t")
    drop = [sys.executable, "-m", "cdc", "drop", shop.dsn, "--state", str(state)]
    done = subprocess.run(drop, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines() == [
        f"dropped replication slot {name}",
        f"dropped publication {name}",
        f"the position in {state} is dropped",
    ]
    assert left_behind(shop) == ["mine"]
    assert len(events_of(shop.dsn, "--state", state)) == ROWS, "it begins anew"
    wrong = subprocess.run(
        [*drop[:-1], str(tmp_path / "none")], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (wrong.returncode, "there is no folder" in wrong.stderr) == (2, True)


def test_only_listed_tables_are_published_for_a_moment(shop: Database) -> None:
    shop.execute("CREATE TABLE keyless (v text)")
    done = capture(shop.dsn, "--until", "current")
    assert done.returncode == 1
    assert "no replica identity" in done.stderr
    assert left_behind(shop) == []
    assert len(events_of(shop.dsn, "--set", "table.include.list=public.t")) == ROWS
