"""Points in a journal: an offset, an LSN or a time, as people write them.

An LSN or a time stands for the state in which every transaction committed until then is seen
and no other. The LSN of a change itself, as it stands in events and in a history, stands for
the state right after that change. Times without a zone are UTC, as all times shown are.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson

from cdc.errors import ConfigError, OffsetOutOfRange
from cdc.history.model import EPOCH, lsn_text, moment, time_text
from cdc.log import JournalReader

_LSN = re.compile(r"(?:([0-9]{1,9}):)?([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
FORMS = (
    "an offset (1200), an LSN (0/16B3748, 2:0/16B3748 on timeline 2) or a time"
    " (2026-03-01T12:00:00Z)"
)
OFFSET_MAX = 2**63 - 1


class Point(NamedTuple):
    """``kind`` is offset, lsn (``timeline`` may say of which) or time (µs since the epoch)."""

    kind: str
    value: int
    timeline: int | None = None

    def __str__(self) -> str:
        if self.kind == "time":
            return time_text(moment(self.value))
        return lsn_text(self.value) if self.kind == "lsn" else f"offset {self.value}"


def parse_point(text: str | int | datetime | Point, key: str = "at") -> Point:
    """From an argument. Raises ConfigError, which names ``key`` and the three forms."""
    if isinstance(text, Point):
        return text
    if isinstance(text, datetime):
        return _time(text)
    word = str(text).strip()
    if word.isascii() and word.isdigit() and int(word) <= OFFSET_MAX:
        return Point("offset", int(word))
    lsn = _LSN.fullmatch(word)
    if lsn:
        timeline = int(lsn[1]) if lsn[1] else None
        return Point("lsn", int(lsn[2], 16) << 32 | int(lsn[3], 16), timeline)
    try:
        return _time(datetime.fromisoformat(word))
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{word!r} is none of the forms", key=key, remedy=f"Give {FORMS}"
        ) from None


def _time(time: datetime) -> Point:
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return Point("time", (aware - EPOCH) // timedelta(microseconds=1))


class Stretch(NamedTuple):
    """What one generation of a journal covers: LSNs, times and offsets."""

    first: int
    end: int
    low_lsn: int
    high_lsn: int
    low_us: int
    timeline: Any


def stretches(reader: JournalReader) -> list[Stretch]:
    """One per generation that holds rows, oldest first."""
    out: list[Stretch] = []
    lanes = reader.states()
    spans = reader.spans()
    for generation in dict.fromkeys(span.entry.generation for span, _ in lanes):
        own = [(s, end) for s, end in spans if s.entry.generation == generation]
        present = [(s, end) for s, end in own if not s.entry.gap and end > s.start]
        states = [state for span, state in lanes if span.entry.generation == generation]
        positions = [orjson.loads(s.position) for s in states if s.position]
        first = reader.read(present[0][0].start) if present else None
        if first is None or not first.transactions:
            continue
        reached = [p["lsn"] for p in positions if isinstance(p.get("lsn"), int)]
        out.append(
            Stretch(
                present[0][0].start,
                present[-1][1],
                min(first.transactions[0].commit_lsn, first.lsn[0]),
                max([*(state.high_lsn for state in states), *reached]),
                first.transactions[0].commit_us,
                next((p["timeline"] for p in positions if "timeline" in p), None),
            )
        )
    return out


def window(reader: JournalReader, point: Point) -> tuple[int, int]:
    """The offsets among which a point's LSN or time is to be looked for.

    All before is earlier, all after later, whatever their LSNs: those of another timeline may
    be lower. Raises OffsetOutOfRange for a point of which the journal says nothing.
    """
    oldest, after = reader.bounds()
    if after == oldest:
        raise OffsetOutOfRange(f"journal {reader.path} holds no rows yet")
    if point.kind == "offset":
        if not oldest <= point.value < after:
            raise OffsetOutOfRange(
                f"offset {point.value} is not in the journal: it holds {oldest} to {after - 1}"
            )
        return oldest, after
    known = stretches(reader)
    if not known:
        raise OffsetOutOfRange(f"journal {reader.path} holds no rows yet")
    begin = f"{time_text(moment(known[0].low_us))}, LSN {lsn_text(known[0].low_lsn)}"
    if point.kind == "time":
        if point.value < known[0].low_us:
            raise OffsetOutOfRange(
                f"{point} is before the journal begins",
                remedy=f"The oldest there is: {begin}, offset {known[0].first}",
            )
        return oldest, OFFSET_MAX
    inside = _around(point, known)
    return inside[0].first, inside[-1].end


def _around(point: Point, known: list[Stretch]) -> list[Stretch]:
    """The generations that know an LSN, all of one timeline."""
    inside = [s for s in known if s.low_lsn <= point.value <= s.high_lsn]
    timelines = {s.timeline for s in inside}
    if point.timeline is not None and inside and point.timeline not in timelines:
        raise OffsetOutOfRange(
            f"LSN {point} is not on timeline {point.timeline} in the journal",
            remedy=f"It holds {_ranges(known)}",
        )
    if len(timelines) > 1 and point.timeline is None:
        raise OffsetOutOfRange(
            f"LSN {point} is on several timelines: {_ranges(inside)}",
            remedy="Say which, as in 2:0/16B3748, or give an offset",
        )
    if inside:
        return [s for s in inside if point.timeline in (None, s.timeline)]
    where = "was never seen in the journal"
    if point.value > max(s.high_lsn for s in known):
        where = "is beyond the journal's end"
    elif point.value < min(s.low_lsn for s in known):
        where = "is before the journal begins"
    raise OffsetOutOfRange(f"LSN {point} {where}", remedy=f"It holds {_ranges(known)}")


def _ranges(known: list[Stretch]) -> str:
    return "; ".join(
        f"{lsn_text(s.low_lsn)} to {lsn_text(s.high_lsn)}"
        f"{f' on timeline {s.timeline}' if s.timeline is not None else ''}"
        f" (offsets {s.first} to {s.end - 1})"
        for s in known
    )


def offset_of(reader: JournalReader, point: Point) -> int:
    """The first row at or after a point, in journal order: where reading from it begins.

    Raises OffsetOutOfRange as :func:`window`; the journal's end is a valid offset.
    """
    if point.kind == "offset" and point.value == reader.bounds()[1]:
        return point.value
    first, end = window(reader, point)
    if point.kind == "offset":
        return point.value
    if point.kind == "time":
        oldest = stretches(reader)[0]
        return (
            oldest.first
            if point.value <= oldest.low_us
            else reader.first_offset_at_time(point.value)
        )
    if any(s.first == first and point.value <= s.low_lsn for s in stretches(reader)):
        return first
    generation = next(span.entry.generation for span, stop in reader.spans() if stop > first)
    return min(end, reader.first_offset_at_lsn(point.value, generation))
