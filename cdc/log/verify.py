"""Tools on a journal's files, for operators: verify, info, prune, backup.

They return result objects and print nothing. All but :func:`prune` work beside a running
writer and take no lock.
"""

from __future__ import annotations

import shutil
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from cdc.durable import make_folder, sync
from cdc.errors import LogCorrupt, LogError, LogVersion
from cdc.log.files import (
    LANES,
    SIDE_FILES,
    SNAPSHOT,
    STREAM,
    Entry,
    Lock,
    listing,
    newest,
    segment_bytes,
)
from cdc.log.format import Index, State, is_schema, translate
from cdc.log.identity import identity_of
from cdc.log.reader import JournalReader
from cdc.log.retention import Policy, Retention
from cdc.log.segment import SegmentReader

PROBLEMS_MAX = 20  # per segment: a torn file would otherwise list every block
COPY_ATTEMPTS = 20


@dataclass(slots=True)
class SegmentReport:
    """What was found in one segment. Offsets in ``problems`` count rows of its lane.

    ``first_offset`` is the journal's, and None where that is not known.
    """

    name: str
    generation: int
    lane: str
    first_offset: int | None = None
    rows: int = 0
    blocks: int = 0
    nbytes: int = 0
    sealed: bool = False
    closed: bool = False
    format: int = 0
    identity: str | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every byte that matters is whole."""
        return not self.problems


@dataclass(slots=True)
class JournalReport:
    """What :func:`verify` and :func:`info` return. ``problems`` are those between segments."""

    path: Path
    identity: str | None = None
    segments: list[SegmentReport] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    oldest_offset: int = 0
    next_offset: int = 0
    positions: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing at all is wrong; dropped rows (``gaps``) are not damage."""
        return not self.problems and all(segment.ok for segment in self.segments)

    @property
    def nbytes(self) -> int:
        """All segments on disk."""
        return sum(segment.nbytes for segment in self.segments)


@dataclass(slots=True)
class BackupReport:
    """What :func:`backup` copied, and what lay there whole from an earlier run."""

    target: Path
    copied: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    nbytes: int = 0


# -- verify and info ---------------------------------------------------------------------


def verify(path: Path | str) -> JournalReport:
    """Read every segment whole: structure, checksums, offsets without a hole or a double."""
    return _report(Path(path), thorough=True)


def info(path: Path | str) -> JournalReport:
    """The journal's segments, bounds and positions; reads no block."""
    return _report(Path(path), thorough=False)


def _report(path: Path, *, thorough: bool) -> JournalReport:
    report = JournalReport(path)
    for _, group in groupby(listing(path), key=lambda entry: entry.lane_key):
        before: tuple[Entry, State | None] | None = None
        for entry in group:
            if entry.gap:
                before = None
                continue
            segment, state = _check_segment(path, entry, thorough=thorough)
            report.segments.append(segment)
            report.identity = report.identity or segment.identity
            if segment.identity not in (None, report.identity):
                report.problems.append(
                    f"{entry.file} is of journal {segment.identity}, those before it are of"
                    f" {report.identity}"
                )
            if before and before[1] and before[1].next != entry.first:
                report.problems.append(
                    f"rows {before[1].next} to {entry.first - 1} of the {segment.lane} lane are "
                    f"missing between {before[0].file} and {entry.file}"
                )
            before = entry, state
            if state is not None and state.position is not None:
                report.positions[segment.lane] = orjson.loads(state.position)
    try:
        with JournalReader(path) as reader:
            report.oldest_offset, report.next_offset = reader.bounds()
            report.gaps = reader.gaps()
            starts = {span.entry.file: span.start for span, _ in reader.spans()}
        for segment in report.segments:
            segment.first_offset = starts.get(segment.name)
    except LogError as error:
        report.problems.append(str(error))
    return report


def _check_segment(
    path: Path, entry: Entry, *, thorough: bool
) -> tuple[SegmentReport, State | None]:
    file = path / entry.file
    report = SegmentReport(entry.file, entry.generation, LANES[entry.lane].value)
    report.nbytes = segment_bytes(file)
    state = None
    try:
        segment = SegmentReader(path, entry)
        try:
            state = segment.state()
            report.format, report.identity = segment.meta["format"], segment.identity
            report.rows = state.next - entry.first
            report.sealed, report.closed = state.sealed_ms is not None, state.closed
            if thorough:
                report.problems.extend(_problems(segment, state, report))
        finally:
            segment.close()
    except (LogCorrupt, LogVersion) as error:
        report.problems.append(error.problem)
    except FileNotFoundError:
        pass  # taken by retention while we looked
    except (sqlite3.Error, LogError) as error:
        report.problems.append(str(error))
    return report, state


def _problems(segment: SegmentReader, state: State, report: SegmentReport) -> list[str]:
    problems: list[str] = []
    for problem in _walk(segment, state, report):
        problems.append(problem)
        if len(problems) >= PROBLEMS_MAX:
            problems.append("and more")
            break
    return problems


def _walk(segment: SegmentReader, state: State, report: SegmentReport) -> Iterator[str]:
    """One problem after the other."""
    yield from _check_meta(segment)
    yield from _check_schemas(segment)
    row = segment.entry.first
    while row < state.next:
        try:
            index = segment.index_from(row)
        except LogCorrupt as error:
            yield error.problem
            break
        if index is None:
            yield f"rows {row} to {state.next - 1} are missing"
            break
        if index.start != row:
            yield f"rows {row} to {index.start - 1} are missing"
        report.blocks += 1
        yield from _check_block(segment, index)
        row = index.end
    if row > state.next:
        yield f"blocks reach row {row}, the position says {state.next}"
    elif row == state.next:
        beyond = segment.index_from(row)
        # The state is read anew, and after the block: a writer may be at work.
        if beyond is not None and beyond.start >= segment.state().next:
            yield f"there are blocks beyond row {row}, where the position ends"
    yield from _check_groups(segment)
    yield from _check_structure(segment)


def _check_meta(segment: SegmentReader) -> Iterator[str]:
    """The name and the file must speak of the same segment."""
    entry, meta = segment.entry, segment.meta
    expected = {
        "generation": entry.generation,
        "lane": LANES[entry.lane].value,
        "sequence": entry.sequence,
        "first": entry.first,
    }
    for key, value in expected.items():
        if meta.get(key) != value:
            yield f"meta {key!r} is {meta.get(key)!r}, the file's name says {value!r}"


def _check_schemas(segment: SegmentReader) -> Iterator[str]:
    try:
        rows = segment.connection.execute("SELECT fingerprint, json FROM schemas").fetchall()
    except sqlite3.Error as error:
        yield translate(error, segment.path).problem
        return
    for fingerprint, text in rows:
        if not is_schema(fingerprint, text):
            yield f"schema {fingerprint!r} is damaged"


def _check_block(segment: SegmentReader, index: Index) -> Iterator[str]:
    where = f"block at row {index.start}"
    try:
        segment.filter_of(index)
        found = segment.block_at(index.start)
    except LogCorrupt as error:
        yield f"{where}: {error.problem}"
        return
    if found is None:
        yield f"{where}: cannot be found by its key"
        return
    _, header, body = found
    if zlib.crc32(body, zlib.crc32(header)) != index.crc:
        yield f"{where}: checksum does not match"
        return
    for fingerprint in orjson.loads(header)["schemas"]:
        try:
            segment.schema(fingerprint)
        except LogCorrupt as error:
            yield f"{where}: {error.problem}"


def _check_groups(segment: SegmentReader) -> Iterator[str]:
    """Joined filters: each whole, and over rows that no other covers."""
    row = segment.entry.first
    try:
        for start, stop in segment.groups():
            if start < row or stop <= start:
                yield f"the key filters of rows {start} to {stop - 1} are out of order"
                return
            segment.candidates(start, ())
            row = stop
    except LogError as error:
        yield error.problem


def _check_structure(segment: SegmentReader) -> Iterator[str]:
    """SQLite's own check: pages, cells, the order of keys."""
    try:
        rows = segment.connection.execute(f"PRAGMA integrity_check({PROBLEMS_MAX})").fetchall()
    except sqlite3.Error as error:
        yield translate(error, segment.path).problem
        return
    yield from (f"structure: {text}" for (text,) in rows if text != "ok")


# -- prune -------------------------------------------------------------------------------


def prune(path: Path | str, before_offset: int) -> list[str]:
    """Unlink sealed segments that lie wholly below an offset; their names, oldest first.

    For a journal without a running writer (LogLocked else: ask the worker, whose journal
    has :meth:`cdc.log.journal.Journal.prune`). Sinks that still need them get
    OffsetOutOfRange: it is for the caller to ask first.
    """
    path = Path(path)
    lock = Lock(path)
    try:
        policy = Policy(None, None, None, drop=False, needed=lambda: None)
        return Retention(path, policy).prune(before_offset)
    finally:
        lock.release()


# -- backup ------------------------------------------------------------------------------


def backup(path: Path | str, target: Path | str) -> BackupReport:
    """Copy a journal to a folder, beside its running writer, as it was at one moment.

    The copy is a journal itself. Called again with the same target it copies only what is
    new: a sealed segment never changes. Raises LogError (also for a target that holds another
    journal), OSError.
    """
    path, target = Path(path), Path(target)
    own, held = identity_of(path), identity_of(target)
    if held not in (None, own):
        raise LogError(
            f"{target} holds a backup of journal {held}, and {path} is journal {own}",
            remedy="Name an empty folder",
        )
    make_folder(target, 0o700)
    report = BackupReport(target)
    done: set[Entry] = set()
    for _ in range(COPY_ATTEMPTS):
        entries = listing(path)
        live = newest(entries)
        try:
            for entry in entries:
                if entry not in live and entry not in done:
                    _copy_settled(path, entry, report)
                    done.add(entry)
            if _copy_live(path, live, report):
                sync(target)
                return report
        except FileNotFoundError:
            continue  # sealed or taken by retention meanwhile: look again
    raise LogError(f"journal {path} changes faster than it can be copied to {target}")


def _copy_settled(path: Path, entry: Entry, report: BackupReport) -> None:
    source, copy = path / entry.file, report.target / entry.file
    if entry.gap:
        copy.touch(mode=0o600)
        return
    if _is_copied(report.target, entry, source):
        report.skipped.append(entry.file)
        return
    if segment_bytes(source) != source.stat().st_size:  # its log could not be emptied
        with SegmentReader(path, entry) as segment:
            _copy_database(segment, copy)
    else:
        part = Path(f"{copy}.part")
        shutil.copyfile(source, part)
        _finish(part, copy)
    report.copied.append(entry.file)
    report.nbytes += copy.stat().st_size


def _is_copied(target: Path, entry: Entry, source: Path) -> bool:
    try:
        if (target / entry.file).stat().st_size != source.stat().st_size:
            return False
        with SegmentReader(target, entry, settled=True) as segment:
            return segment.state().sealed_ms is not None
    except (OSError, LogError):
        return False


def _copy_live(path: Path, live: list[Entry], report: BackupReport) -> bool:
    """Both lanes as of one moment: the snapshot lane's first, so the stream is never behind.

    False when a segment was added meanwhile: what had been the newest may then lack a
    lane's end that the next one presupposes.
    """
    segments = [SegmentReader(path, entry) for entry in live]
    try:
        for segment in segments:
            segment.connection.execute("BEGIN")
            segment.state()  # the transaction begins with the first read
        if newest(listing(path)) != live:
            return False
        closed = {segment.entry.lane: segment.state().closed for segment in segments}
        if closed.get(STREAM) and not closed.get(SNAPSHOT):
            return False
        for segment in segments:
            copy = report.target / segment.entry.file
            _copy_database(segment, copy)
            report.copied.append(segment.entry.file)
            report.nbytes += copy.stat().st_size
        return True
    finally:
        for segment in segments:
            segment.close()


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
    part.replace(copy)
    for suffix in SIDE_FILES:  # of the file it replaces
        Path(f"{copy}{suffix}").unlink(missing_ok=True)
