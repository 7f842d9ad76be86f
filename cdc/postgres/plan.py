"""RelationPlan: how the rows of one relation become JSON fragments. No I/O.

A plan is made once per RELATION message (or per snapshotted table) and run per row. What
is known per table, that is column order, JSON names, which columns are in the key, which
can be NULL, is written out as straight-line Python and compiled once: the loop over columns
and its decisions are gone from the hot path (ten columns: 1.9 µs instead of 3.4).

The two functions of a plan answer the same question over two wire forms:

``image(buf, p)``    a pgoutput TupleData at ``p`` → (key, row, unsent field indices, end)
``line(values)``     the fields of one COPY text line → (key, row)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import orjson

from cdc.errors import DecodeError
from cdc.postgres.scalars import quoted
from cdc.postgres.values import ColumnPlan
from schemas import EventSchema

Unsent = tuple[int, ...]
Image = Callable[[bytes, int], tuple[bytes | None, bytes, Unsent, int]]
Line = Callable[[Sequence[bytes]], tuple[bytes | None, bytes]]

# TupleData's column kinds (protocol documentation, "Logical Replication Message Formats").
TEXT, NULL, UNCHANGED = b"tnu"
# kind and length of a text column; a buffer is padded by PAD so that this never overruns
_kind_and_length = struct.Struct(">BI").unpack_from
PAD = b"\x00\x00\x00\x00"

_COPY_NULL = b"\\N"


@dataclass(frozen=True, eq=False)
class RelationPlan:
    """One relation's compiled plan. ``fields`` has an entry per column on the wire."""

    schema: EventSchema
    fields: tuple[WireColumn, ...]
    image: Image
    line: Line

    @cached_property
    def safe(self) -> RelationPlan:
        """The same plan by loaders that deal with what a schema cannot hold.

        Slower; for the row on which a plain loader failed. Raises RecordError.
        """
        fields = []
        for column in self.fields:
            plan = column.plan
            if plan is not None and plan.load is not None:
                plan = replace(plan, load=plan.recover)
            fields.append(replace(column, plan=plan))
        return build_plan(self.schema, fields)


@dataclass(frozen=True)
class WireColumn:
    """A column as it comes over the wire: its plan (None: type not mapped) and its uses.

    ``name`` is that of its field.
    """

    name: str
    plan: ColumnPlan | None
    in_value: bool


def build_plan(schema: EventSchema, fields: Sequence[WireColumn]) -> RelationPlan:
    """Compile the plan. ``fields`` are in wire order; the schema says what goes where."""
    source = _Source(schema, fields)
    namespace: dict[str, Any] = dict(source.names)
    exec(compile(source.text(), f"<plan of {schema.topic}>", "exec"), namespace)  # noqa: S102
    return RelationPlan(schema, tuple(fields), namespace["image"], namespace["line"])


def raw_tuple(buf: bytes, p: int) -> tuple[list[bytes | int | None], int]:
    """A TupleData's columns unrendered: bytes, None for NULL, UNCHANGED for unsent.

    For the rare path that looks at values: filling in unsent ones.
    """
    (count,) = struct.unpack_from(">H", buf, p)
    p += 2
    out: list[bytes | int | None] = []
    for _ in range(count):
        kind, length = _kind_and_length(buf, p)
        if kind == TEXT:
            out.append(buf[p + 5 : p + 5 + length])
            p += 5 + length
        elif kind in (NULL, UNCHANGED):
            out.append(None if kind == NULL else UNCHANGED)
            p += 1
        else:
            raise bad_kind(kind)
    return out, p


def packed_tuple(values: Sequence[bytes | int | None]) -> bytes:
    """The inverse of :func:`raw_tuple`."""
    parts = [struct.pack(">H", len(values))]
    for value in values:
        if isinstance(value, bytes):
            parts.append(struct.pack(">BI", TEXT, len(value)) + value)
        else:
            parts.append(b"n" if value is None else b"u")
    return b"".join(parts)


def bad_kind(kind: int) -> DecodeError:
    """The error for a column kind that text mode never sends."""
    return DecodeError(f"tuple column of kind 0x{kind:02x}: expected t, n or u")


def bad_count(found: int, expected: int) -> DecodeError:
    """The error for a tuple that is not of its relation."""
    return DecodeError(f"tuple of {found} columns for a relation of {expected}")


_UNESCAPES = {
    b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v",
}  # fmt: skip


def unescape(field: bytes) -> bytes:
    """A COPY text field without its backslash escapes (COPY, "Text Format")."""
    if b"\\" not in field:
        return field
    head, *rest = field.split(b"\\")
    out = [head]
    pieces = iter(rest)
    for piece in pieces:
        if piece:
            out.append(_UNESCAPES.get(piece[:1], piece[:1]) + piece[1:])
        else:  # an escaped backslash: what follows it is literal
            out.append(b"\\" + next(pieces, b""))
    return b"".join(out)


class _Source:
    """The Python text of one plan's two functions."""

    def __init__(self, schema: EventSchema, fields: Sequence[WireColumn]) -> None:
        self.schema, self.fields = schema, fields
        key = set(schema.key_names)
        self.used = [
            i for i, f in enumerate(fields) if f.plan is not None and (f.in_value or f.name in key)
        ]
        self.index = {fields[i].name: i for i in self.used}
        self.value = [i for i in self.used if fields[i].in_value]
        self.names: dict[str, Any] = {
            "kl": _kind_and_length,
            "bad_kind": bad_kind,
            "bad_count": bad_count,
            "unescape": unescape,
            "dumps": orjson.dumps,
        }
        for i in self.used:
            plan = fields[i].plan
            if plan is not None and plan.load is not None:
                self.names[f"load{i}"] = plan.load

    def text(self) -> str:
        return "\n".join([*self._image(), *self._line(), ""])

    def _image(self) -> list[str]:
        count = len(self.fields)
        out = [
            "def image(buf, p):",
            f"    if buf[p] << 8 | buf[p + 1] != {count}:",
            f"        raise bad_count(buf[p] << 8 | buf[p + 1], {count})",
            "    p += 2",
            "    unsent = ()",
        ]
        for i, column in enumerate(self.fields):
            out += self._wire_column(i, column)
        return [*out, f"    return {self._key()}, {self._row()}, unsent, p"]

    def _wire_column(self, i: int, column: WireColumn) -> list[str]:
        if i not in self.used:
            return [
                "    k, n = kl(buf, p)",
                f"    p += 5 + n if k == {TEXT} else 1",
                f"    if k not in ({TEXT}, {NULL}, {UNCHANGED}): raise bad_kind(k)",
            ]
        plan = column.plan
        assert plan is not None
        value = _load(plan, i, "buf[p:p + n]")
        mark = f"; unsent += ({self.value.index(i)},)" if column.in_value else ""
        return [
            "    k, n = kl(buf, p)",
            f"    if k == {TEXT}:",
            "        p += 5",
            f"        c{i} = {value}",
            "        p += n",
            f"    elif k == {NULL}:",
            f"        c{i} = {_null(plan)!r}; p += 1",
            f"    elif k == {UNCHANGED}:",
            f"        c{i} = {plan.unavailable!r}; p += 1{mark}",
            "    else:",
            "        raise bad_kind(k)",
        ]

    def _line(self) -> list[str]:
        names = ", ".join(f"c{i}" for i in range(len(self.fields)))
        out = ["def line(values):"]
        if names:
            out.append(f"    {names}, = values")
        for i in self.used:
            plan = self.fields[i].plan
            assert plan is not None
            loaded = f"c{i}"
            if plan.load is not None:
                loaded = _load(plan, i, f"(c{i} if b'\\\\' not in c{i} else unescape(c{i}))")
            if plan.schema.optional:
                out.append(f"    c{i} = b'null' if c{i} == {_COPY_NULL!r} else {loaded}")
            elif plan.load is not None:
                # a view's or a foreign table's NOT NULL is a promise nobody keeps
                null = _null(plan)
                out.append(f"    c{i} = {null!r} if c{i} == {_COPY_NULL!r} else {loaded}")
        return [*out, f"    return {self._key()}, {self._row()}"]

    def _key(self) -> str:
        names = [n for n in self.schema.key_names if n in self.index]
        return _object([(n, self.index[n]) for n in names]) if names else "None"

    def _row(self) -> str:
        return _object([(self.fields[i].name, i) for i in self.value])


def _load(plan: ColumnPlan, i: int, text: str) -> str:
    """The expression that turns a column's text into its fragment."""
    if plan.load is None:
        return text
    if plan.load is quoted:  # the commonest loader, without the call
        return f"dumps({text}.decode())"
    return f"load{i}({text})"


def _null(plan: ColumnPlan) -> bytes:
    """What SQL NULL becomes: null, or the fallback where the schema allows none."""
    return b"null" if plan.schema.optional else plan.fallback


def _object(members: Sequence[tuple[str, int]]) -> str:
    """An expression that joins columns to a JSON object."""
    parts: list[str] = []
    for n, (name, i) in enumerate(members):
        lead = (b"{" if n == 0 else b",") + orjson.dumps(name) + b":"
        parts += [repr(lead), f"c{i}"]
    if not parts:
        return "b'{}'"
    return f"b''.join(({', '.join(parts)}, b'}}'))"
