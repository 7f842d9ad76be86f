"""Stepper: a source polled by hand, so that a test stands in the middle of a snapshot."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cdc.api import LogState
from cdc.config import Config
from cdc.log import Journal
from cdc.postgres.source import PostgresSourceTask
from tests.pipeline import DEADLINE_S, Followed, config_for


class Stepper:
    """A task and its journal in this thread, polled by hand: one step at a time."""

    def __init__(
        self,
        path: Path,
        dsn: str,
        *,
        task: Callable[[Config], PostgresSourceTask] = PostgresSourceTask,
        **settings: str,
    ) -> None:
        self.path, self._followed = path, Followed(path)
        self.journal = Journal.open(path)
        self.task = task(config_for(dsn, **settings))
        self.state: LogState = self.journal.state()
        self.task.start(self.state)

    def step(self) -> list[Any]:
        batches = self.task.poll(0.05)
        for batch in batches:
            self.journal.append(batch)
        return batches

    def until_rows(self, count: int) -> None:
        self._until(lambda: len(self.events()) >= count, f"{count} rows")

    def until_read(self) -> None:
        """To the snapshot's end."""
        self._until(lambda: self.task._snapshot is None, "the snapshot's end")

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"stepped in vain for {what}"
            self.step()

    def events(self) -> list[Any]:
        return self._followed.events()

    def readers(self) -> list[Any]:
        assert self.task._snapshot is not None
        return self.task._snapshot._readers

    def close(self) -> None:
        self.task.stop()
        self.journal.close()
