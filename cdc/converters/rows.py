"""Rows of a Block as records of bytes, by any converters.

JSON of tables' rows is parts joined (:mod:`cdc.converters.json`); all else goes over Connect
values, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from itertools import repeat
from typing import Any, NamedTuple

import orjson

from cdc.block import DELETE, MESSAGE, Block, Fragment
from cdc.converters.contract import Converter, HeaderConverter
from cdc.converters.json import JsonConverter
from cdc.envelope import render_values
from cdc.jackson import escape
from cdc.record import has_tombstone, moved_header
from schemas import EventSchema, Schema
from schemas.codec import loader, value_of

# Name and bytes of each header, None for null.
Headers = tuple[tuple[str, bytes | None], ...]
Load = Callable[[Any], Any]


class Converted(NamedTuple):
    """One record as bytes. ``value`` is None for a tombstone; ``offset`` is the journal's."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    offset: int


def convert(
    block: Block,
    key: Converter,
    value: Converter,
    header: HeaderConverter | None = None,
    *,
    tombstones: bool = True,
) -> list[Converted]:
    """Every record of a block in order, each delete followed by its tombstone.

    Headers are plain JSON where no converter for them is given. Raises DataError for a value
    that a converter cannot write.
    """
    topics = [schema.destination for schema in block.schemas]
    offsets: Sequence[int] = block.offsets or [-1] * len(block)
    keys, values = convert_keys(block, key), convert_values(block, value)
    named = _headers(block, header)
    columns = zip(map(topics.__getitem__, block.schema), keys, values, named, offsets, strict=False)
    # As Converted._make, without its call in Python for each.
    records = list(map(partial(tuple.__new__, Converted), columns))
    if DELETE not in block.op:
        return records
    out: list[Converted] = []
    for row, (op, record) in enumerate(zip(block.op, records, strict=True)):
        if op != DELETE:
            out.append(record)
            continue
        if tombstones or record.value is not None:
            out.append(record)
        if tombstones and has_tombstone(block, row):
            out.append(record._replace(value=None))
    return out


def convert_keys(block: Block, converter: Converter) -> Sequence[bytes | None]:
    """Every row's key; None where it is null (for truncates, and where the table has none)."""
    fast = _fast_path(block, converter)
    if fast is not None:
        return fast.keys(block)
    schemas = [schema.key for schema in block.schemas]
    rows = _Rows(block, converter, schemas)
    return [rows.convert(*row) for row in zip(block.schema, block.keys, strict=True)]


def convert_values(block: Block, converter: Converter) -> Sequence[bytes | None]:
    """Every row's value; None for a record without one. Tombstones of tables are the caller's."""
    fast = _fast_path(block, converter)
    if fast is not None:
        return fast.values(block)
    rows = _Rows(block, converter, [schema.envelope for schema in block.schemas])
    values: Sequence[Fragment] = render_values(block)
    if any(rows.records):
        pairs = zip(block.schema, block.afters, values, strict=True)
        values = [after if rows.records[schema] else v for schema, after, v in pairs]
    return [rows.convert(*row) for row in zip(block.schema, values, strict=True)]


def _fast_path(block: Block, converter: Converter) -> JsonConverter | None:
    records = any(schema.kind == "record" for schema in block.schemas)
    return converter if isinstance(converter, JsonConverter) and not records else None


class _Rows:
    """Converts JSON forms of one column of a block, by the schemas of its tables."""

    def __init__(self, block: Block, converter: Converter, schemas: list[Schema | None]) -> None:
        self.records = [schema.kind == "record" for schema in block.schemas]
        self._converter, self._schemas = converter, schemas
        self._json = converter if isinstance(converter, JsonConverter) else None
        self._topics = [schema.destination for schema in block.schemas]
        self._loads = [None if schema is None else loader(schema) for schema in schemas]

    def convert(self, table: int, fragment: Fragment) -> bytes | None:
        schema = self._schemas[table]
        if fragment is None:
            # A table's truncate has no key at all; a record may have a null of a schema.
            schema = schema if self.records[table] else None
            return self._converter.from_connect(self._topics[table], schema, None)
        if self._json is not None and schema is not None:
            return self._json.of_fragment(schema, fragment)
        value, load = orjson.loads(fragment), self._loads[table]
        if load is not None and value is not None:
            value = load(value)
        return self._converter.from_connect(self._topics[table], schema, value)


def _headers(block: Block, converter: HeaderConverter | None) -> Iterable[Headers]:
    """The headers of each row, perhaps without end; most rows share one constant tuple.

    Where every row has headers of its own, as behind a chain that edits them, the connector's
    are not asked for: a converter may refuse them.
    """

    @cache
    def constant() -> Headers:
        context = tuple((name, orjson.dumps(text), None) for name, text in block.context.items())
        # Only their topic could tell one table's from another's, and no converter looks at it.
        return _converted(context, converter, "")

    if not block.moved and not block.headers and MESSAGE not in block.op:
        return repeat(constant())

    def headers(row: int) -> Headers:
        schema = block.schemas[block.schema[row]]
        own = block.headers.get(row)
        if own is not None:
            return _converted(own, converter, schema.destination)
        op, moved = block.op[row], block.moved.get(row)
        named: Headers = ()
        if moved is not None:
            named = _converted(_moved(schema, op, moved), converter, schema.destination)
        # Logical decoding messages carry no connector context (facts: §1.9).
        return named if op == MESSAGE else named + constant()

    return map(headers, range(len(block)))


def _moved(
    schema: EventSchema, op: int, key: bytes
) -> tuple[tuple[str, bytes, Schema | None], ...]:
    return ((moved_header(op), key, schema.key),)


def _converted(
    headers: Sequence[tuple[str, bytes, Schema | None]],
    converter: HeaderConverter | None,
    topic: str,
) -> Headers:
    if converter is None:
        return tuple((name, escape(text)) for name, text, _ in headers)
    return tuple(
        (name, converter.from_connect_header(topic, name, schema, value_of(text, schema)))
        for name, text, schema in headers
    )
