"""JsonConverter: Kafka Connect's ``org.apache.kafka.connect.json.JsonConverter``.

For Blocks there is a fast path: fragments are JSON already, so a value is parts joined.
Nothing is parsed but the rows that an option really changes
(:mod:`cdc.converters.json.fragments`), and the schema of ``schemas.enable=true`` is rendered once
per table. Single values take the general path (:mod:`cdc.converters.json.writer`). Both write
Jackson's bytes, but for the text of floating-point numbers, which is as short as can be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import orjson

from cdc.block import Block, Fragment
from cdc.config import ConfigDef, Key, Kind, at_least
from cdc.converters.contract import Form, HeadersAsValues, SchemaAndValue
from cdc.converters.json.fragments import Rewrite, Stands, plan_nulls, plan_rewrite, schema_dict
from cdc.converters.json.reader import parse, read, read_schema
from cdc.converters.json.writer import Write, plan_writer, write_plain
from cdc.envelope import render_values
from cdc.jackson import escape, escape_all
from schemas import DataError, EventSchema, Schema
from schemas.codec import loader

Load = Callable[[Any], Any]

# How many tables' plans one converter keeps, as Connect's schemas.cache.size.
SCHEMAS_CACHE_SIZE = 1000
NO_ENVELOPE = (
    'JsonConverter with schemas.enable requires "schema" and "payload" fields and may not contain '
    "additional fields. If you are trying to deserialize plain JSON data, set schemas.enable=false "
    "in your converter configuration."
)


def _format(value: Any) -> str | None:
    if value.upper() in ("NUMERIC", "BASE64"):
        return None
    return "String must be one of (case insensitive): NUMERIC, BASE64"


def _shown(group: str, order: int, display_name: str) -> dict[str, Any]:
    """Where a user interface shows a key: as Connect says it."""
    return {"group": group, "order": order, "width": "MEDIUM", "display_name": display_name}


CONFIG = ConfigDef(
    (
        Key(
            "schemas.enable",
            Kind.BOOLEAN,
            True,
            "Whether the schema is written with each.",
            "HIGH",
            **_shown("Schemas", 0, "Enable Schemas"),
        ),
        Key(
            "schemas.cache.size",
            Kind.INT,
            SCHEMAS_CACHE_SIZE,
            "How many schemas are kept ready.",
            "HIGH",
            validator=at_least(1),
            **_shown("Schemas", 1, "Schema Cache Size"),
        ),
        Key(
            "schema.content",
            default=None,
            doc="The schema of everything read, as JSON; what is read then is the payload alone.",
            importance="HIGH",
            **_shown("Schemas", 2, "Schema Content"),
        ),
        Key(
            "decimal.format",
            default="BASE64",
            doc="How decimals are written: BASE64 or NUMERIC.",
            importance="LOW",
            validator=_format,
            **_shown("Serialization", 0, "Decimal Format"),
        ),
        Key(
            "replace.null.with.default",
            Kind.BOOLEAN,
            True,
            "Whether a null is written, and read, as its schema's default.",
            "LOW",
            **_shown("Serialization", 1, "Replace null with default"),
        ),
    )
)


class JsonConverter(HeadersAsValues):
    """Keys and values as JSON text, with Connect's options under Connect's names.

    Safe to share between blocks, not between threads.
    """

    CONFIG: ClassVar[ConfigDef] = CONFIG
    form: ClassVar[Form] = "json"

    def __init__(
        self,
        schemas_enable: bool = True,
        replace_null_with_default: bool = True,
        decimal_format: str = "BASE64",
        *,
        schema_content: str | None = None,
        cache_size: int = SCHEMAS_CACHE_SIZE,
    ) -> None:
        self.schemas_enable = schemas_enable
        self.replace_null_with_default = replace_null_with_default
        self.numeric = decimal_format.upper() == "NUMERIC"
        self.cache_size = cache_size
        self._content = self._schema_content(schema_content) if schemas_enable else None
        self._plans: dict[str, _Plan] = {}
        self._writers: dict[int, tuple[Schema, Write, bytes]] = {}
        self._standing: dict[int, tuple[Schema, Stands | None, Load | None]] = {}
        self._read_schemas: dict[bytes, Schema | None] = {}

    @classmethod
    def from_config(cls, options: Mapping[str, Any]) -> JsonConverter:
        """From options without the ``key.converter.``/``value.converter.`` prefix."""
        config = cls.CONFIG.parse(options)
        return cls(
            config["schemas.enable"],
            config["replace.null.with.default"],
            config["decimal.format"],
            schema_content=config["schema.content"],
            cache_size=config["schemas.cache.size"],
        )

    # --- single values ---

    def from_connect(self, _topic: str, schema: Schema | None, value: Any) -> bytes | None:
        """JSON of a value; None only where there is neither value nor schema."""
        if schema is None:
            if value is None:
                return None
            text = escape(orjson.dumps(write_plain(value)))
            return b'{"schema":null,"payload":%b}' % text if self.schemas_enable else text
        write, head = self._writer(schema)
        text = escape(orjson.dumps(write(value)))
        return b"%b%b}" % (head, text) if self.schemas_enable else text

    def to_connect(self, _topic: str, data: bytes | None) -> SchemaAndValue:
        """The value that JSON means: a dict where it comes without a schema."""
        if data is None:
            return SchemaAndValue(None, None)
        node = parse(data)
        schema = self._content
        if schema is None and self.schemas_enable:
            if not isinstance(node, dict) or node.keys() != {"schema", "payload"}:
                raise DataError(NO_ENVELOPE)
            schema, node = self._read_schema(node["schema"]), node["payload"]
        value = read(schema, node, replace_null=self.replace_null_with_default)
        return SchemaAndValue(schema, value)

    def text_of(self, data: bytes) -> str:
        """The JSON text."""
        return data.decode()

    def _schema_content(self, text: str | None) -> Schema | None:
        if not text:
            return None
        try:
            node = parse(text.encode())
        except DataError as error:
            why = "Failed to parse schema in converter config due to serialization error: "
            raise DataError(why) from error
        return read_schema(node, replace_null=self.replace_null_with_default)

    def _read_schema(self, node: Any) -> Schema | None:
        try:
            text = orjson.dumps(node, default=str)
        except TypeError:  # it knows no number beyond 64 bits, which a decimal's default may be
            text = json.dumps(node, default=str).encode()
        if text not in self._read_schemas:
            if len(self._read_schemas) >= self.cache_size:
                self._read_schemas.clear()
            replace_null = self.replace_null_with_default
            self._read_schemas[text] = read_schema(node, replace_null=replace_null)
        return self._read_schemas[text]

    def _writer(self, schema: Schema) -> tuple[Write, bytes]:
        # By identity: a schema is shared by the records of a table, and costly to compare.
        found = self._writers.get(id(schema))
        if found is None:
            if len(self._writers) >= self.cache_size:
                self._writers.clear()
            replace_null = self.replace_null_with_default
            write = plan_writer(schema, replace_null=replace_null, numeric=self.numeric)
            found = self._writers[id(schema)] = (schema, write, self._head(schema))
        return found[1:]

    def _head(self, schema: Schema | None) -> bytes:
        """What comes before the payload; only schemas.enable needs it: it may take a while."""
        if not self.schemas_enable:
            return b""
        if schema is None:
            return b'{"schema":null,"payload":'
        form = schema_dict(schema, self.replace_null_with_default, self.numeric)
        text = orjson.dumps(form)
        return b'{"schema":%b,"payload":' % escape(text)

    # --- rows that a chain has made ---

    def of_fragment(self, schema: Schema, fragment: bytes) -> bytes:
        """JSON of a value that a block holds: mostly what it holds, see ``from_connect``."""
        found = self._standing.get(id(schema))
        if found is None:
            if len(self._standing) >= self.cache_size:
                self._standing.clear()
            stands = plan_nulls(schema, self.replace_null_with_default, self.numeric)
            found = self._standing[id(schema)] = (schema, stands, loader(schema))
        _, stands, load = found
        # A fragment without a null in it needs no look inside.
        if stands is not None and (b"null" not in fragment or stands(orjson.loads(fragment))):
            text = escape(fragment)
            return b"%b%b}" % (self._writer(schema)[1], text) if self.schemas_enable else text
        value = orjson.loads(fragment)
        if load is not None and value is not None:
            value = load(value)
        return self.from_connect("", schema, value) or b""

    # --- rows of tables ---

    def keys(self, block: Block) -> list[bytes | None]:
        """Every row's key; None where the table has none (and for truncates)."""
        plans = [self._plan(schema) for schema in block.schemas]
        keys = _rewritten([p.key for p in plans], block.schema, block.keys)
        keys = escape_all(keys)
        if not self.schemas_enable:
            return list(keys)
        heads = [p.key_head for p in plans]
        return [
            None if key is None else b"%b%b}" % (heads[schema], key)
            for schema, key in zip(block.schema, keys, strict=True)
        ]

    def values(self, block: Block) -> list[bytes]:
        """Every row's value; tombstones are the caller's."""
        plans = [self._plan(schema) for schema in block.schemas]
        images = [p.row for p in plans]
        befores = _rewritten(images, block.schema, block.befores)
        afters = _rewritten(images, block.schema, block.afters)
        values = render_values(block, escape_all(befores), escape_all(afters))
        if not self.schemas_enable:
            return values
        heads = [p.value_head for p in plans]
        return [
            b"%b%b}" % (heads[schema], value)
            for schema, value in zip(block.schema, values, strict=True)
        ]

    def _plan(self, schema: EventSchema) -> _Plan:
        plan = self._plans.get(schema.fingerprint)
        if plan is None:
            if len(self._plans) >= self.cache_size:
                self._plans.clear()
            plan = self._plans[schema.fingerprint] = self._make_plan(schema)
        return plan

    def _make_plan(self, schema: EventSchema) -> _Plan:
        def rewrite(of: Schema | None) -> Rewrite | None:
            if of is None:
                return None
            return plan_rewrite(of, self.replace_null_with_default, self.numeric)

        heads = self._head(schema.key), self._head(schema.envelope)
        return _Plan(*heads, rewrite(schema.key), rewrite(schema.row))


class _Plan(NamedTuple):
    """What a converter knows about one schema."""

    key_head: bytes
    value_head: bytes
    key: Rewrite | None
    row: Rewrite | None


def _rewritten(
    rewrites: Sequence[Rewrite | None], schema: Sequence[int], fragments: Sequence[Fragment]
) -> Sequence[Fragment]:
    if not any(rewrites):
        return fragments
    out: list[Fragment] = []
    for index, fragment in zip(schema, fragments, strict=True):
        rewrite = rewrites[index]
        out.append(fragment if rewrite is None or fragment is None else rewrite(fragment))
    return out
