"""The judge: Kafka Connect's own classes, and how many comparisons with them were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.connect.judge import Judge, missing
from tests.connect.seeded import SEED, SEED_VARIABLE
from tests.servers import give_up

_COUNTS = pytest.StashKey[Counter[str]]()
_WORKERS_COUNTS = "connect_counts"


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Judge]:
    """A JVM with Connect's classes, for the whole session."""
    problem = missing()
    if problem:
        give_up(f"no Kafka Connect to compare with: {problem}")
    found = Judge(tmp_path_factory.mktemp("judge"))
    pytestconfig.stash[_COUNTS] = found.counts
    try:
        yield found
    finally:
        found.close()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes (``-n``) tells the first one what it has counted."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_WORKERS_COUNTS] = dict(session.config.stash.get(_COUNTS, {}))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """Adds what one of several processes has counted; one that died has told nothing."""
    counts = node.config.stash.setdefault(_COUNTS, Counter())
    counts.update(getattr(node, "workeroutput", {}).get(_WORKERS_COUNTS, {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """How many comparisons were made, by class; and the seed that repeats them."""
    counts = config.stash.get(_COUNTS, {})
    if counts:
        each = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
        total = sum(counts.values())
        terminalreporter.write_line(
            f"{total:,} comparisons with Kafka Connect ({SEED_VARIABLE}={SEED}): {each}"
        )
