"""A real worker in a real process, with the counter's plugins, over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cdc.log.reader import JournalReader
from tests.guard import guarded
from tests.plugins import counter
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 120.0


def eventually(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """Ask again until it holds; its value."""
    return wait_for(condition, what, WAIT_S)


def environment(**more: str) -> dict[str, str]:
    path = f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'plugins'}"
    return {**os.environ, "PYTHONPATH": path, **more}


def cdc(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    command = [sys.executable, "-m", "cdc", *map(str, arguments)]
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=WAIT_S, check=False
    )


class Answer:
    def __init__(self, status: int, headers: Any, text: bytes) -> None:
        self.status, self.headers, self.text = status, headers, text.decode()

    @property
    def body(self) -> Any:
        return json.loads(self.text) if self.text else None


class Worker:
    """``cdc run`` in ``folder``; started in the constructor, ready on return."""

    def __init__(self, folder: Path, *files: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "worker.log"
        (self.data / "worker.json").unlink(missing_ok=True)
        arguments = ["run", "--data-dir", self.data, "--listen", "127.0.0.1:0", *files]
        with self.log.open("ab") as log:
            self.process = guarded(
                subprocess.Popen(
                    [sys.executable, "-m", "cdc", *map(str, arguments)],
                    env=environment(),
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                )
            )
        self.url = eventually(self._ready, "the worker to be ready")

    def _ready(self) -> str | None:
        assert self.process.poll() is None, self.log.read_text()
        try:
            url: str = json.loads((self.data / "worker.json").read_text())["url"]
            self.url = url
            return url if self("GET", "/health").status == 200 else None
        except OSError:
            return None

    def __call__(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, kind: str = ""
    ) -> Answer:
        data = raw if body is None else json.dumps(body).encode()
        headers = {"Content-Type": kind or "application/json"} if data is not None else {}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=WAIT_S) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)

    # --- connectors

    def counter(self, name: str = "count", **more: Any) -> dict[str, str]:
        """A source's configuration."""
        return {
            "name": name,
            "connector.class": "counter",
            "topic.prefix": name,
            "confirmed.file": str(self.folder / f"{name}.confirmed"),
            "fail.file": str(self.folder / f"{name}.fail"),
            **{key.replace("_", "."): str(value) for key, value in more.items()},
        }

    def ledger(self, name: str = "ledger", **more: Any) -> dict[str, str]:
        """A sink's configuration."""
        return {
            "name": name,
            "connector.class": "ledger",
            "topic.prefix": "unused",
            "topics.regex": ".*",
            "confirmed.file": "unused",
            "fail.file": str(self.folder / f"{name}.fail"),
            "ledger.file": str(self.folder / name),
            **{key.replace("_", "."): str(value) for key, value in more.items()},
        }

    def create(self, config: dict[str, str]) -> dict[str, Any]:
        answer = self("POST", "/connectors", {"name": config["name"], "config": config})
        assert answer.status == 201, answer.text
        info: dict[str, Any] = answer.body
        return info

    def state(self, name: str) -> tuple[str, str]:
        """The states of the connector and its task."""
        status = self("GET", f"/connectors/{name}/status").body
        tasks = status["tasks"]
        return status["connector"]["state"], tasks[0]["state"] if tasks else ""

    def until(self, name: str, connector: str, task: str) -> None:
        eventually(
            lambda: self.state(name) == (connector, task), f"{name} to be {connector}, {task}"
        )

    def trace(self, name: str) -> str:
        return str(self("GET", f"/connectors/{name}/status").body["tasks"][0].get("trace", ""))

    def pids(self) -> list[int]:
        """The worker's task processes."""
        path = Path(f"/proc/{self.process.pid}/task")
        found: list[int] = []
        for thread in path.iterdir():
            try:
                found += map(int, (thread / "children").read_text().split())
            except FileNotFoundError:
                continue
        return found

    def numbers(self, name: str = "ledger") -> list[int]:
        return counter.numbers(self.folder / name)

    def stored(self, name: str = "count") -> list[int]:
        """The numbers in a source's journal."""
        found: list[int] = []
        with JournalReader(self.data / "journal" / name) as reader:
            while (block := reader.read(len(found))) is not None:
                found += block.lsn
        return found


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
