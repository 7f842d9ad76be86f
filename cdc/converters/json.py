"""JsonConverter: Kafka Connect's ``org.apache.kafka.connect.json.JsonConverter`` for Blocks.

Fragments are JSON already, so a value is parts joined: nothing is parsed but the rows that
an option really changes (:mod:`cdc.converters.fragments`), and the schema of
``schemas.enable=true`` is rendered once per table.

A difference in bytes that no JSON reader can see: Java's writer escapes characters beyond
U+FFFF as surrogate pairs, we write them as UTF-8 like all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import orjson

from cdc.block import Block, Fragment
from cdc.converters.fragments import Rewrite, plan_rewrite, schema_dict
from cdc.envelope import render_values
from cdc.errors import ConfigError
from cdc.record import has_tombstone, moved_header
from schemas import EventSchema, Schema

Headers = tuple[tuple[str, bytes], ...]

# How many tables' plans one converter keeps, as Connect's schemas.cache.size.
SCHEMAS_CACHE_SIZE = 1000


class Converted(NamedTuple):
    """One record as bytes. ``value`` is None for a tombstone; ``offset`` is the journal's."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    offset: int


class JsonConverter:
    """Keys and values as JSON text, with Connect's options under Connect's names.

    Safe to share between blocks, not between threads.
    """

    def __init__(
        self,
        schemas_enable: bool = True,
        replace_null_with_default: bool = True,
        decimal_format: str = "BASE64",
    ) -> None:
        if decimal_format.upper() not in ("BASE64", "NUMERIC"):
            raise ConfigError(
                f"unknown format {decimal_format!r}",
                key="decimal.format",
                remedy="Use BASE64 or NUMERIC",
            )
        self.schemas_enable = schemas_enable
        self.replace_null_with_default = replace_null_with_default
        self.numeric = decimal_format.upper() == "NUMERIC"
        self._plans: dict[str, _Plan] = {}

    @classmethod
    def from_config(cls, options: Mapping[str, object]) -> JsonConverter:
        """From options without the ``key.converter.``/``value.converter.`` prefix."""

        def flag(name: str, default: bool) -> bool:
            text = str(options.get(name, default)).strip().lower()
            if text not in ("true", "false"):
                raise ConfigError(
                    f"{text!r} is not a boolean", key=name, remedy="Use true or false"
                )
            return text == "true"

        return cls(
            flag("schemas.enable", True),
            flag("replace.null.with.default", True),
            str(options.get("decimal.format", "BASE64")).strip(),
        )

    def keys(self, block: Block) -> list[bytes | None]:
        """Every row's key; None where the table has none (and for truncates)."""
        plans = [self._plan(schema) for schema in block.schemas]
        keys = _rewritten([p.key for p in plans], block.schema, block.keys)
        if not self.schemas_enable:
            return list(keys)
        heads = [p.key_head for p in plans]
        return [
            None if key is None else b"%b%b}" % (heads[schema], key)
            for schema, key in zip(block.schema, keys, strict=True)
        ]

    def values(self, block: Block) -> list[bytes]:
        """Every row's value; tombstones are the caller's."""
        plans = [self._plan(schema) for schema in block.schemas]
        images = [p.row for p in plans]
        befores = _rewritten(images, block.schema, block.befores)
        afters = _rewritten(images, block.schema, block.afters)
        values = render_values(block, befores, afters)
        if not self.schemas_enable:
            return values
        heads = [p.value_head for p in plans]
        return [
            b"%b%b}" % (heads[schema], value)
            for schema, value in zip(block.schema, values, strict=True)
        ]

    def convert(self, block: Block, *, tombstones: bool = True) -> list[Converted]:
        """Every record of a block in order, with this converter for key and value."""
        return convert(block, self, self, tombstones=tombstones)

    def _plan(self, schema: EventSchema) -> _Plan:
        plan = self._plans.get(schema.fingerprint)
        if plan is None:
            if len(self._plans) >= SCHEMAS_CACHE_SIZE:
                self._plans.clear()
            plan = self._plans[schema.fingerprint] = self._make_plan(schema)
        return plan

    def _make_plan(self, schema: EventSchema) -> _Plan:
        def head(of: Schema | None) -> bytes:
            text = b"null" if of is None else orjson.dumps(schema_dict(of, self.numeric))
            return b'{"schema":%b,"payload":' % text

        def rewrite(of: Schema | None) -> Rewrite | None:
            if of is None:
                return None
            return plan_rewrite(of, self.replace_null_with_default, self.numeric)

        # Only schemas.enable needs the heads: a wide table's takes a while to render.
        heads = (head(schema.key), head(schema.envelope)) if self.schemas_enable else (b"", b"")
        return _Plan(*heads, rewrite(schema.key), rewrite(schema.row))


class _Plan(NamedTuple):
    """What a converter knows about one schema."""

    key_head: bytes
    value_head: bytes
    key: Rewrite | None
    row: Rewrite | None


def convert(
    block: Block, key: JsonConverter, value: JsonConverter, *, tombstones: bool = True
) -> list[Converted]:
    """Every record of a block in order, each delete followed by its tombstone."""
    topics = [schema.destination for schema in block.schemas]
    offsets: Sequence[int] = block.offsets or [-1] * len(block)
    keys = key.keys(block)
    values = value.values(block)
    headers = _header_maker(block)
    rows = zip(block.schema, keys, values, offsets, strict=True)
    out: list[Converted] = []
    for row, (schema, key_text, value_text, offset) in enumerate(rows):
        named = headers(row)
        out.append(Converted(topics[schema], key_text, value_text, named, offset))
        if tombstones and has_tombstone(block, row):
            out.append(Converted(topics[schema], key_text, None, named, offset))
    return out


def _header_maker(block: Block) -> Callable[[int], Headers]:
    """Headers of one row as JSON text; most rows share one constant tuple."""
    constant: Headers = tuple((name, orjson.dumps(text)) for name, text in block.context.items())
    if not block.moved and ord("m") not in block.op:
        return lambda _row: constant

    def headers(row: int) -> Headers:
        op = block.op[row]
        moved = block.moved.get(row)
        own: Headers = () if moved is None else ((moved_header(op), moved),)
        # Logical decoding messages carry no connector context (facts: §1.9).
        return own if op == ord("m") else own + constant

    return headers


def _rewritten(
    rewrites: Sequence[Rewrite | None], schema: Sequence[int], fragments: Sequence[Fragment]
) -> Sequence[Fragment]:
    if not any(rewrites):
        return fragments
    out: list[Fragment] = []
    for index, fragment in zip(schema, fragments, strict=True):
        rewrite = rewrites[index]
        out.append(fragment if rewrite is None or fragment is None else rewrite(fragment))
    return out
