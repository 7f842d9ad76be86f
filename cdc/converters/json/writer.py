"""Connect values to JSON, as Connect's JsonConverter writes them: planned once per schema.

A plan makes what orjson dumps. Where a schema is missing, the value's own class decides.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import orjson

from schemas import DataError, Moment, Schema, Struct
from schemas.codec import dumper
from schemas.java import class_name
from schemas.model import DATE, DECIMAL, TIME, TIMESTAMP, type_name

Write = Callable[[Any], Any]

_LIMITS = {f"int{bits}": 1 << bits - 1 for bits in (8, 16, 32, 64)}
_CLASSES = {"float": float, "double": float, "boolean": bool, "string": str}
_TEMPORAL = {DATE: "Date", TIME: "Time", TIMESTAMP: "Timestamp"}


def plan_writer(schema: Schema | None, *, replace_null: bool, numeric: bool) -> Write:
    """How values of a schema are written; a plan raises DataError with Connect's texts.

    ``replace_null``: a null is written as its schema's default. ``numeric``: decimals are
    numbers, not base64.
    """
    return _Planner(replace_null, numeric).plan(schema)


def write_plain(value: Any) -> Any:
    """A value without schema. Raises DataError for a class that JSON has nothing for."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, float):
        return _dump_double(value)
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, list):
        return [write_plain(each) for each in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: write_plain(each) for key, each in value.items()}
        return [[write_plain(key), write_plain(each)] for key, each in value.items()]
    if isinstance(value, Struct):
        raise DataError("Mismatching schema.")
    if isinstance(value, int) and not isinstance(value, Moment):
        return value
    raise DataError(
        f"Java class class {class_name(value)} does not have corresponding schema type."
    )


_dump_double = dumper(Schema("double")) or float


class _Planner:
    def __init__(self, replace_null: bool, numeric: bool) -> None:
        self.replace_null, self.numeric = replace_null, numeric

    def plan(self, schema: Schema | None) -> Write:
        """A writer that takes null too."""
        if schema is None:
            return write_plain
        write = self._plan_value(schema)
        if self.replace_null and schema.default is not None:
            default = write(schema.default_value)
            return lambda value: default if value is None else write(value)
        if schema.optional:
            return lambda value: None if value is None else write(value)

        def write_required(value: Any) -> Any:
            if value is None:
                raise DataError(
                    "Conversion error: null value for field that is required "
                    "and has no default value"
                )
            return write(value)

        return write_required

    def _plan_value(self, schema: Schema) -> Write:
        if schema.name == DECIMAL:
            return self._decimal(schema)
        if schema.name in _TEMPORAL:
            return _temporal(schema)
        if schema.type == "struct":
            return self._struct(schema)
        if schema.type == "array":
            return self._array(schema)
        if schema.type == "map":
            return write_plain if schema.keys is None else self._map(schema, schema.keys)
        return _bytes if schema.type == "bytes" else _scalar(schema)

    def _decimal(self, schema: Schema) -> Write:
        dump = _number if self.numeric else dumper(schema)
        assert dump is not None

        def write(value: Any) -> Any:
            if not isinstance(value, Decimal):
                kind = class_name(value)
                raise DataError(
                    f"Invalid type for Decimal, expected BigDecimal but was class {kind}"
                )
            return dump(value)

        return write

    def _array(self, schema: Schema) -> Write:
        each = self.plan(schema.items)

        def write(value: Any) -> Any:
            if not isinstance(value, list):
                raise _invalid(schema, value)
            return [each(item) for item in value]

        return write

    def _map(self, schema: Schema, keys: Schema) -> Write:
        write_key, write_value = self.plan(keys), self.plan(schema.values)
        as_object = keys.type == "string"

        def write(value: Any) -> Any:
            if not isinstance(value, dict):
                raise _invalid(schema, value)
            pairs = [[write_key(key), write_value(each)] for key, each in value.items()]
            if not as_object:
                return pairs
            return {"null" if key is None else key: each for key, each in pairs}

        return write

    def _struct(self, schema: Schema) -> Write:
        fields = [(f.name, self.plan(f.schema)) for f in schema.fields]

        def write(value: Any) -> Any:
            if not isinstance(value, Struct):
                raise _invalid(schema, value)
            if value.schema is not schema and value.schema != schema:
                raise DataError("Mismatching schema.")
            pairs = zip(fields, value.values, strict=True)
            return {name: each(item) for (name, each), item in pairs}

        return write


def _temporal(schema: Schema) -> Write:
    dump, name = dumper(schema), _TEMPORAL[schema.name or ""]
    assert dump is not None

    def write(value: Any) -> Any:
        if not isinstance(value, Moment):
            kind = class_name(value, schema)
            raise DataError(f"Invalid type for {name}, expected Date but was class {kind}")
        return dump(value)

    return write


def _scalar(schema: Schema) -> Write:
    limit = _LIMITS.get(schema.type)
    if limit is not None:

        def write_int(value: Any) -> Any:
            if type(value) is not int or not -limit <= value < limit:
                raise _invalid(schema, value)
            return value

        return write_int
    dump, wanted = dumper(schema), _CLASSES[schema.type]

    def write(value: Any) -> Any:
        if not isinstance(value, wanted):
            raise _invalid(schema, value)
        return value if dump is None else dump(value)

    return write


def _bytes(value: Any) -> Any:
    if not isinstance(value, bytes):
        raise DataError(f"Invalid type for bytes type: class {class_name(value)}")
    return b64encode(value).decode()


def _number(value: Decimal) -> Any:
    # str(Decimal) and BigDecimal.toString() follow the same rule, ``1E-7`` included.
    return orjson.Fragment(str(value).encode())


def _invalid(schema: Schema, value: Any) -> DataError:
    return DataError(f"Invalid type for {type_name(schema)}: class {class_name(value)}")
