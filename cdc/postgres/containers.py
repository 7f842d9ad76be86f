"""Loaders of values made of values: arrays and hstore. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

import orjson

Loader = Callable[[bytes], bytes]

_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
# An element of an array: quoted with backslash escapes, or bare up to the next comma.
_ELEMENT = re.compile(rb'(?:"((?:[^"\\]|\\.)*)"|([^",{}\\]+))(,|\Z)', re.DOTALL)
_PAIR = re.compile(
    rb'"((?:[^"\\]|\\.)*)"=>(?:"((?:[^"\\]|\\.)*)"|(NULL))(?:, |\Z)', re.DOTALL | re.IGNORECASE
)


def _inside(raw: bytes) -> bytes:
    """What stands between the braces of a one-dimensional array."""
    if raw[:1] == b"[":  # explicit bounds, [0:2]={…}: Debezium's arrays have none
        raw = raw.partition(b"=")[2]
    if raw[:1] != b"{" or raw[-1:] != b"}" or raw[1:2] == b"{":
        raise ValueError("not a one-dimensional array")
    return raw[1:-1]


def numbers_array(raw: bytes) -> bytes:
    """Elements that are JSON as they are."""
    return b"[%b]" % _inside(raw).replace(b"NULL", b"null")


def numbers_vector(raw: bytes) -> bytes:
    """Oidvector and int2vector: numbers with blanks between them."""
    return b"[%b]" % b",".join(raw.split())


def array(load: Loader, *, null: bytes | None = b"null") -> Loader:
    """Elements through ``load``; an unquoted NULL is ``null``, or ValueError where None is."""

    def load_array(raw: bytes) -> bytes:
        inside = _inside(raw)
        if not inside:
            return b"[]"
        if b'"' in inside:
            parts = _elements(inside)
        else:
            parts = [None if part == b"NULL" else part for part in inside.split(b",")]
        if null is None:
            if None in parts:
                raise ValueError("the schema's items cannot be null")
            return b"[%b]" % b",".join([load(part) for part in parts if part is not None])
        return b"[%b]" % b",".join([null if part is None else load(part) for part in parts])

    return load_array


def _elements(inside: bytes) -> list[bytes | None]:
    """The elements of an array some of which are quoted."""
    out: list[bytes | None] = []
    at, more = 0, True
    while more:
        found = _ELEMENT.match(inside, at)
        if found is None:
            raise ValueError("malformed array")
        text, bare, comma = found.groups()
        if text is not None:
            out.append(_ESCAPED.sub(rb"\1", text) if b"\\" in text else text)
        else:
            out.append(None if bare == b"NULL" else bare)
        at, more = found.end(), bool(comma)
    return out


# --- hstore ---


def _java_hash(text: str) -> int:
    """java.lang.String.hashCode, spread as java.util.HashMap does."""
    code = 0
    data = text.encode("utf-16-be")
    for i in range(0, len(data), 2):
        code = (31 * code + (data[i] << 8) + data[i + 1]) & 0xFFFFFFFF
    return code ^ (code >> 16)


def _java_order(pairs: dict[str, str | None]) -> dict[str, str | None]:
    """The order in which java.util.HashMap gives back what was put in, which is Debezium's."""
    if len(pairs) < 2:
        return pairs
    capacity = 16
    while len(pairs) > capacity * 3 // 4:
        capacity *= 2
    order = sorted(pairs, key=lambda key: _java_hash(key) & (capacity - 1))
    return {key: pairs[key] for key in order}


def _hstore(raw: bytes) -> dict[str, str | None]:
    pairs: dict[str, str | None] = {}
    at = 0
    while at < len(raw):
        found = _PAIR.match(raw, at)
        if found is None:
            raise ValueError("malformed hstore")
        key, value, null = found.groups()
        text = None if null else _ESCAPED.sub(rb"\1", value).decode()
        pairs[_ESCAPED.sub(rb"\1", key).decode()] = text
        at = found.end()
    return _java_order(pairs)


def hstore_map(raw: bytes) -> bytes:
    """A JSON object; hstore.handling.mode=map."""
    return orjson.dumps(_hstore(raw))


def hstore_json(raw: bytes) -> bytes:
    """A JSON string that holds an object; hstore.handling.mode=json."""
    return orjson.dumps(orjson.dumps(_hstore(raw)).decode())
