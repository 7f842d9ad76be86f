"""What the transforms of a record's key or value have in common.

A plan is made once per schema that arrives: the new schema, and a function over the list of
a struct's values. A record costs its plan's run. Connect keeps 16 plans; here there are enough
for a database of many tables, since a plan costs many times what a record does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple

from cdc.record import Record
from schemas import DataError, Field, Schema, SchemaBuilderError, Struct
from schemas.java import class_name
from schemas.model import type_name

PLANS_MAX = 1000

Values = list[Any]
Run = Callable[[Values], Values]
Convert = Callable[[Any], Any]


class Plan(NamedTuple):
    """What becomes of structs of schema ``source``."""

    source: Schema
    schema: Schema
    run: Run


class PartTransform(ABC):
    """A transform of a record's value, or of its key where ``is_key``."""

    is_key: ClassVar[bool] = False
    PURPOSE: ClassVar[str] = ""

    def apply(self, record: Record) -> Record | None:
        """The record with its key or value converted."""
        if self.is_key:
            return with_key(record, *self.convert(record.key_schema, record.key))
        return with_value(record, *self.convert(record.value_schema, record.value))

    def part(self, record: Record) -> tuple[Schema | None, Any]:
        """The schema and the value that this transform is about."""
        if self.is_key:
            return record.key_schema, record.key
        return record.value_schema, record.value

    def replaced(self, record: Record, schema: Schema | None, value: Any) -> Record:
        """The record with another key or value."""
        return (with_key if self.is_key else with_value)(record, schema, value)

    @abstractmethod
    def convert(self, schema: Schema | None, value: Any) -> tuple[Schema | None, Any]:
        """The new schema and value."""


class StructTransform(PartTransform):
    """A transform of structs, and of maps where there is no schema; null passes as it is."""

    def __init__(self) -> None:
        self._plans: dict[int, Plan] = {}

    def convert(self, schema: Schema | None, value: Any) -> tuple[Schema | None, Any]:
        """The struct by its schema's plan, the map by itself."""
        if value is None:
            return schema, None
        if schema is None:
            return None, self.convert_map(require_map(value, self.PURPOSE))
        if type(value) is not Struct:
            require_struct(value, schema, self.PURPOSE)
        _, changed, run = self._plans.get(id(schema)) or self.plan_of(schema)
        return changed, Struct(changed, run(value.values))

    def plan_of(self, schema: Schema) -> Plan:
        """The plan of a schema, made where there is none yet."""
        found = self._plans.get(id(schema))
        if found is None:
            found = Plan(schema, *self.plan(schema))
            if len(self._plans) >= PLANS_MAX:
                del self._plans[next(iter(self._plans))]
            self._plans[id(schema)] = found  # which keeps the schema, so that its id stays its own
        return found

    @abstractmethod
    def plan(self, schema: Schema) -> tuple[Schema, Run]:
        """The new schema of a struct schema, and how values get there."""

    @abstractmethod
    def convert_map(self, value: dict[str, Any]) -> dict[str, Any]:
        """The new map; the given one stays as it is."""


def with_key(record: Record, schema: Schema | None, key: Any) -> Record:
    """The record with another key."""
    return Record(
        record.topic, record.partition, schema, key, record.value_schema, record.value,
        record.timestamp, record.headers, record.offset,
    )  # fmt: skip


def with_value(record: Record, schema: Schema | None, value: Any) -> Record:
    """The record with another value."""
    return Record(
        record.topic, record.partition, record.key_schema, record.key, schema, value,
        record.timestamp, record.headers, record.offset,
    )  # fmt: skip


def require_map(value: Any, purpose: str) -> dict[str, Any]:
    """The value, which must be a map. Raises DataError."""
    if not isinstance(value, dict):
        raise DataError(
            f"Only Map objects supported in absence of schema for [{purpose}], "
            f"found: {class_name(value)}"
        )
    return value


def require_struct(value: Any, schema: Schema | None, purpose: str) -> Struct:
    """The value, which must be a struct. Raises DataError."""
    if not isinstance(value, Struct):
        found = class_name(value, schema)
        raise DataError(f"Only Struct objects supported for [{purpose}], found: {found}")
    return value


def fields_of(schema: Schema) -> tuple[Field, ...]:
    """A struct schema's fields. Raises DataError for any other."""
    if schema.type != "struct":
        raise DataError("Cannot list fields on non-struct type")
    return schema.fields


def field_of(schema: Schema, name: str) -> Field | None:
    """A struct schema's field, if there is one. Raises DataError for any other schema."""
    if schema.type != "struct":
        raise DataError("Cannot look up fields on non-struct type")
    index = schema.field_index.get(name)
    return None if index is None else schema.fields[index]


def rebuilt(source: Schema, fields: Iterable[Field]) -> Schema:
    """A struct with other fields: it keeps name, version, doc and parameters, no more.

    Raises SchemaBuilderError for a field name that is empty or there twice.
    """
    return replace(source, fields=checked(fields), optional=False, default=None)


def checked(fields: Iterable[Field]) -> tuple[Field, ...]:
    """The fields, if a struct can have them. Raises SchemaBuilderError."""
    found: dict[str, Field] = {}
    for field in fields:
        if not field.name:
            raise SchemaBuilderError("fieldName cannot be null.")
        if field.name in found:
            raise SchemaBuilderError(
                f"Cannot create field because of field name duplication {field.name}"
            )
        found[field.name] = field
    return tuple(found.values())


def settler(
    fields: Sequence[Field], *, defaults: bool, into: Sequence[Field] | None = None
) -> Callable[[Values], None]:
    """Puts values into fields, as ``Struct.put`` would: in place, in their order.

    With ``defaults`` a null becomes the field's default. Raises DataError for a null that a
    field does not take: of those that the values go ``into``, where these are others.
    """
    filling = [f.schema.default_value if defaults else None for f in fields]
    refusing = [None if f.schema.optional else null_text(f.name, f.schema) for f in into or fields]
    special = [
        (index, default, text)
        for index, (default, text) in enumerate(zip(filling, refusing, strict=True))
        if default is not None or text is not None
    ]
    if not special:
        return _as_it_is

    def settle(values: Values) -> None:
        if None not in values:
            return
        for index, default, text in special:
            if values[index] is None:
                if default is None:
                    raise DataError(text)
                values[index] = default

    return settle


def converting(
    fields: Sequence[Field],
    into: Sequence[Field],
    conversions: Mapping[int, Convert],
    *,
    defaults: bool,
) -> Run:
    """The run of a plan that converts some of the fields, by position; nulls stay null."""
    settle = settler(fields, defaults=defaults, into=into)
    planned = list(conversions.items())

    def run(values: Values) -> Values:
        found = values.copy()
        try:
            settle(found)
            for index, convert in planned:
                value = found[index]
                if value is not None:
                    found[index] = convert(value)
        except ValueError:
            refuse_first(values, fields, into, conversions, defaults=defaults)
            raise
        return found

    return run


def refuse_first(
    values: Values,
    fields: Sequence[Field],
    into: Sequence[Field],
    conversions: Mapping[int, Convert],
    *,
    defaults: bool,
) -> None:
    """Raises what Connect would for values with several faults: that of the first field."""
    for index, (value, field, target) in enumerate(zip(values, fields, into, strict=False)):
        read = field.schema.default_value if value is None and defaults else value
        if read is not None and index in conversions:
            conversions[index](read)
        elif read is None and not target.schema.optional:
            raise DataError(null_text(target.name, target.schema))


def _as_it_is(_: Values) -> None:
    """No field has a default, and none is required."""


def null_text(name: str, schema: Schema) -> str:
    """The text of the error for a null in a required field."""
    return (
        f'Invalid value: null used for required field: "{name}", schema type: {type_name(schema)}'
    )


def picker(indices: Sequence[int]) -> Callable[[Values], Values]:
    """Takes the values at ``indices`` into a list of their own."""
    if len(indices) < 2:
        return lambda values: [values[index] for index in indices]
    pick = itemgetter(*indices)
    return lambda values: list(pick(values))
