"""Tables of the SQL sink: from an event's schema to a table that can take its rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cdc.errors import ConfigError, SinkRejected
from schemas import EventSchema, Field, Schema
from sinks.sql_config import may_create, may_evolve
from sinks.sql_dialect import DOT, Column, Dialect, Statement, TableName, quote

# pk.mode=kafka: topic, partition and offset of the record as columns (facts: connect §8.2).
KAFKA_FIELDS = ("__connect_topic", "__connect_partition", "__connect_offset")
KAFKA_TYPES = (Schema("string"), Schema("int32"), Schema("int64"))

_PLAIN = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_PLACE = re.compile(r"\$\{(topic|source\.(?:table|schema|db))\}")


@dataclass(slots=True)
class TablePlan:
    """How the events of one schema are written to one table.

    ``key_fields`` are field names; ``key_in_row`` says that the row holds them all and that
    they are the whole record key, so that nothing needs to be parsed to find or add them.
    """

    name: str
    sql_name: str
    schema: EventSchema
    columns: tuple[Column, ...]
    key_fields: tuple[str, ...]
    plain_key: bool
    key_in_row: bool
    field_names: tuple[str, ...]
    kafka: tuple[str, ...] = ()
    statements: dict[tuple[str, tuple[int, ...]], Statement] = field(default_factory=dict)

    def statement(self, dialect: Dialect, kind: str, unsent: tuple[int, ...] = ()) -> Statement:
        """Planned once per kind and set of columns that were not sent."""
        found = self.statements.get((kind, unsent))
        if found is None:
            missing = {self.field_names[i] for i in unsent}
            columns = [c for c in self.columns if c.key or c.field not in missing]
            found = dialect.statement(kind, self.sql_name, columns)
            self.statements[(kind, unsent)] = found
        return found


def unquoted(name: str) -> str:
    """What a target makes of a name without quotes; one that needs them could be any SQL.

    The result is quoted all the same: then a reserved word is a name too.
    """
    if not _PLAIN.fullmatch(name):
        raise SinkRejected(
            f"the name {quote(name)} needs quotes, and quote.sql.identifiers is NEVER",
            remedy="Set quote.sql.identifiers=ALWAYS, or leave the table or column out",
        )
    return name.lower()


class Tables:
    """Plans by schema; creates and extends tables where that is allowed.

    Lives as long as a connection: a rollback takes created tables with it.
    """

    def __init__(self, connection: Any, dialect: Dialect, config: Mapping[str, Any]) -> None:
        self._connection, self._dialect, self._config = connection, dialect, config
        self._plans: dict[str, TablePlan | None] = {}
        self._name = str if config["quote.sql.identifiers"] == "ALWAYS" else unquoted

    def plan(self, schema: EventSchema) -> TablePlan | None:
        """None for events that are no rows: logical decoding messages."""
        if schema.fingerprint not in self._plans:
            made = None if schema.kind != "table" else self._make(schema)
            self._plans[schema.fingerprint] = made
        return self._plans[schema.fingerprint]

    def _make(self, schema: EventSchema) -> TablePlan:
        table = self._table(schema)
        sql_name = ".".join(quote(part) for part in table if part is not None)
        fields, keys = self._fields(schema, sql_name)
        columns = [self._column(f, f.name in keys) for f in fields]
        present = self._dialect.describe(self._connection, table)
        if present is None:
            present = self._create(table, sql_name, columns)
        columns = self._matched(table, sql_name, columns, fields, present)
        names = tuple(f.name for f in schema.row.fields)
        kafka = self._config["pk.mode"] == "kafka"
        whole = not kafka and set(keys) == set(schema.key_names)
        return TablePlan(
            name=sql_name,
            sql_name=sql_name,
            schema=schema,
            columns=tuple(columns),
            key_fields=keys,
            plain_key=whole and self._config["pk.mode"] == "record_key",
            key_in_row=not kafka and set(keys) <= set(names),
            field_names=names,
            kafka=keys if kafka else (),
        )

    def _table(self, schema: EventSchema) -> TableName:
        """The format's own dots separate, and the topic's; those in a table's name do not."""
        known = {
            "topic": schema.destination,
            "source.table": schema.table.table.replace(".", DOT),
            "source.schema": schema.table.schema.replace(".", DOT),
            "source.db": schema.table.catalog.replace(".", DOT),
        }
        text = _PLACE.sub(lambda found: known[found[1]], self._config["table.name.format"])
        schema_name, name = self._dialect.table_name(text)
        return TableName(schema_name and self._name(schema_name), self._name(name))

    # --- columns ---

    def _fields(self, schema: EventSchema, table: str) -> tuple[list[Field], tuple[str, ...]]:
        """The fields to write, key columns first, and the names of the key's."""
        config = self._config
        mode, chosen, wanted = config["pk.mode"], config["pk.fields"], config["fields.whitelist"]
        row = {f.name: f for f in schema.row.fields}
        key = {f.name: f for f in schema.key.fields} if schema.key else {}
        names: Sequence[str] = ()
        if mode == "kafka":
            names = chosen or KAFKA_FIELDS
            key = dict(zip(names, map(Field, names, KAFKA_TYPES), strict=True))
        elif mode == "record_key":
            if not key:
                raise SinkRejected(
                    f"events of {schema.destination} have no key, and pk.mode is record_key",
                    remedy="Give the source table a primary key, name its columns in"
                    " message.key.columns, or leave the topic out",
                )
            names = chosen or tuple(key)
        elif mode == "record_value":
            names, key = chosen or tuple(row), row
        missing = [name for name in names if name not in key]
        if missing:
            raise ConfigError(
                f"{table} has no {', '.join(missing)} in its {mode.removeprefix('record_')}",
                key="pk.fields",
                remedy=f"Choose from {', '.join(key)}",
            )
        # A key column that column.exclude.list took out of the row is in the key all the same.
        fields = [key[name] for name in names]
        values = [f for n, f in row.items() if n not in names and (not wanted or n in wanted)]
        return fields + values, tuple(names)

    def _column(self, item: Field, key: bool) -> Column:
        type_ = self._dialect.column_type(item.schema)
        if key and type_.ddl == "json":  # json has no order, so the source's is jsonb
            type_ = type_._replace(ddl="jsonb")
        return Column(item.name, quote(self._name(item.name)), type_, type_.ddl, key)

    def _matched(
        self,
        table: TableName,
        sql_name: str,
        columns: list[Column],
        fields: list[Field],
        present: dict[str, str],
    ) -> list[Column]:
        """Columns with the table's names and types, after adding those it lacks."""
        by_lower = {name.lower(): name for name in reversed(present)}
        absent = [
            (column, item)
            for column, item in zip(columns, fields, strict=True)
            if column.field not in present and column.field.lower() not in by_lower
        ]
        if absent:
            self._evolve(sql_name, absent)
            present = self._dialect.describe(self._connection, table) or {}
            by_lower = {name.lower(): name for name in reversed(present)}
        matched = []
        for column in columns:
            exact = column.field in present
            name = column.field if exact else by_lower[column.field.lower()]
            matched.append(replace(column, target=quote(name), actual=present[name]))
        return matched

    # --- DDL, inside the transaction of the rows ---

    def _create(self, table: TableName, sql_name: str, columns: list[Column]) -> dict[str, str]:
        if not may_create(self._config):
            raise SinkRejected(
                f"table {sql_name} does not exist in the target",
                remedy="Create it, or set auto.create=true",
            )
        if table.schema is not None:
            self._dialect.create_schema(self._connection, table.schema)
        lines = [f"{c.target} {c.type.ddl}{' NOT NULL' if c.key else ''}" for c in columns]
        keys = ", ".join(c.target for c in columns if c.key)
        if keys:
            lines.append(f"PRIMARY KEY ({keys})")
        cursor = self._connection.cursor()
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {sql_name} ({', '.join(lines)})")
        return self._dialect.describe(self._connection, table) or {}

    def _evolve(self, sql_name: str, absent: list[tuple[Column, Field]]) -> None:
        names = ", ".join(column.field for column, _ in absent)
        if not may_evolve(self._config):
            raise SinkRejected(
                f"table {sql_name} has no column for {names}",
                remedy="Add the columns, or set auto.evolve=true",
            )
        if any(column.key for column, _ in absent):
            raise SinkRejected(
                f"table {sql_name} lacks key columns among {names}",
                remedy="Add them to its primary key: that is never done automatically",
            )
        cursor = self._connection.cursor()
        for column, item in absent:
            text = ""
            if item.schema.default is not None:
                # Rows that are there get what the source gave them, without events.
                literal = self._dialect.default(self._connection, column, item.schema.default)
                text = f" DEFAULT {literal}"
            cursor.execute(
                f"ALTER TABLE {sql_name} ADD COLUMN {column.target} {column.type.ddl}{text}"
            )
