"""Loaders of single values that are neither temporal nor arrays. Pure.

A loader takes the server's text and gives a JSON fragment; it raises ValueError, LookupError
or ArithmeticError (:data:`cdc.postgres.values.LOAD_ERRORS`) for text it cannot represent.
"""

from __future__ import annotations

import re
import struct
from binascii import a2b_hex, b2a_base64, hexlify
from collections.abc import Callable, Iterable
from decimal import Decimal

import orjson

Loader = Callable[[bytes], bytes]

_dumps = orjson.dumps
_BOOLS = {b"t": b"true", b"f": b"false", b"true": b"true", b"false": b"false"}
_NOT_FINITE = {"nan": b'"NaN"', "inf": b'"Infinity"', "-inf": b'"-Infinity"'}
# Debezium writes the names of its enum constants here.
_SPECIAL_DECIMALS = {
    b"NaN": b'"NAN"',
    b"Infinity": b'"POSITIVE_INFINITY"',
    b"-Infinity": b'"NEGATIVE_INFINITY"',
}
_WKB_POINT = struct.Struct("<BIdd")
_EWKB_HAS_SRID = 0x20000000
_EWKB_BYTES_MIN = 9


def quoted(raw: bytes) -> bytes:
    """A JSON string of text that may hold anything; UnicodeDecodeError if it is no UTF-8."""
    return _dumps(raw.decode())


def plain(raw: bytes) -> bytes:
    """A JSON string of text whose alphabet needs no escapes (uuid, inet, …)."""
    return b'"%b"' % raw


load_bool: Loader = _BOOLS.__getitem__


def load_int(raw: bytes) -> bytes:
    """Integers need no loader; this one is for text that was not written by the server."""
    return b"%d" % int(raw)


def load_float(raw: bytes) -> bytes:
    """A JSON number, or a string for NaN and the infinities."""
    number = float(raw)
    loaded = _dumps(number)
    return _NOT_FINITE[str(number)] if loaded == b"null" else loaded


# --- bytes ---


def base64_text(data: bytes) -> bytes:
    """A JSON string of base64."""
    return b'"%b"' % b2a_base64(data, newline=False)


def unhex(raw: bytes) -> bytes:
    """The bytes of a bytea's hex form."""
    if raw[:2] != b"\\x":
        raise ValueError("bytea is not in hex form")
    return a2b_hex(raw[2:])


def bytea_base64(raw: bytes) -> bytes:
    """As bytes are in JSON; binary.handling.mode bytes and base64."""
    if raw[:2] != b"\\x":
        raise ValueError("bytea is not in hex form")
    return b'"%b"' % b2a_base64(a2b_hex(raw[2:]), newline=False)


def bytea_url_safe(raw: bytes) -> bytes:
    """The URL-safe alphabet, padding kept."""
    return bytea_base64(raw).replace(b"+", b"-").replace(b"/", b"_")


def bytea_hex(raw: bytes) -> bytes:
    """Lower case hex without a prefix."""
    return b'"%b"' % hexlify(unhex(raw))


BYTEA = {
    "bytes": bytea_base64,
    "base64": bytea_base64,
    "base64-url-safe": bytea_url_safe,
    "hex": bytea_hex,
}


def opaque(mode: str) -> Loader:
    """A type nobody knows: its text's bytes, in the form of ``binary.handling.mode``."""
    as_bytea = BYTEA[mode]
    return lambda raw: as_bytea(b"\\x" + hexlify(raw))


# --- bit strings ---


def bit_bool(raw: bytes) -> bytes:
    """One bit."""
    return b"true" if int(raw, 2) else b"false"


def bits(raw: bytes) -> bytes:
    """Little-endian, without the zero bytes above the highest set bit."""
    number = int(raw, 2) if raw else 0
    return base64_text(number.to_bytes((number.bit_length() + 7) // 8, "little"))


# --- decimals ---


def unscaled(number: int) -> bytes:
    """Base64 of a two's complement, big-endian, as short as java.math.BigInteger's."""
    size = (number if number >= 0 else ~number).bit_length() // 8 + 1
    return b2a_base64(number.to_bytes(size, "big", signed=True), newline=False)


def _digits(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:  # Python refuses more than 4,300 digits; PostgreSQL allows 131,072
        number = Decimal(text.decode())
        if not number.is_finite():
            raise
        return int(number)


def rescaled(raw: bytes, scale: int) -> int:
    """The unscaled value of decimal text at ``scale``; ValueError if that would round."""
    number = Decimal(raw.decode())
    if not number.is_finite():
        raise ValueError(f"{raw.decode()} has no decimal form")
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    shift = exponent + scale
    unit: int = 10 ** abs(shift)
    whole = int(Decimal((sign, digits, 0)))
    if shift >= 0:
        return whole * unit
    kept, lost = divmod(abs(whole), unit)
    if lost:
        raise ValueError(f"{raw.decode()} has more than {scale} fraction digits")
    return -kept if sign else kept


def decimal(scale: int) -> Loader:
    """Precise mode, ``numeric(p, s)``: the server writes exactly ``s`` fraction digits."""
    if scale <= 0:
        return lambda raw: b'"%b"' % unscaled(rescaled(raw, scale) if scale else _digits(raw))
    point = -scale - 1

    def load(raw: bytes) -> bytes:
        try:
            if raw[point] != 46:
                raise ValueError
            number = int(raw.replace(b".", b""))
        except (ValueError, IndexError):
            number = rescaled(raw, scale)
        size = (number if number >= 0 else ~number).bit_length() // 8 + 1
        # b2a_base64 is called here and not through unscaled(): this is the hot path.
        return b'"%b"' % b2a_base64(number.to_bytes(size, "big", signed=True), newline=False)

    return load


def variable_decimal(raw: bytes) -> bytes:
    """Precise mode, ``numeric`` without a scale: trailing zeros go, the scale stays >= 0."""
    whole, _, fraction = raw.partition(b".")
    fraction = fraction.rstrip(b"0")
    number = unscaled(_digits(whole + fraction))
    return b'{"scale":%d,"value":"%b"}' % (len(fraction), number)


def decimal_string(raw: bytes) -> bytes:
    """String mode: the digits as they are, trailing zeros kept."""
    return _SPECIAL_DECIMALS.get(raw) or b'"%b"' % raw


def _money_text(raw: bytes) -> bytes:
    text = raw.replace(b"$", b"").replace(b",", b"")
    return b"-" + text[1:-1] if text[:1] == b"(" else text


def money(mode: str, fraction_digits: int) -> Loader:
    """Text under lc_monetary C: ``-$1,234.50``. Rounds half up where digits are taken away."""

    def precise(raw: bytes) -> bytes:
        text = _money_text(raw)
        whole, _, fraction = text.partition(b".")
        cents = int(whole + fraction)
        shift = fraction_digits - len(fraction)
        if shift >= 0:
            return b'"%b"' % unscaled(cents * 10**shift)
        unit = 10**-shift
        rounded = (abs(cents) + unit // 2) // unit
        return b'"%b"' % unscaled(-rounded if cents < 0 else rounded)

    if mode == "double":
        return lambda raw: load_float(_money_text(raw))
    if mode == "string":
        return lambda raw: b'"%b"' % _money_text(raw)
    return precise


# --- enums ---


class EnumText(dict[bytes, bytes]):
    """Label → JSON string. A label that came after the catalogue was read is quoted too."""

    def __init__(self, labels: Iterable[str]) -> None:
        super().__init__((label.encode(), _dumps(label)) for label in labels)

    def __missing__(self, raw: bytes) -> bytes:
        return quoted(raw)


# --- geometry ---


def point(raw: bytes) -> bytes:
    """A struct with the coordinates and their WKB, little-endian."""
    x, y = raw.strip(b"()").split(b",")
    wkb = base64_text(_WKB_POINT.pack(1, 1, float(x), float(y)))
    return b'{"x":%b,"y":%b,"wkb":%b,"srid":null}' % (load_float(x), load_float(y), wkb)


def geometry(raw: bytes) -> bytes:
    """PostGIS: the EWKB as it is, and its SRID if it carries one."""
    ewkb = a2b_hex(raw)
    if len(ewkb) < _EWKB_BYTES_MIN:
        raise ValueError("EWKB is too short")
    order = "<" if ewkb[0] else ">"
    kind, srid = struct.unpack_from(order + "Ii", ewkb, 1)
    number = b"%d" % srid if kind & _EWKB_HAS_SRID else b"null"
    return b'{"wkb":%b,"srid":%b}' % (base64_text(ewkb), number)


# --- pgvector ---


def vector(raw: bytes) -> bytes:
    """The vector types of pgvector: an array of numbers."""
    return b"[%b]" % b",".join(load_float(part.strip()) for part in raw.strip(b"[]").split(b","))


_SPARSE = re.compile(rb"\s*\{(.*)\}/(\d+)\s*\Z")


def sparse_vector(raw: bytes) -> bytes:
    """``{index:value,…}/dimensions``; a map whose keys are no strings is a list of pairs."""
    found = _SPARSE.match(raw)
    if found is None:
        raise ValueError("not a sparsevec")
    pairs = []
    for pair in found[1].split(b",") if found[1].strip() else ():
        index, _, number = pair.partition(b":")
        pairs.append(b"[%d,%b]" % (int(index), load_float(number.strip())))
    return b'{"dimensions":%d,"vector":[%b]}' % (int(found[2]), b",".join(pairs))
