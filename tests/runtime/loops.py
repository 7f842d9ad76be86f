"""A loop in this process: what its tests share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cdc.api import Batch
from cdc.errors import (
    SinkUnavailable,
)
from cdc.log.journal import Journal
from cdc.log.reader import JournalReader
from cdc.runtime.observer import Observer
from cdc.runtime.source_loop import SourceLoop
from tests.plugins import counter

WAIT_S = 90.0


class Watch(Observer):
    """Ends a loop when a condition holds, and hears what it tells."""

    def __init__(self) -> None:
        self.loop: Any = None
        self.rows = 0
        self.until: Callable[[], bool] = lambda: False
        self.log: list[str] = []
        self.flag = threading.Event()

    def started(self) -> None:
        self.log.append("started")

    def appended(self, batch: Batch, nbytes: int) -> None:
        self.rows += len(batch.block or ())  # type: ignore[arg-type]
        self._look()

    def stored(self, positions: Mapping[str, int]) -> None:
        self.log.append(f"stored {sum(positions.values())}")
        self._look()

    def retrying(self, error: SinkUnavailable) -> None:
        self.log.append("retrying")
        self._look()

    def _look(self) -> None:
        if self.until():
            self.flag.set()
            self.loop.stop()


def run_in_time(loop: Any) -> None:
    """Run a loop; one that does not end by itself is stopped, as its test then sees."""
    timer = threading.Timer(WAIT_S, loop.stop)
    timer.start()
    try:
        loop.run()
    finally:
        timer.cancel()


def run_source(journal: Journal, config: Any, rows: int, **more: Any) -> Watch:
    watch = Watch()
    task = counter.CounterSourceTask(config, "count")
    watch.loop = SourceLoop(task, journal, events=watch, **more)
    watch.until = lambda: watch.rows >= rows
    watch.loop.run()
    return watch


def stored_numbers(path: Path) -> list[int]:
    found: list[int] = []
    with JournalReader(path) as reader:
        while (block := reader.read(len(found))) is not None:
            found += block.lsn
    return found


def write(path: Path, text: str) -> bool:
    path.write_text(text)
    return True
