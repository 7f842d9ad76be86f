"""One writer at a time; older formats are continued, newer ones refused."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from cdc.block import key_hash
from cdc.errors import LogFull, LogLocked, LogVersion
from cdc.log import Journal, JournalReader
from cdc.log import format as segment_format
from cdc.log import journal as journal_module
from cdc.log.files import listing
from cdc.log.segment import SegmentReader
from cdc.log.verify import info, prune, verify
from tests.log.rows import OTHER, SCHEMA, ids_of, read_all, snapshot, stream

DATA = Path(__file__).parents[1] / "data" / "journals"


def test_a_second_writer_is_refused_by_the_first_ones_pid(tmp_path: Path) -> None:
    message = f"written by process {os.getpid()}"
    with Journal.open(tmp_path), pytest.raises(LogLocked, match=message):
        Journal.open(tmp_path)


def test_pruning_from_outside_is_refused_while_a_writer_runs(tmp_path: Path) -> None:
    with Journal.open(tmp_path), pytest.raises(LogLocked):
        prune(tmp_path, 5)


def test_the_lock_goes_with_the_process_that_holds_it(tmp_path: Path) -> None:
    program = "import sys, time; from cdc.log import Journal; j = Journal.open(sys.argv[1]); "
    program += "print('open', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(LogLocked, match=f"written by process {other.pid}"):
            Journal.open(tmp_path)
        other.kill()
    Journal.open(tmp_path).close()


@pytest.mark.parametrize("number", [1, 2])
def test_what_an_older_version_wrote_is_read_searched_and_continued(
    tmp_path: Path, number: int
) -> None:
    """Segments as the code of their time left them: the first format, and the second before
    journals had an identity. They hold a closed snapshot of 0 to 2 and two stream batches.
    """
    with tarfile.open(DATA / f"format-{number}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    old = {entry.file for entry in listing(tmp_path)}
    assert len(old) == 3
    report = verify(tmp_path)
    assert report.ok
    assert {segment.format for segment in report.segments} == {number}
    assert read_all(tmp_path, 0) == [0, 1, 2, 10, 11, 12, 20, 21, 22]
    # they are old: what retention thinks of that is not the question here
    with Journal.open(tmp_path, segment_bytes=1, retention_ms=None) as journal:
        state = journal.state()
        assert (state.snapshot_closed, state.stream_position) == (True, {"next": 23})
        journal.append(stream(30, 3))
        journal.append(stream(40, 3))
    newest = segment_format.SEGMENT_FORMAT
    streamed = [first + i for first in (10, 20, 30, 40) for i in range(3)]
    assert read_all(tmp_path, 0) == [0, 1, 2, *streamed]
    formats = {segment.name: segment.format for segment in info(tmp_path).segments}
    assert {formats.pop(name) for name in old} == {number}
    assert set(formats.values()) == {newest}
    assert verify(tmp_path).ok
    with JournalReader(tmp_path) as reader:
        for wanted in (2, 21, 40):
            key = b'{"id":%d}' % wanted
            hashes = {key_hash(schema.fingerprint, key) for schema in (SCHEMA, OTHER)}
            assert any(wanted in ids_of(block) for block in reader.blocks_with(hashes))


def test_an_older_format_is_read_and_continued_in_new_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append(snapshot(0, 3, close=True))
        journal.append(stream(10, 3))
        state = journal.state()
    old = {entry.file: (tmp_path / entry.file).read_bytes() for entry in listing(tmp_path)}
    newer = segment_format.SEGMENT_FORMAT + 1
    monkeypatch.setattr(segment_format, "SEGMENT_FORMAT", newer)
    with Journal.open(tmp_path) as journal:
        assert journal.state() == state
        journal.append(stream(20, 3))
    assert read_all(tmp_path, 0) == [0, 1, 2, 10, 11, 12, 20, 21, 22]
    formats = {s.name: s.format for s in info(tmp_path).segments}
    assert {formats.pop(name) for name in old} == {newer - 1}
    assert set(formats.values()) == {newer}
    assert verify(tmp_path).ok


def test_an_older_format_without_a_row_is_continued_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append(stream(10, 0))
    monkeypatch.setattr(segment_format, "SEGMENT_FORMAT", segment_format.SEGMENT_FORMAT + 1)
    with Journal.open(tmp_path) as journal:
        journal.append(snapshot(0, 1, close=True))
        journal.append(stream(10, 1))
    assert read_all(tmp_path, 0) == [0, 10]


def test_an_older_format_is_not_written_to_while_a_reader_is_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "ROLL_RETRY_S", 0.0)
    with Journal.open(tmp_path) as journal:
        journal.append(snapshot(0, 3, close=True))
        journal.append(stream(10, 3))
    monkeypatch.setattr(segment_format, "SEGMENT_FORMAT", segment_format.SEGMENT_FORMAT + 1)
    files = listing(tmp_path)
    with SegmentReader(tmp_path, files[-1]) as reader:  # a backup, for one
        reader.connection.execute("BEGIN")
        reader.state()
        with Journal.open(tmp_path) as journal:
            with pytest.raises(LogFull, match="no reader is in the way"):
                journal.append(stream(20, 3))
            assert listing(tmp_path) == files
            reader.connection.execute("COMMIT")
            journal.append(stream(20, 3))
    assert read_all(tmp_path, 0) == [0, 1, 2, 10, 11, 12, 20, 21, 22]
    assert all(segment.sealed for segment in info(tmp_path).segments[:-1])


def test_a_newer_format_is_refused_by_name_and_both_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = segment_format.SEGMENT_FORMAT
    monkeypatch.setattr(segment_format, "SEGMENT_FORMAT", known + 6)
    with Journal.open(tmp_path) as journal:
        journal.append(snapshot(0, 3))
    monkeypatch.undo()
    before = {file.name: file.read_bytes() for file in tmp_path.glob("*.seg")}
    message = rf"00000001-0-000001-.*\.seg has format {known + 6}, this version knows {known}"
    with pytest.raises(LogVersion, match=message):
        Journal.open(tmp_path)
    with pytest.raises(LogVersion, match=message), JournalReader(tmp_path) as reader:
        reader.read(0)
    assert before == {file.name: file.read_bytes() for file in tmp_path.glob("*.seg")}
