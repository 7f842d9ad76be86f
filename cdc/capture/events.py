"""The library: ``with cdc.capture(url) as events: for event in events: …``.

::

    import cdc

    with cdc.capture("postgresql://me@localhost/shop", state="shop-state") as events:
        for event in events:
            print(event.topic, event.key, event.value)
            events.ack(event)

The source runs in threads of its own; the events wait in a bounded queue. With ``state``
what is acknowledged stays so: the next start goes on behind it. Without, all is temporary,
slot and publication too, and nothing needs to be acknowledged.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cdc.api import Batch, Lane, LogState, Position
from cdc.block import Block
from cdc.capture.engine import CHECKPOINT_S, Runner, decoded
from cdc.capture.settings import as_texts, make_settings
from cdc.capture.state import CaptureState, StateFolder, after, positions
from cdc.errors import CdcError, LogError, LogFull
from cdc.event import Event, events

# Decoded rows that wait for the program, beside those in the loop's own queue.
WAITING_ROWS_MAX = 10_000
# Rows that were delivered and not acknowledged. Each costs 20 bytes.
UNACKED_ROWS_MAX = 1_000_000
STOP_TIMEOUT_S = 30.0

Mark = tuple[int, int, int]


def capture(
    url: str,
    properties: Mapping[str, Any] | None = None,
    *,
    state: str | os.PathLike[str] | None = None,
    until: str | None = None,
    password: str | None = None,
) -> Events:
    """Capture a database: its rows first, then its changes, as they are committed.

    ``properties`` are Debezium's, and beat the URL; ``topic.prefix`` defaults to the
    database's name::

        properties = {"table.include.list": "public.orders", "snapshot.mode": "no_data"}
        with cdc.capture(url, properties) as events:
            first = events.poll(timeout_s=5.0)

    ``until="current"`` (or an LSN): the iteration ends when all that is committed now has
    been delivered::

        with cdc.capture(url, until="current") as events:
            rows = [event.value["after"] for event in events]

    ``state``, a folder: slot and publication are permanent, and the next start goes on
    behind the last acknowledged event. Delivery is at least once: an event that was
    acknowledged within the last 0.2 s of a process that was killed comes again, and of the
    snapshot whole chunks do. Raises ConfigError for what is wrong with the arguments; what
    is wrong with the database is raised by ``with``.
    """
    return Events(
        url, as_texts(properties), state=None if state is None else Path(state),
        until=until or "", password=password,
    )  # fmt: skip


class Events:
    """An iterator of :class:`cdc.event.Event`; a context manager; see :func:`capture`.

    ``Event.offset`` counts the rows of this run, and is what ``ack`` goes by. One thread
    at a time may iterate; ``ack`` and ``close`` may come from any.
    """

    def __init__(
        self,
        url: str,
        properties: Mapping[str, str],
        *,
        state: Path | None,
        until: str,
        password: str | None,
    ) -> None:
        self._settings = make_settings(url, properties, password=password, state=state)
        self._state, self._until = state, until
        self._tombstones: bool = self._settings.source["tombstones.on.delete"]
        self._folder: StateFolder | None = None
        self._queue: _Queue | None = None
        self._runner: Runner | None = None
        self._thread: threading.Thread | None = None
        self._current: Iterator[Event] = iter(())
        self._delivered = -1
        self._closed = False

    def __enter__(self) -> Self:
        """Connect, and begin to read. Raises what is wrong with the database."""
        if self._thread is not None:
            raise RuntimeError("a capture can be entered once; make another one")
        if self._state is not None:
            self._folder = StateFolder(self._state)
        try:
            stored = self._folder.load() if self._folder else CaptureState()
            self._queue = queue = _Queue(self._folder, stored)
            self._runner = runner = Runner(
                self._settings, queue, until=self._until, reconnect=self._folder is not None
            )
            self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
            self._thread.start()
            while self._thread.is_alive() and not runner.started.wait(0.05):
                pass
            if runner.error is not None:
                raise runner.error
        except BaseException:
            self.close()
            raise
        return self

    def _run(self) -> None:
        assert self._runner is not None
        assert self._queue is not None
        self._runner.run()
        self._queue.end()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """The next event; waits for it. Ends after ``until``, or after ``close``."""
        found = self.poll(None)
        if found is None:
            raise StopIteration
        return found

    def poll(self, timeout_s: float | None = 0.0) -> Event | None:
        """The next event, or None when none comes within ``timeout_s`` (0: at once).

        None also at the end, which ``ended`` tells apart. ``timeout_s=None`` waits. Raises
        what ended the capture, once all that came before it has been delivered.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            record = next(self._current, None)
            if record is not None:
                self._delivered = record.offset
                return record
            if self._queue is None or self._closed:
                return None
            if self._folder is None:  # nothing can be resumed: what was handed out is done
                self._queue.ack(self._delivered)
            block = self._queue.take(deadline)
            if block is None:
                if self.ended:
                    self._raise()
                return None
            self._current = events(block, tombstones=self._tombstones)

    def _raise(self) -> None:
        error = self._runner.error if self._runner else None
        if error is not None and not self._closed:
            raise error

    @property
    def ended(self) -> bool:
        """Nothing more will come; what is queued is delivered first."""
        return self._closed or self._queue is None or self._queue.ended

    def ack(self, event: Event) -> None:
        """This event, and all before it, need not come again. Cheap; durable within 0.2 s."""
        self.ack_offset(event.offset)

    def ack_offset(self, offset: int) -> None:
        """As ``ack``, by ``Event.offset``: for a program that keeps the number only."""
        if self._queue is not None:
            self._queue.ack(offset)

    def flush(self) -> None:
        """Return when all acknowledgements are on disk. Raises LogError where they cannot be."""
        if self._queue is not None:
            self._queue.flush()

    def close(self) -> None:
        """End: keep what is acknowledged, release the connections. ``with`` does it."""
        if self._closed:
            return
        self._closed = True
        if self._runner is not None and self._queue is not None and self._thread is not None:
            self._queue.close()
            self._runner.stop()
            self._thread.join(STOP_TIMEOUT_S)
            if self._thread.is_alive():  # the server does not answer
                self._runner.interrupt()
                self._thread.join(STOP_TIMEOUT_S)
        if self._folder is not None:
            try:
                self.flush()
            finally:
                self._folder.close()


@dataclass(slots=True)
class _Entry:
    """One batch that was handed over, and the rows of it that are to be acknowledged."""

    batch: Batch
    first: int
    end: int
    commit_lsn: array[int]
    ordinal: array[int]

    def mark(self, row: int) -> Mark:
        """A row's place in the stream: (commit LSN, ordinal, count within the ordinal)."""
        commit, ordinal = self.commit_lsn[row], self.ordinal[row]
        first = row
        while first and (self.commit_lsn[first - 1], self.ordinal[first - 1]) == (commit, ordinal):
            first -= 1
        return commit, ordinal, row - first + 1


class _Queue:
    """A :class:`cdc.capture.engine.Target` that hands blocks to the program.

    Two states: what was handed over (``state``: where a new connection goes on) and what is
    acknowledged (what is saved and confirmed).
    """

    dropped_rows = 0

    def __init__(self, folder: StateFolder | None, stored: CaptureState) -> None:
        self._folder = folder
        self._handed = self._acked = self._saved = stored.lanes
        self._mark = self._saved_mark = stored.acked
        self._skip = stored.acked  # rows up to here were acknowledged by an earlier run
        self._output = stored.output  # of a capture by the command: kept
        self._entries: deque[_Entry] = deque()
        self._blocks: deque[Block] = deque()
        self._waiting = self._next = 0
        self._acked_to = -1
        self._changed = threading.Condition()
        self._saving = threading.Lock()
        self._closed = self.ended = False
        self._saved_at = 0.0
        self._durable: dict[Lane, Position] = {}
        self.appended = 0
        self.blocked: LogFull | None = None

    # --- the source's side ------------------------------------------------------------------

    def state(self) -> LogState:
        """See Target."""
        return self._handed

    def append(self, batch: Batch) -> int:
        """See Target. Waits for the program to take what is there."""
        block = None if batch.block is None else decoded(batch.block)
        if block is not None and batch.lane is Lane.STREAM and self._skip is not None:
            block = self._unacked(block)
        with self._changed:
            self._changed.wait_for(lambda: self._waiting < WAITING_ROWS_MAX or self._closed)
            if self._closed:
                return 0  # neither handed over nor confirmed: it comes again
            rows = 0 if block is None else len(block)
            stream = batch.lane is Lane.STREAM
            entry = _Entry(
                Batch(batch.lane, batch.position, close=batch.close),
                self._next,
                self._next + rows,
                *(_places(block) if block is not None and stream else (array("Q"), array("I"))),
            )
            self._entries.append(entry)
            if block is not None and rows:
                block.offsets = range(entry.first, entry.end)
                self._blocks.append(block)
                self._waiting += rows
            self._next = entry.end
            self._handed = after(self._handed, batch)
            self.appended += 1
            self._pop_acked()
            self._changed.notify_all()
        return rows

    def _unacked(self, block: Block) -> Block:
        """Without the rows that an earlier run acknowledged."""
        assert self._skip is not None
        commits, ordinals = _places(block)
        entry = _Entry(Batch(Lane.STREAM, {}), 0, 0, commits, ordinals)
        for row in range(len(block)):
            if entry.mark(row) > self._skip:
                self._skip = None
                return block.select(range(row, len(block)))
        return block.select(())

    def read(self, offset: int) -> Block | None:  # noqa: ARG002 - see Target
        """See Target."""
        return None

    def tick(self) -> None:
        """See Target."""
        if time.monotonic() - self._saved_at >= CHECKPOINT_S:
            with contextlib.suppress(LogError):  # tried again; flush() tells the program
                self.flush()

    def checkpoint(self) -> None:
        """See Target."""
        self.flush()

    def durable(self) -> Mapping[Lane, Position]:
        """See Target."""
        return self._durable

    def end(self) -> None:
        """Nothing more will be appended."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    # --- the program's side -----------------------------------------------------------------

    def take(self, deadline: float | None) -> Block | None:
        """The next block; None at the deadline, or when there is none to come."""
        with self._changed:
            while not self._blocks and not self.ended and not self._closed:
                left_s = None if deadline is None else deadline - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return None
                self._changed.wait(left_s)
            if not self._blocks or self._closed:
                return None
            unacked = self._blocks[0].offsets[-1] - self._acked_to
            if unacked > UNACKED_ROWS_MAX:
                raise CdcError(
                    f"{unacked} events were delivered and none of them acknowledged",
                    remedy="call events.ack(event), for the last of many at least",
                )
            block = self._blocks.popleft()
            self._waiting -= len(block)
            self._changed.notify_all()
            return block

    def ack(self, offset: int) -> None:
        """All rows up to ``offset`` are done."""
        with self._changed:
            if offset > self._acked_to:
                self._acked_to = offset
                self._pop_acked()

    def _pop_acked(self) -> None:
        entries, acked_to = self._entries, self._acked_to
        while entries and entries[0].end <= acked_to + 1:
            done = entries.popleft()
            self._acked = after(self._acked, done.batch)
            if done.commit_lsn:  # its position says more
                self._mark = None
        if entries and entries[0].first <= acked_to and entries[0].commit_lsn:
            self._mark = entries[0].mark(acked_to - entries[0].first)

    def flush(self) -> None:
        """Save what is acknowledged. Raises LogError."""
        with self._saving:
            self._saved_at = time.monotonic()
            with self._changed:
                acked, mark = self._acked, self._mark
            if acked == self._saved and mark == self._saved_mark:
                return
            if self._folder is not None:
                try:
                    self._folder.save(CaptureState(acked, self._output, mark))
                except OSError as error:
                    raise LogError(
                        f"{self._folder.path} cannot be written: {error.strerror}",
                        remedy="make room: acknowledged events would come again",
                    ) from None
            self._saved, self._saved_mark = acked, mark
            self._durable = positions(acked)

    def close(self) -> None:
        """The program takes nothing any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _places(block: Block) -> tuple[array[int], array[int]]:
    """Commit LSN and ordinal of every row."""
    commits = [t.commit_lsn for t in block.transactions]
    return array("Q", [commits[t] for t in block.transaction]), block.ordinal
