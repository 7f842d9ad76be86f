"""Reporters: who is told of a record that has failed for good: Connect's ErrorReporter.

One writes the log (``errors.log.enable``), one the dead letters (``errors.deadletterqueue.*``).
Texts and headers are Connect's, facts sheet §6.
"""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cdc.block import Block, Derived
from cdc.config import Config
from cdc.converters.contract import Converter
from cdc.converters.factory import configured_converters, make_converter
from cdc.converters.rows import Converted, convert
from cdc.record import record_text
from cdc.runtime.deadletters import PREFIX, DeadLetters, Letter
from cdc.runtime.tolerance import ErrorCounters, Failure, exception_names
from cdc.runtime.withheld import without_values
from schemas import DataError, SchemaError

log = logging.getLogger(__name__)

TRACE_MOST_CHARS: Final = 20_000
_JSON: Final = make_converter("json", {})


class LogReporter:
    """``errors.log.enable``: Connect's lines, facts sheet §6.4."""

    def __init__(self, task: str, count: ErrorCounters, *, sink: bool, messages: bool) -> None:
        """``task`` is ``<connector>-<number>``; ``messages``: say which record it was."""
        self._task, self._count, self._sink, self._messages = task, count, sink, messages

    def report(self, failure: Failure) -> None:
        """One line, with the error."""
        error = failure.error if self._messages else without_values(failure.error)
        log.error("%s", self.text(failure), exc_info=error)
        self._count.logged += 1

    def flush(self) -> None:
        """See Reporter: a log has nothing to wait for."""

    def text(self, failure: Failure) -> str:
        """The line without the error."""
        text = (
            f"Error encountered in task {self._task}. Executing stage '{failure.stage.value}'"
            f" with class '{failure.class_name}'"
        )
        if not self._messages:
            return f"{text}."
        block, row = failure.block, failure.row
        if self._sink:
            topic = block.schemas[block.schema[row]].destination
            return (
                f"{text}, where consumed record is {{topic='{topic}', partition=0,"
                f" offset={block.offsets[row]}, timestamp={block.created_us // 1000},"
                " timestampType=CreateTime}."
            )
        return f"{text}, where source record is = {_source_record(failure)}."


@dataclass(frozen=True, slots=True)
class Queue:
    """The dead letters of one task: ``errors.deadletterqueue.*``, and what letters say."""

    name: str
    connector: str
    task: int
    with_errors: bool
    key: Converter
    value: Converter

    @classmethod
    def of(cls, config: Config, connector: str, task: int) -> Queue | None:
        """As configured; None: a sink without dead letters."""
        name = config["errors.deadletterqueue.topic.name"]
        if not name:
            return None
        key, value = configured_converters(config)
        with_errors = config["errors.deadletterqueue.context.headers.enable"]
        return cls(name, connector, task, with_errors, key, value)

    def letter(self, journal: str, failure: Failure) -> Letter:
        """What is kept of one failure."""
        row = _alone(failure.block, failure.row)
        record = self._bytes(row, failure.part)
        headers = tuple((name, (text or b"null").decode()) for name, text in record.headers)
        return Letter(
            journal, row.offsets[0], failure.part, self.name, record.topic,
            row.created_us // 1000, record.key, record.value, headers,
            self._errors(record, failure), self.with_errors, row,
        )  # fmt: skip

    def _bytes(self, row: Block, part: int) -> Converted:
        """As the connector's converters write the journal's row; as JSON where they do not."""
        try:
            return convert(row, self.key, self.value)[part]
        except (DataError, SchemaError):
            return convert(row, _JSON, _JSON)[part]

    def _errors(self, record: Converted, failure: Failure) -> tuple[tuple[str, str | None], ...]:
        name, message = exception_names(failure.error)
        texts = {
            "topic": record.topic,
            "partition": "0",
            "offset": str(record.offset),
            "connector.name": self.connector,
            "task.id": str(self.task),
            "stage": failure.stage.value,
            "class.name": failure.class_name,
            "exception.class.name": name,
            "exception.message": message,
            "exception.stacktrace": java_trace(failure.error),
        }
        return tuple((PREFIX + key, text) for key, text in texts.items())


class DeadLetterQueueReporter:
    """Writes dead letters; several that come together in one transaction."""

    def __init__(self, queue: Queue, letters: DeadLetters, count: ErrorCounters) -> None:
        self._queue, self.letters, self._count = queue, letters, count
        self._waiting: list[Letter] = []
        self.journal = ""
        self.failed: set[int] = set()  # the journal's offsets, since the caller cleared it

    def report(self, failure: Failure) -> None:
        """See Reporter."""
        self.failed.add(failure.block.offsets[failure.row])
        self._waiting.append(self._queue.letter(self.journal, failure))

    def flush(self) -> None:
        """Store them. A store that cannot be written ends the task: nothing passes it."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        self._count.letters += len(waiting)
        try:
            self.letters.put(waiting)
        except BaseException:
            self._count.letter_failures += len(waiting)
            raise


def _source_record(failure: Failure) -> str:
    block, record = failure.block, failure.record
    schema = block.schemas[block.schema[failure.row]]
    place = (
        f"sourcePartition={{server={schema.server}}}, sourceOffset={{lsn={block.lsn[failure.row]}}}"
    )
    return f"SourceRecord{{{place}}}{'' if record is None else f' {record_text(record)}'}"


def java_trace(error: BaseException) -> str:
    """An error and where it came from, in the form of Java's ``printStackTrace``."""
    name, text = exception_names(error)
    lines = [f"{name}: {text}" if text else name]
    frames = traceback.extract_tb(error.__traceback__)
    lines += [f"\tat {f.name}({Path(f.filename).name}:{f.lineno})" for f in reversed(frames)]
    if error.__cause__ is not None:
        lines.append(f"Caused by: {java_trace(error.__cause__)}")
    return "\n".join(lines)[:TRACE_MOST_CHARS]


def _alone(block: Block, row: int) -> Block:
    """One row as a block, with its own schema only."""
    out = Derived(block)
    out.keep(row, out.schema(block.schemas[block.schema[row]]))
    alone = out.block()
    assert alone is not None
    return alone
