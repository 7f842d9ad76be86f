"""Fragments as people read them: rows and keys by the semantic types of their schemas."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import orjson

from cdc.history.model import Row
from cdc.record import UNCHANGED
from schemas import EventSchema, Schema
from schemas.semantic import Convert, readable

# What a conversion may raise for a value that is not of its type: it is shown as it is.
CONVERT_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)


class Renderer:
    """Makes rows readable; remembers each schema's conversions."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[dict[str, Convert], dict[str, Convert]]] = {}

    def row(self, schema: EventSchema, fragment: bytes, unsent: Collection[int] = ()) -> Row:
        """A row image; ``unsent`` are the indices of the fields the server did not send."""
        values: Row = orjson.loads(fragment)
        skip = {schema.row.fields[index].name for index in unsent}
        _convert(values, self._plans(schema)[0], skip)
        values.update(dict.fromkeys(skip, UNCHANGED))
        return values

    def key(self, schema: EventSchema, fragment: bytes) -> Row:
        """A key."""
        values: Row = orjson.loads(fragment)
        _convert(values, self._plans(schema)[1], ())
        return values

    def _plans(self, schema: EventSchema) -> tuple[dict[str, Convert], dict[str, Convert]]:
        found = self._known.get(schema.fingerprint)
        if found is None:
            found = _plan(schema.row), _plan(schema.key)
            self._known[schema.fingerprint] = found
        return found


def _plan(struct: Schema | None) -> dict[str, Convert]:
    plans = {f.name: readable(f.schema) for f in struct.fields} if struct else {}
    return {name: convert for name, convert in plans.items() if convert is not None}


def _convert(values: Row, plan: dict[str, Convert], skip: Collection[str]) -> None:
    for name, convert in plan.items():
        value = values.get(name)
        if value is not None and name not in skip:
            try:
                values[name] = convert(value)
            except CONVERT_ERRORS:
                continue


def value_text(value: Any) -> str:
    """A value on one line of a terminal: JSON, nothing in it that a terminal obeys."""
    if value is UNCHANGED:
        return "(unchanged, and not in the journal)"
    return printable(orjson.dumps(value).decode())


def printable(text: str) -> str:
    """Control characters escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
