"""The benchmarks are fair and say what they found; no test here measures anything."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import common, debezium, report, snapshot, stream
from benchmarks.__main__ import NAMES, main, parse
from benchmarks.common import Figure, Run
from tests.fix_postgres import Database


def run_of(rate: float, cpu_us: float = 10.0, mb: float = 50.0) -> Run:
    """Ten seconds at a steady rate, after a first second that was ten times slower."""
    points, rows = [(0.0, 0, 0.0)], 0.0
    for second in range(1, 12):
        rows += rate / 10 if second == 1 else rate
        points.append((float(second), int(rows), rows * cpu_us / 1e6))
    return Run("r", points, pss=[int(mb * common.MB)] * 8)


def test_the_workload_is_what_it_is_said_to_be(database: Database) -> None:
    database.execute(common._TABLE_SQL)
    database.execute(common._FILL_SQL)
    with database.connect() as connection:
        connection.execute("CALL fill(0, 9)")
        connection.execute("SELECT pg_stat_force_next_flush()")
        done = connection.execute("SELECT n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables")
        assert done.fetchall() == [(600, 300, 100)]
    table = "SELECT relnatts, relreplident FROM pg_class WHERE oid = 'orders'::regclass"
    assert database.execute(table) == [(10, "f")]
    assert database.execute("SELECT count(*), count(DISTINCT xmin::text) FROM orders") == [
        (10 * common.ROWS_LEFT_PER_TRANSACTION, 10)
    ]


def test_debezium_has_large_batches_json_without_schemas_and_a_consumer_that_compiles(
    tmp_path: Path,
) -> None:
    bench: Any = SimpleNamespace(folder=tmp_path, connector=lambda host: {"host": host})
    text = debezium._properties(bench, tmp_path, {"slot.name": "mine"})
    given = dict(line.split("=", 1) for line in text.splitlines())
    expected = {
        "max.batch.size": "20480",
        "max.queue.size": "81920",
        "poll.interval.ms": "5",
        "value.converter.schemas.enable": "false",
        "key.converter.schemas.enable": "false",
        "slot.name": "mine",
        "host": "tcp",
    }
    assert expected.items() <= given.items()
    assert debezium.missing() == ""
    assert [path.name for path in debezium._compiled(bench).glob("Consumer.class")]


def test_the_floors_are_taken_from_ratios_to_a_warm_debezium() -> None:
    turns = {"ours, tcp": [run_of(200)], "ours, unix": [run_of(400)], "debezium": [run_of(100)]}
    rate, _, cpu, memory, growth = stream._figures(turns, {"tcp": [900.0], "unix": [900.0]})
    assert (rate.rival, rate.limit, rate.floor) == (100, 900, 1.8)  # not the cold second
    assert rate.ratio == pytest.approx(rate.ours / 100)
    assert (cpu.ratio, cpu.floor, cpu.ok) == (pytest.approx(1), 0.45, False)
    assert (memory.ours, memory.floor, memory.ok) == (50, 100, True)
    assert (growth.ours, growth.ok) == (1, True)
    found = snapshot._figures(
        {1: [run_of(200)], 2: [run_of(300)]}, {1: [run_of(100)], 2: [run_of(120)]}, [run_of(1)], 9.0
    )
    floors = [(figure.ratio, figure.floor) for figure in found[:2]]
    best = run_of(120).rate()  # with whatever number of threads suits it best
    assert floors == [(run_of(200).rate() / best, None), (run_of(300).rate() / best, 2.5)]


def test_a_missed_floor_is_seen_in_the_table_and_in_json() -> None:
    figures = [
        Figure("stream", "rows/s", 150_000.4, 100_000.0, 300_000.0, 1.5, 1.8, note="a note"),
        Figure("memory", "MB", 64.25, floor=100, more_is_better=False),
        Figure("plain", "s", 0.3),
    ]
    heading, _, *lines = report.table(figures).splitlines()
    assert heading.split() == "figure ours Debezium limit ratio floor ok note".split()
    cells = ["stream", "(rows/s)", "150,000", "100,000", "300,000", "1.50×", "≥", "1.8×", "NO"]
    assert lines[0].split() == [*cells, "a", "note"]
    assert lines[1].split() == ["memory", "(MB)", "64.2", "≤", "100", "yes"]
    assert lines[2].split() == ["plain", "(s)", "0.3"]
    found = json.loads(report.to_json(figures, {"stream": {"runs": []}}, {"runs": 1}))
    assert [figure["ok"] for figure in found["figures"]] == [False, True, None]
    assert found["figures"][0]["debezium"] == 100_000
    assert found["machine"]["cores"]
    assert found["runs"] == {"stream": {"runs": []}}


def test_memory_of_a_short_run_is_not_called_flat() -> None:
    few, many = (
        Run("few", pss=[common.MB] * 7),
        Run("many", pss=[common.MB] * 6 + [3 * common.MB] * 2),
    )
    known = common.growth("growth", [many, many], "a note")
    assert (known.ours, known.ok, known.note) == (3, False, "a note")
    unknown = common.growth("growth", [many, few], "a note")
    assert (unknown.ours, unknown.ok) == (None, None)
    _, _, line = report.table([unknown]).splitlines()
    assert line.split() == [
        *["growth", "(×)", "not", "known", "≤", "1.1"],
        *"fewer than 8 samples; use more --changes".split(),
    ]


def test_an_absent_debezium_is_an_error_unless_it_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = SimpleNamespace(results={}, debezium=None)

    @contextmanager
    def opened(changes: int, runs: int, *, debezium: bool) -> Iterator[SimpleNamespace]:
        bench.debezium = debezium
        yield bench

    monkeypatch.setattr("benchmarks.__main__.open_bench", opened)
    monkeypatch.setattr("benchmarks.start.run", lambda _: [Figure("start", "s", 1.0)])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["start"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "error: java is not on the PATH (Java 17 or later, a JDK); --no-debezium"
    )
    assert bench.debezium is None  # not begun
    assert main(["start", "--no-debezium"]) == 0
    assert bench.debezium is False
    monkeypatch.undo()
    assert debezium.missing() == ""


def test_a_picture_shows_ours_beside_the_others() -> None:
    figures = [
        Figure("stream", "rows/s", 150_000, 100_000, 300_000, 1.5),
        Figure("limited", "ms", 2, limit=1, more_is_better=False),
        Figure("alone", "MB", 64.25),
        Figure("growth", "×", None),
    ]
    stream, limited, alone, _ = figures
    assert report.shown_in_picture(figures) == [stream, limited]
    assert report.shown_in_picture(figures[2:]) == [alone]
    assert [bar[:2] for bar in report.bars(stream)] == [
        ("limit", 300_000), ("Debezium", 100_000), ("ours", 150_000),
    ]  # fmt: skip
    assert [bar[:2] for bar in report.bars(limited)] == [("limit", 1), ("ours", 2)]
    assert report.title(stream) == "stream (rows/s, more is better)   1.50×"
    assert report.title(limited) == "limited (ms, less is better)"


def test_every_benchmark_of_the_list_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        assert callable(importlib.import_module(f"benchmarks.{name}").run)
    args = parse([])
    assert (args.changes, args.names, args.runs) == (2_000_000, [], 1)
    for wrong in (["speed"], ["--changes", "99"], ["--runs", "0"]):
        with pytest.raises(SystemExit) as ended:
            parse(wrong)
        assert ended.value.code == 2
    assert "no benchmark speed; there are stream, " in capsys.readouterr().err
