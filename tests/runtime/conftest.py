"""A worker per test, and no worker left behind; configurations for loops in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.plugins import counter
from tests.runtime.workers import Worker


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    started: list[Worker] = []

    def begin(*files: Path) -> Worker:
        started.append(Worker(tmp_path, *files))
        return started[-1]

    yield begin
    for worker in started:
        if worker.process.poll() is None:
            worker.kill()


@pytest.fixture
def worker(start: Callable[..., Worker]) -> Worker:
    return start()


@pytest.fixture
def source_config(tmp_path: Path) -> Callable[..., Any]:
    def make(**more: Any) -> Any:
        return counter.CONFIG.parse(
            {
                "topic.prefix": "count",
                "confirmed.file": str(tmp_path / "confirmed.json"),
                "fail.file": str(tmp_path / "fail"),
                "ledger.file": str(tmp_path / "ledger"),
                **{name.replace("_", "."): str(value) for name, value in more.items()},
            }
        )

    return make
