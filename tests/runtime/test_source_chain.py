"""A source whose chain fails, inside its loop: what is stored, confirmed, counted and said."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from cdc.connectors import SOURCE_CONFIG
from cdc.log.journal import Journal
from cdc.record import Record
from cdc.runtime.chain import Chain, source_chain
from cdc.runtime.retry import Action, decide
from cdc.runtime.source_loop import SourceLoop
from cdc.runtime.tolerance import NotTolerated
from schemas import DataError
from tests.plugins import counter
from tests.runtime.loops import WAIT_S, Watch, stored_numbers
from tests.runtime.steps import Retriable, Step
from tests.runtime.test_chain import RAW, chain_config

ERRORS = "kafka_connect_task_error_metrics_"
TASK = "kafka_connect_source_task_metrics_source_record_"
NOPE = ("ExtractField$Value", {"field": "nope"})


def configured(*steps: tuple[str, dict[str, str]], **errors: str) -> Chain:
    """The chain of a source named ``count``; ``tolerance=…`` stands for ``errors.tolerance``."""
    keys = {f"errors.{name.replace('_', '.')}": text for name, text in errors.items()}
    chain = source_chain(SOURCE_CONFIG.parse({**RAW, **chain_config(*steps), **keys}), "count")
    assert chain is not None
    return chain


def failing(numbers: Iterable[int], error: Exception, **errors: str) -> Chain:
    """A chain that fails for these numbers, and is otherwise as configured."""

    def call(record: Record) -> Record:
        if record.key.get("n") in numbers:
            raise error
        return record

    return Chain([Step(call)], configured(NOPE, **errors).operator, sink=False)


class Source:
    """A counter of 300 numbers, 100 of them in a snapshot, and its journal."""

    def __init__(self, folder: Path, config: Any) -> None:
        self.journal, self.config = folder / "journal", config
        self.loop: SourceLoop
        self.position: Any = None
        self.metrics: dict[str, float] = {}

    def run(self, chain: Chain | None) -> None:
        """Until all is stored, or an error."""
        with Journal.open(self.journal) as journal:
            watch = Watch()
            task = counter.CounterSourceTask(self.config, "count")
            watch.loop = loop = self.loop = SourceLoop(task, journal, chain=chain, events=watch)
            watch.until = lambda: journal.state().stream_position == {"next": 300}
            try:
                loop.run()
            finally:
                self.position, self.metrics = journal.state().stream_position, loop.metrics()

    @property
    def confirmed(self) -> int:
        return counter.read_confirmed(self.config["confirmed.file"])

    def counted(self, *names: str) -> list[float]:
        return [self.metrics[ERRORS + name] for name in names]


@pytest.fixture
def source(tmp_path: Path, source_config: Callable[..., Any]) -> Source:
    return Source(tmp_path, source_config(rows=300))


def test_a_record_that_fails_is_left_out_and_its_neighbours_are_stored(source: Source) -> None:
    bad = {7, 125, 126, 299}
    source.run(failing(bad, DataError("odd"), tolerance="all"))
    assert stored_numbers(source.journal) == [n for n in range(300) if n not in bad]
    assert (source.position, source.confirmed) == ({"next": 300}, 300)
    counts = "total_record_failures", "total_record_errors", "total_records_skipped"
    assert source.counted(*counts, "total_errors_logged") == [4, 4, 4, 0]
    assert source.counted("last_error_timestamp") > [1.7e12]
    assert source.metrics[TASK + "poll_total"] == 300
    assert source.metrics[TASK + "write_total"] == 296


@pytest.mark.parametrize("messages", [False, True])
def test_a_transform_that_fails_for_every_record_is_logged_and_the_position_moves_on(
    source: Source, caplog: pytest.LogCaptureFixture, messages: bool
) -> None:
    logged = {"log_enable": "true", "log_include_messages": str(messages).lower()}
    with caplog.at_level("ERROR"):
        source.run(configured(NOPE, tolerance="all", **logged))
    assert stored_numbers(source.journal) == []
    assert (source.position, source.confirmed) == ({"next": 300}, 300)
    assert source.counted("total_records_skipped", "total_errors_logged") == [300, 300]
    assert len(caplog.messages) == 300
    said = (
        "Error encountered in task count-0. Executing stage 'TRANSFORMATION' with class"
        " 'org.apache.kafka.connect.transforms.ExtractField$Value'"
    )
    last = caplog.messages[-1]
    if messages:
        place = "SourceRecord{sourcePartition={server=count}, sourceOffset={lsn=299}}"
        assert last.startswith(f"{said}, where source record is = {place} ConnectRecord{{topic=")
        assert "key=Struct{n=299}" in last
    else:
        assert last == f"{said}."
    assert "Unknown field: nope" in caplog.text


def test_without_tolerance_the_task_ends_before_the_batch_that_fails(source: Source) -> None:
    with pytest.raises(NotTolerated, match=r"^Tolerance exceeded in error handler") as caught:
        source.run(failing([125], DataError("odd"), tolerance="none"))
    assert decide(caught.value) is Action.STOP
    assert stored_numbers(source.journal) == list(range(120))  # whole transactions of ten
    assert source.position == {"next": 120}
    assert source.confirmed <= 120
    assert source.counted("total_record_errors", "total_records_skipped") == [1, 0]
    source.run(None)  # mended: it goes on with what it could not store
    assert stored_numbers(source.journal) == list(range(300))
    assert source.confirmed == 300


def test_a_stop_ends_the_wait_for_another_attempt_and_the_batch_is_read_again(
    source: Source,
) -> None:
    failed = threading.Event()

    def never(record: Record) -> Record:
        if record.key.get("n") == 125:
            failed.set()
            raise Retriable("later")
        return record

    operator = configured(NOPE, tolerance="all", retry_timeout="-1").operator
    thread = threading.Thread(
        target=source.run, args=[Chain([Step(never)], operator, sink=False)], daemon=True
    )
    thread.start()
    assert failed.wait(WAIT_S)
    source.loop.stop()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert source.counted("total_record_errors", "total_records_skipped") == [0, 0]
    assert source.position == {"next": 120}
    source.run(None)
    assert stored_numbers(source.journal) == list(range(300))
