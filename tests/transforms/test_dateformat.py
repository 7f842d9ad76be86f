"""SimpleDateFormat: written and read as Java does, through Connect's TimestampConverter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.record import Record
from cdc.transforms.dateformat import DateFormat, Unparseable
from cdc.transforms.errors import IllegalArgument
from schemas import Moment
from tests.connect.judge import Judge
from tests.connect.seeded import generated
from tests.transforms.compare import Refusal, compare, ours

LETTERS = [
    "G", "GGGG", "y", "yy", "yyy", "yyyy", "Y", "YYYY", "M", "MM", "MMM", "MMMM", "L", "LLL",
    "LLLL", "w", "ww", "W", "D", "DDD", "d", "dd", "F", "E", "EEEE", "u", "a", "H", "HH", "k",
    "kk", "K", "h", "hh", "m", "mm", "s", "ss", "S", "SSS", "z", "zzzz", "Z", "X", "XX", "XXX",
]  # fmt: skip
SEPARATORS = ["-", " ", ":", "/", "'T'", "''", "", ", ", "'o''clock'"]
PATTERNS = st.lists(
    st.tuples(st.sampled_from(LETTERS), st.sampled_from(SEPARATORS)), min_size=1, max_size=6
).map(lambda parts: "".join(letter + separator for letter, separator in parts))
USUAL = st.sampled_from(
    [
        "yyyy-MM-dd", "yyyy-MM-dd HH:mm:ss", "yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "yyyyMMddHHmmssSSS",
        "yyyyMMdd", "dd/MM/yy", "EEE, d MMM yyyy HH:mm:ss Z", "h:mm a", "YYYY-ww-u", "yyyy-DDD",
        "yyyy-MM-W-E", "yyyy-MM-F-E", "MMMM d, yyyy", "yyyy-MM-dd HH:mm:ss z", "yy.MM.dd G",
    ]
)  # fmt: skip
TIMESTAMPS = "org.apache.kafka.connect.transforms.TimestampConverter$Value"
FAR_MS = 10**18  # some thirty million years (EXCLUSIONS)
OCTOBER_1582 = range(-12_219_724_800_000, -12_217_824_000_000)
# Years 0 to 9999 or so; around the change of calendars; now. Not October 1582 (EXCLUSIONS).
TIMES = st.one_of(
    st.integers(-62 * 10**12, 25 * 10**13),
    st.integers(-12_230_000_000_000, -12_210_000_000_000),
    st.integers(0, 2 * 10**12),
).filter(lambda time: time not in OCTOBER_1582)


def convert(judge: Judge, value: object, pattern: str, target: str) -> object:
    config = {"target.type": target, "format": pattern}
    record = Record("t", None, None, None, None, value)
    found = compare(judge, "TimestampConverter$Value", config, record)
    return found if isinstance(found, Refusal) else found.value


@generated(150)
@given(time=TIMES, pattern=PATTERNS | USUAL)
def test_times_are_written_as_in_java(judge: Judge, time: int, pattern: str) -> None:
    convert(judge, Moment(time), pattern, "string")


@generated(150)
@given(time=TIMES, pattern=USUAL | PATTERNS)
def test_what_a_pattern_wrote_is_read_as_in_java(judge: Judge, time: int, pattern: str) -> None:
    text = convert(judge, Moment(time), pattern, "string")
    if not isinstance(text, Refusal):  # both refuse the pattern
        convert(judge, text, pattern, "unix")


NUMBERS = st.integers(-50, 3000).map(str) | st.sampled_from(["007", "1E2", "99999999999", " 5"])


@generated(150)
@given(
    pattern=USUAL,
    parts=st.lists(
        st.tuples(NUMBERS, st.sampled_from(["-", " ", ":", "/", "T", ".", ""])), max_size=7
    ),
)
def test_fields_out_of_range_are_read_as_in_java(
    judge: Judge, pattern: str, parts: list[tuple[str, str]]
) -> None:
    text = "".join(a + b for a, b in parts)
    config = {"target.type": "unix", "format": pattern}
    found = ours(TIMESTAMPS, config, Record("t", None, None, None, None, text))
    if not isinstance(found, Record) or abs(found.value) < FAR_MS:
        convert(judge, text, pattern, "unix")


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("yyyy-MM-dd", "2024-13-45"),
        ("yyyy-MM-dd", "2024-02-29 and more"),
        ("yyyy-MM-dd", "24-1-1"),
        ("yy-MM-dd", "24-1-1"),
        ("yy-MM-dd", "024-1-1"),
        ("yyyyMMdd", "20240229"),
        ("yyyyMMdd", "2024229"),
        ("MMM d yyyy", "jUnE 5 2024"),
        ("MMM d yyyy", "Foo 5 2024"),
        ("EEE yyyy", "Tuesday 2024"),
        ("h a", "12 am"),
        ("h a", "12 PM"),
        ("k", "24"),
        ("yyyy G", "44 BC"),
        ("yyyy-MM-dd Z", "2024-01-01 +0530"),
        ("yyyy-MM-dd z", "2024-01-01 GMT+5:30"),
        ("yyyy-MM-dd z", "2024-01-01 UTC"),
        ("yyyy-MM-dd z", "2024-01-01 nowhere"),
        ("yyyy-MM-ddX", "2024-01-01Z"),
        ("yyyy-MM-ddX", "2024-01-01+05"),
        ("yyyy-MM-ddXX", "2024-01-01-0530"),
        ("yyyy-MM-ddXXX", "2024-01-01+05:30"),
        ("yyyy-MM-ddXXX", "2024-01-01 05:30"),
        ("yyyy", ""),
        ("yyyy", "x"),
        ("'at' HH", "at 7"),
        ("YYYY-ww", "2024-53"),
        ("YYYY-ww-u", "2024-01-9"),
        ("yyyy-ww-E", "2024-07-Fri"),
        ("yyyy-MM W", "2024-02 3"),
        ("yyyy-MM F E", "2024-02 -1 Fri"),
        ("yyyy-DDD", "2024-366"),
        ("yyyy-MM-dd", "1582-10-10"),
        ("yyyy-MM-dd", "1500-2000-45"),
        ("yyyy-MM-dd", "1585--40-2900"),
        ("yyyy-DDD", "1582-300"),
        ("K", "-99999999"),
        ("YYYY", "99999999999"),
        *[(p, "99999999999") for p in ("w", "W", "F", "D", "u")],
        ("F u", "-99999999999 2"),
        ("YYYY ww u", "2020 99999999999 99999999999"),
        ("yyYh", "464623465"),
        ("yyyy-DDD", "1583--400"),
        ("yyyy-ww-E", "1583--50-Fri"),
        ("yyyy-MM F E", "1583--9 -1 Fri"),
        ("yyyy-MM-dd", "0000-01-01"),
        ("yyyy-MM-dd", "-5-01-01"),
        ("SSS", "1E3"),
    ],
)
def test_texts_are_read_as_in_java(judge: Judge, pattern: str, text: str) -> None:
    convert(judge, text, pattern, "unix")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("b", "Illegal pattern character 'b'"),
        ("yyyy 'T", "Unterminated quote"),
        ("XXXX", "invalid ISO 8601 format: length=4"),
    ],
)
def test_a_wrong_pattern_is_refused_with_javas_text(
    judge: Judge, pattern: str, reason: str
) -> None:
    with pytest.raises(IllegalArgument) as caught:
        DateFormat(pattern)
    assert str(caught.value) == reason
    convert(judge, Moment(0), pattern, "string")


def test_a_text_that_does_not_match_is_unparseable() -> None:
    with pytest.raises(Unparseable):
        DateFormat("yyyy-MM-dd").parse("yesterday")
