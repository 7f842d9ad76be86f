"""Runs ``cdc capture`` as a process, and looks at what it wrote and left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.fix_postgres import Database
from tests.guard import guarded
from tests.waiting import wait_for

TIMEOUT_S = 60.0
ROOT = Path(__file__).resolve().parent.parent.parent


def command(url: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "cdc", "capture", url, *map(str, arguments)]


def capture(url: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(url, *arguments), capture_output=True, text=True, check=False, cwd=ROOT,
        timeout=TIMEOUT_S, **options,
    )  # fmt: skip


def events_of(url: str, *arguments: str | Path) -> list[dict[str, Any]]:
    """All that is there now, as ``--format record`` has it."""
    done = capture(url, "--until", "current", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


class Running:
    """A capture in the background; use it as a context manager."""

    def __init__(
        self, url: str, *arguments: str | Path, environment: dict[str, str] | None = None
    ) -> None:
        self.process = guarded(subprocess.Popen(
            command(url, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=ROOT, env={**os.environ, **(environment or {})},
        ))  # fmt: skip
        self.stdout = self.stderr = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def end(self, number: int | None = None) -> int:
        """Send a signal, wait, and give the exit code."""
        if number is not None:
            self.process.send_signal(number)
        self.stdout, self.stderr = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode


def lines(path: Path) -> list[dict[str, Any]]:
    """A file's whole lines."""
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.split("\n") if line]


def until(condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> Any:
    """Wait for something to be true; give it."""
    return wait_for(condition, "the condition", timeout_s)


def left_behind(database: Database) -> list[str]:
    """Slots of this database and its publications."""
    rows = database.execute(
        "SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database()"
        " UNION ALL SELECT pubname::text FROM pg_publication"
    )
    return sorted(name for (name,) in rows)


def is_streaming(database: Database) -> bool:
    """Whether a walsender of this database streams."""
    rows = database.execute(
        "SELECT 1 FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid"
        " WHERE s.database = current_database() AND r.state = 'streaming'"
    )
    return bool(rows)
