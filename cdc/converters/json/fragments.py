"""Rewriting a struct's JSON fragment: defaults for nulls, numbers for decimals.

Two options of Connect's JsonConverter change what a fragment says:
``replace.null.with.default`` (a null in an optional field that has a default is written as
the default) and ``decimal.format=NUMERIC``. :func:`plan_rewrite` gives None where neither
can apply to a schema, which is the common case, and then costs nothing.

Fragments are cut, never parsed and dumped again: that would change the text of doubles.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from cdc.converters.json.writer import plan_writer
from schemas import Field, Schema
from schemas.codec import decimal_of, loader
from schemas.model import DECIMAL

Rewrite = Callable[[bytes], bytes]
Stands = Callable[[Any], bool]

# A string, or a character that opens, closes or separates.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]', re.DOTALL)
_PLAIN_NAME = re.compile(r"\w+\Z", re.ASCII)


def plan_rewrite(struct: Schema, replace_null: bool, numeric: bool) -> Rewrite | None:
    """How to rewrite fragments of ``struct``; None when they can stay as they are."""
    defaults = _defaults(struct, numeric) if replace_null else {}
    decimals = {f.name: f.schema for f in struct.fields if numeric and _has_decimal(f.schema)}
    if decimals:
        return _member_rewrite(struct, defaults, decimals)
    if not defaults:
        return None
    if _is_flat(struct):
        return _substitution(defaults)
    slow = _member_rewrite(struct, defaults, {})
    return lambda fragment: slow(fragment) if b"null" in fragment else fragment


def plan_nulls(schema: Schema, replace_null: bool, numeric: bool) -> Stands | None:
    """Whether a parsed JSON form stands as it is: no null in it is an error, or a default.

    None where decimals are to be numbers, so that none does.
    """
    return None if numeric and _has_decimal(schema) else _stands(schema, replace_null)


def _stands(schema: Schema, replace_null: bool) -> Stands:
    null = schema.optional and not (replace_null and schema.default is not None)
    inner = _inner_stands(schema, replace_null)
    if inner is None:
        return lambda value: null or value is not None
    return lambda value: null if value is None else inner(value)


def _inner_stands(schema: Schema, replace_null: bool) -> Stands | None:
    """The same for what is inside of a value; None: nothing is."""
    if schema.type == "struct":
        return _struct_stands(schema, replace_null)
    if schema.type == "array" and schema.items is not None:
        each = _stands(schema.items, replace_null)
        return lambda values: all(map(each, values))
    # a map's keys have a null of their own, and there are few maps
    return (lambda _: False) if schema.type in ("array", "map") else None


def _struct_stands(schema: Schema, replace_null: bool) -> Stands:
    fields = schema.fields
    never = [f.name for f in fields if not _stands(f.schema, replace_null)(None)]
    nested = [
        (f.name, inner)
        for f in fields
        if (inner := _inner_stands(f.schema, replace_null)) is not None
    ]

    def stands(members: dict[str, Any]) -> bool:
        for name in never:
            if members.get(name) is None:
                return False
        inside = ((members.get(name), inner) for name, inner in nested)
        return all(value is None or inner(value) for value, inner in inside)

    return stands


def schema_dict(schema: Schema, replace_null: bool, numeric: bool) -> dict[str, Any]:
    """Connect's JSON form: its defaults are written as any value of theirs is."""
    return _written(schema, replace_null, numeric).to_dict()


def _defaults(struct: Schema, numeric: bool) -> dict[str, bytes]:
    """Field name → its default as JSON, for optional fields that have one."""
    found = {}
    for field in struct.fields:
        schema = field.schema
        if schema.optional and schema.default is not None:
            found[field.name] = orjson.dumps(_written(schema, True, numeric).default)
    return found


def _is_flat(struct: Schema) -> bool:
    """Whether ``"name":null`` can only be a member of the struct itself."""

    def holds_members(schema: Schema) -> bool:
        if schema.type in ("struct", "map"):
            return True
        return schema.items is not None and holds_members(schema.items)

    return all(_PLAIN_NAME.match(f.name) and not holds_members(f.schema) for f in struct.fields)


def _substitution(defaults: dict[str, bytes]) -> Rewrite:
    """One pattern over the fragment of a flat struct with plain names.

    A quote inside a JSON string is escaped, so a quote after ``{`` or ``,`` opens a name or
    ends a string; after the end of a string there is never a word character.
    """
    names = b"|".join(re.escape(name.encode()) for name in defaults)
    # The comma before is part of the match, the one behind is not: it starts the next one.
    pattern = re.compile(rb'([{,])"(%b)":null(?=[,}])' % names)
    text = {name.encode(): b'"%b":%b' % (name.encode(), t) for name, t in defaults.items()}

    def rewrite(fragment: bytes) -> bytes:
        if b"null" not in fragment:
            return fragment
        return pattern.sub(lambda found: found[1] + text[found[2]], fragment)

    return rewrite


def _member_rewrite(
    struct: Schema, defaults: dict[str, bytes], decimals: dict[str, Schema]
) -> Rewrite:
    fields = {orjson.dumps(f.name): f.name for f in struct.fields}

    def rewrite(fragment: bytes) -> bytes:
        out, at = [], 0
        for name_text, start, end in _members(fragment):
            name, value = fields.get(name_text, ""), fragment[start:end]
            if value == b"null":
                value = defaults.get(name, value)
            elif name in decimals:
                value = _decimal_text(value, decimals[name])
            else:
                continue
            out += [fragment[at:start], value]
            at = end
        return b"".join(out) + fragment[at:] if out else fragment

    return rewrite


def _members(fragment: bytes) -> list[tuple[bytes, int, int]]:
    """Name, start and end of every member value of a JSON object."""
    out: list[tuple[bytes, int, int]] = []
    depth, start, name, text = 0, 0, b"", b""
    for token in _TOKEN.finditer(fragment):
        kind = token[0][:1]
        if kind == b'"':
            text = token[0]
        elif kind in b"{[":
            depth += 1
        elif depth == 1 and kind == b":":
            name, start = text, token.end()
        elif depth == 1 and kind in b",}" and start:
            out.append((name, start, token.start()))
            start = 0
        if kind in b"}]":
            depth -= 1
    return out


# --- decimals ---


def _has_decimal(schema: Schema) -> bool:
    inner = (schema.items, schema.keys, schema.values, *(f.schema for f in schema.fields))
    return schema.name == DECIMAL or any(_has_decimal(of) for of in inner if of is not None)


def _decimal_text(value: bytes, schema: Schema) -> bytes:
    """JSON with a decimal, or with decimals inside, as numbers in BigDecimal's notation."""
    if schema.name == DECIMAL:
        return _number(orjson.loads(value), schema)
    load = loader(schema)
    assert load is not None, "decimals are loaded"
    write = plan_writer(schema, replace_null=False, numeric=True)
    return orjson.dumps(write(load(orjson.loads(value))))


def _number(base64: str, schema: Schema) -> bytes:
    # str(Decimal) and BigDecimal.toString() follow the same rule, ``1E-7`` included.
    return str(decimal_of(base64, int(schema.parameters["scale"]))).encode()


# --- defaults ---


def _written(schema: Schema, replace_null: bool, numeric: bool) -> Schema:
    """The schema with its defaults as a converter writes them, ready to be dumped."""

    def inner(of: Schema | None) -> Schema | None:
        return None if of is None else _written(of, replace_null, numeric)

    default = schema.default
    nested = schema.type in ("struct", "array", "map")
    if default is not None and (nested or (numeric and schema.name == DECIMAL)):
        write = plan_writer(schema, replace_null=replace_null, numeric=numeric)
        default = write(schema.default_value)
    return replace(
        schema,
        default=default,
        fields=tuple(
            Field(f.name, _written(f.schema, replace_null, numeric)) for f in schema.fields
        ),
        items=inner(schema.items),
        keys=inner(schema.keys),
        values=inner(schema.values),
    )
