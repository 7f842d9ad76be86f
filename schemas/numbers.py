"""Numbers as Java has them: widths, rounding and parsing; and what it trims from a text.

Facts: the Java Language Specification §5.1.3 (narrowing) and JDK 17's number classes.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation

from schemas import floats

BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}

_INTEGER = re.compile(r"[+-]?\d+")
_FLOATING = re.compile(r"[+-]?(NaN|Infinity|((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)[fFdD]?)", re.ASCII)
_HEX_FLOATING = re.compile(
    r"[+-]?0[xX]([0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?[0-9]+[fFdD]?"
)
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_LONG_DIGITS = 64
_INTEGER_DIGITS_MAX = 20  # of a long there are nineteen
_BLANK = "".join(map(chr, range(33)))


class NumberFormat(ValueError):
    """Java's NumberFormatException: a text that is no number of the kind."""


def trimmed(text: str) -> str:
    """Java's ``trim``: without what is not above a space, at both ends; nothing else is blank."""
    return text.strip(_BLANK)


def in_halves(text: str) -> bool:
    """Whether Java holds some character of it as two halves: none of them is a digit there."""
    return not text.isascii() and max(text) > "\uffff"


def wrapped(value: int, bits: int) -> int:
    """A whole number cut to a width, as Java narrows."""
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half


def truncated(value: float, bits: int) -> int:
    """A floating number as an int (32 bits) or a long (64): to zero, and saturated."""
    if math.isnan(value):
        return 0
    limit = 1 << (bits - 1)
    if value >= limit:
        return limit - 1
    return -limit if value <= -limit else int(value)


def low_bits(value: Decimal, bits: int) -> int:
    """BigDecimal's ``intValue`` and ``longValue``: the lowest bits of its whole part."""
    if not value.is_finite() or value.adjusted() < 0:
        return 0
    if value.as_tuple().exponent >= _LONG_DIGITS:  # type: ignore[operator]
        return 0  # a multiple of 10**64, so of 2**64
    return wrapped(int(value), bits)


def single_of(value: int | Decimal) -> float:
    """An exact number rounded to single precision at once, not by way of a double."""
    return floats.single_of(Decimal(value))


def parse_integer(text: str, bits: int) -> int:
    """Java's ``parseInt`` and its like. Raises NumberFormat."""
    digits = text.lstrip("+-0")
    if not _INTEGER.fullmatch(text) or len(digits) > _INTEGER_DIGITS_MAX or in_halves(text):
        raise NumberFormat(text)
    value = int(digits or "0") * (-1 if text[0] == "-" else 1)
    if value != wrapped(value, bits):
        raise NumberFormat(text)
    return value


def parse_double(text: str) -> float:
    """Java's ``parseDouble``. Raises NumberFormat."""
    stripped = trimmed(text)
    if _FLOATING.fullmatch(stripped):
        return float(stripped if stripped.endswith("Infinity") else stripped.rstrip("fFdD"))
    if _HEX_FLOATING.fullmatch(stripped):
        return float.fromhex(stripped.rstrip("fFdD") if "p" in stripped.lower() else stripped)
    raise NumberFormat(text)


def parse_single(text: str) -> float:
    """Java's ``parseFloat``. Raises NumberFormat."""
    value = parse_double(text)
    stripped = text.strip().rstrip("fFdD")
    if math.isfinite(value) and value and _DECIMAL.fullmatch(stripped):
        return single_of(Decimal(stripped))
    return floats.nearest_single(value)


def parse_decimal(text: str) -> Decimal:
    """Java's ``new BigDecimal(text)``. Raises NumberFormat."""
    if not _DECIMAL.fullmatch(text) or in_halves(text):
        raise NumberFormat(text)
    try:
        return Decimal(text) + 0 if Decimal(text).is_zero() else Decimal(text)
    except InvalidOperation:
        raise NumberFormat(text) from None
