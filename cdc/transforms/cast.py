"""Cast: fields, or the whole key or value, as another primitive type."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from cdc.config import Config, ConfigDef
from cdc.transforms import options
from cdc.transforms.base import Convert, Run, StructTransform, Values, converting, fields_of
from cdc.transforms.replace_field import java_split
from schemas import DataError, Field, Moment, Schema, SchemaBuilderError, Struct
from schemas.codec import dumper
from schemas.dates import DAY_MS
from schemas.floats import nearest_single
from schemas.java import class_name, double_text, float_text
from schemas.literals import temporal_text
from schemas.model import DATE, DECIMAL, TIME, TIMESTAMP, type_name
from schemas.numbers import (
    BITS,
    NumberFormat,
    low_bits,
    parse_double,
    parse_integer,
    parse_single,
    single_of,
    truncated,
    wrapped,
)

OUTPUTS = ("INT8", "INT16", "INT32", "INT64", "FLOAT32", "FLOAT64", "BOOLEAN", "STRING")
_INPUTS = (*OUTPUTS, "BYTES")
_TYPES = (*_INPUTS, "ARRAY", "MAP", "STRUCT")
_OURS = {name: name.lower() for name in OUTPUTS} | {"FLOAT32": "float", "FLOAT64": "double"}
_LOGICAL = {DATE, TIME, TIMESTAMP, DECIMAL}


def parse_spec(mappings: Iterable[str]) -> dict[str | None, str]:
    """Field name (None: the whole value) → type. Raises ValueError with Connect's whole text."""
    mappings = list(mappings)
    if not mappings:
        raise ValueError("Must specify at least one field to cast.")
    found: dict[str | None, str] = {}
    for mapping in mappings:
        parts = java_split(mapping)
        if len(parts) > 2:
            listed = f"[{', '.join(mappings)}]"
            raise ValueError(
                f"Invalid value {listed} for configuration renames: "
                f"Invalid rename mapping: {mapping}"
            )
        name = parts[0].strip() if len(parts) == 2 else None
        found[name] = _target(parts[-1] if parts else "")
    if None in found and len(mappings) > 1:
        raise ValueError(
            "Cast transformations that specify a type to cast the entire value to "
            "may only specify a single cast in their spec"
        )
    return found


def _target(text: str) -> str:
    name = text.strip().upper()
    if name not in _TYPES:
        raise ValueError(
            "Invalid value java.lang.IllegalArgumentException: No enum constant "
            f"org.apache.kafka.connect.data.Schema.Type.{name} for configuration "
            f"Invalid type found in casting spec: {text.strip()}"
        )
    if name not in OUTPUTS:
        raise ValueError(
            f"Cast transformation does not support casting to {name}; "
            f"supported types are [{', '.join(OUTPUTS)}]"
        )
    return _OURS[name]


def _check(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if values["spec"] is not None:
        try:
            parse_spec(values["spec"])
        except ValueError as error:
            yield "spec", str(error)


class Cast(StructTransform):
    """Whole numbers wrap, floating ones are cut and saturated, texts are parsed."""

    PURPOSE = "cast types"
    CONFIG = ConfigDef(
        (
            options.names(
                "spec",
                "List of fields and the type to cast them to, of the form field1:type,field2:type; "
                "or a single type, to cast the whole key or value. Types are int8, int16, int32, "
                "int64, float32, float64, boolean and string. Bytes can only become a string.",
            ),
            options.replace_null(),
        ),
        checks=(_check,),
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._casts = parse_spec(config["spec"])
        self._whole = self._casts.get(None)
        self._defaults: bool = config[options.REPLACE_NULL]

    def convert(self, schema: Schema | None, value: Any) -> tuple[Schema | None, Any]:
        """The cast value; null passes."""
        if value is None:
            return schema, None
        if self._whole is None:
            if schema is not None and type(value) is not Struct:
                self.plan_of(schema)  # Connect looks at the schema before the value
            return super().convert(schema, value)
        if schema is None:
            return None, cast_plain(self._whole, value)
        changed = self.plan_of(schema).schema
        return changed, caster(schema, self._whole)(value)

    def plan(self, schema: Schema) -> tuple[Schema, Run]:
        """Cast fields lose name and doc; the struct keeps all it has."""
        if self._whole is not None:
            return _whole_schema(schema, self._whole), _same
        casts = [
            (index, field, self._casts[field.name])
            for index, field in enumerate(fields_of(schema))
            if field.name in self._casts
        ]
        fields = list(schema.fields)
        for index, field, target in casts:
            fields[index] = Field(field.name, _plain_schema(field.schema, target))
        if schema.default is not None:
            caster(schema, "struct")(schema.default_value)  # refused, as Connect does
        planned = {index: caster(field.schema, target) for index, field, target in casts}
        run = converting(schema.fields, fields, planned, defaults=self._defaults)
        return replace(schema, fields=tuple(fields)), run

    def convert_map(self, value: dict[str, Any]) -> dict[str, Any]:
        """The map with the entries cast; an absent one becomes null."""
        found = value.copy()
        for name, target in self._casts.items():
            if name is not None:
                plain = value.get(name)
                found[name] = None if plain is None else cast_plain(target, plain)
        return found


def _same(values: Values) -> Values:
    return values


def _plain_schema(schema: Schema, target: str) -> Schema:
    default = schema.default_value
    if default is not None:
        default = _dumped(target, caster(schema, target)(default))
    return Schema(target, optional=schema.optional, default=default)


def _dumped(target: str, default: Any) -> Any:
    dump = dumper(Schema(target))
    return default if dump is None else dump(default)


def _whole_schema(schema: Schema, target: str) -> Schema:
    default = schema.default_value
    if default is not None:
        default = caster(schema, target)(default)
        if schema.name in _LOGICAL:  # which wants a date or a decimal, not this
            raise SchemaBuilderError("Invalid default value")
        default = _dumped(target, default)
    return Schema(
        target, schema.optional, schema.name, schema.version, schema.doc, schema.parameters, default
    )


def caster(schema: Schema, target: str) -> Convert:
    """How a value of ``schema`` becomes one of the type; not for null.

    Raises DataError, as the function does, for what cannot be cast.
    """
    if type_name(schema) not in _INPUTS:
        kind = type_name(schema)

        def refuse(_: Any) -> Any:
            raise DataError(
                f"Cast transformation does not support casting from {kind}; "
                f"supported types are [{', '.join(_INPUTS)}]"
            )

        return refuse
    if target == "string":
        return float_text if schema.type == "float" else _to_string
    number = _NUMBERS[target]
    if schema.name in _ENCODE:
        encode = _ENCODE[schema.name]
        return lambda value: number(encode(value) if isinstance(value, Moment) else value)
    return number


def cast_plain(target: str, value: Any) -> Any:
    """A value without a schema as the type. Raises DataError for what cannot be cast."""
    if isinstance(value, Moment | Decimal):
        raise DataError(
            f"Cast transformation was passed a value of type class {class_name(value)} "
            "which is not supported by Connect's data API"
        )
    kind = "struct"
    for python, connect in ((dict, "map"), (list, "array"), (Struct, "struct")):
        if isinstance(value, python):
            kind = connect
            break
    else:
        kind = "bytes" if isinstance(value, bytes) else "string"
    return caster(Schema(kind), target)(value)


def _encode_date(value: Moment) -> int:
    if value % DAY_MS:
        raise DataError(
            "Kafka Connect Date type should not have any time fields set to non-zero values."
        )
    return value // DAY_MS


def _encode_time(value: Moment) -> int:
    if not 0 <= value < DAY_MS:
        raise DataError(
            "Kafka Connect Time type should not have any date fields set to non-zero values."
        )
    return int(value)


_ENCODE: Mapping[str | None, Convert] = {DATE: _encode_date, TIME: _encode_time, TIMESTAMP: int}


def _refused(value: Any) -> DataError:
    return DataError(f"Unexpected type in Cast transformation: class {class_name(value)}")


def _out_of_range(text: str) -> DataError:
    return DataError.quoting("Value ({}) was out of range for requested data type", text)


def _to_integer(bits: int) -> Convert:
    middle = max(bits, 32)  # Java has no way from a float to a byte but by an int

    def cast(value: Any) -> int:
        kind = type(value)
        if kind is int:
            return wrapped(value, bits)
        if kind is str:
            try:
                return parse_integer(value, bits)
            except NumberFormat:
                raise _out_of_range(value) from None
        if kind is float:
            return wrapped(truncated(value, middle), bits)
        if kind is bool:
            return int(value)
        if kind is Decimal:
            return wrapped(low_bits(value, middle), bits)
        raise _refused(value)

    return cast


def _to_single(value: Any) -> float:
    if isinstance(value, str):
        try:
            return parse_single(value)
        except NumberFormat:
            raise _out_of_range(value) from None
    if isinstance(value, float):
        return nearest_single(value)
    if isinstance(value, int | Decimal) and not isinstance(value, Moment):
        return single_of(value)
    raise _refused(value)


def _to_double(value: Any) -> float:
    if isinstance(value, str):
        try:
            return parse_double(value)
        except NumberFormat:
            raise _out_of_range(value) from None
    if isinstance(value, int | float | Decimal) and not isinstance(value, Moment):
        return float(value)
    raise _refused(value)


def _to_boolean(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() == "true"
    if isinstance(value, float):
        return truncated(value, 64) != 0
    if isinstance(value, Decimal):
        return low_bits(value, 64) != 0
    if isinstance(value, int) and not isinstance(value, Moment):
        return value != 0
    raise _refused(value)


def _to_string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return double_text(value)
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return temporal_text(value) if isinstance(value, Moment) else str(value)


_NUMBERS: Mapping[str, Convert] = {
    **{name: _to_integer(bits) for name, bits in BITS.items()},
    "float": _to_single,
    "double": _to_double,
    "boolean": _to_boolean,
}


class CastKey(Cast):
    """Of the key."""

    is_key = True


class CastValue(Cast):
    """Of the value."""
