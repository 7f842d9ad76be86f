from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import cdc
from cdc.capture import events as library
from cdc.capture.output import STDOUT
from cdc.configfile import load_properties
from cdc.errors import CdcError, ConfigError, ConnectionLost, SourceError
from cdc.postgres import source
from tests.capture.commands import ROOT, events_of, is_streaming, left_behind, until
from tests.fix_postgres import Database
from tests.fix_proxy import MakeProxy
from tests.test_readme import BLOCKS

ROWS = 5


@pytest.fixture
def shop(database: Database) -> Database:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    database.execute("INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 5) i")
    return database


def ids(events: Any) -> list[int]:
    return [event.key["id"] for event in events]


def test_the_front_door_is_a_function_whoever_imported_the_module_first() -> None:
    assert STDOUT == "-"
    assert isinstance(cdc.capture("postgresql://localhost/db"), library.Events)
    from cdc.capture import capture

    assert capture is library.capture


def test_rows_then_changes_as_records(shop: Database) -> None:
    with cdc.capture(shop.dsn, {"topic.prefix": "shop"}) as events:
        rows = [next(events) for _ in range(ROWS)]
        shop.execute("DELETE FROM t WHERE id = 1")
        delete, tombstone = next(events), next(events)
        assert events.poll(0.1) is None
        assert not events.ended
    assert [(e.topic, e.value["op"]) for e in rows] == [("shop.public.t", "r")] * ROWS
    assert rows[0].value["after"] == {"id": 1, "v": "v1"}
    assert (delete.value["op"], tombstone.value) == ("d", None)
    assert delete.offset == tombstone.offset == ROWS
    assert left_behind(shop) == []


def test_a_chain_of_transforms_stands_between_the_source_and_the_events(shop: Database) -> None:
    """Over rows that the snapshot's readers have encoded, and over the stream."""
    package = "org.apache.kafka.connect.transforms."
    chain = {
        "transforms": "after,mask",
        "transforms.after.type": f"{package}ExtractField$Value",
        "transforms.after.field": "after",
        "transforms.mask.type": f"{package}MaskField$Value",
        "transforms.mask.fields": "v",
        "transforms.mask.predicate": "dead",
        "transforms.mask.negate": "true",
        "predicates": "dead",
        "predicates.dead.type": f"{package}predicates.RecordIsTombstone",
    }
    with cdc.capture(shop.dsn, {"topic.prefix": "shop", **chain}) as events:
        rows = [next(events) for _ in range(ROWS)]
        shop.execute("UPDATE t SET v = 'secret' WHERE id = 1")
        shop.execute("DELETE FROM t WHERE id = 1")
        update, delete, tombstone = next(events), next(events), next(events)
    assert [row.value for row in rows] == [{"id": i, "v": ""} for i in range(1, ROWS + 1)]
    assert update.value == {"id": 1, "v": ""}
    assert (delete.key, delete.value, tombstone.value) == ({"id": 1}, None, None)
    assert left_behind(shop) == []


def test_the_readmes_way_to_keep_a_secret_out_of_the_journal_does(database: Database) -> None:
    """To the letter: over rows and changes, with all that the server sends of the row before."""
    (recipe,) = (
        text for language, text in BLOCKS if language == "properties" and "password" in text
    )
    database.execute("CREATE TABLE customers (id int PRIMARY KEY, name text, password text)")
    database.execute("ALTER TABLE customers REPLICA IDENTITY FULL")
    database.execute("INSERT INTO customers VALUES (1, 'Ann', 'my-secret')")
    with cdc.capture(database.dsn, load_properties(recipe.encode(), "README")) as events:
        found = [next(events)]
        database.execute("UPDATE customers SET name = 'Bea', password = 'my-secret-2'")
        database.execute("DELETE FROM customers")
        found += [next(events), next(events)]
    assert [event.value["op"] for event in found] == ["r", "u", "d"]
    assert found[1].value["before"] == {"id": 1, "name": "Ann"}
    assert found[1].value["after"] == {"id": 1, "name": "Bea"}
    assert "my-secret" not in str([(event.key, event.value) for event in found])


def test_it_ends_where_until_says(shop: Database) -> None:
    with cdc.capture(shop.dsn, until="current") as events:
        assert ids(events) == [1, 2, 3, 4, 5]
        assert events.ended
    assert left_behind(shop) == []


def test_a_restart_goes_on_behind_the_last_acknowledged_event(
    shop: Database, tmp_path: Path
) -> None:
    with cdc.capture(shop.dsn, state=tmp_path, until="current") as events:
        for event in events:
            events.ack(event)
    with shop.connect() as connection:  # one transaction, so one block
        connection.execute("INSERT INTO t SELECT i, 'x' FROM generate_series(10, 19) i")
    with cdc.capture(shop.dsn, state=tmp_path, until="current") as events:
        for event in events:
            if event.key["id"] <= 13:
                events.ack(event)
    with cdc.capture(shop.dsn, state=tmp_path, until="current") as events:
        first = next(events)
        assert first.key == {"id": 14}
        events.ack(first)
        events.flush()
    shop.execute("INSERT INTO t VALUES (20, 'y')")
    with cdc.capture(shop.dsn, state=tmp_path, until="current") as events:
        assert ids(events) == [15, 16, 17, 18, 19, 20]  # and none of them acknowledged
    with cdc.capture(shop.dsn, state=tmp_path, until="current") as events:
        rest = list(events)
        events.ack(rest[-1])
    assert ids(rest) == [15, 16, 17, 18, 19, 20]
    with cdc.capture(shop.dsn, state=tmp_path, until="current") as events:
        assert ids(events) == []


def test_a_table_made_meanwhile_is_known_after_a_restart(
    shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "TABLES_INTERVAL_S", 0.1)
    with cdc.capture(shop.dsn, state=tmp_path) as events:
        for _ in range(ROWS):
            events.ack(next(events))
        shop.execute("CREATE TABLE u (id int PRIMARY KEY, v text); INSERT INTO u VALUES (1, 'x')")
        events.ack(next(events))
        until(lambda: '"public.u"' in (tmp_path / "state.json").read_text())
    shop.execute("ALTER TABLE u RENAME v TO w")
    with cdc.capture(shop.dsn, state=tmp_path, until="current") as events:
        assert [event.value["after"] for event in events] == [{"id": 1, "w": "x"}]


def test_an_acknowledgement_ends_between_the_parts_of_one_change(
    shop: Database, tmp_path: Path
) -> None:
    with cdc.capture(shop.dsn, state=tmp_path, until="current") as events:
        for event in events:
            events.ack(event)
    shop.execute("UPDATE t SET id = 50 WHERE id = 5")
    with cdc.capture(shop.dsn, state=tmp_path, until="current") as events:
        delete = next(events)
        events.ack(delete)
        assert [e.value and e.value["op"] for e in events] == [None, "c"]
    with cdc.capture(shop.dsn, state=tmp_path, until="current") as events:
        assert [e.value["op"] for e in events] == ["c"]


def test_an_exception_inside_keeps_what_was_acknowledged(shop: Database, tmp_path: Path) -> None:
    with cdc.capture(shop.dsn, state=tmp_path, until="current") as events:
        for event in events:
            events.ack(event)
    shop.execute("INSERT INTO t SELECT i, 'x' FROM generate_series(10, 12) i")

    def fail() -> None:
        with cdc.capture(shop.dsn, state=tmp_path, until="current") as events:
            events.ack(next(events))
            next(events)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with cdc.capture(shop.dsn, state=tmp_path, until="current") as events:
        assert ids(events) == [11, 12]


def test_an_exception_inside_leaves_nothing_behind(shop: Database) -> None:
    def fail() -> None:
        with cdc.capture(shop.dsn) as events:
            next(events)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert left_behind(shop) == []
    assert threading.active_count() == 1


def test_only_acknowledged_events_are_confirmed(shop: Database, tmp_path: Path) -> None:
    def confirmed() -> int:
        rows = shop.execute(
            "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots"
            " WHERE database = current_database()"
        )
        return int(rows[0][0])

    with cdc.capture(shop.dsn, state=tmp_path) as events:
        for _ in range(ROWS):
            events.ack(next(events))
        until(lambda: is_streaming(shop))
        shop.execute("INSERT INTO t VALUES (10, 'x')")
        event = next(events)
        time.sleep(1)
        assert confirmed() <= event.value["source"]["lsn"]
        events.ack(event)
        until(lambda: confirmed() > event.value["source"]["lsn"], 10)


def test_without_state_what_was_handed_out_is_let_go_by_the_server(shop: Database) -> None:
    with cdc.capture(shop.dsn) as events:
        for _ in range(ROWS):
            next(events)
        shop.execute("INSERT INTO t VALUES (10, 'x')")
        event = next(events)
        assert events.poll(0.1) is None
        until(
            lambda: shop.execute(
                "SELECT 1 FROM pg_replication_slots WHERE database = current_database()"
                " AND confirmed_flush_lsn - '0/0'::pg_lsn > %s",
                [event.value["source"]["lsn"]],
            ),
            10,
        )


def test_a_program_that_never_acknowledges_is_told(
    shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "UNACKED_ROWS_MAX", 3)
    with (
        pytest.raises(CdcError, match=r"none of them acknowledged\. call events\.ack"),
        cdc.capture(shop.dsn, state=tmp_path) as events,
    ):
        list(events)


def test_what_waits_in_memory_is_bounded(
    shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "WAITING_ROWS_MAX", 100)
    shop.execute("INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(10, 30000) i")
    properties = {"snapshot.mode": "no_data", "max.batch.size": 100, "max.queue.size": 200}
    with cdc.capture(shop.dsn, properties) as events:
        shop.execute("UPDATE t SET v = 'y'")
        first = events.poll(30)
        assert first is not None
        time.sleep(1)
        queue = events._queue
        assert queue is not None
        assert queue._next < 1000
        for _ in range(5000):
            next(events)
    assert left_behind(shop) == []


def test_errors_come_where_they_belong(shop: Database, tmp_path: Path, proxy: MakeProxy) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean table\.include\.list"):
        cdc.capture(shop.dsn, {"table.include.lst": "public.t"})
    broken = shop.dsn.replace(":shop-secret@", ":wrong@")
    with pytest.raises(SourceError, match="password authentication failed"), cdc.capture(broken):
        pass
    between = proxy(int(shop.dsn.rpartition("@")[2].partition("/")[0].rpartition(":")[2]))
    with cdc.capture(between.url(shop.dsn)) as events:
        for _ in range(ROWS):
            next(events)
        until(lambda: is_streaming(shop))
        between.cut()
        with pytest.raises(ConnectionLost, match="last LSN written"):
            next(events)
    assert left_behind(shop) == []


SCRIPT = """
import sys, threading
import cdc

found = []

def work():
    with cdc.capture(sys.argv[1], until="current") as events:
        found.extend(event.key["id"] for event in events)

thread = threading.Thread(target=work)
thread.start()
thread.join()
with cdc.capture(sys.argv[1], {"snapshot.max.threads": 2}, until="current") as events:
    found.extend(event.key["id"] for event in events)
print(found)
"""


def test_it_works_in_a_plain_script_and_in_a_thread(shop: Database, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), shop.dsn], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [1, 2, 3, 4, 5] * 2


def test_the_command_and_the_library_can_share_a_state(shop: Database, tmp_path: Path) -> None:
    assert len(events_of(shop.dsn, "--state", tmp_path)) == ROWS
    shop.execute("INSERT INTO t VALUES (10, 'x'), (11, 'x')")
    with cdc.capture(shop.dsn, state=tmp_path, until="current") as events:
        assert ids(events) == [10, 11]
        events.ack_offset(1)
    assert events_of(shop.dsn, "--state", tmp_path) == []
