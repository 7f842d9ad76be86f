"""Histories, tails and exports of a journal whose source has transforms."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.api import Batch, Lane
from cdc.block import Block
from cdc.errors import ConfigError
from cdc.history import Version, history, row_at
from cdc.history.export import export
from cdc.history.tail import Filter, renderer_of
from cdc.log import Journal, JournalReader
from tests.blocks import INT32, STRING, Source, decimal, optional, unscaled
from tests.history.model import KEYS, Life
from tests.history.test_rows import MEMORY
from tests.runtime.test_chain import AFTER, chain_config, chain_of

INSERT = ("InsertField$Value", {"static.field": "origin", "static.value": "here"})
NO_TOMBSTONES = ("Filter", {"predicate": "dead"})
DEAD = {"dead": {"type": "RecordIsTombstone"}}
PLAIN_KEY = ("ExtractField$Key", {"field": "id"})
NOTE = ("ExtractField$Value", {"field": "note"})


def store(path: Path, *blocks: Block) -> None:
    with Journal.open(path, retention_ms=None) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        for block in blocks:
            journal.append(Batch(Lane.STREAM, {}, block))


def changes(*steps: tuple[str, dict[str, str]]) -> list[Block]:
    """A row's insert, update and delete in a block each, another's insert; after a chain."""
    shop, chain = Source(), chain_of(chain_config(*steps, **DEAD), sink=False)
    table = shop.table("orders", id=INT32, note=optional(STRING), total=decimal(10, 2))
    out: list[Block] = []

    def end() -> None:
        block = chain.apply(shop.block())
        assert block is not None
        out.append(block)

    shop.insert(table, id=42, note="new", total=unscaled(1250))
    shop.insert(table, id=43, note="other", total=unscaled(1))
    end()
    shop.update(table, unchanged=["note"], id=42, total=unscaled(1300))
    end()
    shop.delete(table, id=42, note="new", total=unscaled(1300))
    end()
    return out


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_events_that_transforms_have_added_to_have_the_same_history(seed: int) -> None:
    life = Life(seed)
    life.run(60)
    chain = chain_of(chain_config(NO_TOMBSTONES, INSERT, **DEAD), sink=False)
    made = [found for block in life.blocks if (found := chain.apply(block)) is not None]

    def shown(versions: list[Version]) -> list[tuple[object, ...]]:
        return [(v.offset, v.op, v.key, v.row, v.changed, v.moved, v.table) for v in versions]

    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        plain, changed = Path(folder) / "plain", Path(folder) / "changed"
        store(plain, *life.blocks)
        store(changed, *made)
        for key in range(KEYS):
            for follow in (False, True):
                found = history(changed, "t", key, follow=follow)
                assert shown(found) == shown(history(plain, "t", key, follow=follow))


@pytest.mark.parametrize(
    ("steps", "key"),
    [((AFTER,), 42), ((AFTER,), "id=42"), ((AFTER, PLAIN_KEY), 42), ((AFTER, PLAIN_KEY), "key=42")],
)
def test_flat_records_have_a_history_by_whatever_their_key_is(
    tmp_path: Path, steps: Any, key: Any
) -> None:
    store(tmp_path, *changes(*steps))
    found = history(tmp_path, "public.orders", key)
    assert [version.op for version in found] == ["c", "u", "d"]
    first = {"id": 42, "note": "new", "total": "12.50"}
    assert [version.row for version in found] == [first, first | {"total": "13.00"}, None]
    assert found[1].changed == ("total",)
    assert found[0].key == ({"key": 42} if PLAIN_KEY in steps else {"id": 42})
    assert row_at(tmp_path, "orders", key, at=found[1].offset) == first | {"total": "13.00"}
    assert history(tmp_path, "orders", key, columns=["note"])[0].row == {"note": "new"}


def test_rows_that_cannot_be_told_apart_or_have_no_columns_are_refused_by_name(
    tmp_path: Path,
) -> None:
    keyless = chain_config(("ReplaceField$Key", {"exclude": "id"}))
    shop = Source()
    table = shop.table("orders", id=INT32)
    shop.insert(table, id=42)
    block = chain_of(keyless, sink=False).apply(shop.block())
    assert block is not None
    store(tmp_path / "keyless", block)
    with pytest.raises(ConfigError, match="orders has no key, so its rows cannot be told apart"):
        history(tmp_path / "keyless", "orders", 42)
    store(tmp_path / "notes", *changes(AFTER, NOTE)[:1])
    with pytest.raises(ConfigError, match=r"records without columns of public.orders's rows.*STRI"):
        history(tmp_path / "notes", "orders", 42)
    assert history(tmp_path / "notes", "orders", 1) == []  # of others nothing is said


def lines(path: Path, format_: str, where: str | None = None) -> list[str]:
    render, wanted = renderer_of(format_), Filter(where=where)
    with JournalReader(path) as reader:
        block = reader.read(0)
        kept = None if block is None else wanted(block)
        return [] if kept is None else [line.decode() for line in render(kept)]


def test_a_tail_shows_records_by_their_rows_and_filters_by_them(tmp_path: Path) -> None:
    for name, steps in {"events": (INSERT,), "flat": (AFTER,), "keys": (AFTER, PLAIN_KEY)}.items():
        store(tmp_path / name, *changes(*steps))
        first, other = lines(tmp_path / name, "line")
        key = '{"key":42}' if name == "keys" else '{"id":42}'
        assert first.endswith(f'create public.orders {key} id=42 note="new" total="12.50"\n')
        assert lines(tmp_path / name, "line", "after.note == 'other' and op == 'c'") == [other]
    value = json.loads(lines(tmp_path / "events", "value")[0])
    assert (value["op"], value["origin"], value["after"]["id"]) == ("c", "here", 42)
    store(tmp_path / "notes", *changes(AFTER, NOTE))
    (line, _) = lines(tmp_path / "notes", "line")
    assert line.endswith('create public.orders {"id":42} value="new"\n')


def test_an_export_holds_records_as_sinks_write_them_and_their_images(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    store(tmp_path / "journal", *changes(INSERT))
    with JournalReader(tmp_path / "journal") as reader:
        end = reader.bounds()[1]
        assert end == 5  # the delete has a tombstone, which is a record of its own
        for format_ in ("jsonl", "parquet"):
            target = tmp_path / format_
            assert export(reader, target, first=0, end=end, format_=format_) == end
    written = [json.loads(line) for line in (tmp_path / "jsonl").read_bytes().splitlines()]
    assert [event["value"] and event["value"]["origin"] for event in written] == ["here"] * 4 + [
        None
    ]
    found = parquet.read_table(tmp_path / "parquet").to_pylist()
    assert [row["op"] for row in found] == ["c", "c", "u", "d", "d"]
    assert orjson.loads(found[0]["after"]) == {"id": 42, "note": "new", "total": "BOI="}
    assert orjson.loads(found[3]["before"])["id"] == 42
    assert (found[4]["before"], found[4]["after"]) == (None, None)
