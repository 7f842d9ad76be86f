"""Places in a journal: what people write for one, and the offset it stands for.

A place is an offset, an LSN, a time, or the beginning. One that the journal does not hold is
refused with what there is instead: nothing is rounded silently. Reading from a place errs on
the side of sending again: where the first transaction looked for is the first of its
generation, the snapshot in front of it is included if it was taken at or after the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from cdc.api import PositionMembers
from cdc.block import STREAMED, Block, Transaction
from cdc.errors import ConfigError, LogCorrupt, OffsetOutOfRange
from cdc.log.files import SNAPSHOT, STREAM, Entry, listing
from cdc.log.format import State
from cdc.log.reader import READ_ATTEMPTS, JournalReader
from cdc.log.segment import SegmentReader, closing_state
from cdc.lsn import lsn_text

BEGINNING: Final = "beginning"
OFFSET_MAX: Final = 2**63 - 1
FORMS: Final = (
    "Give an offset (1200), an LSN (0/16B3740, or 2:0/16B3740 on timeline 2), a time"
    " (2026-01-31T12:00:00Z; without a zone it is UTC), or beginning"
)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LSN = re.compile(r"(?:([0-9]{1,9}):)?([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class Place(NamedTuple):
    """``kind`` is beginning, offset, lsn (``timeline`` may say of which) or time.

    ``value``: the offset, the LSN, or microseconds since 1970. ``str`` is parsed to the same.
    """

    kind: str
    value: int = 0
    timeline: int | None = None

    def __str__(self) -> str:
        if self.kind == "time":
            return time_text(moment(self.value))
        if self.kind == "lsn":
            of = "" if self.timeline is None else f"{self.timeline}:"
            return of + lsn_text(self.value)
        return BEGINNING if self.kind == BEGINNING else str(self.value)


class UnknownPlace(ConfigError, OffsetOutOfRange):
    """A place of which the journal says nothing: asked for wrongly, as an unknown table is."""


def parse_place(text: str | int | datetime | Place, key: str = "at") -> Place:
    """From an argument. Raises ConfigError, which names ``key`` and the forms there are."""
    if isinstance(text, Place):
        return text
    word = text.isoformat() if isinstance(text, datetime) else str(text).strip()
    if word.lower() == BEGINNING:
        return Place(BEGINNING)
    if word.isascii() and word.isdigit() and len(word) < 20 and int(word) <= OFFSET_MAX:
        return Place("offset", int(word))
    lsn = _LSN.fullmatch(word)
    if lsn:
        timeline = int(lsn[1]) if lsn[1] else None
        return Place("lsn", int(lsn[2], 16) << 32 | int(lsn[3], 16), timeline)
    try:
        time = datetime.fromisoformat(word)
        aware = time if time.tzinfo else time.replace(tzinfo=UTC)
        us = (aware - EPOCH) // timedelta(microseconds=1)
        moment(us)  # a zone may lead out of the calendar
    except (ValueError, OverflowError):
        raise ConfigError(f"{word!r} is no place in a journal", key=key, remedy=FORMS) from None
    return Place("time", us)


def moment(us: int) -> datetime:
    """A commit time of the journal."""
    return EPOCH + timedelta(microseconds=us)


def time_text(time: datetime) -> str:
    """Of a time in UTC: ISO, always with microseconds."""
    return time.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


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
    position: PositionMembers
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
        if key[1] == SNAPSHOT and state.closed:  # what was noted since says nothing of its rows
            _, read = closing_state(path, segments, state)
            state = state._replace(position=read.position)
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


# --- what a place stands for


class Known(NamedTuple):
    """What one generation of a journal covers: offsets, LSNs, and the history these are of."""

    generation: int
    first: int
    end: int
    low_lsn: int
    high_lsn: int
    system: Any
    timeline: Any

    def __str__(self) -> str:
        return (
            f"{lsn_text(self.low_lsn)} to {lsn_text(self.high_lsn)} on timeline {self.timeline}"
            f" (offsets {self.first} to {self.end - 1})"
        )


class Places:
    """The places of one journal, as of the moment each is asked for.

    ``key`` names the option that a place was given by. Every method raises UnknownPlace for a
    place that the journal does not hold: beyond its ends, taken by retention, or dropped.
    """

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader
        self.name = reader.path.name
        self.oldest, self.after = reader.bounds()

    def start(self, place: Place, key: str = "--from", *, follow: bool = False) -> int:
        """The first row at or after a place, where reading from it begins.

        A time before the journal's beginning is its beginning, unless retention has taken
        rows since. ``follow``: what is yet to come is there too.
        """
        if place.kind == BEGINNING:
            if not follow:
                self._check_rows(key)
            return self.oldest
        if place.kind == "time":
            newest_us = max((s.high_us for s in stretches(self._reader.path)), default=0)
            if place.value > newest_us:
                if follow:
                    return self.after
                raise UnknownPlace(
                    f"nothing in journal {self.name} was committed at {place} or later", key=key,
                    remedy=f"The newest commit is of {time_text(moment(newest_us))}",
                )  # fmt: skip
            self._check_taken(place, key)
        return self._offset(place, key)

    def end(self, place: Place, key: str = "--to") -> int:
        """The offset after what comes up to a place.

        The transaction of an LSN is in; a row at an offset, or committed at a time, is not.
        """
        if place.kind == BEGINNING:
            raise UnknownPlace("nothing comes before the beginning", key=key, remedy=FORMS)
        if place.kind == "offset" and any(place.value == gap[0] for gap in self._reader.gaps()):
            return place.value  # nothing of what was dropped is asked for
        at = self._offset(place, key)
        if place.kind == "lsn":
            at = self._end_of_lsn(place.value, self._knowing(place, key))
        return at

    def _end_of_lsn(self, lsn: int, known: list[Known]) -> int:
        """After the transaction that was committed at an LSN, or else was open then."""
        after, end = known[0].first, known[-1].end
        for value in (lsn, lsn + 1):
            after = min(self._reader.first_offset_at_lsn(value, known[0].generation), end)
            row = self._row(after) if after < end else None
            if row is None:
                break
            low, high = row.lsn[0], row.transactions[row.transaction[0]].commit_lsn
            if high == lsn or (value > lsn and low <= lsn):
                return self.end_of(after + 1)
        return next((gap[0] for gap in self._reader.gaps() if gap[1] == after), after)

    def around(self, place: Place, key: str = "at") -> tuple[int, int]:
        """The offsets among which a place's LSN or time is to be looked for.

        All before is earlier, all after later, whatever their LSNs: those of another timeline
        may be lower. Refuses times before the journal's beginning and in the future, too.
        """
        self._check_rows(key)
        if place.kind in (BEGINNING, "offset"):
            if place.kind == "offset":
                self._check_offset(place, self.after - 1, key)
            return self.oldest, self.after
        if place.kind == "lsn":
            self._offset(place, key)
            known = self._knowing(place, key)
            return known[0].first, known[-1].end
        newest_us = max(s.high_us for s in stretches(self._reader.path))
        if moment(place.value) > max(datetime.now(UTC), moment(newest_us)):
            raise UnknownPlace(
                f"{place} lies in the future", key=key,
                remedy=f"The newest commit is of {time_text(moment(newest_us))}",
            )  # fmt: skip
        first = self._transaction(self.oldest)
        if first is not None and place.value < first.commit_us:
            raise UnknownPlace(
                f"{place} is before journal {self.name} begins", key=key, remedy=self._oldest(first)
            )
        if place.value <= newest_us:
            self._offset(place, key)
        return self.oldest, OFFSET_MAX

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """Dropped rows among ``[start, end)``, as offsets ``[first, after)``."""
        return [gap for gap in self._reader.gaps() if gap[0] < end and gap[1] > start]

    # --- whole transactions

    def begin_of(self, offset: int) -> int:
        """Where the transaction of a row begins."""
        transaction = self._transaction(offset)
        if transaction is None or not self._is_streamed(offset):
            return offset
        generation = self._generation_of(offset)
        begin = self._reader.first_offset_at_lsn(transaction.commit_lsn, generation)
        return max(self.oldest, min(begin, offset))

    def end_of(self, offset: int) -> int:
        """Where the transaction of the row before ``offset`` ends."""
        transaction = self._transaction(offset - 1)
        if transaction is None or not self._is_streamed(offset - 1):
            return offset
        generation = self._generation_of(offset - 1)
        after = self._reader.first_offset_at_lsn(transaction.commit_lsn + 1, generation)
        ends = [s.end for s in stretches(self._reader.path) if s.end >= offset]
        gaps = [start for start, _ in self._reader.gaps() if start >= offset]
        return max(offset, min(after, *ends, *gaps))

    def _generation_of(self, offset: int) -> int:
        return next(s.generation for s in stretches(self._reader.path) if offset < s.end)

    def _is_streamed(self, offset: int) -> bool:
        block = self._row(offset)
        return block is not None and block.marker_of(0) == STREAMED

    def _transaction(self, offset: int) -> Transaction | None:
        block = self._row(offset)
        return None if block is None else block.transactions[block.transaction[0]]

    def _row(self, offset: int) -> Block | None:
        """The block that begins with a row; None where there is none, in a gap too."""
        try:
            block = self._reader.read(offset) if self.oldest <= offset < self.after else None
        except OffsetOutOfRange:
            return None
        return block if block is not None and len(block) else None

    # --- looked for, and refused

    def _offset(self, place: Place, key: str) -> int:
        """Where everything at a place or later begins."""
        self._check_rows(key)
        if place.kind == "offset":
            self._check_offset(place, self.after, key)
            return place.value
        if place.kind == "time":
            offset = place_of_time(self._reader, place.value)
            self._check_gap(place, self._gap_before(offset, "commit_us", place.value), key)
            return offset
        known = self._knowing(place, key)
        offset = min(known[-1].end, place_of_lsn(self._reader, place.value, known[0].generation))
        self._check_gap(place, self._gap_before(offset, "commit_lsn", place.value), key)
        return offset

    def _check_rows(self, key: str) -> None:
        if self.after == self.oldest:
            raise UnknownPlace(f"journal {self.name} holds no rows yet", key=key)

    def _check_offset(self, place: Place, newest: int, key: str) -> None:
        gap = next((g for g in self._reader.gaps() if g[0] <= place.value < g[1]), None)
        self._check_gap(place, gap, key)
        if place.value < self.oldest:
            raise UnknownPlace(
                f"retention has taken offset {place} out of journal {self.name}",
                key=key,
                remedy=f"The oldest offset there is: {self.oldest}",
            )
        if place.value > newest:
            raise UnknownPlace(
                f"journal {self.name} ends before offset {place}",
                key=key,
                remedy=f"Its newest offset is {self.after - 1}",
            )

    def _check_gap(self, place: Place, gap: tuple[int, int] | None, key: str) -> None:
        if gap is not None:
            raise UnknownPlace(
                f"{place} is among offsets {gap[0]} to {gap[1] - 1} of journal {self.name},"
                " which were dropped for want of space",
                key=key,
                remedy=f"What comes after them begins at offset {gap[1]}",
            )

    def _gap_before(self, offset: int, field: str, value: int) -> tuple[int, int] | None:
        """The dropped rows that end at ``offset``, if what was found to begin there is in them.

        It is, unless it is the first transaction's behind them.
        """
        gap = next((gap for gap in self._reader.gaps() if gap[1] == offset), None)
        behind = None if gap is None else self._transaction(offset)
        return None if behind is not None and getattr(behind, field) <= value else gap

    def _check_taken(self, place: Place, key: str) -> None:
        first = self._transaction(self.oldest) if self.oldest else None
        if first is not None and place.value < first.commit_us:
            raise UnknownPlace(
                f"retention has taken what was committed from {place} on",
                key=key,
                remedy=self._oldest(first),
            )

    def _oldest(self, first: Transaction) -> str:
        at = f"{time_text(moment(first.commit_us))}, LSN {lsn_text(first.commit_lsn)}"
        return f"The oldest commit there is: {at}, offset {self.oldest}"

    def _knowing(self, place: Place, key: str) -> list[Known]:
        """The generations that know an LSN, all of one history."""
        known = list(self._known())
        inside = [k for k in known if k.low_lsn <= place.value <= k.high_lsn]
        wanted = [k for k in inside if place.timeline in (None, k.timeline)]
        if len({(k.system, k.timeline) for k in wanted}) > 1:
            raise UnknownPlace(
                f"{place} is on several timelines: {'; '.join(map(str, wanted))}", key=key,
                remedy="Say which, as in 2:0/16B3740, or give an offset",
            )  # fmt: skip
        if wanted:
            return wanted
        problem = f"{place} is not in journal {self.name}"
        if place.timeline not in (None, *(k.timeline for k in known)):
            problem = f"{place} is of another timeline"
        raise UnknownPlace(
            problem, key=key, remedy=f"It holds {'; '.join(map(str, known)) or 'no transaction'}"
        )

    def _known(self) -> Iterator[Known]:
        """Oldest first. A snapshot can be begun at only where all its rows are there."""
        lanes = [lane for lane in stretches(self._reader.path) if lane.first < lane.end]
        for generation, group in groupby(lanes, key=lambda lane: lane.generation):
            own = list(group)
            whole = [lane for lane in own if lane.lane == STREAM or lane.complete]
            block = self._row(whole[0].first) if whole else None
            if block is None:
                continue
            reached = [lane.position.get("lsn") for lane in own]
            newest = own[-1].position
            yield Known(
                generation,
                own[0].first,
                own[-1].end,
                _low(whole[0], block),
                max(
                    *(lane.high_lsn for lane in own), *(n for n in reached if isinstance(n, int)), 0
                ),
                newest.get("system"),
                newest.get("timeline", 1),
            )


def _low(lane: Stretch, block: Block) -> int:
    """The lowest LSN that a generation knows: of its first block, or where all was snapshotted."""
    commit_lsn = block.transactions[block.transaction[0]].commit_lsn
    return min(commit_lsn, block.lsn[0]) if lane.lane == STREAM else lane.high_lsn
