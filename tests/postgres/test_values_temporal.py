"""Dates, times and intervals: text in, JSON out, in every precision mode."""

from __future__ import annotations

import pytest

from cdc.postgres.values import LOAD_ERRORS
from tests.postgres.plans import load

STAMP = b"2024-01-02 03:04:05.123456"
CLOCK = b"03:04:05.123456"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (
            "adaptive",
            ("19724", "11045123456", "11045123", "1704164645123456", "1704164645123"),
        ),
        (
            "adaptive_time_microseconds",
            ("19724", "11045123456", "11045123000", "1704164645123456", "1704164645123"),
        ),
        (
            "connect",
            ("19724", "11045123", "11045123", "1704164645123", "1704164645123"),
        ),
        (
            "isostring",
            (
                '"2024-01-02Z"',
                '"03:04:05.123456Z"',
                '"03:04:05.123Z"',
                '"2024-01-02T03:04:05.123456Z"',
                '"2024-01-02T03:04:05.123Z"',
            ),
        ),
        (
            "microseconds",
            ("19724", "11045123456", "11045123000", "1704164645123456", "1704164645123000"),
        ),
        (
            "nanoseconds",
            (
                "19724",
                "11045123456000",
                "11045123000000",
                "1704164645123456000",
                "1704164645123000000",
            ),
        ),
    ],
)
def test_time_precision_modes(mode: str, expected: tuple[str, ...]) -> None:
    assert expected == (
        load("date", b"2024-01-02", time_precision_mode=mode),
        load("time", CLOCK, time_precision_mode=mode),
        load("time", CLOCK[:12], 3, time_precision_mode=mode),
        load("timestamp", STAMP, time_precision_mode=mode),
        load("timestamp", STAMP[:23], 3, time_precision_mode=mode),
    )
    zoned = load("timestamptz", STAMP + b"+00", time_precision_mode=mode)
    assert zoned == '"2024-01-02T03:04:05.123456Z"'


@pytest.mark.parametrize(
    ("type_name", "modifier", "raw", "expected"),
    [
        ("timestamp", -1, b"2024-01-02 03:04:05", "1704164645000000"),
        ("timestamp", -1, b"2024-01-02 03:04:05.1", "1704164645100000"),
        ("timestamp", -1, b"1969-12-31 23:59:59.900000", "-100000"),
        ("timestamp", -1, b"1969-12-31 23:59:59.900001", "-99999"),
        ("timestamp", 3, b"1969-12-31 23:59:59.999", "-1"),
        ("timestamp", -1, b"0044-03-15 10:00:00.12 BC", "-63517787999880000"),
        ("timestamp", -1, b"0044-03-15 10:00:00.123 BC", None),
        ("timestamp", -1, b"10000-01-01 10:00:00.12345", "253402336800123450"),
        ("timestamp", -1, b"infinity", "9223372036825200000"),
        ("timestamp", -1, b"-infinity", "-9223372036832400000"),
        ("timestamp", 3, b"infinity", "9223372036825200"),
        ("date", -1, b"0044-03-15 BC", "-735160"),
        ("date", -1, b"infinity", "-2147472692"),
        ("date", -1, b"-infinity", "-2147472691"),
        ("time", -1, b"24:00:00", "86400000000"),
        ("time", -1, b"00:00:00", "0"),
        ("timestamptz", -1, b"2024-01-02 03:04:05+00", '"2024-01-02T03:04:05.000000Z"'),
        ("timestamptz", -1, b"2024-01-02 03:04:05.1+00", '"2024-01-02T03:04:05.100000Z"'),
        ("timestamptz", 3, b"2024-01-02 03:04:05.1+00", '"2024-01-02T03:04:05.100Z"'),
        ("timestamptz", 0, b"2024-01-02 03:04:05+00", '"2024-01-02T03:04:05Z"'),
        ("timestamptz", -1, b"2024-01-02 03:04:05+02:30", '"2024-01-02T00:34:05.000000Z"'),
        ("timestamptz", -1, b"infinity", '"infinity"'),
        ("timestamptz", -1, b"-infinity", '"-infinity"'),
        ("timestamptz", -1, b"12345-01-01 00:00:00+00", '"+12345-01-01T00:00:00.000000Z"'),
        ("timestamptz", -1, b"0044-03-15 10:00:00+00 BC", '"-0043-03-15T10:00:00.000000Z"'),
        ("timetz", -1, b"10:15:30.12+00", '"10:15:30.12Z"'),
        ("timetz", -1, b"10:15:30+02", '"08:15:30Z"'),
        ("timetz", -1, b"23:00:00-05:30", '"04:30:00Z"'),
        ("timetz", -1, b"24:00:00+00", '"00:00:00Z"'),
        ("interval", -1, b"1 year 2 mons 3 days 04:05:06.78", "37091106780000"),
        ("interval", -1, b"-1 years -2 mons +3 days -04:05:06.78", "-36572706780000"),
        ("interval", -1, b"00:00:00", "0"),
        ("interval", -1, b"1 day", "86400000000"),
        ("interval", -1, b"-00:00:00.000001", "-1"),
    ],
)
def test_temporal_edges(type_name: str, modifier: int, raw: bytes, expected: str | None) -> None:
    found = load(type_name, raw, modifier)
    if expected is None:  # the same length as a plain timestamp, and yet before Christ
        assert found.startswith("-")
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"1 year 2 mons 3 days 04:05:06.78", '"P1Y2M3DT4H5M6.78S"'),
        (b"-1 mons -00:00:10", '"P0Y-1M0DT0H0M-10S"'),
        (b"00:00:00", '"P0Y0M0DT0H0M0S"'),
    ],
)
def test_intervals_as_text(raw: bytes, expected: str) -> None:
    assert load("interval", raw, interval_handling_mode="string") == expected


def test_iso_infinity_is_debeziums() -> None:
    iso = {"time_precision_mode": "isostring"}
    assert load("timestamp", b"infinity", **iso) == '"+294247-01-10T04:00:25.2Z"'
    assert load("date", b"infinity", **iso) == '"-5877611-06-21Z"'


@pytest.mark.parametrize(
    ("type_name", "raw"),
    [
        ("timestamp", b"2024-01-02"[:9]),
        ("timestamp", b"2024-01-02 03:04:05 AD"),
        ("timestamptz", b"nonsense"),
        ("date", b"yesterday"),
        ("time", b"03:04"),
        ("time", b"10:15:30+02"),
        ("timetz", b"10:15:30"),
        ("interval", b""),
        ("interval", b"P1Y"),
        ("numeric", b"NaN"),
        ("bytea", b"\\001"),
        ("bool", b"yes"),
        ("point", b"(1)"),
        ("hstore", b"k=>v"),
        ("_text", b'{"a'),
        ("geometry", b"0101"),
    ],
)
def test_text_that_is_no_value_raises_a_load_error(type_name: str, raw: bytes) -> None:
    with pytest.raises(LOAD_ERRORS):
        load(type_name, raw)


def test_nanoseconds_outside_of_64_bits_raise() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        load("timestamp", b"1500-01-01 00:00:00", time_precision_mode="nanoseconds")
