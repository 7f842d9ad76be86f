"""Tables → event schemas: topic, key, row and source block as Debezium names them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import orjson

from cdc.errors import ConfigError
from cdc.postgres.topics import adjust_name
from cdc.postgres.values import ColumnPlan
from schemas import EventSchema, Field, Schema, TableId, TableSchema

CONNECTOR = "postgresql"
# What we are compatible with; consumers read it from every event.
VERSION = "3.6.3.Final"

SOURCE = Schema(
    "struct",
    name="io.debezium.connector.postgresql.Source",
    version=1,
    fields=(
        Field("version", Schema("string")),
        Field("connector", Schema("string")),
        Field("name", Schema("string")),
        Field("ts_ms", Schema("int64")),
        Field(
            "snapshot",
            Schema(
                "string",
                optional=True,
                name="io.debezium.data.Enum",
                version=1,
                parameters={
                    "allowed": "true,first,first_in_data_collection,last_in_data_collection,"
                    "last,false,incremental"
                },
                default="false",
            ),
        ),
        Field("db", Schema("string")),
        Field("sequence", Schema("string", optional=True)),
        Field("ts_us", Schema("int64", optional=True)),
        Field("ts_ns", Schema("int64", optional=True)),
        Field("schema", Schema("string")),
        Field("table", Schema("string")),
        Field("txId", Schema("int64", optional=True)),
        Field("lsn", Schema("int64", optional=True)),
        Field("xmin", Schema("int64", optional=True)),
        Field("origin", Schema("string", optional=True)),
        Field("origin_lsn", Schema("int64", optional=True)),
    ),
)
# Fields that vary by row or transaction, with the placeholder of each.
_VARYING = {
    "ts_ms": "%(ts_ms)d",
    "ts_us": "%(ts_us)d",
    "ts_ns": "%(ts_ns)d",
    **{
        name: f"%({name})b"
        for name in ("snapshot", "sequence", "txId", "lsn", "xmin", "origin", "origin_lsn")
    },
}


@dataclass(frozen=True)
class EventOptions:
    """What the events of one connector have in common."""

    server: str
    database: str
    schema_name_adjustment_mode: str = "none"
    field_name_adjustment_mode: str = "none"
    version: str = VERSION


def build_event_schema(
    table: TableSchema,
    plans: Sequence[ColumnPlan],
    *,
    topic: str,
    options: EventOptions,
    key: Sequence[str] | None = None,
    excluded: Collection[str] = (),
) -> EventSchema:
    """The schema of a table's events.

    ``plans`` are of the columns that have a form in events, in column order, under the names
    of the table. ``key`` replaces the table's key (``message.key.columns``); ``excluded``
    columns stay out of the row, not out of the key. Raises ConfigError for a key column the
    table does not have.
    """
    by_name = {plan.name: plan for plan in plans}
    row = [plan for plan in plans if plan.name not in excluded]
    for name in key or ():
        if name not in table.column_names:
            raise ConfigError(f"{table.id} has no column {name}", key="message.key.columns")
    names = table.key if key is None else tuple(key)
    key_plans = [by_name[name] for name in names if name in by_name]
    return EventSchema(
        topic=topic,
        table=table.id,
        connector=CONNECTOR,
        server=options.server,
        # A key all of whose columns are unmapped is an empty struct in Debezium too.
        key=_struct(f"{topic}.Key", key_plans, options) if names else None,
        row=_struct(f"{topic}.Value", row, options).as_optional(),
        source=_source_schema(options),
        source_template=source_template(table.id, options),
    )


def build_message_schema(
    *, topic: str, options: EventOptions, binary_handling_mode: str = "bytes"
) -> EventSchema:
    """The schema of logical decoding messages (op ``m``)."""
    content = Schema("bytes" if binary_handling_mode == "bytes" else "string", optional=True)
    prefix = Field("prefix", Schema("string", optional=True))
    name = f"io.debezium.connector.{CONNECTOR}.Message"
    table = TableId(options.database, "", "")
    return EventSchema(
        topic=topic,
        table=table,
        connector=CONNECTOR,
        server=options.server,
        key=Schema("struct", name=f"{name}Key", version=1, fields=(prefix,)),
        row=Schema("struct", name=name, version=1, fields=(prefix, Field("content", content))),
        source=_source_schema(options),
        source_template=source_template(table, options),
        kind="message",
    )


def source_template(table: TableId, options: EventOptions) -> str:
    """The source block's JSON as a ``%`` template, all that is constant in place."""
    constants = {
        "version": options.version,
        "connector": CONNECTOR,
        "name": options.server,
        "db": options.database,
        "schema": table.schema,
        "table": table.table,
    }
    members = []
    for member in SOURCE.fields:
        value = _VARYING.get(member.name)
        if value is None:
            value = orjson.dumps(constants[member.name]).decode().replace("%", "%%")
        members.append(f'"{member.name}":{value}')
    return "{" + ",".join(members) + "}"


def _source_schema(options: EventOptions) -> Schema:
    mode = options.schema_name_adjustment_mode
    return replace(SOURCE, name=adjust_name(SOURCE.name or "", mode))


def field_name(column: str, options: EventOptions) -> str:
    """What a column is called in schemas and in rows."""
    return adjust_name(column, options.field_name_adjustment_mode, dots=False)


def _struct(name: str, plans: Sequence[ColumnPlan], options: EventOptions) -> Schema:
    return Schema(
        "struct",
        name=adjust_name(name, options.schema_name_adjustment_mode),
        fields=tuple(Field(field_name(plan.name, options), plan.schema) for plan in plans),
    )
