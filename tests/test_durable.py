"""Folders last: nothing is counted on before the name of the folder it lies in is on disk."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cdc.capture.state import StateFolder
from cdc.durable import make_folder
from cdc.log.backup import backup
from cdc.log.journal import Journal
from cdc.runtime.deadletters import DeadLetters
from cdc.runtime.offsets import Offsets
from cdc.runtime.state import DataDir
from tests.contract.targets import AuditTarget, FileTarget, started
from tests.sinks.audited import fill


def sealed_parquet(folder: Path) -> None:
    pytest.importorskip("pyarrow.parquet")
    fill(AuditTarget(f"parquet:{folder}", **{"audit.parquet.rows": "1"}))
    assert list(folder.glob("audit/*.parquet"))


def backed_up(folder: Path) -> None:
    with Journal.open(folder.parent / "journal") as journal:
        backup(journal.path, folder)


MAKERS: dict[str, Callable[[Path], object]] = {
    "the data folder": lambda folder: DataDir(folder).prepare(),
    "a journal": lambda folder: Journal.open(folder).close(),
    "a journal's backup": backed_up,
    "a sink's positions": lambda folder: Offsets(folder / "copy.db").close(),
    "dead letters": lambda folder: DeadLetters(folder / "copy.db").close(),
    "a capture's state": lambda folder: StateFolder(folder).close(),
    "a file sink's lines": lambda folder: started(FileTarget(folder)).stop(),
    "sealed audit records": sealed_parquet,
}


class Calls:
    """Folders made, and folders synced, in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, tuple[int, int]]] = []
        mkdir, fsync = os.mkdir, os.fsync

        def made(path: str | Path, mode: int = 0o777) -> None:
            mkdir(path, mode)
            self.seen.append(("made", self._id(Path(path).parent.stat())))

        def synced(fd: int) -> None:
            fsync(fd)
            self.seen.append(("synced", self._id(os.fstat(fd))))

        monkeypatch.setattr(os, "mkdir", made)
        monkeypatch.setattr(os, "fsync", synced)

    @staticmethod
    def _id(found: os.stat_result) -> tuple[int, int]:
        return found.st_dev, found.st_ino

    def synced(self, folder: Path) -> bool:
        return ("synced", self._id(folder.stat())) in self.seen


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_a_folder_is_synced_into_the_one_above_before_anything_else_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]
) -> None:
    calls = Calls(monkeypatch)
    make(tmp_path / "above" / "own")
    made = [at for at, (call, _) in enumerate(calls.seen) if call == "made"]
    assert len(made) >= 2
    for at in made:
        assert calls.seen[at + 1] == ("synced", calls.seen[at][1])


def test_a_folder_that_a_crash_left_before_its_sync_is_synced_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    calls = Calls(monkeypatch)
    make_folder(tmp_path / "a" / "b" / "c", 0o700)
    assert calls.synced(tmp_path / "a")
    assert calls.synced(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b" / "c").stat().st_mode) == 0o700
    calls.seen.clear()
    make_folder(tmp_path / "a" / "b" / "c")
    assert calls.synced(tmp_path / "a" / "b")


def test_under_a_folder_that_one_may_not_read_everything_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    there: list[bool] = []
    monkeypatch.setattr(os, "open", refused)  # root may read every folder
    monkeypatch.setattr(os, "sync", lambda: there.append((tmp_path / "own").is_dir()))
    make_folder(tmp_path / "own")
    assert there[-1]


def test_only_a_folder_that_is_there_may_lie_where_names_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refused)  # as /proc and read-only file systems do
    make_folder(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        make_folder(tmp_path / "new")
