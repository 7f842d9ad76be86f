"""Engine: runs one source into a target that keeps its own positions.

The loop is the worker's (:class:`cdc.runtime.source_loop.SourceLoop`): one thread polls and
confirms, one appends. What differs is when something counts as durable: a target here makes
many batches durable at once (:meth:`Target.checkpoint`), so :class:`Gate`, which stands
between the loop and the source, passes on only what a checkpoint has covered.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Protocol

from cdc import failpoints
from cdc.api import Batch, Lane, LogState, Position, SourceTask
from cdc.block import Block, EncodedBlock
from cdc.capture.output import Output
from cdc.capture.settings import CaptureSettings
from cdc.capture.state import CaptureState, StateFolder, after, positions
from cdc.converters.lines import JsonLines
from cdc.errors import CdcError, ConfigError, ConnectionLost, LogError, LogFull
from cdc.lsn import lsn_text
from cdc.postgres.linear import LinearPostgresTask
from cdc.runtime.chain import source_chain
from cdc.runtime.retry import Restarts, decide
from cdc.runtime.source_loop import QueueLimits, SourceLoop
from schemas import DataError, SchemaError

log = logging.getLogger(__name__)

CHECKPOINT_S = 0.2  # between two checkpoints: each costs two or three fsyncs
WRITING_POLL_S = 0.02  # at the end, until the last batch is written


class Target(Protocol):
    """Where batches go: a :class:`cdc.api.Log` that becomes durable in steps.

    ``appended`` counts the batches taken; ``blocked`` is why the next one cannot be.
    """

    appended: int
    blocked: LogFull | None
    dropped_rows: int

    def state(self) -> LogState:
        """What was handed over so far: where a source goes on."""

    def append(self, batch: Batch) -> int:
        """Take one; return its bytes. From the loop's second thread."""

    def read(self, offset: int) -> Block | None:
        """Nothing is read back from here."""

    def tick(self) -> None:
        """A checkpoint if one is due. From the polling thread, often; must not block."""

    def checkpoint(self) -> None:
        """Make all durable that can be."""

    def durable(self) -> Mapping[Lane, Position]:
        """What may be confirmed to the server."""


class Gate(SourceTask):
    """A :class:`cdc.api.SourceTask` that confirms what the target's checkpoints cover."""

    def __init__(self, task: LinearPostgresTask, target: Target) -> None:
        self._task, self._target = task, target
        self._polled = target.appended
        self.started = threading.Event()
        self.loop: SourceLoop | None = None

    def start(self, state: LogState) -> None:
        """See :class:`cdc.api.SourceTask`."""
        self._task.start(state)
        self.started.set()

    def poll(self, timeout_s: float) -> list[Batch]:
        """See :class:`cdc.api.SourceTask`. Ends the loop once the source has finished."""
        self._target.tick()
        self._confirm()
        if self._task.finished and self.loop is not None:
            if self._target.appended < self._polled:
                time.sleep(min(timeout_s, WRITING_POLL_S))
            else:
                self.loop.stop()
            return []
        batches = self._task.poll(timeout_s)
        self._polled += len(batches)
        return batches

    def commit(self, lane: Lane, position: Position) -> None:  # noqa: ARG002 - see the class
        """See :class:`cdc.api.SourceTask`."""
        self._target.tick()
        self._confirm()

    def _confirm(self) -> None:
        durable = self._target.durable()
        if durable:
            failpoints.hit("capture.confirm.before")
        for lane, position in durable.items():
            # the same once more holds off the server's time-out
            self._task.commit(lane, position)

    def stop(self) -> None:
        """See :class:`cdc.api.SourceTask`."""
        try:
            self._target.checkpoint()
            self._confirm()
        finally:
            self._task.stop()


class Runner:
    """Runs a source until it has finished, ``stop`` or an error. Use ``run`` in a thread.

    ``reconnect``: a lost connection is made again, since the target can go on.
    """

    def __init__(
        self, settings: CaptureSettings, target: Target, *, until: str, reconnect: bool
    ) -> None:
        self._settings, self._target = settings, target
        self._until, self._reconnect = until, reconnect
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._task: LinearPostgresTask | None = None
        self._gate: Gate | None = None
        self.started = threading.Event()  # for the first time
        self.finished = False
        self.error: BaseException | None = None

    def run(self) -> None:
        """Ends in any case; what went wrong is in ``error``."""
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - the thread that waits raises it
            self.error = error

    def _run(self) -> None:
        restarts = Restarts()
        while not self._stopping.is_set():
            before = self._target.state()
            try:
                self._run_once()
            except CdcError as error:
                if self._stopping.is_set() and error.retriable:
                    return  # we cut the connection ourselves
                if self._target.state() != before:
                    restarts.progress()
                delay_s = restarts.next_s(decide(error)) if self._may_retry(error) else None
                if delay_s is None:
                    raise self._with_position(error) from error
                log.warning("%s; connecting again", error)
                self._stopping.wait(delay_s)
            else:
                return

    def _may_retry(self, error: CdcError) -> bool:
        return self._reconnect and self.started.is_set() and error.retriable

    def _run_once(self) -> None:
        task = LinearPostgresTask(
            self._settings.source, temporary=self._settings.temporary, until=self._until
        )
        gate = Gate(task, self._target)
        source = self._settings.source
        chain = source_chain(self._settings.whole, "capture")
        limits = QueueLimits.of(source)
        gate.loop = SourceLoop(gate, self._target, limits=limits, chain=chain)
        gate.started = _Both(self.started)
        with self._lock:
            self._task, self._gate = task, gate
        if self._stopping.is_set():
            return
        try:
            gate.loop.run()
            if self._target.blocked is not None:
                raise LogError(f"{self._target.blocked.problem}; ended before all was written")
        finally:
            self.finished = task.finished
            if task.end_lsn is not None:  # "current" means the first start's
                self._until = lsn_text(task.end_lsn)

    def _with_position(self, error: CdcError) -> CdcError:
        """A lost connection, with how far we came: what a person has to know then."""
        stored = self._target.state().stream_position
        if not isinstance(error, ConnectionLost) or not self.started.is_set():
            return error
        where = lsn_text(stored["lsn"]) if stored else "nothing"
        remedy = "start again: it goes on there"
        if self._settings.temporary:
            remedy = "start again, which begins anew; with --state DIR a capture goes on"
        return ConnectionLost(f"{error.problem}; last LSN written: {where}", remedy=remedy)

    def stop(self) -> None:
        """End in order, soon: what was read is written and confirmed. From any thread."""
        self._stopping.set()
        with self._lock:
            gate = self._gate
        if gate is not None and gate.loop is not None:
            gate.loop.stop()
            if not gate.started.is_set():
                self.interrupt()  # it may wait for the server, and has nothing to lose

    def interrupt(self) -> None:
        """Cut the connections: for a server that does not answer."""
        with self._lock:
            task = self._task
        if task is not None:
            task.interrupt()


class _Both(threading.Event):
    """An event that sets another one as well."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def set(self) -> None:
        super().set()
        self._other.set()


class LineTarget:
    """Renders batches as JSON lines into an output; with a folder, its state is kept."""

    dropped_rows = 0

    def __init__(
        self, lines: JsonLines, output: Output, folder: StateFolder | None, stored: CaptureState
    ) -> None:
        self._lines, self._output, self._folder = lines, output, folder
        self._state = stored.lanes
        self._durable: dict[Lane, Position] = {}
        self._dirty = False
        self.appended = 0
        self.blocked: LogFull | None = None
        self._unsaved = False  # the state cannot be written, and that was logged
        self._checkpoint_at = time.monotonic()
        # held while the output and the state do not agree
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Note where the output begins, before anything is behind that. Raises ConfigError."""
        assert self._folder is not None
        try:
            self._save(self._folder)
        except OSError as error:
            raise ConfigError(
                f"{self._folder.path} cannot be written: {error.strerror}", key="--state"
            ) from None

    def state(self) -> LogState:
        """See Target."""
        return self._state

    def append(self, batch: Batch) -> int:
        """See Target."""
        data = b""
        if batch.block is not None:
            data = self._rendered(decoded(batch.block))
        with self._lock:
            self._write(data)
            self.appended += 1
            failpoints.hit("capture.after_write")
            self._state, self._dirty = after(self._state, batch), True
            if time.monotonic() - self._checkpoint_at >= CHECKPOINT_S:
                self._checkpoint()
        return len(data)

    def _rendered(self, block: Block) -> bytes:
        try:
            return b"".join(self._lines.render(block))
        except (DataError, SchemaError) as error:
            raise ConfigError(
                f"the converters cannot write an event: {error}",
                remedy="Choose others, or transforms that leave what these write",
            ) from error

    def _write(self, data: bytes) -> None:
        self.blocked = None
        try:
            self._output.write(data)
        except LogFull as error:
            self.blocked = error
            raise

    def read(self, offset: int) -> Block | None:  # noqa: ARG002 - see Target
        """See Target."""
        return None

    def tick(self) -> None:
        """See Target."""
        self._output.check_reader()
        due = self._dirty and time.monotonic() - self._checkpoint_at >= CHECKPOINT_S
        if due and self._lock.acquire(blocking=False):
            try:
                self._checkpoint()
            finally:
                self._lock.release()

    def checkpoint(self) -> None:
        """See Target."""
        with self._lock:
            self._checkpoint()

    def _checkpoint(self) -> None:
        self._checkpoint_at = time.monotonic()
        if not self._dirty:
            return
        if self._folder is not None:
            self._output.sync()
            failpoints.hit("capture.after_sync")
            try:
                self._save(self._folder)
            except OSError as error:
                # the lines are written; only their confirmation has to wait
                if not self._unsaved:
                    log.warning("%s cannot be written: %s", self._folder.path, error.strerror)
                self._unsaved = True
                return
            if self._unsaved:
                log.warning("%s can be written again", self._folder.path)
            self._unsaved = False
        self._durable, self._dirty = positions(self._state), False

    def _save(self, folder: StateFolder) -> None:
        output = (self._output.name, self._output.length) if self._output.is_file else None
        folder.save(CaptureState(self._state, output))

    def durable(self) -> Mapping[Lane, Position]:
        """See Target."""
        return self._durable


def decoded(block: Block | EncodedBlock) -> Block:
    """A snapshot's blocks come encoded, from their readers."""
    return block if isinstance(block, Block) else block.decode()
