"""Flatten: nested structs and maps as one, names joined by a delimiter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from cdc.config import Config, ConfigDef
from cdc.transforms import options
from cdc.transforms.base import Run, StructTransform, Values, fields_of, null_text, rebuilt
from schemas import DataError, Field, Moment, Schema, Struct
from schemas.codec import dumper
from schemas.java import class_name
from schemas.model import type_name

Spread = Callable[[Values, Values], None]


class Flatten(StructTransform):
    """Arrays stay as they are; maps in a struct are refused."""

    PURPOSE = "flattening"
    CONFIG = ConfigDef(
        (
            options.text(
                "delimiter",
                "Delimiter to insert between field names from the input record.",
                default=".",
            ),
        )
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._delimiter: str = config["delimiter"]

    def _name(self, prefix: str, name: str) -> str:
        return prefix + self._delimiter + name if prefix else name

    def plan(self, schema: Schema) -> tuple[Schema, Run]:
        """Leaves take over optionality and defaults of the structs they were in."""
        default = schema.default_value
        changed = rebuilt(schema, self._leaves(schema, "", schema.optional, default))
        spread, _ = self._spread(schema, "", schema.optional)

        def run(values: Values) -> Values:
            found: Values = []
            spread(values, found)
            return found

        return changed, run

    def _leaves(
        self, schema: Schema, prefix: str, optional: bool, parent: Struct | None
    ) -> Iterator[Field]:
        for field in fields_of(schema):
            name = self._name(prefix, field.name)
            of = field.schema
            optional_here = optional or of.optional
            default = of.default_value
            if default is None and parent is not None:
                default = parent.get(field.name)
            if of.type == "struct":
                yield from self._leaves(of, name, optional_here, default)
            elif of.type == "map":
                raise self._refused(name, type_name(of), "with schemas")
            else:
                yield Field(name, _leaf(of, optional_here, default))

    def _spread(self, schema: Schema, prefix: str, optional: bool) -> tuple[Spread, int]:
        """Appends a struct's leaves to a list; and how many there are.

        A null is refused only where the leaf is required: where no struct around it is optional.
        """
        plan: list[tuple[Any, str | None, Spread | None, int]] = []
        for field in schema.fields:
            name = self._name(prefix, field.name)
            of = field.schema
            optional_here = optional or of.optional
            if of.type == "struct":
                inner, count = self._spread(of, name, optional_here)
                plan.append((None, None, inner, count))
            else:
                refusal = None if optional_here else null_text(name, of)
                plan.append((of.default_value, refusal, None, 1))

        def spread(values: Values, found: Values) -> None:
            for value, (default, refusal, inner, count) in zip(values, plan, strict=True):
                if inner is not None:
                    if value is None:
                        found.extend([None] * count)
                    else:
                        inner(value.values, found)
                elif value is not None:
                    found.append(value)
                elif default is None and refusal is not None:
                    raise DataError(refusal)
                else:
                    found.append(default)

        return spread, sum(count for *_, count in plan)

    def convert_map(self, value: dict[str, Any]) -> dict[str, Any]:
        """Nested maps as one."""
        found: dict[str, Any] = {}
        self._flatten(value, "", found)
        return found

    def _flatten(self, value: dict[str, Any], prefix: str, found: dict[str, Any]) -> None:
        for key, each in value.items():
            name = self._name(prefix, key)
            if isinstance(each, dict):
                self._flatten(each, name, found)
            elif isinstance(each, Moment):
                raise DataError(
                    f"Flatten transformation was passed a value of type class {class_name(each)} "
                    "which is not supported by Connect's data API"
                )
            elif isinstance(each, Struct):
                raise self._refused(name, f"class {class_name(each)}", "without schemas")
            else:
                found[name] = each

    @staticmethod
    def _refused(name: str, kind: str, how: str) -> DataError:
        return DataError(
            f"Flatten transformation does not support {kind} for record {how} (for field {name})."
        )


def _leaf(schema: Schema, optional: bool, default: Any) -> Schema:
    dump = dumper(schema)
    plain = default if dump is None or default is None else dump(default)
    return replace(schema, optional=optional, default=plain)


class FlattenKey(Flatten):
    """Of the key."""

    is_key = True


class FlattenValue(Flatten):
    """Of the value."""
