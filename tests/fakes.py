"""A sink with an in-memory target and a script of faults.

``Memory`` is the target: it outlives tasks, as a database would. ``ScriptedSink`` is a task
that writes to it, and at chosen calls rejects, fails before or after the write, holds until
it is let go, or is slow::

    memory = Memory()
    sink = ScriptedSink(memory, faults=[Fault("put", at=2, kind="fail_after_write")])
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from cdc.api import SinkContext, SinkTask
from cdc.block import Block
from cdc.converters.json import JsonConverter
from cdc.converters.lines import JsonLines
from cdc.errors import SinkRejected, SinkUnavailable
from cdc.record import from_offset

HOLD_MAX_S = 30.0
Kind = Literal["reject", "fail", "fail_after_write", "crash_after_write", "hold", "slow"]


class Crash(Exception):
    """The process is gone: nothing that the task remembers counts any more."""


@dataclass
class Fault:
    """What goes wrong at the ``at``-th call (from 1) of ``method``, over all tasks."""

    method: Literal["start", "put", "flush"]
    at: int
    kind: Kind
    seconds: float = 0.05
    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


class Memory:
    """A transactional target: lines and an offset that become durable together."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.offset: int | None = None
        self.epoch = 0
        self.calls: dict[str, int] = {}


class ScriptedSink(SinkTask):
    """Keeps the contract but for its faults. With ``keeps_offset=False`` at least once."""

    def __init__(
        self, memory: Memory, faults: Iterable[Fault] = (), *, keeps_offset: bool = True
    ) -> None:
        self.memory, self.faults, self.keeps_offset = memory, list(faults), keeps_offset
        self._render = JsonLines(JsonConverter(False), JsonConverter(False)).render
        self._pending: list[bytes] = []

    def start(self, context: SinkContext) -> None:
        self._call("start", lambda: None)

    def stored_offset(self) -> int | None:
        return self.memory.offset if self.keeps_offset else None

    def put(self, block: Block) -> None:
        rest = from_offset(block, self.stored_offset() or 0)
        lines = self._render(rest) if rest else []
        before = len(self._pending)
        try:
            self._call("put", lambda: self._pending.extend(lines))
        except SinkUnavailable:
            del self._pending[before:]  # all of a block or nothing: it is offered again
            raise

    def flush(self, offset: int) -> None:
        self._call("flush", lambda: self._write(offset))

    def _write(self, offset: int) -> None:
        self.memory.lines += self._pending
        self._pending = []
        self.memory.offset = offset

    def seek(self, offset: int, epoch: int) -> None:
        if epoch > self.memory.epoch:
            self.memory.offset, self.memory.epoch = offset, epoch

    def stop(self) -> None:
        self._pending = []

    def _call(self, method: str, write: object) -> None:
        assert callable(write)
        calls = self.memory.calls[method] = self.memory.calls.get(method, 0) + 1
        fault = next((f for f in self.faults if (f.method, f.at) == (method, calls)), None)
        if fault is None:
            write()
            return
        fault.reached.set()
        if fault.kind == "reject":
            raise SinkRejected("scripted", remedy="Change the script")
        if fault.kind == "fail":
            raise SinkUnavailable("scripted", retry_after_s=fault.seconds)
        if fault.kind == "hold":
            assert fault.go_on.wait(HOLD_MAX_S)
        elif fault.kind == "slow":
            time.sleep(fault.seconds)
        write()
        if fault.kind == "fail_after_write":
            raise SinkUnavailable("scripted, after the write", retry_after_s=fault.seconds)
        if fault.kind == "crash_after_write":
            raise Crash
