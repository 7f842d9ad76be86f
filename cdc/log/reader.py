"""Reading a journal: any number of readers, in any process, beside the writer.

A :class:`JournalReader` belongs to one thread. It knows which segment holds an offset from a
directory listing, and the block from a seek by primary key, so that a read costs the same
at any journal size. It never holds a transaction beyond one block: an open one would keep
the writer from reusing its write-ahead log, and the file would grow.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Self

import orjson

from cdc.api import PositionMembers
from cdc.block import Block, decode_block
from cdc.errors import LogCorrupt, LogError, OffsetOutOfRange
from cdc.log.files import STREAM, Entry, listing
from cdc.log.format import Index, State
from cdc.log.segment import SegmentReader
from schemas import EventSchema

OPEN_SEGMENTS_MAX = 3  # the one being read, and the newest of each lane
POLL_MIN_S, POLL_MAX_S = 0.0005, 0.02
READ_ATTEMPTS = 8  # how often the writer may rename the world under one read

Lost = Callable[[LogError], None]


class Gap(OffsetOutOfRange):
    """Rows ``[start, end)`` were dropped for want of space (``journal.full.policy=drop``).

    Raised by a read inside them. Whoever accepts the loss continues at ``end``.
    """

    def __init__(self, start: int, end: int) -> None:
        super().__init__(
            f"the journal dropped offsets {start} to {end - 1} for want of space",
            remedy=f"continue at offset {end}, or take a new snapshot",
        )
        self.start = start
        self.end = end


class Span(NamedTuple):
    """A segment (or gap) and the journal offset it begins at."""

    entry: Entry
    start: int
    settled: bool

    @property
    def base(self) -> int:
        """The journal offset of its lane's first row."""
        return self.start - self.entry.first


class JournalReader:
    """Blocks by offset. One thread; close it when done."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.opened = 0  # segments opened so far: what a read costs beyond its block
        self._spans: list[Span] = []
        self._starts: list[int] = []
        self._open: dict[Entry, SegmentReader] = {}
        self._final: dict[tuple[int, int], State] = {}
        self._schemas: dict[str, EventSchema] = {}
        self._seen: object = None
        self._refresh()

    def close(self) -> None:
        """Release all files."""
        for segment in self._open.values():
            segment.close()
        self._open.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def read(self, offset: int) -> Block | None:
        """The block that holds ``offset``, from that row on; None: nothing there yet.

        Raises OffsetOutOfRange (its text names the oldest offset there is), or its subclass
        Gap where rows were dropped for want of space.
        """
        for _ in range(READ_ATTEMPTS):
            span = self._span_of(offset)
            if span is None:
                return None
            try:
                segment = self._segment(span)
                found = segment.block_at(offset - span.base)
                if found is not None:
                    return self._decode(segment, span, offset, found)
                if not self._moved_on(offset, span, segment):
                    return None
            except FileNotFoundError:  # taken by retention since we listed
                self._refresh()
            except OffsetOutOfRange:
                raise
            except LogError:  # on a full disk a dropped segment is emptied beneath us
                if (self.path / span.entry.file).exists():
                    raise
                self._refresh()
        raise LogCorrupt(
            f"journal {self.path}: offset {offset} is missing between its neighbours",
            remedy="run `cdc journal verify`",
        )

    def bounds(self) -> tuple[int, int]:
        """The oldest offset stored and the next one to come, of the readable lanes."""
        self._refresh()
        segments = [span for span in self._spans if not span.entry.gap]
        if not segments:
            return 0, 0
        return segments[0].start, self._end_of_lane(segments[-1])

    def settled(self) -> bool:
        """Whether the newest stream position stored leaves no transaction open.

        A chain may have dropped the rows that tell where a transaction ends; the position
        tells it all the same, see :class:`cdc.api.PositionMembers`. True for a journal without one.
        """
        for _ in range(READ_ATTEMPTS):
            try:
                streams = [state for span, state in self.states() if span.entry.lane == STREAM]
            except FileNotFoundError:  # taken by retention since we listed
                continue
            text = streams[-1].position if streams else None
            position: PositionMembers = {} if text is None else orjson.loads(text)
            return position.get("open") is None
        return False

    def gaps(self) -> list[tuple[int, int]]:
        """What was dropped for want of space: (start, end) offsets, oldest first."""
        self._refresh()
        return [
            (span.start, self._end_of(number))
            for number, span in enumerate(self._spans)
            if span.entry.gap
        ]

    def spans(self) -> list[tuple[Span, int]]:
        """What is readable, in read order, each with the offset it ends at."""
        self._refresh()
        if not self._spans:
            return []
        last = self._spans[-1]
        after = last.start if last.entry.gap else self._end_of_lane(last)
        ends = [*self._starts[1:], after]
        return list(zip(self._spans, ends, strict=True))

    def first_offset_at_lsn(self, lsn: int, generation: int = 0) -> int:
        """The first streamed row whose transaction's commit LSN is ``lsn`` or later.

        Looks from a generation on: the LSNs of one before it may be another timeline's.
        """
        return self._search("high_lsn", "commit_lsn", lsn, generation)

    def first_offset_at_time(self, us: int) -> int:
        """The first streamed row committed at ``us`` (µs since the epoch) or later."""
        return self._search("high_us", "commit_us", us)

    def blocks_with(
        self,
        hashes: Collection[int],
        first: int = 0,
        end: int | None = None,
        *,
        keyless: bool = False,
        lost: Lost | None = None,
    ) -> Iterator[Block]:
        """Blocks from ``first`` up to ``end`` that can hold one of the keys, oldest first.

        ``hashes`` come from :func:`cdc.block.key_hash`; ``keyless`` says that those of
        truncates are among them. A block without the key may come, one with it never fails
        to. Reads the filters only, and no other body. What cannot be read (damage, a gap)
        raises, unless ``lost`` is given: it is told, in its place, and the rest is read on.
        """
        oldest, after = self.bounds()
        offset = max(first, oldest)
        end = after if end is None else min(end, after)
        while offset < end:
            try:
                found, reached = self._candidates(offset, hashes, keyless=keyless)
            except FileNotFoundError:  # taken by retention since we listed
                self._refresh()
                offset = max(offset, self._starts[0] if self._starts else end)
                continue
            except (Gap, LogCorrupt) as error:
                if lost is None:
                    raise
                lost(error)
                offset = error.end if isinstance(error, Gap) else self._next_start(offset, end)
                continue
            for start in found:
                block = self._read_or_tell(max(start, offset), lost) if start < end else None
                if block is not None:
                    yield block
            if reached <= offset:
                return
            offset = reached

    def _candidates(
        self, offset: int, hashes: Collection[int], *, keyless: bool
    ) -> tuple[list[int], int]:
        """As :meth:`SegmentReader.candidates`, in offsets; goes to the next segment by itself."""
        span = self._span_of(offset)
        if span is None:
            return [], offset
        found, reached = self._segment(span).candidates(offset - span.base, hashes, keyless=keyless)
        if span.base + reached <= offset and span is not self._spans[-1]:
            raise LogCorrupt(
                f"journal {self.path}: offset {offset} is missing between its neighbours",
                remedy="run `cdc journal verify`",
            )
        return [span.base + row for row in found], span.base + reached

    def _read_or_tell(self, offset: int, lost: Lost | None) -> Block | None:
        try:
            return self.read(offset)
        except LogCorrupt as error:
            if lost is None:
                raise
            lost(error)
        except OffsetOutOfRange:  # taken by retention since its filter was read
            pass
        return None

    def _next_start(self, offset: int, end: int) -> int:
        """Where the segment after the one that should hold ``offset`` begins."""
        number = bisect_right(self._starts, offset)
        return self._starts[number] if number < len(self._starts) else end

    def schemas(self, lost: Lost | None = None) -> dict[str, EventSchema]:
        """Every schema that readable segments refer to, by fingerprint, oldest segment first.

        A segment that cannot be read raises, unless ``lost`` is told of it.
        """
        self._refresh()
        for span in list(self._spans):
            if span.entry.gap:
                continue
            try:
                segment = self._segment(span)
                for fingerprint in segment.fingerprints():
                    if fingerprint not in self._schemas:
                        self._schemas[fingerprint] = segment.schema(fingerprint)
            except FileNotFoundError:
                continue
            except LogCorrupt as error:
                if lost is None:
                    raise
                lost(error)
        return dict(self._schemas)

    def states(self) -> list[tuple[Span, State]]:
        """The newest readable segment of each lane with its state, oldest first."""
        self._refresh()
        newest = {span.entry.lane_key: span for span in self._spans if not span.entry.gap}
        return [(span, self._segment(span).state()) for span in newest.values()]

    def wait(self, timeout_s: float) -> bool:
        """Whether the journal changed since the last call, within ``timeout_s``.

        Polls the newest readable segment's version, which costs microseconds. A runtime
        that is told of new blocks need not call this.
        """
        deadline = time.monotonic() + timeout_s
        pause_s = POLL_MIN_S
        while True:
            version = self._version()
            if version != self._seen:
                self._seen = version
                return True
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 2, POLL_MAX_S)

    # -- which segment -------------------------------------------------------------------

    def _refresh(self) -> None:
        """List the journal and place every readable segment in the order of offsets."""
        for _ in range(READ_ATTEMPTS):
            try:
                self._spans = list(self._place())
                break
            except FileNotFoundError:
                continue
        self._starts = [span.start for span in self._spans]
        present = {span.entry for span in self._spans}
        for entry in [entry for entry in self._open if entry not in present]:
            self._open.pop(entry).close()

    def _place(self) -> Iterator[Span]:
        end: int | None = None  # of the lane before, when that is closed
        for key, group in groupby(listing(self.path), key=lambda entry: entry.lane_key):
            entries = list(group)
            segments = [entry for entry in entries if not entry.gap]
            if not segments:  # all dropped: only ever the journal's front
                yield from (Span(entry, end or 0, False) for entry in entries)
                continue
            state = self._lane_state(key, segments[-1])
            base = end if state.base is None else state.base
            if base is None:
                raise LogCorrupt(
                    f"journal {self.path}: the segments before {segments[0].file} are missing"
                )
            for entry in entries:
                # What ends a closed lane without rows of its own outlives the rows before it:
                # retention may have made a hole between it and the next lane. There may be two
                # of them, while a position is noted.
                if not state.closed or state.next > entry.first:
                    yield Span(entry, base + entry.first, entry != segments[-1])
            if not state.closed:
                return
            end = base + state.next

    def _lane_state(self, key: tuple[int, int], newest: Entry) -> State:
        if key in self._final:
            return self._final[key]
        state = self._segment(Span(newest, 0, False)).state()
        if state.closed and state.base is not None:
            self._final[key] = state
        return state

    def _span_of(self, offset: int) -> Span | None:
        """The segment to look in; None when the journal is empty so far."""
        if not self._spans or offset < self._spans[0].start:
            self._refresh()
        if not self._spans and offset == 0:
            return None
        number = bisect_right(self._starts, offset) - 1
        if number < 0:
            raise self._out_of_range(offset)
        span = self._spans[number]
        if span.entry.gap:
            self._refresh()
            number = bisect_right(self._starts, offset) - 1
            if number < 0 or not (span := self._spans[number]).entry.gap:
                return self._span_of(offset)
            raise Gap(self._gap_start(number), self._end_of(number))
        return span

    def _end_of(self, number: int) -> int:
        """Where a gap ends: at the next segment."""
        return next(
            (span.start for span in self._spans[number:] if not span.entry.gap),
            self._spans[number].start,
        )

    def _end_of_lane(self, newest: Span) -> int:
        return newest.base + self._segment(newest).state().next

    def _gap_start(self, number: int) -> int:
        while number and self._spans[number - 1].entry.gap:
            number -= 1
        return self._spans[number].start

    def _moved_on(self, offset: int, span: Span, segment: SegmentReader) -> bool:
        """Nothing is stored at ``offset`` in what we know: is there more to know by now?"""
        state = segment.state()
        known = self._spans
        end = span.base + state.next
        last = span is known[-1]
        if offset < end or not last or state.closed or state.sealed_ms is not None:
            self._refresh()
            # Something before the last segment that holds nothing there is a hole: the
            # caller tries again and gives up with LogCorrupt.
            if offset < end or not last or self._spans != known:
                return True
        if offset > end:
            raise self._out_of_range(offset)
        return False

    def _out_of_range(self, offset: int) -> OffsetOutOfRange:
        oldest, after = self.bounds()
        return OffsetOutOfRange(
            f"offset {offset} is not in journal {self.path}: it holds {oldest} to {after - 1}"
            if after > oldest
            else f"offset {offset} is not in journal {self.path}: its next offset is {after}",
            remedy=f"the oldest offset there is: {oldest}",
        )

    def _segment(self, span: Span) -> SegmentReader:
        segment = self._open.pop(span.entry, None)
        if segment is not None and segment.immutable and not span.settled:
            segment.close()  # opened without locks for want of space: it would never change
            segment = None
        if segment is None:
            while len(self._open) >= OPEN_SEGMENTS_MAX:
                self._open.pop(next(iter(self._open))).close()
            segment = SegmentReader(self.path, span.entry, settled=span.settled)
            self.opened += 1
        self._open[span.entry] = segment  # at the end: the least recently used goes first
        return segment

    # -- what is in it -------------------------------------------------------------------

    def _decode(
        self,
        segment: SegmentReader,
        span: Span,
        offset: int,
        found: tuple[Index, bytes, bytes],
    ) -> Block:
        index, header, body = found

        def schema_of(fingerprint: str) -> EventSchema:
            if fingerprint not in self._schemas:
                self._schemas[fingerprint] = segment.schema(fingerprint)
            return self._schemas[fingerprint]

        start = span.base + index.start
        try:
            block = decode_block(header, body, index.crc, schema_of, start)
        except LogCorrupt as error:
            raise LogCorrupt(
                f"journal segment {segment.path.name}: {error.problem}",
                remedy="run `cdc journal verify`; other segments stay readable",
            ) from error
        return block if offset == start else block.select(range(offset - start, index.rows))

    def _search(self, high: str, column: str, target: int, generation: int = 0) -> int:
        """Bisect over running maxima: over segments first, then over one segment's blocks."""
        for _ in range(READ_ATTEMPTS):
            with suppress(FileNotFoundError):  # taken by retention since we listed
                return self._searched(high, column, target, generation)
        raise LogCorrupt(f"journal {self.path}: it changes faster than it can be read")

    def _searched(self, high: str, column: str, target: int, generation: int) -> int:
        _, after = self.bounds()
        streams = [
            span
            for span in self._spans
            if span.entry.lane == STREAM
            and not span.entry.gap
            and span.entry.generation >= generation
        ]
        for _, group in groupby(streams, key=lambda span: span.entry.generation):
            spans = list(group)
            low = bisect_left(
                spans, target, key=lambda span: getattr(self._segment(span).state(), high)
            )
            found = self._search_rows(spans[low:], high, column, target)
            if found is not None:
                return found
        return after

    def _search_rows(self, spans: list[Span], high: str, column: str, target: int) -> int | None:
        """The first row that reaches the target in these segments of a lane; the first one does.

        A block's maximum may be of a transaction that a chain has left no row of: then it is
        in a later block, or there is none.
        """
        if not spans:
            return None
        offset = spans[0].base + self._segment(spans[0]).first_reaching(high, target)
        end = self._end_of_lane(spans[-1])
        while offset < end:
            try:
                block = self.read(offset)
            except Gap as gap:
                offset = gap.end
                continue
            if block is None:
                return offset
            reaches = [getattr(t, column) >= target for t in block.transactions]
            for offset, transaction in zip(block.offsets, block.transaction, strict=True):
                if reaches[transaction]:
                    return offset
            offset += 1
        return None

    def _version(self) -> object:
        """Changes when a block may have come: of the newest readable segment, or the list."""
        try:
            if not self._spans:
                self._refresh()
            if self._spans and not self._spans[-1].entry.gap:
                span = self._spans[-1]
                segment = self._segment(span)
                return span.entry, segment.version(), self.path.stat().st_mtime_ns
            return self.path.stat().st_mtime_ns
        except FileNotFoundError:
            return None
