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

from collections.abc import Iterator
from typing import Any

from schemas.model import Schema


class DataError(ValueError):
    """A value that its schema does not allow: Connect's DataException, with its text."""


class Moment(int):
    """Milliseconds since the Unix epoch: what Connect holds as ``java.util.Date``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Moment({int(self)})"


class Struct:
    """A struct's values in the order of its schema's fields; None stands for null.

    ``values`` may be written by code that has planned for the schema; ``put`` is for all
    others, and validates.
    """

    __slots__ = ("schema", "values")

    def __init__(self, schema: Schema, values: list[Any] | None = None) -> None:
        if schema.type != "struct":
            raise DataError(f"Not a struct schema: {schema}")
        self.schema = schema
        self.values: list[Any] = [None] * len(schema.fields) if values is None else values

    def get(self, name: str) -> Any:
        """A field's value; its default where it is null and has one. Raises DataError."""
        index = self._index(name)
        value = self.values[index]
        return self.schema.fields[index].schema.default_value if value is None else value

    def get_without_default(self, name: str) -> Any:
        """A field's value as it is. Raises DataError for an unknown field."""
        return self.values[self._index(name)]

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
        return self.schema == other.schema and self.values == other.values

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Struct({', '.join(f'{n}={v!r}' for n, v in self.items())})"
