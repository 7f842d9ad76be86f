"""Which rows of a block a sink takes: ``topics`` or ``topics.regex``, decided per schema.

A choice that matches nothing is no error, since its topics may come later; but a misspelt one
looks the same, so it is said once, with the topics that come nearest.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from cdc import javaregex
from cdc.block import MESSAGE, Block
from cdc.errors import ConfigError
from cdc.log.files import SNAPSHOT
from cdc.log.places import stretches
from cdc.log.reader import JournalReader
from cdc.runtime.observer import Observer
from schemas import EventSchema

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
NEAREST = 3
NEARNESS = 0.5  # difflib's ratio


class TopicFilter:
    """By name, or by a regular expression that must match the whole topic, as in Java.

    ``messages``: logical decoding messages are wanted whatever their topic is, and whatever a
    chain of transforms has made of them.
    """

    def __init__(
        self, topics: Iterable[str] = (), regex: str = "", *, messages: bool = False
    ) -> None:
        topics = tuple(topics)
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
        self.text = f"topics.regex={regex}" if regex else f"topics={','.join(topics)}"

    @property
    def matched(self) -> bool:
        """Whether any row so far was wanted."""
        return any(self._wanted.values())

    def takes(self, topic: str) -> bool:
        """Whether the sink wants this topic."""
        if self._regex is not None:
            return self._regex.matches(topic)
        return topic in self.names

    def may_take(self, beginning: str) -> bool:
        """Whether a topic that begins so may be wanted; where that is not plain, it may."""
        if self._regex is None:
            return any(name.startswith(beginning) for name in self.names)
        known = javaregex.heads(self._regex.text)
        return any(h.startswith(beginning) or beginning.startswith(h) for h in known)

    def apply(self, block: Block) -> Block | None:
        """The rows of the wanted topics; None when there are none."""
        wanted = [self._wants(schema) for schema in block.schemas]
        if all(wanted):
            return block if len(block) else None
        messages = self._messages and MESSAGE in block.op
        if not any(wanted) and not messages:
            return None
        rows = [row for row, schema in enumerate(block.schema) if wanted[schema]]
        if messages:
            rows = sorted({*rows, *(row for row, op in enumerate(block.op) if op == MESSAGE)})
        return block.select(rows).pruned() if rows else None

    def _wants(self, schema: EventSchema) -> bool:
        known = self._wanted.get(schema.fingerprint)
        if known is None:
            known = self._wanted[schema.fingerprint] = self.takes(schema.destination)
        return known


class Unmatched:
    """Says once that a sink's choice matches no topic of the journals it reads.

    ``journals`` by name. Where a sink reads none, since no source can have its topics, give
    all there are.
    """

    def __init__(
        self, topics: TopicFilter, journals: Mapping[str, Path], events: Observer | None = None
    ) -> None:
        self._topics, self._journals = topics, journals
        self._events = events or Observer()
        self._look_at = 0.0  # monotonic
        self._said = self._settled = False

    def look(self) -> None:
        """To be called when there is nothing left to read; mostly costs nothing."""
        if self._settled:
            return
        if self._topics.matched:
            self._settled = True
            if self._said:
                self._events.noted("")
        elif not self._said and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_EVERY_S
            self._compare()

    def _compare(self) -> None:
        held = held_topics(self._journals.values())
        if not held or any(map(self._topics.takes, held)):
            return
        self._said = True
        names = ", ".join(sorted(self._journals))
        text = (
            f"{self._topics.text} matches none of the {len(held)} topics in {names}."
            f" The nearest: {', '.join(nearest(self._topics, held))}"
        )
        log.warning("%s", text)
        self._events.noted(text)


def held_topics(journals: Iterable[Path]) -> set[str]:
    """The topics of all rows in the journals; empty while a first snapshot is under way."""
    held: set[str] = set()
    for path in journals:
        lanes = stretches(path)
        if not lanes or (lanes[-1].lane == SNAPSHOT and not lanes[-1].closed):
            return set()
        held |= topics_in(path)
    return held


def topics_in(journal: Path) -> set[str]:
    """The topics of all rows that a journal holds by now."""
    with JournalReader(journal) as reader:
        # damage is told where it is read
        schemas = reader.schemas(lost=lambda _: None).values()
        return {schema.destination for schema in schemas}


def nearest(topics: TopicFilter, held: Iterable[str]) -> list[str]:
    """Those of ``held`` that a misspelt choice may have meant; any, when none is near."""
    known = sorted(held)
    wanted = sorted(topics.names) or [re.sub(r"[\\^$()?*+]", "", topics.text.partition("=")[2])]
    near = [name for text in wanted for name in get_close_matches(text, known, NEAREST, NEARNESS)]
    return list(dict.fromkeys(near))[:NEAREST] or known[:NEAREST]


class TablesOf(TopicFilter):
    """A sink's topics, and of those the tables that a replay is for."""

    def __init__(self, topics: TopicFilter, tables: str) -> None:
        self._topics, self.text = topics, topics.text
        self._tables = javaregex.compile(tables) if tables else None
        self._known: dict[str, bool] = {}

    @property
    def matched(self) -> bool:
        """Whether any row so far was of a wanted topic."""
        return self._topics.matched

    def takes(self, topic: str) -> bool:
        """Whether the sink wants this topic."""
        return self._topics.takes(topic)

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
            self._known[fingerprint] = self._tables.matches(table)
        return self._known[fingerprint]
