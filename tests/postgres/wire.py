"""pgoutput as a server writes it: a small encoder, recorded frames, plans without a catalogue."""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from cdc.block import Block
from cdc.postgres.events import EventOptions, build_event_schema, build_message_schema
from cdc.postgres.messages import EPOCH_US, Relation
from cdc.postgres.pgoutput import Decoder, DecoderOptions, Frame
from cdc.postgres.plan import RelationPlan, WireColumn, build_plan, packed_tuple
from cdc.postgres.types import PgType, TypeCatalog
from cdc.postgres.values import plan_column
from schemas import Column, TableId, TableSchema

DATA = Path(__file__).parent.parent / "data" / "pgoutput_frames.json"
MOOD = 16385
OPTIONS = EventOptions("srv", "db")


def recorded(major: int) -> dict[str, list[Frame]]:
    """Frames that servers sent, by the name of the step that made them."""
    steps = json.loads(DATA.read_text())[str(major)]
    return {
        name: [(lsn, bytes.fromhex(payload)) for lsn, payload in frames]
        for name, frames in steps.items()
    }


def describer(
    required: Sequence[str] = ("id", "name", "code"), keys: dict[str, tuple[str, ...]] | None = None
) -> Callable[[Relation], RelationPlan | None]:
    """Plans as the planner makes them, the catalogue's part given by ``required`` and ``keys``."""
    moods = PgType(MOOD, "mood", "public", "e", "E", labels=("sad", "glad"))

    @functools.cache
    def describe(relation: Relation) -> RelationPlan | None:
        enums = [c.type_id for c in relation.columns if c.name == "m"]
        types = TypeCatalog([PgType(o, *list(_fields(moods))[1:]) for o in enums])
        key = (keys or {}).get(relation.name, () if relation.name == "x" else ("id",))
        table = TableSchema(
            TableId("db", relation.schema, relation.name),
            tuple(
                Column(c.name, c.type_id, c.modifier, c.name not in required or not key, None)
                for c in relation.columns
            ),
            tuple(k for k in key if k in {c.name for c in relation.columns}),
            relation.id,
        )
        plans = [plan_column(c, types) for c in table.columns]
        schema = build_event_schema(
            table,
            [p for p in plans if p],
            topic=f"srv.{relation.schema}.{relation.name}",
            options=OPTIONS,
        )
        fields = [
            WireColumn(c.name, p, in_value=True) for c, p in zip(table.columns, plans, strict=True)
        ]
        return build_plan(schema, fields)

    return describe


def _fields(kind: PgType) -> list[Any]:
    return [getattr(kind, name) for name in kind.__dataclass_fields__]


def decoder(
    describe: Callable[[Relation], RelationPlan | None] | None = None, **options: Any
) -> Decoder:
    messages = build_message_schema(topic="srv.message", options=OPTIONS)
    options = {"skipped": frozenset(), "message_schema": messages, **options}
    return Decoder(describe or describer(), DecoderOptions(**options))


def rows(*blocks: Block) -> list[tuple[Any, ...]]:
    """(op, table, lsn, ordinal, key, before, after, unchanged, moved, xid, origin) a row."""
    out = []
    for block in blocks:
        for n, op in enumerate(block.op):
            transaction = block.transactions[block.transaction[n]]
            parsed = [
                None if f is None else orjson.loads(f)
                for f in (block.keys[n], block.befores[n], block.afters[n], block.moved.get(n))
            ]
            schema = block.schemas[block.schema[n]]
            names = [schema.row.fields[i].name for i in block.unchanged.get(n, ())]
            out.append(
                (chr(op), schema.table.table, block.lsn[n], block.ordinal[n], *parsed[:3], names,
                 parsed[3], transaction.xid, transaction.origin)
            )  # fmt: skip
    return out


# --- the encoder ------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def begin(commit_lsn: int, us: int = EPOCH_US, xid: int = 1) -> bytes:
    return b"B" + struct.pack(">QqI", commit_lsn, us - EPOCH_US, xid)


def commit(commit_lsn: int, end_lsn: int, us: int = EPOCH_US) -> bytes:
    return b"C" + struct.pack(">BQQq", 0, commit_lsn, end_lsn, us - EPOCH_US)


def origin(name: str, lsn: int = 0) -> bytes:
    return b"O" + struct.pack(">Q", lsn) + text(name)


def kind(oid: int, name: str) -> bytes:
    return b"Y" + struct.pack(">I", oid) + text("public") + text(name)


def relation(
    oid: int, name: str, columns: Sequence[tuple[str, int]], identity: str = "d", keys: int = 1
) -> bytes:
    head = b"R" + struct.pack(">I", oid) + text("public") + text(name) + identity.encode()
    parts = [
        struct.pack(">B", n < keys or identity == "f") + text(c) + struct.pack(">Ii", type_id, -1)
        for n, (c, type_id) in enumerate(columns)
    ]
    return head + struct.pack(">H", len(columns)) + b"".join(parts)


def insert(oid: int, values: Sequence[bytes | None]) -> bytes:
    return b"I" + struct.pack(">I", oid) + b"N" + packed_tuple(values)


def update(
    oid: int,
    new: Sequence[bytes | int | None],
    old: Sequence[bytes | None] | None = None,
    old_kind: bytes = b"O",
) -> bytes:
    before = b"" if old is None else old_kind + packed_tuple(old)
    return b"U" + struct.pack(">I", oid) + before + b"N" + packed_tuple(new)


def delete(oid: int, old: Sequence[bytes | None], old_kind: bytes = b"O") -> bytes:
    return b"D" + struct.pack(">I", oid) + old_kind + packed_tuple(old)


def truncate(*oids: int, flags: int = 0) -> bytes:
    return b"T" + struct.pack(f">IB{len(oids)}I", len(oids), flags, *oids)


def message(prefix: str, content: bytes, lsn: int, *, transactional: bool) -> bytes:
    head = b"M" + struct.pack(">BQ", transactional, lsn) + text(prefix)
    return head + struct.pack(">I", len(content)) + content
