"""Operator: Connect's RetryWithToleranceOperator, what is done about one record's error.

Facts sheet §6: a retriable error is tried again with a growing delay; what has failed for good
is reported (to the log, to the dead letters) whatever the tolerance is, and then either skipped
(``errors.tolerance=all``) or the end of the task. Texts are Connect's.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, Protocol, TypeVar

from cdc import metrics as names
from cdc.block import Block
from cdc.config import Config
from cdc.errors import CdcError, RecordError
from cdc.record import Record
from cdc.runtime.withheld import without_values
from cdc.transforms.errors import java_name
from schemas import DataError

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_DELAY_MS: Final = 300
SINK_TASK: Final = "org.apache.kafka.connect.sink.SinkTask"


class Stage(Enum):
    """Where a record's error came up; the names are what headers and logs show.

    At each of them any error is the record's own. What ``put()`` and ``poll()`` raise is no
    record's, and never tolerated: at TASK_PUT are the rows that a sink reports itself.
    """

    TASK_PUT = "TASK_PUT"
    TRANSFORMATION = "TRANSFORMATION"
    KEY_CONVERTER = "KEY_CONVERTER"
    VALUE_CONVERTER = "VALUE_CONVERTER"
    HEADER_CONVERTER = "HEADER_CONVERTER"


class Skipped(Enum):
    """The type of :data:`SKIPPED`."""

    SKIPPED = "SKIPPED"


# What an operation gives whose record is left out; None is a result of its own (a Filter's).
SKIPPED: Final[Literal[Skipped.SKIPPED]] = Skipped.SKIPPED


class NotTolerated(RecordError):
    """The record's error ends the task; the error itself is the cause."""


class Stopped(CdcError):
    """The task is being stopped while an operation waits for its next attempt."""

    retriable = True


@dataclass(frozen=True, slots=True)
class Failure:
    """One record that has failed for good.

    ``block`` and ``row`` are the row as the task got it; ``part`` is 1 for a delete's tombstone.
    ``record`` is there where one was made of it. ``class_name`` is what ran, by its Java name.
    """

    stage: Stage
    class_name: str
    error: BaseException
    block: Block
    row: int
    part: int = 0
    record: Record | None = None


class Reporter(Protocol):
    """Is told of every failure."""

    def report(self, failure: Failure) -> None:
        """Note it. Called once per record."""

    def flush(self) -> None:
        """Make durable what was noted."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The ``errors.*`` keys; times in ms, ``retry_timeout_ms`` -1: without end."""

    retry_timeout_ms: int = 0
    retry_delay_max_ms: int = 60_000
    tolerate: bool = False
    log: bool = False
    log_messages: bool = False

    @classmethod
    def of(cls, config: Config) -> Tolerance:
        """As configured."""
        return cls(
            config["errors.retry.timeout"],
            config["errors.retry.delay.max.ms"],
            config["errors.tolerance"] == "all",
            config["errors.log.enable"],
            config["errors.log.include.messages"],
        )


@dataclass(slots=True)
class ErrorCounters:
    """Connect's task-error-metrics, facts sheet §7."""

    failures: int = 0  # every attempt that failed
    errors: int = 0  # records that failed for good
    skipped: int = 0
    retries: int = 0
    logged: int = 0
    letters: int = 0
    letter_failures: int = 0
    last_error_ms: int = 0

    def metrics(self) -> dict[str, float]:
        """By metric name."""
        return {
            names.TOTAL_RECORD_FAILURES: self.failures,
            names.TOTAL_RECORD_ERRORS: self.errors,
            names.TOTAL_RECORDS_SKIPPED: self.skipped,
            names.TOTAL_RETRIES: self.retries,
            names.TOTAL_ERRORS_LOGGED: self.logged,
            names.DEADLETTERQUEUE_PRODUCE_REQUESTS: self.letters,
            names.DEADLETTERQUEUE_PRODUCE_FAILURES: self.letter_failures,
            names.LAST_ERROR_TIMESTAMP: self.last_error_ms,
        }


class Operator:
    """Runs what may fail for one record. One per task, used from one thread."""

    def __init__(
        self,
        tolerance: Tolerance | None = None,
        reporters: Sequence[Reporter] = (),
        *,
        stopping: threading.Event | None = None,
        counters: ErrorCounters | None = None,
    ) -> None:
        self.tolerance = tolerance or Tolerance()
        self.reporters = tuple(reporters)
        self.stopping = stopping or threading.Event()
        self.count = counters or ErrorCounters()

    def recover(
        self,
        call: Callable[[], T],
        error: Exception,
        failure: Callable[[Exception], Failure],
    ) -> T | Literal[Skipped.SKIPPED]:
        """After ``call`` raised ``error``: its result of a later attempt, or SKIPPED.

        Raises NotTolerated, and Stopped where a stop came while it waited.
        """
        if isinstance(error, MemoryError):
            raise error  # what is java.lang.Error in Connect is no record's fault
        began, attempt = time.monotonic(), 0
        while True:
            self.count.failures += 1
            attempt += 1
            if not _is_retriable(error) or not self._may_retry(began):
                break
            self._wait(attempt, began)
            self.count.retries += 1
            try:
                return call()
            except Exception as again:  # noqa: BLE001 - what it means is decided here
                error = again
        self.fail(failure(error))
        return SKIPPED

    def fail(self, failure: Failure) -> None:
        """Report a failure; raises NotTolerated unless its record may be skipped."""
        count = self.count
        count.errors += 1
        count.last_error_ms = time.time_ns() // 1_000_000
        for reporter in self.reporters:
            reporter.report(failure)
        if not self.tolerance.tolerate:
            self.flush()
            cause = failure.error
            if not self.tolerance.log_messages:  # the status and the log show it
                cause = without_values(cause)
            raise NotTolerated(
                "Tolerance exceeded in error handler", remedy=_shown(cause)
            ) from cause
        count.skipped += 1

    def reported(self, failure: Failure) -> None:
        """A record that the sink itself reports: Connect's ErrantRecordReporter."""
        self.count.failures += 1
        self.fail(failure)

    def flush(self) -> None:
        """Make durable what was reported: before anything says that the record is done."""
        for reporter in self.reporters:
            reporter.flush()

    def _may_retry(self, began: float) -> bool:
        timeout_ms = self.tolerance.retry_timeout_ms
        return timeout_ms < 0 or (time.monotonic() - began) * 1000 < timeout_ms

    def _wait(self, attempt: int, began: float) -> None:
        tolerance = self.tolerance
        delay_ms = retry_delay_ms(attempt, tolerance.retry_delay_max_ms)
        if tolerance.retry_timeout_ms >= 0:
            left_ms = tolerance.retry_timeout_ms - (time.monotonic() - began) * 1000
            delay_ms = min(delay_ms, max(left_ms, 0.0))
        if self.stopping.wait(delay_ms / 1000):
            raise Stopped("stopped while waiting for the next attempt")


def retry_delay_ms(attempt: int, most_ms: int, draw: Callable[[], float] = random.random) -> float:
    """Before attempt ``attempt + 1``: 300 ms doubling; above the most, random up to that."""
    delay = float(FIRST_DELAY_MS << min(attempt - 1, 50))
    return delay if delay <= most_ms else draw() * most_ms


def exception_names(error: BaseException) -> tuple[str, str | None]:
    """An error's Java class name and its message, None where it has none."""
    text = error.problem if isinstance(error, CdcError) else str(error)
    return java_name(error), text or None


def _is_retriable(error: BaseException) -> bool:
    return bool(getattr(error, "retriable", False))


def _shown(error: BaseException) -> str:
    """The cause, for whoever sees only the last line: its class, and Connect's text."""
    name, text = exception_names(error)
    shown = text if isinstance(error, CdcError | DataError) else None
    return f"Caused by {name}{': ' + shown if shown else ''}"
