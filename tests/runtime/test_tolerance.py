"""The operator: every row of the facts sheet's tables of error handling, §6.1, §6.2 and §6.4."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from cdc import metrics as names
from cdc.block import Block
from cdc.errors import ConfigError
from cdc.record import Record, record_text
from cdc.runtime.chain import Chain
from cdc.runtime.reporters import LogReporter
from cdc.runtime.tolerance import (
    SKIPPED,
    ErrorCounters,
    Failure,
    NotTolerated,
    Operator,
    Stage,
    Stopped,
    Tolerance,
    retry_delay_ms,
)
from cdc.runtime.trace import status_trace
from cdc.runtime.withheld import without_values
from cdc.transforms.errors import java_name
from schemas import DataError
from tests.blocks import INT32, STRING, Source, optional
from tests.runtime.steps import Flaky, Retriable, Step

CONVERTERS = (Stage.KEY_CONVERTER, Stage.VALUE_CONVERTER, Stage.HEADER_CONVERTER)


@dataclass
class Noted:
    """A reporter that keeps what it is told."""

    failures: list[Failure] = field(default_factory=list)
    flushed: int = 0

    def report(self, failure: Failure) -> None:
        self.failures.append(failure)

    def flush(self) -> None:
        self.flushed += 1


def one_row() -> Block:
    shop = Source(offset=5)
    orders = shop.table("orders", id=INT32, note=optional(STRING))
    shop.insert(orders, id=1, note="a")
    return shop.block()


def failing(stage: Stage, block: Block | None = None) -> Callable[[Exception], Failure]:
    rows = block or one_row()
    return lambda error: Failure(stage, "org.example.Failing", error, rows, 0)


def run(operator: Operator, call: Callable[[], Any], stage: Stage = Stage.TRANSFORMATION) -> Any:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - what the engine's loops do
        return operator.recover(call, error, failing(stage))


def raising(error: BaseException) -> Callable[[], Any]:
    def call() -> Any:
        raise error

    return call


# --- §6.1: what is tolerated where


@pytest.mark.parametrize("stage", [Stage.TRANSFORMATION, *CONVERTERS], ids=lambda s: s.value)
@pytest.mark.parametrize("error", [DataError("bad"), KeyError("x"), Retriable("later")])
def test_any_error_of_a_transform_or_converter_is_tolerated(stage: Stage, error: Exception) -> None:
    operator = Operator(Tolerance(tolerate=True))
    assert run(operator, raising(error), stage) is SKIPPED


def test_a_row_that_the_sink_reports_is_tolerated() -> None:
    noted = Noted()
    operator = Operator(Tolerance(tolerate=True), [noted])
    operator.reported(failing(Stage.TASK_PUT)(DataError("refused")))
    assert [f.stage for f in noted.failures] == [Stage.TASK_PUT]
    assert operator.count.skipped == 1


def test_a_row_that_the_sink_reports_ends_the_task_without_tolerance() -> None:
    noted = Noted()
    operator = Operator(Tolerance(), [noted])
    with pytest.raises(NotTolerated, match=r"^Tolerance exceeded in error handler"):
        operator.reported(failing(Stage.TASK_PUT)(DataError("refused")))
    assert (len(noted.failures), noted.flushed) == (1, 1)


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), SystemExit()])
def test_what_is_an_error_of_the_machine_is_never_tolerated(error: BaseException) -> None:
    operator = Operator(Tolerance(tolerate=True))
    with pytest.raises(type(error)):
        run(operator, raising(error))
    assert operator.count.skipped == 0


# --- §6.2: options and algorithm


def test_without_a_timeout_nothing_is_tried_again() -> None:
    operator, flaky = Operator(Tolerance(tolerate=True)), Flaky(Retriable("later"), 1)
    assert run(operator, lambda: flaky(None)) is SKIPPED  # type: ignore[arg-type]
    assert flaky.calls == 1


def test_only_a_retriable_error_is_tried_again() -> None:
    operator = Operator(Tolerance(retry_timeout_ms=-1, tolerate=True))
    flaky = Flaky(DataError("bad"), 1)
    assert run(operator, lambda: flaky(None)) is SKIPPED  # type: ignore[arg-type]
    assert flaky.calls == 1


@pytest.mark.parametrize("timeout_ms", [60_000, -1])
def test_a_retriable_error_is_tried_again_until_it_is_mended(timeout_ms: int) -> None:
    operator = Operator(Tolerance(retry_timeout_ms=timeout_ms, retry_delay_max_ms=1))
    flaky = Flaky(Retriable("later"), 3)
    assert run(operator, lambda: flaky(None) or "done") == "done"  # type: ignore[arg-type]
    count = operator.count
    assert (count.failures, count.retries, count.errors, count.skipped) == (3, 3, 0, 0)


@pytest.mark.parametrize("tolerate", [True, False])
def test_a_retriable_error_that_stays_obeys_the_tolerance(tolerate: bool) -> None:
    """As of Connect 4.0; before, such a record was left out in silence."""
    noted = Noted()
    operator = Operator(Tolerance(60, 20, tolerate), [noted])
    began = time.monotonic()
    if tolerate:
        assert run(operator, raising(Retriable("later"))) is SKIPPED
    else:
        with pytest.raises(NotTolerated, match=r"^Tolerance exceeded in error handler"):
            run(operator, raising(Retriable("later")))
    assert time.monotonic() - began >= 0.06
    assert operator.count.retries > 1
    assert len(noted.failures) == 1


@pytest.mark.parametrize(
    ("attempt", "most_ms", "expected"),
    [
        (1, 60_000, 300),
        (2, 60_000, 600),
        (8, 60_000, 38_400),
        (9, 60_000, 30_000),  # 76,800 is above: half of the most, as the draw says
        (1, 299, 149.5),
        (1, 300, 300),
        (200, 60_000, 30_000),
        (1, 0, 0),
    ],
)
def test_delays_double_from_300_ms_and_are_random_above_the_most(
    attempt: int, most_ms: int, expected: float
) -> None:
    assert retry_delay_ms(attempt, most_ms, lambda: 0.5) == expected


def test_a_delay_ends_at_the_deadline() -> None:
    operator = Operator(Tolerance(retry_timeout_ms=50, retry_delay_max_ms=60_000, tolerate=True))
    began = time.monotonic()
    assert run(operator, raising(Retriable("later"))) is SKIPPED
    assert 0.05 <= time.monotonic() - began < 0.25


def test_a_stop_ends_a_delay_and_neither_skips_nor_reports_the_record() -> None:
    stopping, noted = threading.Event(), Noted()
    operator = Operator(Tolerance(-1, 60_000, tolerate=True), [noted], stopping=stopping)
    threading.Timer(0.05, stopping.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        run(operator, raising(Retriable("later")))
    assert time.monotonic() - began < 5
    assert (noted.failures, operator.count.skipped) == ([], 0)


def test_tolerance_none_ends_the_task_with_connects_text_and_the_cause() -> None:
    operator = Operator(Tolerance())
    with pytest.raises(NotTolerated, match=r"^Tolerance exceeded in error handler") as info:
        run(operator, raising(DataError("bad")))
    assert isinstance(info.value.__cause__, DataError)
    assert "org.apache.kafka.connect.errors.DataException: bad" in str(info.value)
    assert not info.value.retriable


@pytest.mark.parametrize("tolerate", [True, False])
def test_reporters_are_told_whatever_the_tolerance_is(tolerate: bool) -> None:
    noted = Noted()
    operator = Operator(Tolerance(tolerate=tolerate), [noted])
    try:
        run(operator, raising(DataError("bad")))
    except NotTolerated:
        assert not tolerate
        assert noted.flushed == 1  # durable before the task ends
    assert len(noted.failures) == 1


# --- in a chain


def chain_of(*steps: Step, operator: Operator | None = None, sink: bool = True) -> Chain:
    return Chain(steps, operator or Operator(), sink=sink)


def test_a_null_result_drops_the_record_and_is_no_error() -> None:
    operator = Operator(Tolerance(tolerate=True))
    assert chain_of(Step(lambda _: None), operator=operator).apply(one_row()) is None
    assert operator.count == ErrorCounters()


def test_a_chain_goes_on_behind_a_step_that_was_tried_again() -> None:
    calls: list[str] = []
    flaky = Flaky(Retriable("later"), 2)

    def last(record: Any) -> Any:
        calls.append("last")
        return record

    operator = Operator(Tolerance(retry_timeout_ms=-1, retry_delay_max_ms=1))
    block = chain_of(Step(flaky), Step(last), operator=operator).apply(one_row())
    assert block is not None
    assert (flaky.calls, calls) == (3, ["last"])


def test_a_bad_record_is_left_out_and_its_neighbours_are_not() -> None:
    shop = Source()
    orders = shop.table("orders", id=INT32)
    for number in range(5):
        shop.insert(orders, id=number)

    def odd(record: Any) -> Any:
        if record.key.get("id") % 2:
            raise DataError("odd")
        return record

    operator = Operator(Tolerance(tolerate=True))
    block = chain_of(Step(odd), operator=operator).apply(shop.block())
    assert block is not None
    assert list(block.offsets) == [0, 2, 4]
    assert (operator.count.errors, operator.count.skipped) == (2, 2)


def test_a_value_that_its_schema_does_not_allow_is_an_error_of_the_converter() -> None:
    noted = Noted()

    def spoil(record: Any) -> Any:
        from dataclasses import replace

        return replace(record, value=object())

    operator = Operator(Tolerance(tolerate=True), [noted])
    assert chain_of(Step(spoil), operator=operator).apply(one_row()) is None
    assert [f.stage for f in noted.failures] == [Stage.VALUE_CONVERTER]


# --- §6.4: the log


def logged(*, sink: bool, messages: bool) -> str:
    noted = Noted()
    operator = Operator(Tolerance(tolerate=True), [noted])
    chain_of(
        Step(Flaky(DataError("bad"), 9), "org.apache.kafka.connect.transforms.Cast$Value"),
        operator=operator, sink=sink,
    ).apply(one_row())  # fmt: skip
    name = "my-sink-0" if sink else "my-src-0"
    return LogReporter(name, ErrorCounters(), sink=sink, messages=messages).text(noted.failures[0])


def test_the_log_line_names_task_stage_and_class() -> None:
    assert logged(sink=True, messages=False) == (
        "Error encountered in task my-sink-0. Executing stage 'TRANSFORMATION' with class"
        " 'org.apache.kafka.connect.transforms.Cast$Value'."
    )


def test_with_messages_a_sinks_line_has_the_records_place_and_never_its_values() -> None:
    text = logged(sink=True, messages=True)
    assert text.endswith(
        "with class 'org.apache.kafka.connect.transforms.Cast$Value', where consumed record is"
        " {topic='srv.public.orders', partition=0, offset=5, timestamp=1700000000123,"
        " timestampType=CreateTime}."
    )


def test_with_messages_a_sources_line_has_the_record() -> None:
    text = logged(sink=False, messages=True)
    assert "where source record is = SourceRecord{sourcePartition={server=srv}, sourceOffset={" in (
        text
    )
    assert "ConnectRecord{topic='srv.public.orders', kafkaPartition=null, key=Struct{id=1}," in text
    assert "after=Struct{id=1,note=a}" in text
    assert text.endswith("}.")


def test_a_record_is_printed_as_java_prints_it() -> None:
    assert record_text(Record("t", 0, None, 1e10, None, {"a": [True, None]}, 5)) == (
        "ConnectRecord{topic='t', kafkaPartition=0, key=1.0E10, keySchema=null,"
        " value={a=[true, null]}, valueSchema=null, timestamp=5,"
        " headers=ConnectHeaders(headers=)}"
    )


def test_every_failure_is_logged_at_level_error_with_its_exception(
    caplog: pytest.LogCaptureFixture,
) -> None:
    count = ErrorCounters()
    reporter = LogReporter("t-0", count, sink=True, messages=False)
    with caplog.at_level(logging.ERROR):
        run(Operator(Tolerance(tolerate=True), [reporter]), raising(DataError("bad")))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], DataError)
    assert count.logged == 1


# --- §7: task-error-metrics


def test_the_counters_have_connects_names_and_meanings() -> None:
    operator = Operator(Tolerance(retry_timeout_ms=40, retry_delay_max_ms=10, tolerate=True))
    before_ms = time.time_ns() // 1_000_000
    run(operator, raising(Retriable("later")))
    run(operator, raising(DataError("bad")))
    values = operator.count.metrics()
    failures, retries = values[names.TOTAL_RECORD_FAILURES], values[names.TOTAL_RETRIES]
    assert failures == retries + 2  # every attempt that failed; the first one of each is no retry
    assert retries >= 1
    assert values[names.TOTAL_RECORD_ERRORS] == values[names.TOTAL_RECORDS_SKIPPED] == 2
    assert values[names.LAST_ERROR_TIMESTAMP] >= before_ms
    assert {name.removeprefix("kafka_connect_task_error_metrics_") for name in values} == {
        "total_record_failures", "total_record_errors", "total_records_skipped", "total_retries",
        "total_errors_logged", "deadletterqueue_produce_requests",
        "deadletterqueue_produce_failures", "last_error_timestamp",
    }  # fmt: skip


# --- values of rows in texts


SECRET = "4711-secret"


def _failures() -> dict[str, Exception]:
    """Of Connect's transforms and of a library, as they are raised."""
    from cdc.transforms.cast import caster
    from schemas import Schema

    found: dict[str, Exception] = {}
    calls: dict[str, Callable[[], Any]] = {
        "cast": lambda: caster(Schema("string"), "int32")(SECRET),
        "library": lambda: int(SECRET),
        "key": lambda: {}[SECRET],
        "json": lambda: orjson.loads(f'{{"a": {SECRET}}}'),
        "utf8": lambda: f"{SECRET}\xff".encode("latin-1").decode(),
        "cause": _caused,
    }
    for name, call in calls.items():
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
            call()
        found[name] = caught.value
    return found


def _caused() -> None:
    try:
        int(SECRET)
    except ValueError as error:
        raise DataError("Invalid value") from error


FAILURES = _failures()


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("messages", [False, True])
def test_no_value_of_a_row_is_logged_or_stands_in_a_trace_unless_it_is_asked_for(
    name: str, messages: bool, caplog: pytest.LogCaptureFixture
) -> None:
    error = FAILURES[name]
    reporter = LogReporter("t-0", ErrorCounters(), sink=True, messages=messages)
    with pytest.raises(NotTolerated) as caught:
        run(Operator(Tolerance(log=True, log_messages=messages), [reporter]), raising(error))
    texts = (status_trace(caught.value), str(caught.value), caplog.text)
    assert f"Caused by: {java_name(error)}" in texts[0]
    assert type(error).__name__ in caplog.text
    quotes = SECRET in status_trace(error)
    for text in (texts[0], caplog.text):
        assert (SECRET in text) == (messages and quotes), text
        # what Python makes of a UnicodeDecodeError without its bytes is no text at all
        assert ("[hidden]" in text) == (not messages and name != "utf8")
    assert SECRET not in texts[1] or messages


def test_a_text_of_connects_keeps_its_shape_without_the_value(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = "Value ([hidden]) was out of range for requested data type"
    with pytest.raises(NotTolerated) as caught:
        run(Operator(Tolerance()), raising(FAILURES["cast"]))
    head = f"Caused by: org.apache.kafka.connect.errors.DataException: {text}"
    assert head in status_trace(caught.value).splitlines()
    assert str(FAILURES["cast"]) == text.replace("[hidden]", SECRET)  # as Connect has it


def test_an_error_that_quotes_nothing_is_shown_as_it_is() -> None:
    for error in (DataError("bad"), ConfigError("no", key="k"), KeyError()):
        assert without_values(error) is error
