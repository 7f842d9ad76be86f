"""What is missing between segments: rows of a lane, or whole lanes.

A sound journal is one stretch of rows in read order, from wherever retention has left its front
to the end. Rows dropped for want of space are no hole: a gap tells of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cdc.log.files import LANES, SNAPSHOT, STREAM, Entry
from cdc.log.format import State


def holes(found: Iterable[tuple[Entry, State | None]]) -> Iterator[str]:
    """One text for each, of segments in read order; a state that cannot be read tells nothing."""
    last: tuple[Entry, State | None] | None = None
    lane_first, front = 0, True  # the lane's first row that is there; nothing is before it
    for entry, state in found:
        if last is None or last[0].lane_key != entry.lane_key:
            if last is not None and last[1] is not None:
                # What ends a closed lane outlives its rows, which retention has taken.
                front = front and last[1].closed and last[1].next == lane_first
            lane_first = entry.first
        if last is not None and last[1] is not None and not entry.gap:
            yield from _between(last[0], last[1], entry, front=front)
        last = entry, state


def _between(old: Entry, end: State, entry: Entry, *, front: bool) -> Iterator[str]:
    if old.lane_key == entry.lane_key:
        if end.next != entry.first:
            yield (
                f"rows {end.next} to {entry.first - 1} of the {LANES[entry.lane].value} lane are"
                f" missing between {old.file} and {entry.file}"
            )
    elif not front and not _follows(old, end, entry):
        yield f"rows are missing between {old.file} and {entry.file}"


def _follows(old: Entry, end: State, entry: Entry) -> bool:
    """Whether a lane goes on where the one before ended."""
    if entry.first:
        return False
    if old.lane == SNAPSHOT:  # the stream is written beside a snapshot that is open
        return entry.lane_key == (old.generation, STREAM)
    return end.closed and entry.lane_key == (old.generation + 1, SNAPSHOT)
