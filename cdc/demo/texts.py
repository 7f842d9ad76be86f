"""One text for one value, whether a PostgreSQL server or a SQLite copy holds it.

SQLite has no decimals, times or arrays: a copy there has them as text of another shape.
Here both shapes become the same text. Types not listed are not compared, and are named.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_DAY_S: Final = 86_400
_MOMENT: Final = re.compile(
    r"(?P<year>[+-]?\d+)-(?P<rest>\d\d-\d\d)"
    r"(?:[T ](?P<clock>\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d{1,6}))?)?"
    r"(?:Z|[+-]00(?::?00)?)?(?P<bc> BC)?"
)
_CLOCK: Final = re.compile(
    r"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?:Z|([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?)?"
)


def _plain(text: str) -> str:
    return text


def _integer(text: str) -> str:
    return str(int(text))


def _boolean(text: str) -> str:
    return {"t": "1", "f": "0"}.get(text, text)


def _double(text: str) -> str:
    return repr(float(text))


def _decimal(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _padded(text: str) -> str:
    return text.rstrip(" ")


def _bits(text: str) -> str:
    return str(int(text or "0", 2))


def _bytes(text: str) -> str:
    return text.removeprefix("\\x")


def _moment(text: str) -> str:
    """A date or a time of a day: year with a sign, six digits, UTC. Infinity as it is."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        return text
    year = 1 - int(match["year"]) if match["bc"] else int(match["year"])
    clock, fraction = match["clock"], (match["fraction"] or "").ljust(6, "0")
    return f"{year:05d}-{match['rest']}" + (f"T{clock}.{fraction}" if clock else "")


def _clock(text: str) -> str:
    """A time of the day; one with an offset is brought to UTC."""
    match = _CLOCK.fullmatch(text)
    if match is None:
        return text
    hours, minutes, seconds, fraction, sign, *offset = match.groups()
    total = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    if sign:
        h, m, s = (int(part or 0) for part in offset)
        shift = h * 3600 + m * 60 + s
        total = (total - shift if sign == "+" else total + shift) % _DAY_S
    return f"{total}.{(fraction or '').ljust(6, '0')}"


_BY_TYPE: Final[dict[str, Callable[[str], str]]] = {
    **dict.fromkeys("int2 int4 int8 oid".split(), _integer),
    **dict.fromkeys("float4 float8".split(), _double),
    **dict.fromkeys(
        "text varchar uuid xml citext json jsonb inet cidr macaddr macaddr8 name ltree"
        " int4range int8range numrange tsrange tstzrange daterange".split(),
        _plain,
    ),
    **dict.fromkeys("date timestamp timestamptz".split(), _moment),
    **dict.fromkeys("time timetz".split(), _clock),
    "bit": _bits,
    "bool": _boolean,
    "bpchar": _padded,
    "bytea": _bytes,
    "numeric": _decimal,
    "varbit": _bits,
}

COMPARABLE: Final = frozenset(_BY_TYPE)


def of_source(type_: str, text: str) -> str:
    """From the text of PostgreSQL's output function."""
    return _BY_TYPE[type_](text)


def of_sqlite(type_: str, value: object) -> str:
    """From what SQLite gives."""
    if isinstance(value, bytes):
        return value.hex()
    if type_ in ("bit", "varbit") and isinstance(value, int):
        return str(value)  # bit(1) is a boolean in the copy
    return _BY_TYPE[type_](str(value))
