"""Between a Block's rows and Records: planned once per schema, paid for by chains only.

A table's row is the record Debezium would have produced: its envelope as a struct; a delete is
followed by its tombstone. What comes back is a record row (see :mod:`cdc.block`).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final, NamedTuple

import orjson

from cdc.block import DELETE, MESSAGE, Block, Derived, Fragment, NewRow, RowHeaders
from cdc.envelope import render_source, render_values
from cdc.images import image_schema, is_envelope
from cdc.record import Header, Record, has_tombstone, moved_header
from cdc.runtime.unsent import Unsent
from schemas import DataError, EventSchema, Schema
from schemas.codec import decimal_base64, dumper, value_of, values_loader
from schemas.struct import Struct

PLANS_MAX: Final = 1000  # schemas remembered, of each kind

Convert = Callable[[Any], Any]
Load = Callable[[bytes], Any]

# Stands for the LSN while the rest of a source block is made; no server is that far.
_LSN: Final = 7_777_777_777_777_777_777


@dataclass(frozen=True, slots=True)
class Context:
    """What a block's rows share. ``headers`` are the connector's; ``timestamp`` in ms.

    ``edited``: what edits have made of those headers, so that rows share that too. ``sources``:
    by schema, transaction and marker, the source block's JSON, cut where the LSN goes.
    """

    block: Block
    headers: tuple[Header, ...]
    partition: int | None
    timestamp: int | None
    edited: dict[Any, RowHeaders] = field(default_factory=dict)
    sources: dict[tuple[int, int, str], list[bytes]] = field(default_factory=dict)


class RecordReader:
    """Rows as Records. In a sink they have the journal's place, in a source none yet."""

    def __init__(self, *, sink: bool) -> None:
        self._sink = sink
        self._plans: dict[str, _Plan] = {}

    def context(self, block: Block) -> Context:
        """Read a block's rows with this."""
        headers = tuple(Header(name, text, None) for name, text in block.context.items())
        place = (0, block.created_us // 1000) if self._sink else (None, None)
        return Context(block, headers, *place)

    def records(self, context: Context, row: int) -> Iterator[Record]:
        """A row's record, and the tombstone of a delete."""
        block = context.block
        schema = block.schemas[block.schema[row]]
        plan = self._plan(schema)
        fragment = block.keys[row]
        key = None if fragment is None else plan.key(fragment)
        value: Any
        if schema.kind == "table":
            value = self._enveloped(context, row, schema, plan)
        else:
            text = block.afters[row]
            if schema.kind == "message":
                text = render_values(block.select([row]))[0]
            value = None if text is None else plan.value(text)
        topic, offset = schema.destination, -1
        key_schema = schema.key if schema.kind == "record" or key is not None else None
        headers = headers_before(context, row)
        if self._sink and block.offsets:
            offset = block.offsets[row]
        yield Record(
            topic, context.partition, key_schema, key, schema.envelope, value,
            context.timestamp, headers, offset,
        )  # fmt: skip
        if has_tombstone(block, row):
            yield Record(
                topic, context.partition, key_schema, key, None, None,
                context.timestamp, headers, offset,
            )  # fmt: skip

    def _enveloped(self, context: Context, row: int, schema: EventSchema, plan: _Plan) -> Struct:
        """A table row's value, put together from its images: nothing is read of them yet."""
        block = context.block
        before, after = block.befores[row], block.afters[row]
        us, load = block.created_us, plan.image
        members = [
            None if before is None else Struct.of_json(schema.row, before, load),
            None if after is None else Struct.of_json(schema.row, after, load),
            Struct.of_json(schema.source, self._source(context, row), plan.source),
            None, chr(block.op[row]), us // 1000, us, us * 1000,
        ]  # fmt: skip
        return Struct(plan.envelope, members)

    def _source(self, context: Context, row: int) -> bytes:
        """A row's source block: all but the LSN is its transaction's, and is made once."""
        block = context.block
        place = block.schema[row], block.transaction[row], block.marker_of(row)
        parts = context.sources.get(place)
        if parts is None:
            text = render_source(block, *place, _LSN)
            parts = context.sources[place] = text.split(b"%d" % _LSN)
        return (b"%d" % block.lsn[row]).join(parts)

    def _plan(self, schema: EventSchema) -> _Plan:
        plan = self._plans.get(schema.fingerprint)
        if plan is None:
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            plan = self._plans[schema.fingerprint] = _Plan(
                _reader(schema.key),
                _reader(schema.envelope),
                values_loader(schema.row),
                values_loader(schema.source),
                schema.envelope or schema.row,
            )
        return plan


class _Plan(NamedTuple):
    """How one schema's fragments become Connect values; the values alone of what are structs."""

    key: Load
    value: Load
    image: Load
    source: Load
    envelope: Schema


def _reader(schema: Schema | None) -> Load:
    """From a fragment to a value; a struct is read where somebody asks for its values."""
    if schema is not None and schema.type == "struct":
        load = values_loader(schema)
        return lambda text: Struct.of_json(schema, text, load)
    return lambda text: value_of(text, schema)


def headers_before(context: Context, row: int) -> tuple[Header, ...]:
    """A row's headers as Connect values, before a transform has seen them."""
    block = context.block
    own = block.headers.get(row)
    if own is not None:
        return tuple(Header(name, value_of(text, schema), schema) for name, text, schema in own)
    moved = block.moved.get(row)
    constant = () if block.op[row] == MESSAGE else context.headers
    if moved is None:
        return constant
    schema = block.schemas[block.schema[row]].key
    return (Header(moved_header(block.op[row]), value_of(moved, schema), schema), *constant)


def dumped_headers(headers: tuple[Header, ...]) -> RowHeaders:
    """The form in which a Block holds them."""
    return tuple((h.name, _dumped(h.value, h.schema), h.schema) for h in headers)


@dataclass(frozen=True, slots=True)
class _Target:
    """One schema of the new block; the Schemas are held so that their ids stay theirs."""

    schema: EventSchema
    key: Schema | None
    value: Schema | None
    dump_key: Convert | None
    dump_value: Convert | None
    enveloped: bool
    original: Schema | None  # of the image that rows had, which is ``nested`` in their value
    nested: bool
    unsent: Unsent | None


class RecordWriter:
    """Records as rows of a new block. A source's need a topic, as Kafka has it."""

    def __init__(self, *, sink: bool) -> None:
        self._sink = sink
        self._targets: dict[tuple[str, str, int, int], _Target] = {}

    def add(self, out: Derived, context: Context, row: int, record: Record, before: Record) -> None:
        """Add what has become of ``before``, the row's record. Raises what cannot be written."""
        if not record.topic and not self._sink:
            raise DataError("Topic name is invalid: the empty string is not allowed")
        block = context.block
        base = block.schemas[block.schema[row]]
        target = self._target(base, record)
        key, value = block.keys[row], _fragment(record.value, target.dump_value)
        same_key = record.key_schema is before.key_schema
        if record.key is not before.key or not same_key:
            key = _fragment(record.key, target.dump_key)
            same_key = same_key and key == block.keys[row]
        unchanged = block.unchanged.get(row, ())
        if unchanged:
            image = _image(record.value, target.enveloped)
            unchanged = _unsent(target, image, block, row)
        moved = block.moved.get(row)
        headers = None
        if moved is not None or row in block.headers or record.headers != before.headers:
            headers = dumped_headers(record.headers)
        op = DELETE if value is None else block.op[row]
        new = NewRow(op, key, None, value, unchanged, moved if same_key else None, headers)
        out.add(row, out.schema(target.schema), new)

    def _target(self, base: EventSchema, record: Record) -> _Target:
        key, value = record.key_schema, record.value_schema
        known = (base.fingerprint, record.topic, id(key), id(value))
        target = self._targets.get(known)
        if target is None:
            if len(self._targets) >= PLANS_MAX:
                self._targets.clear()
            target = self._targets[known] = _make_target(base, record.topic, key, value)
        return target


def _make_target(
    base: EventSchema, topic: str, key: Schema | None, value: Schema | None
) -> _Target:
    row = value if value is not None and value.type == "struct" else Schema("struct")
    schema = replace(base, topic=topic, key=key, row=row, kind="record", value=value, routed="")
    recorded, image = base.kind == "record", image_schema(value)
    original = image_schema(base.value) if recorded else base.row
    return _Target(
        schema,
        key,
        value,
        None if key is None else dumper(key),
        None if value is None else dumper(value),
        image is not value,
        original,
        recorded and original is not base.value,
        None if original is None or image is None else Unsent(original, image),
    )


def _image(value: Any, enveloped: bool) -> Struct | None:
    if not isinstance(value, Struct):
        return None
    if not enveloped or not is_envelope(value.schema):
        return value
    after = value.get_without_default("after")
    return after if isinstance(after, Struct) else None


def _unsent(target: _Target, image: Struct | None, block: Block, row: int) -> tuple[int, ...]:
    """Fields of the image that the server did not send, under any name."""
    fragment, original = block.afters[row], target.original
    if image is None or fragment is None or target.unsent is None or original is None:
        return ()
    members = orjson.loads(fragment)
    if target.nested:
        members = members["after"]
    columns = block.unchanged[row]
    fields = [original.fields[i] for i in columns]
    placeholders = [value_of(orjson.dumps(members[f.name]), f.schema) for f in fields]
    return tuple(sorted(target.unsent.find(columns, placeholders, image)))


def _dumped(value: Any, schema: Schema | None) -> bytes:
    dump = None if schema is None or value is None else dumper(schema)
    return orjson.dumps(value if dump is None else dump(value), default=_plain)


def _fragment(value: Any, dump: Convert | None) -> Fragment:
    if value is None:
        return None
    return orjson.dumps(value if dump is None else dump(value), default=_plain)


def _plain(value: Any) -> Any:
    """JSON of a value without a schema, as Connect's JsonConverter writes it."""
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, Struct):
        return dict(value.items())
    if isinstance(value, Decimal):
        return decimal_base64(value)
    raise TypeError(f"a value of {type(value).__name__} has no JSON form")
