"""Record: one row of a Block as Connect's transforms see it; and what rows mean to sinks."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, NamedTuple

import orjson

from cdc.block import DELETE, MESSAGE, STREAMED, Block
from schemas import EventSchema, Schema
from schemas.java import schema_text, text

NEW_KEY = "__debezium.newkey"
OLD_KEY = "__debezium.oldkey"


class Header(NamedTuple):
    """One header of a record; a name may come several times. No schema: a plain value."""

    name: str
    value: Any
    schema: Schema | None


@dataclass(slots=True)
class Record:
    """One record as Connect's transforms, predicates and converters see it: its ConnectRecord.

    ``key`` and ``value`` are Connect values (see :mod:`schemas.struct`); without a schema a
    dict, a list or a scalar. ``value`` None: a tombstone. ``timestamp`` is in ms since the
    epoch. ``offset`` is the journal offset, -1 in a source, where none is known yet. A
    transform returns a new Record, or the one it was given; it never changes one.
    """

    topic: str
    partition: int | None
    key_schema: Schema | None
    key: Any
    value_schema: Schema | None
    value: Any
    timestamp: int | None = None
    headers: tuple[Header, ...] = ()
    offset: int = -1


def record_text(record: Record) -> str:
    """A record as Java's ``ConnectRecord`` prints it: what errors and logs of Connect show."""

    def of(schema: Schema | None) -> str:
        return "null" if schema is None else schema_text(schema)

    headers = ", ".join(
        f"ConnectHeader(key={h.name}, value={text(h.value, h.schema)}, schema={of(h.schema)})"
        for h in record.headers
    )
    return (
        f"ConnectRecord{{topic='{record.topic}', kafkaPartition={text(record.partition)}, "
        f"key={text(record.key, record.key_schema)}, keySchema={of(record.key_schema)}, "
        f"value={text(record.value, record.value_schema)}, valueSchema={of(record.value_schema)}, "
        f"timestamp={text(record.timestamp)}, headers=ConnectHeaders(headers={headers})}}"
    )


class Unchanged(Enum):
    """The type of :data:`UNCHANGED`; an Enum, so that it stays one object when pickled."""

    UNCHANGED = "UNCHANGED"

    def __repr__(self) -> str:
        return "UNCHANGED"


# A TOASTed value the server did not send. Not None (SQL NULL), not absent (no such column).
UNCHANGED: Final[Literal[Unchanged.UNCHANGED]] = Unchanged.UNCHANGED


def has_tombstone(block: Block, row: int) -> bool:
    """Whether a record with this key and no value follows: after a delete.

    As in Debezium also after one without a key; not where ``tombstones.on.delete=false``, and
    not after a record that a chain of transforms has made: there it is a row of its own.
    """
    if not block.tombstones or block.op[row] != DELETE:
        return False
    return block.schemas[block.schema[row]].kind != "record"


def headers_of(block: Block, row: int, schema: EventSchema) -> dict[str, tuple[Any, Schema | None]]:
    """The headers of one event: the connector's context, and the other key of a key change.

    Those that a chain of transforms gave it stand for all of these. Of several headers with
    one name the last one counts, as for ``Headers.lastWithName``.
    """
    own = block.headers.get(row)
    if own is not None:
        return {name: (orjson.loads(value), header) for name, value, header in own}
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


def whole_rows(block: Block) -> int:
    """How many rows come before the part of a transaction that a later block continues.

    Rows of a snapshot, and what belongs to no transaction (xid 0), are whole by themselves.
    """
    rows = len(block)
    if not rows or not block.transactions or block.marker_of(rows - 1) != STREAMED:
        return rows
    last = block.transaction[rows - 1]
    transaction = block.transactions[last]
    if transaction.end_lsn != 0 or transaction.xid == 0:
        return rows
    while rows and block.transaction[rows - 1] == last:
        rows -= 1
    return rows
