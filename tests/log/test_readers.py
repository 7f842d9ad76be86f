"""Readers in any process: they never hold up the writer, and cost the same at any size."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cdc import failpoints
from cdc.api import Batch, Lane
from cdc.block import key_hash
from cdc.errors import LogError, OffsetOutOfRange
from cdc.log import Journal, JournalReader
from cdc.log.files import listing
from cdc.log.format import BUSY_MS
from cdc.log.segment import WAL_BYTES_MAX
from tests.blocks import INT32, Source
from tests.guard import guarded
from tests.log.rows import SCHEMA, ids_of, read_all, snapshot, stream

READER = """
import sys
from cdc.log import JournalReader
from tests.log.rows import ids_of

at, ids = 0, []
with JournalReader(sys.argv[1]) as reader:
    print("ready", flush=True)
    while at < int(sys.argv[2]):
        block = reader.read(at)
        if block is None:
            reader.wait(0.001)
            continue
        assert list(block.offsets) == list(range(at, at + len(block)))
        ids += ids_of(block)
        at += len(block)
assert ids == sorted(ids), ids
print(len(ids))
"""

# Within the transaction of a block for as long as its standard input is open.
SLOW_READER = """
import sys
from cdc.log import JournalReader

with JournalReader(sys.argv[1]) as reader:
    for _, segment in reader._open.items():
        segment.connection.execute("BEGIN")
        segment.block_at(0)
    print("ready", flush=True)
    sys.stdin.read()
"""


def start_reader(path: Path, rows: int = 0, program: str = READER) -> subprocess.Popen[str]:
    reader = subprocess.Popen(
        [sys.executable, "-c", program, str(path), str(rows)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    return guarded(reader)


def append_s(journal: Journal, batch: Batch) -> float:
    """How long an append took."""
    began = time.monotonic()
    journal.append(batch)
    return time.monotonic() - began


@pytest.mark.parametrize("segment_bytes", [150_000, 256 << 20])
def test_polling_readers_neither_block_the_writer_nor_let_its_files_grow(
    tmp_path: Path, segment_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal_bytes_max = 1 << 20
    monkeypatch.setattr("cdc.log.journal.WAL_BYTES_MAX", wal_bytes_max)
    batches, rows = 200, 20
    with Journal.open(tmp_path, segment_bytes=segment_bytes) as journal:
        journal.append(snapshot(0, 1, close=True))
        readers = [start_reader(tmp_path, 1 + batches * rows) for _ in range(2)]
        longest, slowest_s = 0, 0.0
        for number in range(batches):  # some 8 MB of it: several times the write-ahead log's limit
            batch = stream(1 + number * rows, rows, width=2000)
            slowest_s = max(slowest_s, append_s(journal, batch))
            logs = [file.stat().st_size for file in tmp_path.glob("*.seg-wal")]
            longest = max(longest, *logs)
        for reader in readers:
            out, _ = reader.communicate()
            assert out == f"{1 + batches * rows}\n"
        # A reader that is in a block when the log could start over puts that off, briefly.
        assert longest < 3 * wal_bytes_max
        assert slowest_s < BUSY_MS / 1000  # what a lock held by a reader would cost
    assert wal_bytes_max < WAL_BYTES_MAX


def test_a_reader_that_is_held_within_a_block_makes_no_append_wait(tmp_path: Path) -> None:
    with Journal.open(tmp_path, segment_bytes=150_000) as journal:
        journal.append(snapshot(0, 0, close=True))
        journal.append(stream(0, 10))
        with start_reader(tmp_path, program=SLOW_READER) as reader:
            taken_s = [append_s(journal, stream(n * 10, 10, width=2000)) for n in range(1, 20)]
            assert reader.poll() is None
            assert listing(tmp_path)[-1].sequence == 1  # due to be sealed, once it has left
            reader.communicate()
        assert max(taken_s) < BUSY_MS / 1000
        assert journal.read(0) is not None
    assert read_all(tmp_path) == list(range(200))


def test_a_reader_at_rest_holds_no_transaction(tmp_path: Path) -> None:
    with (
        Journal.open(tmp_path, budget_bytes=64 << 20) as journal,
        JournalReader(tmp_path) as reader,
    ):
        journal.append(snapshot(0, 10))
        assert reader.read(5) is not None
        assert reader.read(10) is None
        reader.wait(0)
        segment = journal._lanes[0]
        assert segment._checkpoint()  # TRUNCATE succeeds only if no reader is within


def test_a_reader_is_woken_by_the_next_block(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal, JournalReader(tmp_path) as reader:
        journal.append(snapshot(0, 1))
        assert reader.wait(0)
        assert not reader.wait(0.01)
        timer = threading.Timer(0.05, journal.append, [snapshot(1, 1)])
        timer.start()
        assert reader.wait(30)
        timer.join()
        assert reader.read(1) is not None
        journal.append(snapshot(2, 0, close=True))
        assert reader.wait(30)


def test_an_offset_beyond_the_end_is_out_of_range(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal, JournalReader(tmp_path) as reader:
        with pytest.raises(OffsetOutOfRange, match="its next offset is 0"):
            reader.read(1)
        journal.append(snapshot(0, 5))
        assert reader.read(5) is None
        with pytest.raises(OffsetOutOfRange, match="it holds 0 to 4"):
            reader.read(6)


class Looked(list[int]):
    """Offsets at which segments start; counts how many of them a search looks at."""

    looks = 0

    def __getitem__(self, index: Any) -> Any:
        self.looks += 1
        return super().__getitem__(index)


class Cost(NamedTuple):
    """What it took to open a journal and to read blocks from an offset on."""

    folders: int  # times a folder was read
    names: int  # which it held
    looks: int  # at the starts of segments
    opened: int  # segments
    steps: int  # instructions of SQLite


def _cost(path: Path, offset: int, monkeypatch: pytest.MonkeyPatch, count: int = 10) -> Cost:
    """What reading ``count`` blocks from an offset costs, with opening the journal."""
    steps = 0
    names: list[int] = []

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def read_folder(list_names: Callable[[Any], list[str]], folder: Any) -> list[str]:
        found = list_names(folder)
        names.append(len(found))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", partial(read_folder, os.listdir))
        patch.setattr(os, "scandir", None)  # no other way to read a folder
        with JournalReader(path) as reader:
            reader._starts = starts = Looked(reader._starts)
            for number in range(count):
                span = reader._span_of(offset)
                assert span is not None
                reader._segment(span).connection.set_progress_handler(step, 1)
                block = reader.read(offset)
                assert block is not None
                assert block.offsets[0] == offset, number
                offset += len(block)
            assert reader._starts is starts
            return Cost(len(names), sum(names), starts.looks, reader.opened, steps)


def test_reading_from_an_offset_costs_the_same_whatever_the_journals_size(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is read once, when the journal is opened: a name a segment, 400 for 100 GB.

    From then on a read is a search by halves among the segments' starts, which are in memory.
    """
    monkeypatch.setattr(Journal, "retain", lambda _: [])  # it looks at all segments at each roll
    sizes = {"small": 20, "large": 420}
    costs = {}
    for name, blocks in sizes.items():
        with Journal.open(memory / name, segment_bytes=1) as journal:  # a segment for each block
            journal.append(snapshot(0, 0, close=True))
            for number in range(blocks):
                journal.append(stream(number, 1))
        costs[name] = _cost(memory / name, blocks // 2, monkeypatch)
    small, large = costs["small"], costs["large"]
    segments = len(listing(memory / "large"))
    assert segments > 400
    assert large.folders == small.folders == 1
    assert large.names == segments + 1  # and the lock
    assert large.looks <= 2 * 10 * math.ceil(math.log2(segments + 1) + 1)
    assert large.opened == small.opened
    assert large.steps <= small.steps * 1.1


def test_lsns_and_times_are_found_across_segments_and_generations(memory: Path) -> None:
    # Row i of the stream has LSN 1000 + i; a block's commit comes 5 after its last row's, at
    # as many milliseconds as its last row's LSN.
    with Journal.open(memory, segment_bytes=150_000) as journal:
        journal.append(snapshot(0, 10, close=True))
        for number in range(60):
            journal.append(stream(number * 10, 10, width=2000))
        journal.append(stream(600, 10, close=True))
        journal.append(snapshot(0, 10, close=True))
        for number in range(60):
            journal.append(stream(700 + number * 10, 10, width=2000))
    start_us = 1_700_000_000_000_000
    with JournalReader(memory) as reader:
        for number in (*range(61), *range(70, 130)):
            offset = 10 + number * 10 if number <= 60 else 630 + (number - 70) * 10
            commit_lsn = 1000 + number * 10 + 9 + 5
            assert reader.first_offset_at_lsn(commit_lsn) == offset
            assert reader.first_offset_at_lsn(commit_lsn - 9) == offset
            commit_us = start_us + (1000 + number * 10 + 9) * 1000
            assert reader.first_offset_at_time(commit_us) == offset
            assert reader.first_offset_at_time(commit_us - 9999) == offset
        assert reader.first_offset_at_lsn(0) == 10
        assert reader.first_offset_at_lsn(10**9) == reader.bounds()[1]
        assert reader.first_offset_at_time(2 * start_us) == reader.bounds()[1]


def test_only_blocks_that_can_hold_a_key_are_read(memory: Path) -> None:
    with Journal.open(memory, segment_bytes=150_000) as journal:
        journal.append(snapshot(0, 10, close=True))
        for number in range(1, 60):
            journal.append(stream(number * 10, 10, width=2000))
        journal.append(stream(120, 10))
    hashes = {key_hash(SCHEMA.fingerprint, b'{"id":%d}' % i) for i in (4, 124)}
    with JournalReader(memory) as reader:
        blocks = list(reader.blocks_with(hashes))
        assert [ids_of(block)[0] for block in blocks] == [0, 120, 120]
        assert list(reader.blocks_with(hashes, first=130, end=600)) == []
        (within,) = reader.blocks_with(hashes, first=122, end=600)
        assert ids_of(within) == list(range(122, 130))
        assert list(reader.blocks_with(set())) == []


def test_the_writers_read_follows_its_own_appends(tmp_path: Path) -> None:
    with Journal.open(tmp_path, segment_seconds=0) as journal:
        journal.append(snapshot(0, 1, close=True))
        for number in range(1, 20):
            assert journal.read(number) is None
            journal.append(stream(number, 1))
            block = journal.read(number)
            assert block is not None
            assert ids_of(block) == [number]
    assert read_all(tmp_path, 0) == list(range(20))


@pytest.mark.parametrize("step", ["before_change", "after_change"])
def test_a_position_that_was_noted_in_part_ends_no_journal(tmp_path: Path, step: str) -> None:
    """Behind the snapshot's rows, which retention has taken, there are two empty segments then."""
    source = Source()
    table = source.table("t", id=INT32)
    point = f"journal.note.{step}"
    with Journal.open(tmp_path, segment_bytes=1) as journal:
        for lane, position in ((Lane.SNAPSHOT, {}), (Lane.STREAM, {}), (Lane.STREAM, {})):
            source.insert(table, id=source.offset)
            close = lane is Lane.SNAPSHOT
            journal.append(Batch(lane, position, source.block(), close=close))
        journal.append(Batch(Lane.SNAPSHOT, {"n": 1}, None, close=True))
        assert journal.prune(2)
        failpoints.arm(f"{point}=error")
        try:
            with pytest.raises(LogError):
                journal.append(Batch(Lane.SNAPSHOT, {"n": 2}, None, close=True))
        finally:
            failpoints.arm("")
        assert len([e for e in listing(tmp_path) if e.lane == 0]) == 2
        with JournalReader(tmp_path) as reader:
            assert reader.bounds() == (2, 3)
            found = reader.read(2)
            assert found is not None
            assert list(found.offsets) == [2]
            with pytest.raises(OffsetOutOfRange, match="oldest offset there is: 2"):
                reader.read(1)


def test_a_search_that_retention_overtakes_finds_its_place(memory: Path) -> None:
    with Journal.open(memory, segment_bytes=1) as journal:
        journal.append(snapshot(0, 1, close=True))
        for number in range(1, 13):
            journal.append(stream(number, 1))

        class Overtaken(JournalReader):
            """Segments go between its look at the folder and its first look into one."""

            def bounds(self) -> tuple[int, int]:
                found = super().bounds()
                journal.prune(10)
                return found

        with Overtaken(memory) as reader:
            assert reader.first_offset_at_lsn(1000 + 11 + 5) == 11
