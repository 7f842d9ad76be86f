"""A real database behind a real worker: status, replays into a copy, slots left behind."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cdc.errors import ConfigError
from cdc.log import Journal
from cdc.runtime import orphans
from cdc.runtime.state import Saved
from tests.fix_postgres import Database, StartPostgres
from tests.pipeline import read_journal
from tests.postgres.servers_of_tests import Plain
from tests.runtime.workers import Worker, cdc, eventually


@pytest.fixture
def shop(database: Database) -> Database:
    database.execute("CREATE TABLE orders (id int PRIMARY KEY, note text)")
    database.execute("CREATE TABLE other (id int PRIMARY KEY)")
    database.execute("INSERT INTO orders SELECT i, 'old' FROM generate_series(1, 50) i")
    return database


def source(shop: Database | Plain, **more: str) -> dict[str, str]:
    with shop.connect() as conn:
        info = conn.info
        return {
            "name": "shop", "connector.class": "postgres", "topic.prefix": "shop",
            "database.hostname": info.host, "database.port": str(info.port),
            "database.user": info.user, "database.password": info.password,
            "database.dbname": shop.name, "slot.name": f"slot_{shop.name}",
            "publication.name": "cdc", **more,
        }  # fmt: skip


def copy(worker: Worker, **more: str) -> dict[str, str]:
    return {
        "name": "copy", "connector.class": "sql", "topics.regex": r"shop\..*",
        "connection.url": f"jdbc:sqlite:{worker.folder / 'copy.db'}", "insert.mode": "upsert",
        "pk.mode": "record_key", "delete.enabled": "true", "auto.create": "true",
        "table.name.format": "${source.table}", **more,
    }  # fmt: skip


def rows(path: Path, table: str = "orders") -> dict[int, str]:
    try:
        with closing(sqlite3.connect(path)) as db:
            return dict(db.execute(f"SELECT id, note FROM {table}"))
    except sqlite3.OperationalError:
        return {}


def of_source(shop: Database) -> dict[int, Any]:
    return dict(shop.execute("SELECT id, note FROM orders"))  # type: ignore[arg-type]


def test_a_copy_that_a_bug_has_spoilt_is_mended_by_a_replay(worker: Worker, shop: Database) -> None:
    target = worker.folder / "copy.db"
    worker.create(source(shop))
    worker.create(copy(worker))
    eventually(lambda: rows(target) == of_source(shop))
    shop.execute("INSERT INTO orders VALUES (60, 'between')")
    eventually(lambda: rows(target) == of_source(shop))
    (lsn,) = shop.execute("SELECT pg_current_wal_lsn()::text")[0]
    shop.execute("UPDATE orders SET note = 'new' WHERE id <= 20")
    shop.execute("DELETE FROM orders WHERE id > 45")
    eventually(lambda: rows(target) == of_source(shop))
    with closing(sqlite3.connect(target)) as db, db:
        db.execute("UPDATE orders SET note = 'spoilt' WHERE id <= 20")
        db.execute("INSERT INTO orders VALUES (46, 'zombie')")
    done = cdc("replay", "copy", "--from", lsn, "--dry-run", "--data-dir", worker.data)
    assert "public.orders  26 rows, 2 transactions" in done.stdout
    done = cdc("replay", "copy", "--from", lsn, "--data-dir", worker.data)
    assert done.returncode == 0, done.stderr
    eventually(lambda: rows(target) == of_source(shop))
    # and beside it, in tables of their own
    done = cdc("replay", "copy", "--from", "beginning", "--into", "v2", "--tables",
               r"public\.orders", "--data-dir", worker.data)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert rows(target, "orders_v2") == of_source(shop) == rows(target)


def test_a_copy_in_the_captured_database_is_no_endless_stream_of_its_own_positions(
    worker: Worker, shop: Database
) -> None:
    shop.execute("CREATE SCHEMA copy")
    url = f"jdbc:postgresql://{source(shop)['database.hostname']}:{source(shop)['database.port']}"
    worker.create(source(shop))
    worker.create(copy(worker, **{
        "topics.regex": r"shop\.public\.orders", "table.name.format": "copy.${source.table}",
        "connection.url": f"{url}/{shop.name}", "connection.user": source(shop)["database.user"],
        "connection.password": source(shop)["database.password"],
    }))  # fmt: skip

    def copied() -> bool:
        (there,) = shop.execute("SELECT to_regclass('copy.orders') IS NOT NULL")[0]
        return bool(there) and dict(shop.execute("SELECT * FROM copy.orders")) == of_source(shop)  # type: ignore[arg-type]

    for number in range(60, 63):  # what the sink has noted is in the log before the next one
        eventually(copied)
        shop.execute("INSERT INTO orders VALUES (%s, 'next')", [number])
    eventually(copied)
    captured = {event.table for event in read_journal(worker.data / "journal" / "shop")}
    assert captured == {"public.orders", "copy.orders"}


def test_a_sink_into_its_own_source_is_refused_before_it_writes(
    worker: Worker, shop: Database
) -> None:
    """With the default table.name.format the rows would be captured and written without end."""
    config = source(shop)
    worker.create(config)
    url = f"postgresql://{config['database.hostname']}:{config['database.port']}/{shop.name}"
    login = {"connection.user": config["database.user"]}
    if config["database.password"]:
        login["connection.password"] = config["database.password"]
    mine = {"connection.url": f"jdbc:{url}", "table.name.format": "${topic}", **login}
    worker.create(copy(worker, **mine))
    worker.until("copy", "RUNNING", "FAILED")
    assert " of the target is the very table that its rows come from" in worker.trace("copy")
    # all as one INSERT left them: a row that was written again has another xmin
    assert shop.execute("SELECT count(DISTINCT xmin::text) FROM orders") == [(1,)]


def test_an_audit_in_the_captured_database_does_not_audit_itself(
    worker: Worker, shop: Database
) -> None:
    config = source(shop)
    login = {"connection.user": config["database.user"]}
    if config["database.password"]:
        login["connection.password"] = config["database.password"]
    there = f"{config['database.hostname']}:{config['database.port']}/{shop.name}"
    worker.create(config)
    worker.create({
        "name": "log", "connector.class": "audit", "topics.regex": r"shop\..*",
        "connection.url": f"jdbc:postgresql://{there}", **login,
    })  # fmt: skip
    worker.until("log", "RUNNING", "FAILED")
    assert "public.audit is this audit's own table" in worker.trace("log")
    assert "table.exclude.list" in worker.trace("log")


def test_a_slot_dropped_while_the_source_was_stopped_and_what_leads_to_a_true_copy_again(
    worker: Worker, shop: Database
) -> None:
    worker.create(source(shop))
    worker.create(copy(worker))
    eventually(lambda: rows(worker.folder / "copy.db") == of_source(shop))
    worker("PUT", "/connectors/shop/stop")
    shop.execute("SELECT pg_drop_replication_slot(%s)", [f"slot_{shop.name}"])
    shop.execute("DELETE FROM orders WHERE id <= 10")
    worker("PUT", "/connectors/shop/resume")
    worker.until("shop", "RUNNING", "FAILED")
    done = cdc("status", "--data-dir", worker.data)
    assert done.returncode == 1
    assert re.search(
        rf"LogLost: the replication slot slot_{shop.name} is gone: changes after \w+/\w+ are lost\."
        r" the slot was dropped; set snapshot\.mode=when_needed to read the tables again$",
        done.stdout, re.MULTILINE,
    ), done.stdout  # fmt: skip
    worker("PATCH", "/connectors/shop/config", {"snapshot.mode": "when_needed"})
    worker.until("shop", "RUNNING", "RUNNING")
    shop.execute("INSERT INTO orders VALUES (99, 'last')")
    eventually(lambda: 99 in rows(worker.folder / "copy.db"))
    two = worker.folder / "two.db"
    # from the newest whole snapshot
    more = {"name": "second", "start.from": "snapshot", "connection.url": f"jdbc:sqlite:{two}"}
    worker.create(copy(worker, **more))
    eventually(lambda: rows(two) == of_source(shop))
    # The rows that were deleted while nobody looked were in the first snapshot only.
    assert rows(worker.folder / "copy.db").keys() > of_source(shop).keys()


def test_a_slot_that_another_one_has_replaced_is_named_until_it_is_gone(
    worker: Worker, shop: Database
) -> None:
    first, second, third = (f"slot_{shop.name}{end}" for end in ("", "_2", "_3"))

    def slots() -> set[str]:
        names = "SELECT slot_name FROM pg_replication_slots WHERE database = %s"
        return {name for (name,) in shop.execute(names, [shop.name])}

    def named() -> set[str]:
        text = worker("GET", "/metrics").text
        return set(re.findall(r'cdc_slot_orphaned\{connector="shop@(\w+)"\} 1', text))

    worker.create(source(shop))
    eventually(lambda: len(read_journal(worker.data / "journal" / "shop")) == 50)
    worker("PATCH", "/connectors/shop/config", {"slot.name": second})
    worker.until("shop", "RUNNING", "FAILED")
    assert f"there is no replication slot {second}; the log was written from slot {first}" in (
        worker.trace("shop")
    )
    worker("PATCH", "/connectors/shop/config", {"snapshot.mode": "when_needed"})
    eventually(lambda: slots() == {first, second} and named() == {first})
    assert worker("DELETE", "/connectors/shop").status == 204
    worker.create(source(shop, **{"slot.name": third, "snapshot.mode": "when_needed"}))
    eventually(lambda: slots() == {first, second, third} and named() == {first, second})
    status = cdc("status", "--data-dir", worker.data).stdout
    assert re.search(rf"shop@{first} is read no more, its slot {first} still lives .*: cdc drop "
                     rf"shop@{first}$", status, re.MULTILINE), status  # fmt: skip
    done = cdc("drop", f"shop@{first}", "--data-dir", worker.data)
    assert done.returncode == 0, done.stderr
    assert slots() == {second, third}
    worker("PATCH", "/connectors/shop/config", {"slot.name": second})
    eventually(lambda: named() == {third})


def test_status_shows_the_slot_and_names_one_left_behind(worker: Worker, shop: Database) -> None:
    worker.create(source(shop))
    worker.create(copy(worker))
    eventually(lambda: rows(worker.folder / "copy.db") == of_source(shop))

    told = 'cdc_slot_wal_status{connector="shop",task="0"} 0'
    eventually(lambda: told in worker("GET", "/metrics").text)

    def shown() -> str | None:
        text = cdc("status", "--data-dir", worker.data).stdout
        return text if "of WAL (reserved)" in text and "0 records behind" in text else None

    text = eventually(shown)
    (stored,) = worker("GET", "/connectors/shop/offsets").body["offsets"]
    assert stored["partition"] == {"server": "shop"}
    assert {"lsn", "slot"} <= stored["offset"].keys()
    assert " behind, the server keeps " in text
    assert ", journal " in text
    body = json.loads(cdc("status", "--data-dir", worker.data, "--json").stdout)
    assert body["metrics"]["shop"]["cdc_slot_wal_status"] == 0
    metrics = worker("GET", "/metrics").text
    assert told in metrics
    assert "# HELP cdc_slot_retained_bytes" in metrics
    assert worker("DELETE", "/connectors/shop").status == 204
    slot = f"slot_{shop.name}"
    orphaned = 'cdc_slot_orphaned{connector="shop"} 1'
    eventually(lambda: orphaned in worker("GET", "/metrics").text)
    lines = cdc("status", "--data-dir", worker.data).stdout.splitlines()
    left = [line for line in lines if "shop was deleted" in line]
    assert f"its slot {slot} still lives and makes the server keep" in left[0]
    assert left[0].endswith("cdc drop shop")
    assert f"shop was deleted: its slot {slot} still lives" in worker.log.read_text()
    shop.execute("SELECT pg_drop_replication_slot(%s)", [slot])
    assert "was deleted" not in cdc("status", "--data-dir", worker.data).stdout
    # The worker looks for itself: cdc status changes nothing beside it.
    eventually(lambda: "cdc_slot_orphaned{" not in worker("GET", "/metrics").text)


def samples(worker: Worker, name: str) -> dict[str, float]:
    """What ``/metrics`` says of one connector, by metric name."""
    found: dict[str, float] = {}
    for line in worker("GET", "/metrics").text.splitlines():
        metric, _, rest = line.partition("{")
        if f'connector="{name}"' in rest:
            found[metric] = float(rest.rpartition(" ")[2])
    return found


def test_the_engines_metrics_have_samples_and_the_lag_is_what_is_not_yet_stored(
    worker: Worker, shop: Database
) -> None:
    worker.create(source(shop))
    worker.create(copy(worker, **{"topics.regex": r"shop\.public\.orders"}))
    eventually(lambda: rows(worker.folder / "copy.db") == of_source(shop))
    names = {
        "cdc_source_lag_bytes", "cdc_source_lag_ms", "cdc_slot_retained_bytes",
        "cdc_journal_bytes", "cdc_snapshot_rows", "cdc_task_restarts_total",
    }  # fmt: skip
    eventually(lambda: names <= samples(worker, "shop").keys())
    eventually(lambda: samples(worker, "copy").get("cdc_sink_lag_records") == 0)
    eventually(lambda: samples(worker, "shop")["cdc_snapshot_rows"] == 50)
    assert samples(worker, "shop")["cdc_journal_bytes"] > 10_000
    # The gauges are looked at now and then: transactions follow each other until one is seen.
    more = (
        "INSERT INTO other SELECT (SELECT coalesce(max(id), 0) FROM other) + i"
        " FROM generate_series(1, 50000) i"
    )

    def behind() -> bool:
        shop.execute(more)
        found = samples(worker, "shop")
        return min(found["cdc_source_lag_bytes"], found["cdc_slot_retained_bytes"]) > 1_000_000

    eventually(behind)
    eventually(lambda: samples(worker, "shop")["cdc_source_lag_bytes"] < 100_000)


def test_dropping_one_of_two_sources_leaves_the_other_its_publication(
    worker: Worker, shop: Database
) -> None:
    target = worker.folder / "copy.db"
    for name in ("one", "two"):
        more = {"name": name, "topic.prefix": name, "slot.name": f"{name}_{shop.name}"}
        worker.create(source(shop, **more))
    worker.create(copy(worker, **{"topics.regex": r"two\..*"}))
    eventually(lambda: rows(target) == of_source(shop))
    done = cdc("drop", "one", "--data-dir", worker.data)
    assert done.stdout.splitlines() == [
        f"dropped replication slot one_{shop.name}",
        "publication cdc is left: it is also that of two",
        "one is dropped",
        f"its journal stays, in {worker.data / 'journal' / 'one'}",
    ]
    shop.execute("INSERT INTO orders VALUES (900, 'after')")
    eventually(lambda: rows(target) == of_source(shop))
    done = cdc("drop", "two", "--data-dir", worker.data)
    assert "dropped publication cdc" in done.stdout
    assert not shop.execute("SELECT 1 FROM pg_publication")
    slots = "SELECT 1 FROM pg_replication_slots WHERE database = current_database()"
    assert not shop.execute(slots)


def test_a_stopped_sink_holds_no_wal(worker: Worker, shop: Database) -> None:
    worker.create(source(shop))
    worker.create(copy(worker))
    eventually(lambda: rows(worker.folder / "copy.db") == of_source(shop))
    assert worker("PUT", "/connectors/copy/stop").status == 204
    shop.execute("INSERT INTO orders SELECT i, 'x' FROM generate_series(1000, 5000) i")
    (end,) = shop.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")[0]
    confirmed = (
        "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots"
        " WHERE database = current_database()"
    )
    eventually(lambda: shop.execute(confirmed)[0][0] >= end, "the slot to move on")
    assert len(rows(worker.folder / "copy.db")) == 50


def test_no_secret_and_no_row_is_shown_by_processes_and_their_log(
    worker: Worker, shop: Database
) -> None:
    role = shop.create_role("LOGIN REPLICATION SUPERUSER", password="word-of-shop")
    shop.execute("INSERT INTO orders VALUES (70, 'value-in-a-row')")
    worker.create(source(shop, **{
        "database.user": role, "database.password": "word-of-shop", "snapshot.max.threads": "2",
    }))  # fmt: skip
    worker.create(copy(worker))
    eventually(lambda: rows(worker.folder / "copy.db") == of_source(shop))
    shop.execute("UPDATE orders SET note = 'value-in-a-row too' WHERE id < 5")
    eventually(lambda: rows(worker.folder / "copy.db") == of_source(shop))
    processes = [worker.process.pid, *worker.pids()]
    assert len(processes) == 3
    shown = [Path(f"/proc/{pid}/{part}").read_bytes() for pid in processes
             for part in ("cmdline", "environ")]  # fmt: skip
    # and where things go wrong: a table of the target refuses what it is given
    with closing(sqlite3.connect(worker.folder / "copy.db")) as db, db:
        db.execute("CREATE TRIGGER no BEFORE UPDATE ON orders BEGIN SELECT raise(FAIL, 'no'); END")
    shop.execute("UPDATE orders SET note = 'value-in-a-row three' WHERE id = 5")
    worker.until("copy", "RUNNING", "FAILED")
    shop.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication"
                 f" WHERE usename = '{role}'")  # fmt: skip
    shop.execute("INSERT INTO orders VALUES (71, 'value-in-a-row four')")
    shown.append(worker("GET", "/connectors?expand=status").text.encode())
    worker.end()
    shown.append(worker.log.read_bytes())
    assert all(shown)
    for text in shown:
        assert b"word-of-shop" not in text
        assert b"value-in-a-row" not in text


def test_a_journal_that_is_locked_leaves_nothing_at_the_server(
    worker: Worker, shop: Database
) -> None:
    with Journal.open(worker.data / "journal" / "shop"):
        worker.create(source(shop))
        eventually(lambda: "LogLocked" in worker.trace("shop"), "its end")
        assert not shop.execute("SELECT 1 FROM pg_publication")
        slots = "SELECT 1 FROM pg_replication_slots WHERE database = current_database()"
        assert not shop.execute(slots)


def test_only_a_source_has_a_slot_to_be_looked_at() -> None:
    unreadable = {"connection.url": "${env:HERE_IS_NO_PROVIDER}", "database.dbname": "${env:X}"}
    sink = Saved("copy", {"connector.class": "sql", **unreadable})
    assert orphans.idle(sink, {}) == ({}, [])
    with pytest.raises(ConfigError):
        orphans.idle(Saved("shop", {"connector.class": "postgres", **unreadable}), {})


WAL = "SELECT pg_switch_wal() FROM txid_current()"  # 16 MB


def test_the_slot_of_a_source_that_does_not_run_is_watched(
    worker: Worker, start_postgres: StartPostgres
) -> None:
    limits = {"max_slot_wal_keep_size": "64MB", "max_wal_size": "1GB", "checkpoint_timeout": "1h"}
    shop = Plain(start_postgres(fsync=False, **limits))
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, note text)")

    def status() -> str:
        return cdc("status", "--data-dir", worker.data).stdout

    def shown(*texts: str) -> str:
        return str(eventually(lambda: (s := status()) and all(t in s for t in texts) and s))

    worker.create(source(shop))
    worker.until("shop", "RUNNING", "RUNNING")
    assert worker("PUT", "/connectors/shop/stop").status == 204
    shop.execute(WAL)
    with shop.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO orders VALUES (1, 'open')")
        conn.execute("SELECT pg_sleep(1.1)")
        assert worker("PUT", "/connectors/shop/pause").status == 202  # it looks again
        text = shown("of WAL (reserved)", "oldest transaction 0:0")
        assert "shop (source)  PAUSED" in text
        assert " MB more before the slot is lost" in text
        assert "warning" not in text
    metrics = worker("GET", "/metrics").text
    for name in ("retained_bytes", "safe_wal_bytes", "wal_status"):
        assert f'cdc_slot_{name}{{connector="shop",task="0"}}' in metrics
    assert 'cdc_source_lag_bytes{connector="shop",task="0"}' in metrics
    for _ in range(3):
        shop.execute(WAL)
    assert worker("PUT", "/connectors/shop/stop").status == 204
    remedies = ("warning: the slot is lost after ", "Raise max_slot_wal_keep_size now",
                "start the source, which does not run, or drop its slot: cdc drop")  # fmt: skip
    shown(*remedies)
    (warning,) = json.loads(cdc("status", "--json", "--data-dir", worker.data).stdout)["warnings"][
        "shop"
    ]
    assert warning.startswith("the slot is lost after")
    assert "shop: the slot is lost after" in worker.log.read_text()
    worker.end()
    assert all(text in status() for text in (*remedies, "no worker runs here", "of WAL ("))
    for _ in range(3):
        shop.execute(WAL)
    shop.execute("CHECKPOINT")
    assert "warning: the slot is lost: the WAL it needs is gone" in status()
    shop.server.stop()
    done = cdc("status", "--data-dir", worker.data)
    assert "warning: its slot cannot be looked at: " in done.stdout
    assert done.returncode == 0
