"""Dead letters: facts sheet §6.2 and §6.3, kept in the sink's own store."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest

from cdc import metrics as names
from cdc.errors import SinkRejected
from cdc.record import Record
from cdc.runtime.deadletters import DeadLetters
from cdc.runtime.tolerance import NotTolerated
from schemas import DataError
from tests.runtime.sinking import CAST, DEAD, Copy, Shop, bad, until_drained, with_check
from tests.runtime.steps import Retriable, Step
from tests.runtime.test_chain import chain_config

HEADERS = (
    "topic partition offset connector.name task.id stage class.name exception.class.name"
    " exception.message exception.stacktrace"
).split()


@pytest.fixture
def shop() -> Shop:
    return Shop()


# --- §6.3: what a letter is


def test_a_letter_is_the_consumed_record_with_connects_headers(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, DEAD)
    copy.append(shop.insert(1, 2, 3))
    copy.run([bad(2)])
    (letter,) = copy.letters()
    assert [row["id"] for row in copy.rows()] == [1, 3]
    assert (letter.journal, letter.at, letter.queue) == ("shop", 1, "dead")
    assert letter.topic == "srv.public.orders"
    assert letter.timestamp == 1_700_000_000_123
    assert letter.key is not None
    assert letter.value is not None
    assert orjson.loads(letter.key)["payload"] == {"id": 2}
    value = orjson.loads(letter.value)
    assert value["payload"]["after"] == {"id": 2, "note": "n2", "price": 20}
    assert value["schema"]["name"] == "srv.public.orders.Envelope"
    headers = dict(letter.all_headers())
    assert list(headers) == ["run", *(f"__connect.errors.{name}" for name in HEADERS)]
    trace = headers.pop("__connect.errors.exception.stacktrace")
    assert headers == {
        "run": '"7"',
        "__connect.errors.topic": "srv.public.orders",
        "__connect.errors.partition": "0",
        "__connect.errors.offset": "1",
        "__connect.errors.connector.name": "copy",
        "__connect.errors.task.id": "0",
        "__connect.errors.stage": "TRANSFORMATION",
        "__connect.errors.class.name": CAST,
        "__connect.errors.exception.class.name": "org.apache.kafka.connect.errors.DataException",
        "__connect.errors.exception.message": "Field price is not what it should be",
    }
    assert trace is not None
    assert trace.startswith(
        "org.apache.kafka.connect.errors.DataException: Field price is not what it should be\n\tat "
    )


def test_the_original_bytes_are_the_connectors_converters(tmp_path: Path, shop: Shop) -> None:
    json = "org.apache.kafka.connect.json.JsonConverter"
    copy = Copy(
        tmp_path,
        {
            **DEAD,
            "key.converter": json, "key.converter.schemas.enable": "false",
            "value.converter": json, "value.converter.schemas.enable": "false",
        },
    )  # fmt: skip
    copy.append(shop.insert(1))
    copy.run([bad(1)])
    (letter,) = copy.letters()
    assert letter.key == b'{"id":1}'
    assert orjson.loads(letter.value or b"")["op"] == "c"


def test_without_context_headers_they_are_kept_beside_the_record(
    tmp_path: Path, shop: Shop
) -> None:
    copy = Copy(tmp_path, {**DEAD, "errors.deadletterqueue.context.headers.enable": "false"})
    copy.append(shop.insert(1))
    copy.run([bad(1)])
    (letter,) = copy.letters()
    assert letter.all_headers() == [("run", '"7"')]
    assert letter.error("exception.message") == "Field price is not what it should be"


def test_a_topic_that_cannot_be_renamed_is_an_error_of_each_of_its_records(
    tmp_path: Path, shop: Shop
) -> None:
    route = ("RegexRouter", {"regex": "(.*)", "replacement": "$2"})
    copy = Copy(tmp_path, {**DEAD, **chain_config(route)})
    copy.append(shop.insert(1, 2))
    copy.run()
    assert copy.position() == 2
    assert [letter.error("exception.message") for letter in copy.letters()] == ["No group 2"] * 2


def test_an_error_without_a_message_has_none(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, DEAD)
    copy.append(shop.insert(1))
    copy.run([bad(1, error=DataError())])
    (letter,) = copy.letters()
    assert dict(letter.all_headers())["__connect.errors.exception.message"] is None


def test_a_delete_and_its_tombstone_are_two_records(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, DEAD)
    shop.source.delete(shop.orders, id=1, note="x", price=1)
    copy.append(shop.source.block())
    copy.run([bad(1)])
    assert [(x.at, x.part, x.value is None) for x in copy.letters()] == [
        (0, 0, False), (0, 1, True),
    ]  # fmt: skip


# --- §6.2: when


@pytest.mark.parametrize("queue", [True, False], ids=["with a queue", "without one"])
def test_tolerance_none_fails_the_task_and_the_record_is_a_letter_all_the_same(
    tmp_path: Path, shop: Shop, queue: bool
) -> None:
    more = {**DEAD, "errors.tolerance": "none"} if queue else {}
    copy = Copy(tmp_path, more)
    copy.append(shop.insert(1, 2, 3))
    with pytest.raises(NotTolerated, match="Tolerance exceeded in error handler"):
        copy.run([bad(2)])
    assert copy.rows() == []
    assert copy.position() == 0
    assert len(copy.letters()) == queue


def test_a_letter_whose_row_is_delivered_after_all_is_gone(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, {**DEAD, "errors.tolerance": "none"})
    copy.append(shop.insert(1, 2, 3))
    with pytest.raises(NotTolerated):
        copy.run([bad(2)])
    copy.run([])  # mended: the task goes on from where it was
    assert [row["id"] for row in copy.rows()] == [1, 2, 3]
    assert copy.letters() == []


def test_a_letter_is_durable_before_the_position_passes_it(
    tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Copy(tmp_path, DEAD)
    copy.append(shop.insert(1, 2, 3))

    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(DeadLetters, "put", full)
        with pytest.raises(sqlite3.OperationalError):
            copy.run([bad(2)])
    assert copy.position() == 0
    assert copy.rows() == []
    metrics = copy.delivery.operator.count.metrics()
    assert metrics[names.DEADLETTERQUEUE_PRODUCE_FAILURES] == 1
    copy.run([bad(2)])
    assert len(copy.letters()) == 1


def test_the_same_record_has_one_letter_however_often_it_fails(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, {**DEAD, "errors.tolerance": "none"})
    copy.append(shop.insert(1))
    for _ in range(3):
        with pytest.raises(NotTolerated):
            copy.run([bad(1)])
    (letter,) = copy.letters()
    assert letter.failures == 3


def test_a_stop_in_a_retry_delivers_nothing_and_moves_nothing(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, {**DEAD, "errors.retry.timeout": "-1"})
    copy.append(shop.insert(1, 2))

    def never(_: Record) -> Record:
        copy.watch.loop.stop()
        raise Retriable("later")

    copy.run([Step(never)])
    assert (copy.rows(), copy.letters(), copy.position()) == ([], [], 0)


def test_what_is_skipped_and_lies_dead_is_counted(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, DEAD)
    copy.append(shop.insert(1, 2, 3, 4))
    copy.run([bad(2, 3)])
    values = copy.delivery.operator.count.metrics()
    assert values[names.TOTAL_RECORDS_SKIPPED] == 2
    assert values[names.DEADLETTERQUEUE_PRODUCE_REQUESTS] == 2
    assert len(copy.letters()) == 2


# --- rows that the target refuses: TASK_PUT


def test_the_rows_that_a_target_refuses_are_letters_and_all_others_are_there(
    tmp_path: Path, shop: Shop
) -> None:
    copy = Copy(tmp_path, DEAD)
    with_check(copy)
    copy.append(shop.insert(*range(1, 100)))
    copy.run()
    assert [row["id"] for row in copy.rows()] == [n for n in range(1, 100) if n not in (3, 5)]
    letters = copy.letters()
    assert [letter.at for letter in letters] == [2, 4]
    assert letters[0].error("stage") == "TASK_PUT"
    assert letters[0].error("class.name") == "org.apache.kafka.connect.sink.SinkTask"
    assert orjson.loads(letters[0].key or b"")["payload"] == {"id": 3}


def test_without_a_queue_the_first_refused_row_ends_the_task(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, {"errors.tolerance": "all"})
    with_check(copy)
    copy.append(shop.insert(1, 2, 3))
    with pytest.raises(SinkRejected, match="the row at offset 2"):
        copy.run()
    assert copy.rows() == []


SAID = (
    "Error encountered in task copy-0. Executing stage 'TASK_PUT' with class"
    " 'org.apache.kafka.connect.sink.SinkTask'"
)
WHERE = (
    ", where consumed record is {{topic='srv.public.orders', partition=0, offset={},"
    " timestamp=1700000000123, timestampType=CreateTime}}"
)


@pytest.mark.parametrize("place", ["", WHERE], ids=["without messages", "with messages"])
def test_the_log_alone_is_a_place_to_report_refused_rows_to(
    tmp_path: Path, shop: Shop, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    logging = {
        "errors.tolerance": "all", "errors.log.enable": "true",
        "errors.log.include.messages": "true" if place else "false",
    }  # fmt: skip
    copy = Copy(tmp_path, logging)
    with_check(copy)
    copy.append(shop.insert(*range(1, 10)))
    with caplog.at_level("ERROR"):
        copy.run()
    assert [row["id"] for row in copy.rows()] == [1, 2, 4, 6, 7, 8, 9]
    assert caplog.messages == [f"{SAID}{place.format(offset)}." for offset in (2, 4)]
    assert "the row at offset 2" in caplog.text  # the error, and of the row itself nothing
    assert not any(note in caplog.text for note in ("n3", "n5"))
    assert copy.letters() == []
    values = copy.delivery.operator.count.metrics()
    assert values[names.TOTAL_ERRORS_LOGGED] == values[names.TOTAL_RECORDS_SKIPPED] == 2


# --- records that a converter refuses


CONVERTERS = "org.apache.kafka.connect.converters."


@pytest.mark.parametrize(
    ("part", "stage"),
    [
        ("key", "KEY_CONVERTER"),
        ("value", "VALUE_CONVERTER"),
        ("header", "HEADER_CONVERTER"),
    ],
)
def test_what_a_converter_refuses_is_a_letter_of_its_stage(
    tmp_path: Path, shop: Shop, part: str, stage: str
) -> None:
    """Into a file: a long fits one record, and no other one has any."""
    from dataclasses import replace

    from cdc.record import Header
    from schemas import Schema

    long = Schema("int64")

    def fit(record: Record) -> Record:
        number = record.key.get("id")
        if number == 2:  # this one stays a struct, which the converter does not take
            return replace(record, headers=(Header("h", "x", Schema("string")),))
        fitted = replace(record, headers=(Header("h", number, long),))
        if part == "key":
            fitted = replace(fitted, key_schema=long, key=number)
        elif part == "value":
            fitted = replace(fitted, value_schema=long, value=number)
        return fitted

    out = tmp_path / "out.jsonl"
    copy = Copy(
        tmp_path,
        {
            **DEAD, "connector.class": "file", "file": str(out),
            f"{part}.converter": f"{CONVERTERS}LongConverter",
        },
    )  # fmt: skip
    shop.source.context = {}
    copy.append(shop.insert(1, 2, 3))
    copy.run([Step(fit)])
    assert len(out.read_bytes().splitlines()) == 2
    (letter,) = copy.letters()
    assert letter.at == 1
    assert letter.error("stage") == stage
    assert letter.error("class.name") == f"{CONVERTERS}LongConverter"


def test_a_record_that_a_converter_refuses_ends_a_task_without_tolerance(
    tmp_path: Path, shop: Shop
) -> None:
    copy = Copy(
        tmp_path,
        {
            "connector.class": "file", "file": str(tmp_path / "out.jsonl"),
            "key.converter": f"{CONVERTERS}LongConverter",
        },
    )  # fmt: skip
    copy.append(shop.insert(1))
    with pytest.raises(NotTolerated, match="Tolerance exceeded in error handler"):
        copy.run()


@pytest.mark.parametrize("chain", [True, False], ids=["through a chain", "without one"])
def test_a_delete_that_a_converter_refuses_is_replayed_with_its_tombstone(
    tmp_path: Path, shop: Shop, chain: bool
) -> None:
    out = tmp_path / "out.jsonl"
    config = {**DEAD, "connector.class": "file", "file": str(out)}
    if chain:
        config |= chain_config(("InsertField$Value", {"static.field": "a", "static.value": "b"}))
    copy = Copy(tmp_path, {**config, "key.converter": f"{CONVERTERS}LongConverter"})
    shop.source.delete(shop.orders, id=1, note="x", price=1)
    copy.append(shop.source.block())
    copy.run()
    assert not out.exists() or not out.read_bytes()
    assert {letter.error("stage") for letter in copy.letters()} == {"KEY_CONVERTER"}
    mended = Copy(tmp_path, config)
    mended.ask()
    until_drained(mended)
    written = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    assert [(line["key"], line["value"] is None) for line in written] == [
        ({"id": 1}, False), ({"id": 1}, True),
    ]  # fmt: skip


def test_a_letter_is_the_record_before_the_chain_has_renamed_it(tmp_path: Path, shop: Shop) -> None:
    route = ("RegexRouter", {"regex": ".*", "replacement": "elsewhere"})
    value = ("ReplaceField$Value", {"exclude": "ts_us"})
    copy = Copy(tmp_path, {**DEAD, **chain_config(route, value), "table.name.format": "orders"})
    with_check(copy)
    copy.append(shop.insert(2, 3))
    copy.run()
    (letter,) = copy.letters()
    assert (letter.topic, letter.error("topic")) == ("srv.public.orders",) * 2
    assert letter.error("stage") == "TASK_PUT"
    assert "ts_us" in orjson.loads(letter.value or b"")["payload"]
