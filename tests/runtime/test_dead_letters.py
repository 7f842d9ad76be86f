"""Dead letters: facts sheet §6.2 and §6.3, kept in the sink's own store."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from cdc import metrics as names
from cdc.block import Block
from cdc.errors import SinkRejected
from cdc.record import Record
from cdc.runtime.deadletters import DeadLetters
from cdc.runtime.tolerance import NotTolerated
from schemas import DataError, EventSchema
from tests.blocks import INT32, STRING, Source, optional
from tests.fix_postgres import Database
from tests.runtime.sinking import DEAD, Copy
from tests.runtime.steps import Retriable, Step

CAST = "org.apache.kafka.connect.transforms.Cast$Value"
HEADERS = (
    "topic partition offset connector.name task.id stage class.name exception.class.name"
    " exception.message exception.stacktrace"
).split()


class Shop:
    """A source with one table, which a test says the rows of."""

    def __init__(self) -> None:
        self.source = Source(context={"run": "7"})
        self.orders: EventSchema = self.source.table(
            "orders", id=INT32, note=optional(STRING), price=optional(INT32)
        )

    def insert(self, *ids: int) -> Block:
        for number in ids:
            self.source.insert(self.orders, id=number, note=f"n{number}", price=number * 10)
        return self.source.block()


@pytest.fixture
def shop() -> Shop:
    return Shop()


def bad(*ids: int, error: Exception | None = None) -> Step:
    """A transform that fails for some rows, deletes included."""

    def call(record: Record) -> Record:
        if record.key.get("id") in ids:
            raise error or DataError("Field price is not what it should be")
        return record

    return Step(call, CAST)


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


def with_check(copy: Copy) -> None:
    """The target takes no row with the price 30 or 50."""
    with closing(sqlite3.connect(copy.target)) as database:
        database.execute(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT, price INTEGER,"
            " CHECK (price NOT IN (30, 50)))"
        )
        database.commit()


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


def test_postgresql_refuses_rows_and_takes_them_once_they_are_mended(
    tmp_path: Path, shop: Shop, database: Database
) -> None:
    """A type error fails a whole statement there, and with it a transaction."""
    database.execute(
        "CREATE TABLE orders (id int PRIMARY KEY, note varchar(3) CHECK (note <> 'n7'), price int)"
    )
    copy = Copy(tmp_path, {**DEAD, "connection.url": database.dsn, "auto.create": "false"})
    shop.source.begin()
    for number in (1, 7, 8):
        shop.source.insert(shop.orders, id=number, note=f"n{number}", price=1)
    shop.source.insert(shop.orders, id=9, note="much too long", price=1)
    shop.source.update(shop.orders, id=1, note="new", price=2)
    shop.source.commit()
    copy.append(shop.source.block())
    copy.run()
    assert database.execute("SELECT id, note, price FROM orders ORDER BY id") == [
        (1, "new", 2), (8, "n8", 1),
    ]  # fmt: skip
    assert [letter.at for letter in copy.letters()] == [1, 3]
    message = copy.letters()[1].error("exception.message") or ""
    assert "the row at offset 3" in message
    assert "much too long" not in message
    database.execute("ALTER TABLE orders DROP CONSTRAINT orders_note_check")
    database.execute("ALTER TABLE orders ALTER note TYPE text")
    copy.ask()
    until_drained(copy)
    assert [row[0] for row in database.execute("SELECT id FROM orders ORDER BY id")] == [1, 7, 8, 9]
    assert copy.letters() == []


# --- cdc dlq … replay


def refused(copy: Copy, shop: Shop) -> None:
    with_check(copy)
    copy.append(shop.insert(1, 2, 3, 4))
    copy.run()


def mend(copy: Copy) -> None:
    with closing(sqlite3.connect(copy.target)) as database:
        database.executescript(
            "CREATE TABLE new (id INTEGER PRIMARY KEY, note TEXT, price INTEGER);"
            "INSERT INTO new SELECT * FROM orders; DROP TABLE orders;"
            "ALTER TABLE new RENAME TO orders"
        )


def drained(copy: Copy) -> Callable[[], bool]:
    return lambda: not any(letter.replay for letter in copy.letters())


def until_drained(copy: Copy) -> None:
    """Run until no letter is asked for any more, stopping from the side."""
    import threading

    ended = threading.Event()

    def watch() -> None:
        done = drained(copy)
        while not ended.wait(0.02):
            if copy.watch.loop is not None and done():
                copy.watch.loop.stop()

    thread = threading.Thread(target=watch)
    copy.watch.loop = None
    thread.start()
    try:
        copy.run(until=lambda: False)
    finally:
        ended.set()
        thread.join()


def test_a_replayed_letter_is_in_the_target_and_the_position_stays(
    tmp_path: Path, shop: Shop
) -> None:
    copy = Copy(tmp_path, DEAD)
    refused(copy, shop)
    mend(copy)
    assert copy.ask() == 1
    until_drained(copy)
    assert [row["id"] for row in copy.rows()] == [1, 2, 3, 4]
    assert copy.letters() == []
    assert copy.position() == 4
    copy.append(shop.insert(6))
    copy.run()
    assert [row["id"] for row in copy.rows()] == [1, 2, 3, 4, 6]


def test_a_letter_that_fails_again_stays_with_a_note(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, DEAD)
    refused(copy, shop)
    copy.ask()
    until_drained(copy)
    (letter,) = copy.letters()
    assert letter.note == "failed again"
    assert letter.failures == 2
    assert not letter.replay


def test_a_letter_whose_row_has_a_newer_state_is_stale(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, DEAD)
    refused(copy, shop)
    shop.source.update(shop.orders, id=3, note="newer", price=31)
    copy.append(shop.source.block())
    copy.run()
    mend(copy)
    copy.ask()
    until_drained(copy)
    (letter,) = copy.letters()
    assert letter.note == "stale: its row has a newer state at offset 4"
    assert copy.rows()[2] == {"id": 3, "note": "newer", "price": 31}
    copy.ask(stale=True)
    until_drained(copy)
    assert copy.rows()[2] == {"id": 3, "note": "n3", "price": 30}
    assert copy.letters() == []


def test_newer_states_that_are_letters_themselves_do_not_count(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, DEAD)
    refused(copy, shop)
    shop.source.update(shop.orders, id=3, note="newer", price=50)
    copy.append(shop.source.block())
    copy.run()
    assert [letter.at for letter in copy.letters()] == [2, 4]
    mend(copy)
    copy.ask()
    until_drained(copy)
    assert copy.rows()[2] == {"id": 3, "note": "newer", "price": 50}
    assert copy.letters() == []


def test_a_letter_is_replayed_through_the_chain_of_now(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, DEAD)
    copy.append(shop.insert(1, 2))
    copy.run([bad(2)])
    copy.ask()
    until_drained(copy)
    assert [row["id"] for row in copy.rows()] == [1, 2]


@pytest.mark.parametrize("point", ["letters.put.before", "letters.put.after", "sql.commit.after"])
@pytest.mark.parametrize("kind", ["sql", "file"])
def test_killed_in_a_replay_a_letter_is_put_exactly_once(
    tmp_path: Path, shop: Shop, point: str, kind: str
) -> None:
    """Into targets that would show a second one: a table without a key, a file of lines."""
    table = {"pk.mode": "none", "insert.mode": "insert", "delete.enabled": "false"}
    lines_ = {"connector.class": "file", "file": str(tmp_path / "out.jsonl")}
    more = table if kind == "sql" else lines_
    config = {**DEAD, **more}
    copy = Copy(tmp_path, config)
    copy.append(shop.insert(1, 2, 3))
    copy.run([bad(2)])
    copy.ask()
    program = (
        "import sys, orjson; from pathlib import Path\n"
        "from tests.runtime.sinking import Copy\n"
        "from tests.runtime.test_dead_letters import until_drained\n"
        "until_drained(Copy(Path(sys.argv[1]), orjson.loads(sys.argv[2])))\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path), orjson.dumps(config).decode()]
    killed = subprocess.run(
        arguments, env={"CDC_FAILPOINTS": f"{point}=kill", "PATH": ""}, check=False
    )
    reached = kind == "sql" or point != "sql.commit.after"
    assert (killed.returncode == -9) is reached
    until_drained(copy)
    assert copy.letters() == []
    if kind == "sql":
        found = [row["id"] for row in copy.rows()]
    else:
        lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
        found = [orjson.loads(line)["key"]["id"] for line in lines]
    assert sorted(found) == [1, 2, 3]


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
