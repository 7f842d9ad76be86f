"""No space: nothing is stored, nothing is lost, and it goes on once there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cdc.errors import ConfigError, LogFull, OffsetOutOfRange
from cdc.log import Gap, Journal, JournalReader
from cdc.log.files import listing
from cdc.log.verify import verify
from tests.log.rows import read_all, read_by_offset, snapshot, stream
from tests.servers import give_up

MIB = 1 << 20
WIDE = 2000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], check=False).returncode:
        give_up("mounting a small file system takes root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(journal: Journal, first: int = 0) -> int:
    """Append until there is no space; the number of batches that were stored."""
    for number in range(first, first + 1000):
        try:
            journal.append(stream(number * 10, 10, width=WIDE))
        except LogFull:
            return number
    raise AssertionError("it never got full")


@pytest.mark.parametrize("segment_bytes", [256 << 20, 200_000])
def test_a_full_disk_stores_nothing_and_goes_on_after_space_returned(
    small_disk: Path, segment_bytes: int
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2 * MIB))
    with Journal.open(small_disk / "j", segment_bytes=segment_bytes) as journal:
        journal.append(snapshot(0, 0, close=True))
        stored = fill(journal)
        assert stored > 3
        for _ in range(3):
            with pytest.raises(LogFull):
                journal.append(stream(stored * 10, 10, width=WIDE))
        assert journal.state().stream_position == {"next": stored * 10}
        assert read_all(small_disk / "j", 0) == list(range(stored * 10))
        ballast.unlink()
        more = fill(journal, stored)
        assert more > stored
    assert read_all(small_disk / "j", 0) == list(range(more * 10))
    assert verify(small_disk / "j").ok


def test_a_journal_on_a_full_disk_is_opened_and_says_so(small_disk: Path) -> None:
    with Journal.open(small_disk / "j") as journal:
        journal.append(snapshot(0, 10))
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(small_disk).free == 0
    try:
        journal = Journal.open(small_disk / "j")
    except LogFull:
        ballast.unlink()
        journal = Journal.open(small_disk / "j")
    else:
        with pytest.raises(LogFull):
            fill(journal)
        ballast.unlink()
    with journal:
        journal.append(snapshot(10, 10))
    assert read_all(small_disk / "j", 0)[:20] == list(range(20))


def test_policy_drop_makes_room_on_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "j"
    with Journal.open(path, segment_bytes=200_000, full_policy="drop") as journal:
        journal.append(snapshot(0, 0, close=True))
        for number in range(400):
            journal.append(stream(number * 10, 10, width=WIDE))
        assert journal.dropped_segments > 0
    ids = read_by_offset(path)
    assert all(offset == i for offset, i in ids.items())
    assert max(ids) == 3999
    assert verify(path).gaps == [(0, min(ids))]
    assert verify(path).ok


LIMITED = """
import resource, signal, sys
from cdc.log import Journal
from tests.log.rows import stream
from tests.log.test_full import MIB, WIDE, fill

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal.open(sys.argv[1])
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
stored = fill(journal)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
journal.append(stream(stored * 10, 10, width=WIDE))
journal.append(stream(stored * 10 + 10, 10, width=WIDE, close=True))
print(stored)
"""


def test_a_limit_on_file_size_is_no_space_either(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", LIMITED, str(tmp_path)]
    out = subprocess.run(
        arguments,
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    ).stdout
    with Journal.open(tmp_path) as journal:  # the generation ended: close its snapshot lane
        assert journal.state().stream_closed
    assert read_all(tmp_path, 0) == list(range((int(out) + 2) * 10))


def test_an_unwritable_folder_is_no_space(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LogFull, match="file"):
        Journal.open(tmp_path / "file" / "j")


# -- the journal's own budget ------------------------------------------------------------


def test_at_the_budget_the_source_waits_for_the_slowest_sink(memory: Path) -> None:
    needed = 0
    with Journal.open(memory, budget_bytes=2 * MIB, needed=lambda: needed) as journal:
        journal.append(snapshot(0, 0, close=True))
        stored = fill(journal)
        assert sum(file.stat().st_size for file in memory.glob("*.seg*")) < 2.5 * MIB
        with pytest.raises(LogFull, match="used its budget"):
            journal.append(stream(stored * 10, 10, width=WIDE))
        needed = stored * 5
        more = fill(journal, stored)
        assert more > stored
        with JournalReader(memory) as reader:
            oldest, after = reader.bounds()
            assert 0 < oldest <= needed
            assert after == more * 10
            assert reader.gaps() == []


def test_at_the_budget_policy_drop_leaves_a_gap_that_readers_see(memory: Path) -> None:
    options = {"budget_bytes": 2 * MIB, "full_policy": "drop", "needed": lambda: 0}
    with Journal.open(memory, **options) as journal:
        journal.append(snapshot(0, 0, close=True))
        for number in range(200):
            journal.append(stream(number * 10, 10, width=WIDE))
        assert journal.size_bytes <= 2 * MIB
        assert journal.dropped_segments > 0
        reader = JournalReader(memory)
        with pytest.raises(Gap) as raised:
            reader.read(7)
        gap = raised.value
        assert (gap.start, gap.end) == (0, reader.bounds()[0])
        assert [(gap.start, gap.end)] == reader.gaps()
        assert isinstance(gap, OffsetOutOfRange)
        block = reader.read(gap.end)
        assert block is not None
        assert block.offsets[0] == gap.end
        reader.close()
    with Journal.open(memory, **options) as journal, pytest.raises(Gap):
        journal.read(7)


def test_an_open_snapshot_outlives_the_stream_that_is_dropped_behind_it(memory: Path) -> None:
    options = {"budget_bytes": 2 * MIB, "full_policy": "drop", "needed": lambda: 0}
    with Journal.open(memory, **options) as journal:
        journal.append(snapshot(0, 5))
        for number in range(200):
            journal.append(stream(1000 + number * 10, 10, width=WIDE))
        journal.append(snapshot(5, 5, close=True))
        with JournalReader(memory) as reader:
            assert reader.bounds() == (0, 2010)
            ((start, end),) = reader.gaps()
            assert start == 10
            with pytest.raises(Gap):
                reader.read(10)
            block = reader.read(end)
            assert block is not None
    ids = read_by_offset(memory)
    assert [ids[offset] for offset in range(10)] == list(range(10))
    assert ids[end] == 1000 + end - 10
    assert verify(memory).ok


def test_a_gap_is_forgotten_when_retention_would_have_taken_it_anyway(memory: Path) -> None:
    options = {"budget_bytes": 2 * MIB, "full_policy": "drop"}
    with Journal.open(memory, needed=lambda: 0, **options) as journal:
        journal.append(snapshot(0, 0, close=True))
        for number in range(200):
            journal.append(stream(number * 10, 10, width=WIDE))
    with Journal.open(memory, retention_ms=0, **options) as journal:
        journal.retain()
        assert not any(entry.gap for entry in listing(memory))
        with JournalReader(memory) as reader, pytest.raises(OffsetOutOfRange) as raised:
            reader.read(0)
        assert not isinstance(raised.value, Gap)


def test_an_unknown_policy_is_refused_by_its_key(memory: Path) -> None:
    with pytest.raises(ConfigError, match=r"journal\.full\.policy: 'drip' is not wait or drop"):
        Journal.open(memory, full_policy="drip")


def test_a_budget_below_zero_is_refused_by_its_key(memory: Path) -> None:
    with pytest.raises(ConfigError, match=r"journal\.budget\.bytes"):
        Journal.open(memory, budget_bytes=-1)
