"""Dates, times and intervals: schema and loader by type, precision and ``time.precision.mode``.

A loader takes the server's ISO text and gives a JSON fragment. The common shape is read by
fixed positions, by the standard library's C parser or from a cache; whatever does not fit it
(BC, years past 9999, infinity, other offsets) is read again by one strict pattern. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

from schemas import Schema

Loader = Callable[[bytes], bytes]

MODES = (
    "adaptive",
    "adaptive_time_microseconds",
    "connect",
    "isostring",
    "microseconds",
    "nanoseconds",
)
DAY_US = 86_400_000_000
# What Debezium makes of infinity: java.util.Date's limits, read as microseconds; for dates
# the two ends of LocalDate, which wrap around in 32 bits.
INFINITY_US = {b"infinity": 9223372036825200000, b"-infinity": -9223372036832400000}
INFINITY_DATE = {b"infinity": (-5877611, 6, 21), b"-infinity": (-5877611, 6, 22)}
_LONG_MAX = 2**63 - 1
_CACHED_DATES_MAX = 20_000

_MOMENT = re.compile(
    rb"(\d{4,})-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?"
    rb"([+-]\d\d(?::\d\d(?::\d\d)?)?)?( BC)?\Z"
)
_CLOCK = re.compile(rb"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?([+-]\d\d(?::\d\d(?::\d\d)?)?)\Z")


# --- calendar ---


def epoch_day(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar, any year."""
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def civil_date(day: int) -> tuple[int, int, int]:
    """The inverse of :func:`epoch_day`."""
    day += 719468
    era = day // 146097
    of_era = day - era * 146097
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + (3 if shifted < 10 else -9)
    return year + era * 400 + (month <= 2), month, of_year - (153 * shifted + 2) // 5 + 1


def iso_date(year: int, month: int, day: int) -> bytes:
    """As Java's ISO_LOCAL_DATE: four digits at least, a sign where it is needed."""
    sign = b"-" if year < 0 else b"+" if year > 9999 else b""
    return b"%b%04d-%02d-%02d" % (sign, abs(year), month, day)


def iso_clock(micros: int) -> bytes:
    """``HH:MM:SS`` with the shortest fraction, of microseconds within a day."""
    seconds, fraction = divmod(micros, 1_000_000)
    text = b"%02d:%02d:%02d" % (seconds // 3600, seconds // 60 % 60, seconds % 60)
    return text + (b".%06d" % fraction).rstrip(b"0") if fraction else text


def iso_moment(micros: int) -> bytes:
    """``YYYY-MM-DDTHH:MM:SS[.f]`` of microseconds since the epoch."""
    day, clock = divmod(micros, DAY_US)
    return iso_date(*civil_date(day)) + b"T" + iso_clock(clock)


def _date_parts(raw: bytes) -> tuple[int, int, int]:
    if raw in INFINITY_DATE:
        return INFINITY_DATE[raw]
    found = _MOMENT.match(raw)
    if found is None:
        raise ValueError(f"not a date: {raw!r}")
    year = int(found[1])
    return (1 - year if found[9] else year), int(found[2]), int(found[3])


def _offset_us(text: bytes | None) -> int:
    if not text:
        return 0
    parts = [int(part) for part in text[1:].split(b":")] + [0, 0]
    seconds = parts[0] * 3600 + parts[1] * 60 + parts[2]
    return (-seconds if text[:1] == b"-" else seconds) * 1_000_000


def _clock_us(hour: bytes, minute: bytes, second: bytes, fraction: bytes | None) -> int:
    whole = int(hour) * 3600 + int(minute) * 60 + int(second)
    return whole * 1_000_000 + (int(fraction.ljust(6, b"0")) if fraction else 0)


def moment_us(raw: bytes) -> int:
    """Microseconds since the epoch of any timestamp text; infinity as Debezium counts it."""
    if raw in INFINITY_US:
        return INFINITY_US[raw]
    found = _MOMENT.match(raw)
    if found is None:
        raise ValueError(f"not a timestamp: {raw!r}")
    micros = epoch_day(*_date_parts(raw)) * DAY_US
    if found[4]:
        micros += _clock_us(found[4], found[5], found[6], found[7])
    return micros - _offset_us(found[8])


def clock_us(raw: bytes) -> int:
    """Microseconds since midnight of a time without offset."""
    try:
        if len(raw) != 8 and raw[8:9] != b".":
            raise ValueError(f"not a time: {raw!r}")
        return _MINUTE[raw[:5]] * 1_000_000 + int((raw[6:8] + raw[9:]).ljust(8, b"0"))
    except KeyError:
        raise ValueError(f"not a time: {raw!r}") from None


def zoned_clock_us(raw: bytes) -> int:
    """Microseconds since midnight UTC of a time with offset."""
    if raw[-3:] == b"+00":
        return clock_us(raw[:-3])
    found = _CLOCK.match(raw)
    if found is None:
        raise ValueError(f"not a time: {raw!r}")
    micros = _clock_us(found[1], found[2], found[3], found[4]) - _offset_us(found[5])
    return micros % DAY_US


# --- caches: a stream has few distinct dates, and a day has 1,441 minutes ---


class _Cache(dict[bytes, bytes]):
    """Date text → fragment, by ``make``; emptied when it has grown past any real stream."""

    def __init__(self, make: Loader) -> None:
        super().__init__()
        self.make = make

    def __missing__(self, raw: bytes) -> bytes:
        if len(self) >= _CACHED_DATES_MAX:
            self.clear()
        made = self[raw] = self.make(raw)
        return made


_MINUTE = {b"%02d:%02d" % divmod(m, 60): m * 60 for m in range(24 * 60 + 1)}


# --- loaders of date ---


def _date_days(raw: bytes) -> bytes:
    days = epoch_day(*_date_parts(raw))
    return b"%d" % ((days + 2**31) % 2**32 - 2**31)


def _date_iso(raw: bytes) -> bytes:
    return b'"%bZ"' % iso_date(*_date_parts(raw))


date_days: Loader = _Cache(_date_days).__getitem__
date_iso: Loader = _Cache(_date_iso).__getitem__


# --- loaders of timestamp ---

# Years 1 to 9999 without offset; the rest raises (TypeError: an offset) and is read again.
_parse = datetime.fromisoformat
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - timestamp has no zone
_MICROSECOND = timedelta(microseconds=1)
_MILLISECOND = timedelta(milliseconds=1)


def timestamp_us(raw: bytes) -> bytes:
    """Microseconds since the epoch."""
    try:
        return b"%d" % ((_parse(raw.decode()) - _EPOCH) // _MICROSECOND)
    except (ValueError, TypeError):
        return b"%d" % moment_us(raw)


def timestamp_ms(raw: bytes) -> bytes:
    """Milliseconds since the epoch, cut off."""
    try:
        return b"%d" % ((_parse(raw.decode()) - _EPOCH) // _MILLISECOND)
    except (ValueError, TypeError):
        return b"%d" % (moment_us(raw) // 1000)


def timestamp_ns(raw: bytes) -> bytes:
    """Nanoseconds; ValueError outside 1677 to 2262."""
    if raw in INFINITY_US:
        return b"%d" % (_LONG_MAX if raw == b"infinity" else -_LONG_MAX - 1)
    nanos = int(timestamp_us(raw)) * 1000
    if not -_LONG_MAX <= nanos <= _LONG_MAX:
        raise ValueError("timestamp does not fit 64 bits of nanoseconds")
    return b"%d" % nanos


def timestamp_iso(raw: bytes) -> bytes:
    """UTC text with the shortest fraction."""
    return b'"%bZ"' % iso_moment(int(timestamp_us(raw)))


# --- loaders of timestamptz ---


def zoned_timestamp(width: int) -> Loader:
    """UTC text with a fraction of ``width`` digits; 0 writes a fraction only if there is one."""
    end = 9 + width

    def load(raw: bytes) -> bytes:
        if raw[-3:] == b"+00" and raw[10] == 32:
            clock = raw[11:-3]
            if len(clock) != end:
                clock = fit(clock)
            return b'"%bT%bZ"' % (raw[:10], clock)
        if raw in INFINITY_US:
            return b'"%b"' % raw
        date, _, clock = iso_moment(moment_us(raw)).partition(b"T")
        return b'"%bT%bZ"' % (date, fit(clock))

    def fit(clock: bytes) -> bytes:
        if not width:
            return clock
        if len(clock) == 8:
            clock += b"."
        return clock.ljust(end, b"0")[:end]

    return load


# --- loaders of time and timetz ---


def time_us(raw: bytes) -> bytes:
    """Microseconds since midnight."""
    return b"%d" % clock_us(raw)


def time_ms(raw: bytes) -> bytes:
    """Milliseconds since midnight, cut off."""
    return b"%d" % (clock_us(raw) // 1000)


def time_ns(raw: bytes) -> bytes:
    """Nanoseconds since midnight."""
    return b"%d" % (clock_us(raw) * 1000)


def time_iso(raw: bytes) -> bytes:
    """Shortest fraction; 24:00:00 is midnight."""
    return b'"%bZ"' % iso_clock(clock_us(raw) % DAY_US)


def zoned_time(raw: bytes) -> bytes:
    """UTC, shortest fraction."""
    return b'"%bZ"' % iso_clock(zoned_clock_us(raw) % DAY_US)


# --- intervals ---

_INTERVAL = re.compile(
    rb"(?:([+-]?\d+) years? ?)?(?:([+-]?\d+) mons? ?)?(?:([+-]?\d+) days? ?)?"
    rb"(?:([+-])?(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?\Z"
)
DAYS_PER_MONTH = 365.25 / 12.0
IntervalParts = tuple[int, int, int, int, int, int, int]


def interval_parts(raw: bytes) -> IntervalParts:
    """Years, months, days, hours, minutes, seconds, microseconds, each with its sign."""
    found = _INTERVAL.match(raw)
    if found is None or not raw:
        raise ValueError(f"not an interval: {raw!r}")
    sign = -1 if found[4] == b"-" else 1
    clock = (int(found[i] or 0) * sign for i in (5, 6, 7))
    micros = int((found[8] or b"0").ljust(6, b"0")) * sign
    hours, minutes, seconds = clock
    years, months, days = (int(found[i] or 0) for i in (1, 2, 3))
    return years, months, days, hours, minutes, seconds, micros


def interval_us(raw: bytes) -> bytes:
    """Debezium's MicroDuration, in its own order of double arithmetic."""
    years, months, days, hours, minutes, whole, micros = interval_parts(raw)
    seconds = whole + micros / 1_000_000.0
    of_days = (years * 12 + months) * DAYS_PER_MONTH + days
    total = (((of_days * 24 + hours) * 60) + minutes) * 60 + seconds
    # (long) of a double saturates in Java.
    return b"%d" % min(max(int(total * 1e6 + 0), -_LONG_MAX - 1), _LONG_MAX)


def interval_iso(raw: bytes) -> bytes:
    """Every part is written, the zero ones too."""
    years, months, days, hours, minutes, whole, micros = interval_parts(raw)
    sign = b"-" if whole < 0 or micros < 0 else b""
    seconds = b"%b%d" % (sign, abs(whole))
    if micros:
        seconds += (b".%06d" % abs(micros)).rstrip(b"0")
    return b'"P%dY%dM%dDT%dH%dM%bS"' % (years, months, days, hours, minutes, seconds)


# --- schemas ---

_TIME = "io.debezium.time."
_CONNECT = "org.apache.kafka.connect.data."


def _logical(type_: str, name: str) -> Schema:
    return Schema(type_, name=name, version=1)


def date_plan(mode: str) -> tuple[Schema, Loader]:
    """Schema and loader of date."""
    if mode == "isostring":
        return _logical("string", _TIME + "IsoDate"), date_iso
    if mode == "connect":
        return _logical("int32", _CONNECT + "Date"), date_days
    return _logical("int32", _TIME + "Date"), date_days


def time_plan(mode: str, precision: int) -> tuple[Schema, Loader]:
    """``precision`` is the declared one, -1 if there is none."""
    if mode == "isostring":
        return _logical("string", _TIME + "IsoTime"), time_iso
    if mode == "connect":
        return _logical("int32", _CONNECT + "Time"), time_ms
    if mode == "nanoseconds":
        return _logical("int64", _TIME + "NanoTime"), time_ns
    if mode == "adaptive" and 0 <= precision <= 3:
        return _logical("int32", _TIME + "Time"), time_ms
    return _logical("int64", _TIME + "MicroTime"), time_us


def timestamp_plan(mode: str, precision: int) -> tuple[Schema, Loader]:
    """Schema and loader of timestamp; ``precision`` -1 if none is declared."""
    if mode == "isostring":
        return _logical("string", _TIME + "IsoTimestamp"), timestamp_iso
    if mode == "connect":
        return _logical("int64", _CONNECT + "Timestamp"), timestamp_ms
    if mode == "nanoseconds":
        return _logical("int64", _TIME + "NanoTimestamp"), timestamp_ns
    if mode.startswith("adaptive") and 0 <= precision <= 3:
        return _logical("int64", _TIME + "Timestamp"), timestamp_ms
    return _logical("int64", _TIME + "MicroTimestamp"), timestamp_us


def zoned_timestamp_plan(precision: int) -> tuple[Schema, Loader]:
    """Schema and loader of timestamptz, the same in every mode."""
    schema = _logical("string", _TIME + "ZonedTimestamp")
    return schema, zoned_timestamp(6 if precision < 0 else precision)


def zoned_time_plan() -> tuple[Schema, Loader]:
    """Schema and loader of timetz, the same in every mode."""
    return _logical("string", _TIME + "ZonedTime"), zoned_time


def interval_plan(mode: str) -> tuple[Schema, Loader]:
    """Schema and loader of interval by ``interval.handling.mode``."""
    if mode == "string":
        return _logical("string", _TIME + "Interval"), interval_iso
    return _logical("int64", _TIME + "MicroDuration"), interval_us
