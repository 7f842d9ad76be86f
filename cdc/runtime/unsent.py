"""Unsent: where the columns that the server did not send are in what a chain made of a row.

An unchanged TOAST value comes as a placeholder (facts sheet of Debezium, §3.2). That of texts,
bytes and some arrays is known by what it says, wherever a chain has put it. All others have
none: they are null, or their type's zero where the column is NOT NULL. A column like that is
found by its name, or, once it has another one, among the new fields of its type: transforms
keep the order of fields.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from schemas import Schema
from schemas.struct import Struct

AFTER = "after"  # what Flatten begins the names of a row's columns with


class _Column(NamedTuple):
    """A column, or a leaf of one that is a struct: the members on the way to it."""

    number: int
    path: tuple[int, ...]
    schema: Schema


class Unsent:
    """From the columns of ``row`` to the fields of ``image``, which a chain has made of it."""

    def __init__(self, row: Schema, image: Schema) -> None:
        names = image.field_index
        self._own = {
            i: names[f.name]
            for i, f in enumerate(row.fields)
            if f.name in names and not _is_another(f.schema, image.fields[names[f.name]].schema)
        }
        self._moved = _moved(row, image)

    def find(self, columns: Sequence[int], placeholders: Iterable[Any], image: Struct) -> set[int]:
        """The image's fields that hold placeholders, which the row has in ``columns``."""
        found: set[int] = set()
        values = image.values
        for column, placeholder in zip(columns, placeholders, strict=True):
            own, forms = self._own.get(column), _forms(placeholder)
            if own is not None and (not forms or _is_one_of(values[own], forms)):
                found.add(own)
            elif forms:
                found.update(i for i, value in enumerate(values) if _is_one_of(value, forms))
            else:
                found.update(
                    at
                    for at, path in self._moved.get(column, ())
                    if values[at]
                    in (_at(placeholder, path), image.schema.fields[at].schema.default_value)
                )
        return found


def _is_another(column: Schema, found: Schema) -> bool:
    """Whether a field only bears a column's name: HoistField has put the whole row there."""
    return found.type == "struct" and _kind(found) != _kind(column)


def _forms(placeholder: Any) -> tuple[Any, ...]:
    """What a placeholder that says so may look like; empty: it does not say so."""
    if not placeholder or not isinstance(placeholder, str | bytes | list | dict):
        return ()
    if isinstance(placeholder, bytes):
        return placeholder, b64encode(placeholder).decode()  # Cast makes this of bytes
    return (placeholder,)


def _is_one_of(value: Any, forms: tuple[Any, ...]) -> bool:
    return any(type(value) is type(form) and value == form for form in forms)


def _at(value: Any, path: tuple[int, ...]) -> Any:
    for index in path:
        value = value.values[index] if isinstance(value, Struct) else None
    return value


def _moved(row: Schema, image: Schema) -> dict[int, list[tuple[int, tuple[int, ...]]]]:
    """For columns whose name is gone: the fields that may be theirs, and which leaf of them."""
    new = [i for i, f in enumerate(image.fields) if f.name not in row.field_index]
    flat = [i for i in new if image.fields[i].name.startswith(AFTER)]
    if flat and not any(f.name in image.field_index for f in row.fields):
        new = flat
    kinds: dict[int, Schema] = {i: _kind(image.fields[i].schema) for i in new}
    gone = list(_gone(row, image, [kind for kind in kinds.values() if kind.type == "struct"]))
    found: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
    for column in gone:
        kind = _kind(column.schema)
        places = [i for i in new if kinds[i] == kind]
        alike = [other for other in gone if _kind(other.schema) == kind]
        if len(places) == len(alike):
            places = [places[alike.index(column)]]
        found.setdefault(column.number, []).extend((i, column.path) for i in places)
    return found


def _gone(row: Schema, image: Schema, structs: list[Schema]) -> Iterator[_Column]:
    """Columns whose name the image lacks; of a struct that is flattened its leaves."""
    for index, field in enumerate(row.fields):
        if field.name not in image.field_index:
            yield from _leaves(_Column(index, (), field.schema), structs)


def _leaves(column: _Column, structs: list[Schema]) -> Iterator[_Column]:
    schema = column.schema
    if schema.type != "struct" or _kind(schema) in structs:
        yield column
        return
    for number, field in enumerate(schema.fields):
        yield from _leaves(_Column(column.number, (*column.path, number), field.schema), structs)


def _kind(schema: Schema) -> Schema:
    """A schema without what a transform changes of a field that it moves."""
    return replace(schema, optional=False, default=None)
