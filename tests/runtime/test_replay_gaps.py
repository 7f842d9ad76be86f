"""A place among rows that were dropped for want of space is none: refused with its bounds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cdc.errors import ConfigError
from cdc.history.export import export
from cdc.log import Journal, JournalReader
from cdc.log.places import Places, UnknownPlace, parse_place
from cdc.runtime import replay
from cdc.runtime.replay import Plan, Sink
from cdc.runtime.state import DataDir
from tests.log.rows import snapshot, stream
from tests.runtime.workers import cdc

ROWS = 10  # of a transaction; a snapshot's too
FIRST_ID = 1000  # of the stream's; a row's LSN is 1000 more
OPTIONS: dict[str, Any] = {
    "budget_bytes": 1 << 20, "segment_bytes": 1 << 17, "full_policy": "drop", "needed": lambda: 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataDir:
    data = DataDir(str(tmp_path_factory.mktemp("gaps")))
    data.prepare()
    with Journal.open(data.journal("shop"), **OPTIONS) as journal:
        journal.append(snapshot(0, ROWS))
        for number in range(200):
            journal.append(stream(FIRST_ID + number * ROWS, ROWS, width=2000))
        journal.append(snapshot(ROWS, ROWS, close=True))
    return data


@pytest.fixture
def gap(data: DataDir) -> tuple[int, int]:
    with JournalReader(data.journal("shop")) as reader:
        (found,) = reader.gaps()
        assert reader.bounds()[0] == 0
    assert found[0] == 2 * ROWS
    assert found[1] < 200 * ROWS
    return found


def places(offset: int) -> list[str]:
    """An offset, and what its transaction's commit has."""
    last = FIRST_ID + (offset - 2 * ROWS) // ROWS * ROWS + ROWS - 1 + 1000
    us = 1_700_000_000_000_000 + last * 1000
    return [str(offset), f"0/{last + 5:X}", datetime.fromtimestamp(us / 1e6, UTC).isoformat()]


def plan(data: DataDir, start: str, end: str | None = None) -> Plan:
    config = {"name": "copy", "connector.class": "console", "topics.regex": ".*"}
    body = {"from": start, "to": end, "dry-run": True}
    return replay.make_plan(data, Sink("copy", config, {}, ["shop"], {}), replay.read_request(body))


def test_a_place_in_a_gap_is_refused_with_its_bounds(data: DataDir, gap: tuple[int, int]) -> None:
    bounds = rf"is among offsets {gap[0]} to {gap[1] - 1} "
    end = rf"begins at offset {gap[1]}"
    for offset in (gap[0], (gap[0] + gap[1]) // 2, gap[1] - ROWS):
        for text in places(offset):
            with pytest.raises(ConfigError, match=rf"from: .*{bounds}.*{end}"):
                plan(data, text)
            with JournalReader(data.journal("shop")) as reader, \
                    pytest.raises(UnknownPlace, match=f"{bounds}.*{end}"):  # fmt: skip
                Places(reader).start(parse_place(text))
    for text in places((gap[0] + gap[1]) // 2 // ROWS * ROWS + 1):
        with pytest.raises(ConfigError, match=f"to: .*{bounds}"):
            plan(data, "0", text)


def test_places_beside_a_gap_are_places(data: DataDir, gap: tuple[int, int]) -> None:
    for text in places(gap[1]):
        assert plan(data, text).start == gap[1]
        with JournalReader(data.journal("shop")) as reader:
            assert Places(reader).start(parse_place(text)) == gap[1]
    assert plan(data, "15").start == 15
    assert plan(data, "0", str(gap[0])).end == gap[0]
    assert plan(data, "0", str(gap[0])).gaps == ()


def test_a_plan_over_a_gap_says_so(data: DataDir, gap: tuple[int, int], tmp_path: Path) -> None:
    over = plan(data, "5")
    assert over.to_dict()["gaps"] == [list(gap)]
    sink = Sink("copy", {"name": "copy", "connector.class": "console", "topics.regex": ".*"},
                {}, ["shop"], {})  # fmt: skip
    counted = replay.count(data, sink, over)
    assert counted["rows"] == over.end - over.start - (gap[1] - gap[0])
    assert counted["gaps"] == [list(gap)]
    done = cdc("tail", "--data-dir", data.path, "--from", str(gap[0]))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"are among offsets {gap[0]}" in done.stderr.replace("is among", "are among")
    with JournalReader(data.journal("shop")) as reader:
        told: list[Exception] = []
        export(reader, tmp_path / "x.jsonl", first=0, end=over.end, dropped=told.append)
    assert len(told) == 1
