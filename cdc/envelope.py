"""Envelope: a Block's rows as the JSON values Debezium would have produced.

The value of the default JSON converter is the block's fragments joined; nothing is parsed.
What is constant for a table, a transaction and an operation is rendered once, not per row.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from cdc.block import MESSAGE, Block, Fragment, Transaction
from cdc.jackson import escape
from schemas import EventSchema

# The names a source template may use (bytes % mapping): the three clocks as integers
# (``%(ts_ms)d``), all others as JSON text (``%(lsn)b``); see EventSchema.source_template.
SOURCE_NAMES = (
    "ts_ms", "ts_us", "ts_ns", "snapshot", "sequence", "txId", "lsn", "xmin", "origin",
    "origin_lsn",
)  # fmt: skip

NULL = b"null"

# Stands for the row's LSN while the rest is rendered once; JSON text never holds this byte.
_MARK = b"\x00"


def render_values(
    block: Block,
    befores: Sequence[Fragment] | None = None,
    afters: Sequence[Fragment] | None = None,
) -> list[bytes]:
    """The value of every row, without schema, in order; ``null`` for a record row without one.

    Tombstones of tables' rows are the caller's.

    ``befores`` and ``afters`` replace the block's own, for a converter that writes some
    values differently.
    """
    out: list[bytes] = []
    append, join = out.append, b"".join
    tails: dict[tuple[int, int, int, str], list[bytes]] = {}
    rows = zip(
        block.op,
        block.schema,
        block.transaction,
        block.lsn,
        block.befores if befores is None else befores,
        block.afters if afters is None else afters,
        strict=True,
    )
    marker, markers = block.marker, block.markers
    same: tuple[int, int, int] | None = None  # what the tail at hand belongs to
    for row, (op, schema, tx, lsn, before, after) in enumerate(rows):
        if markers or (op, schema, tx) != same:
            same = (op, schema, tx)
            key = (*same, markers.get(row, marker))
            tail = tails.get(key)
            if tail is None:
                tail = tails[key] = _tail(block, key)
        if not tail:  # a record row: the value is there as a whole
            append(after or NULL)
        elif op == MESSAGE:
            append(b"%b%b}" % ((b"%d" % lsn).join(tail), after or NULL))
        else:
            source = (b"%d" % lsn).join(tail)
            append(join((b'{"before":', before or NULL, b',"after":', after or NULL, source)))
    return out


def render_source(block: Block, schema: int, transaction: int, marker: str, lsn: int) -> bytes:
    """The source block of one row, by the block's numbers of its schema and transaction."""
    text = _source(block.schemas[schema], block.transactions[transaction], marker)
    return text.replace(_MARK, b"%d" % lsn)


def _tail(block: Block, key: tuple[int, int, int, str]) -> list[bytes]:
    """All of a value that does not depend on the row's images, cut where the LSN goes.

    For a logical decoding message it is the head: its image comes last (facts: §1.8). Empty
    for a record row, whose value the block holds as a whole.
    """
    op, schema, tx, marker = key
    if block.schemas[schema].kind == "record":
        return []
    source = _source(block.schemas[schema], block.transactions[tx], marker)
    us = block.created_us
    if op == MESSAGE:
        head = b'{"op":"m","ts_ms":%d,"source":%b,"transaction":null,"message":'
        return escape(head % (us // 1000, source)).split(_MARK)
    tail = b',"source":%b,"transaction":null,"op":"%c","ts_ms":%d,"ts_us":%d,"ts_ns":%d}'
    return escape(tail % (source, op, us // 1000, us, us * 1000)).split(_MARK)


def _source(schema: EventSchema, transaction: Transaction, marker: str) -> bytes:
    us = transaction.commit_us
    previous = transaction.previous_end_lsn
    first = b'\\"%d\\"' % previous if previous else NULL
    return schema.source_template.encode() % {
        b"ts_ms": us // 1000,
        b"ts_us": us,
        b"ts_ns": us * 1000,
        b"snapshot": b'"%b"' % marker.encode(),
        b"sequence": b'"[%b,\\"%b\\"]"' % (first, _MARK),
        b"txId": b"%d" % transaction.xid if transaction.xid else NULL,
        b"lsn": _MARK,
        # xmin.fetch.interval.ms is 0 by default: then Debezium's xmin is null as well.
        b"xmin": NULL,
        b"origin": orjson.dumps(transaction.origin),
        b"origin_lsn": orjson.dumps(transaction.origin_lsn),
    }
