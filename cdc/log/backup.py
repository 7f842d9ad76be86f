"""Backup: a copy of a journal in another folder, which is a journal itself.

It is made beside the running writer, as of one moment, and again: then only what is new is copied,
since a sealed segment never changes. All of that is first brought together in a folder of its
own (``.backup``) in the copy's, and moved in when it is whole and on disk. So whatever ends a
backup, and when, the copy is the one that was there before, or the new one: a kill between the
moves is made good by the next backup, or by whoever opens the copy to write.

Segments that retention has taken at the journal stay in a copy. One that ends before what the
journal still has would get a hole: it is refused, and stays as it is.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cdc import failpoints
from cdc.durable import make_folder, sync
from cdc.errors import LogError
from cdc.log.files import (
    SNAPSHOT,
    STAGE,
    STREAM,
    WHOLE,
    Entry,
    Lock,
    finish_backup,
    listing,
    newest,
    segment_bytes,
)
from cdc.log.format import State, translate
from cdc.log.holes import holes
from cdc.log.identity import identity_of
from cdc.log.segment import SegmentReader

COPY_ATTEMPTS = 20
_NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)


@dataclass(slots=True)
class BackupReport:
    """What :func:`backup` copied, and what lay there whole from an earlier run."""

    target: Path
    copied: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    nbytes: int = 0


def backup(path: Path | str, target: Path | str) -> BackupReport:
    """Copy a journal to a folder, beside its running writer, as it was at one moment.

    Called again with the same target it copies only what is new. Raises LogError: for a target
    that holds another journal, rows that this one does not have, or none that reach up to what
    it still has; and where another backup, or a writer, is at work there. And OSError. After any
    of them the copy is as it was.
    """
    path, target = Path(path), Path(target)
    own, held = identity_of(path), identity_of(target)
    if held not in (None, own):
        raise LogError(
            f"{target} holds a backup of journal {held}, and {path} is journal {own}",
            remedy="Name an empty folder",
        )
    make_folder(target, 0o700)
    with _locked(target):
        finish_backup(target)
        for half in target.glob("*.part"):  # of an older version
            half.unlink()
        stage = target / STAGE
        make_folder(stage, 0o700)
        copy = _Copy(path, target, stage)
        copy.make()
        (stage / WHOLE).touch(mode=0o600)
        sync(stage)
        failpoints.hit("backup.whole.after_mark")
        finish_backup(target)
        return copy.report


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Against another backup, or a writer; a place that knows no locks does without."""
    try:
        lock = Lock(target)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        yield
        return
    try:
        yield
    finally:
        lock.release()


class _Copy:
    """One run: what is new in ``stage``, and nothing else."""

    def __init__(self, path: Path, target: Path, stage: Path) -> None:
        self._path, self._target, self._stage = path, target, stage
        self._held = {e: _state(target, e, settled=True) for e in listing(target)}
        self._states: dict[Entry, State | None] = {}  # of this journal's settled segments
        self.report = BackupReport(target)

    def make(self) -> None:
        """Bring it all together. A file that an earlier run has left whole is taken."""
        done: set[Entry] = set()
        for _ in range(COPY_ATTEMPTS):
            entries = listing(self._path)
            live = newest(entries)
            try:
                problem = self._problem(entries, live, done)
                if problem:
                    if listing(self._path) != entries:
                        continue  # it was listed while it changed
                    raise self._refused(problem)
                for entry in entries:
                    if entry not in live and entry not in done:
                        self._copy_settled(entry)
                        done.add(entry)
                if self._copy_live(live):
                    self._leave_only({entry.file for entry in (*done, *live)})
                    return
            except FileNotFoundError:
                continue  # sealed or taken by retention meanwhile: look again
        raise LogError(
            f"journal {self._path} changes faster than it can be copied to {self._target}"
        )

    def _leave_only(self, names: set[str]) -> None:
        for file in self._stage.iterdir():
            if file.name not in names:
                file.unlink()

    def _problem(self, entries: list[Entry], live: list[Entry], done: Iterable[Entry]) -> str:
        """Why the copy and what is new would be no journal; empty: they will be one.

        Before anything is copied, and again whenever retention may have taken more.
        """
        states = self._states
        new = [entry for entry in entries if entry not in states]
        states.update({e: _state(self._path, e, settled=e not in live) for e in new})
        found = {entry[:4]: (entry, state) for entry, state in self._held.items()}
        for entry in sorted({*entries, *done}):
            state, held = states[entry], found.get(entry[:4], (entry, None))[1]
            if entry.gap and held is not None:
                continue  # the copy has rows that were dropped here
            if state is not None and held is not None and held.next > state.next:
                return f"holds rows up to {held.next} of {entry.file}, and there are {state.next}"
            found[entry[:4]] = entry, state
        for entry in live:
            states.pop(entry, None)
        hole = next(holes(found[key] for key in sorted(found)), "")
        return hole and f"would get a hole: {hole}, which retention has taken"

    def _refused(self, problem: str) -> LogError:
        shutil.rmtree(self._stage)
        return LogError(
            f"the backup {self._target} of journal {self._path} {problem}",
            remedy="Name a new folder: this backup stays as it is",
        )

    def _copy_settled(self, entry: Entry) -> None:
        source, copy = self._path / entry.file, self._stage / entry.file
        if entry.gap:
            copy.touch(mode=0o600)
            return
        if _is_copied(self._target, entry, source):
            self.report.skipped.append(entry.file)
            return
        if not _is_copied(self._stage, entry, source):
            if segment_bytes(source) != source.stat().st_size:  # its log could not be emptied
                with SegmentReader(self._path, entry) as segment:
                    _copy_database(segment, copy)
            else:
                part = Path(f"{copy}.part")
                shutil.copyfile(source, part)
                _finish(part, copy)
        self._copied(entry)

    def _copied(self, entry: Entry) -> None:
        self.report.copied.append(entry.file)
        self.report.nbytes += (self._stage / entry.file).stat().st_size

    def _copy_live(self, live: list[Entry]) -> bool:
        """Both lanes as of one moment: the snapshot lane's first, so the stream is never behind.

        False when a segment was added meanwhile: what had been the newest may then lack a
        lane's end that the next one presupposes.
        """
        segments = [SegmentReader(self._path, entry) for entry in live]
        try:
            for segment in segments:
                segment.connection.execute("BEGIN")
                segment.state()  # the transaction begins with the first read
            if newest(listing(self._path)) != live:
                return False
            closed = {segment.entry.lane: segment.state().closed for segment in segments}
            if closed.get(STREAM) and not closed.get(SNAPSHOT):
                return False
            for segment in segments:
                _copy_database(segment, self._stage / segment.entry.file)
                self._copied(segment.entry)
            return True
        finally:
            for segment in segments:
                segment.close()


def _state(path: Path, entry: Entry, *, settled: bool) -> State | None:
    """None of a gap. Raises FileNotFoundError, LogError."""
    if entry.gap:
        return None
    with SegmentReader(path, entry, settled=settled) as segment:
        return segment.state()


def _is_copied(folder: Path, entry: Entry, source: Path) -> bool:
    try:
        if (folder / entry.file).stat().st_size != source.stat().st_size:
            return False
        with SegmentReader(folder, entry, settled=True) as segment:
            return segment.state().sealed_ms is not None
    except (OSError, LogError):
        return False


def _copy_database(segment: SegmentReader, copy: Path) -> None:
    part = Path(f"{copy}.part")
    part.unlink(missing_ok=True)
    target = sqlite3.connect(part)
    try:
        segment.connection.backup(target)
    except sqlite3.Error as error:
        raise translate(error, copy) from error
    finally:
        target.close()
    _finish(part, copy)


def _finish(part: Path, copy: Path) -> None:
    sync(part)
    part.chmod(0o600)
    failpoints.hit("backup.copy.before_rename")
    part.replace(copy)
    failpoints.hit("backup.copy.after_rename")
