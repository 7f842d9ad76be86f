"""``cdc dlq`` through a worker and without one, as people and programs use it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cdc.runtime.state import DataDir, Saved, Store
from tests.runtime.sinking import DEAD, Copy, Shop, bad, until_drained
from tests.runtime.test_chain import chain_config
from tests.runtime.workers import Worker, cdc, eventually

UNKNOWN = chain_config(("ExtractField$Value", {"field": "nope"}))
AFTER = chain_config(("ExtractField$Value", {"field": "after"}))
TOPICS = {"topics.regex": "count.*"}


def listed(worker: Worker, name: str = "ledger") -> list[dict[str, Any]]:
    done = cdc("dlq", name, "list", "--json", "--data-dir", worker.data)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_letters_are_listed_counted_and_replayed_through_the_worker(worker: Worker) -> None:
    worker.create(worker.counter(rows=20, snapshot_rows=10))
    worker.create({**worker.ledger(), **TOPICS, **DEAD, **UNKNOWN})
    letters = eventually(lambda: (found := listed(worker))[19:] and found, "20 letters")
    assert [letter["offset"] for letter in letters] == list(range(20))
    assert letters[0]["stage"] == "TRANSFORMATION"
    assert letters[0]["message"] == "Unknown field: nope"
    assert worker.numbers() == []
    metric = 'cdc_sink_dead_letters{connector="ledger",task="0"} 20'
    eventually(lambda: metric in worker("GET", "/metrics").text, "the metric")
    status = cdc("status", "--data-dir", worker.data).stdout
    assert "20 records skipped, 20 dead letters" in status
    worker("PUT", "/connectors/ledger/config", {**worker.ledger(), **TOPICS, **DEAD, **AFTER})
    worker.until("ledger", "RUNNING", "RUNNING")
    done = cdc("dlq", "ledger", "replay", "--data-dir", worker.data)
    assert done.stdout == "20 dead letters of ledger are replayed now\n", done.stderr
    eventually(lambda: not listed(worker), "no letters")
    assert worker.numbers() == list(range(20))


def test_a_chain_that_cannot_be_is_refused_with_connects_texts(worker: Worker) -> None:
    config = {**worker.ledger(), **chain_config(("NoSuch$Value", {}), ("HoistField$Value", {}))}
    answer = worker("POST", "/connectors", {"name": "ledger", "config": config})
    assert answer.status == 400
    message = answer.body["message"]
    assert "org.apache.kafka.connect.transforms.NoSuch$Value" in message
    assert 'Missing required configuration "transforms.t1.field"' in message


def test_a_tasks_placeholders_are_shown_and_stored_as_they_were_written(
    start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALT", "very secret")
    worker = start()
    insert = {"static.field": "salt", "static.value": "${env:SALT}"}
    config = {**worker.counter(rows=5), **chain_config(("InsertField$Value", insert))}
    worker.create(config)
    eventually(lambda: len(worker.stored()) >= 5, "five rows")
    shown = worker("GET", "/connectors/count/config").body
    assert shown["transforms.t0.static.value"] == "${env:SALT}"
    assert "very secret" not in worker("GET", "/connectors/count/tasks").text
    kept = "".join(path.read_text() for path in (worker.data / "connectors").iterdir())
    assert "very secret" not in kept
    assert "very secret" not in worker.log.read_text()


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """A sink with one dead letter, and no worker."""
    copy = Copy(tmp_path, DEAD)
    copy.append(Shop().insert(1, 2, 3))
    copy.run([bad(2)])
    store = Store(DataDir(tmp_path))
    store.data.prepare()
    store.save(Saved("copy", copy.written))
    return copy


def run(copy: Copy, *arguments: str) -> tuple[int, str, str]:
    done = cdc("dlq", "copy", *arguments, "--data-dir", copy.folder)
    return done.returncode, done.stdout, done.stderr


def test_list_says_where_and_why_and_nothing_of_the_contents(copy: Copy) -> None:
    code, out, _ = run(copy, "list")
    assert code == 0
    assert "srv.public.orders offset 1" in out
    assert "TRANSFORMATION org.apache.kafka.connect.transforms.Cast$Value" in out
    assert "org.apache.kafka.connect.errors.DataException: Field price" in out
    assert out.endswith("1 dead letter\n")
    assert "n2" not in out


def test_show_has_everything(copy: Copy) -> None:
    code, out, error = run(copy, "show", "--json", "1")
    assert code == 0, error
    letter = json.loads(out)
    assert json.loads(letter["value"])["payload"]["after"]["note"] == "n2"
    assert letter["errors"]["__connect.errors.stage"] == "TRANSFORMATION"
    code, out, _ = run(copy, "show", "1")
    assert "  __connect.errors.exception.class.name: org.apache.kafka" in out
    assert "\tat " in out


def test_without_a_worker_a_replay_is_done_by_the_next_run(copy: Copy) -> None:
    code, out, _ = run(copy, "replay", "1")
    assert (code, out) == (0, "1 dead letter of copy is replayed when the sink runs next\n")
    assert "to be replayed" in run(copy, "list")[1]
    until_drained(copy)
    assert [row["id"] for row in copy.rows()] == [1, 2, 3]
    assert run(copy, "list")[1] == "0 dead letters\n"


def test_an_audit_log_takes_no_letter_behind_its_row(tmp_path: Path) -> None:
    copy = Copy(tmp_path, {**DEAD, "connector.class": "audit"})
    copy.append(Shop().insert(1, 2, 3))
    copy.run([bad(2)])
    store = Store(DataDir(tmp_path))
    store.data.prepare()
    store.save(Saved("copy", copy.written))
    code, _, error = run(copy, "replay")
    assert code == 2
    assert "cannot be put again: its records are a chain in the journal's order" in error
    assert len(copy.letters()) == 1


def test_drop_removes_what_is_named(copy: Copy) -> None:
    assert run(copy, "drop")[0] == 2
    assert run(copy, "drop", "1")[1] == "1 dead letter of copy dropped\n"
    assert copy.letters() == []


def test_a_damaged_letter_hides_no_other_and_can_be_dropped(copy: Copy) -> None:
    copy.append(Shop().insert(4))
    copy.run([bad(4)])
    with closing(sqlite3.connect(copy.store)) as store:
        store.execute("UPDATE dead_letter SET block_body = x'00' WHERE id = 1")
        store.commit()
    code, out, error = run(copy, "show", "--json", "2")
    assert (code, error) == (0, "")
    assert json.loads(out)["offset"] == 3
    assert run(copy, "drop", "1")[1] == "1 dead letter of copy dropped\n"
    assert [letter.at for letter in copy.letters()] == [3]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("show",), "it is not said which letter"),
        (("show", "7"), "copy has no dead letter 7"),
        (("replay", "7"), "copy has no dead letter 7"),
        (("drop", "1", "--all"), "it is not said which letters"),
    ],
)
def test_what_is_not_there_is_named(copy: Copy, arguments: tuple[str, ...], text: str) -> None:
    code, _, error = run(copy, *arguments)
    assert code == 2
    assert text in error


@pytest.mark.parametrize("action", [("list",), ("drop", "--all")])
def test_a_store_that_is_damaged_or_newer_is_named(copy: Copy, action: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(copy.store)) as store:
        store.execute("PRAGMA user_version = 99")
    code, _, error = run(copy, *action)
    assert code == 1
    assert "copy.db has format 99, this version knows 1" in error
    for path in copy.store.parent.glob(f"{copy.store.name}*"):
        path.unlink()
    copy.store.write_bytes(b"no database at all" * 1000)
    code, _, error = run(copy, *action)
    assert code == 1
    assert "copy.db is damaged: file is not a database. Move it away" in error


def test_an_unknown_connector_is_named(tmp_path: Path) -> None:
    DataDir(tmp_path).prepare()
    done = cdc("dlq", "nobody", "list", "--data-dir", tmp_path)
    assert done.returncode == 2
    assert "there is no connector nobody" in done.stderr
