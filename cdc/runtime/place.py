"""Where ``--from`` and ``--to`` point: an offset, an LSN, a time, or the beginning.

A place that the journal does not hold is refused with what there is instead: nothing is
rounded silently, but to whole transactions, and that towards sending again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cdc.block import STREAMED
from cdc.errors import ConfigError, OffsetOutOfRange
from cdc.log.files import STREAM
from cdc.log.places import Stretch, place_of_lsn, place_of_time, stretches
from cdc.log.reader import JournalReader

BEGINNING: Final = "beginning"
END: Final = "end"
_LSN = re.compile(r"(?:([0-9]{1,9}):)?([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
FORMS: Final = (
    "Write an offset (1200), an LSN (0/16B3740, or 2:0/16B3740 on timeline 2), a time"
    " (2026-01-31T12:00:00Z; without a zone it is UTC), or beginning"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A place as it was written: one of offset, LSN (maybe with its timeline) or time."""

    text: str
    offset: int | None = None
    lsn: int | None = None
    timeline: int | None = None
    us: int | None = None


def parse(text: str, key: str) -> Asked:
    """Understand a place; raises ConfigError for what is none."""
    text = text.strip()
    if text.lower() in (BEGINNING, END):
        return Asked(text.lower())
    if re.fullmatch(r"[0-9]{1,19}", text):
        return Asked(text, offset=int(text))
    match = _LSN.fullmatch(text)
    if match:
        lsn = (int(match[2], 16) << 32) | int(match[3], 16)
        return Asked(text, lsn=lsn, timeline=int(match[1]) if match[1] else None)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no place in a journal", key=key, remedy=FORMS) from None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    seconds, microseconds = int(time.replace(microsecond=0).timestamp()), time.microsecond
    return Asked(text, us=seconds * 1_000_000 + microseconds)


class Places:
    """The places of one journal, as of the moment each is asked for."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._reader = JournalReader(path)
        self.oldest, self.after = self._reader.bounds()

    def close(self) -> None:
        """Release files."""
        self._reader.close()

    def start(self, asked: Asked, key: str = "--from") -> int:
        """The offset where everything from the place on begins, at a transaction's begin."""
        if self.after == self.oldest:
            raise ConfigError(f"journal {self.name} holds nothing", key=key)
        if asked.text == BEGINNING:
            return self.oldest
        if asked.text == END:
            raise ConfigError("nothing comes after the end", key=key, remedy=FORMS)
        if asked.lsn is not None:
            return place_of_lsn(self._reader, asked.lsn, self._generation(asked, key))
        if asked.us is not None:
            return self._of_time(asked, asked.us, key)
        assert asked.offset is not None
        self._check(asked.offset, key)
        return self._begin_of(asked.offset)

    def end(self, asked: Asked | None, key: str = "--to") -> int:
        """The offset after the place: an LSN's transaction is in, one committed at a time not."""
        if asked is None or asked.text == END:
            return self.after
        if asked.text == BEGINNING:
            raise ConfigError("nothing comes before the beginning", key=key, remedy=FORMS)
        if asked.lsn is not None:
            generation = self._generation(asked, key)
            at = self._reader.first_offset_at_lsn(asked.lsn, generation)
            return self._end_of(min(at + 1, self.after))
        if asked.us is not None:
            return self._reader.first_offset_at_time(asked.us)
        assert asked.offset is not None
        self._check(asked.offset, key)
        return self._end_of(asked.offset)

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """What was dropped for want of space in ``[start, end)``, as such ranges."""
        found = ((max(start, low), min(end, high)) for low, high in self._reader.gaps())
        return [(low, high) for low, high in found if low < high]

    # --- what is refused

    def _check(self, offset: int, key: str) -> None:
        if offset < self.oldest:
            raise ConfigError(
                f"retention has taken offset {offset} out of journal {self.name}",
                key=key,
                remedy=f"The oldest offset there is: {self.oldest}",
            )
        if offset > self.after:
            raise ConfigError(
                f"journal {self.name} ends before offset {offset}",
                key=key,
                remedy=f"Its newest offset is {self.after - 1}",
            )

    def _of_time(self, asked: Asked, us: int, key: str) -> int:
        newest_us = max((s.high_us for s in self._stretches()), default=0)
        if us > newest_us:
            raise ConfigError(
                f"nothing in journal {self.name} was committed at {asked.text} or later",
                key=key,
                remedy=f"The newest commit is of {_time(newest_us)}",
            )
        if self.oldest:
            first = self._first()
            if first is not None and us < first[1]:
                raise ConfigError(
                    f"retention has taken what was committed from {asked.text} on",
                    key=key,
                    remedy=f"The oldest commit there is: {_time(first[1])}, offset {self.oldest}",
                )
        return place_of_time(self._reader, us)

    def _first(self) -> tuple[int, int] | None:
        """Commit LSN and time of the oldest row there is."""
        try:
            block = self._reader.read(self.oldest)
        except OffsetOutOfRange:
            return None
        if block is None or not len(block):
            return None
        transaction = block.transactions[block.transaction[0]]
        return transaction.commit_lsn, transaction.commit_us

    def _generation(self, asked: Asked, key: str) -> int:
        """The first generation of the LSN's timeline; refuses an LSN that was never there."""
        assert asked.lsn is not None
        found = [s for s in self._stretches() if s.lane == STREAM and s.first < s.end]
        if not found:
            raise ConfigError(f"journal {self.name} holds no transaction yet", key=key)
        newest = _timeline(found[-1])
        wanted = newest if asked.timeline is None else (newest[0], asked.timeline)
        own = [s for s in found if _timeline(s) == wanted]
        if not own:
            held = ", ".join(dict.fromkeys(str(_timeline(s)[1]) for s in found))
            raise ConfigError(
                f"{asked.text} is of another timeline", key=key,
                remedy=f"The journal holds timeline {held}",
            )  # fmt: skip
        low, high = self._low(own[0]), _high(own[-1])
        if not low <= asked.lsn <= high:
            also = "".join(
                f"; before, on timeline {_timeline(s)[1]}, up to {lsn_text(s.high_lsn)}"
                for s in found
                if _timeline(s) != wanted
            )
            raise ConfigError(
                f"{asked.text} is not in journal {self.name}",
                key=key,
                remedy=f"It holds {lsn_text(low)} to {lsn_text(high)}{also}",
            )
        return own[0].generation

    def _low(self, first: Stretch) -> int:
        """The lowest LSN that can be begun at: a snapshot's, where that is stored."""
        for stretch in self._stretches():
            same = stretch.generation == first.generation and stretch.lane != STREAM
            if same and stretch.complete and stretch.first < stretch.end:
                return stretch.high_lsn
        block = self._reader.read(first.first)
        assert block is not None
        return block.transactions[block.transaction[0]].commit_lsn

    def _stretches(self) -> list[Stretch]:
        return stretches(self._reader.path)

    # --- whole transactions

    def _begin_of(self, offset: int) -> int:
        """Where the transaction of a row begins."""
        commit_lsn = self._commit_lsn(offset)
        if commit_lsn is None:
            return offset
        generation = self._generation_of(offset)
        begin = self._reader.first_offset_at_lsn(commit_lsn, generation)
        return max(self.oldest, min(begin, offset))

    def _end_of(self, offset: int) -> int:
        """Where the transaction of the row before ``offset`` ends."""
        commit_lsn = self._commit_lsn(offset - 1) if offset > self.oldest else None
        if commit_lsn is None:
            return offset
        generation = self._generation_of(offset - 1)
        after = self._reader.first_offset_at_lsn(commit_lsn + 1, generation)
        of_lane = next(s.end for s in self._stretches() if s.generation == generation
                       and s.lane == STREAM)  # fmt: skip
        return max(offset, min(after, of_lane))

    def _commit_lsn(self, offset: int) -> int | None:
        """Of the streamed row at an offset; None where there is none."""
        try:
            block = self._reader.read(offset) if self.oldest <= offset < self.after else None
        except OffsetOutOfRange:  # a gap
            return None
        if block is None or not len(block) or block.marker_of(0) != STREAMED:
            return None
        return block.transactions[block.transaction[0]].commit_lsn

    def _generation_of(self, offset: int) -> int:
        return next(s.generation for s in self._stretches() if offset < s.end)


def _timeline(stretch: Stretch) -> tuple[object, object]:
    """Which history its LSNs are of; a source without timelines has one."""
    return stretch.position.get("system"), stretch.position.get("timeline", 1)


def _high(stretch: Stretch) -> int:
    """How far its source was read: beyond the last commit, where it says so."""
    lsn = stretch.position.get("lsn")
    return max(stretch.high_lsn, lsn if isinstance(lsn, int) else 0)


def lsn_text(lsn: int) -> str:
    """``X/Y``."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def _time(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="microseconds")
