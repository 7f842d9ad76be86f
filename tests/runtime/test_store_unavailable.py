"""A sink's own store that cannot be written for a while: the task waits, and loses nothing."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from cdc.errors import SinkError
from cdc.record import Record
from cdc.runtime import sinkstore
from cdc.runtime.deadletters import DeadLetters
from cdc.runtime.offsets import Offsets
from cdc.runtime.sinkstore import StoreUnavailable
from tests.runtime.sinking import CAST, DEAD, Copy, Shop, bad
from tests.runtime.steps import Step


def test_a_sink_waits_until_its_letters_and_its_position_can_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sinkstore, "BUSY_TIMEOUT_S", 0.05)
    copy = Copy(tmp_path, DEAD)
    copy.append(Shop().insert(1, 2, 3))
    with closing(Offsets(copy.store)), closing(DeadLetters(copy.store)):
        other = sqlite3.connect(copy.store, isolation_level=None, check_same_thread=False)
    held = threading.Event()

    def lock(record: Record) -> Record:
        """At the first record; for longer than a writer waits."""
        if not held.is_set():
            held.set()
            other.execute("BEGIN IMMEDIATE")
            threading.Timer(0.5, other.close).start()
        return record

    copy.run([Step(lock, CAST), bad(2)])
    assert "sinks/copy.db cannot be written: database is locked" in caplog.text
    assert [letter.at for letter in copy.letters()] == [1]
    assert [row["id"] for row in copy.rows()] == [1, 3]
    assert copy.position() == 3


def test_a_store_that_is_damaged_is_named_and_the_target_knows_where_to_go_on(
    tmp_path: Path,
) -> None:
    copy, shop = Copy(tmp_path, {}), Shop()
    copy.append(shop.insert(1, 2))
    copy.run()
    for path in copy.store.parent.glob(f"{copy.store.name}*"):
        path.unlink()
    copy.store.write_bytes(b"no database at all" * 1000)
    copy.append(shop.insert(3))
    with pytest.raises(SinkError, match=r"copy\.db is damaged.*Move it away"):
        copy.run()
    copy.store.unlink()
    copy.run()
    assert [row["id"] for row in copy.rows()] == [1, 2, 3]
    assert copy.position() == 3


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    copy = Copy(tmp_path, DEAD)
    copy.append(Shop().insert(*range(200)))
    copy.run([bad(*range(200))])
    with closing(DeadLetters(copy.store)) as store:
        letters = list(store.letters())
        store.drop(None)
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute("VACUUM")
        store._db.execute(f"PRAGMA max_page_count = {pages // 2}")
        with pytest.raises(
            StoreUnavailable, match=r"copy\.db cannot be written.*is full"
        ) as caught:
            store.put(letters)
        assert caught.value.remedy == "Make room on its disk"
        assert store.count() == 0
