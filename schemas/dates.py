"""Java's calendar in UTC: moments to years, and lenient texts to moments.

As ``GregorianCalendar``: by the Julian calendar before 15 October 1582.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
# The Gregorian calendar repeats itself after 400 years, the Julian one, weekdays too, after 28.
_CYCLE_YEARS, _CYCLE_DAYS = 400, 146_097
_JULIAN_YEARS, _JULIAN_DAYS = 28, 10_227
CHANGE_YEAR = 1582
CHANGE_DAY = date(CHANGE_YEAR, 10, 15).toordinal() - _EPOCH_ORDINAL
# Between the two calendars from March 1900 to February 2100, where both have the same leap years.
_JULIAN_LAG_DAYS = 13

_PARTS = {"yyyy": "year", "MM": "month", "dd": "day", "HH": "h", "mm": "m", "ss": "s", "SSS": "ms"}


def calendar(ms: int) -> tuple[int, datetime]:
    """A moment's year (0 and less: BC), and all the rest in some year that Python knows.

    The weekday of that year is right for the Gregorian calendar only.
    """
    days, clock = divmod(ms, DAY_MS)
    if days >= CHANGE_DAY:
        cycle_days, cycle_years = _CYCLE_DAYS, _CYCLE_YEARS
    else:
        cycle_days, cycle_years = _JULIAN_DAYS, _JULIAN_YEARS
        days -= _JULIAN_LAG_DAYS
    cycles, rest = divmod(days, cycle_days)
    at = _EPOCH + timedelta(days=rest, milliseconds=clock)
    return at.year + cycles * cycle_years, at


def day_of(year: int, month: int, day: int) -> int:
    """Days since the epoch; month 13 is next January, day 0 the last of the month before.

    A year before the change counts on in the Julian calendar, however far its months lead.
    """
    found = gregorian_day(year, month, day)
    if year >= CHANGE_YEAR and found >= CHANGE_DAY:
        return found
    return julian_day(year, month, day)


def gregorian_day(year: int, month: int, day: int) -> int:
    """As :func:`day_of`, by the Gregorian calendar alone."""
    return _day(year, month, _CYCLE_YEARS, _CYCLE_DAYS) + day - 1


def julian_day(year: int, month: int, day: int) -> int:
    """As :func:`day_of`, by the Julian calendar alone."""
    return _day(year, month, _JULIAN_YEARS, _JULIAN_DAYS) + day - 1 + _JULIAN_LAG_DAYS


def _day(year: int, month: int, cycle_years: int, cycle_days: int) -> int:
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    cycles, rest = divmod(year - 1970, cycle_years)
    known = date(1970 + rest, month, 1).toordinal() - _EPOCH_ORDINAL
    return known + cycles * cycle_days


def moment_of(text: str, pattern: str) -> int | None:
    """A text by one of SimpleDateFormat's patterns, leniently: ms since the epoch, or None.

    As there, what follows the pattern is not looked at. ``pattern`` has fields of digits, and
    stands for itself elsewhere.
    """
    found = _compiled(pattern).match(text)
    if found is None:
        return None
    parts = {name: int(value) for name, value in found.groupdict().items()}
    day = day_of(parts.get("year", 1970), parts.get("month", 1), parts.get("day", 1))
    hours, minutes = parts.get("h", 0), parts.get("m", 0)
    clock = ((hours * 60 + minutes) * 60 + parts.get("s", 0)) * 1000 + parts.get("ms", 0)
    return day * DAY_MS + clock


def _compiled(pattern: str) -> re.Pattern[str]:
    expression = re.sub(
        r"yyyy|MM|dd|HH|mm|ss|SSS|\.",
        lambda part: rf"[ \t]*(?P<{_PARTS[part[0]]}>-?\d+)" if part[0] in _PARTS else r"\.",
        pattern,
    )
    return re.compile(expression)
