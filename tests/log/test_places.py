"""Places in a journal: lanes and their offsets, the newest whole snapshot, LSNs and times."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.api import Batch, Lane
from cdc.errors import ConfigError
from cdc.log.files import SNAPSHOT, STREAM
from cdc.log.journal import Journal
from cdc.log.places import (
    FORMS,
    OFFSET_MAX,
    Place,
    Places,
    UnknownPlace,
    newest_snapshot,
    parse_place,
    place_of_lsn,
    place_of_time,
    stretches,
)
from cdc.log.reader import JournalReader
from tests.blocks import INT32, Source
from tests.log.rows import make_block, snapshot, stream

START_US = 1_700_000_000_000_000


def us(number: int) -> int:
    """When a block whose last id is ``number`` was committed."""
    return START_US + (1000 + number) * 1000


def snapshot_of(first: int, count: int, **position: Any) -> Batch:
    block = make_block(range(first, first + count)) if count else None
    return Batch(Lane.SNAPSHOT, position, block, close=True)


def test_lanes_are_listed_with_their_offsets(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        assert stretches(tmp_path) == []
        journal.append(stream(100, 5))
        journal.append(snapshot(0, 10))
        (only,) = stretches(tmp_path)
        assert (only.lane, only.start, only.end, only.closed) == (SNAPSHOT, 0, 10, False)
        journal.append(snapshot(10, 3, close=True))
        journal.append(stream(105, 5, close=True))
        journal.append(snapshot(200, 4, close=True))
        found = [(s.generation, s.lane, s.start, s.first, s.end, s.complete)
                 for s in stretches(tmp_path)]  # fmt: skip
    assert found == [
        (1, SNAPSHOT, 0, 0, 13, True),
        (1, STREAM, 13, 13, 23, True),
        (2, SNAPSHOT, 23, 23, 27, True),
        (2, STREAM, 27, 27, 27, True),
    ]


def test_the_newest_whole_snapshot_is_found(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        assert newest_snapshot(tmp_path) is None
        journal.append(snapshot(0, 5))
        assert newest_snapshot(tmp_path) == 0  # under way, and the first
        journal.append(snapshot(5, 5, close=True))
        journal.append(stream(10, 5, close=True))
        assert newest_snapshot(tmp_path) == 0
        journal.append(snapshot_of(20, 3))  # added tables: says nothing of the others
        journal.append(stream(30, 5, close=True))
        assert newest_snapshot(tmp_path) == 0
        journal.append(snapshot_of(40, 3, whole=True))
        assert newest_snapshot(tmp_path) == 23
        journal.append(stream(50, 5, close=True))
        journal.append(Batch(Lane.SNAPSHOT, {"whole": True}, make_block(range(60, 62))))
        assert newest_snapshot(tmp_path) == 23  # the next one is not closed yet
        journal.append(snapshot_of(62, 2, whole=False))
        assert newest_snapshot(tmp_path) == 23


def test_an_empty_snapshot_is_one_too(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append(snapshot_of(0, 0, whole=True))
        journal.append(stream(0, 5, close=True))
        journal.append(snapshot_of(0, 0, whole=True))
        assert newest_snapshot(tmp_path) == 5


@pytest.mark.parametrize("segment_bytes", [20_000, 1 << 20])
def test_a_snapshot_that_retention_has_touched_is_none(tmp_path: Path, segment_bytes: int) -> None:
    with Journal.open(tmp_path, segment_bytes=segment_bytes) as journal:
        for number in range(20):
            journal.append(snapshot(number * 10, 10, width=2000))
        journal.append(snapshot_of(200, 1, whole=True))
        for number in range(30, 50):
            journal.append(stream(number * 10, 10, width=2000))
        removed = journal.prune(150)
    found = newest_snapshot(tmp_path)
    assert found == (None if removed else 0)
    assert bool(removed) == (segment_bytes < 1 << 20)


def test_a_place_includes_the_snapshot_that_was_taken_later(tmp_path: Path) -> None:
    """What a sink got after a point is all sent again, snapshotted rows too."""
    with Journal.open(tmp_path) as journal:
        journal.append(snapshot_of(0, 10))  # read at LSN 1014, offsets 0 … 9
        journal.append(stream(20, 10, close=True))  # committed at LSN 1034, offsets 10 … 19
        journal.append(snapshot_of(40, 10))  # read at LSN 1054, offsets 20 … 29
        journal.append(stream(60, 10))  # committed at LSN 1074, offsets 30 … 39
    with JournalReader(tmp_path) as reader:
        for lsn, time_us, offset in (
            (1014, us(9), 0),
            (1015, us(9) + 1, 10),
            (1034, us(29), 10),
            (1035, us(29) + 1, 20),
            (1054, us(49), 20),
            (1055, us(49) + 1, 30),
            (1074, us(69), 30),
            (1075, us(69) + 1, 40),
        ):
            assert place_of_lsn(reader, lsn) == offset, lsn
            assert place_of_time(reader, time_us) == offset, lsn
        assert place_of_lsn(reader, 1014, generation=2) == 20


def test_times_are_exact_inside_a_block_and_may_step_back(tmp_path: Path) -> None:
    from tests.blocks import INT32, Source

    shop = Source()
    table = shop.table("t", id=INT32)
    times = [5, 7, 6, 9, 8, 12, 12, 11]
    with Journal.open(tmp_path) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        for cut in (times[:3], times[3:5], times[5:]):
            for seconds in cut:
                shop.begin()
                assert shop._open is not None
                opened = shop._open._replace(commit_us=seconds * 1_000_000)
                shop._open = shop._transactions[-1] = opened
                shop.insert(table, id=seconds)
                shop.insert(table, id=seconds)
                shop.commit()
            journal.append(Batch(Lane.STREAM, {}, shop.block()))
    with JournalReader(tmp_path) as reader:
        for second in range(1, 13):
            first = next(n for n, s in enumerate(times) if s >= second)
            assert reader.first_offset_at_time(second * 1_000_000) == 2 * first
            assert reader.first_offset_at_time(second * 1_000_000 - 1) == 2 * first
        assert reader.first_offset_at_time(13_000_000) == 2 * len(times)


US_MIN, US_MAX = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999
PLACES = st.one_of(
    st.just(Place("beginning")),
    st.integers(0, OFFSET_MAX).map(lambda offset: Place("offset", offset)),
    st.tuples(st.integers(0, 2**64 - 1), st.none() | st.integers(0, 999_999_999)).map(
        lambda lsn: Place("lsn", *lsn)
    ),
    st.integers(US_MIN, US_MAX).map(lambda us: Place("time", us)),
)  # fmt: skip


@given(PLACES)
def test_a_place_is_parsed_from_its_own_text(place: Place) -> None:
    assert parse_place(str(place)) == place
    assert parse_place(f" {place} ") == place


@given(st.text(max_size=30) | st.text("0123456789/:-TZ. +", max_size=30))
def test_a_text_is_a_place_or_named_as_none(text: str) -> None:
    said = None
    try:
        place = parse_place(text, "--from")
    except ConfigError as error:
        said = str(error)
    if said is None:
        assert parse_place(str(place)) == place
    else:
        assert said == f"--from: {text.strip()!r} is no place in a journal. {FORMS}"


@pytest.mark.parametrize(
    "text",
    ["", "end", "0/1/2", "1.5", "-1", "9" * 19, "9" * 30, "0/100000000", "x:0/1", "2020-13-01",
     "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "٣"],
)  # fmt: skip
def test_what_is_no_place_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="is no place in a journal"):
        parse_place(text)


def test_times_are_utc_unless_they_say_otherwise() -> None:
    place = parse_place("2026-01-31T12:00:00Z")
    for same in ("2026-01-31T12:00", "2026-01-31T13:00:00+01:00",
                 datetime(2026, 1, 31, 12, tzinfo=UTC), place):  # fmt: skip
        assert parse_place(same) == place
    assert str(place) == "2026-01-31T12:00:00.000000Z"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A snapshot of ten rows, then three transactions of two: offsets 10 to 15."""
    with Journal.open(tmp_path / "shop") as journal:
        journal.append(snapshot_of(0, 10))  # read at LSN 1014
        for number in (20, 30, 40):
            journal.append(stream(number, 2))
    return tmp_path / "shop"


def test_the_end_holds_the_transaction_of_its_lsn_and_nothing_of_its_offset(shop: Path) -> None:
    with JournalReader(shop) as reader:
        places = Places(reader)
        block = reader.read(12)
        assert block is not None
        second = block.transactions[0]
        at = second.commit_lsn
        for text, end in (
            ("12", 12),
            ("13", 13),
            (f"0/{at:X}", 14),
            (f"0/{block.lsn[0]:X}", 14),  # a change's own
            (f"0/{at + 1:X}", 14),  # nothing was open then
            (f"0/{block.lsn[0] - 1:X}", 12),
            (str(Place("time", second.commit_us)), 12),
            (str(Place("time", second.commit_us + 1)), 14),
        ):
            assert places.end(parse_place(text)) == end, text


def test_a_time_before_the_beginning_is_the_beginning(shop: Path) -> None:
    with JournalReader(shop) as reader:
        places = Places(reader)
        assert places.start(parse_place("1999-01-01")) == 0
        assert places.start(parse_place("beginning")) == 0
        with pytest.raises(UnknownPlace, match="was committed at 2999-01-01T00:00:00"):
            places.start(parse_place("2999-01-01"))
        assert places.start(parse_place("2999-01-01"), follow=True) == 16
        with pytest.raises(UnknownPlace, match="--to: nothing comes before the beginning"):
            places.end(parse_place("beginning"))


def test_a_transaction_that_a_filter_leaves_no_row_of_is_no_place_of_its_block(
    tmp_path: Path,
) -> None:
    """What comes at it or later begins behind the block, and the one before it ends there."""
    shop = Source()
    kept, left_out = (shop.table(name, id=INT32) for name in ("kept", "left_out"))
    with Journal.open(tmp_path) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        for first in (0, 10, 20):
            shop.begin()
            for id_ in range(first, first + 3):
                shop.insert(kept, id=id_)
            shop.commit()
            shop.insert(left_out, id=first)
            block = shop.block()
            rows = block.select(range(3))
            rows.offsets = range(first // 10 * 3, first // 10 * 3 + 3)
            journal.append(Batch(Lane.STREAM, {}, rows))
            before, gone = block.transactions
            with JournalReader(tmp_path) as reader:
                end = rows.offsets[-1] + 1
                places = Places(reader)
                assert places.begin_of(end - 1) == end - 3
                assert places.end_of(end - 2) == end
                assert places.end(Place("lsn", before.commit_lsn)) == end
                assert place_of_lsn(reader, before.commit_lsn) == end - 3
                assert place_of_lsn(reader, before.commit_lsn + 1) == end
                assert place_of_lsn(reader, gone.commit_lsn) == end
                assert place_of_time(reader, gone.commit_us) == end
    with JournalReader(tmp_path) as reader:
        assert place_of_lsn(reader, 1) == 0
        assert place_of_time(reader, block.transactions[0].commit_us) == 6
