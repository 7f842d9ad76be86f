"""MaskField: fields replaced by nothing of their type, or by a text's value."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from cdc.config import Config, ConfigDef, Key, Kind
from cdc.transforms import options
from cdc.transforms.base import (
    Convert,
    Run,
    StructTransform,
    converting,
    require_map,
    require_struct,
)
from schemas import DataError, Moment, Schema, Struct
from schemas.floats import nearest_single
from schemas.java import class_name, class_of_schema
from schemas.numbers import BITS, NumberFormat, low_bits, parse_decimal, wrapped

_NOTHING: dict[str, Callable[[], Any]] = {
    "java.lang.Boolean": bool,
    "java.lang.Byte": int,
    "java.lang.Short": int,
    "java.lang.Integer": int,
    "java.lang.Long": int,
    "java.lang.Float": float,
    "java.lang.Double": float,
    "java.lang.String": str,
    "java.math.BigDecimal": lambda: Decimal(0),
    "java.util.Date": lambda: Moment(0),
    "java.util.ArrayList": list,
    "java.util.HashMap": dict,
}
_INTEGERS = {
    "java.lang.Byte": BITS["int8"],
    "java.lang.Short": BITS["int16"],
    "java.lang.Integer": BITS["int32"],
    "java.lang.Long": BITS["int64"],
}


class MaskField(StructTransform):
    """A null field stays null; a null key or value is refused."""

    PURPOSE = "mask fields"
    CONFIG = ConfigDef(
        (
            options.names("fields", "Names of fields to mask."),
            Key(
                "replacement",
                Kind.STRING,
                None,
                "Custom value replacement, for all the fields: numbers and texts only.",
                importance="LOW",
                validator=options.non_empty,
            ),
            options.replace_null(),
        ),
        checks=(options.named("fields"),),
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._fields: tuple[str, ...] = config["fields"]
        self._replacement: str | None = config["replacement"]
        self._defaults: bool = config[options.REPLACE_NULL]

    def convert(self, schema: Schema | None, value: Any) -> tuple[Schema | None, Any]:
        """The masked struct or map; anything else is refused."""
        if schema is None:
            return None, self.convert_map(require_map(value, self.PURPOSE))
        run = self.plan_of(require_struct(value, schema, self.PURPOSE).schema).run
        return schema, Struct(schema, run(value.values))

    def plan(self, schema: Schema) -> tuple[Schema, Run]:
        """The schema as it is."""
        fields = schema.fields
        masks = {
            index: self._mask(class_of_schema(field.schema))
            for index, field in enumerate(fields)
            if field.name in self._fields
        }
        return schema, converting(fields, fields, masks, defaults=self._defaults)

    def convert_map(self, value: dict[str, Any]) -> dict[str, Any]:
        """The map with the entries masked; an unknown one becomes null."""
        found = value.copy()
        for name in self._fields:
            plain = value.get(name)
            found[name] = None if plain is None else self._mask(class_name(plain))(plain)
        return found

    def _mask(self, kind: str) -> Convert:
        """What makes the mask of values of a Java class. The function raises DataError."""
        if self._replacement is None:
            nothing = _NOTHING.get(kind)
            if nothing is None:
                return _refusing(f"Cannot mask value of type: class {kind}")
            return lambda _: nothing()
        text = self._replacement
        if kind == "java.lang.String":
            return lambda _: text
        try:
            number = parse_decimal(text)
        except NumberFormat:
            number = None
        if kind in _INTEGERS or kind in ("java.lang.Float", "java.lang.Double"):
            if number is None:
                return _refusing(f"Unable to convert {text} (class java.lang.String) to a number")
            found = _numbers(kind, number)
            return lambda _: found
        if kind == "java.math.BigDecimal":
            if number is None:
                return _refusing(f"Unable to convert {text} (class java.lang.String) to number")
            return lambda _: number
        return _refusing(f"Cannot mask value of type class {kind} with custom replacement.")


def _numbers(kind: str, number: Decimal) -> int | float:
    if kind in _INTEGERS:
        return wrapped(low_bits(number, 64), _INTEGERS[kind])
    return float(number) if kind == "java.lang.Double" else nearest_single(float(number))


def _refusing(text: str) -> Convert:
    def refuse(_: Any) -> Any:
        raise DataError(text)

    return refuse


class MaskFieldKey(MaskField):
    """Of the key."""

    is_key = True


class MaskFieldValue(MaskField):
    """Of the value."""
