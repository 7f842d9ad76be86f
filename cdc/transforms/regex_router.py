"""RegexRouter: another topic by a Java regular expression."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cdc import javaregex
from cdc.config import REQUIRED, Config, ConfigDef, Key, Kind
from cdc.record import Record
from cdc.transforms import options


def valid_regex(value: Any) -> str | None:
    """Connect's RegexValidator."""
    try:
        javaregex.compile(value)
    except ValueError as error:
        return f"Invalid regex: {error}"
    return None


class RegexRouter:
    """Where the expression matches the whole topic, its first match is replaced."""

    CONFIG = ConfigDef(
        (
            Key(
                "regex",
                Kind.STRING,
                REQUIRED,
                "Regular expression to use for matching, in Java's syntax.",
                importance="HIGH",
                validator=valid_regex,
                may_be_empty=True,
            ),
            options.text(
                "replacement",
                "Replacement string, in Java's syntax: $1, ${name}, a backslash escapes.",
                importance="HIGH",
            ),
        )
    )

    def __init__(self, config: Config) -> None:
        self._regex = javaregex.compile(config["regex"])
        self._replacement: str = config["replacement"]
        self._routes: dict[str, str] = {}

    def apply(self, record: Record) -> Record:
        """The record with its new topic; the partition stays."""
        topic = self.route(record.topic)
        return record if topic == record.topic else replace(record, topic=topic)

    def route(self, topic: str) -> str:
        """The new topic. Raises IllegalArgument or IndexOutOfBounds for a wrong replacement."""
        found = self._routes.get(topic)
        if found is None:
            found = topic
            if self._regex.matches(topic):
                found = self._regex.replace_first(topic, self._replacement)
            if len(self._routes) < ROUTES_MAX:
                self._routes[topic] = found
        return found


ROUTES_MAX = 10_000
