"""A journal has an identity from its first segment on; it survives all but its removal."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from uuid import UUID

import pytest

from cdc.errors import LogError
from cdc.log import Journal
from cdc.log import format as segment_format
from cdc.log.backup import backup
from cdc.log.files import listing
from cdc.log.identity import identity_of
from cdc.log.verify import info, verify
from tests.log.rows import snapshot, stream


def filled(path: Path) -> str:
    """A journal of several segments and two generations; its identity."""
    with Journal.open(path, segment_bytes=150_000) as journal:
        journal.append(snapshot(0, 10, close=True))
        for number in range(30):
            journal.append(stream(number * 10, 10, width=2000))
        journal.append(stream(300, 1, close=True))
        journal.append(snapshot(400, 1, close=True))
        return journal.identity


def forget(path: Path) -> None:
    """As a version before there were identities wrote it."""
    for entry in listing(path):
        with sqlite3.connect(path / entry.file) as connection:
            connection.execute("DELETE FROM meta WHERE key = 'identity'")
        connection.close()


def test_every_segment_says_whose_it_is_and_opening_again_changes_nothing(tmp_path: Path) -> None:
    assert identity_of(tmp_path) is None
    identity = filled(tmp_path)
    assert str(UUID(identity)) == identity == identity_of(tmp_path)
    with Journal.open(tmp_path) as journal:
        assert journal.identity == identity
    report = info(tmp_path)
    assert len(report.segments) > 4
    assert {segment.identity for segment in report.segments} == {identity}
    assert report.identity == identity


def test_a_journal_made_anew_is_another_one(tmp_path: Path) -> None:
    first = filled(tmp_path / "j")
    shutil.rmtree(tmp_path / "j")
    assert filled(tmp_path / "j") != first


def test_an_older_journal_gets_one_when_it_is_opened_and_keeps_it(tmp_path: Path) -> None:
    filled(tmp_path)
    forget(tmp_path)
    assert identity_of(tmp_path) is None
    with Journal.open(tmp_path) as journal:
        identity = journal.identity
        assert identity_of(tmp_path) == identity
    with Journal.open(tmp_path) as journal:
        assert journal.identity == identity
    assert verify(tmp_path).ok


def test_a_journal_of_an_older_format_gets_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    forget(tmp_path)
    monkeypatch.setattr(segment_format, "SEGMENT_FORMAT", segment_format.SEGMENT_FORMAT + 1)
    with Journal.open(tmp_path) as journal:
        journal.append(stream(500, 1))
        identity = journal.identity
    assert identity_of(tmp_path) == identity
    assert verify(tmp_path).ok


def test_a_backup_is_the_same_journal(tmp_path: Path) -> None:
    identity = filled(tmp_path / "j")
    backup(tmp_path / "j", tmp_path / "copy")
    assert identity_of(tmp_path / "copy") == identity
    with Journal.open(tmp_path / "copy") as journal:
        assert journal.identity == identity


def test_a_backup_into_that_of_another_journal_is_refused_and_changes_nothing(
    tmp_path: Path,
) -> None:
    first, second = filled(tmp_path / "one"), filled(tmp_path / "two")
    backup(tmp_path / "one", tmp_path / "copy")
    before = {file.name: file.read_bytes() for file in (tmp_path / "copy").glob("*.seg")}
    with pytest.raises(LogError, match=f"holds a backup of journal {first}.*{second}"):
        backup(tmp_path / "two", tmp_path / "copy")
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "copy").glob("*.seg")}


def test_a_segment_of_another_journal_is_found(tmp_path: Path) -> None:
    first, second = filled(tmp_path / "one"), filled(tmp_path / "two")
    stray = listing(tmp_path / "two")[3]
    shutil.copyfile(tmp_path / "two" / stray.file, tmp_path / "one" / stray.file)
    report = verify(tmp_path / "one")
    assert [p for p in report.problems if first in p and second in p and stray.file in p]
