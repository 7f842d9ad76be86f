"""Connect values: what a Schema's value is in Python, and the rules of Connect's ``Struct``.

========================  ==========================================================
Schema                    value
========================  ==========================================================
int8 … int64              int, within the width
float, double             float (a ``float`` is rounded to single precision)
boolean, string, bytes    bool, str, bytes
array, map                list, dict
struct                    :class:`Struct`
Decimal (logical)         decimal.Decimal, of exactly the schema's scale
Date, Time, Timestamp     :class:`Moment`; without a schema too
========================  ==========================================================

None is null. Facts: ``org.apache.kafka.connect.data`` of Connect 4.3; texts of errors are
Connect's, since clients match on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from schemas.model import DATE, DECIMAL, TIME, TIMESTAMP, DataError, Schema, type_name


class Moment(int):
    """Milliseconds since the Unix epoch: what Connect holds as ``java.util.Date``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Moment({int(self)})"


_CLASSES: dict[str, type] = {
    "float": float,
    "double": float,
    "boolean": bool,
    "string": str,
    "bytes": bytes,
    "array": list,
    "map": dict,
}
_LOGICAL: dict[str | None, type] = {
    DECIMAL: Decimal,
    DATE: Moment,
    TIME: Moment,
    TIMESTAMP: Moment,
}
_NUMBERS = frozenset(("int8", "int16", "int32", "int64", "float", "double"))
_LIMITS = {f"int{bits}": 1 << bits - 1 for bits in (8, 16, 32, 64)}


class Struct:
    """A struct's values in the order of its schema's fields; None stands for null.

    ``values`` may be written by code that has planned for the schema, before anybody else
    has the struct; ``put`` is for all others, and validates. One that was made of JSON
    (:meth:`of_json`) has it in ``text``, and is read only where somebody asks for values.
    """

    __slots__ = ("_load", "schema", "text", "values")

    _load: Callable[[bytes], list[Any]]

    def __init__(self, schema: Schema, values: list[Any] | None = None) -> None:
        if schema.type != "struct":
            raise DataError(f"Not a struct schema: {schema}")
        self.schema = schema
        self.values: list[Any] = [None] * len(schema.fields) if values is None else values
        self.text: bytes | None = None

    @classmethod
    def of_json(cls, schema: Schema, text: bytes, load: Callable[[bytes], list[Any]]) -> Struct:
        """Of its JSON form, see :mod:`schemas.codec`; ``load`` is called once, or never."""
        self = cls.__new__(cls)
        self.schema, self.text, self._load = schema, text, load
        return self

    def __getattr__(self, name: str) -> Any:
        """Called for what is not there yet: the values of one that was not read so far."""
        if name != "values":
            raise AttributeError(name)
        text = self.text
        assert text is not None
        self.values = self._load(text)
        return self.values

    def get(self, name: str) -> Any:
        """A field's value; its default where it is null and has one. Raises DataError."""
        index = self._index(name)
        value = self.values[index]
        return self.schema.fields[index].schema.default_value if value is None else value

    def get_without_default(self, name: str) -> Any:
        """A field's value as it is. Raises DataError for an unknown field."""
        return self.values[self._index(name)]

    def put(self, name: str, value: Any) -> Struct:
        """Set a field's value and return this. Raises DataError where its schema forbids it."""
        index = self._index(name)
        validate_value(self.schema.fields[index].schema, value, f'field: "{name}"')
        self.values[index] = value
        self.text = None
        return self

    def validate(self) -> None:
        """Every field has a value that its schema allows. Raises DataError.

        A null is good enough where a default stands in for it.
        """
        for field, value in zip(self.schema.fields, self.values, strict=True):
            if value is not None or field.schema.default is None:
                validate_value(field.schema, value, f'field: "{field.name}"')

    def _index(self, name: str) -> int:
        index = self.schema.field_index.get(name)
        if index is None:
            raise DataError(f"{name} is not a valid field name")
        return index

    def items(self) -> Iterator[tuple[str, Any]]:
        """Names and values as they are, in order."""
        return zip((f.name for f in self.schema.fields), self.values, strict=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Struct):
            return NotImplemented
        return self.schema == other.schema and same(self.values, other.values)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Struct({', '.join(f'{n}={v!r}' for n, v in self.items())})"


def validate_value(
    schema: Schema, value: Any, where: str = "value", *, own: Schema | None = None
) -> None:
    """Whether a schema allows a value, by its Java class; ``where`` is named in the DataError.

    ``own`` is the value's own schema, where it is known: that tells the class of a number.

    As in Connect, what is inside a logical type (a decimal's scale, a date's time of day) is
    looked at when it is written, not here.
    """
    if value is None:
        if schema.optional:
            return
        raise DataError(
            f"Invalid value: null used for required {where}, schema type: {type_name(schema)}"
        )
    if not _fits(schema, value) or not _same_width(schema, own):
        raise DataError(_wrong_class(schema, value, where, own))
    if schema.type == "struct":
        if value.schema != schema:
            raise DataError("Struct schemas do not match.")
        value.validate()
    elif schema.type == "array":
        assert schema.items is not None
        for each in value:
            inner = None if own is None else own.items
            validate_value(schema.items, each, f"element of array {where}", own=inner)
    elif schema.type == "map":
        assert schema.keys is not None
        assert schema.values is not None
        for key, each in value.items():
            validate_value(schema.keys, key, f"key of map {where}")
            validate_value(schema.values, each, f"value of map {where}")


def _fits(schema: Schema, value: Any) -> bool:
    kind = type(value)
    logical = _LOGICAL.get(schema.name)
    if logical is not None:
        return kind is logical
    limit = _LIMITS.get(schema.type)
    if limit is not None:
        return kind is int and -limit <= value < limit
    return kind is _CLASSES.get(schema.type, Struct)


def _same_width(schema: Schema, own: Schema | None) -> bool:
    """Not where both are numbers, and of different types: Java's Byte is no Integer."""
    return own is None or schema.type not in _NUMBERS or schema.type == own.type


def _wrong_class(schema: Schema, value: Any, where: str, own: Schema | None) -> str:
    from schemas.java import class_name  # which needs this module

    named = f'schema "{schema.name}"' if schema.name is not None else "schema"
    kind, found = type_name(schema), class_name(value, own)
    return f"Invalid Java object for {named} with type {kind}: class {found} for {where}"


def same(one: Any, other: Any) -> bool:
    """Java's ``equals``: NaN is itself, 0.0 is not -0.0, and 1.0 (decimal) is not 1.00."""
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is float:
        return repr(one) == repr(other)
    if kind is Decimal:
        return bool(one.as_tuple() == other.as_tuple())
    if kind is list:
        return len(one) == len(other) and all(map(same, one, other))
    if kind is dict:
        return len(one) == len(other) and all(
            k in other and same(v, other[k]) for k, v in one.items()
        )
    if kind is Schema:
        return _same_schema(one, other)
    return bool(one == other)


def _same_schema(one: Schema, other: Schema) -> bool:
    if one == other:
        return True
    plain = [
        (s.type, s.optional, s.name, s.version, s.doc, s.parameters, [f.name for f in s.fields])
        for s in (one, other)
    ]
    # A default is compared as a value: its JSON form has the pairs of a map in some order.
    inner = [
        (s.items, s.keys, s.values, s.default_value, *(f.schema for f in s.fields))
        for s in (one, other)
    ]
    return plain[0] == plain[1] and all(same(a, b) for a, b in zip(*inner, strict=True))
