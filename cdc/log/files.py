"""A journal's folder: the names of its files, their order, and the writer's lock.

::

    lock                                               the writer's pid, held by flock
    00000001-0-000001-0000000000000000000.seg          a segment (SQLite)
    00000001-1-000001-0000000000000000000.seg
    00000001-1-000002-0000000000000812345.gap          a segment dropped for want of space
    *.new, *.part                                      being made: never read

A name is generation, lane (0 snapshot, 1 stream), sequence in the lane, and the lane's row
count before this segment. So name order is read order, and which segment holds an offset
is known from a directory listing: no file is opened to look for one.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cdc import failpoints
from cdc.api import Lane
from cdc.durable import NO_SPACE, lock, sync
from cdc.errors import LogLocked

LANES = (Lane.SNAPSHOT, Lane.STREAM)
SNAPSHOT, STREAM = 0, 1
LOCK = "lock"
PROBE, PROBE_MARGIN_BYTES = "probe.new", 256 << 10
# Files SQLite keeps beside a segment that is being written.
SIDE_FILES = ("-wal", "-shm", "-journal")
# Where a backup into the folder is brought together, and what says that it is whole.
STAGE, WHOLE = ".backup", "whole"

_NAME = re.compile(r"(\d{8})-([01])-(\d{6,})-(\d{19})\.(seg|gap)")


class Entry(NamedTuple):
    """One segment, or the gap one has left. Sorts in read order."""

    generation: int
    lane: int
    sequence: int
    first: int
    gap: bool = False

    @property
    def file(self) -> str:
        """The name in the folder."""
        kind = "gap" if self.gap else "seg"
        return f"{self.generation:08}-{self.lane}-{self.sequence:06}-{self.first:019}.{kind}"

    @property
    def lane_key(self) -> tuple[int, int]:
        """Which lane it belongs to: sorts in read order."""
        return self.generation, self.lane


def listing(path: Path) -> list[Entry]:
    """The journal's segments and gaps, in read order; empty when there is no folder yet."""
    try:
        names = [file.name for file in path.iterdir()]
    except FileNotFoundError:
        return []
    found: dict[tuple[int, ...], Entry] = {}
    for name in names:
        match = _NAME.fullmatch(name)
        if match:
            generation, lane, sequence, first = (int(group) for group in match.groups()[:4])
            entry = Entry(generation, lane, sequence, first, gap=match[5] == "gap")
            # A crash between making the gap and unlinking the segment leaves both.
            if entry[:4] not in found or not entry.gap:
                found[entry[:4]] = entry
    return sorted(found.values())


def newest(entries: list[Entry]) -> list[Entry]:
    """The segments that may still be written: the newest generation's newest of each lane."""
    segments = [entry for entry in entries if not entry.gap]
    found = {e.lane: e for e in segments if e.generation == segments[-1].generation}
    return [found[lane] for lane in sorted(found)]


def remove_segment(path: Path) -> None:
    """Unlink a segment and what SQLite may have left beside it."""
    path.unlink(missing_ok=True)
    for suffix in SIDE_FILES:
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Remove what a crash left of segments that were being made, or of a backup into the folder."""
    finish_backup(path)
    shutil.rmtree(path / STAGE, ignore_errors=True)
    for file in path.iterdir():
        if ".new" in file.name:
            file.unlink(missing_ok=True)


def is_backup_whole(path: Path) -> bool:
    """Whether a backup into a folder is all there, and not, or not all of it, in its place."""
    return (path / STAGE / WHOLE).exists()


def finish_backup(path: Path) -> None:
    """Move a backup that is whole into its place; whatever is killed, it can be done again."""
    stage = path / STAGE
    if not is_backup_whole(path):
        return
    for entry in listing(stage):
        copy = path / entry.file
        if entry.gap and (path / entry._replace(gap=False).file).exists():
            (stage / entry.file).unlink()  # here the rows were not dropped
            continue
        for suffix in SIDE_FILES:  # of the file it replaces
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
        (stage / entry.file).replace(copy)
        failpoints.hit("backup.move.after_rename")
    sync(path)
    failpoints.hit("backup.move.after_sync")
    shutil.rmtree(stage)
    sync(path)


def size_bytes(path: Path) -> int:
    """What one file takes on disk; 0 when it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def segment_bytes(path: Path) -> int:
    """A segment's bytes with its write-ahead log's."""
    return size_bytes(path) + size_bytes(Path(f"{path}-wal"))


def lacks_space(path: Path, nbytes: int) -> bool:
    """Whether a folder has no room for ``nbytes``, found by trying.

    SQLite says "cannot open" or "I/O error" for a full disk or quota and for much else.
    Anything but a lack of space, an unwritable folder for one, is False.
    """
    probe = path / PROBE
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb", buffering=0, closefd=False) as file:
                rest = memoryview(bytes(nbytes + PROBE_MARGIN_BYTES))
                while rest:
                    rest = rest[file.write(rest) or 0 :]
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        return error.errno in NO_SPACE
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return False


class Lock:
    """The right to write a journal; released by :meth:`release` or the process's end."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        if not lock(self._fd):
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise LogLocked(
                f"journal {path} is being written by process {holder}",
                remedy="stop that process first; a journal has one writer",
            )
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass  # full disk: the lock holds, only its holder's name is missing

    def release(self) -> None:
        """Let another process write."""
        os.close(self._fd)
