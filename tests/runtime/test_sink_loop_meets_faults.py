"""The sink loop over a target that fails in every way a script can say, once per run."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest

from cdc.api import Batch, Lane, SinkContext
from cdc.converters.json import JsonConverter
from cdc.converters.lines import JsonLines
from cdc.errors import SinkRejected
from cdc.log.journal import Journal
from cdc.log.reader import JournalReader
from cdc.runtime import sink_loop
from cdc.runtime.offsets import Offsets
from cdc.runtime.retry import Backoff
from cdc.runtime.sink_loop import SinkLoop, SinkSettings
from cdc.runtime.topics import TopicFilter
from tests.blocks import INT64, Source
from tests.fakes import Crash, Fault, Kind, Memory, ScriptedSink
from tests.runtime.loops import Watch, run_in_time

ROWS, ROWS_A_BLOCK = 60, 3
# Every method and kind, at an early call and at a later one; a start is called once.
CASES: list[tuple[Any, Kind, int]] = [
    (method, kind, at)
    for method, calls in (("start", (1,)), ("put", (1, 7)), ("flush", (1, 5)))
    for kind in get_args(Kind)
    for at in calls
]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "j"
    source = Source()
    table = source.table("t", n=INT64, key=["n"])
    with Journal.open(path) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, close=True))
        for number in range(ROWS):
            source.insert(table, n=number)
            if number % ROWS_A_BLOCK == ROWS_A_BLOCK - 1:
                journal.append(Batch(Lane.STREAM, {"next": number}, source.block()))
    return path


@pytest.fixture
def expected(journal: Path) -> list[bytes]:
    render = JsonLines(JsonConverter(False), JsonConverter(False)).render
    lines: list[bytes] = []
    with JournalReader(journal) as reader:
        while (block := reader.read(len(lines))) is not None:
            lines += render(block)
    assert len(lines) == ROWS
    return lines


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_loop, "Backoff", lambda: Backoff(first_s=0.01, most_s=0.02))


def run_until_stored(journal: Path, folder: Path, task: ScriptedSink) -> Watch:
    """One life of a task; what ends it is raised."""
    watch = Watch()
    with JournalReader(journal) as reader, closing(Offsets(folder / "sink.db")) as offsets:
        watch.loop = SinkLoop(
            task,
            SinkContext("scripted", folder),
            {"j": reader},
            offsets,
            topics=TopicFilter(regex=".*"),
            settings=SinkSettings(flush_rows=10),
            events=watch,
        )
        watch.until = lambda: f"stored {ROWS}" in watch.log
        run_in_time(watch.loop)
    assert watch.flag.is_set(), watch.log
    return watch


@pytest.mark.parametrize("keeps_offset", [True, False])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_the_target_holds_what_the_journal_holds(
    tmp_path: Path,
    journal: Path,
    expected: list[bytes],
    case: tuple[Any, Kind, int],
    keeps_offset: bool,
) -> None:
    """Exactly where the target keeps the offset, in order and with repeats where it does not."""
    method, kind, at = case
    memory, fault = Memory(), Fault(method, at, kind, seconds=0.02)
    lives = 0
    if kind == "hold":
        threading.Timer(0.1, fault.go_on.set).start()
    while True:
        lives += 1
        try:
            run_until_stored(
                journal, tmp_path, ScriptedSink(memory, [fault], keeps_offset=keeps_offset)
            )
            break
        except (Crash, SinkRejected):
            assert lives == 1  # the worker starts it again; the script has no second fault
    assert fault.reached.is_set(), "the loop never came to this call"
    assert lives == (2 if kind in ("reject", "crash_after_write") else 1)
    if keeps_offset:
        assert memory.lines == expected
    else:
        assert list(dict.fromkeys(memory.lines)) == expected
        assert len(memory.lines) < 2 * ROWS
