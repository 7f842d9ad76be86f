"""Java's ``SimpleDateFormat`` in UTC: patterns, writing, and lenient reading.

The English of JDK 17; weeks begin on Sunday, the first one has 1 January. Before 15 October
1582 the Julian calendar holds. Reading takes any number for a field (month 13 is next
January) and does not look at what follows the pattern. Of zone names it knows UTC and GMT.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from cdc.transforms.calendarfields import Fields
from cdc.transforms.errors import IllegalArgument
from schemas.dates import DAY_MS, calendar, day_of

LETTERS = "GyMdkHmsSEDFwWahKzZYuXL"
MONTHS = (
    "January February March April May June July August September October November December"
).split()
WEEKDAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split()
ERAS = ("BC", "AD")
HALVES = ("AM", "PM")
ZONES = ("Coordinated Universal Time", "UTC")
# Of no digit beyond U+FFFF: Java reads one half of it, which is none.
_NUMBER = re.compile(r"-?(?:(?![\U00010000-\U0010ffff])\d)+(?:E-?\d+)?")
_BLANK = re.compile(r"[ \t]*")
_EPOCH_WEEKDAY = 4  # a Thursday, Sunday being 0
_HOUR_MS = 3_600_000
_CENTURY_YEARS = 80
_DAYS_CACHED_MAX = 4096
_ZONE_LETTERS_MAX = 3


class Unparseable(ValueError):
    """A text that does not match the pattern."""


class Piece(NamedTuple):
    """A run of one pattern letter, or a literal text (letter "")."""

    letter: str
    text: str

    @property
    def length(self) -> int:
        """How often the letter stands there."""
        return len(self.text)


class Day(NamedTuple):
    """What a calendar says of a day. ``month`` and ``weekday`` count from 0."""

    era: int
    year: int
    month: int
    day: int
    weekday: int
    day_of_year: int
    week: int
    week_year: int
    week_of_month: int


@lru_cache(_DAYS_CACHED_MAX)
def day_fields(days: int) -> Day:
    """The fields of a day since the epoch."""
    year, at = calendar(days * DAY_MS)
    weekday = (days + _EPOCH_WEEKDAY) % 7
    first = day_of(year, 1, 1)
    sunday = days - weekday
    in_next = sunday + 6 >= day_of(year + 1, 1, 1)
    week = 1 if in_next else (days - first + (first + _EPOCH_WEEKDAY) % 7) // 7 + 1
    month_week = (at.day - 1 + (days - at.day + 1 + _EPOCH_WEEKDAY) % 7) // 7 + 1
    era = int(year > 0)
    return Day(
        era, year if era else 1 - year, at.month - 1, at.day, weekday, days - first + 1,
        week, year + in_next, month_week,
    )  # fmt: skip


_PIECE = re.compile(
    r"(?P<quote>'')|'(?P<text>(?:[^']|'')*)'|(?P<letter>[a-zA-Z])(?P=letter)*|(?P<open>')|.",
    re.DOTALL,
)


def compile_pattern(pattern: str) -> list[Piece]:
    """The pieces of a pattern. Raises IllegalArgument with Java's text."""
    pieces: list[Piece] = []
    for found in _PIECE.finditer(pattern):
        if found["open"]:
            raise IllegalArgument("Unterminated quote")
        letter = found["letter"] or ""
        if letter and letter not in LETTERS:
            raise IllegalArgument(f"Illegal pattern character '{letter}'")
        if letter == "X" and len(found[0]) > _ZONE_LETTERS_MAX:
            raise IllegalArgument(f"invalid ISO 8601 format: length={len(found[0])}")
        if letter:
            pieces.append(Piece(letter, found[0]))
        elif found["text"] is not None:
            pieces.append(Piece("", found["text"].replace("''", "'")))
        else:
            pieces.append(Piece("", found[0][:1]))
    return pieces


class DateFormat:
    """One pattern. Raises IllegalArgument where it is none."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._pieces = compile_pattern(pattern)
        self._writers = [_writer(piece) for piece in self._pieces]

    def format(self, ms: int) -> str:
        """Milliseconds since the epoch as text."""
        days, clock = divmod(ms, DAY_MS)
        day = day_fields(days)
        return "".join([write(day, clock) for write in self._writers])

    def parse(self, text: str) -> int:
        """A text as milliseconds since the epoch. Raises Unparseable."""
        fields = Fields()
        start = 0
        for index, piece in enumerate(self._pieces):
            if not piece.letter:
                if not text.startswith(piece.text, start):
                    raise Unparseable(text)
                start += piece.length
                continue
            following = self._pieces[index + 1] if index + 1 < len(self._pieces) else None
            start = _read(piece, text, start, _abutting(following), fields)
        if not start:
            raise Unparseable(text)
        return fields.milliseconds(_century_start())


# --- writing ---

Write = Callable[[Day, int], str]


def _padded(number: int, width: int) -> str:
    return f"-{-number:0{width}d}" if number < 0 else f"{number:0{width}d}"


def _writer(piece: Piece) -> Write:
    letter, count = piece.letter, piece.length
    size = None if count > 3 else 3
    if letter in _FIXED:
        fixed = ZONES[0] if letter == "z" and count > 3 else _FIXED[letter] or piece.text
        return lambda _, __: fixed
    if letter in "ML" and count > 2:
        return lambda day, _: MONTHS[day.month][:size]
    if letter == "E":
        return lambda day, _: WEEKDAYS[day.weekday][:size]
    if letter == "G":
        return lambda day, _: ERAS[day.era]
    if letter == "a":
        return lambda _, clock: HALVES[clock // (12 * _HOUR_MS)]
    if letter in _CLOCK:
        of_clock = _CLOCK[letter]
        return lambda _, clock: f"{of_clock(clock):0{count}d}"
    of_day = _CALENDAR[letter]
    if letter in "yY" and count == 2:
        return lambda day, _: f"{abs(of_day(day)) % 100:02d}"
    return lambda day, _: _padded(of_day(day), count)


# What is written as it stands; an empty letter is a literal text.
_FIXED = {"": "", "z": "UTC", "Z": "+0000", "X": "Z"}
_CALENDAR: dict[str, Callable[[Day], int]] = {
    "y": lambda day: day.year,
    "Y": lambda day: day.week_year,
    "M": lambda day: day.month + 1,
    "L": lambda day: day.month + 1,
    "d": lambda day: day.day,
    "D": lambda day: day.day_of_year,
    "F": lambda day: (day.day - 1) // 7 + 1,
    "w": lambda day: day.week,
    "W": lambda day: day.week_of_month,
    "u": lambda day: day.weekday or 7,
}
_CLOCK: dict[str, Callable[[int], int]] = {
    "H": lambda clock: clock // _HOUR_MS,
    "k": lambda clock: clock // _HOUR_MS or 24,
    "K": lambda clock: clock // _HOUR_MS % 12,
    "h": lambda clock: clock // _HOUR_MS % 12 or 12,
    "m": lambda clock: clock // 60_000 % 60,
    "s": lambda clock: clock // 1000 % 60,
    "S": lambda clock: clock % 1000,
}


# --- reading ---


def _century_start() -> tuple[int, int]:
    """The year that two digits count from, and the moment: eighty years ago."""
    now = datetime.now(UTC)
    day = day_of(now.year - _CENTURY_YEARS, now.month, now.day)
    clock = ((now.hour * 60 + now.minute) * 60 + now.second) * 1000
    return now.year - _CENTURY_YEARS, day * DAY_MS + clock


def _abutting(following: Piece | None) -> bool:
    """Whether a number ends where its letters do, as another number follows."""
    if following is None or not following.letter:
        return False
    if following.letter in "ML":
        return following.length <= 2
    return following.letter in "ydkHmsSDFwWhKYu"


def _read(piece: Piece, text: str, start: int, abutting: bool, fields: Fields) -> int:
    """Where the next piece begins. Raises Unparseable."""
    letter, count = piece.letter, piece.length
    found = _BLANK.match(text, start)
    at = found.end() if found else start
    if at >= len(text):
        raise Unparseable(text)
    if letter in "GEa" or (letter in "ML" and count > 2):
        return _read_name(letter, text, start, fields)
    if letter in "zZ":
        return _read_zone(text, start, at, fields)
    if letter == "X":
        return _read_iso_zone(text, at, count, fields)
    if abutting and start + count > len(text):
        raise Unparseable(text)
    number = _NUMBER.match(text[: start + count] if abutting else text, at)
    if number is None:
        raise Unparseable(text)
    value = _int(number[0])
    if letter in "yY" and count <= 2 and number.end() - at == 2 and number[0].isdigit():
        value = fields.two_digits(value, _century_start()[0])
    fields.put(letter, value)
    return number.end()


def _int(text: str) -> int:
    """Java's ``Number.intValue`` of what a DecimalFormat has read."""
    digits, _, exponent = text.partition("E")
    power = int(exponent or 0)
    if power > 400:
        return 2**31 - 1 if int(digits) > 0 else (-(2**31) if int(digits) else 0)
    value = int(digits) * 10**power if power >= 0 else int(int(digits) / 10 ** min(-power, 300))
    if -(2**63) <= value < 2**63:
        return (value + 2**31) % 2**32 - 2**31
    return 2**31 - 1 if value > 0 else -(2**31)


def _read_name(letter: str, text: str, start: int, fields: Fields) -> int:
    names: dict[str, int] = {}
    if letter in "ML":
        names = {n: i for i, month in enumerate(MONTHS) for n in (month, month[:3])}
    elif letter == "E":
        names = {n: i + 1 for i, day in enumerate(WEEKDAYS) for n in (day, day[:3])}
    elif letter == "G":
        names = {n: i for i, n in enumerate(ERAS)}
    else:
        names = {n: i for i, n in enumerate(HALVES)}
    lowered = text[start:].lower()
    for name in sorted(names, key=len, reverse=True):
        if lowered.startswith(name.lower()):
            fields.put("M1" if letter in "ML" else letter, names[name])
            return start + len(name)
    raise Unparseable(text)


def _read_zone(text: str, start: int, at: int, fields: Fields) -> int:
    if text[at] in "+-":
        return _read_offset(text, at, 0, colon=False, fields=fields)
    if text[start : start + 3].upper() == "GMT":
        at = start + 3
        if text[at : at + 1] in ("+", "-"):
            return _read_offset(text, at, 0, colon=True, fields=fields)
        fields.zone(0)
        return at
    for name in ZONES:
        if text[at:].lower().startswith(name.lower()):
            fields.zone(0)
            return at + len(name)
    raise Unparseable(text)


def _read_iso_zone(text: str, at: int, count: int, fields: Fields) -> int:
    if text[at] == "Z":
        fields.zone(0)
        return at + 1
    if text[at] not in "+-":
        raise Unparseable(text)
    return _read_offset(text, at, count, colon=count == _ZONE_LETTERS_MAX, fields=fields)


def _read_offset(text: str, at: int, count: int, *, colon: bool, fields: Fields) -> int:
    hours = r"\d\d?" if colon and not count else r"\d\d"
    minutes = "" if count == 1 else (r":(\d\d)" if colon else r"(\d\d)")
    found = re.compile(rf"[+-]({hours}){minutes}", re.ASCII).match(text, at)
    if found is None or int(found[1]) > 23:
        raise Unparseable(text)
    shown = int(found[2]) if minutes else 0
    if shown > 59:
        raise Unparseable(text)
    # "+5" at the very end is refused there too: a second character is looked at.
    offset = (int(found[1]) * 60 + shown) * 60_000
    fields.zone(offset if text[at] == "+" else -offset)
    return found.end()
