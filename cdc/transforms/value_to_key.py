"""ValueToKey: a new key of some of the value's fields."""

from __future__ import annotations

from typing import Any

from cdc.config import Config, ConfigDef
from cdc.record import Record
from cdc.transforms import options
from cdc.transforms.base import (
    PLANS_MAX,
    Plan,
    Values,
    checked,
    picker,
    require_map,
    require_struct,
    settler,
    with_key,
)
from schemas import DataError, Schema, Struct

PURPOSE = "copying fields from value to key"


class ValueToKey:
    """The key is a struct without a name, its fields in the order of the option."""

    CONFIG = ConfigDef(
        (
            options.names(
                "fields", "Field names on the record value to extract as the record key."
            ),
            options.replace_null(),
        ),
        checks=(options.named("fields"),),
    )

    def __init__(self, config: Config) -> None:
        self._fields: tuple[str, ...] = config["fields"]
        self._defaults: bool = config[options.REPLACE_NULL]
        self._plans: dict[int, Plan] = {}

    def apply(self, record: Record) -> Record:
        """The record with its new key. Raises DataError for a null value."""
        schema = record.value_schema
        if schema is None:
            plain: dict[str, Any] = require_map(record.value, PURPOSE)
            return with_key(record, None, {name: plain.get(name) for name in self._fields})
        value = require_struct(record.value, schema, PURPOSE)
        plan = self._plans.get(id(schema)) or self._plan(schema)
        return with_key(record, plan.schema, Struct(plan.schema, plan.run(value.values)))

    def _plan(self, schema: Schema) -> Plan:
        for name in self._fields:
            if name not in schema.field_index:
                raise DataError(f"Field does not exist: {name}")
        indices = [schema.field_index[name] for name in self._fields]
        key = Schema("struct", fields=checked(schema.fields[i] for i in indices))
        pick = picker(indices)
        settle = settler(key.fields, defaults=self._defaults)

        def run(values: Values) -> Values:
            found = pick(values)
            settle(found)
            return found

        if len(self._plans) >= PLANS_MAX:
            del self._plans[next(iter(self._plans))]
        self._plans[id(schema)] = plan = Plan(schema, key, run)
        return plan
