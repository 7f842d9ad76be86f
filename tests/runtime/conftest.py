"""A worker per test, and no worker left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
