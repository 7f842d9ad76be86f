"""Single precision in a language that only has doubles.

A ``float`` value is held as the double that is exactly it; its JSON form is the double with
the shortest text that leads back to it: 1.1, not 1.100000023841858.
"""

from __future__ import annotations

import struct
from decimal import Decimal
from math import inf, isfinite, nextafter

_SINGLE, _DOUBLE, _BITS = (struct.Struct(code) for code in (">f", ">d", ">q"))
_NORMAL_MIN = 2.0**-126  # below, singles have fewer digits


def nearest_single(value: float) -> float:
    """The nearest number of single precision; infinite beyond its range."""
    try:
        found: float = _SINGLE.unpack(_SINGLE.pack(value))[0]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return found


def single_of(number: Decimal) -> float:
    """The nearest number of single precision, rounded once."""
    found = float(number)
    if isfinite(found) and found != number:
        # Half way between two singles a second rounding could go wrong: keep to the side.
        found = nextafter(found, inf if found < number else -inf) if _half_way(found) else found
    return nearest_single(found)


def _half_way(value: float) -> bool:
    bits: int = _BITS.unpack(_DOUBLE.pack(value))[0]
    return bits & 0x1FFF_FFFF == 0x1000_0000


def shortest_double(value: float) -> float:
    """The double of the shortest text that means ``value`` in single precision."""
    if not isfinite(value):
        return value
    for digits in (6, 7, 8, 9) if abs(value) >= _NORMAL_MIN else range(2, 10):
        found = float(f"{value:.{digits}g}")
        if nearest_single(found) == value:
            return found
    return value  # not of single precision
