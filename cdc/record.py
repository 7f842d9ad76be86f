"""Record: one row of a Block as Kafka Connect's users know it. A view, made on demand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from cdc.block import DELETE, MESSAGE, TRUNCATE, Block
from cdc.envelope import render_values
from schemas import EventSchema, Schema


@dataclass(slots=True)
class Record:
    """A typed record. ``key`` and ``value`` are parsed JSON (dict) or None (tombstone).

    ``offset`` is the journal offset; a delete and its tombstone share it. ``headers`` are
    name → (value, schema or None for a plain string).
    """

    topic: str
    key: Any
    value: Any
    key_schema: Schema | None
    value_schema: Schema | None
    offset: int
    headers: dict[str, tuple[Any, Schema | None]] = field(default_factory=dict)


class _Unsent:
    """The type of UNCHANGED."""

    def __repr__(self) -> str:
        return "UNCHANGED"


# A TOASTed value the server did not send. Not None (SQL NULL), not absent (no such column).
UNCHANGED = _Unsent()


def records(block: Block, *, tombstones: bool = True) -> Iterator[Record]:
    """Every event of a block in order, each delete followed by its tombstone."""
    for row, value in enumerate(render_values(block)):
        schema = block.schemas[block.schema[row]]
        key = block.keys[row]
        parsed_key = None if key is None else orjson.loads(key)
        headers = headers_of(block, row, schema)
        offset = block.offsets[row] if block.offsets else -1
        key_schema = schema.key if key is not None else None
        yield Record(
            schema.topic, parsed_key, orjson.loads(value), key_schema, schema.envelope, offset,
            headers,
        )  # fmt: skip
        if tombstones and block.op[row] == DELETE and key is not None:
            yield Record(schema.topic, parsed_key, None, key_schema, None, offset, dict(headers))


def headers_of(block: Block, row: int, schema: EventSchema) -> dict[str, tuple[Any, Schema | None]]:
    """The headers of one event: the connector's context, and the other key of a key change."""
    headers: dict[str, tuple[Any, Schema | None]] = {}
    moved = block.moved.get(row)
    if moved is not None:
        name = "__debezium.newkey" if block.op[row] == DELETE else "__debezium.oldkey"
        headers[name] = (orjson.loads(moved), schema.key)
    if block.op[row] != MESSAGE:
        context: Mapping[str, str] = block.context
        headers.update((name, (value, None)) for name, value in context.items())
    return headers


def image(block: Block, row: int) -> dict[str, Any] | None:
    """The row after the change (before it, for a delete), unsent values as UNCHANGED."""
    if block.op[row] == TRUNCATE:
        return None
    fragment = block.befores[row] if block.op[row] == DELETE else block.afters[row]
    if fragment is None:
        return None
    values: dict[str, Any] = orjson.loads(fragment)
    unsent = block.unchanged.get(row)
    if unsent:
        names = block.schemas[block.schema[row]].row.fields
        for index in unsent:
            values[names[index].name] = UNCHANGED
    return values
