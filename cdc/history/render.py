"""Fragments as people read them: rows and keys by the semantic types of their schemas."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import orjson

from cdc.history.model import Row
from cdc.record import UNCHANGED
from schemas import EventSchema
from schemas.semantic import Convert, make_readable, readable_fields


class Renderer:
    """Makes rows readable; remembers each schema's conversions."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[dict[str, Convert], dict[str, Convert]]] = {}

    def row(self, schema: EventSchema, fragment: bytes, unsent: Collection[int] = ()) -> Row:
        """A row image; ``unsent`` are the indices of the fields the server did not send."""
        values: Row = orjson.loads(fragment)
        skip = {schema.row.fields[index].name for index in unsent}
        make_readable(values, self._plans(schema)[0], skip)
        values.update(dict.fromkeys(skip, UNCHANGED))
        return values

    def key(self, schema: EventSchema, fragment: bytes) -> Row:
        """A key."""
        values: Row = orjson.loads(fragment)
        make_readable(values, self._plans(schema)[1])
        return values

    def _plans(self, schema: EventSchema) -> tuple[dict[str, Convert], dict[str, Convert]]:
        found = self._known.get(schema.fingerprint)
        if found is None:
            found = readable_fields(schema.row), readable_fields(schema.key)
            self._known[schema.fingerprint] = found
        return found


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
