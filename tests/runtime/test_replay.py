"""Replays on a real worker, with and without one, in place and into a second target."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cdc.log.reader import JournalReader
from tests.plugins import counter
from tests.runtime.workers import Answer, Worker, alive, cdc, eventually
from tests.unchanged import fingerprint, unchanged


@pytest.fixture
def ready(worker: Worker) -> Worker:
    """A source of 300 numbers (a snapshot of 100, then transactions of 10), and its sinks."""
    prepare(worker)
    return worker


def prepare(worker: Worker) -> None:
    worker.create(worker.counter(rows=300))
    worker.create(worker.ledger())
    eventually(lambda: len(worker.numbers()) == 300)
    eventually(lambda: position(worker) == 300)


def position(worker: Worker, name: str = "ledger") -> int | None:
    found = worker("GET", f"/connectors/{name}/offsets").body["offsets"]
    return int(found[0]["offset"]["kafka_offset"]) if found else None


def replay(worker: Worker, name: str = "ledger", **body: Any) -> Answer:
    fields = {key.replace("_", "-").strip("-"): value for key, value in body.items()}
    return worker("POST", f"/connectors/{name}/replay", fields)


def refused(answer: Answer, *texts: str, status: int = 400) -> None:
    assert answer.status == status, answer.text
    for text in texts:
        assert text in answer.body["message"], answer.body["message"]


def commit_time(worker: Worker, offset: int) -> str:
    with JournalReader(worker.data / "journal" / "count") as reader:
        block = reader.read(offset)
        assert block is not None
        us = block.transactions[block.transaction[0]].commit_us
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="microseconds")


# --- in place


def test_a_replay_stops_the_sink_seeks_and_goes_on(ready: Worker) -> None:
    before = ready.pids()
    answer = replay(ready, from_="0/FA")  # 250, inside the transaction 240 … 249 + 1
    assert answer.status == 202
    assert answer.body == {
        "connector": "ledger", "source": "count", "from": 240, "to": 300, "position": 300,
    }  # fmt: skip
    eventually(lambda: len(ready.numbers()) == 360)
    assert ready.numbers()[300:] == list(range(240, 300))
    assert {"seek": 240, "epoch": 1} in counter.ledger(ready.folder / "ledger")
    assert ready.state("ledger") == ("RUNNING", "RUNNING")
    assert len(set(before) & set(ready.pids())) == 1  # the source's


@pytest.mark.parametrize(
    ("place", "expected"),
    [("beginning", 0), ("250", 250), ("255", 250), ("0/64", 0), ("0/65", 100), ("1:0/12C", 290),
     ("2000-01-01", 0), ("50", 50)],
)  # fmt: skip
def test_places_mean_the_first_whole_transaction(ready: Worker, place: str, expected: int) -> None:
    assert replay(ready, from_=place, dry_run=True).body["from"] == expected


def test_a_time_is_the_first_transaction_committed_at_or_after_it(ready: Worker) -> None:
    time_ = commit_time(ready, 250)
    assert replay(ready, from_=time_, dry_run=True).body["from"] <= 250
    with JournalReader(ready.data / "journal" / "count") as reader:
        for offset in range(100, 300, 10):
            block = reader.read(offset)
            assert block is not None
            us = block.transactions[block.transaction[0]].commit_us
            earlier = [
                t
                for at in range(100, offset, 10)
                if (b := reader.read(at))
                and (t := b.transactions[b.transaction[0]].commit_us) >= us
            ]
            text = datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="microseconds")
            found = replay(ready, from_=text, dry_run=True).body["from"]
            assert found == offset - 10 * len(earlier)


@pytest.mark.parametrize(("verb", "states"), [("pause", ("PAUSED", "PAUSED")),
                                              ("stop", ("STOPPED", ""))])  # fmt: skip
def test_what_the_user_wanted_of_the_sink_stays(
    ready: Worker, verb: str, states: tuple[str, str]
) -> None:
    ready("PUT", f"/connectors/ledger/{verb}")
    ready.until("ledger", *states)
    assert replay(ready, from_="290").status == 202
    assert ready.state("ledger") == states
    assert position(ready) == 290
    ready("PUT", "/connectors/ledger/resume")
    eventually(lambda: len(ready.numbers()) == 310)
    assert ready.numbers()[300:] == list(range(290, 300))


def test_a_failed_sink_is_replayed_and_runs_again(ready: Worker, tmp_path: Path) -> None:
    (tmp_path / "ledger.fail").write_text("start=config")
    ready("POST", "/connectors/ledger/tasks/0/restart")
    ready.until("ledger", "RUNNING", "FAILED")
    (tmp_path / "ledger.fail").unlink()
    assert replay(ready, from_="280").status == 202
    eventually(lambda: len(ready.numbers()) == 320)


@pytest.mark.parametrize("point", ["replay.intended", "offsets.settle.before_commit"])
def test_a_kill_in_between_leaves_the_replay_to_the_next_start(
    start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    worker = start()
    prepare(worker)
    worker.end()
    # The task settles at its first start too, before there is an intent.
    monkeypatch.setenv("CDC_FAILPOINTS", f"{point}=kill@{1 if 'intended' in point else 2}")
    worker = start()
    worker.until("ledger", "RUNNING", "RUNNING")
    tasks = worker.pids()
    try:
        replay(worker, from_="270")
    except OSError:
        assert worker.process.wait(30) == -signal.SIGKILL
    monkeypatch.delenv("CDC_FAILPOINTS")
    if worker.process.poll() is not None:
        eventually(lambda: not any(map(alive, tasks)))
        worker = start()
    # Killed before the move was stored, the new process of the task does it.
    eventually(lambda: len(worker.numbers()) == 330)
    assert worker.numbers()[300:] == list(range(270, 300))
    eventually(lambda: position(worker) == 300)


def test_without_a_worker_the_next_one_replays(start: Callable[..., Worker]) -> None:
    worker = start()
    prepare(worker)
    worker.end()
    done = cdc("replay", "ledger", "--from", "290", "--data-dir", worker.data)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("ledger is replayed when a worker runs: offsets 290 to 299 of count\n")
    worker = start()
    eventually(lambda: len(worker.numbers()) == 310)


def test_a_replay_ahead_of_the_sink_is_refused(ready: Worker, tmp_path: Path) -> None:
    ready("PUT", "/connectors/ledger/stop")
    assert replay(ready, from_="100").status == 202
    refused(replay(ready, from_="200"), "offset 200 lies ahead of ledger, which is at 100",
            "PATCH /connectors/ledger/offsets")  # fmt: skip


# --- counting


def test_a_dry_run_counts_and_stops_nothing(ready: Worker) -> None:
    before = ready.pids()
    answer = replay(ready, from_="0/C9", to="0/E6", dry_run=True)  # 201 … 230
    assert answer.status == 200
    sizes = sum(2 * len(f'{{"n":{n}}}') for n in range(200, 230))
    table = {"rows": 30, "transactions": 3, "bytes": sizes}
    assert answer.body == {
        "connector": "ledger", "source": "count", "from": 200, "to": 230, "position": 300,
        **table, "tables": {"public.numbers": table},
    }  # fmt: skip
    assert ready.pids() == before
    done = cdc("replay", "ledger", "--from", "200", "--to", "230", "--dry-run",
               "--data-dir", ready.data)  # fmt: skip
    assert "public.numbers  30 rows, 3 transactions" in done.stdout
    assert len(ready.numbers()) == 300


# --- into a second target


def file_sink(worker: Worker, name: str = "lines") -> dict[str, str]:
    return {
        "name": name, "connector.class": "file", "topics.regex": ".*",
        "file": str(worker.folder / f"{name}.jsonl"),
    }  # fmt: skip


def audit_sink(worker: Worker) -> dict[str, str]:
    return {
        "name": "audit", "connector.class": "audit", "topics.regex": ".*",
        "connection.url": f"jdbc:sqlite:{worker.folder}/audit.db",
    }  # fmt: skip


def audited(path: Path, table: str) -> list[int]:
    """The offsets in a chain, in its order."""
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute(f"SELECT journal_offset FROM {table} ORDER BY seq")
        return [offset for (offset,) in rows]


def lines(path: Path) -> list[int]:
    return [json.loads(line)["key"]["n"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("alone", [False, True])
def test_into_fills_a_second_target_beside_the_first(ready: Worker, alone: bool) -> None:
    ready.create(file_sink(ready))
    eventually(lambda: position(ready, "lines") == 300)
    if alone:
        ready.end()
    done = cdc(
        "replay", "lines", "--from", "200", "--to", "0/E6", "--tables", r"public\.num.*",
        "--into", "v2", "--data-dir", ready.data,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    second = ready.folder / "lines-v2.jsonl"
    assert done.stdout == f"v2 holds offsets 200 to 229 of count, 30 rows: file={second}\n"
    assert lines(second) == list(range(200, 230))
    assert lines(ready.folder / "lines.jsonl") == list(range(300))
    again = cdc("replay", "lines", "--from", "200", "--into", "v2", "--data-dir", ready.data)
    assert again.returncode == 2
    assert "the replay into v2 is complete" in again.stderr
    assert not list((ready.data / "replays" / "lines").glob("*.db*"))


def test_into_that_was_cut_off_goes_on(ready: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    ready.create(file_sink(ready))
    eventually(lambda: position(ready, "lines") == 300)
    ready.end()
    command = ("replay", "lines", "--data-dir", ready.data, "--into", "v2", "--from")
    monkeypatch.setenv("CDC_FAILPOINTS", "into.begun=kill")
    assert cdc(*command, "10").returncode == -signal.SIGKILL
    monkeypatch.delenv("CDC_FAILPOINTS")
    other = cdc(*command, "beginning")
    assert other.returncode == 2
    assert "v2 is the target of another replay, from 10 to end, which was cut off" in other.stderr
    assert cdc(*command, "10").returncode == 0
    assert lines(ready.folder / "lines-v2.jsonl") == list(range(10, 300))


def test_into_that_was_cut_off_with_rows_in_its_target_goes_on_behind_them(
    ready: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = ready.folder / "audit.db"
    ready.create(audit_sink(ready))
    eventually(lambda: position(ready, "audit") == 300)
    ready.end()
    command = ("replay", "audit", "--data-dir", ready.data, "--into", "v2", "--from", "200")
    monkeypatch.setenv("CDC_FAILPOINTS", "audit.commit.after=kill@2")
    assert cdc(*command).returncode == -signal.SIGKILL
    monkeypatch.delenv("CDC_FAILPOINTS")
    assert cdc(*command).returncode == 0
    assert [len(audited(db, table)) for table in ("audit", "audit_v2")] == [300, 100]
    assert audited(db, "audit_v2") == list(range(200, 300))


def test_the_worker_ends_while_a_second_target_is_filled(
    start: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start()
    worker.create(worker.counter(transaction_rows=100))
    worker.create(file_sink(worker))
    eventually(lambda: (position(worker, "lines") or 0) > 20_000)
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(replay(worker, "lines", from_="0", into="v2").status)
        except OSError as error:
            answers.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    eventually((tmp_path / "lines-v2.jsonl").exists)
    began = time.monotonic()
    assert worker.end() == 0
    assert time.monotonic() - began < 15
    thread.join(30)
    assert answers


def test_a_target_of_that_name_from_elsewhere_is_refused(ready: Worker) -> None:
    ready.create(file_sink(ready))
    eventually(lambda: position(ready, "lines") == 300)
    ready.end()
    command = ("replay", "lines", "--data-dir", ready.data, "--into", "v2", "--from", "beginning")
    assert cdc(*command).returncode == 0
    shutil.rmtree(ready.data / "replays")
    again = cdc(*command)
    assert (again.returncode, "v2 is there already: its target is at offset 300" in again.stderr) \
        == (2, True)  # fmt: skip
    assert lines(ready.folder / "lines-v2.jsonl") == list(range(300))


def test_a_second_audit_is_a_chain_of_its_own(ready: Worker) -> None:
    ready.create(audit_sink(ready))
    eventually(lambda: position(ready, "audit") == 300)
    done = cdc("replay", "audit", "--from", "200", "--into", "v2", "--data-dir", ready.data)
    assert done.returncode == 0, done.stderr
    db = ready.folder / "audit.db"
    assert [len(audited(db, table)) for table in ("audit", "audit_v2")] == [300, 100]


# --- what is refused


def test_a_source_is_not_replayed_nor_is_what_is_not_there(ready: Worker) -> None:
    refused(replay(ready, "count", from_="0"), "count is a source")
    refused(replay(ready, "nobody", from_="0"), "Connector nobody not found", status=404)
    done = cdc("replay", "nobody", "--from", "0", "--data-dir", ready.data)
    assert (done.returncode, "no connector nobody. There are: " in done.stderr) == (2, True)
    ready.end()
    done = cdc("replay", "nobody", "--from", "0", "--data-dir", ready.data)
    assert (done.returncode, "There are: count, ledger" in done.stderr) == (2, True)
    done = cdc("replay", "count", "--from", "0", "--data-dir", ready.data)
    assert (done.returncode, "count is a source" in done.stderr) == (2, True)


def test_places_that_are_not_there_are_refused_with_what_is(ready: Worker) -> None:
    for place, *texts in (
        ("yesterday", "'yesterday' is no place in a journal", "2026-01-31T12:00:00Z"),
        ("301", "journal count ends before offset 301", "Its newest offset is 299"),
        ("0/12D", "0/12D is not in journal count", "It holds 0/64 to 0/12C on timeline 1"),
        ("0/1", "0/1 is not in journal count", "It holds 0/64 to 0/12C"),
        ("2:0/C8", "2:0/C8 is of another timeline", "It holds 0/64 to 0/12C on timeline 1"),
        (
            "2999-01-01",
            "committed at 2999-01-01T00:00:00.000000Z or later",
            "The newest commit is of",
        ),
        ("end", "'end' is no place in a journal"),
        ("", "it is not said from where"),
    ):
        refused(replay(ready, from_=place), *texts)
    assert len(ready.numbers()) == 300
    assert position(ready) == 300


def test_requests_that_make_no_sense_are_refused(ready: Worker) -> None:
    pids, before = sorted(ready.pids()), fingerprint(ready.folder / "ledger")
    for body, *texts in (
        ({"from_": "0", "to": "10"}, "to: a sink has one position", "with into"),
        ({"from_": "0", "tables": "x"}, "tables: a sink has one position"),
        ({"from_": "0", "tables": "(", "dry_run": True}, "tables: not a regular expression"),
        ({"from_": "0", "tables": "public.n", "dry_run": True}, "Did you mean public.numbers?"),
        ({"from_": "20", "to": "10", "dry_run": True}, "to: 10 lies before 20"),
        ({"from_": "20", "to": "20", "dry_run": True}, "to: 20 leaves nothing from 20"),
        ({"from_": "0", "into": "a b"}, "into: a name is 1 to 40 letters"),
        ({"from_": "0", "into": "v2"}, "ledger cannot be replayed into a second target: ledger"),
        ({"from_": "0", "source": "other"}, "reads no journal other", "It reads: count"),
        ({"from_": "0", "sauce": "other"}, "unknown field sauce"),
        ({"from_": "0", "dry_run": "yes"}, "dry-run: it is true or false"),
        ({"from_": ["0"]}, "from: a text is expected"),
    ):
        refused(replay(ready, **body), *texts)
    assert sorted(ready.pids()) == pids
    assert (fingerprint(ready.folder / "ledger"), position(ready)) == (before, 300)
    assert ready.state("ledger") == ("RUNNING", "RUNNING")
    done = cdc("replay", "ledger", "--from", "0", "--to", "10", "--data-dir", ready.data)
    assert (done.returncode, "--into" in done.stderr or "into" in done.stderr) == (2, True)


def test_a_sink_over_several_journals_is_told_which(ready: Worker) -> None:
    ready.create(ready.counter("more", rows=200))
    eventually(lambda: len(ready.numbers()) == 500)
    stored = "/connectors/ledger/offsets"
    eventually(lambda: [o["offset"]["kafka_offset"] for o in ready("GET", stored).body["offsets"]]
               == [300, 200])  # fmt: skip
    refused(replay(ready, from_="0"), "ledger reads 2 journals", "Name one of: count, more")
    assert replay(ready, from_="190", source="more").status == 202
    eventually(lambda: len(ready.numbers()) == 510)


def test_a_sink_that_cannot_seek_is_refused_by_name(
    ready: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.create(ready.ledger("once") | {"connector.class": "stone"})
    eventually(lambda: len(ready.numbers("once")) == 300)
    eventually(lambda: position(ready, "once") == 300)
    pids = sorted(ready.pids())
    with unchanged(ready.folder / "once"):
        refused(replay(ready, "once", from_="0"), "once cannot be replayed: it is written in stone",
                "--into NAME")  # fmt: skip
        done = cdc("replay", "once", "--from", "0", "--data-dir", ready.data)
    assert (done.returncode, done.stdout) == (2, "")
    assert "once cannot be replayed: it is written in stone" in done.stderr
    assert (sorted(ready.pids()), position(ready, "once")) == (pids, 300)
    ready("PUT", "/connectors/once/stop")
    body = {"offsets": [{"partition": {"kafka_topic": "count", "kafka_partition": 0},
                         "offset": {"kafka_offset": 0}}]}  # fmt: skip
    refused(ready("PATCH", "/connectors/once/offsets", body), "doesn't support external",
            status=500)  # fmt: skip


def test_what_retention_has_taken_is_refused_with_the_oldest_there_is(
    start: Callable[..., Worker],
) -> None:
    worker = start()
    worker.create(worker.counter(journal_segment_bytes=1 << 20))
    worker.create(worker.ledger())
    eventually(lambda: len(list((worker.data / "journal" / "count").glob("*-1-*.seg"))) > 3)
    worker("PUT", "/connectors/count/stop")
    end = len(worker.stored())
    eventually(lambda: position(worker) == end)
    done = cdc("journal", "prune", "count", "--before", str(end), "--data-dir", worker.data)
    assert done.returncode == 0, done.stderr
    with JournalReader(worker.data / "journal" / "count") as reader:
        oldest = reader.bounds()[0]
    assert oldest > 100
    refused(replay(worker, from_="7"), "retention has taken offset 7",
            f"The oldest offset there is: {oldest}")  # fmt: skip
    refused(replay(worker, from_="2000-01-01"), "retention has taken", f"offset {oldest}")
    refused(replay(worker, from_="0/64"), "0/64 is not in journal count")
    assert replay(worker, from_="beginning", dry_run=True).body["from"] == oldest


def test_the_journal_is_the_one_that_holds_the_topics_of_the_sink(ready: Worker) -> None:
    """Not the only one that a connector writes: that of a source that is gone is one too."""
    ready.create(ready.counter("more", rows=200))
    ready.create(ready.ledger("only", topics_regex="count.*"))
    eventually(lambda: len(ready.numbers("only")) == 300)
    ready("PUT", "/connectors/only/stop")
    ready.until("only", "STOPPED", "")
    assert ready("DELETE", "/connectors/only/offsets").status == 200
    assert ready("DELETE", "/connectors/count").status == 204
    answer = replay(ready, "only", from_="290")
    assert (answer.status, answer.body["source"]) == (202, "count")
    ready("PUT", "/connectors/only/resume")
    eventually(lambda: len(ready.numbers("only")) == 310)
    ready.create(ready.ledger("none", topics_regex="shop.*"))
    texts = "topics.regex=shop.* of none takes no topic of count, more", "nothing to send"
    refused(replay(ready, "none", from_="beginning"), *texts)


def test_a_second_source_leaves_a_chain_where_it_is(worker: Worker) -> None:
    worker.create(worker.counter(rows=300))
    audit = audit_sink(worker)
    worker.create(audit)
    eventually(lambda: position(worker, "audit") == 300)
    worker.create(worker.counter("more", rows=200))
    eventually(lambda: len(worker.stored("more")) == 200)
    worker("POST", "/connectors/audit/restart?includeTasks=true")
    worker.until("audit", "RUNNING", "RUNNING")
    assert replay(worker, "audit", from_="290").body["source"] == "count"
    eventually(lambda: position(worker, "audit") == 300)
    worker.until("audit", "RUNNING", "RUNNING")
    with closing(sqlite3.connect(worker.folder / "audit.db")) as db:
        assert db.execute("SELECT DISTINCT journal FROM audit").fetchall() == [("count",)]
    second = {**audit, "name": "second", "audit.table": "second"}
    worker.create(second)
    worker.until("second", "RUNNING", "FAILED")
    assert "a chain has one journal, and there are count, more" in worker.trace("second")
