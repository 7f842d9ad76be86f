"""HoistField: the key or value becomes the only field of a struct, or of a map."""

from __future__ import annotations

from typing import Any

from cdc.config import Config, ConfigDef
from cdc.transforms import options
from cdc.transforms.base import Plan, Run, StructTransform, checked
from schemas import Field, Schema, Struct
from schemas.struct import validate_value


class HoistField(StructTransform):
    """Wraps any value, null too."""

    CONFIG = ConfigDef(
        (options.text("field", "Field name for the single field of the resulting struct or map."),)
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._field: str = config["field"]
        self._where = f'field: "{self._field}"'

    def convert(self, schema: Schema | None, value: Any) -> tuple[Schema | None, Any]:
        """The wrapped value."""
        if schema is None:
            return None, {self._field: value}
        plan: Plan = self.plan_of(schema)
        validate_value(schema, value, self._where)
        return plan.schema, Struct(plan.schema, [value])

    def plan(self, schema: Schema) -> tuple[Schema, Run]:
        """A struct without a name."""
        return Schema("struct", fields=checked([Field(self._field, schema)])), _same

    def convert_map(self, value: dict[str, Any]) -> dict[str, Any]:
        """The map as the only field of another."""
        return {self._field: value}


def _same(values: list[Any]) -> list[Any]:
    return values


class HoistFieldKey(HoistField):
    """Of the key."""

    is_key = True


class HoistFieldValue(HoistField):
    """Of the value."""
