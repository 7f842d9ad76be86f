"""Projection: a value of one schema as a value of a later one, Connect's ``SchemaProjector``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.floats import nearest_single
from schemas.java import schema_text
from schemas.model import DataError, Schema, type_name
from schemas.struct import Moment, Struct

# A number may become one further on, never one before.
_NUMERIC = ("int8", "int16", "int32", "int64", "float", "double")


class SchemaProjectorError(DataError):
    """Two schemas that do not fit: Connect's SchemaProjectorException, with its text."""


def project(source: Schema, value: Any, target: Schema) -> Any:
    """``value`` of ``source`` as one of ``target``. Raises SchemaProjectorError.

    Fields may come (with a default, or optional) and go; numbers widen. Name and parameters of
    both schemas must be the same, and what was optional stays so or has a default.
    """
    _check(source, target)
    if source.optional and not target.optional:
        if target.default is None:
            raise SchemaProjectorError(
                "Writer schema is optional, however, target schema does not provide "
                "a default value."
            )
        if value is None:
            return target.default_value
    return None if value is None else _project(source, value, target)


def _check(source: Schema, target: Schema) -> None:
    if source.type != target.type and not _promotable(source, target):
        raise SchemaProjectorError(
            f"Schema type mismatch. source type: {type_name(source)} "
            f"and target type: {type_name(target)}"
        )
    if source.name != target.name:
        raise SchemaProjectorError(
            f"Schema name mismatch. source name: {source.name or 'null'} "
            f"and target name: {target.name or 'null'}"
        )
    if dict(source.parameters) != dict(target.parameters):
        raise SchemaProjectorError(
            f"Schema parameters not equal. source parameters: {_shown(source.parameters)} "
            f"and target parameters: {_shown(target.parameters)}"
        )


def _promotable(source: Schema, target: Schema) -> bool:
    if source.type not in _NUMERIC or target.type not in _NUMERIC:
        return False
    return _NUMERIC.index(source.type) <= _NUMERIC.index(target.type)


def _shown(parameters: Mapping[str, str]) -> str:
    pairs = ", ".join(f"{name}={value}" for name, value in parameters.items())
    return f"{{{pairs}}}" if parameters else "null"


def _project(source: Schema, value: Any, target: Schema) -> Any:
    if target.type == "struct":
        return _struct(source, value, target)
    if target.type == "array":
        assert source.items is not None
        assert target.items is not None
        return [project(source.items, each, target.items) for each in value]
    if target.type == "map":
        assert source.keys is not None
        assert target.keys is not None
        assert source.values is not None
        assert target.values is not None
        return {
            project(source.keys, key, target.keys): project(source.values, each, target.values)
            for key, each in value.items()
        }
    if isinstance(value, Moment):
        return value
    if target.type == "double":
        return float(value)
    return nearest_single(float(value)) if target.type == "float" else value


def _struct(source: Schema, value: Struct, target: Schema) -> Struct:
    found = Struct(target)
    for field in target.fields:
        index = source.field_index.get(field.name)
        if index is not None:
            of = source.fields[index].schema
            try:
                found.put(field.name, project(of, value.get(field.name), field.schema))
            except SchemaProjectorError as error:
                raise SchemaProjectorError(f"Error projecting {field.name}") from error
        elif not field.schema.optional:
            if field.schema.default is not None:
                found.put(field.name, field.schema.default_value)
                continue
            raise SchemaProjectorError(
                f"Required field `{field.name}` is missing from source schema: "
                f"{schema_text(source)}"
            )
    return found
