"""What a config provider gave is in the task that needs it, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.sinking import DEAD
from tests.runtime.test_chain import chain_config
from tests.runtime.workers import Worker, cdc, eventually

SECRET = "geheim-7c1f"
PLACEHOLDER = "${env:CDC_TEST_SECRET}"
FAILING = chain_config(("ExtractField$Value", {"field": PLACEHOLDER}))


@pytest.fixture
def worker(start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setenv("CDC_TEST_SECRET", SECRET)
    return start()


def everything(worker: Worker, *names: str) -> dict[str, str]:
    """All that a worker shows and keeps, by where it stands."""
    paths = ["", "/health", "/connectors?expand=info&expand=status", "/metrics"]
    for name in names:
        below = ("", "/config", "/status", "/tasks", "/tasks/0/status", "/offsets", "/topics")
        paths += [f"/connectors/{name}{path}" for path in below]
    found = {path: worker("GET", path).text for path in paths}
    for name in names:
        for command in (["dlq", name, "list", "--json"], ["status", "--json"], ["status"]):
            done = cdc(*command, "--data-dir", worker.data)
            found[" ".join(command)] = done.stdout + done.stderr
    for path in (worker.log, *worker.data.rglob("*")):
        if path.is_file():
            found[str(path)] = path.read_bytes().decode("latin-1")
    for pid in (worker.process.pid, *worker.pids()):
        command_line = Path(f"/proc/{pid}/cmdline")
        found[str(command_line)] = command_line.read_bytes().decode("latin-1")
    return found


def test_a_resolved_placeholder_is_in_nothing_that_is_shown_or_kept(worker: Worker) -> None:
    worker.create(worker.counter(rows=20, snapshot_rows=10))
    # Its transform fails with a text that quotes the option; its letters hold that text.
    ledger = {**worker.ledger(), **DEAD, "topics.regex": "count.*", "errors.log.enable": "true"}
    worker.create(ledger | FAILING)
    # Its target is out of reach, and the driver's error quotes what it tried.
    copy = {
        "name": "copy", "connector.class": "sql", "topics.regex": "count.*",
        "connection.url": f"jdbc:postgresql://127.0.0.1:1/x?user=u&password={PLACEHOLDER}",
        "connection.password": PLACEHOLDER, "connection.user": PLACEHOLDER,
    }  # fmt: skip
    worker.create(copy)
    # Refused, with texts that quote values.
    wrong = {"topics.regex": f"({PLACEHOLDER}", "tasks.max": PLACEHOLDER, "transforms": PLACEHOLDER}
    refused = worker("POST", "/connectors", {"name": "w", "config": worker.ledger("w") | wrong})
    assert refused.status == 400

    eventually(lambda: worker.trace("copy"), "the target's error")
    letters = 'cdc_sink_dead_letters{connector="ledger",task="0"} 20'
    eventually(lambda: letters in worker("GET", "/metrics").text, "the letters")
    found = everything(worker, "count", "ledger", "copy") | {"refused": refused.text}
    assert [where for where, text in found.items() if SECRET in text] == []
    assert PLACEHOLDER in found["/connectors/copy/config"]
