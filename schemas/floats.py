"""Single precision in a language that only has doubles.

A ``float`` value is held as the double that is exactly it; its JSON form is the double with
the shortest text that leads back to it: 1.1, not 1.100000023841858.
"""

from __future__ import annotations

import struct
from math import isfinite

_SINGLE = struct.Struct(">f")


def nearest_single(value: float) -> float:
    """The nearest number of single precision; infinite beyond its range."""
    try:
        found: float = _SINGLE.unpack(_SINGLE.pack(value))[0]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return found


def shortest_double(value: float) -> float:
    """The double of the shortest text that means ``value`` in single precision."""
    if not isfinite(value):
        return value
    for digits in (6, 7, 8, 9):
        found = float(f"{value:.{digits}g}")
        if nearest_single(found) == value:
            return found
    return value  # not of single precision
