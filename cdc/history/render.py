"""Fragments as people read them: rows and keys by the semantic types of their schemas."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from cdc.block import Block, Fragment
from cdc.history.keys import KEY, key_struct
from cdc.history.model import Row
from cdc.images import RowImages
from cdc.record import UNCHANGED
from schemas import EventSchema, Field, Schema
from schemas.semantic import Convert, make_readable, readable_fields

VALUE = "value"  # what a record without columns is shown under


class Images(NamedTuple):
    """A row before and after, the schema they follow, and the fields that were not sent."""

    schema: EventSchema
    before: Fragment
    after: Fragment
    unsent: tuple[int, ...]


class Renderer:
    """Makes rows readable; remembers each schema's conversions."""

    def __init__(self) -> None:
        self._rows = RowImages()
        self._values: dict[str, EventSchema] = {}
        self._known: dict[str, tuple[dict[str, Convert], dict[str, Convert]]] = {}

    def images(self, block: Block, row: int) -> Images:
        """A row's images; of a record that transforms have made, as sinks understand it."""
        schema, text = block.schemas[block.schema[row]], block.afters[row]
        if schema.kind != "record":
            return Images(schema, block.befores[row], text, block.unchanged.get(row, ()))
        found = self._rows.table_row(block, row)
        if found is None:
            alone = b'{"%b":%b}' % (VALUE.encode(), text or b"null")
            return Images(self._alone(schema), None, alone, ())
        table, new = found
        return Images(table, new.before, new.after, new.unchanged)

    def _alone(self, schema: EventSchema) -> EventSchema:
        """Of a record without columns: its value is the only one."""
        known = self._values.get(schema.fingerprint)
        if known is None:
            fields = () if schema.value is None else (Field(VALUE, schema.value),)
            known = replace(schema, kind="table", row=Schema("struct", fields=fields), value=None)
            self._values[schema.fingerprint] = known
        return known

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
        if schema.key is None or schema.key.type != "struct":
            values = {KEY: values}
        make_readable(values, self._plans(schema)[1])
        return values

    def _plans(self, schema: EventSchema) -> tuple[dict[str, Convert], dict[str, Convert]]:
        found = self._known.get(schema.fingerprint)
        if found is None:
            found = readable_fields(schema.row), readable_fields(key_struct(schema))
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
