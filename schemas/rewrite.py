"""Fragments made readable: of a row's JSON text, the values that are not readable are replaced.

A schema is planned once. A fragment whose columns all read as they are is not touched; of the
others only the values to be replaced are parsed, since parsing and writing a whole row costs
ten times as much.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple

import orjson

from schemas.model import Schema
from schemas.semantic import CONVERT_ERRORS, Convert, make_readable, readable_fields

# From a fragment, and the names of fields that stay as they are.
Rewrite = Callable[[bytes, Collection[str]], bytes]

# A text without escapes, an integer, or null: no comma is in them.
_VALUE: Final = re.compile(rb'"([^"\\,]*)"|(-?[0-9]+)|null')
_KNOWN_MAX: Final = 2_000  # values of a field whose readable form is remembered


class _Field(NamedTuple):
    """``mark`` stands in front of the value; ``known``: from values to their readable forms."""

    name: str
    mark: bytes
    convert: Convert
    known: dict[bytes, bytes]


def rewriter(struct: Schema | None) -> Rewrite | None:
    """What makes a row's or a key's fragment readable; None: it is that already."""
    fields = readable_fields(struct)
    if struct is None or not fields:
        return None

    def whole(fragment: bytes, skip: Collection[str]) -> bytes:
        values = orjson.loads(fragment)
        make_readable(values, fields, skip)
        return orjson.dumps(values)

    if any(_nests(field.schema) for field in struct.fields):
        return whole
    first = struct.fields[0].name
    planned = [_Field(name, _mark(name, b"{" if name == first else b","), convert, {})
               for name, convert in fields.items()]  # fmt: skip

    def spliced(fragment: bytes, skip: Collection[str]) -> bytes:
        return _splice(fragment, skip, planned) or whole(fragment, skip)

    return spliced


def _nests(schema: Schema) -> bool:
    """Whether names that stand in a value may be taken for the row's."""
    inner = schema.items if schema.type == "array" else None
    return schema.type in ("struct", "map") or (inner is not None and _nests(inner))


def _mark(name: str, before: bytes) -> bytes:
    """What stands in front of a field's value and nowhere else: in a text, quotes are escaped."""
    return before + orjson.dumps(name) + b":"


def _splice(fragment: bytes, skip: Collection[str], fields: Iterable[_Field]) -> bytes | None:
    """The values behind the marks replaced; None where one of them is not what is expected."""
    parts: list[bytes] = []
    done = 0
    for name, mark, convert, known in fields:
        if skip and name in skip:
            continue
        at = fragment.find(mark, done)
        if at < 0:
            return None
        start = at + len(mark)
        end = fragment.find(b",", start)
        value = fragment[start:end]  # the last one ends with the brace
        new = known.get(value)
        if new is None:
            new = _readable(value, convert)
            if new is None:
                return None
            if len(known) >= _KNOWN_MAX:
                known.clear()
            known[value] = new
        parts += fragment[done:start], new
        done = end if end >= 0 else len(fragment) - 1
    parts.append(fragment[done:])
    return b"".join(parts)


def _readable(value: bytes, convert: Convert) -> bytes | None:
    """A value's readable form, itself where it is not of its type; None: it is not whole."""
    found = _VALUE.fullmatch(value)
    if found is None:
        return None
    text, number = found.groups()
    if text is number:  # both are None: null
        return value
    try:
        return orjson.dumps(convert(int(number) if text is None else text.decode()))
    except CONVERT_ERRORS:
        return value
