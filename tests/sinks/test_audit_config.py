"""Configurations and targets that an audit sink refuses, and what it hashes."""

from __future__ import annotations

import hmac
import logging
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest

from cdc.api import SinkContext
from cdc.connectors import SINK_CONFIG
from cdc.errors import ConfigError, SinkRejected
from sinks import audit
from tests.blocks import INT32, STRING, Source, optional
from tests.contract.targets import AuditTarget, started


def target(tmp_path: Path, **options: Any) -> AuditTarget:
    return AuditTarget(f"jdbc:sqlite:{tmp_path}/audit.db", **options)


def write(to: AuditTarget, source: Source | None = None, name: str = "copy") -> None:
    shop = source or Source()
    if source is None:
        table = shop.table("items", id=INT32, email=optional(STRING))
        shop.insert(table, id=1, email="a@b.c")
    block = shop.block()
    task = started(to, name)
    try:
        task.put(block)
        task.flush(block.offsets[-1] + 1)
    finally:
        task.stop()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"tasks.max": "2"}, "one writer"),
        ({"audit.columns.hash": "a.b.c"}, "audit.hash.key"),
        ({"audit.columns.hash": "(", "audit.hash.key": "k"}, "not a regular expression"),
        ({"audit.table": 'a"b'}, "audit.table"),
        ({"audit.tabel": "x", "config.strict": "true"}, "did you mean audit.table"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, str], problem: str) -> None:
    whole = {"name": "a", "connector.class": "audit", "topics": "t", "connection.url": "x"}
    with pytest.raises(ConfigError, match=problem):
        (SINK_CONFIG + audit.CONFIG).parse({**whole, **options})


def test_a_chain_has_one_journal(tmp_path: Path) -> None:
    task = target(tmp_path).task()
    with pytest.raises(ConfigError, match=r"source: a chain has one journal"):
        task.start(SinkContext("a", tmp_path, {"journals": ("one", "two")}))


def test_another_key_or_none_is_refused(tmp_path: Path) -> None:
    write(target(tmp_path, **{"audit.hash.key": "right"}))
    for options in ({"audit.hash.key": "wrong"}, {}):
        with pytest.raises(ConfigError, match="begun with another key"):
            started(target(tmp_path, **options))


def test_the_chain_of_another_connector_is_refused(tmp_path: Path) -> None:
    write(target(tmp_path))
    with pytest.raises(ConfigError, match="the chain of copy"):
        started(target(tmp_path), "other")
    started(target(tmp_path, **{"audit.table": "mine"}), "other").stop()


@pytest.mark.parametrize("url", ["jdbc:sqlite:{}/no/audit.db", "jdbc:sqlite:{}", "parquet:{}/f/x"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, url: str) -> None:
    (tmp_path / "f").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be used"):
        started(AuditTarget(url.format(tmp_path)))


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "audit.db").write_text("not a database at all, " * 100)
    with pytest.raises(ConfigError, match="cannot be used"):
        started(target(tmp_path))


def test_a_misspelt_column_to_hash_is_named_before_anything_is_stored(tmp_path: Path) -> None:
    to = target(tmp_path, **{"audit.hash.key": "k", "audit.columns.hash": r"public\.items\.emial"})
    with pytest.raises(ConfigError, match=r"no column emial. Did you mean public.items.email"):
        write(to)
    with sqlite3.connect(tmp_path / "audit.db") as db:
        assert db.execute("SELECT count(*) FROM audit").fetchone() == (0,)
    db.close()


def test_sensitive_columns_are_keyed_hashes_everywhere(tmp_path: Path) -> None:
    shop = Source()
    table = shop.table("items", key=["email"], id=INT32, email=optional(STRING))
    shop.insert(table, id=1, email="a@b.c")
    shop.delete(table, id=1, email="a@b.c")
    shop.insert(table, id=2, email=None)
    shop.update(table, id=2, email=None, unchanged=["email"])
    to = target(tmp_path, **{"audit.hash.key": "k", "audit.columns.hash": r".*\.EMAIL"})
    write(to, shop)
    records = to.records()
    expected = hmac.new(b"k", b"cdc-audit-column\na@b.c", "sha256").hexdigest()
    assert orjson.loads(records[0]["key"]) == {"email": f"hmac-sha256:{expected}"}
    assert orjson.loads(records[0]["after"])["email"] == f"hmac-sha256:{expected}"
    assert orjson.loads(records[1]["before"])["email"] == f"hmac-sha256:{expected}"
    assert orjson.loads(records[2]["after"])["email"] is None
    assert orjson.loads(records[3]["after"])["email"] == "__debezium_unavailable_value"
    assert b"a@b.c" not in (tmp_path / "audit.db").read_bytes()


def test_changed_columns_are_named_where_both_images_are_there(tmp_path: Path) -> None:
    shop = Source()
    table = shop.table("items", id=INT32, a=optional(STRING), b=optional(STRING))
    shop.update(table, id=1, a="new", b="same")
    row = shop._rows[-1]
    shop._rows[-1] = (*row[:6], b'{"id":1,"a":"old","b":"same"}', row[7])
    shop.update(table, id=1, a="x", b=None)
    to = target(tmp_path)
    write(to, shop)
    assert [record["changed"] for record in to.records()] == ['["a"]', None]


def test_a_table_changed_by_hand_is_said_at_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    to = target(tmp_path)
    write(to)
    with sqlite3.connect(tmp_path / "audit.db") as db:
        db.execute("DELETE FROM audit")
    db.close()
    with caplog.at_level(logging.ERROR):
        started(to).stop()
    assert "somebody changed the end of table audit" in caplog.text


def test_a_record_put_in_by_hand_is_not_overwritten(tmp_path: Path) -> None:
    to = target(tmp_path)
    write(to)
    with sqlite3.connect(tmp_path / "audit.db") as db:
        db.execute("CREATE TEMP TABLE t AS SELECT * FROM audit")
        db.execute("UPDATE t SET seq = 2, journal_offset = 99")
        db.execute("INSERT INTO audit SELECT * FROM t")
    db.close()
    shop = Source(offset=1)
    shop.insert(shop.table("items", id=INT32), id=5)
    with pytest.raises(SinkRejected, match="cdc audit verify"):
        write(to, shop)


def test_another_table_begins_another_chain_at_the_same_offset(tmp_path: Path) -> None:
    write(target(tmp_path))
    renamed = target(tmp_path, **{"audit.table": "fresh"})
    task = started(renamed)
    assert task.stored_offset() == 1
    task.stop()
    assert renamed.records() == []


def test_a_replay_never_touches_a_table_that_is_there(tmp_path: Path) -> None:
    to = target(tmp_path)
    write(to)
    with sqlite3.connect(tmp_path / "audit.db") as db:
        db.execute("CREATE TABLE audit_r1 (x)")
    db.close()
    task = started(to)
    task.seek(0, 1)
    task.stop()
    with sqlite3.connect(tmp_path / "audit.db") as db:
        found = db.execute("SELECT table_name FROM cdc_audit").fetchall()
        assert db.execute("SELECT count(*) FROM audit").fetchone() == (1,)
    db.close()
    assert found == [("audit_r1_2",)]
