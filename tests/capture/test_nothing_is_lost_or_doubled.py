from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest

from tests.capture import ledger
from tests.capture.commands import Running, capture, is_streaming, left_behind, lines, until
from tests.fix_postgres import Database
from tests.fix_proxy import MakeProxy

ROWS = 2000
KILLS = 6


def finish(database: Database, arguments: tuple[str | Path, ...]) -> None:
    done = capture(database.dsn, *arguments, "--until", "current")
    assert (done.returncode, done.stderr) == (0, "")


def test_kills_in_the_stream_lose_and_double_nothing(database: Database, tmp_path: Path) -> None:
    ledger.prepare(database, ROWS)
    out = tmp_path / "out.jsonl"
    arguments = ("--output", out, "--state", tmp_path / "state", *ledger.ARGUMENTS)
    finish(database, arguments)
    assert len(lines(out)) == ROWS
    chance = random.Random(7)
    with ledger.Workload(database, ROWS):
        for _ in range(KILLS):
            before = out.stat().st_size
            with Running(database.dsn, *arguments) as running:
                until(lambda before=before: out.stat().st_size != before)
                time.sleep(chance.uniform(0, 0.8))
                running.process.kill()
    finish(database, arguments)
    events = lines(out)
    assert ledger.streamed(events) == ledger.noted(database)
    assert ledger.replayed(events) == ledger.table_of(database)
    assert len(events) > ROWS + 500


@pytest.mark.parametrize(
    "place",
    [
        "capture.after_write=kill@7",
        "capture.after_sync=kill@2",
        "state.write.before_rename=kill@2",
        "state.write.after_rename=kill@2",
        "capture.confirm.before=kill@3",
    ],
)
def test_a_death_at_any_step_of_a_checkpoint_loses_and_doubles_nothing(
    database: Database, tmp_path: Path, place: str
) -> None:
    ledger.prepare(database, ROWS)
    out = tmp_path / "out.jsonl"
    arguments = ("--output", out, "--state", tmp_path / "state", *ledger.ARGUMENTS)
    finish(database, arguments)
    with ledger.Workload(database, ROWS) as work:
        environment = {"CDC_FAILPOINTS": place}
        with Running(database.dsn, *arguments, environment=environment) as running:
            assert running.end() == -signal.SIGKILL
        until(lambda: work.number > 500)
    finish(database, arguments)
    events = lines(out)
    assert ledger.streamed(events) == ledger.noted(database)
    assert ledger.replayed(events) == ledger.table_of(database)


def test_kills_in_the_snapshot_lose_nothing(database: Database, tmp_path: Path) -> None:
    rows = 60_000
    ledger.prepare(database, rows)
    out, state = tmp_path / "out.jsonl", tmp_path / "state"
    arguments = (
        "--output", out, "--state", state, "--set", "snapshot.chunk.rows=1000", *ledger.ARGUMENTS,
    )  # fmt: skip
    kills = 0
    with ledger.Workload(database, rows):
        for size in (1, 3_000_000, 8_000_000):
            with Running(database.dsn, *arguments) as running:
                until(lambda size=size: out.exists() and out.stat().st_size > size)
                running.process.kill()
                kills += not snapshot_is_over(state)
    assert kills  # at least one of them came in time
    finish(database, arguments)
    events = lines(out)
    assert ledger.replayed(events) == ledger.table_of(database)
    # no streamed change twice, though rows of the snapshot may be read again at a later LSN
    assert max(ledger.streamed(events).values()) == 1
    last_row = max(i for i, e in enumerate(events) if e["value"]["op"] == "r")
    assert not ledger.streamed(events) - ledger.noted(database)
    later = ledger.streamed(events[last_row + 1 :])
    before = len(events)
    with ledger.Workload(database, rows, seed=2) as work:
        until(lambda: work.number > 200)
    finish(database, arguments)
    assert len(lines(out)) > before
    assert ledger.replayed(lines(out)) == ledger.table_of(database)
    assert not later - ledger.noted(database)


def snapshot_is_over(state: Path) -> bool:
    return bool(json.loads((state / "state.json").read_text())["lanes"]["snapshot_closed"])


def test_a_lost_connection_is_made_again_where_there_is_state(
    database: Database, tmp_path: Path, proxy: MakeProxy
) -> None:
    ledger.prepare(database, ROWS)
    port = int(database.dsn.rpartition("@")[2].partition("/")[0].rpartition(":")[2])
    between = proxy(port)
    out = tmp_path / "out.jsonl"
    arguments = ("--output", out, "--state", tmp_path / "state", *ledger.ARGUMENTS)
    with (
        ledger.Workload(database, ROWS),
        Running(between.url(database.dsn), *arguments) as running,
    ):
        for _ in range(3):
            until(lambda: is_streaming(database))
            time.sleep(0.5)
            between.cut()
            size = out.stat().st_size
            until(lambda size=size: out.stat().st_size > size + 50_000)
        assert running.end(signal.SIGTERM) == 0
    finish(database, arguments)
    assert ledger.replayed(lines(out)) == ledger.table_of(database)
    assert max(ledger.streamed(lines(out)).values()) == 1


def test_without_state_a_lost_connection_is_the_end_and_names_the_lsn(
    database: Database, tmp_path: Path, proxy: MakeProxy
) -> None:
    ledger.prepare(database, ROWS)
    port = int(database.dsn.rpartition("@")[2].partition("/")[0].rpartition(":")[2])
    between = proxy(port)
    out = tmp_path / "out.jsonl"
    others = left_behind(database)
    arguments = ("--output", out, "--set", "table.include.list=public.work")
    with Running(between.url(database.dsn), *arguments) as running:
        until(lambda: is_streaming(database) and len(lines(out)) == ROWS)
        assert len(left_behind(database)) == len(others) + 2
        database.execute("UPDATE work SET v = 1 WHERE id = 1")
        until(lambda: len(lines(out)) == ROWS + 1)
        between.cut()
        assert running.end() == 1
    assert "last LSN written: " in running.stderr
    written = running.stderr.partition("last LSN written: ")[2].split(".")[0]
    high, _, low = written.partition("/")
    assert (int(high, 16) << 32) + int(low, 16) >= lines(out)[-1]["value"]["source"]["lsn"]
    until(lambda: left_behind(database) == others)
