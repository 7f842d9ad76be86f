"""Stepper: a source polled by hand, so that a test stands in the middle of a snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cdc.api import LogState
from cdc.log import Journal
from cdc.postgres.source import PostgresSourceTask
from tests.pipeline import config_for, read_journal, until


class Stepper:
    """A task and its journal in this thread, polled by hand: one step at a time."""

    def __init__(self, path: Path, dsn: str, **settings: str) -> None:
        self.path = path
        self.journal = Journal.open(path)
        self.task = PostgresSourceTask(config_for(dsn, **settings))
        self.state: LogState = self.journal.state()
        self.task.start(self.state)

    def step(self) -> list[Any]:
        batches = self.task.poll(0.05)
        for batch in batches:
            self.journal.append(batch)
        return batches

    def until_rows(self, count: int) -> None:
        until(lambda: self.step() is not None and len(self.events()) >= count, f"{count} rows")

    def events(self) -> list[Any]:
        return read_journal(self.path)

    def readers(self) -> list[Any]:
        assert self.task._snapshot is not None
        return self.task._snapshot._readers

    def close(self) -> None:
        self.task.stop()
        self.journal.close()
