"""SetSchemaMetadata: another name or version of the key's or value's schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from cdc.config import Config, ConfigDef, Key, Kind
from cdc.transforms import options
from cdc.transforms.base import Run, StructTransform, Values, fields_of, settler
from schemas import DataError, Schema, Struct


def _check(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if values["schema.name"] is None and values["schema.version"] is None:
        yield "schema.name", "Neither schema name nor version configured"


class SetSchemaMetadata(StructTransform):
    """A null value under a schema is renamed too; without a schema only null passes."""

    CONFIG = ConfigDef(
        (
            options.text("schema.name", "Schema name to set.", importance="HIGH", default=None),
            Key("schema.version", Kind.INT, None, "Schema version to set.", importance="HIGH"),
            options.replace_null(),
        ),
        checks=(_check,),
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._name: str | None = config["schema.name"]
        self._version: int | None = config["schema.version"]
        self._defaults: bool = config[options.REPLACE_NULL]

    def convert(self, schema: Schema | None, value: Any) -> tuple[Schema | None, Any]:
        """The value under the changed schema. Raises DataError without a schema."""
        if schema is None:
            if value is None:
                return None, None
            raise DataError("Schema required for [updating schema metadata]")
        _, changed, run = self.plan_of(schema)
        if isinstance(value, Struct):
            return changed, Struct(changed, run(value.values))
        return changed, value

    def plan(self, schema: Schema) -> tuple[Schema, Run]:
        """The schema with another name or version, all else as it is."""
        changed = replace(
            schema,
            name=schema.name if self._name is None else self._name,
            version=schema.version if self._version is None else self._version,
        )
        settle = settler(fields_of(schema), defaults=self._defaults)

        def run(values: Values) -> Values:
            found = values.copy()
            settle(found)
            return found

        return changed, run

    def convert_map(self, value: dict[str, Any]) -> dict[str, Any]:
        """Never asked: without a schema there is nothing to set."""
        return value


class SetSchemaMetadataKey(SetSchemaMetadata):
    """Of the key."""

    is_key = True


class SetSchemaMetadataValue(SetSchemaMetadata):
    """Of the value."""
