"""HeaderFrom: fields moved or copied into headers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from cdc.config import REQUIRED, Config, ConfigDef, Key, Kind
from cdc.record import Header, Record
from cdc.transforms import options
from cdc.transforms.base import (
    PLANS_MAX,
    Run,
    StructTransform,
    Values,
    fields_of,
    picker,
    rebuilt,
    require_map,
    require_struct,
    settler,
)
from cdc.transforms.errors import NullPointer
from schemas import DataError, Schema, Struct
from schemas.java import schema_text

MOVE, COPY = "move", "copy"
_NO_FIELD = (
    'Cannot invoke "org.apache.kafka.connect.data.Field.schema()" because the return value of '
    '"org.apache.kafka.connect.data.Schema.field(String)" is null'
)


class _Read(NamedTuple):
    """A header's name, the position of its field, and that one's default and schema."""

    name: str
    at: int
    default: Any
    schema: Schema | None


def _check(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    fields, headers = values["fields"], values["headers"]
    if fields is not None and headers is not None and len(fields) != len(headers):
        yield (
            "fields",
            "'fields' config must have the same number of elements as 'headers' config.",
        )


def _list(name: str, doc: str) -> Key:
    return Key(name, Kind.LIST, REQUIRED, doc, importance="HIGH")


class HeaderFrom(StructTransform):
    """Each field's value becomes a header under the field's schema; null is refused."""

    CONFIG = ConfigDef(
        (
            _list("fields", "Field names in the record whose values become headers."),
            _list("headers", "Header names, in the same order as the field names."),
            Key(
                "operation",
                Kind.STRING,
                REQUIRED,
                "Either move, if the fields are to be removed from the key or value, or copy.",
                importance="HIGH",
                validator=options.one_of(MOVE, COPY),
                may_be_empty=True,
            ),
            options.replace_null(),
        ),
        checks=(options.non_empty_list("fields"), options.non_empty_list("headers"), _check),
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._fields: tuple[str, ...] = config["fields"]
        self._headers: tuple[str, ...] = config["headers"]
        self._move = config["operation"] == MOVE
        self._purpose = f"header {config['operation']}"
        self._defaults: bool = config[options.REPLACE_NULL]
        self._readers: dict[int, tuple[Schema, list[_Read]]] = {}

    def apply(self, record: Record) -> Record:
        """The record with the headers."""
        schema, value = self.part(record)
        if schema is None:
            found, headers = self._from_map(require_map(value, self._purpose))
        else:
            struct = require_struct(value, schema, self._purpose)
            schema, found = self._moved(schema, struct)
            headers = self._from_struct(struct)
        record = replace(record, headers=(*record.headers, *headers))
        return self.replaced(record, schema, found)

    def _moved(self, schema: Schema, value: Struct) -> tuple[Schema, Any]:
        if not self._move:
            return schema, value
        _, changed, run = self.plan_of(schema)
        return changed, Struct(changed, run(value.values))

    def plan(self, schema: Schema) -> tuple[Schema, Run]:
        """The struct without the fields that are moved."""
        gone = set(self._fields)
        kept = [(n, f) for n, f in enumerate(fields_of(schema)) if f.name not in gone]
        fields = [field for _, field in kept]
        pick = picker([index for index, _ in kept])
        settle = settler(fields, defaults=self._defaults)

        def run(values: Values) -> Values:
            found = pick(values)
            settle(found)
            return found

        return rebuilt(schema, fields), run

    def _from_struct(self, value: Struct) -> list[Header]:
        schema = value.schema
        found = self._readers.get(id(schema))
        if found is None:
            if len(self._readers) >= PLANS_MAX:
                del self._readers[next(iter(self._readers))]
            found = self._readers[id(schema)] = (schema, self._reader(schema))
        headers, values = [], value.values
        for name, index, default, of in found[1]:
            if of is None:
                raise NullPointer(_NO_FIELD)
            plain = default if values[index] is None else values[index]
            if plain is None and not of.optional:
                shown = schema_text(of)
                raise DataError(f"A null value requires an optional schema but was {shown}")
            headers.append(Header(name, plain, of))
        return headers

    def _reader(self, schema: Schema) -> list[_Read]:
        """How to read each header; without a schema where the struct has no such field."""
        found: list[_Read] = []
        for name, header in zip(self._fields, self._headers, strict=True):
            index = schema.field_index.get(name)
            if index is None:
                found.append(_Read(header, 0, None, None))
            else:
                of = schema.fields[index].schema
                default = of.default_value if self._defaults else None
                found.append(_Read(header, index, default, of))
        return found

    def _from_map(self, value: dict[str, Any]) -> tuple[dict[str, Any], list[Header]]:
        pairs = zip(self._fields, self._headers, strict=True)
        headers = [Header(header, value.get(name), None) for name, header in pairs]
        gone = set(self._fields) if self._move else set()
        return {k: v for k, v in value.items() if k not in gone}, headers

    def convert_map(self, value: dict[str, Any]) -> dict[str, Any]:
        """The map without the entries that are moved."""
        return self._from_map(value)[0]


class HeaderFromKey(HeaderFrom):
    """Of the key."""

    is_key = True


class HeaderFromValue(HeaderFrom):
    """Of the value."""
