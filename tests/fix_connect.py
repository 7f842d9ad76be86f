"""The judge: Kafka Connect's own classes, and how many comparisons with them were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.connect.judge import Judge, missing
from tests.connect.seeded import SEED, SEED_VARIABLE
from tests.servers import give_up

LEAST = 2_000  # generated comparisons, in a run of all that compare
COMPARING = [
    *Path(__file__).with_name("connect").glob("test_*.py"),
    *Path(__file__).with_name("transforms").glob("test_*.py"),
]
_JUDGE = pytest.StashKey[Judge]()
_COUNTED = pytest.StashKey["Counted"]()
_WORKERS_COUNTS = "connect_counts"


@dataclass
class Counted:
    """What this process, or several of them together, did. ``whole``: no test was left out."""

    by_class: Counter[str] = field(default_factory=Counter)
    generated: int = 0
    whole: bool = True

    def too_few(self) -> bool:
        """Whether a run of all that compare has compared less than is promised."""
        return self.whole and not missing() and self.generated < LEAST


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Judge]:
    """A JVM with Connect's classes, for the whole session."""
    problem = missing()
    if problem:
        give_up(f"no Kafka Connect to compare with: {problem}")
    found = Judge(tmp_path_factory.mktemp("judge"))
    pytestconfig.stash[_JUDGE] = found
    try:
        yield found
    finally:
        found.close()


def pytest_configure(config: pytest.Config) -> None:
    """Begins to count."""
    config.stash[_COUNTED] = Counted()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """A run without some of the comparisons (``-k``, ``-m``, ``--deselect``) may make fewer."""
    if any(item.path in COMPARING for item in items):
        items[0].config.stash[_COUNTED].whole = False


def pytest_collection_finish(session: pytest.Session) -> None:
    """So may a run of single files; the first of several processes collects nothing itself."""
    nothing_runs = session.config.option.collectonly
    if nothing_runs or not {*COMPARING} <= {item.path for item in session.items}:
        session.config.stash[_COUNTED].whole = False


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """One of several processes (``-n``) tells the first what it has counted, which judges."""
    config, counted = session.config, session.config.stash[_COUNTED]
    judge = config.stash.get(_JUDGE, None)
    if judge is not None:
        counted.by_class += judge.counts
        counted.generated += judge.generated
    output = getattr(config, "workeroutput", None)
    if output is not None:
        output[_WORKERS_COUNTS] = (dict(counted.by_class), counted.generated, counted.whole)
    elif exitstatus == pytest.ExitCode.OK and counted.too_few():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """Adds what one of several processes has counted; one that died has told nothing."""
    counted = node.config.stash[_COUNTED]
    told = getattr(node, "workeroutput", {}).get(_WORKERS_COUNTS)
    by_class, generated, whole = told or ({}, 0, False)
    counted.by_class.update(by_class)
    counted.generated += generated
    counted.whole = counted.whole and whole


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """How many comparisons were made, by class; and the seed that repeats them."""
    counted = config.stash[_COUNTED]
    counts = counted.by_class
    if counts:
        each = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
        terminalreporter.write_line(
            f"{counts.total():,} comparisons with Kafka Connect, {counted.generated:,} of them"
            f" generated ({SEED_VARIABLE}={SEED}): {each}"
        )
    if counted.too_few():
        terminalreporter.write_line(
            f"FAILED: {counted.generated:,} generated comparisons with Kafka Connect are fewer than"
            f" the {LEAST:,} that are promised",
            red=True,
        )
