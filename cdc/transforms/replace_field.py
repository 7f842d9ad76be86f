"""ReplaceField: fields left out, kept, or renamed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cdc.config import Config, ConfigDef
from cdc.transforms import options
from cdc.transforms.base import Run, StructTransform, Values, picker, rebuilt, settler
from schemas import DataError, Field, Schema
from schemas.struct import validate_value


def parse_renames(mappings: Iterable[str]) -> dict[str, str]:
    """Old name → new name. Raises ValueError with Connect's reason."""
    found = {}
    for mapping in mappings:
        parts = java_split(mapping)
        if len(parts) != 2:
            raise ValueError(f"Invalid rename mapping: {mapping}")
        found[parts[0]] = parts[1]
    return found


def java_split(text: str) -> list[str]:
    """Java's ``split(":")``: empty parts at the end are left out."""
    parts = text.split(":")
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return [] if parts == [""] and text else parts


def _check_renames(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    mappings = values["renames"] or ()
    try:
        parse_renames(mappings)
    except ValueError as error:
        listed = f"[{', '.join(mappings)}]"
        yield "renames", f"Invalid value {listed} for configuration renames: {error}"


class ReplaceField(StructTransform):
    """A field stays unless excluded, and if included where anything is; then it is renamed."""

    PURPOSE = "field replacement"
    CONFIG = ConfigDef(
        (
            options.names(
                "exclude",
                "Fields to exclude. This takes precedence over the fields to include.",
                importance="MEDIUM",
                default=(),
                older="blacklist",  # as Connect called them before 4.0
            ),
            options.names(
                "include",
                "Fields to include. If specified, only these fields will be used.",
                importance="MEDIUM",
                default=(),
                older="whitelist",
            ),
            options.names(
                "renames",
                "Field rename mappings: old:new, …",
                importance="MEDIUM",
                default=(),
            ),
            options.replace_null(),
        ),
        checks=(
            options.named("exclude", may_be_empty=True),
            options.named("include", may_be_empty=True),
            _check_renames,
        ),
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._exclude = frozenset(config["exclude"])
        self._include = frozenset(config["include"])
        self._renames = parse_renames(config["renames"])
        self._origins = {new: old for old, new in self._renames.items()}
        self._defaults: bool = config[options.REPLACE_NULL]

    def _stays(self, name: str) -> bool:
        return name not in self._exclude and (not self._include or name in self._include)

    def plan(self, schema: Schema) -> tuple[Schema, Run]:
        """The fields that stay, under their new names."""
        changed = rebuilt(
            schema,
            (
                Field(self._renames.get(f.name, f.name), f.schema)
                for f in schema.fields
                if self._stays(f.name)
            ),
        )
        # As in Connect, a field's value is found by its new name's old one, even where that
        # is not the field it was made of.
        origins = [self._origins.get(f.name, f.name) for f in changed.fields]
        for name in origins:
            if name not in schema.field_index:
                raise DataError(f"{name} is not a valid field name")
        indices = [schema.field_index[name] for name in origins]
        sources = [schema.fields[index] for index in indices]
        pick = picker(indices)
        pairs = list(zip(changed.fields, sources, strict=True))
        if any(field.schema is not source.schema for field, source in pairs):
            return changed, lambda values: self._crossed(pairs, pick(values))
        settle = settler(sources, defaults=self._defaults, into=changed.fields)

        def run(values: Values) -> Values:
            found = pick(values)
            settle(found)
            return found

        return changed, run

    def _crossed(self, pairs: Iterable[tuple[Field, Field]], values: Values) -> Values:
        """Values of other fields than those they go to, each put as ``Struct.put`` does."""
        for n, (field, source) in enumerate(pairs):
            if values[n] is None and self._defaults:
                values[n] = source.schema.default_value
            validate_value(field.schema, values[n], f'field: "{field.name}"', own=source.schema)
        return values

    def convert_map(self, value: dict[str, Any]) -> dict[str, Any]:
        """The entries that stay, under their new names."""
        names = self._renames
        return {names.get(k, k): v for k, v in value.items() if self._stays(k)}


class ReplaceFieldKey(ReplaceField):
    """Of the key."""

    is_key = True


class ReplaceFieldValue(ReplaceField):
    """Of the value."""
