"""Choice: the sources that a sink reads where it names none, by the topics that they can have."""

from __future__ import annotations

import logging
import sqlite3

from cdc.errors import CdcError
from cdc.runtime.connector import Connector
from cdc.runtime.state import DataDir
from cdc.runtime.topics import TopicFilter, topics_in

log = logging.getLogger(__name__)


class Choice:
    """For all sinks of a worker; used under its lock."""

    def __init__(self, data: DataDir) -> None:
        self._data = data
        self._written: dict[str, set[str]] = {}  # by source: topics of before it was as it is

    def may_read(self, sink: Connector, source: Connector) -> bool:
        """By what a source may write, and by what it has written under another prefix."""
        if may_name(sink, source):
            return True
        if source.name not in self._written:
            self._written[source.name] = self._topics_in(source.name)
        return any(map(_topics_of(sink).takes, self._written[source.name]))

    def forget(self, source: str) -> None:
        """A connector was changed."""
        self._written.pop(source, None)

    def _topics_in(self, journal: str) -> set[str]:
        """None, where it cannot be read: sinks of others are not to suffer from that."""
        try:
            there = journal in self._data.journals()
            return topics_in(self._data.journal(journal)) if there else set()
        except (CdcError, OSError, sqlite3.Error) as error:
            log.warning("journal %s cannot be read: %s", journal, error)
            return set()


def may_name(sink: Connector, source: Connector) -> bool:
    """Whether a sink's choice can be of the source's topics, which begin with its prefix.

    A source's transforms may give them any name.
    """
    prefix = source.relevant.get("topic.prefix")
    if not prefix or source.relevant.get("transforms"):
        return True
    # messages have a dot whatever the delimiter is
    dot = "." if source.relevant.get("topic.delimiter", ".") == "." else ""
    return _topics_of(sink).may_take(prefix + dot)


def _topics_of(sink: Connector) -> TopicFilter:
    """A sound sink's choice."""
    return TopicFilter(sink.relevant.get("topics") or (), sink.relevant.get("topics.regex") or "")
