"""Only a lack of space takes segments; any other failure waits and takes none."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cdc.errors import LogFull
from cdc.log import Gap, Journal, JournalReader, files, retention
from cdc.log.files import listing
from cdc.log.format import NoSpace, translate
from cdc.metrics import JOURNAL_DROPPED_RECORDS
from cdc.runtime.source_loop import SourceLoop
from tests.log.rows import read_all, snapshot, stream

PASSED = 10**9


def filled(path: Path, **options: Any) -> Journal:
    journal = Journal.open(path, segment_bytes=150_000, **options)
    journal.append(snapshot(0, 0, close=True))
    for number in range(42):
        journal.append(stream(number * 10, 10, width=2000))
    return journal


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("unable")
    error.sqlite_errorcode = code
    return error


def failing(monkeypatch: pytest.MonkeyPatch, journal: Journal, error: Exception) -> None:
    """The stream lane's next append fails so, the one after works."""
    lane = journal._lanes[1]
    append, errors = lane.append, [error]

    def once(*args: Any, **kwargs: Any) -> None:
        if errors:
            raise errors.pop()
        append(*args, **kwargs)

    monkeypatch.setattr(lane, "append", once)


OTHERS = [
    OSError(errno.EMFILE, "too many open files"),
    OSError(errno.EACCES, "permission denied"),
    OSError(errno.EIO, "input/output error"),
    sqlite_error(sqlite3.SQLITE_CANTOPEN),
    sqlite_error(sqlite3.SQLITE_READONLY),
    sqlite_error(sqlite3.SQLITE_IOERR_WRITE),
]


@pytest.mark.parametrize("error", OTHERS, ids=str)
@pytest.mark.parametrize(("policy", "needed"), [("drop", 0), ("wait", PASSED)])
def test_what_is_no_lack_of_space_waits_and_takes_no_segment(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    policy: str,
    needed: int,
) -> None:
    with filled(tmp_path, full_policy=policy, needed=lambda: needed) as journal:
        before = listing(tmp_path)
        failing(monkeypatch, journal, error)
        with pytest.raises(LogFull) as raised:
            journal.append(stream(420, 10))
        assert not isinstance(raised.value, NoSpace)
        assert listing(tmp_path) == before
        journal.append(stream(420, 10))
    assert read_all(tmp_path, 0) == list(range(430))


def test_too_many_open_files_take_no_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(tmp_path, full_policy="drop", needed=lambda: 0) as journal:
        before = listing(tmp_path)
        monkeypatch.setattr(journal, "_segment_bytes", 0)  # the next append rolls
        taken = []
        try:
            with suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            with pytest.raises(LogFull):
                journal.append(stream(420, 10))
        finally:
            for fd in taken:
                os.close(fd)
        assert [entry for entry in listing(tmp_path) if entry.gap] == []
        assert set(before) <= set(listing(tmp_path))
        journal.append(stream(420, 10))
    assert read_all(tmp_path, 0) == list(range(430))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "no space left"),
        OSError(errno.EDQUOT, "quota exceeded"),
        sqlite_error(sqlite3.SQLITE_FULL),
    ],
    ids=str,
)
def test_a_lack_of_space_takes_what_every_sink_has_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with filled(tmp_path, needed=lambda: PASSED) as journal:
        before = listing(tmp_path)
        failing(monkeypatch, journal, error)
        journal.append(stream(420, 10))
        assert len(listing(tmp_path)) == len(before) - 1


def test_a_quota_that_sqlite_calls_a_write_error_is_found_by_trying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(tmp_path, full_policy="drop", needed=lambda: 0) as journal:
        failing(monkeypatch, journal, sqlite_error(sqlite3.SQLITE_IOERR_WRITE))
        monkeypatch.setattr("cdc.log.journal.lacks_space", lambda *_: True)
        journal.append(stream(420, 10))
        assert journal.dropped_segments == 1
        assert journal.dropped_rows > 0
        with JournalReader(tmp_path) as reader:
            ((start, end),) = reader.gaps()
        assert journal.dropped_rows == end - start
        measured = SourceLoop(None, journal).metrics()  # type: ignore[arg-type]
        assert measured[JOURNAL_DROPPED_RECORDS] == end - start


def test_the_trial_leaves_nothing_and_knows_its_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not files.lacks_space(tmp_path, 1000)
    assert not files.lacks_space(tmp_path / "none", 1000)
    assert list(tmp_path.iterdir()) == []
    for code, lacks in ((errno.EDQUOT, True), (errno.ENOSPC, True), (errno.EIO, False)):

        def fsync(_: int, code: int = code) -> None:
            raise OSError(code, "x")

        monkeypatch.setattr(os, "fsync", fsync)
        assert files.lacks_space(tmp_path, 1000) is lacks
    assert list(tmp_path.iterdir()) == []


def test_the_remedy_says_which_of_the_two_it_is(tmp_path: Path) -> None:
    assert "free space or raise" in str(translate(OSError(errno.ENOSPC, "full"), tmp_path))
    assert "mend what keeps it" in str(translate(OSError(errno.EMFILE, "many"), tmp_path))


# -- damage in the way -------------------------------------------------------------------


def damaged(path: Path, **options: Any) -> Journal:
    """A journal whose first generation's end cannot be read."""
    journal = filled(path, **options)
    journal.append(stream(420, 1, close=True))
    journal.append(stream(500, 1))
    victim = [e for e in listing(path) if e.generation == 1 and e.lane == 1][-1]
    (path / victim.file).write_bytes(b"x" * 50_000)
    return journal


def test_retention_that_meets_damage_is_logged_once_and_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with damaged(tmp_path, retention_ms=0) as journal:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            for _ in range(3):
                assert journal.retain() == []
        assert len(caplog.records) == 1
        journal.append(stream(501, 1))


def test_retention_that_meets_an_unreadable_folder_raises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with filled(tmp_path, retention_ms=0, needed=lambda: PASSED) as journal:

        def refuse() -> list[str]:
            raise OSError(errno.EMFILE, "too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(journal.retention, "retain", refuse)
            assert journal.retain() == []
        with caplog.at_level(logging.INFO):
            journal.retain()
        assert "works again" in caplog.text


@pytest.mark.parametrize("policy", ["wait", "drop"])
def test_damage_does_not_fail_a_source_that_is_out_of_space(tmp_path: Path, policy: str) -> None:
    with damaged(tmp_path, full_policy=policy, needed=lambda: 0, budget_bytes=16 << 20) as journal:
        journal.retention.size_bytes += 16 << 20
        if policy == "wait":
            with pytest.raises(LogFull, match="budget"):
                journal.append(stream(501, 1))
        else:
            assert journal.retention.free_one()
            assert journal.dropped_segments == 1


# -- the gap mark ------------------------------------------------------------------------


def test_the_gap_mark_is_durable_before_the_segment_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    remove = files.remove_segment
    with filled(tmp_path, full_policy="drop", needed=lambda: 0) as journal:

        def synced(_: Path) -> None:
            assert any(file.suffix == ".gap" for file in tmp_path.iterdir())
            steps.append("sync")

        def removed(path: Path) -> None:
            steps.append("remove")
            remove(path)

        monkeypatch.setattr(retention, "sync", synced, raising=False)
        monkeypatch.setattr(retention, "remove_segment", removed)
        assert journal.retention.free_one()
    assert steps == ["sync", "remove"]


def test_where_no_mark_fits_the_segment_becomes_it_and_its_readers_learn_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(tmp_path, full_policy="drop", needed=lambda: 0) as journal:
        reader = JournalReader(tmp_path)
        assert reader.read(0) is not None
        touch = Path.touch

        def refuse(path: Path, *args: Any, **kwargs: Any) -> None:
            if path.suffix == ".gap":
                raise OSError(errno.ENOSPC, "no space left")
            touch(path, *args, **kwargs)

        monkeypatch.setattr(Path, "touch", refuse)
        entries = listing(tmp_path)
        assert journal.retention.free_one()
        (gap,) = [entry for entry in listing(tmp_path) if entry.gap]
        assert (tmp_path / gap.file).stat().st_size == 0
        assert gap[:4] in [entry[:4] for entry in entries]
        assert (gap.lane, gap.first) == (1, 0)
        with pytest.raises(Gap):
            reader.read(20)
        reader.close()


def test_a_mark_that_a_crash_left_unemptied_is_emptied(tmp_path: Path) -> None:
    filled(tmp_path).close()
    entry = next(entry for entry in listing(tmp_path) if entry.lane == 1)
    gap = tmp_path / entry._replace(gap=True).file
    (tmp_path / entry.file).rename(gap)
    with Journal.open(tmp_path):
        assert gap.stat().st_size == 0
