"""Blocks for tests: a builder that speaks of tables and rows, and strategies for random ones.

``Tables`` stands for the source: it keeps offsets, LSNs and transactions rising as a real
one would, so that a test only says what happened::

    shop = Source()
    orders = shop.table("orders", id=INT32, note=optional(STRING), key=["id"])
    shop.begin()
    shop.insert(orders, id=1, note="a")
    shop.commit()
    block = shop.block()
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from hypothesis import strategies as st

from cdc.block import CREATE, DELETE, MESSAGE, READ, TRUNCATE, UPDATE, Block, Row, Transaction
from schemas import EventSchema, Field, Schema, TableId

SOURCE_MEMBERS = (
    b'{"version":"3.6.3.Final","connector":"postgresql","name":"srv","ts_ms":%(ts_ms)d,'
    b'"snapshot":%(snapshot)b,"db":"db","sequence":%(sequence)b,"ts_us":%(ts_us)d,'
    b'"ts_ns":%(ts_ns)d,"schema":"SCHEMA","table":"TABLE","txId":%(txId)b,"lsn":%(lsn)b,'
    b'"xmin":%(xmin)b,"origin":%(origin)b,"origin_lsn":%(origin_lsn)b}'
)
SNAPSHOT_MARKS = (
    "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"
)
PLACEHOLDER = "__debezium_unavailable_value"


def _logical(type_: str, name: str, **parameters: str) -> Schema:
    return Schema(type_, name=name, version=1, parameters=parameters)


def _source_schema() -> Schema:
    text, long = Schema("string"), Schema("int64")
    maybe_text, maybe_long = text.as_optional(), long.as_optional()
    mark = replace(
        _logical("string", "io.debezium.data.Enum", allowed=SNAPSHOT_MARKS),
        optional=True,
        default="false",
    )
    members = (
        ("version", text),
        ("connector", text),
        ("name", text),
        ("ts_ms", long),
        ("snapshot", mark),
        ("db", text),
        ("sequence", maybe_text),
        ("ts_us", maybe_long),
        ("ts_ns", maybe_long),
        ("schema", text),
        ("table", text),
        ("txId", maybe_long),
        ("lsn", maybe_long),
        ("xmin", maybe_long),
        ("origin", maybe_text),
        ("origin_lsn", maybe_long),
    )
    fields = tuple(Field(name, schema) for name, schema in members)
    return Schema(
        "struct", name="io.debezium.connector.postgresql.Source", version=1, fields=fields
    )


# --- column types, by the names tests use ---

BOOLEAN, INT16, INT32, INT64 = (Schema(t) for t in ("boolean", "int16", "int32", "int64"))
FLOAT, DOUBLE, STRING, BYTES = (Schema(t) for t in ("float", "double", "string", "bytes"))
DATE = _logical("int32", "io.debezium.time.Date")
TIME = _logical("int32", "io.debezium.time.Time")
MICRO_TIME = _logical("int64", "io.debezium.time.MicroTime")
NANO_TIME = _logical("int64", "io.debezium.time.NanoTime")
TIMESTAMP = _logical("int64", "io.debezium.time.Timestamp")
MICRO_TIMESTAMP = _logical("int64", "io.debezium.time.MicroTimestamp")
NANO_TIMESTAMP = _logical("int64", "io.debezium.time.NanoTimestamp")
ZONED_TIMESTAMP = _logical("string", "io.debezium.time.ZonedTimestamp")
ZONED_TIME = _logical("string", "io.debezium.time.ZonedTime")
MICRO_DURATION = _logical("int64", "io.debezium.time.MicroDuration")
INTERVAL = _logical("string", "io.debezium.time.Interval")
JSON = _logical("string", "io.debezium.data.Json")
UUID = _logical("string", "io.debezium.data.Uuid")
XML = _logical("string", "io.debezium.data.Xml")
ENUM = _logical("string", "io.debezium.data.Enum", allowed="a,b,c")
VARIABLE_DECIMAL = Schema(
    "struct",
    name="io.debezium.data.VariableScaleDecimal",
    version=1,
    doc="Variable scaled decimal",
    fields=(Field("scale", INT32), Field("value", BYTES)),
)
HSTORE_MAP = Schema("map", keys=STRING, values=STRING.as_optional())


def bits(length: int) -> Schema:
    return _logical("bytes", "io.debezium.data.Bits", length=str(length))


def decimal(precision: int, scale: int) -> Schema:
    parameters = {"scale": str(scale), "connect.decimal.precision": str(precision)}
    return _logical("bytes", "org.apache.kafka.connect.data.Decimal", **parameters)


def array_of(items: Schema) -> Schema:
    return Schema("array", items=items.as_optional())


def optional(schema: Schema, default: Any = None) -> Schema:
    return replace(schema, optional=True, default=default)


def base64(raw: bytes) -> str:
    return b64encode(raw).decode()


def unscaled(number: int) -> str:
    """A Decimal's JSON form: the base64 of BigInteger.toByteArray()."""
    length = (number if number >= 0 else ~number).bit_length() // 8 + 1
    return base64(number.to_bytes(length, "big", signed=True))


# --- the source ---


def event_schema(
    table: str,
    columns: Mapping[str, Schema],
    key: Sequence[str] = ("id",),
    *,
    schema: str = "public",
    topic: str | None = None,
) -> EventSchema:
    topic = topic or f"srv.{schema}.{table}"
    fields = tuple(Field(name, type_) for name, type_ in columns.items())
    keys = tuple(Field(name, columns[name]) for name in key)
    template = SOURCE_MEMBERS.replace(b"SCHEMA", schema.encode()).replace(b"TABLE", table.encode())
    return EventSchema(
        topic=topic,
        table=TableId("db", schema, table),
        connector="postgresql",
        server="srv",
        key=Schema("struct", name=f"{topic}.Key", fields=keys) if keys else None,
        row=Schema("struct", optional=True, name=f"{topic}.Value", fields=fields),
        source=_source_schema(),
        source_template=template.decode(),
    )


def message_schema() -> EventSchema:
    prefix = "io.debezium.connector.postgresql."
    text = Field("prefix", STRING.as_optional())
    content = Field("content", BYTES.as_optional())
    base = event_schema("", {}, (), schema="", topic="srv.message")
    return replace(
        base,
        key=Schema("struct", name=prefix + "MessageKey", version=1, fields=(text,)),
        row=Schema("struct", name=prefix + "Message", version=1, fields=(text, content)),
        kind="message",
    )


class Source:
    """A made-up database: tables, transactions, and the journal's offsets."""

    def __init__(self, *, offset: int = 0, context: Mapping[str, str] | None = None) -> None:
        self.offset = offset
        self.context = dict(context or {})
        self.created_us = 1_700_000_000_123_456
        self._lsn = 1000
        self._xid = 700
        self._previous_end = 0
        self._schemas: list[EventSchema] = []
        self._open: Transaction | None = None
        self._clear()

    def _clear(self) -> None:
        self._rows: list[Row] = []
        self._transactions: list[Transaction] = [] if self._open is None else [self._open]
        self._unchanged: dict[int, tuple[int, ...]] = {}
        self._moved: dict[int, bytes] = {}
        self._markers: dict[int, str] = {}

    def table(
        self, name: str, key: Sequence[str] = ("id",), schema: str = "public", **columns: Schema
    ) -> EventSchema:
        return event_schema(name, columns, key, schema=schema)

    # --- transactions ---

    def begin(self) -> None:
        assert self._open is None
        self._xid += 1
        commit_lsn = self._lsn + 1_000_000
        us = 1_700_000_000_000_000 + self._xid * 1_000_000
        self._open = Transaction(self._xid, commit_lsn, 0, us, self._previous_end)
        self._transactions.append(self._open)

    def commit(self) -> None:
        assert self._open is not None
        end = self._lsn = self._open.commit_lsn + 8
        self._transactions[-1] = self._open._replace(end_lsn=end)
        self._open, self._previous_end = None, end

    def block(self) -> Block:
        """What happened since the last call; an open transaction continues in the next one."""
        block = Block.build(
            self._rows,
            tuple(self._schemas),
            tuple(self._transactions),
            self.created_us,
            unchanged=self._unchanged,
            moved=self._moved,
            markers=self._markers,
            context=self.context,
            offsets=range(self.offset, self.offset + len(self._rows)),
        )
        self.offset += len(self._rows)
        self._clear()
        return block

    # --- changes; outside begin/commit each is a transaction of its own ---

    def read(self, schema: EventSchema, marker: str = "true", **row: Any) -> None:
        self._markers[len(self._rows)] = marker
        self._add(READ, schema, self._key(schema, row), None, row)

    def insert(self, schema: EventSchema, **row: Any) -> None:
        self._add(CREATE, schema, self._key(schema, row), None, row)

    def update(self, schema: EventSchema, *, unchanged: Sequence[str] = (), **row: Any) -> None:
        if unchanged:
            index = schema.row.field_index
            self._unchanged[len(self._rows)] = tuple(sorted(index[name] for name in unchanged))
        values = row | dict.fromkeys(unchanged, PLACEHOLDER)
        self._add(UPDATE, schema, self._key(schema, row), None, values)

    def delete(self, schema: EventSchema, **row: Any) -> None:
        self._add(DELETE, schema, self._key(schema, row), row, None)

    def change_key(
        self,
        schema: EventSchema,
        old: Mapping[str, Any],
        new: Mapping[str, Any],
        *,
        unchanged: Sequence[str] = (),
    ) -> None:
        """As Debezium does it: a delete and a create, each naming the other's key."""
        old_key, new_key = self._key(schema, old), self._key(schema, new)
        assert old_key is not None
        assert new_key is not None
        alone = self._open is None
        if alone:
            self.begin()
        self._moved[len(self._rows)] = new_key
        self._add(DELETE, schema, old_key, old, None)
        self._moved[len(self._rows)] = old_key
        if unchanged:
            index = schema.row.field_index
            self._unchanged[len(self._rows)] = tuple(sorted(index[name] for name in unchanged))
            new = {**new, **dict.fromkeys(unchanged, PLACEHOLDER)}
        self._add(CREATE, schema, new_key, None, new)
        if alone:
            self.commit()

    def truncate(self, schema: EventSchema) -> None:
        self._add(TRUNCATE, schema, None, None, None)

    def message(self, prefix: str, content: bytes) -> None:
        schema = message_schema()
        key = orjson.dumps({"prefix": prefix})
        body = {"prefix": prefix, "content": base64(content)}
        self._add(MESSAGE, schema, key, None, body)

    def _key(self, schema: EventSchema, row: Mapping[str, Any]) -> bytes | None:
        names = schema.key_names
        return orjson.dumps({name: row[name] for name in names}) if names else None

    def _add(
        self, op: int, schema: EventSchema, key: bytes | None, before: Any, after: Any
    ) -> None:
        alone = self._open is None
        if alone:
            self.begin()
        if schema not in self._schemas:
            self._schemas.append(schema)
        self._lsn += 8
        names = [f.name for f in schema.row.fields]
        before_text, after_text = (
            None if image is None else orjson.dumps({n: image.get(n) for n in names})
            for image in (before, after)
        )
        index = self._schemas.index(schema)
        transaction = len(self._transactions) - 1
        ordinal = len(self._rows)
        self._rows.append(
            (op, index, transaction, self._lsn, ordinal, key, before_text, after_text)
        )
        if alone:
            self.commit()


# --- random tables and rows ---

_TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=40)
_DAY_US = 86_400_000_000

# Column type → its values, in JSON form.
VALUES: dict[str, tuple[Schema, st.SearchStrategy[Any]]] = {
    "boolean": (BOOLEAN, st.booleans()),
    "int16": (INT16, st.integers(-(2**15), 2**15 - 1)),
    "int32": (INT32, st.integers(-(2**31), 2**31 - 1)),
    "int64": (INT64, st.integers(-(2**63), 2**63 - 1)),
    "double": (DOUBLE, st.floats(allow_nan=False, allow_infinity=False)),
    "string": (STRING, _TEXT),
    "bytes": (BYTES, st.binary(max_size=40).map(base64)),
    "date": (DATE, st.integers(-100_000, 100_000)),
    "micro_time": (MICRO_TIME, st.integers(0, _DAY_US - 1)),
    "micro_timestamp": (MICRO_TIMESTAMP, st.integers(-(10**15), 10**16)),
    "uuid": (UUID, st.uuids().map(str)),
    "decimal": (decimal(20, 4), st.integers(-(10**20) + 1, 10**20 - 1).map(unscaled)),
    "json": (
        JSON,
        st.dictionaries(_TEXT, st.integers(-(2**53), 2**53)).map(
            lambda d: orjson.dumps(d).decode()
        ),
    ),
    "text[]": (array_of(STRING), st.lists(st.none() | _TEXT, max_size=4)),
    "int[]": (array_of(INT32), st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), max_size=4)),
}


@st.composite
def columns(draw: st.DrawFn) -> dict[str, Schema]:
    """An ``id`` and up to seven nullable columns of random types, some with odd names."""
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=7))
    names = [f'c{i} "ü"' if draw(st.booleans()) else f"c{i}" for i in range(len(kinds))]
    pairs = zip(names, kinds, strict=True)
    return {"id": INT32} | {name: optional(VALUES[kind][0]) for name, kind in pairs}


def values_of(schema: Schema) -> st.SearchStrategy[Any]:
    """Values of a column type of :data:`VALUES`, NULL included where it is optional."""
    plain = replace(schema, optional=False)
    found = next(values for known, values in VALUES.values() if known == plain)
    return st.none() | found if schema.optional else found
