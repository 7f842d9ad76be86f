"""One event as an example: a row read in a read-only transaction, its values masked."""

from __future__ import annotations

import time
from typing import Any

import orjson
import psycopg
from psycopg import sql

from cdc.block import READ, Block, Transaction
from cdc.errors import ConnectionLost, SourceError
from cdc.event import Event, events
from cdc.postgres.planner import Planner
from cdc.postgres.quoting import quoted, quoted_tables
from cdc.postgres.settings import Settings
from cdc.postgres.snapshot_reader import recovered
from cdc.postgres.targets import Target
from cdc.postgres.values import LOAD_ERRORS

MASK = "***"


def example_of(
    planner: Planner, settings: Settings, target: Target, show_values: bool
) -> dict[str, Any] | None:
    """The event of the table's first row; None when it has none. Raises SourceError."""
    schema = target.info.schema
    statement = sql.SQL("COPY (SELECT {} FROM ONLY {}{} LIMIT 1) TO STDOUT").format(
        sql.SQL(", ").join(map(sql.Identifier, target.columns)),
        sql.Identifier(schema.id.schema, schema.id.table),
        # the publication's own expression
        sql.SQL(f" WHERE {target.row_filter}" if target.row_filter else ""),
    )
    plan = planner.plan_table(target.shape, target.columns, target.as_table)
    try:
        with planner.connection.cursor().copy(statement) as copy:
            lines = [bytes(line) for line in copy]
    except psycopg.OperationalError as error:
        raise ConnectionLost(" ".join(str(error).split())) from None
    except psycopg.Error as error:
        remedy = ""
        if isinstance(error, psycopg.errors.InsufficientPrivilege):  # some columns may be granted
            role = quoted(planner.connection.info.user)
            remedy = f"GRANT SELECT ON {quoted_tables([schema.id])} TO {role}"
        said = " ".join(str(error).split())
        raise SourceError(f"{target.name} cannot be read: {said}", remedy=remedy) from None
    if not lines:
        return None
    values = lines[0][:-1].split(b"\t")
    try:
        key, row = plan.line(values)
    except LOAD_ERRORS:
        key, row = recovered(plan, values)
    now_us = time.time_ns() // 1000
    block = Block.build(
        [(READ, 0, 0, 0, 0, key, None, row)], (plan.schema,),
        (Transaction(0, 0, 0, now_us, 0),), now_us, marker="true", context=settings.context,
    )  # fmt: skip
    return _shown(next(events(block)), show_values=show_values)


def _shown(record: Event, *, show_values: bool) -> dict[str, Any]:
    value = dict(record.value)
    key = record.key
    if not show_values:
        value["after"] = _masked(value.get("after"))
        key = _masked(key)
    shown: dict[str, Any] = orjson.loads(
        orjson.dumps({"topic": record.topic, "key": key, "value": value})
    )
    return shown


def _masked(image: Any) -> Any:
    """Names and nulls stay; every value is a mask."""
    if not isinstance(image, dict):
        return image
    return {name: None if value is None else MASK for name, value in image.items()}
