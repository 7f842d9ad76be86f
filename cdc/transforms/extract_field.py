"""ExtractField: one field takes the place of the whole key or value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cdc.config import Config, ConfigDef, Key, Kind
from cdc.transforms import options
from cdc.transforms.base import PLANS_MAX, PartTransform, field_of, require_map, require_struct
from cdc.transforms.errors import IllegalArgument
from cdc.transforms.fieldpath import field_path
from schemas import Schema

NESTED = "nested field access"
V1, V2 = "V1", "V2"

# The position and the default of each step; the schema of the last.
Steps = list[tuple[int, Any]]


def _check(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if values["field"] is not None and str(values["field.syntax.version"]).upper() == V2:
        try:
            field_path(values["field"])
        except ValueError as error:
            yield "field", str(error)


class ExtractField(PartTransform):
    """The field's value under its own schema; of a null value, null under that schema."""

    PURPOSE = "field extraction"
    CONFIG = ConfigDef(
        (
            options.text("field", "Field name to extract."),
            options.replace_null(),
            Key(
                "field.syntax.version",
                Kind.STRING,
                V1,
                "V1: a field of the struct or map itself. V2: dots descend into nested ones; "
                "backticks quote a name that has dots.",
                importance="HIGH",
                validator=options.one_of_any_case(V1, V2),
            ),
        ),
        checks=(_check,),
    )

    def __init__(self, config: Config) -> None:
        self._text: str = config["field"]
        nested = config["field.syntax.version"].upper() == V2
        self._path = field_path(self._text) if nested else [self._text]
        self._defaults: bool = config[options.REPLACE_NULL]
        self._plans: dict[int, tuple[Schema, Schema, Steps]] = {}

    def convert(self, schema: Schema | None, value: Any) -> tuple[Schema | None, Any]:
        """The field. Raises IllegalArgument where the schema has none of that name."""
        if schema is None:
            return None, None if value is None else self._from_map(value)
        if value is not None:
            require_struct(value, schema, self.PURPOSE)
        _, found, steps = self._plans.get(id(schema)) or self._plan(schema)
        for index, default in steps:
            if value is None:
                break
            value = value.values[index]
            if value is None:
                value = default
        return found, value

    def _plan(self, schema: Schema) -> tuple[Schema, Schema, Steps]:
        self._require_steps()
        steps: Steps = []
        current = schema
        for depth, name in enumerate(self._path, 1):
            field = field_of(current, name)
            if field is None:
                raise IllegalArgument(f"Unknown field: {self._text}")
            last = depth == len(self._path)
            default = field.schema.default_value if self._defaults or not last else None
            steps.append((current.field_index[name], default))
            current = field.schema
        if len(self._plans) >= PLANS_MAX:
            del self._plans[next(iter(self._plans))]
        self._plans[id(schema)] = found = (schema, current, steps)
        return found

    def _require_steps(self) -> None:
        """Connect takes an empty path of V2, and then looks for its last step."""
        if not self._path:
            raise IllegalArgument("fromIndex(0) > toIndex(-1)")

    def _from_map(self, value: Any) -> Any:
        current = require_map(value, self.PURPOSE)
        self._require_steps()
        for name in self._path[:-1]:
            inner = current.get(name)
            if inner is None:
                return None
            current = require_map(inner, NESTED)
        return current.get(self._path[-1])


class ExtractFieldKey(ExtractField):
    """From the key."""

    is_key = True


class ExtractFieldValue(ExtractField):
    """From the value."""
