"""A damaged byte is found, its segment is named, and the others are read."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from cdc.errors import LogCorrupt, LogError
from cdc.log import Journal, JournalReader
from cdc.log.files import listing
from cdc.log.verify import verify
from tests.log.rows import read_all, snapshot, stream

FLIPS = 80


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of several sealed segments."""
    path = tmp_path_factory.mktemp("journal")
    with Journal.open(path, segment_bytes=150_000) as journal:
        journal.append(snapshot(0, 20, width=2000, close=True))
        for number in range(1, 20):
            journal.append(stream(number * 100, 20, width=2000))
    return path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def sealed_stream_segment(path: Path) -> Path:
    return path / [e for e in listing(path) if e.lane == 1][1].file


def test_a_flipped_byte_either_does_not_matter_or_is_found_where_it_lies(
    whole: Path, copy: Path
) -> None:
    want = read_all(whole, 0)
    victim = sealed_stream_segment(copy)
    original = victim.read_bytes()
    source = random.Random(1)
    found = 0
    for _ in range(FLIPS):
        damaged = bytearray(original)
        damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
        victim.write_bytes(damaged)
        report = verify(copy)
        bad = [segment.name for segment in report.segments if not segment.ok]
        if bad:
            found += 1
            assert bad == [victim.name]
        else:  # unused space in a page
            assert read_all(copy, 0) == want
    assert found > FLIPS / 4


def test_a_damaged_block_is_named_and_its_neighbours_are_read(copy: Path) -> None:
    victim = sealed_stream_segment(copy)
    with sqlite3.connect(victim) as db:
        ((start, body),) = db.execute("SELECT start, body FROM blocks LIMIT 1 OFFSET 1").fetchall()
        torn = body[:100] + b"\x00" + body[101:]
        db.execute("UPDATE blocks SET body = ? WHERE start = ?", (torn, start))
    db.close()
    (bad,) = [segment for segment in verify(copy).segments if not segment.ok]
    assert bad.name == victim.name
    assert bad.problems == [f"block at row {start}: checksum does not match"]
    with JournalReader(copy) as reader:
        offset = start + 20  # after the snapshot's rows
        with pytest.raises(LogCorrupt, match=victim.name):
            reader.read(offset)
        assert reader.read(offset - 20) is not None
        assert reader.read(offset + 20) is not None


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE blocks SET commit_us = commit_us + 1 WHERE rowid = 0", "index is damaged"),
        ("UPDATE blocks SET filter = x'00' WHERE rowid = 0", "key filter is damaged"),
        ("UPDATE schemas SET json = replace(json, 'srv', 'srw')", "is damaged"),
        ("DELETE FROM schemas", "schema .* is damaged"),
        ("UPDATE meta SET value = value + 1 WHERE key = 'created_ms'", "meta 'created_ms'"),
        ("UPDATE position SET position = x'7b7d'", "position is damaged"),
        ("UPDATE position SET next = next + 1", "position is damaged"),
        ("DELETE FROM position", "position is missing"),
        ("DELETE FROM blocks WHERE start = 0", "rows 0 to 19 are missing"),
    ],
)
def test_whatever_is_damaged_is_named(copy: Path, statement: str, problem: str) -> None:
    victim = copy / next(e for e in listing(copy) if e.lane == 1).file
    with sqlite3.connect(victim) as db:
        db.execute(statement)
    db.close()
    report = verify(copy)
    (bad,) = [segment for segment in report.segments if not segment.ok]
    assert bad.name == victim.name
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError("\n".join(bad.problems))


def test_a_missing_segment_is_named_and_a_reader_does_not_skip_it(copy: Path) -> None:
    victim = sealed_stream_segment(copy)
    first = next(e for e in listing(copy) if e.file == victim.name).first
    victim.unlink()
    assert any("are missing between" in problem for problem in verify(copy).problems)
    with JournalReader(copy) as reader, pytest.raises(LogCorrupt, match="is missing between"):
        reader.read(20 + first)


def test_a_damaged_tail_is_refused_at_open(copy: Path) -> None:
    newest = copy / listing(copy)[-1].file
    with sqlite3.connect(newest) as db:
        db.execute("UPDATE blocks SET header = x'00' WHERE start = (SELECT max(start) FROM blocks)")
    db.close()
    with pytest.raises(LogCorrupt, match=newest.name):
        Journal.open(copy)


def test_a_file_that_is_no_segment_at_all_is_named(copy: Path) -> None:
    newest = copy / listing(copy)[-1].file
    newest.write_bytes(b"not a database, not at all" * 1000)
    with pytest.raises(LogCorrupt, match=newest.name):
        Journal.open(copy)
    assert [s.name for s in verify(copy).segments if not s.ok] == [newest.name]


def test_random_damage_ends_in_a_block_or_a_log_error(whole: Path, copy: Path) -> None:
    victim = sealed_stream_segment(copy)
    original = victim.read_bytes()
    source = random.Random(2)
    entry = next(e for e in listing(copy) if e.file == victim.name)
    for _ in range(FLIPS):
        damaged = bytearray(original)
        for _ in range(5):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        victim.write_bytes(damaged)
        with JournalReader(copy) as reader:
            try:
                block = reader.read(20 + entry.first)
            except LogError:
                continue
            assert block is not None
            assert list(block.keys)


def test_a_damaged_old_segment_does_not_stop_the_writer(copy: Path) -> None:
    oldest = copy / next(e for e in listing(copy) if e.lane == 1).file
    oldest.write_bytes(b"not a database, not at all" * 1000)
    with Journal.open(copy, segment_bytes=150_000) as journal:
        for number in range(20, 40):
            journal.append(stream(number * 100, 20, width=2000))
    with JournalReader(copy) as reader:
        oldest_offset, after = reader.bounds()
        assert reader.read(after - 1) is not None
        with pytest.raises(LogCorrupt, match=oldest.name):
            reader.read(20)
    assert oldest_offset == 0


def test_verify_beside_a_running_writer_finds_nothing_wrong(memory: Path) -> None:
    def write() -> None:
        with Journal.open(memory, segment_bytes=150_000) as journal:
            journal.append(snapshot(0, 5, close=True))
            for number in range(1, 80):
                journal.append(stream(number * 100, 20, width=2000))

    writer = threading.Thread(target=write)
    writer.start()
    reports = [verify(memory)]
    while writer.is_alive():
        reports.append(verify(memory))
    writer.join()
    for report in reports:
        assert report.ok, (report.problems, [s.problems for s in report.segments])
