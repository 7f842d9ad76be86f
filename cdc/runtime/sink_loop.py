"""Run one sink task over one or more journals. One thread: read, filter, put, flush, store.

A flush comes when there is nothing more to read, so that latency stays low; under load, by
rows and time. It falls on a transaction's end only, so that a target can apply source
transactions whole; a block that ends inside one is cut where the last ends. Several journals
take turns, from one flush to the next: no row of another comes into a transaction, and none is
begun before its end is stored, so that a source that stops inside one does not hold up others.
The position is stored after the flush, at most every ``offset_interval_s``: after a crash
the rows since then are put again, unless the target keeps the offset itself.

A target out of reach: ``put`` is called again with the same block; a failed ``flush`` or
``start`` starts the task again in place, from the stored position, since nobody knows what
the target kept.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from cdc import failpoints
from cdc import metrics as names
from cdc.api import Reader, SinkContext, SinkTask
from cdc.block import Block
from cdc.errors import OffsetOutOfRange, SinkError, SinkUnavailable
from cdc.log.reader import Gap
from cdc.metrics import Spread
from cdc.record import whole_rows
from cdc.runtime.ahead import Ahead
from cdc.runtime.beginning import Beginning
from cdc.runtime.delivery import Delivery
from cdc.runtime.identities import Identities
from cdc.runtime.observer import Observer
from cdc.runtime.offsets import Offsets
from cdc.runtime.redelivery import Redelivery, newer_in
from cdc.runtime.refill import Refill
from cdc.runtime.retry import Backoff
from cdc.runtime.tolerance import Stopped
from cdc.runtime.topics import TopicFilter, Unmatched
from cdc.runtime.trace import EXITING
from schemas import DataError, SchemaError

if TYPE_CHECKING:
    from cdc.log.reader import JournalReader

log = logging.getLogger(__name__)

MEASURE_S = 1.0


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """``start_from``: snapshot, earliest, latest, or empty for the journal's beginning."""

    start_from: str = ""
    flush_rows: int = 20_000
    flush_interval_s: float = 1.0
    offset_interval_s: float = 0.1
    idle_wait_s: float = 1.0  # a fallback: the writer wakes us
    new_target: bool = False  # the position was chosen before the target ever held one


@dataclass(slots=True)
class _Counters:
    read: int = 0
    puts: Spread = field(default_factory=Spread)  # rows of each
    put_s: float = 0.0
    put_max_s: float = 0.0
    flushes: int = 0
    flush_s: float = 0.0
    flush_max_s: float = 0.0
    flush_failures: int = 0
    retries: int = 0
    dropped: int = 0
    active: Spread = field(default_factory=Spread)  # put and not flushed, at every change


@dataclass(slots=True)
class _Feed:
    """One journal and how far it was put."""

    journal: str
    reader: Reader
    at: int
    ahead: Ahead
    whole: bool = True  # the last row put ends its transaction
    refill: Refill | None = None


class SinkLoop:
    """One run of one sink task. ``run`` once; ``stop`` and ``wake`` from any thread."""

    def __init__(
        self,
        task: SinkTask,
        context: SinkContext,
        readers: Mapping[str, Reader],
        offsets: Offsets,
        *,
        topics: TopicFilter,
        delivery: Delivery | None = None,
        unmatched: Unmatched | None = None,
        settings: SinkSettings | None = None,
        events: Observer | None = None,
    ) -> None:
        self._task, self._context, self._readers = task, context, readers
        self._offsets, self._topics = offsets, topics
        self._unmatched = unmatched or Unmatched(topics, {})
        self._identities = Identities(context.connector, task, readers)
        self._settings = settings = settings or SinkSettings()
        self._beginning = Beginning(
            task, context.connector, readers, self._identities,
            start_from=settings.start_from, new_target=settings.new_target,
        )  # fmt: skip
        self._events = events or Observer()
        self._delivery = delivery or Delivery()
        self._stopping = self._delivery.operator.stopping
        self._letters_asked = True  # before anybody could ask, somebody may have
        self._woken = threading.Event()
        self._feeds: deque[_Feed] = deque()  # the first one's turn it is
        self._unflushed = 0
        self._flushed_at = self._stored_at = self._measured_at = 0.0
        self._stored: dict[str, int] = {}
        self._flushed: dict[str, int] = {}
        self._count = _Counters()
        self._backoff = Backoff()

    def wake(self) -> None:
        """There is something to read."""
        self._woken.set()

    def redeliver(self) -> None:
        """Dead letters are to be put again."""
        self._letters_asked = True
        self._woken.set()

    def stop(self) -> None:
        """End soon: what was put is flushed and its position stored first."""
        self._stopping.set()
        self._woken.set()

    def run(self) -> None:
        """Run until ``stop`` or an error that waiting does not mend, which is raised."""
        while not self._stopping.is_set():
            try:
                self._run_once()
            except SinkError as error:
                if not error.retriable:
                    raise
                if self._stopping.is_set():
                    return
                self._wait_for_target(error, self._backoff)

    def _run_once(self) -> None:
        try:
            self._task.start(self._context)
            self._begin()
            self._events.started()
            self._letters_asked = True
            while not self._stopping.is_set():
                self._turn()
            if self._may_flush():
                self._flush_all()
            self._store()
        except BaseException:
            with suppress(Exception):  # the first error is the one to report
                self._task.stop()
            raise
        self._task.stop()

    def _turn(self) -> None:
        """The next block, of whichever journal; flush and wait where there is none."""
        self._woken.clear()
        if self._letters_asked and self._may_flush():
            self._redeliver()
        advanced = self._advance_one()
        now = time.monotonic()
        if not advanced:
            self._rest(now)
        elif self._may_flush() and self._is_flush_due(0):
            self._flush()
            self._store()
            self._turn_on()
        if now - self._measured_at >= MEASURE_S:
            self._measured_at = now
            self._identities.look()
            if not self._unflushed:
                self._task.tick()
            self._events.measured(self.metrics())

    def _advance_one(self) -> bool:
        """The journal whose turn it is, or else the next one that has a block."""
        for _ in range(len(self._feeds)):
            if self._advance(self._feeds[0]):
                return True
            if not self._may_flush():
                return False
            if len(self._feeds) > 1:
                if self._unflushed:
                    self._flush()
                    self._store_in_time()
                self._turn_on()
        return False

    def _store_in_time(self) -> None:
        """Journals whose blocks come in turns leave no rest, in which positions are stored."""
        if time.monotonic() - self._stored_at >= self._settings.offset_interval_s:
            self._store()

    def _turn_on(self) -> None:
        """It is the next journal's turn."""
        if len(self._feeds) > 1:
            self._feeds.rotate(-1)
            self._turn_to(self._feeds[0])

    def _turn_to(self, feed: _Feed) -> None:
        self._task.turn_to(feed.journal)
        self._identities.adopt(feed.journal)

    def _rest(self, now: float) -> None:
        settings = self._settings
        if self._unflushed and self._may_flush():
            self._flush()
        elif not self._unflushed and now - self._flushed_at >= settings.flush_interval_s:
            self._flush_all()  # rows of other topics passed by: the position moves all the same
        due_s = self._stored_at + settings.offset_interval_s - time.monotonic()
        if self._flushed != self._stored:
            if due_s <= 0:
                self._store()
            else:
                self._woken.wait(due_s)
            return
        self._unmatched.look()
        behind = any(feed.at != self._flushed.get(feed.journal) for feed in self._feeds)
        self._woken.wait(settings.flush_interval_s if behind else settings.idle_wait_s)

    def _is_flush_due(self, rows_to_come: int) -> bool:
        settings = self._settings
        waited_s = time.monotonic() - self._flushed_at
        full = self._unflushed + rows_to_come >= settings.flush_rows
        return full or waited_s >= settings.flush_interval_s

    def _may_flush(self) -> bool:
        return not self._feeds or self._feeds[0].whole

    # --- reading and putting

    def _advance(self, feed: _Feed) -> bool:
        """Put one block of a journal; False when there is none."""
        try:
            block = feed.reader.read(feed.at)
            if block is None and not feed.whole and feed.reader.settled():
                # What ends the last transaction may never come: a chain dropped those rows. A
                # position is stored with its rows, or after them. So if it says that nothing is
                # open, all stored till then is whole; what was stored since, the second read
                # finds; and if that finds nothing, all there was till then has been put.
                block = feed.reader.read(feed.at)
                feed.whole = block is None
        except Gap as gap:
            # journal.full.policy=drop was chosen: go on behind the loss, and say so.
            log.error("journal %s: %s", feed.journal, gap.problem)  # noqa: TRY400 - no bug of ours
            self._count.dropped += gap.end - feed.at
            feed.at = gap.end
            return True
        except OffsetOutOfRange as error:
            raise OffsetOutOfRange(
                f"{self._context.connector}: journal {feed.journal} no longer holds offset"
                f" {feed.at}: {error.problem}",
                remedy="Stop the connector and move its offset (PATCH …/offsets), or delete its"
                " offsets and set start.from=earliest or latest.",
            ) from error
        if block is None:
            return False
        if self._task.whole_transactions or len(self._feeds) > 1:
            there = feed.ahead.whole_rows(block)
            if not there:
                return False
            block = block.select(range(there))
        whole = whole_rows(block)
        if 0 < whole < len(block) and self._is_flush_due(len(block)):
            # A stream may cut every block inside a transaction: flush where one ends.
            if not self._offer(feed, block.select(range(whole))):
                return False
            self._flush()
            self._store()
            if len(self._feeds) > 1:
                self._turn_on()
                return True
            block = block.select(range(whole, len(block)))
        return self._offer(feed, block)

    def _offer(self, feed: _Feed, block: Block) -> bool:
        """Put the wanted rows of a block; False when a stop came before the target took them."""
        wanted = self._topics.apply(block)
        if wanted is not None and feed.refill is not None:
            wanted = feed.refill.apply(wanted)
        self._count.read += len(block)
        if wanted is not None:
            try:
                prepared = self._delivery.prepare(feed.journal, wanted)
                if prepared is not None and not self._put_converted(prepared):
                    return False
            except Stopped:
                return False
            self._delivery.taken(feed.journal, wanted)
        if len(block):
            feed.at = block.offsets[-1] + 1
            feed.whole = whole_rows(block) == len(block)
        return True

    def _put_converted(self, block: Block) -> bool:
        """Put a block; where a sink's converters fail, the rows that they can write."""
        try:
            return self._put(block)
        except (DataError, SchemaError) as error:
            if not self._delivery.converts:
                raise
            rest = self._delivery.without_unconvertible(block, error)
            return rest is None or self._put(rest)

    def _put(self, block: Block) -> bool:
        backoff = Backoff()
        while True:
            began = time.monotonic()
            try:
                self._task.put(block)
                break
            except SinkUnavailable as error:
                self._wait_for_target(error, backoff)
                if self._stopping.is_set():
                    return False
            except Exception as error:
                error.add_note(EXITING)
                raise
        self._events.put(block)
        count, took_s = self._count, time.monotonic() - began
        count.puts.note(len(block))
        count.put_s += took_s
        count.put_max_s = max(count.put_max_s, took_s)
        self._unflushed += len(block)
        count.active.note(self._unflushed)
        return True

    def _wait_for_target(self, error: SinkError, backoff: Backoff) -> None:
        self._count.retries += 1
        delay_s = max(getattr(error, "retry_after_s", 0.0), backoff.next_s())
        log.warning("target out of reach, next attempt in %.1f s: %s", delay_s, error)
        self._events.retrying(error)
        self._stopping.wait(delay_s)

    def _redeliver(self) -> None:
        """Put the dead letters again that somebody asked for; the position stays."""
        self._letters_asked = False
        letters = self._delivery.letters
        if letters is None or not any(letters.is_asked(feed.journal) for feed in self._feeds):
            return
        self._flush_all()
        self._store()
        for _ in range(len(self._feeds)):
            feed = self._feeds[0]
            newer = newer_in(cast("JournalReader", feed.reader))
            kept = self._beginning.offset_for_target(feed.at)
            redelivery = Redelivery(self._task, self._delivery, letters)
            redelivery.run(feed.journal, kept, feed.at, newer)
            self._turn_on()

    # --- flushing and positions

    def _flush_all(self) -> None:
        """The journal whose turn it is, and the others where only rows of no use passed by."""
        for _ in range(len(self._feeds)):
            self._flush()
            self._turn_on()

    def _flush(self) -> None:
        began, feed = time.monotonic(), self._feeds[0]
        if feed.at == self._flushed[feed.journal]:
            self._flushed_at = began
            return
        self._identities.look()
        failpoints.hit("sink.flush.before")
        try:
            self._task.flush(self._beginning.offset_for_target(feed.at))
        except BaseException:
            self._count.flush_failures += 1
            raise
        self._backoff.reset()
        self._flushed, self._unflushed = {**self._flushed, feed.journal: feed.at}, 0
        self._flushed_at = time.monotonic()
        count, took_s = self._count, self._flushed_at - began
        count.active.note(0)
        count.flushes += 1
        count.flush_s += took_s
        count.flush_max_s = max(count.flush_max_s, took_s)

    def _store(self) -> None:
        if self._flushed == self._stored:
            return
        failpoints.hit("sink.store.before")
        self._offsets.store(self._flushed, self._identities.found, self._task.witness())
        failpoints.hit("sink.store.after")
        self._delivery.stored()
        self._stored = self._flushed
        self._stored_at = time.monotonic()
        self._events.stored(self._stored)

    def _begin(self) -> None:
        """Turn to each journal where the sink goes on, or begins."""
        places = self._beginning.find(self._offsets, self._settle_letters)
        stored = self._offsets.load()
        if self._delivery.letters is not None:
            self._delivery.begin(self._readers)
        self._unflushed, self._flushed, self._stored = 0, places, {}
        self._feeds = deque(
            _Feed(journal, reader, places[journal], Ahead(reader))
            for journal, reader in self._readers.items()
        )
        for feed in self._feeds:
            end = stored[feed.journal].replay_end if feed.journal in stored else 0
            if self._task.keeps_rows and feed.at < end:
                feed.refill = Refill(cast("JournalReader", feed.reader), end)
        if self._feeds:
            self._turn_to(self._feeds[0])
        self._flushed_at = time.monotonic()
        self._store()

    def _settle_letters(self, journal: str) -> None:
        letters = self._delivery.letters
        if letters is not None:
            Redelivery(self._task, self._delivery, letters).settle(journal)

    def metrics(self) -> dict[str, float]:
        """The loop's own gauges and counters, by metric name."""
        count, errors = self._count, self._delivery.metrics()
        lags = [feed.reader.bounds()[1] - feed.at for feed in self._feeds]
        attempts = count.flushes + count.flush_failures
        return {
            names.SINK_LAG_RECORDS: max(0, sum(lags)),
            names.SINK_RECORD_LAG_MAX: max(0, *lags) if lags else 0,
            names.PARTITION_COUNT: len(self._feeds),
            names.SINK_RECORD_READ_TOTAL: count.read,
            names.SINK_RECORD_SEND_TOTAL: count.puts.total,
            names.SINK_RECORD_ACTIVE_COUNT: self._unflushed,
            names.SINK_RECORD_ACTIVE_COUNT_MAX: count.active.most,
            names.SINK_RECORD_ACTIVE_COUNT_AVG: count.active.mean,
            names.PUT_BATCH_MAX_TIME_MS: count.put_max_s * 1e3,
            names.PUT_BATCH_AVG_TIME_MS: count.put_s * 1e3 / max(count.puts.count, 1),
            names.BATCH_SIZE_MAX: count.puts.most,
            names.BATCH_SIZE_AVG: count.puts.mean,
            names.OFFSET_COMMIT_SEQ_NO: count.flushes,
            names.OFFSET_COMMIT_COMPLETION_TOTAL: count.flushes,
            names.OFFSET_COMMIT_SKIP_TOTAL: 0,
            names.OFFSET_COMMIT_MAX_TIME_MS: count.flush_max_s * 1e3,
            names.OFFSET_COMMIT_AVG_TIME_MS: count.flush_s * 1e3 / max(count.flushes, 1),
            names.OFFSET_COMMIT_FAILURE_PERCENTAGE: count.flush_failures / max(attempts, 1),
            names.OFFSET_COMMIT_SUCCESS_PERCENTAGE: count.flushes / max(attempts, 1),
            **errors,
            names.TOTAL_RETRIES: count.retries + errors[names.TOTAL_RETRIES],
            names.JOURNAL_DROPPED_RECORDS: count.dropped,
        }
