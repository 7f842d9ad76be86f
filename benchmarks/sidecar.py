"""A whole worker as a user starts it: ``cdc run`` with a source and a console sink."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.common import Bench, BenchError, child

READ_BYTES = 1 << 20


class Output:
    """Reads a child's standard output as it comes; ``take(chunk, now)`` gets every piece."""

    def __init__(
        self, process: subprocess.Popen[bytes], take: Callable[[bytes, float], None]
    ) -> None:
        assert process.stdout is not None
        self._fd, self._take = process.stdout.fileno(), take
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while chunk := os.read(self._fd, READ_BYTES):
            self._take(chunk, time.time())

    def join(self) -> None:
        """Wait for its end, once the child has ended."""
        self._thread.join(10)


@contextmanager
def sidecar(
    bench: Bench, source: dict[str, str], take: Callable[[bytes, float], None]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A running worker; what its console sink prints goes to ``take``. Gives its log, too."""
    folder = bench.folder / f"sidecar-{bench.serial()}"
    folder.mkdir()
    connectors = {
        "source": {"name": "source", "connector.class": "postgres", **source},
        "sink": {
            "name": "console",
            "connector.class": "console",
            "topics.regex": ".*",
            "tombstones.on.delete": "false",
        },
    }
    files = []
    for name, config in connectors.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        files.append(str(path))
    command = [
        sys.executable, "-m", "cdc", "run", "--data-dir", str(folder / "data"),
        "--listen", "127.0.0.1:0", *files,
    ]  # fmt: skip
    log = folder / "log"
    with (
        log.open("wb") as errors,
        child(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        output = Output(process, take)
        try:
            yield process, log
        finally:
            process.terminate()
            output.join()


def wait(
    process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool], timeout_s: float
) -> None:
    """Until ``ready``. Raises BenchError with the worker's last words."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise BenchError(f"the worker did not get there within {timeout_s:.0f} s:\n{tail}")
        time.sleep(0.02)
