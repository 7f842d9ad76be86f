"""Which rows of a block a sink takes: ``topics`` or ``topics.regex``, decided per schema."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cdc import javaregex
from cdc.block import Block
from cdc.errors import ConfigError
from schemas import EventSchema


class TopicFilter:
    """By name, or by a regular expression that must match the whole topic, as in Java.

    ``messages``: logical decoding messages are wanted whatever their topic is.
    """

    def __init__(
        self, topics: Iterable[str] = (), regex: str = "", *, messages: bool = False
    ) -> None:
        self.names, self._messages = frozenset(topics), messages
        if self.names and regex:
            raise ConfigError(
                "topics and topics.regex are mutually exclusive options, but both are set.",
                key="topics",
            )
        if not self.names and not regex:
            raise ConfigError("Must configure one of topics or topics.regex", key="topics")
        try:
            self._regex = javaregex.compile(regex) if regex else None
        except ValueError as error:
            raise ConfigError(
                f"{regex!r} is not a regular expression: {error}", key="topics.regex"
            ) from error
        self._wanted: dict[str, bool] = {}  # by schema fingerprint

    def takes(self, topic: str) -> bool:
        """Whether the sink wants this topic."""
        if self._regex is not None:
            return self._regex.matches(topic)
        return topic in self.names

    def apply(self, block: Block) -> Block | None:
        """The rows of the wanted topics; None when there are none."""
        wanted = [self._wants(schema) for schema in block.schemas]
        if all(wanted):
            return block if len(block) else None
        if not any(wanted):
            return None
        rows = [row for row, schema in enumerate(block.schema) if wanted[schema]]
        return block.select(rows) if rows else None

    def _wants(self, schema: EventSchema) -> bool:
        known = self._wanted.get(schema.fingerprint)
        if known is None:
            known = self.takes(schema.destination) or (self._messages and schema.kind == "message")
            self._wanted[schema.fingerprint] = known
        return known


class TablesOf(TopicFilter):
    """A sink's topics, and of those the tables that a replay is for."""

    def __init__(self, topics: TopicFilter, tables: str) -> None:
        self._topics = topics
        self._tables = re.compile(tables) if tables else None
        self._known: dict[str, bool] = {}

    def apply(self, block: Block) -> Block | None:
        """The rows of wanted topics and tables; None when there are none."""
        found = self._topics.apply(block)
        if found is None or self._tables is None:
            return found
        wanted = [self._takes(s.fingerprint, str(s.table)) for s in found.schemas]
        rows = [row for row, schema in enumerate(found.schema) if wanted[schema]]
        return found.select(rows) if rows else None

    def _takes(self, fingerprint: str, table: str) -> bool:
        assert self._tables is not None
        if fingerprint not in self._known:
            self._known[fingerprint] = self._tables.fullmatch(table) is not None
        return self._known[fingerprint]
