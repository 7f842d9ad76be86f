"""Sealed segments go by age and by size, never those that a sink needs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cdc.errors import OffsetOutOfRange
from cdc.log import Journal, JournalReader
from cdc.log.files import listing
from cdc.log.verify import prune, verify
from tests.log.rows import ids_of, read_all, snapshot, stream

SMALL = {"segment_bytes": 150_000}


def fill(journal: Journal, first: int = 0, count: int = 40) -> None:
    for number in range(first, first + count):
        journal.append(stream(number * 10, 10, width=2000))


def test_age_takes_sealed_segments_that_no_sink_needs(memory: Path) -> None:
    needed = 0
    options = {"retention_ms": 0, "needed": lambda: needed}
    with Journal.open(memory, **SMALL, **options) as journal:
        journal.append(snapshot(0, 0, close=True))
        fill(journal)
        assert journal.retain() == []
        needed = 200
        assert journal.retain()
        with JournalReader(memory) as reader:
            oldest, after = reader.bounds()
            assert 0 < oldest <= 200
            assert after == 400
            with pytest.raises(OffsetOutOfRange, match=f"oldest offset there is: {oldest}"):
                reader.read(oldest - 1)
            assert reader.read(oldest) is not None
    assert read_all(memory) == list(range(oldest, 400))


def test_young_segments_stay(memory: Path) -> None:
    with Journal.open(memory, **SMALL) as journal:
        fill(journal)
        assert journal.retain() == []


def test_what_was_written_under_a_clock_in_the_past_is_not_old_afterwards(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns, year_ns = time.time_ns, 365 * 86_400 * 10**9
    with Journal.open(memory, **SMALL, needed=lambda: 10_000) as journal:
        journal.append(snapshot(0, 0, close=True))
        fill(journal, count=1)
        with monkeypatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: now_ns() - year_ns)
            fill(journal, 1)
        fill(journal, 41)
        journal.retain()
        with JournalReader(memory) as reader:
            assert reader.bounds() == (0, 810)
        monkeypatch.setattr(time, "time_ns", lambda: now_ns() + year_ns)
        assert journal.retain()
    assert read_all(memory)


def test_size_takes_the_oldest_first(memory: Path) -> None:
    options = {"retention_ms": None, "retention_bytes": 600_000}
    with Journal.open(memory, **SMALL, **options) as journal:
        journal.append(snapshot(0, 0, close=True))
        fill(journal, count=60)
        journal.retain()
        assert journal.size_bytes <= 600_000 + 300_000
        assert journal.size_bytes == sum(
            file.stat().st_size for file in memory.glob("*.seg*") if "-shm" not in file.name
        )
    ids = read_all(memory)
    assert ids == list(range(600 - len(ids), 600))


def test_size_spares_what_a_sink_still_needs_up_to_the_hard_budget(memory: Path) -> None:
    needed, budget = 0, 1_600_000
    limits = {"retention_ms": None, "retention_bytes": 300_000, "budget_bytes": budget}
    options = {"full_policy": "drop", "needed": lambda: needed}
    with Journal.open(memory, **SMALL, **limits, **options) as journal:
        journal.append(snapshot(0, 0, close=True))
        fill(journal, count=20)
        assert 600_000 < journal.size_bytes < budget
        assert journal.retain() == []
        assert read_all(memory) == list(range(200))
        needed = 100  # now what lies before may go, and no more
        assert journal.retain()
        oldest, *_ = read_all(memory)
        assert 0 < oldest <= needed
        assert journal.size_bytes > 300_000
        assert journal.dropped_segments == 0
        fill(journal, 20, 25)
        assert journal.dropped_rows > 0


def test_a_whole_snapshot_may_go_and_its_position_stays(memory: Path) -> None:
    with Journal.open(memory, retention_ms=0) as journal:
        journal.append(snapshot(0, 20, close=True))
        journal.append(stream(100, 5))
        assert len(journal.retain()) == 1
        state = journal.state()
        assert state.snapshot_position == {"next": 20}
        assert state.snapshot_closed
    with Journal.open(memory) as journal:
        assert journal.state() == state
        with JournalReader(memory) as reader:
            assert reader.bounds() == (20, 25)
            block = reader.read(20)
    assert block is not None
    assert ids_of(block) == list(range(100, 105))
    assert verify(memory).ok


def test_an_open_snapshot_keeps_the_stream_behind_it(memory: Path) -> None:
    with Journal.open(memory, retention_ms=0, **SMALL) as journal:
        journal.append(snapshot(0, 20))
        fill(journal)
        assert journal.retain() == []
        journal.append(snapshot(20, 0, close=True))
        assert journal.retain()


def test_generations_go_whole_and_offsets_go_on(memory: Path) -> None:
    with Journal.open(memory, retention_ms=0) as journal:
        for generation in range(4):
            journal.append(snapshot(generation * 100, 10, close=True))
            journal.append(stream(generation * 100 + 10, 10, close=True))
        journal.append(stream(500, 10))
        assert journal.retain()
        assert {entry.generation for entry in listing(memory)} == {5}
    with Journal.open(memory) as journal:
        assert journal.state().generation == 5
        journal.append(snapshot(490, 10, close=True))
        with JournalReader(memory) as reader:
            assert reader.bounds() == (80, 100)
    assert read_all(memory, 80) == [*range(490, 510)]


def test_prune_takes_what_lies_wholly_below_an_offset(memory: Path) -> None:
    with Journal.open(memory, **SMALL) as journal:
        journal.append(snapshot(0, 0, close=True))
        fill(journal)
    removed = prune(memory, 150)
    assert removed
    oldest = verify(memory).oldest_offset
    assert 0 < oldest <= 150
    assert read_all(memory) == list(range(oldest, 400))
    assert prune(memory, 150) == []
    assert prune(memory, 10**9)
    with Journal.open(memory) as journal:
        assert journal.state().stream_position == {"next": 400}
        fill(journal, 40, 1)


def test_a_reader_in_a_segment_that_goes_reads_it_to_the_end_or_is_told(memory: Path) -> None:
    needed: int | None = 0
    with Journal.open(memory, retention_ms=0, needed=lambda: needed, **SMALL) as journal:
        journal.append(snapshot(0, 0, close=True))
        fill(journal, count=10)
        with JournalReader(memory) as reader:
            assert reader.read(0) is not None
            fill(journal, 10, 60)
            needed = None
            assert journal.retain()
            at = 0
            told = False
            while at < 700 and not told:
                try:
                    block = reader.read(at)
                except OffsetOutOfRange:
                    told = True
                else:
                    assert block is not None
                    assert ids_of(block)[0] == at
                    at += len(block)
            assert told


def test_segments_roll_by_age_too(memory: Path) -> None:
    with Journal.open(memory, segment_seconds=0) as journal:
        fill(journal, count=3)
    assert [entry.first for entry in listing(memory) if entry.lane == 1] == [0, 10, 20]


def test_a_sealed_segment_is_complete_as_a_single_file(memory: Path) -> None:
    with Journal.open(memory / "j", **SMALL) as journal:
        journal.append(snapshot(0, 0, close=True))
        fill(journal)
        (memory / "copy").mkdir()
        for entry in listing(memory / "j")[:-1]:
            file = memory / "j" / entry.file
            (memory / "copy" / entry.file).write_bytes(file.read_bytes())
    report = verify(memory / "copy")
    assert report.ok
    assert all(segment.sealed for segment in report.segments)
    ids = read_all(memory / "copy", 0)
    assert ids == list(range(len(ids)))
    assert len(ids) > 100
