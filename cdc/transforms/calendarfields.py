"""How Java's lenient calendar makes a moment of the fields that a text has given.

Fields may contradict each other: those set last decide, by the rules of
``GregorianCalendar`` (JDK 17), and none of them has to be within its range: what Java counts in
ints and longs wraps as there.
"""

from __future__ import annotations

from collections.abc import Callable

from schemas.dates import CHANGE_DAY, CHANGE_YEAR, DAY_MS, day_of, gregorian_day, julian_day
from schemas.numbers import wrapped

# Year, month and day to days since the epoch, by one calendar.
DayOf = Callable[[int, int, int], int]

_EPOCH_YEAR = 1970
_EPOCH_WEEKDAY = 4
SUNDAY = 1

# Pattern letter → field, and what is added to a number read.
_FIELDS = {
    "y": ("year", 0), "Y": ("week_year", 0), "M": ("month", -1), "L": ("month", -1),
    "M1": ("month", 0), "d": ("day", 0), "D": ("day_of_year", 0), "F": ("weekday_in_month", 0),
    "w": ("week", 0), "W": ("week_of_month", 0), "E": ("weekday", 0), "u": ("weekday", 0),
    "H": ("hour_of_day", 0), "k": ("hour_of_day", 0), "K": ("hour", 0), "h": ("hour", 0),
    "m": ("minute", 0), "s": ("second", 0), "S": ("millisecond", 0), "a": ("half", 0),
    "G": ("era", 0),
}  # fmt: skip


def _weekday(day: int) -> int:
    """1 for a Sunday."""
    return (day + _EPOCH_WEEKDAY) % 7 + 1


def _on_or_before(day: int, weekday: int) -> int:
    return day - (_weekday(day) - weekday) % 7


class Fields:
    """The fields set, each with its place in the order of setting."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}
        self._stamps: dict[str, int] = {}
        self._next = 1
        self._offset = 0
        self._ambiguous = False

    def put(self, letter: str, value: int) -> None:
        """Set the field of a pattern letter."""
        name, added = _FIELDS[letter]
        if (letter == "k" and value == 24) or (letter == "h" and value == 12):
            value = 0
        if letter == "u" and 1 <= value <= 7:
            value = value % 7 + 1
        self._values[name] = value + added
        self._stamps[name] = self._next
        self._next += 1

    def zone(self, offset_ms: int) -> None:
        """Set the offset from UTC."""
        self._offset = offset_ms

    def two_digits(self, value: int, start_year: int) -> int:
        """A year of two digits, within the century from ``start_year`` on."""
        turn = start_year % 100
        self._ambiguous = value == turn
        return value + start_year // 100 * 100 + (100 if value < turn else 0)

    def milliseconds(self, century_start: tuple[int, int]) -> int:
        """The moment, in milliseconds since the epoch."""
        found = self._milliseconds()
        if self._ambiguous and found < century_start[1]:
            for name in {"year", "week_year"} & self._values.keys():
                self._values[name] += 100
            found = self._milliseconds()
        return wrapped(found, 64)  # for years beyond all bounds

    def _milliseconds(self) -> int:
        get, stamp = self._get, self._stamp
        clock = ((self._hours() * 60 + get("minute")) * 60 + get("second")) * 1000
        days, clock = divmod(clock + get("millisecond"), DAY_MS)
        if stamp("week_year") > stamp("year"):
            found = self._week_date()
        else:
            year = get("year", _EPOCH_YEAR)
            found = self._day(year if get("era", 1) else 1 - year, days)
        return (found + days) * DAY_MS + clock - self._offset

    def _get(self, name: str, default: int = 0) -> int:
        return self._values.get(name, default)

    def _stamp(self, name: str) -> int:
        return self._stamps.get(name, 0)

    def _both(self, one: str, other: str) -> int:
        stamps = self._stamp(one), self._stamp(other)
        return max(stamps) if all(stamps) else 0

    def _hours(self) -> int:
        whole, half = self._stamp("hour_of_day"), self._both("hour", "half")
        best = max(whole, half) or max(self._stamp("hour"), self._stamp("half"))
        if best and best == whole:
            return self._get("hour_of_day")
        return self._get("hour") + 12 * self._get("half") if best else 0

    def _week_date(self) -> int:
        week, weekday = self._get("week", 1), self._get("weekday", SUNDAY)
        if weekday > 7:
            weekday -= 1
            week, weekday = week + weekday // 7, weekday % 7 + 1
            weekday = weekday % 7 + 1
        elif weekday < 1:
            weeks = -(weekday - 7) // 7
            week, weekday = week - weeks, weekday + 7 * weeks
            weekday = weekday % 7 + 1
        first = _on_or_before(day_of(self._get("week_year"), 1, 1), SUNDAY)
        first = wrapped(first * DAY_MS, 64) // DAY_MS  # a moment in between, whose day is taken
        return first + wrapped(weekday - 1 + 7 * (week - 1), 32)

    def _day(self, year: int, more: int) -> int:
        """The day by the calendar of its year, and of itself where that is another.

        ``more``: the days by which the clock's fields go beyond it.
        """
        if year < CHANGE_YEAR:
            return self._day_by(julian_day, year)[0]
        found, of_year = self._day_by(gregorian_day, year)
        if found + more >= CHANGE_DAY and (year > CHANGE_YEAR or not of_year):
            return found
        return self._day_by(julian_day, year)[0]

    def _day_by(self, calendar: DayOf, year: int) -> tuple[int, bool]:
        """The day by the fields set last, among those that make a whole.

        And whether it is counted from the beginning of the year.
        """
        stamp = self._stamp
        of_month = stamp("day")
        week_of_month = self._both("week_of_month", "weekday")
        in_month = self._both("weekday_in_month", "weekday")
        of_year = stamp("day_of_year")
        week = self._both("week", "weekday")
        best = max(of_month, week_of_month, in_month, of_year, week)
        if not best:
            week_of_month, week = stamp("week_of_month"), stamp("week")
            in_month = max(stamp("weekday_in_month"), stamp("weekday"))
            best = max(week_of_month, in_month, week)
            if not best:
                best = of_month = stamp("month")
        if best == of_month:
            return calendar(year, self._get("month") + 1, self._get("day", 1)), False
        by_week = best == week_of_month and stamp("week_of_month") >= stamp("week")
        by_weekday = best == in_month and stamp("weekday_in_month") >= stamp("week")
        if by_week or by_weekday:
            if week_of_month == in_month:
                by_week = stamp("week_of_month") >= stamp("weekday_in_month")
            else:
                by_week = best == week_of_month
            return self._in_month(calendar, year, by_week=by_week), False
        if best == of_year:
            return calendar(year, 1, self._get("day_of_year")), True
        return self._in_week(calendar(year, 1, 1), 7 * (self._get("week") - 1)), True

    def _in_week(self, first: int, later: int) -> int:
        """The day in a week, so many days ``later`` than the one that has the day ``first``."""
        sunday = _on_or_before(first, SUNDAY)
        return _on_or_before(sunday + 6, self._get("weekday", SUNDAY)) + later

    def _in_month(self, calendar: DayOf, year: int, *, by_week: bool) -> int:
        month = self._get("month") + 1
        first = calendar(year, month, 1)
        if by_week:
            return self._in_week(first, wrapped(7 * (self._get("week_of_month") - 1), 32))
        weekday = self._get("weekday", SUNDAY)
        nth = self._get("weekday_in_month", 1)
        if nth >= 0:
            return _on_or_before(first + wrapped(7 * nth, 32) - 1, weekday)
        length = calendar(year, month + 1, 1) - first
        return _on_or_before(first + wrapped(length + 7 * (nth + 1), 32) - 1, weekday)
