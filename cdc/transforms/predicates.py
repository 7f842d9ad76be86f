"""The predicates: questions about a record that transforms are made conditional on."""

from __future__ import annotations

from typing import Any

from cdc import javaregex
from cdc.config import REQUIRED, Config, ConfigDef, Key, Kind
from cdc.record import Record
from cdc.transforms.regex_router import valid_regex


class HasHeaderKey:
    """Whether the record has a header of this name."""

    CONFIG = ConfigDef((Key("name", Kind.STRING, REQUIRED, "The header name."),))

    def __init__(self, config: Config) -> None:
        self._name = config["name"]

    def test(self, record: Record) -> bool:
        """Whether one header or more has the name."""
        return any(header.name == self._name for header in record.headers)


class RecordIsTombstone:
    """Whether the record's value is null, whatever its schema."""

    CONFIG = ConfigDef(())

    def __init__(self, config: Config) -> None:
        del config  # it has no options

    def test(self, record: Record) -> bool:
        """Whether the value is null."""
        return record.value is None


def _pattern(value: Any) -> str | None:
    return "String must be non-empty" if value == "" else valid_regex(value)


class TopicNameMatches:
    """Whether a regular expression matches the record's whole topic."""

    CONFIG = ConfigDef(
        (
            Key(
                "pattern",
                Kind.STRING,
                REQUIRED,
                "A Java regular expression for matching against the name of a record's topic.",
                validator=_pattern,
            ),
        )
    )

    def __init__(self, config: Config) -> None:
        self._pattern: javaregex.JavaPattern = javaregex.compile(config["pattern"])

    def test(self, record: Record) -> bool:
        """Whether the topic matches."""
        return self._pattern.matches(record.topic)

    def test_topic(self, topic: str) -> bool:
        """Whether this topic matches."""
        return self._pattern.matches(topic)
