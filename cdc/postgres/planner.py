"""Planner: relations and tables → plans, with the catalogue's help.

The stream's RELATION messages give names, types and the replica identity's columns, as of
their place in the WAL. Nullability, defaults and the key come from the catalogue, which
knows only the present: a column it no longer has is optional, without default, and a table
it no longer has takes its key from the message, where that says it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from cdc.postgres.catalog import TableInfo, read_table, read_type, read_types
from cdc.postgres.events import build_event_schema, build_message_schema, field_name
from cdc.postgres.messages import Relation
from cdc.postgres.pgoutput import DecoderOptions
from cdc.postgres.plan import RelationPlan, WireColumn, build_plan
from cdc.postgres.replication import cut
from cdc.postgres.scalars import BYTEA
from cdc.postgres.settings import Settings
from cdc.postgres.types import PgType, TypeCatalog
from cdc.postgres.values import ColumnPlan, plan_column
from schemas import Column, TableId, TableSchema

log = logging.getLogger(__name__)

Connect = Callable[[], psycopg.Connection[Any]]


class Planner:
    """Makes plans for one source. Used from one thread; opens its connection when needed.

    ``names``: whether it says which columns are left out. Of all processes one does.
    """

    def __init__(self, connect: Connect, settings: Settings, *, names: bool = True) -> None:
        self._connect, self._settings, self._names = connect, settings, names
        self._connection: psycopg.Connection[Any] | None = None
        self._types: TypeCatalog | None = None
        self._plans: dict[TableSchema, RelationPlan] = {}
        self._named: set[tuple[TableId, str]] = set()
        # told of the captured columns that a table's rows come with in the stream
        self.on_streamed: Callable[[TableInfo, tuple[str, ...]], None] = lambda *_: None

    def describe(self, relation: Relation) -> RelationPlan | None:
        """The plan of a streamed relation; None for a table that is not captured."""
        table = TableId(self._settings.database, relation.schema, relation.name)
        if not self._settings.tables(table):
            return None
        for column in relation.columns:
            if self.types.get(column.type_id) is None:
                log.warning("%s.%s has a type that was dropped since", table, column.name)
        info = read_table(self.connection, relation.id)
        if info is not None:
            names = (column.name for column in relation.columns)
            self.on_streamed(info, tuple(n for n in names if self._settings.columns(table, n)))
        return self._plan(_merged(table, relation, info))

    def plan_table(
        self, info: TableInfo, columns: Sequence[str], as_table: TableId
    ) -> RelationPlan:
        """The plan of a snapshotted table's COPY lines of ``columns``, under another name maybe."""
        wanted = tuple(info.schema.column(name) for name in columns)
        key = tuple(name for name in info.schema.key if name in columns)
        return self._plan(replace(info.schema, id=as_table, columns=wanted, key=key))

    def columns(
        self, info: TableInfo, columns: Sequence[str], as_table: TableId
    ) -> list[tuple[Column, ColumnPlan | None]]:
        """Those of a table's ``columns`` that are in its events, with the plan of each."""
        settings = self._settings
        key = settings.keys.of_table(info.schema) or info.schema.key
        return [
            (column, plan_column(column, self.types, settings.values, str(as_table)))
            for column in info.schema.columns
            if column.name in columns
            and (column.name in key or settings.columns(as_table, column.name))
        ]

    def decoder_options(self) -> DecoderOptions:
        """What the decoder leaves out, and how it renders messages."""
        settings = self._settings
        mode = settings.values.binary_handling_mode
        as_bytea = BYTEA[mode]
        schema = build_message_schema(
            topic=settings.naming.messages, options=settings.events, binary_handling_mode=mode
        )
        return DecoderOptions(
            skipped=settings.skipped,
            message_schema=schema,
            message_content=lambda content: as_bytea(b"\\x" + content.hex().encode()),
            wants_prefix=settings.prefixes.allows,
        )

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The catalogue connection, opened again after a loss."""
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    @property
    def types(self) -> TypeCatalog:
        """pg_type, read once; types created later are looked up when they appear."""
        if self._types is None:
            self._types = read_types(self.connection, self._lookup)
        return self._types

    def close(self) -> None:
        """Close the catalogue connection."""
        if self._connection is not None:
            self._connection.close()

    def interrupt(self) -> None:
        """Cut the catalogue connection, from any thread."""
        connection = self._connection
        if connection is not None:
            cut(connection)

    def _lookup(self, oid: int) -> PgType | None:
        return read_type(self.connection, oid)

    def _plan(self, table: TableSchema) -> RelationPlan:
        known = self._plans.get(table)
        # enum labels live in pg_enum, not in the message: such tables are planned afresh
        for column in table.columns:
            kind = self.types.get(column.type_id)
            if kind is not None and kind.labels:
                self.types.forget(column.type_id)
                known = None
        if known is None:
            known = self._plans[table] = self._build(table)
        return known

    def _build(self, table: TableSchema) -> RelationPlan:
        settings = self._settings
        plans = [plan_column(c, self.types, settings.values, str(table.id)) for c in table.columns]
        for column, plan in zip(table.columns, plans, strict=True):
            if plan is None and self._names and (table.id, column.name) not in self._named:
                self._named.add((table.id, column.name))
                log.warning(
                    "%s.%s is left out: its type has no form in events (as in Debezium); "
                    "include.unknown.datatypes=true sends its text as bytes",
                    table.id,
                    column.name,
                )
        excluded = {n for n in table.column_names if not settings.columns(table.id, n)}
        schema = build_event_schema(
            table,
            [p for p in plans if p is not None],
            topic=settings.naming.data(table.id),
            options=settings.events,
            key=settings.keys.of_table(table),
            excluded=excluded,
        )
        fields = [
            WireColumn(field_name(column.name, settings.events), plan, column.name not in excluded)
            for column, plan in zip(table.columns, plans, strict=True)
        ]
        return build_plan(schema, fields)


def _merged(table: TableId, relation: Relation, info: TableInfo | None) -> TableSchema:
    """A relation's columns with what the catalogue knows of them."""
    known = {c.name: c for c in info.schema.columns} if info else {}
    columns = []
    for column in relation.columns:
        there = known.get(column.name)
        if there is not None and there.type_id != column.type_id:
            there = None  # another column, or what it was before: nothing is known of that
        columns.append(
            Column(
                column.name,
                column.type_id,
                column.modifier,
                there.nullable if there else True,
                there.default if there else None,
            )
        )
    key = _key(relation, info)
    return TableSchema(
        table, tuple(columns), key, relation.id, info.schema.comment if info else None
    )


def _key(relation: Relation, info: TableInfo | None) -> tuple[str, ...]:
    """The key's columns, as of the message where it says them.

    Under the default identity its flags are the primary key of that time; the catalogue's, if
    it is the same, has their order. Otherwise only the catalogue knows a key.
    """
    flagged = tuple(c.name for c in relation.columns if c.key)
    present = info.schema.key if info is not None else ()
    if relation.identity == "d" and flagged:
        return present if set(present) == set(flagged) else flagged
    names = {c.name for c in relation.columns}
    return tuple(name for name in present if name in names)
