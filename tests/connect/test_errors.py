"""What becomes of one record's error, against Connect's own operator and reporters (§6)."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.converters.factory import make_converter
from cdc.runtime import tolerance
from cdc.runtime.reporters import LogReporter, Queue
from cdc.runtime.tolerance import (
    SKIPPED,
    ErrorCounters,
    Failure,
    NotTolerated,
    Operator,
    Stage,
    Tolerance,
)
from schemas import DataError
from tests.blocks import INT32, Source
from tests.connect.judge import CONNECT, Judge
from tests.connect.seeded import generated
from tests.runtime.steps import Retriable

JSON = CONNECT + "json.JsonConverter"
ERRORS: dict[str, Any] = {
    "retriable": Retriable,
    "data": DataError,
    "other": ValueError,
    "network": OSError,  # which Connect's loop does not try again either
}


class Clock:
    """Stands for ``time``: a wait takes no time, and moves it."""

    def __init__(self) -> None:
        self.now_ms = 0

    def monotonic(self) -> float:
        return self.now_ms / 1000

    def time_ns(self) -> int:
        return 10**18


class Waited(threading.Event):
    """Is never set; notes for how long it was waited."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.delays_ms: list[int] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.delays_ms.append(round(timeout * 1000))
        self.clock.now_ms += round(timeout * 1000)
        return False


class Told:
    """A reporter that counts."""

    def __init__(self) -> None:
        self.count = 0

    def report(self, failure: Failure) -> None:
        self.count += 1

    def flush(self) -> None:
        pass


def one_row() -> Any:
    shop = Source(offset=7)
    shop.insert(shop.table("orders", id=INT32), id=1)
    return shop.block()


def ours(clock: Clock, options: Tolerance, stage: Stage, failures: list[str]) -> dict[str, Any]:
    waited, told, block = Waited(clock), Told(), one_row()
    operator = Operator(options, [told], stopping=waited)
    calls = 0

    def call() -> str:
        nonlocal calls
        calls += 1
        if calls <= len(failures):
            raise ERRORS[failures[calls - 1]]("m")
        return "done"

    found: dict[str, Any] = {}
    try:
        try:
            result: Any = call()
        except Exception as error:  # noqa: BLE001 - what the engine's loops do
            result = operator.recover(call, error, lambda e: Failure(stage, "x", e, block, 0))
        found["result"] = "skipped" if result is SKIPPED else result
    except NotTolerated as error:
        found |= {"result": error.problem, "cause": str(error.__cause__)}
    count = operator.count
    return found | {
        "calls": calls,
        "reported": told.count,
        "delays": waited.delays_ms,
        "total-record-failures": count.failures,
        "total-record-errors": count.errors,
        "total-records-skipped": count.skipped,
        "total-retries": count.retries,
    }


# Below the most there is nothing random: eight attempts, or a deadline, come before.
FAILURES = st.one_of(
    st.integers(0, 8).map(lambda n: ["retriable"] * n),
    st.tuples(st.integers(0, 4), st.sampled_from(list(ERRORS))).map(
        lambda each: ["retriable"] * each[0] + [each[1]]
    ),
)
TIMEOUTS_MS = st.sampled_from([0, -1, 1, 299, 300, 301, 900, 1000, 5000, 60_000])
STAGES = st.sampled_from(["TRANSFORMATION", "KEY_CONVERTER", "VALUE_CONVERTER", "HEADER_CONVERTER"])


def test_an_operation_is_tried_skipped_and_counted_as_connect_does(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    @generated(150)
    @given(FAILURES, TIMEOUTS_MS, st.booleans(), STAGES)
    def check(failures: list[str], timeout_ms: int, tolerate: bool, stage: str) -> None:
        clock = Clock()
        monkeypatch.setattr(tolerance, "time", clock)
        options = Tolerance(timeout_ms, 60_000, tolerate, log_messages=True)
        found = ours(clock, options, Stage[stage], failures)
        theirs = judge.ask(
            "RetryWithToleranceOperator", "errors", about="operator", timeout=timeout_ms,
            most=60_000, tolerance="all" if tolerate else "none", stage=stage,
            failures=[{"kind": kind, "message": "m"} for kind in failures],
        )  # fmt: skip
        last = failures[found["calls"] - 1 : found["calls"]]
        if last == ["retriable"]:  # Connect counts the last failure of such a record twice
            theirs["total-record-failures"] -= 1
        assert found == theirs, (failures, timeout_ms, tolerate)

    check()


@pytest.mark.parametrize("message", ["bad", None])
@pytest.mark.parametrize(
    ("stage", "java_class"),
    [
        ("TRANSFORMATION", CONNECT + "transforms.Cast$Value"),
        ("VALUE_CONVERTER", JSON),
        ("TASK_PUT", CONNECT + "sink.SinkTask"),
    ],
)
def test_headers_and_log_lines_are_connects(
    judge: Judge, stage: str, java_class: str, message: str | None
) -> None:
    block = one_row()
    theirs = judge.ask(
        "DeadLetterQueueReporter", "errors", about="letter", topic="srv.public.orders", offset=7,
        timestamp=block.created_us // 1000, stage=stage,
        **{"class": java_class, "error": {"kind": "data", "message": message}},
    )  # fmt: skip
    failure = Failure(Stage[stage], java_class, DataError(message or ""), block, 0)
    json = make_converter("json", {})
    errors = Queue("dead", "copy", 3, True, json, json).letter("shop", failure).errors
    assert [list(each) for each in errors[:-1]] == theirs["headers"][:-1]
    (name, trace), (their_name, their_trace) = errors[-1], theirs["headers"][-1]
    assert name == their_name
    # Java's frames are its own: the line above them, which tools show, is the same.
    assert trace is not None
    assert trace.splitlines()[0] == their_trace.splitlines()[0]
    lines = [
        LogReporter("copy-3", ErrorCounters(), sink=True, messages=messages).text(failure)
        for messages in (False, True)
    ]
    assert lines == theirs["lines"]
