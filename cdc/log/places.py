"""Places in a journal: its lanes with their offsets, and the offset of an LSN or a time.

A place is for a sink that is to begin there, so it errs on the side of sending again: where
the first transaction looked for is the first of its generation, the snapshot in front of it
is included if it was taken at or after the point, since a sink got its rows after it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from cdc.errors import LogCorrupt
from cdc.log.files import SNAPSHOT, STREAM, Entry, listing
from cdc.log.format import State
from cdc.log.reader import READ_ATTEMPTS, JournalReader
from cdc.log.segment import SegmentReader


class Stretch(NamedTuple):
    """One readable lane. ``start`` is where it began, ``first`` the oldest row still stored.

    ``complete``: none of its rows are gone. ``position`` is its source's newest in it.
    """

    generation: int
    lane: int
    start: int
    first: int
    end: int
    closed: bool
    complete: bool
    position: Mapping[str, Any]
    high_lsn: int
    high_us: int


def stretches(path: Path) -> list[Stretch]:
    """The journal's readable lanes, in read order."""
    for _ in range(READ_ATTEMPTS):
        try:
            return _stretches(path)
        except FileNotFoundError:  # taken by retention since we listed
            continue
    raise LogCorrupt(f"journal {path}: it changes faster than it can be read")


def _stretches(path: Path) -> list[Stretch]:
    out: list[Stretch] = []
    end: int | None = None
    for key, group in groupby(listing(path), key=lambda entry: entry.lane_key):
        entries = list(group)
        segments = [entry for entry in entries if not entry.gap]
        if not segments:
            continue
        with SegmentReader(path, segments[-1]) as segment:
            state = segment.state()
        base = end if state.base is None else state.base
        if base is None:
            return out
        out.append(_stretch(key, entries, state, base))
        if not state.closed:
            return out
        end = base + state.next
    return out


def _stretch(key: tuple[int, int], entries: list[Entry], state: State, base: int) -> Stretch:
    return Stretch(
        generation=key[0],
        lane=key[1],
        start=base,
        first=base + next(entry.first for entry in entries if not entry.gap),
        end=base + state.next,
        closed=state.closed,
        complete=entries[0].first == 0 and not any(entry.gap for entry in entries),
        position=orjson.loads(state.position) if state.position else {},
        high_lsn=state.high_lsn,
        high_us=state.high_us,
    )


def newest_snapshot(path: Path) -> int | None:
    """Where the newest whole snapshot begins; None when the journal holds none.

    Whole: closed, none of its rows gone, and of every table. The first generation's is that
    unless its position says otherwise; a later one may have read added tables only, and is
    taken for whole when its position says ``"whole": true``. While the very first snapshot
    is under way, that is the one.
    """
    for found in stretches(path)[::-1]:
        if found.lane != SNAPSHOT or not found.complete:
            continue
        first = found.generation == 1
        whole = bool(found.position.get("whole", first))
        if (whole and found.closed) or (first and not found.closed):
            return found.start
    return None


def place_of_lsn(reader: JournalReader, lsn: int, generation: int = 0) -> int:
    """Where everything committed (or snapshotted) at ``lsn`` or later begins.

    Generations below ``generation`` are passed over: they may be of another timeline.
    """
    offset = reader.first_offset_at_lsn(lsn, generation)
    return _with_snapshot(reader, offset, lambda stretch: stretch.high_lsn >= lsn)


def place_of_time(reader: JournalReader, us: int) -> int:
    """Where everything committed (or snapshotted) at ``us`` or later begins."""
    offset = reader.first_offset_at_time(us)
    return _with_snapshot(reader, offset, lambda stretch: stretch.high_us >= us)


def _with_snapshot(reader: JournalReader, offset: int, is_later: Any) -> int:
    """The start of the snapshot that ends at ``offset``, if that is after the point too."""
    for stretch in stretches(reader.path)[::-1]:
        if stretch.end > offset or stretch.end == stretch.start:
            continue
        if stretch.lane == STREAM or stretch.end < offset or not is_later(stretch):
            break
        offset = stretch.first
    return offset
