"""The schema of a table's events: what a consumer must know to read a Block's fragments.

An :class:`EventSchema` is content-addressed: its ``fingerprint`` is a hash of its JSON, so
that processes, segments and restarts agree on it without a counter anyone has to keep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from schemas.model import Field, Schema
from schemas.table import TableId

# Debezium's names and versions, facts sheet §1.1 and §1.10.
ENVELOPE_VERSION = 2
TRANSACTION_BLOCK = Schema(
    "struct",
    optional=True,
    name="event.block",
    version=1,
    fields=(
        Field("id", Schema("string")),
        Field("total_order", Schema("int64")),
        Field("data_collection_order", Schema("int64")),
    ),
)


@dataclass(frozen=True)
class EventSchema:
    """The events of one table (or of logical decoding messages) at one structure.

    ``topic`` is the destination before transforms, ``routed`` the one after, where it is
    another. ``row`` is the struct of ``before`` and ``after`` (optional, named ``….Value``),
    ``key`` the key's struct or None. ``source`` is the schema of the source block and
    ``source_template`` its JSON as a bytes ``%`` template over the names listed in
    :data:`cdc.envelope.SOURCE_NAMES`, with all that is constant for the table already in
    place. ``kind`` is ``table``, ``message`` or ``record``.

    A ``record`` is what a chain of transforms has made of an event: ``topic`` is final,
    ``value`` is the schema of its whole value, None where that has none, as ``key`` is the
    key's, which then may be of any type; ``row`` is ``value`` where that is a struct, else a
    struct of nothing.
    """

    topic: str
    table: TableId
    connector: str
    server: str
    key: Schema | None
    row: Schema
    source: Schema
    source_template: str
    kind: str = "table"
    value: Schema | None = None
    routed: str = ""

    @property
    def destination(self) -> str:
        """The topic that a record of these events is written to."""
        return self.routed or self.topic

    @cached_property
    def envelope(self) -> Schema | None:
        """The value's schema, facts sheet §1.1 (§1.8 for messages); None: a record without."""
        if self.kind == "record":
            return self.value
        clock = Schema("int64", optional=True)
        if self.kind == "message":
            fields: tuple[Field, ...] = (
                Field("op", Schema("string")),
                Field("ts_ms", clock),
                Field("source", self.source),
                Field("transaction", TRANSACTION_BLOCK),
                Field("message", self.row),
            )
            name = f"io.debezium.connector.{self.connector}.MessageValue"
            return Schema("struct", name=name, version=1, fields=fields)
        fields = (
            Field("before", self.row),
            Field("after", self.row),
            Field("source", self.source),
            Field("transaction", TRANSACTION_BLOCK),
            Field("op", Schema("string")),
            Field("ts_ms", clock),
            Field("ts_us", clock),
            Field("ts_ns", clock),
        )
        name = f"{self.topic}.Envelope"
        return Schema("struct", name=name, version=ENVELOPE_VERSION, fields=fields)

    @cached_property
    def json(self) -> bytes:
        """The stored form; :meth:`from_json` reads it back."""
        members: dict[str, Any] = {
            "topic": self.topic,
            "table": [self.table.catalog, self.table.schema, self.table.table],
            "connector": self.connector,
            "server": self.server,
            "key": self.key.to_dict() if self.key else None,
            "row": self.row.to_dict(),
            "source": self.source.to_dict(),
            "source_template": self.source_template,
            "kind": self.kind,
        }
        # Only where they say something, so that fingerprints stay what they were before.
        if self.value is not None:
            members["value"] = self.value.to_dict()
        if self.routed:
            members["routed"] = self.routed
        return orjson.dumps(members)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that name this schema wherever blocks are stored."""
        return hashlib.blake2b(self.json, digest_size=8).hexdigest()

    @classmethod
    def from_json(cls, text: bytes) -> EventSchema:
        """The inverse of :attr:`json`."""
        raw: Mapping[str, Any] = orjson.loads(text)
        return cls(
            topic=raw["topic"],
            table=TableId(*raw["table"]),
            connector=raw["connector"],
            server=raw["server"],
            key=Schema.from_dict(raw["key"]) if raw["key"] else None,
            row=Schema.from_dict(raw["row"]),
            source=Schema.from_dict(raw["source"]),
            source_template=raw["source_template"],
            kind=raw["kind"],
            value=Schema.from_dict(raw["value"]) if "value" in raw else None,
            routed=raw.get("routed", ""),
        )

    @cached_property
    def key_names(self) -> tuple[str, ...]:
        """Names of the key's fields, in key order."""
        return tuple(f.name for f in self.key.fields) if self.key else ()
