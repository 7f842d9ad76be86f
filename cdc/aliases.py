"""Names of plugins: short ones, and the Java classes that users' configurations hold.

A Java class is an alias of a short name, and is echoed back as it was written. What a short
name imports is told elsewhere, by ``sinks.SINKS`` for one, so that a configuration is
understood without any plugin.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cdc.errors import ConfigError


@dataclass(frozen=True)
class Plugin:
    """A connector or a converter: its short name, its type, and the names it answers to."""

    name: str
    type: str
    java_classes: tuple[str, ...] = ()
    short_names: tuple[str, ...] = ()

    def names(self, suffixes: Iterable[str]) -> Iterator[str]:
        """All names: full class, simple class, simple class without its suffix, short ones."""
        yield from (self.name, *self.short_names)
        for java_class in self.java_classes:
            simple = java_class.rpartition(".")[2]
            yield from (java_class, simple, *(simple.removesuffix(s) for s in suffixes))


CONNECTORS: Final = (
    Plugin(
        "postgres",
        "source",
        ("io.debezium.connector.postgresql.PostgresConnector",),
        ("postgresql",),
    ),
    Plugin("audit", "sink"),
    Plugin("console", "sink"),
    Plugin("file", "sink", ("org.apache.kafka.connect.file.FileStreamSinkConnector",)),
    Plugin("search", "sink"),
    Plugin(
        "sql",
        "sink",
        (
            "io.confluent.connect.jdbc.JdbcSinkConnector",
            "io.debezium.connector.jdbc.JdbcSinkConnector",
            "io.aiven.connect.jdbc.JdbcSinkConnector",
        ),
        ("jdbc",),
    ),
)

# Sources that people come with, and that are not there; by what their names hold.
_NOT_YET: Final = {"mysql": "MySQL", "mariadb": "MariaDB"}

_KAFKA = "org.apache.kafka.connect.converters."
CONVERTERS: Final = (
    Plugin("json", "converter", ("org.apache.kafka.connect.json.JsonConverter",)),
    Plugin("string", "converter", ("org.apache.kafka.connect.storage.StringConverter",)),
    Plugin("bytes", "converter", (f"{_KAFKA}ByteArrayConverter",)),
    Plugin("simple", "converter", ("org.apache.kafka.connect.storage.SimpleHeaderConverter",)),
    *(
        Plugin(name.lower(), "converter", (f"{_KAFKA}{name}Converter",))
        for name in ("Boolean", "Double", "Float", "Integer", "Long", "Short")
    ),
    Plugin("avro", "converter", ("io.confluent.connect.avro.AvroConverter",)),
)


def find_connector(text: str, more: Iterable[Plugin] = ()) -> Plugin:
    """The connector that ``connector.class`` names; ``more`` are other people's plugins."""
    return _find(text, (*CONNECTORS, *more), "Connector", "connector.class")


def find_converter(text: str, key: str = "value.converter", more: Iterable[Plugin] = ()) -> Plugin:
    """The converter that ``key`` names."""
    return _find(text, (*CONVERTERS, *more), "Converter", key)


def _find(text: str, plugins: tuple[Plugin, ...], what: str, key: str) -> Plugin:
    known = {n.lower(): p for p in reversed(plugins) for n in p.names((what, f"Sink{what}"))}
    found = known.get(text.strip().lower())
    if found:
        return found
    available = ", ".join(", ".join((p.name, *p.java_classes)) for p in plugins)
    nearest = difflib.get_close_matches(text.strip().lower(), known, 1, 0.6)
    hint = f"Did you mean {known[nearest[0]].name}?" if nearest else ""
    for part, database in _NOT_YET.items() if what == "Connector" else ():
        if part in text.lower():
            hint = f"{database} sources are not there yet."
    error = ConfigError(
        f"Failed to find any class that implements {what} and which name matches {text}, "
        f"available {what.lower()}s are: {available}",
        remedy=hint,
    )
    error.key = key
    raise error
