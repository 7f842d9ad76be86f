"""A writer killed at any moment leaves a prefix of its batches, and the position that fits it."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

import cdc
from cdc import failpoints
from cdc.errors import LogFull
from cdc.log import Journal, JournalReader
from cdc.log.verify import verify
from tests.guard import guarded
from tests.log.rows import expected, plan, read_all, read_by_offset, snapshot, stored_number, stream

ROOT = Path(cdc.__file__).parent.parent
SMALL = {"segment_bytes": 150_000}
SEED, COUNT = 5, 80


def start_writer(
    path: Path, options: Mapping[str, object] = SMALL, failpoint: str = "", seed: int = SEED
) -> subprocess.Popen[str]:
    arguments = [str(path), str(seed), str(COUNT), json.dumps(options)]
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.log.rows", *arguments],
        cwd=ROOT,
        env=os.environ | {failpoints.VARIABLE: failpoint},
        stdout=subprocess.PIPE,
        text=True,
    )
    return guarded(writer)


def finish(path: Path, options: Mapping[str, object] = SMALL, seed: int = SEED) -> None:
    with start_writer(path, options, seed=seed) as writer:
        writer.communicate()
    assert writer.returncode == 0


def acknowledged(writer: subprocess.Popen[str]) -> int:
    """The last batch whose append has returned."""
    assert writer.stdout is not None
    lines = [line for line in writer.stdout.read().splitlines(keepends=True) if line[-1] == "\n"]
    return int(lines[-1]) if lines else -1


def check_prefix(path: Path, acked: int, before: int, seed: int = SEED) -> int:
    """What readers see and what the writer would resume from agree with each other."""
    want = expected(list(plan(seed, COUNT)))
    # Before any repair: a reader must cope with what the crash left.
    seen = read_by_offset(path)
    assert all(want[offset] == i for offset, i in seen.items())
    report = verify(path)
    whole = not report.gaps and report.oldest_offset == 0
    with Journal.open(path, retention_ms=None) as journal:
        number = stored_number(journal)
        assert max(acked, before) <= number <= max(acked, before) + 1
    report = verify(path)
    assert report.ok, (report.problems, [s.problems for s in report.segments])
    if whole:
        rows = sum(segment.rows for segment in report.segments)
        assert rows == sum(step.rows for step in plan(seed, COUNT) if step.number <= number)
        assert list(seen.values()) == want[: len(seen)]
    return number


@pytest.mark.parametrize("seed", range(2))
def test_kills_at_random_moments_lose_and_double_nothing(memory: Path, seed: int) -> None:
    path = memory / "j"
    moments = random.Random(seed)
    number, kills = -1, 0
    while number < COUNT - 1:
        with start_writer(path, seed=seed) as writer:
            assert writer.stdout is not None
            first = writer.stdout.readline()
            time.sleep(moments.random() * 0.015)
            writer.kill()
            acked = max([acknowledged(writer), int(first or -1)])
        kills += 1
        number = check_prefix(path, acked, number, seed)
    assert kills > 1
    finish(path, seed=seed)
    assert read_all(path, 0) == expected(list(plan(seed, COUNT)))


def _names() -> list[str]:
    text = "".join(file.read_text() for file in (ROOT / "cdc/log").glob("*.py"))
    return sorted(set(re.findall(r'failpoints\.hit\("(journal\.[^"]+)"\)', text)))


# What makes the rarer steps happen.
OPTIONS = {
    "journal.drop.after_gap": SMALL | {"budget_bytes": 900_000, "full_policy": "drop"},
    "journal.retain.before_unlink": SMALL | {"retention_bytes": 400_000},
}


@pytest.mark.parametrize("name", _names())
def test_a_kill_at_each_persist_step_loses_and_doubles_nothing(memory: Path, name: str) -> None:
    options = OPTIONS.get(name, SMALL)
    path = memory / "j"
    number = -1
    for hit in (1, 2, 3):
        with start_writer(path, options, f"{name}=kill@{hit}") as writer:
            acked = acknowledged(writer)
        assert writer.returncode == -9 or hit > 1, f"{name} was never hit"
        number = check_prefix(path, acked, number)
    finish(path, options)
    report = verify(path)
    assert report.ok
    gone = {
        i for start, end in [(0, report.oldest_offset), *report.gaps] for i in range(start, end)
    }
    want = dict(enumerate(expected(list(plan(SEED, COUNT)))))
    assert read_by_offset(path) == {at: i for at, i in want.items() if at not in gone}
    assert not gone or name in OPTIONS


@pytest.mark.parametrize("name", [n for n in _names() if "retain" not in n and "drop" not in n])
def test_no_space_at_each_persist_step_stores_nothing_or_all(
    memory: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failpoints, "_armed", {})
    steps = list(plan(SEED, COUNT))
    with Journal.open(memory, segment_bytes=150_000) as journal:
        hits = 0
        for step in steps:
            failpoints.arm(f"{name}=error")
            try:
                journal.append(step.batch)
            except (LogFull, OSError):
                hits += 1
                failpoints.arm("")
                if stored_number(journal) < step.number:
                    journal.append(step.batch)
            finally:
                failpoints.arm("")
            assert stored_number(journal) == step.number
    assert hits or "close_lane" in name or "seal" in name  # those are put off to the next append
    assert read_all(memory, 0) == expected(steps)
    assert verify(memory).ok


def test_failpoints_say_what_is_wrong_with_a_specification() -> None:
    with pytest.raises(ValueError, match=r"name=kill\|error\|sleep:ms"):
        failpoints.arm("journal.append.before_commit=explode")
    failpoints.arm("")


def test_a_reader_survives_the_writers_death_and_sees_its_successor(memory: Path) -> None:
    with Journal.open(memory) as journal:
        journal.append(snapshot(0, 3, close=True))
    with JournalReader(memory) as reader:
        assert reader.read(0) is not None
        assert reader.read(3) is None
        with Journal.open(memory) as journal:
            journal.append(stream(10, 2))
            block = reader.read(3)
        assert block is not None
        assert list(block.offsets) == [3, 4]
