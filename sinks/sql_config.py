"""The SQL sink's keys: Confluent's names, Debezium's as aliases where they mean the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from cdc.config import REQUIRED, ConfigDef, Key, Kind, at_least, grouped, inert

# Debezium's spelling of the two things its own sink can do about a missing column or table.
_EVOLUTION: Final = "schema.evolution"
_ONLY_UTC: Final = "Times are written in UTC here, whatever it says."


def _check(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    insert, keys = values["insert.mode"], values["pk.mode"]
    if insert in ("upsert", "update") and keys == "none":
        yield (
            "pk.mode",
            f"insert.mode={insert} needs to know a row's key: set pk.mode=record_key",
        )
    if values["delete.enabled"] and keys != "record_key":
        yield "delete.enabled", "Deletes support only pk.mode=record_key"
    if keys == "kafka" and len(values["pk.fields"] or ()) not in (0, 3):
        yield "pk.fields", "pk.mode=kafka needs three names: topic, partition, offset"


CONNECTION_KEYS: Final = (
    Key(
        "connection.url",
        default=REQUIRED,
        doc="jdbc:postgresql://…, jdbc:sqlite:…, or a URL of SQLAlchemy.",
        importance="HIGH",
    ),
    Key(
        "connection.user",
        doc="User, unless it stands in the URL.",
        importance="HIGH",
        synonyms=("connection.username",),
    ),
    Key("connection.password", Kind.PASSWORD, doc="Its password.", importance="HIGH"),
    inert(
        "dialect.name",
        Kind.STRING,
        None,
        "The target's kind of SQL.",
        "The URL says it.",
        importance="LOW",
    ),
)

WRITE_KEYS: Final = (
    Key(
        "insert.mode",
        default="insert",
        choices=("insert", "upsert", "update"),
        doc="What a row becomes. With insert every create, update and snapshot row is a new"
        " row; a copy needs upsert.",
        importance="HIGH",
    ),
    Key(
        "batch.size",
        Kind.INT,
        default=3000,
        doc="Rows per statement.",
        validator=at_least(1),
    ),
    Key(
        "delete.enabled",
        Kind.BOOLEAN,
        default=False,
        doc="Whether deletes and truncates reach the target.",
    ),
    inert(
        "truncate.enabled",
        Kind.BOOLEAN,
        False,
        "Whether truncates reach the target.",
        "Truncates follow delete.enabled.",
        importance="LOW",
    ),
    inert(
        "table.types",
        Kind.LIST,
        ("TABLE",),
        "Which kinds of relations may be written to.",
        "Any relation that takes rows will do.",
        importance="LOW",
    ),
)

MAPPING_KEYS: Final = (
    Key(
        "table.name.format",
        default="${topic}",
        doc="A table's name: ${topic}, ${source.schema}, ${source.table}, ${source.db}."
        " Of a name with dots the last two parts are schema and table, in PostgreSQL, and what"
        " stands before them is the topic's own beginning, or names the target's database; those"
        " of ${topic} are underscores with Debezium's class, as there, and in SQLite all are.",
        synonyms=("collection.name.format",),
    ),
    Key(
        "pk.mode",
        default="none",
        choices=("none", "kafka", "record_key", "record_value"),
        doc="Where the primary key comes from. With record_key a table without a key ends the"
        " task, or is left out under errors.tolerance=all with a log or dead letters.",
        importance="HIGH",
        synonyms=("primary.key.mode",),
    ),
    Key(
        "pk.fields",
        Kind.LIST,
        doc="Its columns; empty: all of the key (or of the value). One for a key that is no"
        " struct.",
        synonyms=("primary.key.fields",),
    ),
    Key("fields.whitelist", Kind.LIST, doc="Only these columns, and the key's."),
    inert(
        "db.timezone", Kind.STRING, "UTC", "Zone of times without one.", _ONLY_UTC, importance="LOW"
    ),
    inert(
        "date.timezone", Kind.STRING, "DB_TIMEZONE", "Zone of dates.", _ONLY_UTC, importance="LOW"
    ),
    inert(
        "database.time_zone",
        Kind.STRING,
        "UTC",
        "Debezium's db.timezone.",
        _ONLY_UTC,
        importance="LOW",
    ),
    inert(
        "replace.null.with.default",
        Kind.BOOLEAN,
        True,
        "Whether a null is written as its column's default.",
        "NULL stays NULL in a copy.",
        importance="LOW",
    ),
)

DDL_KEYS: Final = (
    Key("auto.create", Kind.BOOLEAN, default=False, doc="Create missing tables."),
    Key("auto.evolve", Kind.BOOLEAN, default=False, doc="Add missing columns."),
    Key(
        _EVOLUTION,
        default="none",
        choices=("none", "basic"),
        doc="Debezium's key: basic means auto.create and auto.evolve.",
    ),
    Key(
        "quote.sql.identifiers",
        default="ALWAYS",
        choices=("ALWAYS", "NEVER"),
        doc="Whether the target's names are quoted.",
    ),
)

RETRY_KEYS: Final = (
    Key(
        "max.retries",
        Kind.INT,
        default=10,
        doc="Attempts on a target out of reach; then the task restarts.",
        validator=at_least(0),
    ),
    Key(
        "retry.backoff.ms",
        Kind.INT,
        default=3000,
        doc="Wait between them.",
        validator=at_least(0),
    ),
)

OTHER_KEYS: Final = (
    inert(
        "trim.sensitive.log",
        Kind.BOOLEAN,
        False,
        "Whether row values are left out of the log.",
        "Row values are never logged.",
        importance="LOW",
    ),
    Key(
        "hibernate.<option>",
        doc="Of Debezium's JDBC sink.",
        effect="inert",
        note="There is no Hibernate here.",
        pattern=r"hibernate\..+",
    ),
)

CONFIG = ConfigDef(
    (
        *grouped("Connection", CONNECTION_KEYS),
        *grouped("Writes", WRITE_KEYS),
        *grouped("Data Mapping", MAPPING_KEYS),
        *grouped("DDL Support", DDL_KEYS),
        *grouped("Retries", RETRY_KEYS),
        *grouped("Others", OTHER_KEYS),
    ),
    checks=(_check,),
)


def is_debeziums(config: Mapping[str, Any]) -> bool:
    """Whether this was written for Debezium's JDBC sink."""
    return (config.get("connector.class") or "").strip().lower().startswith("io.debezium.")


def may_create(config: Mapping[str, Any]) -> bool:
    """Whether missing tables are created."""
    return bool(config["auto.create"] or config[_EVOLUTION] == "basic")


def may_evolve(config: Mapping[str, Any]) -> bool:
    """Whether missing columns are added."""
    return bool(config["auto.evolve"] or config[_EVOLUTION] == "basic")
