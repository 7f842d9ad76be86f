"""The PostgreSQL source's keys: Debezium's, and a few of the engine's own.

One departure: ``plugin.name`` defaults to pgoutput, the only plug-in that is read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cdc.config import REQUIRED, ConfigDef, Key, at_least, between, grouped, inert, refused
from cdc.sourceconfig import (
    BOOLEAN,
    CLASS,
    CONNECTOR_KEYS,
    EVENT_KEYS,
    INT,
    LONG,
    PASSWORD,
    SCHEMA,
    SHORT,
    SPI,
    STRING,
    exclusive,
    queue_above_batch,
    regex_list,
)

# libpq's parameters that may be given as ``driver.<name>``, where Debezium passes JDBC's.
# "options" is missing: the engine fixes every session's settings itself.
LIBPQ: Final = (
    "application_name", "channel_binding", "connect_timeout", "gssencmode", "hostaddr",
    "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "krbsrvname",
    "load_balance_hosts", "passfile", "require_auth", "service", "sslcertmode", "sslcrl",
    "sslcrldir", "sslnegotiation", "sslsni", "ssl_max_protocol_version",
    "ssl_min_protocol_version", "target_session_attrs", "tcp_user_timeout",
)  # fmt: skip

ONLY_PGOUTPUT: Final = (
    "Only pgoutput is read; it is part of every server since version 10 and gives the same events."
)
AHEAD: Final = (
    "It would step over the changes between the offset and the slot; snapshot.mode=when_needed "
    "takes a new snapshot instead."
)
DEFAULT_SLOT: Final = "debezium"
CONSISTENT: Final = "The slot's exported snapshot is always read, as repeatable read, lock-free."


def slot_name(value: Any) -> str | None:
    """The server's rule for names of replication slots."""
    if re.fullmatch(r"[a-z0-9_]{1,63}", value):
        return None
    return "a slot's name is 1 to 63 lower-case letters, digits and underscores"


def stream_params(text: str) -> dict[str, str]:
    """``k=v;k=v`` as a mapping. Raises ValueError where a part is not of that form."""
    parts = [part.strip() for part in text.split(";") if part.strip()]
    pairs = [part.partition("=") for part in parts]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise ValueError("parameters are written as name=value;name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}


# What the decoder cannot follow or would read nothing with, and the values that change nothing.
_FIXED_PARAMS: Final = {
    "proto_version": ("1",),
    "streaming": ("off", "false"),
    "binary": ("off", "false"),
    "two_phase": ("off", "false"),
    "publication_names": (),
}


def _stream_params(value: Any) -> str | None:
    try:
        given = stream_params(value)
    except ValueError as error:
        return str(error)
    for name, found in given.items():
        if found not in _FIXED_PARAMS.get(name, (found,)):
            own = " (publication.name names it)" if name == "publication_names" else ""
            return f"{name} is fixed{own}: other messages of pgoutput are not read"
    return None


def placeholder(value: Any) -> str | None:
    """Either a text, or bytes written as ``hex:…``."""
    if value.startswith("hex:"):
        try:
            bytes.fromhex(value[4:])
        except ValueError:
            return "what follows hex: is not hexadecimal"
    return None


def _key_columns(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    text = values.get("message.key.columns")
    for part in (text or "").split(";"):
        table, colon, columns = part.rpartition(":")
        if part.strip() and not (table.strip() and colon and columns.strip()):
            key, reason = "message.key.columns", "keys are written as s.table:col1,col2;s.other:col"
            yield key, f"Invalid value {text} for configuration {key}: {reason}"


CONNECTION_KEYS = (
    Key("database.hostname", STRING, REQUIRED, "Host, or folder of a socket.", importance="HIGH"),
    Key("database.port", INT, 5432, "Port.", importance="HIGH", validator=between(1, 65535)),
    Key("database.user", STRING, REQUIRED, "A role that may replicate.", importance="HIGH"),
    Key("database.password", PASSWORD, None, "Its password.", importance="HIGH"),
    Key("database.dbname", STRING, REQUIRED, "The database to capture.", importance="HIGH"),
    Key(
        "database.sslmode",
        STRING,
        "prefer",
        "Whether the connection is encrypted, and how far the server is checked.",
        choices=("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    ),
    Key("database.sslcert", STRING, None, "File of the client's certificate."),
    Key("database.sslpassword", PASSWORD, None, "Password of the client's key."),
    Key("database.sslrootcert", STRING, None, "File of the trusted root certificates."),
    Key("database.sslkey", STRING, None, "File of the client's key, as PEM."),
    inert(
        "database.sslfactory",
        STRING,
        None,
        "Java class that makes TLS sockets.",
        "TLS is libpq's: set database.sslmode and database.sslrootcert.",
    ),
    Key("database.tcpKeepAlive", BOOLEAN, True, "Whether TCP looks for dead connections."),
    inert(
        "database.query.timeout.ms",
        INT,
        600000,
        "Longest run of a query.",
        "The engine sets its sessions' time-outs itself.",
        importance="LOW",
    ),
    refused(
        "database.initial.statements",
        STRING,
        None,
        "Statements for every new connection.",
        "Not implemented, and ignoring them could read other data; use ALTER ROLE … SET.",
        importance="LOW",
    ),
    refused("database.connection.factory.class", CLASS, None, "Makes connections.", SPI),
    Key(
        "driver.<libpq parameter>",
        STRING,
        None,
        "A connection parameter of libpq, such as driver.connect_timeout.",
        importance="LOW",
        pattern=rf"driver\.({'|'.join(LIBPQ)})",
    ),
    inert(
        "driver.<any other>",
        STRING,
        None,
        "A connection parameter of the JDBC driver.",
        "There is no JDBC driver; libpq's parameters are understood, as driver.connect_timeout.",
        importance="LOW",
        pattern=r"driver\..+",
    ),
)

REPLICATION_KEYS = (
    Key(
        "plugin.name",
        STRING,
        "pgoutput",
        "Logical decoding plug-in (Debezium's default is decoderbufs).",
        choices=("pgoutput",),
        refused_values=dict.fromkeys(
            ("decoderbufs", "wal2json", "wal2json_rds", "wal2json_streaming"), ONLY_PGOUTPUT
        ),
    ),
    Key("slot.name", STRING, DEFAULT_SLOT, "Replication slot.", validator=slot_name),
    Key("publication.name", STRING, "dbz_publication", "Publication."),
    Key(
        "publication.autocreate.mode",
        STRING,
        "all_tables",
        "How a missing publication is created.",
        choices=("all_tables", "filtered", "disabled", "no_tables"),
    ),
    Key("publish.via.partition.root", BOOLEAN, False, "Changes under the partitioned table."),
    refused(
        "replica.identity.autoset.values",
        STRING,
        None,
        "Replica identities to set.",
        "Not implemented, and ignoring it would leave out parts of before images; use "
        "ALTER TABLE … REPLICA IDENTITY.",
    ),
    Key(
        "slot.drop.on.stop",
        BOOLEAN,
        False,
        "Whether an orderly stop drops the slot.",
        aliases=("slot.drop_on_stop",),
    ),
    Key("slot.failover", BOOLEAN, False, "A slot that standbys keep (PostgreSQL 17)."),
    Key(
        "slot.stream.params",
        STRING,
        None,
        "Further options of the plug-in: name=value;name=value.",
        importance="LOW",
        validator=_stream_params,
    ),
    Key(
        "slot.max.retries",
        INT,
        6,
        "Tries for a busy slot.",
        validator=at_least(0),
        importance="LOW",
    ),
    Key(
        "slot.retry.delay.ms",
        LONG,
        10000,
        "Wait between them.",
        validator=at_least(0),
        importance="LOW",
    ),
    inert("internal.create.slot.command.timeout", LONG, 90, "Time-out, in seconds."),
    Key(
        "status.update.interval.ms",
        INT,
        10000,
        "Time between confirmations to the server.",
        validator=at_least(1),
    ),
    Key(
        "lsn.flush.mode",
        STRING,
        "connector",
        "Who confirms what was stored. An idle slot moves on in both modes.",
        importance="LOW",
        aliases=("flush.lsn.source",),
        choices=("connector", "connector_and_driver"),
        value_aliases={"true": "connector", "false": "manual"},
        refused_values={"manual": "The slot is always moved on when changes are on disk."},
        effect="inert",
        note="The engine confirms what is on disk, in both modes, and moves an idle slot on.",
    ),
    inert("lsn.flush.timeout.ms", LONG, 30000, "Longest wait for a confirmation."),
    inert("lsn.flush.timeout.action", STRING, "fail", "What happens after that wait."),
    Key(
        "offset.mismatch.strategy",
        STRING,
        "no_validation",
        "When slot and stored offset differ. Streaming always continues at the offset, and a "
        "slot ahead of it is an error, unless snapshot.mode=when_needed.",
        choices=("no_validation", "trust_offset"),
        refused_values={"trust_slot": AHEAD, "trust_greater_lsn": AHEAD},
        effect="inert",
        note="Streaming always continues at the offset, with both strategies.",
    ),
    refused(
        "internal.slot.seek.to.known.offset.on.start",
        BOOLEAN,
        False,
        "Older form of offset.mismatch.strategy.",
        "Use offset.mismatch.strategy.",
    ),
    refused(
        "xmin.fetch.interval.ms",
        LONG,
        0,
        "Time between looks at the slot's xmin, for source.xmin.",
        "Not implemented yet, and ignoring it would leave source.xmin empty.",
    ),
    regex_list("message.prefix.include.list", "Prefixes of logical messages to keep."),
    regex_list("message.prefix.exclude.list", "Prefixes of logical messages to leave out."),
    inert("schema.refresh.mode", STRING, "columns_diff", "For other plug-ins only."),
)

VALUE_KEYS = (
    Key(
        "time.precision.mode",
        STRING,
        "adaptive",
        "How dates and times without a zone appear.",
        choices=(
            "adaptive",
            "adaptive_time_microseconds",
            "connect",
            "isostring",
            "microseconds",
            "nanoseconds",
        ),
    ),
    Key(
        "hstore.handling.mode",
        STRING,
        "json",
        "How hstore appears.",
        choices=("json", "map"),
        importance="LOW",
    ),
    Key(
        "interval.handling.mode",
        STRING,
        "numeric",
        "How intervals appear.",
        importance="LOW",
        choices=("numeric", "string"),
    ),
    Key("money.fraction.digits", SHORT, 2, "Scale of money.", validator=at_least(0)),
    Key(
        "unavailable.value.placeholder",
        STRING,
        "__debezium_unavailable_value",
        "Stands for a TOASTed value that the server did not send.",
        aliases=("toasted.value.placeholder",),
        validator=placeholder,
    ),
)

SNAPSHOT_KEYS = (
    Key(
        "snapshot.chunk.rows",
        LONG,
        50_000,
        "About so many rows are read, stored and resumed together.",
        validator=at_least(1),
    ),
    inert(
        "snapshot.isolation.mode",
        STRING,
        "serializable",
        "Isolation of the snapshot's transactions.",
        CONSISTENT,
        importance="LOW",
        choices=("serializable", "repeatable_read", "read_committed", "read_uncommitted"),
    ),
    Key(
        "snapshot.locking.mode",
        STRING,
        "none",
        "Locks during the snapshot.",
        importance="LOW",
        choices=("none", "shared"),
        refused_values={"custom": SPI},
        effect="inert",
        note=CONSISTENT,
    ),
)

FILTER_KEYS = (
    regex_list(
        "schema.include.list", "Schemas to keep.", aliases=("schema.whitelist",), importance="HIGH"
    ),
    regex_list("schema.exclude.list", "Schemas to leave out.", aliases=("schema.blacklist",)),
    refused(
        "sourceinfo.struct.maker",
        CLASS,
        "io.debezium.connector.postgresql.PostgresSourceInfoStructMaker",
        "Java class that builds the source block.",
        SPI,
        importance="LOW",
    ),
    Key(
        "topic.naming.strategy",
        CLASS,
        "io.debezium.schema.SchemaTopicNamingStrategy",
        "How topics are named.",
        choices=("io.debezium.schema.SchemaTopicNamingStrategy",),
        refused_values={
            f"io.debezium.schema.{kind}TopicNamingStrategy": SCHEMA.replace("schemas", "topics")
            for kind in (
                "Default", "SchemaRegex", "DefaultRegex", "SchemaUnicode", "DefaultUnicode",
            )
        },
    ),
)  # fmt: skip

CONFIG = ConfigDef(
    (
        *grouped("Postgres", (*CONNECTION_KEYS, *REPLICATION_KEYS)),
        *grouped("Connector", (*CONNECTOR_KEYS, *VALUE_KEYS, *SNAPSHOT_KEYS)),
        *grouped("Events", (*EVENT_KEYS, *FILTER_KEYS)),
    ),
    checks=(
        exclusive(
            ("schema.include.list", "schema.exclude.list"),
            ("table.include.list", "table.exclude.list"),
            ("column.include.list", "column.exclude.list"),
            ("message.prefix.include.list", "message.prefix.exclude.list"),
        ),
        queue_above_batch,
        _key_columns,
    ),
)
