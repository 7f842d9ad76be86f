"""Tools on a journal's files, for operators: verify, info, prune. A backup has its own module.

They return result objects and print nothing. All but :func:`prune` work beside a running
writer and take no lock.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from cdc.errors import LogCorrupt, LogError, LogVersion
from cdc.log.files import LANES, Entry, Lock, is_backup_whole, listing, segment_bytes
from cdc.log.format import Index, State, is_schema, translate
from cdc.log.holes import holes
from cdc.log.reader import JournalReader
from cdc.log.retention import Policy, Retention
from cdc.log.segment import SegmentReader

PROBLEMS_MAX = 20  # per segment: a torn file would otherwise list every block


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


# -- verify and info ---------------------------------------------------------------------


def verify(path: Path | str) -> JournalReport:
    """Read every segment whole: structure, checksums, offsets without a hole or a double."""
    return _report(Path(path), thorough=True)


def info(path: Path | str) -> JournalReport:
    """The journal's segments, bounds and positions; reads no block."""
    return _report(Path(path), thorough=False)


def _report(path: Path, *, thorough: bool) -> JournalReport:
    report = JournalReport(path)
    found: list[tuple[Entry, State | None]] = []
    for entry in listing(path):
        if entry.gap:
            found.append((entry, None))
            continue
        segment, state = _check_segment(path, entry, thorough=thorough)
        found.append((entry, state))
        report.segments.append(segment)
        report.identity = report.identity or segment.identity
        if segment.identity not in (None, report.identity):
            report.problems.append(
                f"{entry.file} is of journal {segment.identity}, those before it are of"
                f" {report.identity}"
            )
        if state is not None and state.position is not None:
            report.positions[segment.lane] = orjson.loads(state.position)
    report.problems.extend(holes(found))
    if is_backup_whole(path):
        report.problems.append(
            "a backup into this folder was killed while it was put in place: back up once more, or"
            " use the journal, and it is ended first"
        )
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
