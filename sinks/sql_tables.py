"""Tables of the SQL sink: from an event's schema to a table that can take its rows."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import orjson

from cdc.api import PositionMembers
from cdc.errors import ConfigError, SinkRejected
from schemas import EventSchema, Field, Schema
from sinks.sql_config import is_debeziums, may_create, may_evolve
from sinks.sql_dialect import DOT, OFFSETS, UPSERT, Column, Dialect, Statement, TableName, quote

# pk.mode=kafka: topic, partition and offset of the record as columns (facts: connect §8.2).
KAFKA_FIELDS = ("__connect_topic", "__connect_partition", "__connect_offset")
KAFKA_TYPES = (Schema("string"), Schema("int32"), Schema("int64"))

log = logging.getLogger(__name__)

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
    scalar: str = ""  # the column of a key that is no struct
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


def claims_text(sources: Mapping[TableName, tuple[str, str]]) -> str | None:
    """What has become which table, as it is kept beside the offset; None: nothing yet."""
    rows = [[*table, *of] for table, of in sources.items()]
    return orjson.dumps(rows).decode() if rows else None


def claims_of(text: str | None) -> dict[TableName, tuple[str, str]]:
    """The inverse of :func:`claims_text`."""
    rows = orjson.loads(text) if text else []
    return {TableName(schema, name): (form, source) for schema, name, form, source in rows}


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

    def __init__(
        self,
        connection: Any,
        dialect: Dialect,
        config: Mapping[str, Any],
        sources: dict[TableName, tuple[str, str]],
        origin: Callable[[], PositionMembers],
    ) -> None:
        """``sources``: what has become which table, as this connector has seen it before.

        ``origin``: of which database the journal at work is.
        """
        self._connection, self._dialect, self._config = connection, dialect, config
        self._sources, self._origin = sources, origin
        self._plans: dict[str, TablePlan | None] = {}
        self._debeziums = is_debeziums(config)
        self._name = str if config["quote.sql.identifiers"] == "ALWAYS" else unquoted

    def plan(self, schema: EventSchema) -> TablePlan | None:
        """None for events that are no rows: logical decoding messages."""
        if schema.fingerprint not in self._plans:
            made = None if schema.kind != "table" else self._make(schema)
            self._plans[schema.fingerprint] = made
        return self._plans[schema.fingerprint]

    def _make(self, schema: EventSchema) -> TablePlan:
        table = self._table(schema)
        self._refuse_itself(table, schema)
        sql_name = ".".join(quote(part) for part in table if part is not None)
        fields, keys = self._fields(schema, table.name)
        columns = [self._column(f, f.name in keys) for f in fields]
        self._check_names([table.name, *(f.name for f in fields)], sql_name)
        self._check_columns(columns, sql_name)
        present = self._dialect.describe(self._connection, table)
        if present is None:
            present = self._create(table, sql_name, columns)
        elif keys and self._config["insert.mode"] == UPSERT:
            self._check_key(table, sql_name, columns)
        columns = self._matched(table, sql_name, columns, fields, present)
        names = tuple(f.name for f in schema.row.fields)
        kafka = self._config["pk.mode"] == "kafka"
        scalar = schema.key is not None and schema.key.type != "struct"
        scalar = scalar and self._config["pk.mode"] == "record_key"
        whole = not kafka and set(keys) == set(schema.key_names)
        return TablePlan(
            name=sql_name,
            sql_name=sql_name,
            schema=schema,
            columns=tuple(columns),
            key_fields=keys,
            plain_key=whole and self._config["pk.mode"] == "record_key",
            key_in_row=not kafka and not scalar and set(keys) <= set(names),
            field_names=names,
            kafka=keys if kafka else (),
            scalar=keys[0] if scalar else "",
        )

    def _table(self, schema: EventSchema) -> TableName:
        """The format's own dots separate, and the topic's; those in a table's name do not.

        To Debezium's class the topic's separate nothing either: they become underscores.
        """
        text = self._formatted(schema, schema.destination)
        topic = schema.destination.replace(".", "_") if self._debeziums else schema.destination
        written = self._formatted(schema, topic)
        self._refuse_database(self._dialect.database_of(written), text, schema)
        schema_name, name = self._dialect.table_name(written)
        table = TableName(schema_name and self._name(schema_name), self._name(name))
        self._claim(table, text, str(schema.table) if schema.table.table else schema.destination)
        return table

    def _formatted(self, schema: EventSchema, topic: str) -> str:
        known = {
            "topic": topic,
            "source.table": schema.table.table.replace(".", DOT),
            "source.schema": schema.table.schema.replace(".", DOT),
            "source.db": schema.table.catalog.replace(".", DOT),
        }
        return _PLACE.sub(lambda found: known[found[1]], self._config["table.name.format"])

    def _refuse_database(self, database: str, text: str, schema: EventSchema) -> None:
        """A prefix meant for a table's name must not go lost with the database's part.

        Only the topic's own may: ``${topic}`` names no database of the target (facts: connect
        §8.2). Confluent's sink passes three parts on, and PostgreSQL refuses other databases.
        """
        of_topic = schema.destination.rpartition(".")[0].rpartition(".")[0]
        own = self._dialect.database(self._connection)
        if database and database not in (own, schema.server, of_topic):
            raise ConfigError(
                f"{text.replace(DOT, '.')} would be a table in database {database}, and the target"
                f" is database {own}: cross-database references are not possible",
                key="table.name.format",
                remedy="Of a name with dots the last two parts are schema and table. Write, say,"
                " cdc_${source.table}, or backup.${source.table} for a schema of its own",
            )

    def _refuse_itself(self, table: TableName, schema: EventSchema) -> None:
        """What was written would be captured, and written again, without end."""
        relation = self._dialect.relation(self._connection, table)
        if relation is None or relation != (schema.table.schema, schema.table.table):
            return
        origin = self._origin()
        same = self._dialect.is_origin(self._connection, origin)
        name = ".".join(relation)
        if same:
            raise ConfigError(
                f"table {name} of the target is the very table that its rows come from: a feedback"
                " loop",
                key="table.name.format",
                remedy="Name another table or schema, say copy.${source.table}, or another database"
                " in connection.url. If the server is a copy of the source's disk, drop the slot"
                f" {origin.get('slot')} there",
            )
        if same is None:
            log.warning(
                "table %s: the target has the system identifier and the database of its source, but"
                " not the slot %s. Unless it is a copy of the source's disk, this is a feedback"
                " loop: set table.name.format",
                name, origin.get("slot"),
            )  # fmt: skip

    def _claim(self, table: TableName, text: str, source: str) -> None:
        """Two names must not become one; that the format itself makes one of them may be meant."""
        fold = self._dialect.fold
        folded = TableName(table.schema and fold(table.schema), fold(table.name))
        if folded == (None, OFFSETS):
            raise SinkRejected(
                f"the table of {source} would be {OFFSETS}, where this sink keeps its offsets",
                remedy="Set table.name.format, or leave the topic out",
            )
        first_text, first = self._sources.setdefault(folded, (text, source))
        if first_text != text and first == source:  # the format was written in another way
            self._sources[folded] = (text, source)
        elif first_text != text:
            raise SinkRejected(
                f"{first} and {source} would both be table {quote(table.name)} in the target",
                remedy="Set table.name.format so that their names differ by more than case and"
                " dots, or leave one of the topics out. If the table was renamed at the source,"
                f" forget its old name: UPDATE {OFFSETS} SET tables = NULL in the target",
            )
        if first != source:
            log.warning("%s and %s are both copied into table %s", first, source, table.name)

    def _check_names(self, names: Sequence[str], table: str) -> None:
        most = self._dialect.name_bytes_max
        long = [name for name in names if most is not None and len(name.encode()) > most]
        if long:
            raise SinkRejected(
                f"table {table}: the name {quote(long[0])} has more than {most} bytes, and the"
                " target would cut it off",
                remedy="Choose a shorter one: table.name.format or RegexRouter for a table,"
                " ReplaceField for a column",
            )

    def _check_columns(self, columns: Sequence[Column], table: str) -> None:
        seen: dict[str, str] = {}
        for column in columns:
            other = seen.setdefault(self._dialect.fold(column.target), column.field)
            if other != column.field:
                raise SinkRejected(
                    f"table {table}: {other} and {column.field} would both be one column",
                    remedy="Leave one of them out (column.exclude.list at the source), rename it"
                    " (ReplaceField), or use a target that minds case, with"
                    " quote.sql.identifiers=ALWAYS",
                )

    def _check_key(self, table: TableName, sql_name: str, columns: Sequence[Column]) -> None:
        """An upsert needs a unique index, and one that is partial or deferrable is none for it."""
        found = self._dialect.keys(self._connection, table)
        names = [column.field for column in columns if column.key]
        wanted = {name.lower() for name in names}
        if found is not None and wanted not in [{n.lower() for n in key} for key in found]:
            raise SinkRejected(
                f"table {sql_name} has no primary key or unique index of {', '.join(names)}, which"
                " insert.mode=upsert needs",
                remedy="Give it one that is neither partial nor deferrable, or set pk.fields",
            )

    # --- columns ---

    def _fields(self, schema: EventSchema, table: str) -> tuple[list[Field], tuple[str, ...]]:
        """The fields to write, key columns first, and the names of the key's."""
        config = self._config
        mode, chosen, wanted = config["pk.mode"], config["pk.fields"], config["fields.whitelist"]
        row = {f.name: f for f in schema.row.fields}
        key = self._key_fields(schema)
        names: Sequence[str] = ()
        if mode == "kafka":
            names = chosen or KAFKA_FIELDS
            key = dict(zip(names, map(Field, names, KAFKA_TYPES), strict=True))
        elif mode == "record_key":
            if not key:
                raise SinkRejected(
                    f"PK mode for table '{table}' is RECORD_KEY, but record key schema is missing:"
                    f" events of {schema.destination} have no key",
                    remedy="Give the source table a primary key, name its columns in"
                    " message.key.columns, leave the topic out, or set errors.tolerance=all with"
                    " errors.log.enable=true or dead letters to leave its rows out",
                )
            names = chosen or tuple(key)
        elif mode == "record_value":
            names, key = chosen or tuple(row), row
        missing = [name for name in names if name not in key]
        if missing:
            near = get_close_matches(missing[0].lower(), [name.lower() for name in key], 1, 0.5)
            meant = [name for name in key if name.lower() in near]
            raise ConfigError(
                f"PK mode for table '{table}' is {mode.upper()} with configured PK fields"
                f" [{', '.join(names)}], but record {mode.removeprefix('record_')} schema does not"
                f" contain field: {missing[0]}",
                key="pk.fields",
                remedy=f"{f'Did you mean {meant[0]}? ' if meant else ''}"
                f"Choose from {', '.join(key)}",
            )
        # A key column that column.exclude.list took out of the row is in the key all the same.
        fields = [key[name] for name in names]
        values = [f for n, f in row.items() if n not in names and (not wanted or n in wanted)]
        return fields + values, tuple(names)

    def _key_fields(self, schema: EventSchema) -> dict[str, Field]:
        if schema.key is None:
            return {}
        if schema.key.type == "struct":
            return {f.name: f for f in schema.key.fields}
        chosen = self._config["pk.fields"] or ()
        if len(chosen) != 1 and self._config["pk.mode"] == "record_key":
            raise ConfigError(
                "Need exactly one PK column defined since the key schema for records is a"
                f" primitive type, defined columns are: [{', '.join(chosen)}]",
                key="pk.fields",
                remedy=f"Name the column for the key of {schema.destination}",
            )
        return {name: Field(name, schema.key) for name in chosen}

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
        found = _assigned(columns, present)
        absent = [
            (column, item)
            for column, item in zip(columns, fields, strict=True)
            if column.field not in found
        ]
        if absent:
            self._evolve(sql_name, absent)
            present = self._dialect.describe(self._connection, table) or {}
            found = _assigned(columns, present)
            lacking = [column.field for column, _ in absent if column.field not in found]
            if lacking:
                raise SinkRejected(
                    f"table {sql_name}: {', '.join(lacking)} is there, and cannot be written",
                    remedy="Make it a column that is not generated, or leave it out"
                    " (fields.whitelist)",
                )
        matched = [
            replace(c, target=quote(found[c.field]), actual=present[found[c.field]])
            for c in columns
        ]
        return self._exact(table, sql_name, matched)

    def _exact(self, table: TableName, sql_name: str, columns: list[Column]) -> list[Column]:
        """Where the sink makes the tables, a value that they would round is refused, if it can be.

        Such a column was wide enough once: the source's was altered since. Where somebody else
        makes them, it may be meant.
        """
        narrow = self._dialect.narrow(self._connection, table, columns)
        makes = may_create(self._config) or may_evolve(self._config)
        if makes and self._dialect.refuses_narrow:
            return [replace(c, declared=narrow.get(c.field, "")) for c in columns]
        for column in columns:
            if column.field in narrow:
                log.warning(
                    "table %s: column %s is %s, which changes values of the source's %s",
                    sql_name, column.field, narrow[column.field], column.type.ddl,
                )  # fmt: skip
        return columns

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
                f"ALTER TABLE {sql_name} {self._dialect.add_column} {column.target}"
                f" {column.type.ddl}{text}"
            )


def _assigned(columns: Sequence[Column], present: Iterable[str]) -> dict[str, str]:
    """Field → column: by the exact name, else in any case, and no column for two fields."""
    found = {c.field: c.field for c in columns if c.field in present}
    free = {name.lower(): name for name in present if name not in found}
    for column in columns:
        name = free.get(column.field.lower())
        if column.field not in found and name is not None:
            found[column.field] = free.pop(column.field.lower())
    return found
