"""Envelope: a Block's rows as the JSON values Debezium would have produced.

The value of the default JSON converter is the block's fragments joined; nothing is parsed.
What is constant for a table or a transaction is rendered once, not per row.
"""

from __future__ import annotations

from cdc.block import MESSAGE, Block, Transaction
from schemas import EventSchema

# The names a source template may use (bytes % mapping); see EventSchema.source_template.
SOURCE_NAMES = (
    "ts_ms", "ts_us", "ts_ns", "snapshot", "sequence", "txId", "lsn", "xmin", "origin",
    "origin_lsn",
)  # fmt: skip

_OPS = {op: b'"%c"' % op for op in b"rcudtm"}
NULL = b"null"


def render_values(block: Block) -> list[bytes]:
    """The value of every row, without schema, in order. Tombstones are the caller's."""
    out: list[bytes] = []
    us = block.created_us
    times = b'"ts_ms":%d,"ts_us":%d,"ts_ns":%d}' % (us // 1000, us, us * 1000)
    message_time = b'"ts_ms":%d' % (us // 1000)
    cache: dict[tuple[int, int, str], tuple[bytes, bytes]] = {}
    rows = zip(
        block.op, block.schema, block.transaction, block.lsn, block.befores, block.afters,
        strict=True,
    )  # fmt: skip
    for row, (op, schema, tx, lsn, before, after) in enumerate(rows):
        marker = block.markers.get(row, block.marker) if block.markers else block.marker
        halves = cache.get((schema, tx, marker))
        if halves is None:
            halves = _source_halves(block.schemas[schema], block.transactions[tx], marker)
            cache[(schema, tx, marker)] = halves
        source = _with_lsn(halves, lsn, block.transactions[tx], op)
        if op == MESSAGE:
            out.append(
                b'{"op":"m",%b,"source":%b,"transaction":null,"message":%b}'
                % (message_time, source, after or NULL)
            )
            continue
        out.append(
            b'{"before":%b,"after":%b,"source":%b,"transaction":null,"op":%b,%b'
            % (before or NULL, after or NULL, source, _OPS[op], times)
        )
    return out


# Stands for the row's LSN while the rest of the source block is rendered once.
_MARK = b"\x00"


def _source_halves(
    schema: EventSchema, transaction: Transaction, marker: str
) -> tuple[bytes, ...]:
    us = transaction.commit_us
    previous = transaction.previous_end_lsn
    first = b'\\"%d\\"' % previous if previous else NULL
    text = schema.source_template.encode() % {
        b"ts_ms": us // 1000,
        b"ts_us": us,
        b"ts_ns": us * 1000,
        b"snapshot": b'"%b"' % marker.encode(),
        b"sequence": b'"[%b,\\"%b\\"]"' % (first, _MARK),
        b"txId": b"%d" % transaction.xid if transaction.xid else NULL,
        b"lsn": _MARK,
        b"xmin": NULL,
        b"origin": _json_text(transaction.origin),
        b"origin_lsn": NULL if transaction.origin_lsn is None else b"%d" % transaction.origin_lsn,
    }
    return tuple(text.split(_MARK))


def _with_lsn(
    parts: tuple[bytes, ...], lsn: int, transaction: Transaction, op: int
) -> bytes:
    return (b"%d" % lsn).join(parts)


def _json_text(value: str | None) -> bytes:
    import orjson

    return NULL if value is None else orjson.dumps(value)
