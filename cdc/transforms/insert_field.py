"""InsertField: fields of the record's own attributes, or of a fixed text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from cdc.config import Config, ConfigDef
from cdc.record import Record
from cdc.transforms import options
from cdc.transforms.base import (
    Run,
    StructTransform,
    Values,
    rebuilt,
    require_map,
    require_struct,
    settler,
)
from schemas import DataError, Field, Moment, Schema, Struct
from schemas.model import TIMESTAMP

Read = Callable[[Record], Any]

_OPTIONALITY = "A suffix ! makes the field required, a suffix ? optional (the default)."


def _offset(record: Record) -> int:
    if record.offset < 0:
        raise DataError(
            "Only SinkRecord supported for [field insertion], "
            "found: org.apache.kafka.connect.source.SourceRecord"
        )
    return record.offset


def _moment(record: Record) -> Moment | None:
    return None if record.timestamp is None else Moment(record.timestamp)


class Insertion(NamedTuple):
    """One field to insert: what it is called, what it is, and how a record gives it."""

    name: str
    schema: Schema
    read: Read
    read_plain: Read


# Option → (schema, value with a schema, value without one), in the order of insertion.
_SOURCES: Mapping[str, tuple[Schema, Read, Read]] = {
    "topic.field": (Schema("string"), lambda r: r.topic, lambda r: r.topic),
    "partition.field": (Schema("int32"), lambda r: r.partition, lambda r: r.partition),
    "offset.field": (Schema("int64"), _offset, _offset),
    "timestamp.field": (
        Schema("int64", name=TIMESTAMP, version=1),
        _moment,
        lambda r: r.timestamp,
    ),
}


def _check(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if all(values[name] is None for name in (*_SOURCES, "static.field")):
        yield "topic.field", "No field insertion configured"
    elif values["static.field"] is not None and values["static.value"] is None:
        name, optional = _spec(values["static.field"])
        shown = f"InsertionSpec{{name='{name}', optional={str(optional).lower()}}}"
        reason = f"No value specified for static field: {shown}"
        yield "static.value", f"Invalid value null for configuration static.value: {reason}"


def _spec(text: str) -> tuple[str, bool]:
    """The name, and whether the field is optional."""
    return (text[:-1], text[-1] == "?") if text.endswith(("?", "!")) else (text, True)


class InsertField(StructTransform):
    """Appends the fields, in a fixed order."""

    PURPOSE = "field insertion"
    CONFIG = ConfigDef(
        (
            options.text("topic.field", f"Field name for the topic. {_OPTIONALITY}", default=None),
            options.text(
                "partition.field", f"Field name for the partition. {_OPTIONALITY}", default=None
            ),
            options.text(
                "offset.field",
                f"Field name for the offset: in sinks only. {_OPTIONALITY}",
                default=None,
            ),
            options.text(
                "timestamp.field",
                f"Field name for the record's timestamp. {_OPTIONALITY}",
                default=None,
            ),
            options.text(
                "static.field", f"Field name for static data. {_OPTIONALITY}", default=None
            ),
            options.text(
                "static.value", "Static field value, if a field name is configured.", default=None
            ),
            options.replace_null(),
        ),
        checks=(_check,),
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        static = config["static.value"]
        sources = {
            **_SOURCES,
            "static.field": (Schema("string"), lambda _: static, lambda _: static),
        }
        self._insertions: list[Insertion] = []
        for option, (schema, read, plain) in sources.items():
            if config[option] is not None:
                name, optional = _spec(config[option])
                insertion = Insertion(name, schema.as_optional(optional), read, plain)
                self._insertions.append(insertion)
        self._defaults: bool = config[options.REPLACE_NULL]

    def plan(self, schema: Schema) -> tuple[Schema, Run]:
        """The fields, and the inserted ones after them."""
        inserted = [Field(i.name, i.schema) for i in self._insertions]
        changed = rebuilt(schema, (*schema.fields, *inserted))
        settle = settler(schema.fields, defaults=self._defaults)

        def run(values: Values) -> Values:
            found = values.copy()
            settle(found)
            return found

        return changed, run

    def apply(self, record: Record) -> Record:
        """The record with the fields; nothing where it has nothing, not refused even by "!"."""
        schema, value = self.part(record)
        if value is None:
            return record
        if schema is None:
            found = self.convert_map(require_map(value, self.PURPOSE))
            for insertion in self._insertions:
                plain = insertion.read_plain(record)
                if plain is not None:
                    found[insertion.name] = plain
            return self.replaced(record, None, found)
        struct = require_struct(value, schema, self.PURPOSE)
        _, changed, run = self.plan_of(schema)
        values = run(struct.values)
        values += [insertion.read(record) for insertion in self._insertions]
        return self.replaced(record, changed, Struct(changed, values))

    def convert_map(self, value: dict[str, Any]) -> dict[str, Any]:
        """A map that entries can be added to."""
        return value.copy()


class InsertFieldKey(InsertField):
    """Of the key."""

    is_key = True


class InsertFieldValue(InsertField):
    """Of the value."""
