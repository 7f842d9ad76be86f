"""The Java classes of Connect values: the names that Connect's errors show.

Without a schema, numbers are what ``JsonConverter`` makes of them: Long and Double.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from schemas import Moment, Schema, Struct
from schemas.codec import DATE, DECIMAL, TIME, TIMESTAMP

DATE_CLASS = "java.util.Date"
DECIMAL_CLASS = "java.math.BigDecimal"
_BY_TYPE = {
    "boolean": "java.lang.Boolean",
    "int8": "java.lang.Byte",
    "int16": "java.lang.Short",
    "int32": "java.lang.Integer",
    "int64": "java.lang.Long",
    "float": "java.lang.Float",
    "double": "java.lang.Double",
    "string": "java.lang.String",
    "bytes": "[B",
    "array": "java.util.ArrayList",
    "map": "java.util.HashMap",
    "struct": "org.apache.kafka.connect.data.Struct",
}
_BY_NAME = {
    DATE: DATE_CLASS,
    TIME: DATE_CLASS,
    TIMESTAMP: DATE_CLASS,
    DECIMAL: DECIMAL_CLASS,
}
_BY_CLASS: dict[type, str] = {
    bool: "java.lang.Boolean",
    int: "java.lang.Long",
    float: "java.lang.Double",
    str: "java.lang.String",
    bytes: "[B",
    list: "java.util.ArrayList",
    dict: "java.util.HashMap",
    Struct: "org.apache.kafka.connect.data.Struct",
    Moment: DATE_CLASS,
    Decimal: DECIMAL_CLASS,
}
# Connect's name of a schema type, by its JSON name.
TYPE_NAMES = {"float": "FLOAT32", "double": "FLOAT64"}


def type_name(schema: Schema) -> str:
    """A schema's type as Connect's errors write it: ``INT32``, ``FLOAT32``."""
    return TYPE_NAMES.get(schema.type, schema.type.upper())


def schema_text(schema: Schema) -> str:
    """A schema as Java prints it."""
    kind = type_name(schema)
    return f"Schema{{{kind}}}" if schema.name is None else f"Schema{{{schema.name}:{kind}}}"


def class_of_schema(schema: Schema) -> str:
    """The name of the class that a schema's values have."""
    return _BY_NAME.get(schema.name or "") or _BY_TYPE[schema.type]


def class_name(value: Any, schema: Schema | None = None) -> str:
    """The name of a value's class; ``null`` for null."""
    if value is None:
        return "null"
    found = _BY_CLASS.get(type(value), "java.lang.Object")
    if schema is not None and type(value) in (int, float):
        return _BY_TYPE.get(schema.type, found)
    return found
