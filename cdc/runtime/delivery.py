"""Delivery: a sink's rows on their way from the journal to the target, and those that fail.

In Connect's order: the topics were taken already; then the chain, then what the target makes
of it. What fails for good goes to the log and to the dead letters, durably so before the sink's
position can pass it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from cdc import metrics as names
from cdc.block import Block
from cdc.config import Config
from cdc.converters.contract import Converter, HeaderConverter
from cdc.converters.factory import (
    configured_converters,
    configured_header_converter,
    java_class_of,
)
from cdc.converters.rows import convert, convert_keys, convert_values
from cdc.images import RowImages
from cdc.runtime.chain import Chain, configured_steps
from cdc.runtime.deadletters import DeadLetters
from cdc.runtime.reporters import DeadLetterQueueReporter, LogReporter, Queue
from cdc.runtime.tolerance import (
    SINK_TASK,
    SKIPPED,
    ErrorCounters,
    Failure,
    Operator,
    Reporter,
    Stage,
    Tolerance,
)

# Of key, value and headers (None: plain JSON).
Converters = tuple[Converter, Converter, HeaderConverter | None]


class ErrantRecordReporter:
    """What a sink task has as ``context.reporter``: Connect's ErrantRecordReporter."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def report(self, block: Block, row: int, error: Exception) -> None:
        """A row of the block that was put cannot be written: it is left out.

        On return it is durable in the dead letters. Raises NotTolerated where that ends the task.
        """
        self._delivery.rejected(block, row, error)
        self._delivery.operator.flush()


class Delivery:
    """One sink task's chain, operator and dead letters. Used from the sink's thread."""

    def __init__(
        self,
        operator: Operator | None = None,
        chain: Chain | None = None,
        letters: DeadLetterQueueReporter | None = None,
        *,
        takes_records: bool = True,
        converters: Converters | None = None,
    ) -> None:
        """``takes_records``: the sink writes records as they are, through ``converters``."""
        self.operator = operator or Operator()
        self.chain, self._letters = chain, letters
        reports = bool(self.operator.reporters)
        self.reporter = ErrantRecordReporter(self) if reports else None
        self._images = None if takes_records else RowImages(self.rejected if reports else None)
        self._converters = converters
        self._given: Block | None = None
        self._part: int | None = None  # of a letter's row: which of its records is put
        self._known: dict[str, frozenset[int]] = {}  # offsets that have letters, by journal
        self._mended: dict[str, set[int]] = {}  # those of them whose rows have been put since

    @classmethod
    def of(
        cls,
        config: Config,
        store: Path | None,
        *,
        connector: str,
        task: int = 0,
        stopping: threading.Event | None = None,
        takes_records: bool = True,
    ) -> Delivery:
        """As configured; without a ``store`` no dead letters. Raises ConfigError."""
        tolerance, count = Tolerance.of(config), ErrorCounters()
        reporters: list[Reporter] = []
        if tolerance.log:
            reporters.append(
                LogReporter(
                    f"{connector}-{task}", count, sink=True, messages=tolerance.log_messages
                )
            )
        queue, letters = Queue.of(config, connector, task), None
        if queue is not None and store is not None:
            letters = DeadLetterQueueReporter(queue, DeadLetters(store), count)
            reporters.append(letters)
        operator = Operator(tolerance, reporters, stopping=stopping, counters=count)
        steps = configured_steps(config)
        chain = Chain(steps, operator, sink=True) if steps else None
        converters = None
        if takes_records:
            converters = (*configured_converters(config), configured_header_converter(config))
        return cls(operator, chain, letters, takes_records=takes_records, converters=converters)

    @property
    def converts(self) -> bool:
        """Whether a row that cannot be converted can be told from the others."""
        return self._converters is not None

    @property
    def letters(self) -> DeadLetters | None:
        """The store, where the sink has dead letters."""
        return None if self._letters is None else self._letters.letters

    def prepare(self, journal: str, block: Block, part: int | None = None) -> Block | None:
        """What is put of a block; None: nothing. Raises NotTolerated, Stopped."""
        self._given, self._part = block, part
        if self._letters is not None:
            self._letters.journal = journal
        found = block if self.chain is None else self.chain.apply(block, part)
        if found is not None and self._images is not None:
            found = self._images.apply(found)
        if self.operator.reporters:
            self.operator.flush()
        return found

    # --- letters of rows that a restarted or moved sink puts after all

    def begin(self, journals: Iterable[str]) -> None:
        """A task starts: what its letters are."""
        if self._letters is not None:
            letters = self._letters.letters
            self._known = {journal: letters.offsets(journal) for journal in journals}
            self._mended = {}
            self._letters.failed.clear()

    def taken(self, journal: str, block: Block) -> None:
        """The target took what was prepared of a block."""
        if self._letters is None:
            return
        known = self._known.get(journal)
        if known:
            put = known.intersection(block.offsets) - self._letters.failed
            self._mended.setdefault(journal, set()).update(put)
        self._letters.failed.clear()

    def stored(self) -> None:
        """The sink's position is durable: letters of rows that were put before it go."""
        mended, self._mended = self._mended, {}
        if self._letters is not None:
            for journal, offsets in mended.items():
                self._letters.letters.delivered(journal, offsets)

    def rejected(self, block: Block, row: int, error: Exception) -> None:
        """Report a row of what was prepared, as the journal's row that it comes from."""
        origin = self._origin(block, row)
        self.operator.reported(Failure(Stage.TASK_PUT, SINK_TASK, error, *origin))

    def without_unconvertible(self, block: Block, error: Exception) -> Block | None:
        """The rows that the connector's converters can write, after they failed on a block.

        The others are reported, in Connect's order: key, value, headers. None: none is left.
        Raises NotTolerated, Stopped, or ``error`` where no row is at fault.
        """
        kept = [row for row in range(len(block)) if self._can_convert(block, row)]
        if len(kept) == len(block):
            raise error
        self.operator.flush()
        return block.select(kept) if kept else None

    def _can_convert(self, block: Block, row: int) -> bool:
        assert self._converters is not None
        key, value, header = self._converters
        alone = block.select([row])
        attempts: tuple[tuple[Stage, HeaderConverter, Callable[[], object]], ...] = (
            (Stage.KEY_CONVERTER, key, lambda: convert_keys(alone, key)),
            (Stage.VALUE_CONVERTER, value, lambda: convert_values(alone, value)),
            (Stage.HEADER_CONVERTER, header or value, lambda: convert(alone, key, value, header)),
        )
        for stage, converter, call in attempts:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - the operator decides
                failure = self._failure(stage, converter, block, row)
                if self.operator.recover(call, error, failure) is SKIPPED:
                    return False
        return True

    def _failure(
        self, stage: Stage, converter: HeaderConverter, block: Block, row: int
    ) -> Callable[[Exception], Failure]:
        origin, name = self._origin(block, row), java_class_of(converter)
        return lambda error: Failure(stage, name, error, *origin)

    def _origin(self, block: Block, row: int) -> tuple[Block, int, int]:
        """The journal's row that a prepared row comes from, and which of its records it is."""
        given = self._given
        assert given is not None
        # A dead letter's row is put under a later offset than its own.
        at = min(bisect_left(given.offsets, block.offsets[row]), len(given) - 1)
        # Behind a chain a delete is two rows of one offset: itself, and its tombstone.
        second = row > 0 and block.offsets[row - 1] == block.offsets[row]
        return given, at, int(second) if self._part is None else self._part

    def metrics(self) -> Mapping[str, float]:
        """Connect's task-error-metrics, and how many dead letters wait."""
        values = self.operator.count.metrics()
        if self._letters is not None:
            values[names.SINK_DEAD_LETTERS] = self._letters.letters.count()
        return values

    def close(self) -> None:
        """Release the store."""
        if self._letters is not None:
            self._letters.letters.close()
