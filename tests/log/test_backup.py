"""A backup is a journal as it was at one moment, taken beside its writer."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cdc import failpoints
from cdc.errors import LogError, LogLocked
from cdc.log import Journal, files
from cdc.log.backup import backup
from cdc.log.files import listing
from cdc.log.verify import info, verify
from tests.forks import Fork
from tests.log.rows import expected, plan, read_all, snapshot, stored_number, stream


def test_a_backup_holds_what_the_journal_holds(memory: Path) -> None:
    with Journal.open(memory / "j", segment_bytes=150_000) as journal:
        journal.append(snapshot(0, 0, close=True))
        for number in range(40):
            journal.append(stream(number * 10, 10, width=2000))
        report = backup(memory / "j", memory / "copy")
        state = journal.state()
    assert sorted(report.copied) == [entry.file for entry in listing(memory / "j")]
    assert verify(memory / "copy").ok
    with Journal.open(memory / "copy") as journal:
        assert journal.state() == state
        journal.append(stream(400, 1))
    assert read_all(memory / "copy", 0) == list(range(401))


def test_a_second_backup_copies_only_what_is_new(memory: Path) -> None:
    with Journal.open(memory / "j", segment_bytes=150_000) as journal:
        journal.append(snapshot(0, 0, close=True))
        for number in range(30):
            journal.append(stream(number * 10, 10, width=2000))
        backup(memory / "j", memory / "copy")
        sealed = {segment.name for segment in info(memory / "j").segments if segment.sealed}
        (memory / "copy" / f"{min(sealed)}.part").write_bytes(b"half a copy")
        for number in range(30, 60):
            journal.append(stream(number * 10, 10, width=2000))
        report = backup(memory / "j", memory / "copy")
    assert not list((memory / "copy").glob("*.part"))
    # The newest of each lane are copied each time, sealed or not.
    assert sealed - set(report.copied) == set(report.skipped)
    assert len(report.skipped) > 2
    assert read_all(memory / "copy", 0) == list(range(600))
    assert verify(memory / "copy").ok


@pytest.mark.parametrize("seed", range(2))
def test_backups_beside_a_running_writer_are_moments_of_its_life(memory: Path, seed: int) -> None:
    steps = list(plan(seed, 100))
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with Journal.open(memory / "j", segment_bytes=150_000) as journal:
                for step in steps:
                    journal.append(step.batch)
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    copies = 0
    while writer.is_alive() or not copies:
        copy = memory / f"copy{copies}"
        backup(memory / "j", copy)
        copies += 1
        writer.join(0.1)
    writer.join()
    assert not failures
    for number in range(copies):
        copy = memory / f"copy{number}"
        report = verify(copy)
        assert report.ok, (report.problems, [s.problems for s in report.segments])
        with Journal.open(copy, segment_bytes=150_000) as journal:
            done = stored_number(journal)
            rows = sum(segment.rows for segment in report.segments)
            assert rows == sum(step.rows for step in steps if step.number <= done)
            for step in steps[done + 1 :]:
                journal.append(step.batch)
        assert read_all(copy, 0) == expected(steps)


# --- into an older copy ---


def fill(journal: Journal, first: int, blocks: int) -> None:
    for number in range(first, first + blocks):
        journal.append(stream(number * 10, 10, width=2000))


def contents(folder: Path) -> dict[str, bytes]:
    """Empty where there is no folder yet."""
    files = folder.iterdir() if folder.exists() else ()
    return {f.name: f.read_bytes() for f in files if f.suffix in (".seg", ".gap")}


@pytest.fixture
def older(memory: Path) -> Path:
    """A copy of a journal's first rows, with several segments; the journal has grown since."""
    with Journal.open(memory / "j", segment_bytes=60_000) as journal:
        journal.append(snapshot(0, 0, close=True))
        fill(journal, 0, 20)
        backup(memory / "j", memory / "copy")
        fill(journal, 20, 20)
    assert sum(e.lane for e in listing(memory / "copy")) > 2
    return memory


def test_what_retention_has_taken_stays_in_a_copy_that_reaches_far_enough(older: Path) -> None:
    newest = listing(older / "copy")[-1]
    with Journal.open(older / "j", segment_bytes=60_000) as journal:
        assert journal.prune(newest.first)
        fill(journal, 40, 5)
    backup(older / "j", older / "copy")
    assert verify(older / "copy").ok
    assert read_all(older / "copy", 0) == list(range(450))


def test_a_copy_that_ends_before_what_the_journal_still_has_is_refused_and_stays(
    older: Path,
) -> None:
    with Journal.open(older / "j", segment_bytes=60_000) as journal:
        assert journal.prune(300)
    before = contents(older / "copy")
    with pytest.raises(LogError, match=r"would get a hole: rows 200 to 2\d\d .* a new folder"):
        backup(older / "j", older / "copy")
    assert contents(older / "copy") == before
    assert not (older / "copy" / ".backup").exists()
    assert read_all(older / "copy", 0) == list(range(200))
    backup(older / "j", older / "new")
    assert read_all(older / "new")[-1] == 399
    assert verify(older / "new").ok


def test_a_generation_that_retention_has_taken_whole_is_a_hole_too(memory: Path) -> None:
    with Journal.open(memory / "j") as journal:
        journal.append(snapshot(0, 10, close=True))
        journal.append(stream(10, 10))
        backup(memory / "j", memory / "copy")
        journal.append(stream(20, 10, close=True))
        for first in (30, 50):
            journal.append(snapshot(first, 10, close=True))
            journal.append(stream(first + 10, 10, close=True))
        journal.append(snapshot(70, 10))
        assert journal.prune(50)
    with pytest.raises(LogError, match=r"would get a hole.* a new folder"):
        backup(memory / "j", memory / "copy")
    assert read_all(memory / "copy", 0) == list(range(20))


def test_rows_dropped_for_want_of_space_that_the_copy_lacks_are_a_hole(older: Path) -> None:
    size = sum(s.nbytes for s in info(older / "j").segments)
    options = {"segment_bytes": 60_000, "budget_bytes": size, "full_policy": "drop"}
    with Journal.open(older / "j", **options) as journal:
        fill(journal, 40, 25)
        assert journal.dropped_rows > 200
    with pytest.raises(LogError, match="would get a hole"):
        backup(older / "j", older / "copy")
    assert read_all(older / "copy", 0) == list(range(200))
    backup(older / "j", older / "new")
    assert verify(older / "new").gaps == [(0, journal.dropped_rows)]


def test_a_copy_that_was_written_as_a_journal_is_not_overwritten(older: Path) -> None:
    with Journal.open(older / "copy", segment_bytes=1 << 20) as journal:
        for number in range(100, 130):
            journal.append(stream(number * 10, 10))
        with pytest.raises(LogLocked, match="is being written"):
            backup(older / "j", older / "copy")
    with pytest.raises(LogError, match=r"holds rows up to 500 .* a new folder"):
        backup(older / "j", older / "copy")
    assert len(read_all(older / "copy", 0)) == 500


def test_a_place_that_knows_no_locks_takes_backups_all_the_same(
    older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(fd: int, *, shared: bool = False) -> bool:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    with monkeypatch.context() as patch:
        patch.setattr(files, "lock", refused)
        backup(older / "j", older / "copy")
    assert read_all(older / "copy", 0) == list(range(400))


# --- cut short ---


def _backup(tell: Callable[[object], None], path: Path, target: Path) -> None:
    backup(path, target)
    tell("done")


KILLED = {
    "backup.copy.before_rename": (1, 2, 3),
    "backup.copy.after_rename": (1, 2),
    "backup.whole.after_mark": (1,),
    "backup.move.after_rename": (1, 2, 3),
    "backup.move.after_sync": (1,),
}


@pytest.mark.parametrize(
    ("name", "hit"), [(name, hit) for name, hits in KILLED.items() for hit in hits]
)
def test_a_kill_leaves_the_copy_of_before_or_the_new_one(older: Path, name: str, hit: int) -> None:
    before = contents(older / "copy")
    with Fork(_backup, older / "j", older / "copy", points=f"{name}=kill@{hit}") as fork:
        assert fork.hear() is None
        assert fork.end() == -9
    if name.startswith("backup.copy"):
        assert contents(older / "copy") == before
        assert verify(older / "copy").ok
        # what the journal has lost since is in no copy: the one that is there stays
        with Journal.open(older / "j", segment_bytes=60_000) as journal:
            journal.prune(390)
        with pytest.raises(LogError, match="would get a hole"):
            backup(older / "j", older / "copy")
        rows = 200
    else:
        (problem,) = verify(older / "copy").problems
        assert "killed while it was put in place" in problem
        with Journal.open(older / "copy"):  # whoever writes ends it
            pass
        rows = 400
    assert verify(older / "copy").ok
    assert read_all(older / "copy", 0) == list(range(rows))
    assert not (older / "copy" / ".backup").exists()


def test_the_next_backup_ends_one_that_was_whole_though_the_journal_has_lost_rows_since(
    older: Path,
) -> None:
    points = "backup.move.after_rename=kill@1"
    with Fork(_backup, older / "j", older / "copy", points=points) as fork:
        assert fork.end() == -9
    with Journal.open(older / "j", segment_bytes=60_000) as journal:
        fill(journal, 40, 5)
        assert journal.prune(390)
    backup(older / "j", older / "copy")
    assert verify(older / "copy").ok
    assert read_all(older / "copy", 0) == list(range(450))


def test_a_full_disk_in_the_middle_leaves_the_copy_and_what_was_copied_is_not_copied_again(
    older: Path,
) -> None:
    before = contents(older / "copy")
    failpoints.arm("backup.copy.after_rename=error@3")
    try:
        with pytest.raises(OSError, match="failpoint") as caught:
            backup(older / "j", older / "copy")
    finally:
        failpoints.arm("")
    assert caught.value.errno == errno.ENOSPC
    assert contents(older / "copy") == before
    assert verify(older / "copy").ok
    staged = {f.name: f.stat().st_ino for f in (older / "copy" / ".backup").iterdir()}
    assert len(staged) == 3
    backup(older / "j", older / "copy")
    now = {f.name: f.stat().st_ino for f in (older / "copy").iterdir()}
    assert staged.items() <= now.items()
    assert read_all(older / "copy", 0) == list(range(400))


def test_a_copy_made_again_and_again_while_the_writer_seals_and_retention_prunes(
    memory: Path,
) -> None:
    """Each is whole, or refused and as it was; a new folder then goes on."""
    failures: list[BaseException] = []
    first = threading.Event()
    refusals: list[str] = []

    def write() -> None:
        options = {"segment_bytes": 30_000, "retention_bytes": 150_000}
        try:
            with Journal.open(memory / "j", needed=lambda: None, **options) as journal:
                journal.append(snapshot(0, 0, close=True))
                first.set()
                for number in range(150):
                    journal.append(stream(number * 10, 10, width=2000))
                    journal.retain()
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    assert first.wait(60)
    copies, done = [memory / "copy0"], 0
    while writer.is_alive() or not done:
        before = contents(copies[-1])
        try:
            backup(memory / "j", copies[-1])
            done += 1
        except LogError as error:
            refusals.append(str(error))
            assert contents(copies[-1]) == before
            if "a hole" in refusals[-1]:
                copies.append(memory / f"copy{len(copies)}")
        if contents(copies[-1]):
            report = verify(copies[-1])
            assert report.ok, report
    writer.join()
    assert not failures
    assert all("a hole" in text or "faster than" in text for text in refusals)
    backup(memory / "j", memory / "last")
    assert read_all(memory / "last")[-1] == 1499
