"""The worker's keys: Kafka Connect's, with the few the engine adds.

Departures from Connect: ``listeners`` is bound to this machine only unless told otherwise,
and the converters default to JSON, so that a worker needs no file at all.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from cdc.config import Config, ConfigDef, Key, Kind, at_least, between, grouped, inert, refused
from cdc.connectors import converter, header_converter
from cdc.providers import Providers

log = logging.getLogger(__name__)

BOOLEAN, CLASS, INT, LIST = Kind.BOOLEAN, Kind.CLASS, Kind.INT, Kind.LIST
LONG, STRING = Kind.LONG, Kind.STRING

KAFKA: Final = "The log is the journal; Kafka is not used yet."
TLS: Final = "TLS is not offered yet, and ignoring it would send secrets in the clear."
FLUSH_INTERVAL_MOST_MS: Final = 1000  # what a crash lets at-least-once sinks do twice
JSON: Final = "org.apache.kafka.connect.json.JsonConverter"


def listener(value: Any) -> str | None:
    """``http://host:port``, as Connect writes them; the host may be left out for any."""
    for text in (value,) if isinstance(value, str) else value:
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            return f"{text} has no valid port"
        if parts.scheme.lower() == "https":
            return TLS
        if parts.scheme.lower() != "http" or port is None or parts.path not in {"", "/"}:
            return f"{text} is not of the form http://host:port"
    return None


def _inert(rows: Iterable[tuple[str, Kind, Any]], note: str = "") -> tuple[Key, ...]:
    return tuple(
        inert(name, kind, default, "For a distributed worker.", note, importance="LOW")
        for name, kind, default in rows
    )


WORKER_KEYS: Final = (
    *(
        key
        for part, default in (("key", JSON), ("value", JSON))
        for key in (
            Key(f"{part}.converter", CLASS, default, f"Converter of the {part}s.", "HIGH",
                validator=converter),
            Key(f"{part}.converter.*", pattern=rf"{part}\.converter\..+", doc="Its options."),
        )
    ),
    Key(
        "header.converter",
        CLASS,
        None,
        "Converter of the headers; JSON where not set (SimpleHeaderConverter in Connect).",
        "LOW",
        validator=header_converter,
    ),
    Key("header.converter.*", pattern=r"header\.converter\..+", doc="Its options."),
    Key(
        "offset.flush.interval.ms",
        LONG,
        FLUSH_INTERVAL_MOST_MS,
        "Longest time between a sink's flushes; more than 1000 counts as 1000 (Connect's default"
        " is 60000).",
        "LOW",
        validator=at_least(1),
    ),
    inert(
        "offset.flush.timeout.ms",
        LONG,
        5000,
        "Longest wait for one.",
        "A flush takes as long as its target needs; a stop waits for"
        " task.shutdown.graceful.timeout.ms.",
        importance="LOW",
    ),
    Key(
        "task.shutdown.graceful.timeout.ms",
        LONG,
        5000,
        "For all tasks together to flush and end.",
        "LOW",
        validator=at_least(0),
    ),
    Key(
        "task.restart.max",
        INT,
        10,
        "Restarts of a task without progress before it is FAILED; 0 restarts none.",
        validator=at_least(0),
    ),
    Key(
        "task.restart.backoff.ms",
        LONG,
        200,
        "Wait before the second restart; it doubles with each.",
        "LOW",
        validator=at_least(1),
    ),
    Key(
        "task.restart.backoff.max.ms",
        LONG,
        10_000,
        "Longest wait before a restart.",
        "LOW",
        validator=at_least(1),
    ),
    Key(
        "config.providers",
        LIST,
        ("env", "file", "dir"),
        "Names of config providers; empty for none. Connect has none by default.",
        "LOW",
    ),
    Key("config.providers.*", pattern=r"config\.providers\..+", doc="Their class and parameters."),
)  # fmt: skip

REST_KEYS: Final = (
    Key(
        "listeners",
        LIST,
        ("http://127.0.0.1:8083",),
        "Where the REST API listens (Connect's default is http://:8083, every address).",
        "LOW",
        validator=listener,
    ),
    Key("rest.advertised.host.name", STRING, None, "Host part of worker_id.", "LOW"),
    Key(
        "rest.advertised.port",
        INT,
        None,
        "Port part of worker_id.",
        "LOW",
        validator=between(1, 65535),
    ),
    inert("rest.advertised.listener", STRING, None, "http or https.", importance="LOW"),
    Key(
        "rest.host.name", STRING, None, "Older form of listeners.", "LOW",
        effect="refused", note="Use listeners=http://host:port.",
    ),
    Key(
        "rest.port", INT, None, "Older form of listeners.", "LOW",
        effect="refused", note="Use listeners=http://host:port.",
    ),
    inert("admin.listeners", LIST, None, "Listeners of /admin, which is not served."),
    refused(
        "rest.extension.classes",
        LIST,
        (),
        "Java classes in front of the API.",
        "Not possible here, and ignoring it could leave the API without its access control.",
    ),
    inert("access.control.allow.origin", STRING, "", "CORS origins; none are allowed."),
    inert("access.control.allow.methods", STRING, "", "CORS methods; none are allowed."),
    inert("response.http.headers.config", STRING, "", "Further response headers."),
    refused(
        "ssl.client.auth",
        STRING,
        "none",
        "Client certificates for the API.",
        TLS,
        choices=("none", "requested", "required"),
    ),
)  # fmt: skip

STANDALONE_KEYS: Final = (
    inert(
        "offset.storage.file.filename",
        STRING,
        None,
        "File of offsets.",
        "Offsets are stored with the data, in the journal and in sinks/<connector>.db.",
    ),
    inert("plugin.path", LIST, None, "Folders of Java plugins; Python's are found by name."),
    inert("plugin.discovery", STRING, "hybrid_warn", "How they are found."),
    inert("connector.client.config.override.policy", STRING, "All", "Allowed overrides."),
    inert("topic.creation.enable", BOOLEAN, True, "Whether topics are created."),
    inert("topic.tracking.enable", BOOLEAN, True, "Whether active topics are tracked."),
    inert("topic.tracking.allow.reset", BOOLEAN, True, "Whether that can be reset."),
    inert("client.dns.lookup", STRING, "use_all_dns_ips", "How brokers are found."),
    inert("metric.reporters", LIST, None, "Java classes; metrics are at /metrics."),
    inert("metrics.sample.window.ms", LONG, 30000, "Window of a sample."),
    inert("metrics.num.samples", INT, 2, "Samples kept."),
    inert("metrics.recording.level", STRING, "INFO", "Which metrics are kept."),
    inert("internal.*", doc="Ignored by Connect too.", pattern=r"internal\..+",
          kind=STRING, default=None),
)  # fmt: skip

_TOPIC_KEYS: Final = tuple(
    row
    for what, partitions in (("config", None), ("offset", 25), ("status", 5))
    for row in (
        (f"{what}.storage.topic", STRING, None),
        (f"{what}.storage.replication.factor", Kind.SHORT, 3),
        *([(f"{what}.storage.partitions", INT, partitions)] if partitions else []),
    )
)

DISTRIBUTED_KEYS: Final = (
    *_inert((("bootstrap.servers", LIST, ("localhost:9092",)), ("group.id", STRING, None)), KAFKA),
    *_inert(_TOPIC_KEYS),
    refused(
        "exactly.once.source.support",
        STRING,
        "disabled",
        "Transactions of source producers.",
        f"{KAFKA} The journal is exactly once without it.",
        choices=("disabled", "preparing", "enabled"),
    ),
    *_inert(
        (
            ("connect.protocol", STRING, "sessioned"),
            ("scheduled.rebalance.max.delay.ms", INT, 300000),
            ("session.timeout.ms", INT, 10000),
            ("heartbeat.interval.ms", INT, 3000),
            ("rebalance.timeout.ms", INT, 60000),
            ("worker.sync.timeout.ms", INT, 3000),
            ("worker.unsync.backoff.ms", INT, 300000),
            ("inter.worker.key.generation.algorithm", STRING, "HmacSHA256"),
            ("inter.worker.key.size", INT, None),
            ("inter.worker.key.ttl.ms", INT, 3600000),
            ("inter.worker.signature.algorithm", STRING, "HmacSHA256"),
            ("inter.worker.verification.algorithms", LIST, ("HmacSHA256",)),
            ("client.id", STRING, ""),
            ("metadata.max.age.ms", LONG, 300000),
            ("request.timeout.ms", INT, 40000),
            ("connections.max.idle.ms", LONG, 540000),
            ("retry.backoff.ms", LONG, 100),
            ("retry.backoff.max.ms", LONG, 1000),
            ("reconnect.backoff.ms", LONG, 50),
            ("reconnect.backoff.max.ms", LONG, 1000),
            ("send.buffer.bytes", INT, 131072),
            ("receive.buffer.bytes", INT, 32768),
            ("socket.connection.setup.timeout.ms", LONG, 10000),
            ("socket.connection.setup.timeout.max.ms", LONG, 30000),
            ("security.protocol", STRING, "PLAINTEXT"),
        )
    ),
    *(
        inert(f"{prefix}.*", STRING, None, "Options of Kafka clients.", importance="LOW",
              pattern=rf"{re.escape(prefix)}\..+")
        for prefix in ("producer", "consumer", "admin", "sasl", "ssl", "listeners.https",
                       "config.storage", "offset.storage", "status.storage")
    ),
)  # fmt: skip

WORKER_CONFIG: Final = ConfigDef(
    (
        *grouped("Worker", WORKER_KEYS),
        *grouped("REST", REST_KEYS),
        *grouped("Standalone", STANDALONE_KEYS),
        *grouped("Distributed", DISTRIBUTED_KEYS),
    )
)

# What connectors inherit, as it is written: a task resolves its own placeholders. What says
# which providers there are cannot ask them.
_AS_WRITTEN: Final = ("key.converter", "value.converter", "header.converter", "config.providers")


def worker_config(written: Mapping[str, str]) -> Config:
    """The worker's keys from its file, which may hold placeholders, too. Raises ConfigError."""
    own = {name: text for name, text in written.items() if not name.startswith(_AS_WRITTEN)}
    resolved = Providers.from_worker(written).resolve(own)
    for warning in resolved.warnings:
        log.warning("%s", warning)
    return WORKER_CONFIG.parse({**written, **resolved.values}, secrets=resolved.secrets)
