"""RowImages: what record rows mean to a sink that writes rows, not records.

A chain of transforms leaves records of any shape. A copy, an index or an audit log wants what
a table's rows have: a key, an image before and after, the struct these follow. This is the one
place that finds them, as Connect's sinks understand records:

* a value that is Debezium's envelope still (a struct with the fields ``before``, ``after`` and
  ``op``, whatever else a transform has put beside them) holds its images;
* any other struct is the row after the change: an upsert by the record's key;
* a null value is a delete by the record's key; after the delete's own record it says nothing
  new, and neither does one without a key: both are left out;
* a value that is no struct has no columns: that record is refused, with Connect's text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from cdc.block import DELETE, MESSAGE, TRUNCATE, UPDATE, Block, Derived, Fragment, NewRow
from cdc.errors import SinkRejected
from schemas import EventSchema, Schema

SHAPES_MAX: Final = 1000  # how many schemas are remembered


@dataclass(frozen=True, slots=True)
class _Shape:
    """How the rows of one record schema are read. ``image``: the member that holds the row."""

    schema: EventSchema
    enveloped: bool = False
    member: str = ""


class RowImages:
    """Turns record rows into table rows; blocks without any pass untouched."""

    def __init__(self, refuse: Callable[[Block, int, SinkRejected], None] | None = None) -> None:
        """``refuse`` is told of each record without columns; not given, the error is raised."""
        self._refuse = refuse
        self._shapes: dict[tuple[str, bool], _Shape | None] = {}
        self._tables: dict[str, EventSchema] = {}  # topic → the newest schema of its rows

    def apply(self, block: Block) -> Block | None:
        """The block as rows of tables; None when nothing is left of it."""
        if all(schema.kind != "record" for schema in block.schemas):
            return block
        out, previous = Derived(block), -1
        for row, index in enumerate(block.schema):
            schema = block.schemas[index]
            if schema.kind != "record":
                out.keep(row, out.schema(schema))
            elif not _says_nothing(block, previous, row):
                found = self.table_row(block, row)
                if found is None:
                    self._refuse_row(block, row, schema)
                else:
                    out.add(row, out.schema(found[0]), found[1])
            previous = row
        return out.block()

    def table_row(self, block: Block, row: int) -> tuple[EventSchema, NewRow] | None:
        """A record row as a table's row, with that table's schema; None: it has no columns.

        A tombstone is a delete here: whether it says anything new, its neighbours tell.
        """
        schema = block.schemas[block.schema[row]]
        op, key, value = block.op[row], block.keys[row], block.afters[row]
        if value is None:
            return self._deleted(schema), NewRow(DELETE, key, None, None, (), block.moved.get(row))
        shape = self._shape(schema, op == MESSAGE)
        if shape is None:
            return None
        before: Fragment = None
        after: Fragment = value
        if shape.enveloped:
            members: dict[str, Any] = orjson.loads(value)
            before, after = _text(members.get("before")), _text(members.get("after"))
        elif shape.member:
            after = _text(orjson.loads(value).get(shape.member))
        elif op in (DELETE, TRUNCATE):
            op = UPDATE  # a flat record that has a value is that row's state, as for every sink
        unchanged, moved = block.unchanged.get(row, ()), block.moved.get(row)
        return shape.schema, NewRow(op, key, before, after, unchanged, moved)

    def _refuse_row(self, block: Block, row: int, schema: EventSchema) -> None:
        error = _no_struct(block, row, schema)
        if self._refuse is None:
            raise error
        self._refuse(block, row, error)

    def _shape(self, schema: EventSchema, message: bool) -> _Shape | None:
        cached = (schema.fingerprint, message)
        if cached not in self._shapes:
            if len(self._shapes) >= SHAPES_MAX:
                self._shapes.clear()
            self._shapes[cached] = _shape_of(schema, message)
        shape = self._shapes[cached]
        if shape is not None and not message:
            self._tables[schema.topic] = shape.schema
        return shape

    def _deleted(self, schema: EventSchema) -> EventSchema:
        """A delete has no value: what its table looks like was said by the record before."""
        known = self._tables.get(schema.topic)
        if known is not None and known.key == schema.key:
            return known
        return _of_deletes(schema)


def image_schema(value: Schema | None) -> Schema | None:
    """The struct of a record value's row: its envelope's ``after``, or itself; None: no struct."""
    if value is None or value.type != "struct":
        return None
    if not is_envelope(value):
        return value
    return value.fields[value.field_index["after"]].schema


def is_envelope(value: Schema) -> bool:
    """Whether a struct is Debezium's envelope, whatever a transform has put beside its fields."""
    index = value.field_index
    if not {"before", "after", "op"} <= index.keys():
        return False
    return all(value.fields[index[name]].schema.type == "struct" for name in ("before", "after"))


def table_schema(schema: EventSchema) -> EventSchema | None:
    """What a record's rows look like as a table's; None: its values have no columns."""
    if schema.kind != "record":
        return schema
    if schema.value is None:
        return _of_deletes(schema)
    shape = _shape_of(schema, message=False)
    return None if shape is None else shape.schema


def _of_deletes(schema: EventSchema) -> EventSchema:
    key = schema.key
    row = key.as_optional() if key is not None and key.type == "struct" else Schema("struct")
    return replace(schema, kind="table", row=row, value=None)


def _shape_of(schema: EventSchema, message: bool) -> _Shape | None:
    value = schema.value
    row = image_schema(value)
    if value is None or row is None:
        return None
    if message:
        index = value.field_index
        member = "message" if {"op", "message"} <= index.keys() else ""
        own = value.fields[index["message"]].schema if member else value
        return _Shape(replace(schema, kind="message", row=own, value=None), member=member)
    return _Shape(replace(schema, kind="table", row=row, value=None), is_envelope(value))


def _says_nothing(block: Block, previous: int, row: int) -> bool:
    """Whether a null value has no key, or the record before is of the same change and key."""
    if block.afters[row] is not None or block.keys[row] is None:
        return block.afters[row] is None
    return (
        previous >= 0
        and block.op[previous] == DELETE
        and block.keys[previous] == block.keys[row]
        and block.lsn[previous] == block.lsn[row]
        and block.ordinal[previous] == block.ordinal[row]
        and block.transaction[previous] == block.transaction[row]
    )


def _text(member: Any) -> Fragment:
    return None if member is None else orjson.dumps(member)


def _no_struct(block: Block, row: int, schema: EventSchema) -> SinkRejected:
    offset = block.offsets[row] if block.offsets else -1
    kind = "null" if schema.value is None else schema.value.type.upper()
    return SinkRejected(
        "the sink requires records with a non-null Struct value and non-null Struct schema, but"
        f" found record at (topic='{schema.destination}',partition=0,offset={offset},"
        f"timestamp={block.created_us // 1000}) with {kind} value schema",
        remedy="Let the last transform leave a struct (HoistField$Value makes one), or set"
        " errors.tolerance=all to leave such records out",
    )
