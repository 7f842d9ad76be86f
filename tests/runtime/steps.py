"""Transforms for tests, as a chain's steps: what a test makes of a record, in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cdc.record import Record


@dataclass
class Step:
    """A step that calls a function; ``transform`` and ``predicate`` as a chain looks at them."""

    call: Callable[[Record], Record | None]
    java_class: str = "org.example.Test$Value"
    transform: Any = None
    predicate: Any = None
    negate: bool = False

    def apply(self, record: Record) -> Record | None:
        return self.call(record)


class Flaky:
    """Fails some times with an error, then gives the record back."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times, self.calls = error, times, 0

    def __call__(self, record: Record) -> Record:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return record


class Retriable(Exception):
    """Connect's RetriableException, as a transform of somebody's own would raise it."""

    retriable = True
