"""Kafka Connect's schema model: :class:`Schema` and :class:`Field`, and their JSON form.

The JSON form is the one Connect's ``JsonConverter`` writes with ``schemas.enable=true``:
member order ``type``, ``fields``/``items``/``keys``+``values``, ``optional``, ``name``,
``version``, ``doc``, ``parameters``, ``default``, and ``field`` last for struct members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import orjson

# Connect's type names as JsonConverter spells them (float, double: not float32, float64).
TYPES = frozenset(
    "boolean int8 int16 int32 int64 float double string bytes struct array map".split()
)
CONNECT = "org.apache.kafka.connect.data."
# Connect's logical types: a name over a base type.
DECIMAL, DATE, TIME, TIMESTAMP = (
    CONNECT + name for name in ("Decimal", "Date", "Time", "Timestamp")
)


HIDDEN = "[hidden]"  # as Connect shows a password


class DataError(ValueError):
    """A value that its schema does not allow: Connect's DataException, with its text.

    ``shape`` is the text without the values of rows that stand in it; None: none do.
    """

    shape: str | None = None

    @classmethod
    def quoting(cls, text: str, *values: str, **names: object) -> Self:
        """A text with ``{}`` for each value of the row, and ``{name}`` for all else."""
        error = cls(text.format(*values, **names))
        error.shape = text.format(*[HIDDEN] * len(values), **names)
        return error


class SchemaError(DataError):
    """A schema that Kafka Connect would not accept."""


class SchemaBuilderError(SchemaError):
    """What Connect's SchemaBuilder refuses to build: its SchemaBuilderException."""


@dataclass(frozen=True)
class Schema:
    """One type. ``default`` is held in converted form: what stands in JSON (base64, days, …).

    An array or a map has no schema of its elements where those of a literal have nothing in
    common (see :mod:`schemas.literals`).
    """

    type: str
    optional: bool = False
    name: str | None = None
    version: int | None = None
    doc: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    default: Any = None
    fields: tuple[Field, ...] = ()
    items: Schema | None = None
    keys: Schema | None = None
    values: Schema | None = None

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise SchemaError(f"Unknown schema type: {self.type}")
        if self.fields and ("" in self.field_index or len(self.field_index) < len(self.fields)):
            raise SchemaBuilderError(_unfit(self.fields))

    def as_optional(self, optional: bool = True) -> Schema:
        """The same schema with another optionality."""
        return self if self.optional == optional else replace(self, optional=optional)

    @cached_property
    def field_index(self) -> dict[str, int]:
        """Name → position of a struct's fields."""
        return {f.name: i for i, f in enumerate(self.fields)}

    @cached_property
    def default_value(self) -> Any:
        """The default as a Connect value (see :mod:`schemas.struct`); None: there is none."""
        from schemas.codec import loader  # which needs this module

        load = None if self.default is None else loader(self)
        return self.default if load is None else load(self.default)

    def to_dict(self, field_name: str | None = None) -> dict[str, Any]:
        """Connect's JSON form, as a dict in Connect's member order."""
        out: dict[str, Any] = {"type": self.type}
        if self.type == "struct":
            out["fields"] = [f.schema.to_dict(f.name) for f in self.fields]
        elements = {"array": ("items",), "map": ("keys", "values")}.get(self.type, ())
        for member in elements:
            of: Schema | None = getattr(self, member)
            out[member] = None if of is None else of.to_dict()
        out["optional"] = self.optional
        for member in ("name", "version", "doc"):
            if getattr(self, member) is not None:
                out[member] = getattr(self, member)
        if self.parameters:
            out["parameters"] = dict(self.parameters)
        if self.default is not None:
            out["default"] = self.default
        if field_name is not None:
            out["field"] = field_name
        return out

    def to_json(self) -> bytes:
        """Compact JSON of :meth:`to_dict`."""
        return orjson.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Schema:
        """The inverse of :meth:`to_dict`. Raises SchemaError."""
        if "type" not in raw:
            raise SchemaError("Schema must contain 'type' field")
        return cls(
            type=raw["type"],
            optional=bool(raw.get("optional", False)),
            name=raw.get("name"),
            version=raw.get("version"),
            doc=raw.get("doc"),
            parameters=dict(raw.get("parameters", {})),
            default=raw.get("default"),
            fields=tuple(Field(f["field"], cls.from_dict(f)) for f in raw.get("fields", ())),
            items=cls.from_dict(raw["items"]) if raw.get("items") else None,
            keys=cls.from_dict(raw["keys"]) if raw.get("keys") else None,
            values=cls.from_dict(raw["values"]) if raw.get("values") else None,
        )


def type_name(schema: Schema) -> str:
    """A schema's type as Connect's errors write it: ``INT32``, ``FLOAT32``."""
    return {"float": "FLOAT32", "double": "FLOAT64"}.get(schema.type, schema.type.upper())


def _unfit(fields: tuple[Field, ...]) -> str:
    """Connect's text for the first field that a struct cannot have."""
    seen: set[str] = set()
    for name in (f.name for f in fields):
        if not name:
            return "fieldName cannot be null."
        if name in seen:
            return f"Cannot create field because of field name duplication {name}"
        seen.add(name)
    raise AssertionError("every field fits")


@dataclass(frozen=True)
class Field:
    """A named member of a struct."""

    name: str
    schema: Schema
