"""Readers in any process: they never hold up the writer, and cost the same at any size."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cdc.block import key_hash
from cdc.errors import OffsetOutOfRange
from cdc.log import Journal, JournalReader
from cdc.log.files import listing
from cdc.log.segment import WAL_BYTES_MAX
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


def start_reader(path: Path, rows: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", READER, str(path), str(rows)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("segment_bytes", [150_000, 256 << 20])
def test_polling_readers_neither_block_the_writer_nor_let_its_files_grow(
    tmp_path: Path, segment_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal_bytes_max = 1 << 20
    monkeypatch.setattr("cdc.log.journal.WAL_BYTES_MAX", wal_bytes_max)
    batches, rows = 400, 20
    with Journal.open(tmp_path, segment_bytes=segment_bytes) as journal:
        journal.append(snapshot(0, 1, close=True))
        readers = [start_reader(tmp_path, 1 + batches * rows) for _ in range(2)]
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        longest = 0
        for number in range(batches):  # some 8 MB: several times the write-ahead log's limit
            journal.append(stream(1 + number * rows, rows, width=2000))
            logs = [file.stat().st_size for file in tmp_path.glob("*.seg-wal")]
            longest = max(longest, *logs)
        for reader in readers:
            out, _ = reader.communicate()
            assert out == f"{1 + batches * rows}\n"
        # A reader that is in a block when the log could start over puts that off, briefly.
        assert longest < 3 * wal_bytes_max
    assert wal_bytes_max < WAL_BYTES_MAX


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


def _cost(path: Path, offset: int, count: int = 10) -> tuple[int, int]:
    """Segments opened and SQLite instructions run to read ``count`` blocks from an offset."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    with JournalReader(path) as reader:
        for number in range(count):
            span = reader._span_of(offset)
            assert span is not None
            reader._segment(span).connection.set_progress_handler(step, 1)
            block = reader.read(offset)
            assert block is not None
            assert block.offsets[0] == offset, number
            offset += len(block)
        return reader.opened, steps


def test_reading_from_an_offset_costs_the_same_whatever_the_journals_size(tmp_path: Path) -> None:
    # Segments of 150 KB: as many of them as some 60 GB have at their usual size.
    sizes = {"small": 20, "large": 6_000}
    costs = {}
    for name, blocks in sizes.items():
        path = tmp_path / name
        with Journal.open(path, segment_bytes=150_000) as journal:
            journal.append(snapshot(0, 0, close=True))
            for number in range(blocks):
                journal.append(stream(number, 1, width=4000))
        costs[name] = _cost(path, blocks // 2)
    assert len(listing(tmp_path / "large")) > 100
    opened, steps = costs["large"]
    assert opened <= costs["small"][0] + 2
    assert steps <= costs["small"][1] * 1.2


def test_lsns_and_times_are_found_across_segments_and_generations(tmp_path: Path) -> None:
    # Row i of the stream has LSN 1000 + i; a block's commit comes 5 after its last row's, at
    # as many milliseconds as its last row's LSN.
    with Journal.open(tmp_path, segment_bytes=150_000) as journal:
        journal.append(snapshot(0, 10, close=True))
        for number in range(60):
            journal.append(stream(number * 10, 10, width=2000))
        journal.append(stream(600, 10, close=True))
        journal.append(snapshot(0, 10, close=True))
        for number in range(60):
            journal.append(stream(700 + number * 10, 10, width=2000))
    start_us = 1_700_000_000_000_000
    with JournalReader(tmp_path) as reader:
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


def test_only_blocks_that_can_hold_a_key_are_read(tmp_path: Path) -> None:
    with Journal.open(tmp_path, segment_bytes=150_000) as journal:
        journal.append(snapshot(0, 10, close=True))
        for number in range(1, 60):
            journal.append(stream(number * 10, 10, width=2000))
        journal.append(stream(120, 10))
    hashes = {key_hash(SCHEMA.fingerprint, b'{"id":%d}' % i) for i in (4, 124)}
    with JournalReader(tmp_path) as reader:
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
