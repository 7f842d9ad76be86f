"""The worker of the demo: a real ``cdc run`` in a process of its own, watched from outside.

All that is known of it comes by the ways anybody has: its REST API and metrics, its log,
and its journal's files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from cdc.block import MESSAGE, READ
from cdc.errors import CdcError
from cdc.log.reader import JournalReader
from cdc.lsn import lsn_text
from cdc.runtime.state import DataDir

SOURCE, CONSOLE, COPY = "shop", "console", "copy"
AUDIT, SEARCH = "audit", "search"
START_TIMEOUT_S: Final = 15.0
STOP_TIMEOUT_S: Final = 8.0
REQUEST_TIMEOUT_S: Final = 5.0
RUN_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.05
LOG_TAIL_LINES: Final = 12

_SAMPLE: Final = re.compile(r"^(?P<name>\w+)\{(?P<labels>.*)\} (?P<value>\S+)$")
_STARTED: Final = r"(\S+)-0 started as process (\d+)"


def patience(seconds: float) -> float:
    """How long to wait for what takes less than ``seconds``: longer where others work here too."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class DemoFailed(CdcError):
    """Something the demo promises did not come true."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said."""

    lines: list[str]
    code: int
    seconds: float


class Stage:
    """A folder with connector files, a worker's data and its output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = DataDir(folder / "data")
        self.log_path = folder / "worker.log"
        self.console_path = folder / "console.jsonl"
        self.files: list[Path] = []
        self.connectors: list[str] = []
        self._worker: subprocess.Popen[bytes] | None = None
        self._url = ""
        # Requests stay on this machine, whatever proxy the environment names.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    # --- its life ---------------------------------------------------------------------

    def add(self, name: str, config: Mapping[str, str]) -> None:
        """Write a connector's file, as one would by hand; only we can read it."""
        path = self.folder / f"{name}.json"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"name": name, "config": dict(config)}, file, indent=2)
        self.files.append(path)
        self.connectors.append(name)

    @property
    def sinks(self) -> list[str]:
        """The connectors that are no source."""
        return [name for name in self.connectors if name != SOURCE]

    @property
    def command(self) -> list[str]:
        """The worker's command line."""
        files = [str(path) for path in self.files]
        data = str(self.data.path)
        return [sys.executable, "-m", "cdc", "run", "--data-dir", data,
                "--listen", "127.0.0.1:0", *files]  # fmt: skip

    def start(self) -> None:
        """Start the worker; it is ready on return."""
        with self.log_path.open("ab") as log, self.console_path.open("ab") as console:
            self._worker = subprocess.Popen(
                [*_end_with_parent(), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=log,
                # Ctrl-C in a terminal is for us: we end it in order.
                start_new_session=True,
            )
        self.wait("the worker answers", self._is_ready, START_TIMEOUT_S)

    def _is_ready(self) -> bool:
        announced = self.data.worker()
        if announced is None:
            return False
        self._url = announced["url"]
        with suppress(DemoFailed):
            return bool(self.get("/connectors"))
        return False

    def stop(self) -> None:
        """SIGTERM, then SIGKILL; its task processes end with it."""
        worker, self._worker = self._worker, None
        if worker is None or worker.poll() is not None:
            return
        children = psutil.Process(worker.pid).children(recursive=True)
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(patience(STOP_TIMEOUT_S))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        _, alive = psutil.wait_procs(children, timeout=patience(STOP_TIMEOUT_S))
        for child in alive:
            child.kill()

    @property
    def pid(self) -> int:
        """The worker's process."""
        assert self._worker is not None
        return self._worker.pid

    @property
    def url(self) -> str:
        """Where its REST API is."""
        return self._url

    # --- what it says -----------------------------------------------------------------

    def get(self, path: str) -> Any:
        """One GET; parsed where it is JSON."""
        try:
            with self._opener.open(self._url + path, timeout=patience(REQUEST_TIMEOUT_S)) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise DemoFailed(f"GET {path} was answered with {error.code}") from None
        except OSError as error:
            self._check_process()
            raise DemoFailed(f"the worker does not answer: {error}") from None
        return text if path == "/metrics" else json.loads(text)

    def metrics(self, connector: str) -> dict[str, float]:
        """One connector's samples of ``/metrics``, by name."""
        found = {}
        for line in self.get("/metrics").splitlines():
            match = _SAMPLE.match(line)
            if match and f'connector="{connector}"' in match["labels"]:
                found[match["name"]] = float(match["value"])
        return found

    def position(self) -> int:
        """The LSN up to which the source is in the journal; 0 before there is one."""
        offsets = self.get(f"/connectors/{SOURCE}/offsets")["offsets"]
        return int(offsets[0]["offset"]["lsn"]) if offsets else 0

    def sink_offset(self, sink: str) -> int:
        """The next journal offset a sink takes."""
        offsets = self.get(f"/connectors/{sink}/offsets")["offsets"]
        return int(offsets[0]["offset"]["kafka_offset"]) if offsets else 0

    def journal_end(self) -> int:
        """How many records the journal holds."""
        with JournalReader(self.data.journal(SOURCE)) as reader:
            return reader.bounds()[1]

    def count(self) -> tuple[int, int]:
        """The journal's changes and its messages, by a walk through it."""
        changes = messages = offset = 0
        with JournalReader(self.data.journal(SOURCE)) as reader:
            while (block := reader.read(offset)) is not None:
                said = bytes(block.op).count(MESSAGE)
                messages += said
                changes += len(block) - said
                offset = block.offsets[-1] + 1
        return changes, messages

    def first_committed_since(self, lsn: int) -> int:
        """The offset of the first streamed row that was committed at ``lsn`` or later."""
        offset = 0
        with JournalReader(self.data.journal(SOURCE)) as reader:
            while (block := reader.read(offset)) is not None:
                for row, op in enumerate(block.op):
                    if op == READ:
                        continue
                    if block.transactions[block.transaction[row]].commit_lsn >= lsn:
                        return block.offsets[row]
                offset = block.offsets[-1] + 1
        raise DemoFailed(f"nothing in the journal was committed at {lsn_text(lsn)} or later")

    def pids(self, connector: str) -> list[int]:
        """Every process that the connector's task has had, oldest first; from the log."""
        return [
            int(pid) for name, pid in re.findall(_STARTED, self.log_text()) if name == connector
        ]

    def log_text(self) -> str:
        """The worker's log so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def run(self, *words: str) -> Answer:
        """Run ``cdc`` with these words, in the folder, as somebody at a terminal would."""
        code = str(Path(__file__).parents[2])  # found there even when it is not installed
        paths = os.pathsep.join(filter(None, (code, os.environ.get("PYTHONPATH"))))
        began, timeout_s = time.monotonic(), patience(RUN_TIMEOUT_S)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "cdc", *words],
                cwd=self.folder, env={**os.environ, "PYTHONPATH": paths},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                encoding="utf-8", errors="replace", timeout=timeout_s, check=False,
                start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"cdc {words[0]} did not end within {timeout_s:.0f} s") from None
        return Answer(done.stdout.splitlines(), done.returncode, time.monotonic() - began)

    # --- waiting ----------------------------------------------------------------------

    def check(self) -> None:
        """Raise DemoFailed, with the reason, when the worker or a task of its is down."""
        self._check_process()
        if not self._url:
            return
        for name, entry in self.get("/connectors?expand=status").items():
            status = entry["status"]
            for part in (status["connector"], *status["tasks"]):
                if part["state"] == "FAILED":
                    trace = str(part.get("trace", "")).strip()
                    raise DemoFailed(f"connector {name} has failed: {trace.splitlines()[-1]}")

    def _check_process(self) -> None:
        if self._worker is not None and self._worker.poll() is not None:
            code = self._worker.returncode
            raise DemoFailed(f"the worker ended with exit code {code}:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return "\n".join(self.log_text().splitlines()[-LOG_TAIL_LINES:])

    def wait(self, what: str, ready: Callable[[], bool], timeout_s: float) -> float:
        """Until ``ready``; the seconds it took. Raises DemoFailed with what did not happen."""
        began = time.monotonic()
        checked, timeout_s = began, patience(timeout_s)
        while not ready():
            now = time.monotonic()
            if now - checked >= 1.0 or not self._url:
                self.check()
                checked = now
            if now - began > timeout_s:
                raise DemoFailed(
                    f"this did not come true within {timeout_s:.0f} s: {what}. The worker's log"
                    f" ends with:\n{self._log_tail()}"
                )
            time.sleep(POLL_S)
        return time.monotonic() - began

    def wait_journalled(self, lsn: int, timeout_s: float) -> float:
        """Until all the source committed up to ``lsn`` is in the journal."""
        return self.wait("the source is read", lambda: self.position() >= lsn, timeout_s)

    def wait_stored(self, timeout_s: float) -> float:
        """Until every sink has stored all that is in the journal now."""
        end = self.journal_end()
        return self.wait(
            "the sinks have caught up",
            lambda: all(self.sink_offset(sink) >= end for sink in self.sinks),
            timeout_s,
        )


def _end_with_parent() -> list[str]:
    """A command prefix after which the worker is stopped when we die, even by kill -9."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
