"""What every sink promises, tried on each of them."""

from __future__ import annotations

import contextlib
import importlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from cdc.api import SinkTask
from cdc.block import Block
from cdc.config import ConfigDef
from cdc.errors import SinkUnavailable
from schemas import EventSchema
from sinks import SINKS
from tests.blocks import INT32, STRING, Source, optional
from tests.contract.targets import (
    AuditTarget,
    ConsoleTarget,
    FileTarget,
    PostgresTarget,
    ScriptedTarget,
    SearchTarget,
    SqliteTarget,
    State,
    Target,
    replayed,
    started,
)
from tests.fakes import Memory, ScriptedSink

LOGS = ("console", "file", "scripted", "audit-sqlite", "audit-postgres", "audit-parquet")
TABLES = ("sqlite", "postgres", "search", "search-trigram")


@pytest.fixture(params=[*LOGS, *TABLES])
def target(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Target]:
    if request.param == "console":
        made = ConsoleTarget(tmp_path / "stdout", monkeypatch)
        yield made
        made.stdout.close()
    elif request.param == "file":
        yield FileTarget(tmp_path)
    elif request.param == "scripted":
        yield ScriptedTarget()
    elif request.param == "audit-sqlite":
        yield AuditTarget(f"jdbc:sqlite:{tmp_path}/audit.db")
    elif request.param == "audit-postgres":
        yield AuditTarget(request.getfixturevalue("database").dsn, **{"audit.hash.key": "k"})
    elif request.param == "audit-parquet":
        yield AuditTarget(f"parquet:{tmp_path}/audit", **{"audit.parquet.rows": "3"})
    elif request.param == "search":
        yield SearchTarget(tmp_path)
    elif request.param == "search-trigram":
        yield SearchTarget(tmp_path, **{"search.tokenizer": "trigram"})
    elif request.param == "sqlite":
        yield SqliteTarget(tmp_path)
    else:
        yield PostgresTarget(request.getfixturevalue("database"))


def items(shop: Source) -> EventSchema:
    return shop.table("items", id=INT32, note=optional(STRING), big=optional(STRING))


def put_all(task: SinkTask, *blocks: Block) -> None:
    for block in blocks:
        task.put(block)
    task.flush(blocks[-1].offsets[-1] + 1)


def item(id_: int, note: str | None = None, big: str | None = None) -> dict[str, Any]:
    return {"id": id_, "note": note, "big": big}


def only(*rows: dict[str, Any]) -> State:
    return {"items": {row["id"]: row for row in rows}} if rows else {}


# --- rows ---


def test_snapshot_rows_and_changes_arrive(target: Target) -> None:
    shop = Source()
    table = items(shop)
    shop.begin()
    shop.read(table, "first", id=1, note="a", big="x")
    shop.read(table, "last", id=2)
    shop.commit()
    shop.insert(table, id=3, note="c")
    shop.update(table, id=1, note="A", big="x")
    shop.delete(table, id=2)
    task = started(target)
    put_all(task, shop.block())
    task.stop()
    assert target.state() == only(item(1, "A", "x"), item(3, "c"))


def test_unicode_and_awkward_text_arrive_as_they_are(target: Target) -> None:
    shop = Source()
    table = items(shop)
    texts = ["ü€😀", "a\nb\r\tc", "quote \" and ' and \\", "null", "%s %d %% {x} ${topic}", "", " "]
    for i, text in enumerate(texts):
        shop.insert(table, id=i, note=text)
    task = started(target)
    put_all(task, shop.block())
    task.stop()
    assert target.state() == only(*(item(i, text) for i, text in enumerate(texts)))


def test_a_delete_and_an_insert_of_the_same_key_keep_their_order(target: Target) -> None:
    shop = Source()
    table = items(shop)
    shop.insert(table, id=1, note="old")
    shop.insert(table, id=2, note="stays gone")
    shop.begin()
    shop.delete(table, id=1)
    shop.insert(table, id=1, note="new")
    shop.delete(table, id=2)
    shop.commit()
    shop.insert(table, id=3, note="short life")
    shop.delete(table, id=3)
    task = started(target)
    put_all(task, shop.block())
    task.stop()
    assert target.state() == only(item(1, "new"))


def test_a_changed_key_leaves_no_row_behind(target: Target) -> None:
    shop = Source()
    table = items(shop)
    shop.insert(table, id=1, note="a")
    shop.change_key(table, item(1, "a"), item(2, "a"))
    first = shop.block()
    shop.change_key(table, item(2, "a"), item(3, "b"))
    task = started(target)
    put_all(task, first, shop.block())
    task.stop()
    assert target.state() == only(item(3, "b"))


def test_a_truncate_empties_the_table_at_its_place(target: Target) -> None:
    shop = Source()
    table, other = items(shop), shop.table("other", id=INT32)
    shop.insert(table, id=1)
    shop.insert(other, id=1)
    first = shop.block()
    shop.insert(table, id=2)
    shop.truncate(table)
    shop.insert(table, id=3)
    task = started(target)
    put_all(task, first, shop.block())
    task.stop()
    assert target.state() == {"items": {3: item(3)}, "other": {1: {"id": 1}}}


def test_null_is_a_value_and_an_unsent_one_is_not(target: Target) -> None:
    shop = Source()
    table = items(shop)
    shop.insert(table, id=1, note="a", big="long")
    shop.insert(table, id=2, note="b", big="long")
    first = shop.block()
    shop.update(table, id=1, note=None, unchanged=["big"])
    shop.update(table, id=2, note="b", big=None)
    task = started(target)
    put_all(task, first, shop.block())
    task.stop()
    assert target.state() == only(item(1, None, "long"), item(2, "b", None))


def test_unsent_values_survive_within_one_block(target: Target) -> None:
    shop = Source()
    table = items(shop)
    shop.insert(table, id=1, note="a", big="long")
    shop.update(table, id=1, note="b", unchanged=["big"])
    shop.update(table, id=1, unchanged=["big", "note"])
    shop.update(table, id=2, note="never seen before", unchanged=["big"])
    shop.update(table, id=2, note="again", unchanged=["big"])
    task = started(target)
    put_all(task, shop.block())
    task.stop()
    assert target.state() == only(item(1, "b", "long"), item(2, "again"))


def test_messages_are_no_rows(target: Target) -> None:
    shop = Source()
    table = items(shop)
    shop.message("outbox", b"hi")
    shop.insert(table, id=1)
    task = started(target)
    put_all(task, shop.block())
    task.stop()
    assert target.state() == only(item(1))


def test_a_large_block_arrives_whole(target: Target) -> None:
    shop = Source()
    table = items(shop)
    shop.begin()
    for i in range(10_000):
        shop.insert(table, id=i, note=f"n{i}", big="x" * 100)
    shop.commit()
    task = started(target)
    put_all(task, shop.block())
    task.stop()
    state = target.state()["items"]
    assert len(state) == 10_000
    assert state[9_999] == item(9_999, "n9999", "x" * 100)


def test_an_empty_block_and_a_flush_without_rows_are_fine(target: Target) -> None:
    shop = Source()
    task = started(target)
    task.put(shop.block())
    task.flush(0)
    task.flush(17)
    if target.exactly_once:
        assert task.stored_offset() == 17
    task.stop()


def test_a_delete_leaves_a_tombstone_in_a_log(target: Target) -> None:
    if not target.has_tombstones:
        return
    shop = Source()
    table = items(shop)
    shop.delete(table, id=1)
    shop.truncate(table)
    task = started(target)
    put_all(task, shop.block())
    task.stop()
    lines = target.lines()
    assert [line["value"] and line["value"]["op"] for line in lines] == ["d", None, "t"]
    assert [line["key"] for line in lines] == [{"id": 1}, {"id": 1}, None]


# --- offsets, restarts, replays ---


def test_the_offset_is_the_one_of_the_last_flush(target: Target) -> None:
    shop = Source(offset=40)
    table = items(shop)
    task = started(target)
    assert task.stored_offset() is None
    shop.insert(table, id=1)
    put_all(task, shop.block())
    shop.insert(table, id=2)
    task.put(shop.block())
    expected = 41 if target.exactly_once else None
    assert task.stored_offset() == expected
    task.stop()
    again = started(target)
    assert again.stored_offset() == expected
    again.stop()


def test_rows_that_were_not_flushed_are_put_again_without_doubles(target: Target) -> None:
    shop = Source()
    table = items(shop)
    blocks = []
    for i in range(4):
        shop.insert(table, id=i, note="x")
        blocks.append(shop.block())
    task = started(target)
    put_all(task, *blocks[:2])
    task.put(blocks[2])
    task.stop()
    task = started(target)
    offset = task.stored_offset()
    put_all(task, *(blocks[offset:] if offset is not None else blocks[2:]))
    task.stop()
    assert target.state() == only(*(item(i, "x") for i in range(4)))
    if target.is_log and target.exactly_once:
        assert [line["key"]["id"] for line in target.lines()] == [0, 1, 2, 3]


def test_a_block_that_is_partly_stored_is_continued(target: Target) -> None:
    if not target.exactly_once:
        return
    shop = Source()
    table = items(shop)
    for i in range(4):
        shop.insert(table, id=i)
    block = shop.block()
    task = started(target)
    task.put(block.select(range(2)))
    task.flush(2)
    task.stop()
    task = started(target)
    task.put(block)
    task.flush(4)
    task.stop()
    assert target.state() == only(*(item(i) for i in range(4)))
    if target.is_log:
        assert len(target.lines()) == 4


def test_a_replay_ends_in_the_same_state(target: Target) -> None:
    shop = Source()
    table = items(shop)
    shop.insert(table, id=1, note="a", big="long")
    shop.insert(table, id=2)
    shop.update(table, id=1, note="b", unchanged=["big"])
    shop.delete(table, id=2)
    block = shop.block()
    task = started(target)
    put_all(task, block)
    task.stop()
    before = target.state()
    task = started(target)
    task.seek(0, 1)
    if target.exactly_once:
        assert task.stored_offset() == 0
    put_all(task, block)
    task.stop()
    assert target.state() == before == only(item(1, "b", "long"))
    if target.has_tombstones:
        assert len(target.lines()) == 10


def test_seeking_is_done_once_per_epoch(target: Target) -> None:
    if not target.exactly_once:
        return
    shop = Source()
    shop.insert(items(shop), id=1)
    task = started(target)
    put_all(task, shop.block())
    task.seek(0, 3)
    task.flush(1)
    task.seek(0, 3)
    assert task.stored_offset() == 1
    task.stop()
    task = started(target)
    task.seek(0, 2)
    assert task.stored_offset() == 1
    task.seek(0, 4)
    assert task.stored_offset() == 0
    task.stop()


def test_each_journal_has_an_offset_and_an_epoch_of_its_own(target: Target) -> None:
    shop = Source()
    shop.insert(items(shop), id=1)
    task = started(target)
    if not task.turn_to("shop"):
        task.stop()
        return
    put_all(task, shop.block())
    task.turn_to("crm")
    assert task.stored_offset() is None
    task.flush(7)
    task.seek(3, 5)
    task.turn_to("shop")
    assert (task.stored_offset(), task.stored_epoch()) == (1, 0)
    task.stop()
    task = started(target)
    assert task.stored_offset() == 3, "the newest, before it is said which"
    for journal, kept in (("shop", (1, 0)), ("crm", (3, 5)), ("new", (None, 0))):
        task.turn_to(journal, unnamed=True)
        assert (task.stored_offset(), task.stored_epoch()) == kept
    task.stop()


# --- transactions ---


def test_a_transaction_over_two_blocks_shows_whole_or_not_at_all(target: Target) -> None:
    if target.is_log:
        return
    shop = Source()
    table = items(shop)
    shop.insert(table, id=1)
    shop.begin()
    shop.insert(table, id=2)
    first = shop.block()
    shop.insert(table, id=3)
    second = shop.block()
    shop.update(table, id=1, note="end")
    shop.commit()
    third = shop.block()
    task = started(target)
    task.put(first)
    # The first transaction is whole, the second has begun.
    assert target.state() == only(item(1))
    assert task.stored_offset() == 1
    task.put(second)
    assert target.state() == only(item(1))
    task.stop()  # as a crash would: nothing of the second one stays
    task = started(target)
    assert task.stored_offset() == 1
    for block in (first, second, third):
        task.put(block)
    task.flush(4)
    task.stop()
    assert target.state() == only(item(1, "end"), item(2), item(3))


def test_random_histories_with_crashes_equal_the_source(target: Target) -> None:
    randomness = random.Random(target.__class__.__name__)
    shop = Source()
    table, other = items(shop), shop.table("other", key=["id", "k"], id=INT32, k=STRING)
    blocks = [_random_block(randomness, shop, table, other) for _ in range(60)]
    expected = replayed(_all_lines(blocks))
    task, at = started(target), 0
    while at < len(blocks):
        with contextlib.suppress(SinkUnavailable):
            task.put(blocks[at])
        at += 1
        whole = all(t.end_lsn for t in blocks[at - 1].transactions[-1:])
        if whole and randomness.random() < 0.3:
            task.flush(blocks[at - 1].offsets[-1] + 1)
        elif target.exactly_once and randomness.random() < 0.3:
            task.stop()
            task = started(target)
            offset = task.stored_offset() or 0
            at = next((i for i, b in enumerate(blocks) if b.offsets[-1] >= offset), len(blocks))
    task.flush(blocks[-1].offsets[-1] + 1)
    task.stop()
    assert target.state() == expected


def _random_block(
    randomness: random.Random, shop: Source, table: EventSchema, other: EventSchema
) -> Block:
    live: dict[int, None] = shop.__dict__.setdefault("live", {})
    for _ in range(randomness.randint(1, 12)):
        if shop._open is None and randomness.random() < 0.5:
            shop.begin()
        pick = randomness.choice(list(live)) if live else None
        kind = randomness.choice(["insert", "update", "update", "delete", "key", "other"])
        new = randomness.randint(0, 10_000)
        if kind == "other":
            shop.insert(other, id=new, k="k") if new % 2 else shop.delete(other, id=new, k="k")
        elif kind == "insert" or pick is None:
            if new not in live:
                shop.insert(table, **item(new, f"n{new}", f"big{new}"))
                live[new] = None
        elif kind == "update":
            unchanged = ["big"] if randomness.random() < 0.5 else []
            values = {"note": f"u{new}"} | ({} if unchanged else {"big": None})
            shop.update(table, id=pick, unchanged=unchanged, **values)
        elif kind == "delete" or new in live:
            shop.delete(table, id=pick)
            del live[pick]
        else:
            shop.change_key(table, item(pick), item(new, "moved", "big"))
            del live[pick]
            live[new] = None
        if shop._open is not None and randomness.random() < 0.4:
            shop.commit()
    if not shop._rows:
        shop.delete(other, id=-1, k="")
    return shop.block()


def _all_lines(blocks: list[Block]) -> list[dict[str, Any]]:
    memory = Memory()
    sink = ScriptedSink(memory)
    for block in blocks:
        sink.put(block)
    sink.flush(0)
    return [orjson.loads(line) for line in memory.lines]


# --- the table of names ---


@pytest.mark.parametrize("name", SINKS)
def test_every_short_name_leads_to_a_task_and_its_keys(name: str) -> None:
    module_name, _, class_name = SINKS[name].partition(":")
    module = importlib.import_module(module_name)
    assert isinstance(module.CONFIG, ConfigDef)
    assert callable(getattr(module, class_name))
    assert "replay" in (module.__doc__ or "").lower()
