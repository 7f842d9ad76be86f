"""Event: one row of a Block as JSON, for programs and people. A view, made on demand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from cdc.block import Block
from cdc.envelope import render_values
from cdc.record import has_tombstone, headers_of
from schemas import Schema


@dataclass(slots=True)
class Event:
    """An event. ``key`` and ``value`` are parsed JSON (dict) or None (tombstone).

    ``offset`` is the journal offset, -1 before the block is stored; a delete and its
    tombstone share it. ``headers`` are name → (value, schema or None for a plain string).
    """

    topic: str
    key: Any
    value: Any
    key_schema: Schema | None
    value_schema: Schema | None
    offset: int
    headers: dict[str, tuple[Any, Schema | None]] = field(default_factory=dict)


def events(block: Block, *, tombstones: bool = True) -> Iterator[Event]:
    """Every event of a block in order, each delete followed by its tombstone."""
    for row, value in enumerate(render_values(block)):
        schema = block.schemas[block.schema[row]]
        fragment = block.keys[row]
        key = None if fragment is None else orjson.loads(fragment)
        key_schema = None if fragment is None else schema.key
        headers = headers_of(block, row, schema)
        offset = block.offsets[row] if block.offsets else -1
        parsed, value_schema = orjson.loads(value), schema.envelope
        if parsed is None and not tombstones:
            continue
        topic = schema.destination
        yield Event(topic, key, parsed, key_schema, value_schema, offset, headers)
        if tombstones and has_tombstone(block, row):
            yield Event(topic, key, None, key_schema, None, offset, dict(headers))
