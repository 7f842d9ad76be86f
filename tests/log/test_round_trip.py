"""What was appended is read: all of it, once, in order, whatever the lanes and the rolls."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.api import Batch, Lane, LogState
from cdc.errors import LogError
from cdc.log import Journal, JournalReader
from cdc.log.verify import verify
from tests.blocks import INT32, STRING, Source, optional
from tests.log.rows import MEMORY, ids_of, make_block, read_all, snapshot, stream


def test_an_empty_journal_has_no_state_and_nothing_to_read(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j") as journal:
        assert journal.state() == LogState()
        assert journal.read(0) is None
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o700


def test_a_reader_of_a_journal_that_is_not_there_yet_finds_nothing(tmp_path: Path) -> None:
    with JournalReader(tmp_path / "later") as reader:
        assert reader.read(0) is None
        assert reader.bounds() == (0, 0)
        with Journal.open(tmp_path / "later") as journal:
            journal.append(snapshot(0, 3))
            block = reader.read(0)
    assert block is not None
    assert ids_of(block) == [0, 1, 2]


def test_every_column_of_a_block_comes_back(tmp_path: Path) -> None:
    source = Source(context={"task": "0"})
    table = source.table("t", id=INT32, note=optional(STRING))
    source.begin()
    source.insert(table, id=1, note="a")
    source.update(table, id=1, unchanged=["note"])
    source.change_key(table, {"id": 1, "note": "a"}, {"id": 2, "note": "a"})
    source.truncate(table)
    source.message("p", b"\x00\xff")
    source.commit()
    source.delete(table, id=2, note="a")
    written = source.block()
    with Journal.open(tmp_path) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {"n": 1}, written))
        read = journal.read(0)
    assert read is not None
    for name in written.__dataclass_fields__:
        ours, theirs = getattr(written, name), getattr(read, name)
        if name in ("keys", "befores", "afters"):
            ours, theirs = list(ours), list(theirs)
        assert ours == theirs, name


def test_the_stream_is_read_only_after_the_snapshot_is_closed(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append(stream(100, 2))
        assert journal.read(0) is None
        journal.append(snapshot(0, 2))
        journal.append(stream(102, 1))
        assert read_all(tmp_path) == [0, 1]
        assert journal.read(2) is None
        journal.append(snapshot(2, 1, close=True))
        assert read_all(tmp_path) == [0, 1, 2, 100, 101, 102]


def test_a_read_from_within_a_block_starts_at_that_row(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append(snapshot(0, 10))
        block = journal.read(7)
    assert block is not None
    assert (ids_of(block), list(block.offsets)) == ([7, 8, 9], [7, 8, 9])


def test_a_closed_lane_takes_no_more_and_a_closed_stream_opens_the_next_generation(
    tmp_path: Path,
) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append(snapshot(0, 1, close=True))
        with pytest.raises(LogError, match="snapshot lane of generation 1 is closed"):
            journal.append(snapshot(1, 1))
        journal.append(stream(10, 1, close=True))
        assert journal.state().stream_closed
        journal.append(stream(20, 1))
        journal.append(snapshot(15, 1))
        state = journal.state()
        assert (state.generation, state.snapshot_closed, state.stream_closed) == (2, False, False)
        assert read_all(tmp_path) == [0, 10, 15]
        journal.append(snapshot(16, 0, close=True))
        assert read_all(tmp_path) == [0, 10, 15, 20]


def test_the_stream_position_falls_back_to_the_previous_generation(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append(snapshot(0, 1, close=True))
        journal.append(stream(10, 1, close=True))
        journal.append(snapshot(15, 1))
        state = journal.state()
        assert state.snapshot_position == {"next": 16}
        assert state.stream_position == {"next": 11}
    with Journal.open(tmp_path) as journal:
        assert journal.state() == state


def test_the_snapshot_position_falls_back_to_the_previous_generation(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append(snapshot(0, 1, close=True))
        journal.append(stream(10, 1, close=True))
        journal.append(stream(20, 1))
        state = journal.state()
        assert (state.generation, state.snapshot_closed) == (2, False)
        assert state.snapshot_position == {"next": 1}
    with Journal.open(tmp_path) as journal:
        assert journal.state() == state


def test_a_position_moves_without_a_block(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append(stream(5, 0))
        journal.append(Batch(Lane.STREAM, {"next": 6}, make_block([])))
    with Journal.open(tmp_path) as journal:
        assert journal.state().stream_position == {"next": 6}
        assert read_all(tmp_path) == []


Steps = st.lists(
    st.tuples(st.sampled_from(Lane), st.integers(0, 4), st.booleans(), st.sampled_from("--r")),
    max_size=25,
)


@given(steps=Steps, segment_bytes=st.sampled_from([1, 100_000, 256 << 20]), at=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_any_sequence_of_batches_and_restarts_is_read_in_order(
    steps: list[tuple[Lane, int, bool, str]], segment_bytes: int, at: int
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder)
        journal = Journal.open(path, segment_bytes=segment_bytes)
        lanes: dict[Lane, list[int]] = {lane: [] for lane in Lane}
        closed: set[Lane] = set()
        done: list[int] = []
        try:
            for number, (lane, rows, close, then) in enumerate(steps):
                if Lane.STREAM in closed:
                    done += lanes[Lane.SNAPSHOT] + lanes[Lane.STREAM]
                    lanes, closed = {lane: [] for lane in Lane}, set()
                count = 0 if lane in closed else rows  # it takes positions still
                ids = range(number * 10, number * 10 + count)
                journal.append(Batch(lane, {"n": number}, make_block(ids, width=400), close))
                state = journal.state()
                stored = {
                    Lane.SNAPSHOT: state.snapshot_position,
                    Lane.STREAM: state.stream_position,
                }
                assert stored[lane] == {"n": number}
                lanes[lane].extend(ids)
                if close:  # an ended generation has no open snapshot
                    closed |= {lane} | ({Lane.SNAPSHOT} if lane is Lane.STREAM else set())
                if then == "r":
                    journal.close()
                    journal = Journal.open(path, segment_bytes=segment_bytes)
            want = done + lanes[Lane.SNAPSHOT]
            if Lane.SNAPSHOT in closed:
                want += lanes[Lane.STREAM]
            assert read_all(path, 0) == want
            assert read_all(path, min(at, len(want))) == want[at:]
        finally:
            journal.close()
        report = verify(path)
        assert report.ok, (report.problems, [s.problems for s in report.segments])
