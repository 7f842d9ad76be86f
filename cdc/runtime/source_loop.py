"""Run one source task against a log: thread A polls and commits, thread B appends.

::

    A (the caller)  poll() ──► queue, bounded in records and bytes ──► B  Log.append()
                    commit() ◄────────── newest durable position ◄─────┘

Nothing is committed before ``append`` returned. While the queue is full, A does not poll;
it commits the newest durable position again and again, which is when a source answers the
server's keep-alives. An error in either thread ends both; what was polled before is still
appended, since the log's own position makes that safe.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from cdc import failpoints
from cdc import metrics as names
from cdc.api import Batch, Lane, Log, Position, SourceTask
from cdc.block import Block
from cdc.config import Config
from cdc.errors import CdcError, LogFull
from cdc.metrics import Spread
from cdc.runtime.chain import Chain
from cdc.runtime.observer import Observer, rows_of
from cdc.runtime.retry import Backoff
from cdc.runtime.tolerance import ErrorCounters, Stopped

log = logging.getLogger(__name__)

IDLE_POLL_S = 0.25  # how long a stop waits for a quiet source
BUSY_POLL_S = 0.01  # while something is not yet confirmed, so that it soon will be
# A poll that brings fewer rows is not worth an fsync of its own while one is under way:
# the next one waits for that, and finds all that has come meanwhile.
SMALL_ROWS = 64
FULL_WAIT_S = 0.5  # between two commits while the queue is full
MEASURE_S = 1.0  # between two looks at the metrics
UPKEEP_S = 60.0  # between two looks at what retention may take


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """``max.queue.size`` and ``max.queue.size.in.bytes``."""

    records: int = 8192
    nbytes: int = 64 << 20

    @classmethod
    def of(cls, config: Config) -> QueueLimits:
        """As configured; a key that a source lacks, or leaves open, has its default."""
        default = cls()
        return cls(
            config.get("max.queue.size") or default.records,
            config.get("max.queue.size.in.bytes") or default.nbytes,
        )


@dataclass(slots=True)
class _Counters:
    polls: Spread = field(default_factory=Spread)  # rows of each
    written_bytes: int = 0
    poll_s: float = 0.0
    poll_max_s: float = 0.0
    append_s: float = 0.0
    append_max_s: float = 0.0
    appends: int = 0
    append_failures: int = 0
    transactions: Spread = field(default_factory=Spread)  # rows of each append that had any


class SourceLoop:
    """One run of one source task. ``run`` once; ``stop`` from any thread."""

    def __init__(
        self,
        task: SourceTask,
        target: Log,
        *,
        limits: QueueLimits | None = None,
        events: Observer | None = None,
        upkeep: Callable[[], object] | None = None,
        chain: Chain | None = None,
    ) -> None:
        """``upkeep`` is called about once a minute, from the thread that appends.

        ``chain`` stands between poll and append; where it leaves nothing of a batch, its
        position is stored all the same.
        """
        self._task, self._log = task, target
        self._upkeep = upkeep or (lambda: None)
        self._events = events or Observer()
        self._queue = _Queue(limits or QueueLimits())
        self._chain = chain
        self._stopping = threading.Event() if chain is None else chain.operator.stopping
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._durable: dict[Lane, Position] = {}  # newest per lane, not yet committed
        self._confirmed: dict[Lane, Position] = {}
        self._count = _Counters()
        self._measured_at = 0.0
        self._small = False  # the last poll brought few rows

    def stop(self) -> None:
        """End soon and in order: what was polled is appended and committed first."""
        self._stopping.set()
        self._queue.wake()
        self._task.interrupt()

    def run(self) -> None:
        """Start the task and run it until ``stop`` or an error, which is raised."""
        writer = threading.Thread(target=self._append_all, name="append", daemon=True)
        try:
            self._task.start(self._log.state())
            writer.start()
            self._events.started()
            self._poll_until_stopped()
            self._drain(writer)
            self._commit()
        except BaseException as error:
            self._drain(writer)
            # The first error is the one to report.
            with suppress(Exception):
                self._task.stop()
            if self._stopping.is_set() and writer.ident is None and _is_retriable(error):
                return  # a start that was cut short
            raise
        self._task.stop()
        if self._failure is not None:
            raise self._failure

    def _poll_until_stopped(self) -> None:
        while not self._stopping.is_set():
            if self._failure is not None:
                raise self._failure
            self._commit()
            self._measure()
            if not self._queue.wait_for_room(FULL_WAIT_S, self._stopping, empty=self._small):
                self._commit(again=True)
                continue
            began = time.monotonic()
            batches = self._task.poll(BUSY_POLL_S if self._unconfirmed() else IDLE_POLL_S)
            if batches:
                with suppress(Stopped):  # what was not put into the queue is read again
                    self._small = self._enqueue(batches, time.monotonic() - began) < SMALL_ROWS

    def _enqueue(self, batches: list[Batch], took_s: float) -> int:
        """Hand the batches over; how many rows they hold."""
        count, rows = self._count, 0
        for batch in batches:
            rows += rows_of(batch)
            self._queue.put(batch if self._chain is None else _transformed(batch, self._chain))
        count.polls.note(rows)
        count.poll_s += took_s
        count.poll_max_s = max(count.poll_max_s, took_s)
        return rows

    def _unconfirmed(self) -> bool:
        return bool(self._durable) or self._queue.busy

    def _commit(self, *, again: bool = False) -> None:
        """Confirm what became durable; ``again``: the newest position in any case."""
        with self._lock:
            fresh, self._durable = self._durable, {}
        self._confirmed.update(fresh)
        if fresh:
            failpoints.hit("source.confirm.before")
        for lane, position in (self._confirmed if again else fresh).items():
            self._task.commit(lane, position)
        if again and not self._confirmed:
            self._task.commit(Lane.STREAM, {})  # nothing is durable yet, but the server waits

    def _drain(self, writer: threading.Thread) -> None:
        self._queue.close()
        if writer.ident is not None:
            writer.join()

    def _append_all(self) -> None:
        """Thread B."""
        try:
            upkeep_at = time.monotonic() + UPKEEP_S
            while not self._queue.ended:
                batch = self._queue.get(max(0.0, upkeep_at - time.monotonic()))
                if time.monotonic() >= upkeep_at:
                    self._upkeep()
                    upkeep_at = time.monotonic() + UPKEEP_S
                if batch is None:
                    continue
                if not self._append(batch):
                    break
                self._queue.done()
        except BaseException as error:  # noqa: BLE001 - thread A raises it
            self._failure = error
            self._queue.wake()

    def _append(self, batch: Batch) -> bool:
        """Store one batch; False when there is no space and the loop is to end."""
        backoff = Backoff()
        while True:
            began = time.monotonic()
            try:
                nbytes = self._log.append(batch)
                break
            except LogFull as error:
                self._count.append_failures += 1
                delay_s = backoff.next_s()
                log.warning("no space for the log, next attempt in %.1f s: %s", delay_s, error)
                if self._queue.wait_until_closed(delay_s, self._stopping):
                    return False
        count = self._count
        took_s = time.monotonic() - began
        count.append_s += took_s
        count.append_max_s = max(count.append_max_s, took_s)
        count.appends += 1
        rows = rows_of(batch)
        if rows:
            count.transactions.note(rows)
        count.written_bytes += nbytes
        self._events.appended(batch, nbytes)
        with self._lock:
            self._durable[batch.lane] = batch.position
        return True

    def _measure(self) -> None:
        now = time.monotonic()
        if now - self._measured_at < MEASURE_S:
            return
        self._measured_at = now
        self._events.measured({**self._task.metrics(), **self.metrics()})

    def metrics(self) -> dict[str, float]:
        """The loop's own gauges and counters, by metric name."""
        count = self._count
        errors = ErrorCounters() if self._chain is None else self._chain.operator.count
        attempts = count.appends + count.append_failures
        return {
            **errors.metrics(),
            names.SOURCE_RECORD_POLL_TOTAL: count.polls.total,
            names.SOURCE_RECORD_WRITE_TOTAL: count.transactions.total,
            names.SOURCE_RECORD_ACTIVE_COUNT: self._queue.records,
            names.SOURCE_RECORD_ACTIVE_COUNT_MAX: self._queue.active.most,
            names.SOURCE_RECORD_ACTIVE_COUNT_AVG: self._queue.active.mean,
            names.TRANSACTION_SIZE_MIN: count.transactions.least,
            names.TRANSACTION_SIZE_MAX: count.transactions.most,
            names.TRANSACTION_SIZE_AVG: count.transactions.mean,
            names.POLL_BATCH_MAX_TIME_MS: count.poll_max_s * 1e3,
            names.POLL_BATCH_AVG_TIME_MS: count.poll_s * 1e3 / max(count.polls.count, 1),
            names.BATCH_SIZE_MAX: count.polls.most,
            names.BATCH_SIZE_AVG: count.polls.mean,
            names.OFFSET_COMMIT_MAX_TIME_MS: count.append_max_s * 1e3,
            names.OFFSET_COMMIT_AVG_TIME_MS: count.append_s * 1e3 / max(count.appends, 1),
            names.OFFSET_COMMIT_FAILURE_PERCENTAGE: count.append_failures / max(attempts, 1),
            names.OFFSET_COMMIT_SUCCESS_PERCENTAGE: count.appends / max(attempts, 1),
            names.JOURNAL_WRITTEN_BYTES: count.written_bytes,
            names.JOURNAL_DROPPED_RECORDS: self._log.dropped_rows,
        }


class _Queue:
    """Batches on their way to the log. A batch counts until it is durable (``done``)."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._items: deque[Batch] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._sizes: deque[tuple[int, int]] = deque()
        self.records = self.nbytes = 0
        self.active = Spread()  # records, at every change

    @property
    def busy(self) -> bool:
        return bool(self._sizes)

    def put(self, batch: Batch) -> None:
        """Never refuses: one poll may overshoot the limits, the next one waits."""
        rows, nbytes = rows_of(batch), _nbytes(batch)
        with self._changed:
            self._items.append(batch)
            self._sizes.append((rows, nbytes))
            self.records += rows
            self.nbytes += nbytes
            self.active.note(self.records)
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Closed, and nothing left to take."""
        with self._changed:
            return self._closed and not self._items

    def get(self, timeout_s: float) -> Batch | None:
        """The next batch; None when there is none for ``timeout_s``, or none to come."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout_s)
            return self._items.popleft() if self._items else None

    def done(self) -> None:
        with self._changed:
            rows, nbytes = self._sizes.popleft()
            self.records -= rows
            self.nbytes -= nbytes
            self.active.note(self.records)
            self._changed.notify_all()

    def wait_for_room(
        self, timeout_s: float, stopping: threading.Event, *, empty: bool = False
    ) -> bool:
        """Whether there is room; with ``empty``, whether all that was put is durable."""

        def ready() -> bool:
            return self._has_room() and not (empty and self._sizes)

        with self._changed:
            self._changed.wait_for(lambda: ready() or stopping.is_set(), timeout_s)
            return ready()

    def _has_room(self) -> bool:
        return self.records < self._limits.records and self.nbytes < self._limits.nbytes

    def wait_until_closed(self, timeout_s: float, stopping: threading.Event) -> bool:
        """Sleep; True as soon as there is no point in waiting on."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or stopping.is_set(), timeout_s)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _transformed(batch: Batch, chain: Chain) -> Batch:
    block = None if batch.block is None else chain.decoded(batch.block)
    return batch if block is batch.block else replace(batch, block=block)


def _is_retriable(error: BaseException) -> bool:
    return isinstance(error, CdcError) and error.retriable


def _nbytes(batch: Batch) -> int:
    """What a batch holds in memory, roughly: its fragments, or its encoded form."""
    block = batch.block
    if block is None:
        return 0
    if not isinstance(block, Block):
        return block.nbytes
    columns = (block.keys, block.befores, block.afters)
    return sum(sum(map(len, filter(None, column))) for column in columns)
