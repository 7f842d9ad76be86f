"""A row's history against a plain model: whatever happens, every version is what it was."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.api import Batch, Lane
from cdc.errors import ConfigError, LogCorrupt, LogError, OffsetOutOfRange
from cdc.history import Version, history, row_at, version_at
from cdc.log import Gap, Journal, JournalReader
from cdc.log.files import listing
from cdc.log.places import UnknownPlace
from cdc.log.segment import SegmentReader
from cdc.record import UNCHANGED
from tests.blocks import INT64, STRING, Source, array_of, event_schema, optional
from tests.history.model import KEYS, Fact, Life, Row
from tests.log.rows import MEMORY

TEXT = optional(STRING)


def store(path: Path, life: Life, *, segment_bytes: int = 256 << 20) -> None:
    with Journal.open(path, segment_bytes=segment_bytes, retention_ms=None) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        for block in life.blocks:
            journal.append(Batch(Lane.STREAM, {}, block))


def shown(versions: list[Version]) -> list[tuple[object, ...]]:
    return [(v.offset, v.op, v.key["id"], v.row) for v in versions]


def facts(expected: list[Fact]) -> list[tuple[object, ...]]:
    return [(f.offset, f.op, f.key, f.row) for f in expected]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), shifts=st.booleans())
def test_every_version_is_what_the_row_was(seed: int, shifts: bool) -> None:
    life = Life(seed, shifts=shifts)
    life.run(80)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder)
        store(path, life)
        for key in range(KEYS):
            expected = life.of_key(key)
            found = history(path, "t", key)
            assert shown(found) == facts(expected)
            followed = history(path, "public.t", f"id={key}", follow=True)
            wanted = life.followed(key)
            assert sorted(shown(followed), key=repr) == sorted(facts(wanted), key=repr)
            if not shifts:
                assert [v.offset for v in followed] == sorted(v.offset for v in followed)
            changes = {(f.offset, f.key): f.changed for f in wanted}
            for version in followed:
                assert version.changed == changes[version.offset, version.key["id"]]
            for fact in expected:
                # A delete that came behind the row that took the key says nothing of that.
                if fact.place == (fact.offset, 1):
                    assert row_at(path, "t", key, at=fact.offset) == fact.row
            now = life.rows.get(key)
            last = life.source.offset - 1
            assert row_at(path, "t", key, at=last) == (now.values if now else None)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), lost=st.integers(0, 8), rounds=st.integers(1, 3))
def test_a_first_snapshot_and_another_after_a_lost_log_say_what_is_known(
    seed: int, lost: int, rounds: int
) -> None:
    life = Life(seed, shifts=True)
    for key in range(0, KEYS, 2):
        life.identities += 1
        life.rows[key] = Row(life.identities, life.values(key))
    tables = {"tables": {"public.t": {}}, "whole": True}
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder)
        with Journal.open(path, retention_ms=None) as journal:
            for round_ in range(rounds + 1):
                start = life.source.offset
                snapshot = life.read_all()
                if round_ and snapshot is not None:
                    life.vanish(start)
                journal.append(Batch(Lane.SNAPSHOT, tables, snapshot, close=True))
                life.run(25)
                if round_ < rounds:
                    life.lose(lost)
                for block in life.blocks:
                    journal.append(Batch(Lane.STREAM, {}, block))
                life.blocks.clear()
                for fact in life.facts:
                    fact.block = -1
                journal.append(Batch(Lane.STREAM, {}, None, close=round_ < rounds))
                if not life.rows and round_ < rounds:
                    life.insert(0)  # before the next snapshot, and nowhere in the journal
                    life.source.block()
                    life.source.offset -= 1
                    life.facts.pop()
        for key in range(KEYS):
            found = history(path, "t", key)
            assert shown(found) == facts(life.of_key(key))
            now = life.rows.get(key)
            if found:
                assert found[-1].row == (now.values if now else None)


@pytest.mark.parametrize("seed", range(3))
def test_what_was_dropped_for_want_of_space_is_unknown_and_the_rest_is_right(
    tmp_path: Path, seed: int
) -> None:
    life = Life(seed, shifts=True)
    for key in range(KEYS):
        life.rows[key] = Row(-1 - key, life.values(key))
    snapshot = life.read_all()
    life.run(250)
    with Journal.open(
        tmp_path, segment_bytes=1, budget_bytes=3 << 20, full_policy="drop", needed=lambda: 0
    ) as journal:
        # A snapshot that takes long: its rows stay, and what is dropped is behind them.
        journal.append(Batch(Lane.SNAPSHOT, {}, snapshot))
        for block in life.blocks:
            journal.append(Batch(Lane.STREAM, {}, block))
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        assert journal.dropped_rows
    with JournalReader(tmp_path) as reader:
        gaps = reader.gaps()
    dropped = {offset for start, end in gaps for offset in range(start, end)}
    assert dropped
    assert min(dropped) > 0
    for key in range(KEYS):
        told: list[LogError] = []
        found = {(v.offset, v.key["id"]): v for v in history(tmp_path, "t", key, lost=told.append)}
        assert told
        with pytest.raises(Gap):
            history(tmp_path, "t", key)
        for fact in life.of_key(key):
            version = found.pop((fact.offset, key), None)
            assert (version is None) == (fact.offset in dropped) or fact.op == "t"
            if version is None or version.row is None:
                continue
            assert fact.row is not None
            assert version.op == fact.op
            for name, value in version.row.items():
                assert value in (fact.row[name], UNCHANGED)
        assert not found


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), taken=st.integers(1, 60))
def test_after_retention_what_is_left_is_right_and_the_rest_is_unknown(
    seed: int, taken: int
) -> None:
    life = Life(seed)
    life.run(120)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder)
        # a segment per block, so that any block may be the oldest left
        store(path, life, segment_bytes=1)
        first = life.blocks[min(taken, len(life.blocks) - 2)].offsets[0]
        with Journal.open(path, segment_bytes=1, retention_ms=None) as journal:
            journal.prune(first)
        for key in range(KEYS):
            expected = [f for f in life.of_key(key) if f.offset >= first]
            found = {v.offset: v for v in history(path, "t", key)}
            for fact in expected:
                version = found.pop(fact.offset, None)
                if version is None:  # whether there was a row to be emptied is not known
                    assert fact.op == "t"
                    continue
                assert version.op == fact.op
                if version.row is None:
                    assert fact.row is None
                    continue
                for name, value in version.row.items():
                    assert fact.row is not None
                    assert value in (fact.row[name], UNCHANGED)
            assert not found


def test_points_by_lsn_and_time(tmp_path: Path) -> None:
    life = Life(5)
    life.run(150)
    store(tmp_path, life)
    for key in range(KEYS):
        versions = history(tmp_path, "t", key)
        for version, after in zip(versions, [*versions[1:], None], strict=True):
            assert row_at(tmp_path, "t", key, at=f"0/{version.lsn:X}") == version.row
            if after is not None and after.commit_lsn != version.commit_lsn:
                lsn = f"{version.commit_lsn >> 32:X}/{version.commit_lsn & 0xFFFFFFFF:X}"
                assert row_at(tmp_path, "t", key, at=lsn) == version.row
                assert row_at(tmp_path, "t", key, at=version.time) == version.row
                assert history(tmp_path, "t", key, at=version.time)[-1] == version
        first = versions[0]
        if first.offset > 0:
            assert version_at(tmp_path, "t", key, at=first.offset - 1) is None


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    source = Source()
    types = {"order": INT64, "line": STRING, "tags": array_of(STRING), "note": TEXT}
    lines = event_schema("lines", types, ["order", "line"])
    bare = event_schema("bare", {"x": INT64}, [])
    source.begin()
    source.insert(lines, order=7, line="a", tags=["x", None], note="first")
    source.insert(bare, x=1)
    source.commit()
    blocks = [source.block()]
    source.update(lines, order=7, line="a", tags=[], note="second")
    blocks.append(source.block())
    with Journal.open(tmp_path / "j", segment_bytes=1) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        for block in blocks:
            journal.append(Batch(Lane.STREAM, {"lsn": 5_000_000, "timeline": 1}, block))
    return tmp_path / "j"


@pytest.mark.parametrize(
    "key", [{"order": 7, "line": "a"}, "order=7,line=a", '{"line":"a","order":7}']
)
def test_a_key_of_several_columns(shop: Path, key: str) -> None:
    first, second = history(shop, "lines", key)
    assert first.row == {"order": 7, "line": "a", "tags": ["x", None], "note": "first"}
    assert second.changed == ("tags", "note")
    assert second.before == first.row
    (only,) = history(shop, "lines", key, columns=["note"])[1:]
    assert (only.row, only.changed) == ({"note": "second"}, ("note",))


def test_no_block_without_the_key_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source()
    table = event_schema("t", {"id": INT64, "note": TEXT})
    with Journal.open(tmp_path, segment_bytes=2000) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        for number in range(60):
            for id_ in (7, -number) if number in (11, 12, 43) else (1000 + number, -number):
                source.update(table, id=id_, note=f"{number}")
            journal.append(Batch(Lane.STREAM, {}, source.block()))
    assert len(listing(tmp_path)) > 3
    loaded: list[int] = []
    load = SegmentReader.block_at

    def count(segment: SegmentReader, row: int) -> Any:
        found = load(segment, row)
        if found is not None:  # one lane holds all rows: a row of it is an offset
            loaded.append(found[0].start)
        return found

    monkeypatch.setattr(SegmentReader, "block_at", count)
    assert [version.offset for version in history(tmp_path, "t", 7)] == [22, 24, 86]
    assert loaded == [22, 24, 86]


@pytest.mark.parametrize(
    ("table", "key", "message"),
    [
        ("lnies", "1", "no table lnies. Did you mean public.lines"),
        ("zzz", "1", "no table zzz. There are: public.bare, public.lines"),
        ("lines", "7", "order, line is missing"),
        ("lines", "order=7", "line is missing: the key of public.lines is order, line"),
        ("lines", '{"order":7,"line":"a","x":1}', "x is not in the key"),
        ("lines", '{"order":7', "is not JSON"),
        ("lines", "order=seven,line=a", "order: 'seven' is no int64"),
        ("lines", {"order": 2**70, "line": "a"}, "is no int64"),
        ("lines", {"order": True, "line": "a"}, "is no int64"),
        ("bare", "1", "has no key"),
    ],
)
def test_a_key_or_table_that_is_not_there_is_named(
    shop: Path, table: str, key: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", "\\(")):
        history(shop, table, key)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("0/1", "0/1 is not in journal j. It holds"),
        ("FF/0", "FF/0 is not in journal j. It holds"),
        ("3:0/400", "is of another timeline. It holds"),
        ("2001-01-01", "is before journal j begins. The oldest commit there is: 2023-11-14T22:"),
        ("2999-01-01", "at: 2999-01-01T00:00:00.000000Z lies in the future"),
        ("99", "journal j ends before offset 99. Its newest offset is 2"),
    ],
)
def test_a_point_the_journal_does_not_know_is_refused(shop: Path, at: str, message: str) -> None:
    with pytest.raises(UnknownPlace, match=message):
        row_at(shop, "lines", "order=7,line=a", at=at if at != "3:0/400" else "3:0/F4800")


@pytest.mark.parametrize("at", ["yesterday", "0/1/2", "1.5", "", "9" * 30, "2020-13-01"])
def test_what_is_no_point_is_refused(shop: Path, at: str) -> None:
    with pytest.raises(ConfigError, match="Give an offset"):
        row_at(shop, "lines", "order=7,line=a", at=at)


def test_damage_is_named_and_other_segments_still_answer(shop: Path) -> None:
    victim = next(entry for entry in listing(shop) if entry.lane == 1)
    with closing(sqlite3.connect(shop / victim.file)) as db, db:
        db.execute("UPDATE blocks SET body = zeroblob(length(body))")
    with pytest.raises(LogCorrupt, match=victim.file):
        history(shop, "lines", "order=7,line=a")
    told: list[LogError] = []
    (left,) = history(shop, "lines", "order=7,line=a", lost=told.append)
    assert left.op == "u"
    assert left.changed is None
    assert victim.file in str(told[0])
    with pytest.raises(OffsetOutOfRange, match="does not know what this row was"):
        row_at(shop, "lines", "order=7,line=a", at=0, lost=told.append)


def test_lsns_of_two_timelines_are_told_apart(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        for timeline in (1, 2):
            life = Life(timeline)
            life.run(10)
            journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
            position = {"lsn": 10**9, "timeline": timeline}
            for block in life.blocks:
                journal.append(Batch(Lane.STREAM, position, block))
            journal.append(Batch(Lane.STREAM, position, None, close=True))
    with pytest.raises(OffsetOutOfRange, match=r"is on several timelines: .* on timeline 1"):
        history(tmp_path, "t", 1, at="0/1E8480")
    one = history(tmp_path, "t", 1, at="1:0/2E8480")
    two = history(tmp_path, "t", 1, at="2:0/2E8480")
    assert len(one) <= len(two)
    assert all(v.offset >= 0 for v in one)
