"""A backup is a journal as it was at one moment, taken beside its writer."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cdc.log import Journal
from cdc.log.files import listing
from cdc.log.verify import backup, info, verify
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
