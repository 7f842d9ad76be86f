"""Debezium's keys that every log-based source shares, with Debezium's defaults.

A database's own ``config.py`` adds its keys to these. Groups and importance are Debezium's,
so that tools which draw forms from them look the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cdc.config import (
    REQUIRED,
    Check,
    Key,
    Kind,
    at_least,
    inert,
    java_regexes,
    refused,
    split_regexes,
)
from cdc.secrets import mask_url

BOOLEAN, CLASS, INT, LIST = Kind.BOOLEAN, Kind.CLASS, Kind.INT, Kind.LIST
LONG, PASSWORD, SHORT, STRING = Kind.LONG, Kind.PASSWORD, Kind.SHORT, Kind.STRING

LEAK = "Not implemented yet, and ignoring it would let through what was to be hidden."
SCHEMA = "Not implemented yet, and ignoring it would change the events' schemas."
SIGNALS = "Signals are not implemented yet, and ignoring them would lose what they ask for."
STATEMENT = "Not implemented yet, and ignoring it would read other rows than the ones meant."
HISTORY = "It rebuilds a schema history, which this source does not need."
UNLIMITED = "The number of tables is not limited yet."
SPI = "It names a Java class, which cannot run here."
ROUTING = "It is of the regex naming strategies, which are not there; RegexRouter renames topics."


def regex_list(name: str, doc: str, **more: Any) -> Key:
    """An include or exclude list: anchored, case-insensitive regular expressions."""
    return Key(name, LIST, None, doc, splitter=split_regexes, validator=java_regexes, **more)


def exclusive(*pairs: tuple[str, str]) -> Check:
    """Of an include and an exclude list of the same things, only one can be meant."""

    def check(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for include, exclude in pairs:
            if values.get(include) and values.get(exclude):
                shown = mask_url(",".join(values[exclude]))
                reason = f'"{include}" is already specified'
                yield exclude, f"Invalid value {shown} for configuration {exclude}: {reason}"

    return check


def queue_above_batch(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Debezium's rule: a batch has to fit into the queue."""
    queue, batch = values.get("max.queue.size"), values.get("max.batch.size")
    if queue is not None and batch is not None and queue <= batch:
        key, reason = "max.queue.size", f"Must be larger than the maximum batch size ({batch})"
        yield key, f"Invalid value {queue} for configuration {key}: {reason}"


def topic_prefix(value: Any) -> str | None:
    """Debezium's rule for a name that begins every topic."""
    if value and all(c.isascii() and (c.isalnum() or c in "._-") for c in value):
        return None
    return "only the underscore, hyphen, dot and alphanumeric characters are allowed"


CONNECTOR_KEYS = (
    Key(
        "event.processing.failure.handling.mode",
        STRING,
        "fail",
        "What happens when an event cannot be processed.",
        choices=("fail",),
        refused_values=dict.fromkeys(
            ("warn", "skip", "ignore"),
            "Events are never skipped here: the task fails and says why.",
        ),
    ),
    Key("max.batch.size", INT, 2048, "Most changes in one block.", validator=at_least(1)),
    Key("max.queue.size", INT, 8192, "Most changes waiting in memory.", validator=at_least(1)),
    inert(
        "poll.interval.ms",
        LONG,
        500,
        "Longest wait for changes.",
        "Nothing is polled: a change is passed on as it comes.",
        validator=at_least(1),
    ),
    Key(
        "max.queue.size.in.bytes",
        LONG,
        0,
        "Most bytes of changes waiting in memory; 0 stands for 64 MB.",
        validator=at_least(0),
    ),
    Key(
        "event.converting.failure.handling.mode",
        STRING,
        "warn",
        "When a column's value cannot be converted: leave it unset and warn, fail, or be silent.",
        choices=("warn", "fail", "skip"),
    ),
    refused(
        "provide.transaction.metadata",
        BOOLEAN,
        False,
        "Transaction topic, and a transaction block in each event.",
        "Not implemented yet, and ignoring it would leave out the transaction blocks.",
        importance="LOW",
    ),
    inert("snapshot.delay.ms", LONG, 0, "Wait before the snapshot.", importance="LOW"),
    inert("streaming.delay.ms", LONG, 0, "Wait before streaming.", importance="LOW"),
    regex_list("snapshot.include.collection.list", "The tables whose rows the snapshot reads."),
    inert(
        "snapshot.fetch.size",
        INT,
        10240,
        "Rows per round trip.",
        "Rows are streamed; snapshot.chunk.rows sets how many are stored together.",
        validator=at_least(1),
    ),
    Key("snapshot.max.threads", INT, 1, "Snapshot readers.", validator=at_least(1)),
    inert(
        "snapshot.max.threads.multiplier",
        INT,
        1,
        "Chunks per snapshot thread.",
        "snapshot.chunk.rows sets the size of a chunk.",
    ),
    inert(
        "snapshot.max.threads.multiplier.<table>",
        INT,
        None,
        "Chunks per snapshot thread for one table.",
        "snapshot.chunk.rows sets the size of a chunk.",
        pattern=r"snapshot\.max\.threads\.multiplier\..+",
    ),
    inert("legacy.snapshot.max.threads", BOOLEAN, False, "A thread per table.", importance="LOW"),
    inert("internal.legacy.snapshot.max.threads", BOOLEAN, False, "As above.", importance="LOW"),
    Key(
        "snapshot.mode",
        STRING,
        "initial",
        "When a snapshot is taken: when there is no offset (initial, initial_only), at each start "
        "(always), never (no_data), or also when the log is lost (when_needed).",
        choices=("initial", "initial_only", "always", "no_data", "when_needed"),
        value_aliases={"never": "no_data", "schema_only": "no_data", "exported": "initial"},
        refused_values={
            "recovery": HISTORY,
            "schema_only_recovery": HISTORY,
            "configuration_based": "Not implemented yet: use the mode that does the same.",
            "custom": SPI,
        },
    ),
    inert("snapshot.mode.custom.name", STRING, None, "Name of a custom snapshotter."),
    *(
        inert(
            f"snapshot.mode.configuration.based.{flag}",
            BOOLEAN,
            False,
            "A part of snapshot.mode=configuration_based.",
        )
        for flag in (
            "snapshot.data",
            "snapshot.schema",
            "start.stream",
            "snapshot.on.schema.error",
            "snapshot.on.data.error",
        )
    ),
    Key(
        "snapshot.query.mode",
        STRING,
        "select_all",
        "How the snapshot's statements are made.",
        importance="LOW",
        choices=("select_all",),
        refused_values={"custom": SPI},
    ),
    inert("snapshot.query.mode.custom.name", STRING, None, "Name of a custom query."),
    inert("snapshot.lock.timeout.ms", LONG, 10000, "Wait for table locks; none are taken."),
    inert("snapshot.locking.mode.custom.name", STRING, None, "Name of a custom lock."),
    inert(
        "retriable.restart.connector.wait.ms",
        LONG,
        10000,
        "Wait before a restart.",
        importance="LOW",
    ),
    inert("query.fetch.size", INT, 0, "JDBC fetch size while streaming."),
    inert(
        "errors.max.retries",
        INT,
        -1,
        "Restarts after retriable errors.",
        "The worker's task.restart.max counts restarts without progress.",
        importance="LOW",
    ),
    inert(
        "incremental.snapshot.watermarking.strategy",
        STRING,
        "INSERT_INSERT",
        "Watermarks.",
        importance="LOW",
    ),
    inert("incremental.snapshot.chunk.size", INT, 1024, "Rows per incremental chunk."),
    inert("read.only", BOOLEAN, False, "No writes to the source; there are none anyhow."),
    inert(
        "internal.log.position.check.enable",
        BOOLEAN,
        True,
        "Whether the stored position is compared with the server.",
        "The position is always checked.",
    ),
    inert("internal.advanced.metrics.enable", BOOLEAN, False, "Metrics per table."),
    inert(
        "connection.validation.timeout.ms", LONG, 60000, "Time-out of validation.", importance="LOW"
    ),
    inert("executor.shutdown.timeout.ms", LONG, 4000, "Wait for Java's executors."),
    inert("queue.provider.type", STRING, None, "Implementation of the queue."),
    inert("openlineage.*", STRING, None, "OpenLineage events.", pattern=r"openlineage\..+"),
    Key(
        "extended.headers.enabled",
        BOOLEAN,
        True,
        "Whether events get the __debezium.context.* headers.",
        importance="LOW",
    ),
    inert(
        "guardrail.collections.max",
        INT,
        0,
        "Most tables captured; 0 means any number.",
        UNLIMITED,
    ),
    Key(
        "guardrail.collections.limit.action",
        STRING,
        "warn",
        "What happens above guardrail.collections.max.",
        choices=("warn",),
        refused_values={"fail": UNLIMITED},
        effect="inert",
        note=UNLIMITED,
    ),
    Key(
        "custom.sanitize.pattern",
        STRING,
        None,
        "Names of further keys whose values are hidden from logs and errors.",
        importance="LOW",
        validator=java_regexes,
    ),
    inert("statistics.metrics.enabled", BOOLEAN, True, "Percentiles of the lag."),
    Key(
        "decimal.handling.mode",
        STRING,
        "precise",
        "How numeric values appear.",
        choices=("precise", "double", "string"),
    ),
    Key(
        "binary.handling.mode",
        STRING,
        "bytes",
        "How binary values appear.",
        importance="LOW",
        choices=("bytes", "base64", "base64-url-safe", "hex"),
    ),
    *(
        Key(
            f"{what}.name.adjustment.mode",
            STRING,
            "none",
            f"How {what} names are made fit for Avro.",
            importance="LOW",
            choices=("none", "avro", "avro_unicode"),
        )
        for what in ("schema", "field")
    ),
    inert(
        "memory.management.schemas.class",
        CLASS,
        None,
        "Java class of the schema cache.",
        importance="LOW",
    ),
    inert(
        "memory.management.tables.class",
        CLASS,
        None,
        "Java class of the table cache.",
        importance="LOW",
    ),
)

HEARTBEAT = (
    "No heartbeat records are written yet; the position moves on by itself, also on an idle "
    "database, so heartbeats are not needed for that."
)

EVENT_KEYS = (
    Key(
        "topic.prefix",
        STRING,
        REQUIRED,
        "The source's logical name: the first part of its topics' names.",
        importance="HIGH",
        aliases=("database.server.name",),
        validator=topic_prefix,
    ),
    Key("topic.delimiter", STRING, ".", "Between the parts of a topic's name."),
    inert("topic.cache.size", INT, 10000, "Topic names kept in memory."),
    inert("topic.heartbeat.name", STRING, None, "The heartbeat topic's whole name."),
    inert("topic.heartbeat.prefix", STRING, "__debezium-heartbeat", "First part of that name."),
    inert("topic.transaction", STRING, "transaction", "Last part of the transaction topic's name."),
    *(
        refused(f"topic.{name}", STRING, None, "An option of the regex naming strategies.", ROUTING)
        for name in ("regex", "replacement")
    ),
    refused(
        "topic.key.*",
        STRING,
        None,
        "Options of the regex naming strategies.",
        ROUTING,
        pattern=r"topic\.key\..+",
    ),
    refused("converters", STRING, None, "Custom converters of columns.", SPI, importance="LOW"),
    refused("post.processors", STRING, None, "Post processors.", SPI, importance="LOW"),
    Key("tombstones.on.delete", BOOLEAN, True, "Whether a delete is followed by a tombstone."),
    inert("heartbeat.interval.ms", INT, 0, "Time between heartbeats.", HEARTBEAT),
    inert(
        "heartbeat.topics.prefix",
        STRING,
        "__debezium-heartbeat",
        "Without effect everywhere.",
        importance="LOW",
    ),
    refused(
        "heartbeat.action.query",
        STRING,
        None,
        "A statement executed with each heartbeat.",
        f"Not implemented yet, and ignoring it would leave out the rows it writes. {HEARTBEAT}",
        importance="LOW",
    ),
    refused("signal.data.collection", LIST, None, "Table of signals.", SIGNALS),
    refused("signal.enabled.channels", LIST, ("source",), "Channels of signals.", SIGNALS),
    inert("signal.poll.interval.ms", LONG, 5000, "Time between looks for signals."),
    inert(
        "signal.*",
        STRING,
        None,
        "Options of signal channels.",
        pattern=r"signal\.(kafka|file|consumer)(\..+)?",
    ),
    Key(
        "notification.enabled.channels",
        LIST,
        None,
        "Where notifications go.",
        effect="inert",
        note="No notifications are sent yet; the status and the metrics show the same.",
        choices=("log", "jmx"),
        refused_values={"sink": "Not implemented yet, and its records would be missing."},
    ),
    inert("notification.sink.topic.name", STRING, None, "Their topic.", importance="HIGH"),
    refused(
        "transaction.metadata.factory",
        CLASS,
        "io.debezium.pipeline.txmetadata.DefaultTransactionMetadataFactory",
        "Java class that builds the transaction block.",
        SPI,
        importance="LOW",
    ),
    inert("custom.metric.tags", LIST, None, "Tags of JMX metrics.", importance="LOW"),
    Key(
        "skipped.operations",
        LIST,
        ("t",),
        "Operations that give no events: c, u, d, t; or none.",
        importance="LOW",
        choices=("c", "u", "d", "t", "none"),
    ),
    refused(
        "skip.messages.without.change",
        BOOLEAN,
        False,
        "Whether updates that change no captured column are left out.",
        "Not implemented yet, and ignoring it would let through the events meant.",
    ),
    regex_list("column.include.list", "Columns to keep.", aliases=("column.whitelist",)),
    regex_list("column.exclude.list", "Columns to leave out.", aliases=("column.blacklist",)),
    regex_list(
        "table.include.list", "Tables to keep.", aliases=("table.whitelist",), importance="HIGH"
    ),
    regex_list("table.exclude.list", "Tables to leave out.", aliases=("table.blacklist",)),
    refused(
        "table.ignore.builtin",
        BOOLEAN,
        True,
        "Whether system tables are left out.",
        "System tables cannot be captured.",
        importance="LOW",
    ),
    Key("message.key.columns", STRING, None, "Keys of tables: s.table:col1,col2;s.other:col."),
    refused("snapshot.select.statement.overrides", STRING, None, "Own statements.", STATEMENT),
    refused(
        "snapshot.select.statement.overrides.<table>",
        STRING,
        None,
        "The statement that reads a table in the snapshot.",
        STATEMENT,
        pattern=r"snapshot\.select\.statement\.overrides\..+",
    ),
    refused(
        r"column.mask.hash.([^.]+).with.salt.(.+)",
        STRING,
        None,
        "Columns whose values are replaced by their hash.",
        LEAK,
        pattern=r"column\.mask\.hash(\.v2)?\.[^.]+\.with\.salt\..+",
    ),
    refused(
        r"column.mask.with.(\d+).chars",
        STRING,
        None,
        "Columns whose values are replaced by asterisks.",
        LEAK,
        pattern=r"column\.mask\.with\.\d+\.chars",
    ),
    refused(
        r"column.truncate.to.(\d+).chars",
        STRING,
        None,
        "Columns whose values are cut.",
        LEAK,
        pattern=r"column\.truncate\.to\.\d+\.chars",
    ),
    refused("include.schema.comments", BOOLEAN, False, "Comments in schemas.", SCHEMA),
    refused("column.propagate.source.type", LIST, None, "Source types in schemas.", SCHEMA),
    refused("datatype.propagate.source.type", LIST, None, "The same by data type.", SCHEMA),
    inert(
        "internal.snapshot.scan.all.columns.force",
        BOOLEAN,
        False,
        "Old way of scanning.",
        importance="LOW",
    ),
    inert(
        "snapshot.tables.order.by.row.count",
        STRING,
        "disabled",
        "Order of the tables in a snapshot.",
        choices=("disabled", "ascending", "descending"),
    ),
    Key(
        "include.unknown.datatypes",
        BOOLEAN,
        False,
        "Whether columns of unmapped types appear, as opaque bytes.",
    ),
)
