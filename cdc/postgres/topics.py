"""Topic, schema and field names, as Debezium's naming strategies make them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from schemas import TableId

TOPIC_CHARS_MAX = 249

_NOT_TOPIC = re.compile(r"[^A-Za-z0-9._-]")


def _unicode_escape(char: str) -> str:
    """``_u`` and the hex of each UTF-16 unit, two digits filled up to four."""
    data = char.encode("utf-16-be")
    units = (f"{data[i] << 8 | data[i + 1]:x}" for i in range(0, len(data), 2))
    return "".join("_u" + ("00" + unit if len(unit) <= 2 else unit) for unit in units)


def _underscores(char: str) -> str:
    """One for each of Java's chars, of which there are two in what lies beyond 16 bits."""
    return "__" if ord(char) > 0xFFFF else "_"


def sanitize(topic: str) -> str:
    """A name Kafka accepts: other characters become ``_``, 249 are kept."""
    clean = _NOT_TOPIC.sub(lambda found: _underscores(found[0]), topic)[:TOPIC_CHARS_MAX]
    return "_" * len(clean) if clean in (".", "..") else clean


@dataclass(frozen=True)
class TopicNaming:
    """``SchemaTopicNamingStrategy``: ``<prefix>.<schema>.<table>``."""

    prefix: str
    delimiter: str = "."

    def data(self, table: TableId) -> str:
        """The topic of a table's events."""
        return sanitize(self.delimiter.join((self.prefix, table.schema, table.table)))

    @property
    def messages(self) -> str:
        """The topic of logical decoding messages."""
        return sanitize(f"{self.prefix}.message")  # whatever the delimiter is


def adjust_name(name: str, mode: str, *, dots: bool = True) -> str:
    """``schema.name.adjustment.mode``; with ``dots=False`` ``field.name.adjustment.mode``.

    ``avro`` writes ``_`` for what Avro does not allow and keeps a leading digit behind it;
    ``avro_unicode`` writes ``_uXXXX`` and escapes the underscore itself.
    """
    if mode == "none" or not name:
        return name
    under = "" if mode == "avro_unicode" else "_"
    first = re.compile(rf"[A-Za-z{under}]")
    other = re.compile(rf"[A-Za-z0-9{under}{'.' if dots else ''}]")
    out = []
    for i, char in enumerate(name):
        if (other if i else first).match(char):
            out.append(char)
        elif mode == "avro_unicode":
            out.append(_unicode_escape(char))
        else:
            out.append("_" + char if not i and char.isdecimal() else _underscores(char))
    return "".join(out)
