"""Record: one row of a Block as Kafka Connect's users know it. A view, made on demand."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal

import orjson

from cdc.block import DELETE, MESSAGE, Block
from cdc.envelope import render_values
from schemas import EventSchema, Schema

NEW_KEY = "__debezium.newkey"
OLD_KEY = "__debezium.oldkey"


@dataclass(slots=True)
class Record:
    """A typed record. ``key`` and ``value`` are parsed JSON (dict) or None (tombstone).

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


class Unsent(Enum):
    """The type of :data:`UNCHANGED`; an Enum, so that it stays one object when pickled."""

    UNCHANGED = "UNCHANGED"

    def __repr__(self) -> str:
        return "UNCHANGED"


# A TOASTed value the server did not send. Not None (SQL NULL), not absent (no such column).
UNCHANGED: Final[Literal[Unsent.UNCHANGED]] = Unsent.UNCHANGED


def records(block: Block, *, tombstones: bool = True) -> Iterator[Record]:
    """Every event of a block in order, each delete followed by its tombstone."""
    for row, value in enumerate(render_values(block)):
        schema = block.schemas[block.schema[row]]
        fragment = block.keys[row]
        key = None if fragment is None else orjson.loads(fragment)
        key_schema = None if fragment is None else schema.key
        headers = headers_of(block, row, schema)
        offset = block.offsets[row] if block.offsets else -1
        yield Record(
            schema.topic, key, orjson.loads(value), key_schema, schema.envelope, offset, headers
        )
        if tombstones and has_tombstone(block, row):
            yield Record(schema.topic, key, None, key_schema, None, offset, dict(headers))


def has_tombstone(block: Block, row: int) -> bool:
    """Whether a record with this key and no value follows: after a delete.

    As in Debezium also after one without a key; not where ``tombstones.on.delete=false``.
    """
    return block.tombstones and block.op[row] == DELETE


def headers_of(block: Block, row: int, schema: EventSchema) -> dict[str, tuple[Any, Schema | None]]:
    """The headers of one event: the connector's context, and the other key of a key change."""
    headers: dict[str, tuple[Any, Schema | None]] = {}
    moved = block.moved.get(row)
    if moved is not None:
        headers[moved_header(block.op[row])] = (orjson.loads(moved), schema.key)
    if block.op[row] != MESSAGE:
        headers.update((name, (value, None)) for name, value in block.context.items())
    return headers


def moved_header(op: int) -> str:
    """The header that names the other key of a key change: a delete plus a create."""
    return NEW_KEY if op == DELETE else OLD_KEY


def image(block: Block, row: int) -> dict[str, Any] | None:
    """The row after the change (before it, for a delete), unsent values as UNCHANGED."""
    deleted = block.op[row] == DELETE
    fragment = block.befores[row] if deleted else block.afters[row]
    if fragment is None:
        return None
    values: dict[str, Any] = orjson.loads(fragment)
    if not deleted:
        fields = block.schemas[block.schema[row]].row.fields
        for index in block.unchanged.get(row, ()):
            values[fields[index].name] = UNCHANGED
    return values


def from_offset(block: Block, offset: int) -> Block | None:
    """The rows from a journal offset on; None when all are before it.

    For targets that keep their own offset: what they hold already is not written again.
    """
    if not len(block) or not block.offsets or block.offsets[0] >= offset:
        return block if len(block) else None
    rest = range(bisect_left(block.offsets, offset), len(block))
    return block.select(rest) if rest else None
