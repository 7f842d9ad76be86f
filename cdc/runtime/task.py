"""A task's process: ``python -m cdc.runtime.task --messages FD``, started by the worker.

The first line on standard input is the task's specification (configuration never travels
in argv), the lines after it are commands; messages go to the pipe FD. The main thread only
listens, to commands and signals; the loop runs in a thread of its own. Imports are kept
few: this process is what a task costs.
"""

from __future__ import annotations

import gc
import logging
import os
import selectors
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from cdc import metrics as names
from cdc.api import Batch
from cdc.block import Block
from cdc.errors import CdcError, ConfigError, SinkError
from cdc.parent import die_with
from cdc.runtime.channel import Receiver, Sender
from cdc.runtime.observer import Observer, rows_of
from cdc.runtime.retry import decide
from cdc.runtime.runners import Runner, TaskSpec, make_runner
from cdc.runtime.trace import status_trace
from cdc.runtime.withheld import without_values

log = logging.getLogger(__name__)

EXIT_FAILED = 1
MEMORY_EVERY_S = 10.0
COLLECT_EVERY = 50_000  # new objects, about ten blocks of rows
# The context as in Connect's log: [connector|task-0].
LOG_FORMAT = "%(asctime)s %(levelname)s [{}] %(message)s (%(name)s)"


class Reporter(Observer):
    """Both loops' events, as messages to the worker."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._topics: set[str] = set()
        self._schemas: set[str] = set()
        self._memory = 0
        self._memory_at = 0.0
        self._rates = names.Rates()

    def started(self) -> None:
        """The task runs."""
        self._sender.send({"m": "started"})

    def appended(self, batch: Batch, nbytes: int) -> None:  # noqa: ARG002 - the loop counts bytes
        """New rows for sinks; new topics for the worker's register."""
        rows = rows_of(batch)
        if not rows and not batch.close:
            return
        if batch.block is not None:
            self._note_topics(batch.block.schemas)
        self._sender.send({"m": "appended", "rows": rows}, must=False)

    def _note_topics(self, schemas: Any) -> None:
        for schema in schemas:
            if schema.fingerprint not in self._schemas:
                self._schemas.add(schema.fingerprint)
                self.topic(schema.destination)

    def topic(self, topic: str) -> None:
        """A topic this task writes or reads."""
        if topic not in self._topics:
            self._topics.add(topic)
            self._sender.send({"m": "topic", "topic": topic})

    def forget_topics(self) -> None:
        """Tell of every topic again when it comes; from any thread."""
        self._topics.clear()  # in this order: a schema that is known is not looked at
        self._schemas.clear()

    def put(self, block: Block) -> None:
        """Rows were given to the target."""
        self._note_topics(block.schemas)

    def stored(self, positions: Mapping[str, int]) -> None:
        """The sink's positions are durable."""
        self._sender.send({"m": "stored", "positions": dict(positions)}, must=False)

    def retrying(self, error: SinkError) -> None:
        """The target is out of reach."""
        self._sender.send({"m": "retrying", "error": str(error)}, must=False)

    def noted(self, text: str) -> None:
        """What the status of the running task says."""
        self._sender.send({"m": "note", "text": text})

    def measured(self, values: Mapping[str, float]) -> None:
        """The loop's and the task's metrics, with the process's memory."""
        now = time.monotonic()
        if now - self._memory_at >= MEMORY_EVERY_S:
            self._memory, self._memory_at = _pss_bytes(), now
        rates = self._rates.of(values)
        measured = {**values, **rates, names.TASK_MEMORY_BYTES: self._memory}
        self._sender.send({"m": "metrics", "values": measured}, must=False)


def _pss_bytes() -> int:
    """This process's memory, shared pages divided among their users; 0 where unknown."""
    try:
        with open("/proc/self/smaps_rollup", "rb") as file:  # noqa: PTH123 - proc has no path
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


class Child:
    """The process: one runner in a thread, and the ear for commands and signals."""

    def __init__(self, spec: TaskSpec, commands: Receiver, sender: Sender) -> None:
        self._commands, self._sender = commands, sender
        self._runner: Runner | None = None
        self._spec = spec
        self._stopping = False
        self._code = EXIT_FAILED
        self._reporter = Reporter(sender)
        self._ended, self._end = os.pipe()
        self._signalled, self._signal = os.pipe()
        os.set_blocking(self._signal, False)

    def main(self) -> int:
        """Run until the task ends, or the worker does."""
        # The handler may interrupt this thread while it holds one of the loop's locks.
        signal.signal(signal.SIGTERM, lambda *_: self._note_signal())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
        threading.Thread(target=self._run, name="task", daemon=True).start()
        with selectors.DefaultSelector() as selector:
            selector.register(self._commands.fd, selectors.EVENT_READ)
            selector.register(self._ended, selectors.EVENT_READ)
            selector.register(self._signalled, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if self._ended in ready:
                    return self._code
                if self._signalled in ready:
                    os.read(self._signalled, 4096)
                    self._stop()
                if self._commands.fd in ready:
                    self._obey()

    def _obey(self) -> None:
        for command in self._commands.receive():
            if command["c"] == "stop":
                self._stop()
            elif command["c"] == "forget":
                self._reporter.forget_topics()
            elif self._runner is not None:
                self._runner.obey(command)
        if self._commands.ended:
            os._exit(EXIT_FAILED)  # the worker is gone; what is not durable is done again

    def _note_signal(self) -> None:
        with suppress(BlockingIOError):  # full: it is noted
            os.write(self._signal, b"x")

    def _stop(self) -> None:
        self._stopping = True
        if self._runner is not None:
            self._runner.stop()

    def _run(self) -> None:
        try:
            self._runner = runner = make_runner(self._spec, self._reporter)
            if self._stopping:  # asked before there was anybody to ask
                runner.stop()
            spare_collector()
            runner.run()
            self._sender.send({"m": "stopped"})
            self._code = 0
        except BaseException as raised:  # noqa: BLE001 - it is the worker who decides
            error = raised
            if self._spec.config.get("errors.log.include.messages", "").lower() != "true":
                error = without_values(raised, of_record=False)
            self._sender.send(
                {
                    "m": "failed",
                    "action": decide(error).value,
                    "line": one_line(error) if isinstance(error, CdcError) else "",
                    "trace": status_trace(error, unresolved(self._spec)),
                }
            )
        finally:
            os.write(self._end, b"x")


def unresolved(spec: TaskSpec) -> tuple[str, ...]:
    """Placeholders that stand for themselves, since nothing answered: a failure's likely cause."""
    from cdc.providers import Providers

    try:
        return Providers.from_worker(spec.worker).resolve(spec.config).warnings
    except ConfigError:
        return ()  # the failure itself


def one_line(error: BaseException) -> str:
    """For the log: an error that was foreseen needs no trace there."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def spare_collector() -> None:
    """Let the cycle collector look at rows rarely: they come by the thousand and hold no cycles.

    With Python's thresholds it runs every few hundred rows, for about a tenth of a source
    task's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, 20, 50)


def configure_logging(spec: TaskSpec) -> None:
    """To standard error, which is the worker's."""
    name = f"{spec.connector}|task-{spec.task}".replace("%", "%%")
    logging.basicConfig(level=spec.log_level, format=LOG_FORMAT.format(name), stream=sys.stderr)


def main() -> int:
    """The process's entry."""
    sender = Sender(int(sys.argv[sys.argv.index("--messages") + 1]))
    commands = Receiver(0)
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        first: list[dict[str, Any]] = []
        while not first:
            selector.select()
            first = commands.receive()
            if commands.ended:
                return EXIT_FAILED
    spec = TaskSpec(**first[0])
    die_with(spec.parent)
    configure_logging(spec)
    child = Child(spec, commands, sender)
    if any(command["c"] == "stop" for command in first[1:]):
        return 0
    return child.main()


if __name__ == "__main__":
    sys.exit(main())
