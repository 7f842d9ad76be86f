"""What is said to be on disk is there: seen from outside, in the order of system calls.

Each proof is made twice: as the code is, and with fsync switched off, where it has to fail.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import syscalls
from tests.syscalls import Disk

ROOT = Path(__file__).parents[2]
START = """
import os, sys
from pathlib import Path

folder, mark = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
if sys.argv[3] == "broken":
    os.fsync = os.fdatasync = lambda fd: None

def promise(what):
    os.write(mark, what.encode())
"""
JOURNAL = """
from cdc.log import Journal
from cdc.log.segment import SegmentWriter
from tests.log.rows import snapshot, stream

if sys.argv[3] == "broken":
    whole = SegmentWriter._configure

    def without_fsync(self, *more):
        whole(self, *more)
        self._db.execute("PRAGMA synchronous = OFF")

    SegmentWriter._configure = without_fsync
with Journal.open(folder / "j", segment_bytes=120_000) as journal:
    journal.append(snapshot(0, 0, close=True))
    for number in range(12):
        journal.append(stream(number * 10, 10 * (number % 3), width=2000))
        promise(f"append {number}")
"""
FILE_SINK = """
from tests.contract.test_file_sink import blocks, started

task = started(folder / "out", **{"file.rotate.bytes": 3000})
promise("start")
for block in blocks(10, rows=3, text="x" * 100):
    task.put(block)
    task.flush(block.offsets[-1] + 1)
    promise(f"flush {block.offsets[-1] + 1}")
task.put(blocks(1)[0])
task.seek(5, 1)
promise("seek")
task.stop()
"""
STATES = """
from cdc.runtime.state import DataDir, Saved, Store

data = DataDir(folder / "data")
data.prepare()
store = Store(data)
for number in range(3):
    store.save(Saved("shop", {"n": str(number)}, "STARTED"))
    promise(f"connector {number}")
"""
OFFSETS = """
from cdc.runtime.offsets import Offsets

offsets = Offsets(folder / "sink.db")
if sys.argv[3] == "broken":
    offsets._db.execute("PRAGMA synchronous = OFF")
for number in range(10):
    offsets.store({"shop": number}, {})
    promise(f"offset {number}")
offsets.move("shop", 3)
promise("move")
"""
# What is written → its script, how many promises it makes, and renames at least.
CASES = {
    "journal": (JOURNAL, 12, 3),
    "file sink": (FILE_SINK, 12, 12),
    "state files": (STATES, 3, 3),
    "sink positions": (OFFSETS, 11, 0),
}


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "broken"])
@pytest.mark.parametrize("name", CASES)
def test_nothing_is_promised_before_the_fsync_that_keeps_it(
    tmp_path: Path, name: str, whole: bool
) -> None:
    """Contents before a rename, a rename's folder and all contents before a promise."""
    script, promises, renames = CASES[name]
    folder, mark = tmp_path / "work", tmp_path / "mark"
    folder.mkdir()
    how = "whole" if whole else "broken"
    command = [sys.executable, "-c", START + script, str(folder), str(mark), how]
    # SQLite syncs a folder in which it makes a log, but that is not what is relied upon.
    disk = Disk(folder, at_once=name == "journal")
    seen = syscalls.run(tmp_path / "trace", command, ROOT)
    assert syscalls.judged(seen, disk, mark) == promises
    assert disk.renames >= renames
    if whole:
        assert disk.early == []
    else:
        assert len(disk.early) >= promises - 1
