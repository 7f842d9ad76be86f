"""Shifted keys and vanished rows, one case each; the property tests mix them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from cdc.__main__ import main
from cdc.api import Batch, Lane
from cdc.block import Block
from cdc.history import history, row_at
from cdc.log import Journal
from cdc.log.files import listing
from cdc.log.verify import verify
from schemas import EventSchema
from tests.blocks import INT32, STRING, Source

WHOLE = {"tables": {"public.t": {}}, "whole": True}


def store(path: Path, *blocks: Block) -> None:
    with Journal.open(path) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        for block in blocks:
            journal.append(Batch(Lane.STREAM, {}, block))


def filled(source: Source, count: int) -> EventSchema:
    table = source.table("t", id=INT32, who=STRING)
    for number in range(count):
        source.insert(table, id=number, who=f"row {number}")
    return table


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_shift_of_keys_leaves_every_row_under_its_new_key(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    source = Source()
    table = filled(source, 3)
    source.begin()
    for number in order:
        old = {"id": number, "who": f"row {number}"}
        source.change_key(table, old, {**old, "id": number + 1}, unchanged=["who"])
    source.commit()
    block = source.block()
    store(tmp_path, block)
    last = block.offsets[-1]
    lsn = f"0/{block.transactions[-1].commit_lsn:X}"
    for at in (last, lsn):
        assert row_at(tmp_path, "t", 0, at=at) is None
        for number in range(3):
            found = row_at(tmp_path, "t", number + 1, at=at)
            assert found == {"id": number + 1, "who": f"row {number}"}
    for number in range(3):
        ops = [v.op for v in history(tmp_path, "t", number)]
        assert ops == (["c", "d", "c"] if number else ["c", "d"])
        followed = history(tmp_path, "t", number + 1, follow=True)
        mine = [v for v in followed if v.row and v.row["who"] == f"row {number}"]
        assert [v.key["id"] for v in mine] == [number, number + 1]


def test_a_row_that_moves_on_twice_in_one_transaction_is_followed(tmp_path: Path) -> None:
    source = Source()
    table = filled(source, 1)
    source.begin()
    source.change_key(table, {"id": 0, "who": "row 0"}, {"id": 1, "who": "row 0"})
    source.change_key(table, {"id": 1, "who": "row 0"}, {"id": 2, "who": "row 0"})
    source.commit()
    block = source.block()
    store(tmp_path, block)
    assert row_at(tmp_path, "t", 1, at=block.offsets[-1]) is None
    followed = history(tmp_path, "t", 2, follow=True)
    assert [(v.op, v.key["id"]) for v in followed] == [
        ("c", 0), ("d", 0), ("c", 1), ("d", 1), ("c", 2),
    ]  # fmt: skip


def lost_log(path: Path, *, whole: bool, tables: bool = True) -> None:
    """Rows 0 and 1; the log is lost; a snapshot finds row 1 alone; and a stream after it."""
    source = Source()
    table = filled(source, 2)
    first = source.block()
    source.read(table, id=1, who="row 1, changed")
    again = source.block()
    source.insert(table, id=5, who="later")
    position = {"whole": whole, **({"tables": {"public.t": {}}} if tables else {})}
    with Journal.open(path) as journal:
        journal.append(Batch(Lane.SNAPSHOT, WHOLE, None, close=True))
        journal.append(Batch(Lane.STREAM, {}, first, close=True))
        journal.append(Batch(Lane.SNAPSHOT, position, again, close=True))
        journal.append(Batch(Lane.STREAM, {}, source.block()))


def test_a_row_that_a_new_snapshot_did_not_find_has_vanished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, path = tmp_path, tmp_path / "journal" / "shop"
    lost_log(path, whole=True)
    created, vanished = history(path, "t", 0)
    assert (created.op, vanished.op, vanished.row, vanished.offset) == ("c", "v", None, 2)
    assert vanished.before == created.row
    assert row_at(path, "t", 0, at=1) == created.row
    for at in (2, 3, vanished.time):
        assert row_at(path, "t", 0, at=at) is None
    assert [v.op for v in history(path, "t", 1)] == ["c", "r"]
    assert [v.op for v in history(path, "t", 5)] == ["c"]
    assert main(["history", "--data-dir", str(data), "t", "0"]) == 0
    assert "vanished" in capsys.readouterr().out
    assert main(["history", "--data-dir", str(data), "t", "0", "--at", "3"]) == 1
    assert "no row t 0 at 3: vanished" in capsys.readouterr().err


@pytest.mark.parametrize("tables", [True, False])
def test_a_snapshot_of_added_tables_makes_nothing_vanish(tmp_path: Path, tables: bool) -> None:
    lost_log(tmp_path, whole=False, tables=tables)
    assert [v.op for v in history(tmp_path, "t", 0)] == ["c"]


def test_a_table_that_the_new_snapshot_left_out_keeps_its_rows(tmp_path: Path) -> None:
    source = Source()
    filled(source, 1)
    first = source.block()
    other = source.table("other", id=INT32)
    source.read(other, id=1)
    position = {"whole": True, "tables": {"public.other": {}}}
    with Journal.open(tmp_path) as journal:
        journal.append(Batch(Lane.SNAPSHOT, WHOLE, None, close=True))
        journal.append(Batch(Lane.STREAM, {}, first, close=True))
        journal.append(Batch(Lane.SNAPSHOT, position, source.block(), close=True))
    assert [v.op for v in history(tmp_path, "t", 0)] == ["c"]


def test_what_is_noted_after_a_whole_snapshot_says_nothing_of_its_rows(tmp_path: Path) -> None:
    """A table may be dropped or left out since: what that snapshot has shown stays shown."""
    lost_log(tmp_path, whole=True)
    with Journal.open(tmp_path) as journal:
        for tables in ({"public.t": {}}, {}):
            journal.append(Batch(Lane.SNAPSHOT, {**WHOLE, "tables": tables}, None, close=True))
            assert [version.op for version in history(tmp_path, "t", 0)] == ["c", "v"]
            assert row_at(tmp_path, "t", 0, at=3) is None


TAKEN = {"lsn": 9_000_000, "us": 1_700_001_000_000_000, "xid": 999}


def lost_all(path: Path, *positions: dict[str, object]) -> Source:
    """Row 0; the log is lost; a snapshot finds no row at all; and what is noted behind it."""
    source = Source()
    filled(source, 1)
    with Journal.open(path) as journal:
        journal.append(Batch(Lane.SNAPSHOT, WHOLE, None, close=True))
        journal.append(Batch(Lane.STREAM, {}, source.block(), close=True))
        journal.append(Batch(Lane.SNAPSHOT, {"whole": False}))  # it begins
        for position in positions:
            journal.append(Batch(Lane.SNAPSHOT, position, None, close=True))
    return source


def test_what_is_noted_after_a_whole_snapshot_without_rows_says_nothing_of_it(
    tmp_path: Path,
) -> None:
    notes = [{**WHOLE, "tables": tables} for tables in ({"public.t": {}}, {}, {"public.u": {}})]
    source = lost_all(tmp_path, WHOLE, *notes)
    source.insert(source.table("other", id=INT32), id=5)
    with Journal.open(tmp_path) as journal:
        journal.append(Batch(Lane.STREAM, {}, source.block()))
        journal.append(Batch(Lane.SNAPSHOT, {**WHOLE, "tables": {}}, None, close=True))
    assert [version.op for version in history(tmp_path, "t", 0)] == ["c", "v"]
    assert row_at(tmp_path, "t", 0, at=1) is None
    # the one that closed the lane, and the newest note
    assert [e.lane_key for e in listing(tmp_path)] == [(1, 0), (1, 1), (2, 0), (2, 0), (2, 1)]
    assert verify(tmp_path).ok


def test_a_snapshot_without_rows_says_itself_when_it_was(tmp_path: Path) -> None:
    """Nothing need come behind it."""
    lost_all(tmp_path, {**WHOLE, "taken": TAKEN}, {**WHOLE, "taken": {}, "tables": {}})
    _, vanished = history(tmp_path, "t", 0)
    assert (vanished.op, vanished.lsn, vanished.xid) == ("v", TAKEN["lsn"], TAKEN["xid"])
    assert vanished.time.isoformat() == "2023-11-14T22:30:00+00:00"
    assert row_at(tmp_path, "t", 0, at=vanished.time) is None


def test_a_snapshot_that_is_closed_in_a_segment_of_its_own_is_whole(tmp_path: Path) -> None:
    """Its last tables are empty, and the segment of its rows is full before that is known."""
    source = Source()
    table = filled(source, 2)
    with Journal.open(tmp_path, segment_bytes=1) as journal:
        journal.append(Batch(Lane.SNAPSHOT, WHOLE, None, close=True))
        journal.append(Batch(Lane.STREAM, {}, source.block(), close=True))
        source.read(table, id=1, who="row 1")
        journal.append(Batch(Lane.SNAPSHOT, {"whole": False}, source.block()))
        for tables in ({"public.t": {}}, {}, {}):
            journal.append(Batch(Lane.SNAPSHOT, {**WHOLE, "tables": tables}, None, close=True))
    assert [version.op for version in history(tmp_path, "t", 0)] == ["c", "v"]
    assert [version.op for version in history(tmp_path, "t", 1)] == ["c", "r"]
