"""The journal's events as they come: filtered, and as lines for people or programs."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

from cdc import javaregex
from cdc.block import DELETE, MESSAGE, TRUNCATE, Block
from cdc.converters.json import JsonConverter
from cdc.converters.lines import JsonLines
from cdc.errors import ConfigError
from cdc.history.expression import Lsn, Scope, columns_of, compile_expression
from cdc.history.render import Renderer, printable, value_text
from cdc.history.tables import nearest
from cdc.javaregex import JavaPattern
from cdc.log import Gap, JournalReader
from cdc.log.places import moment, time_text
from cdc.lsn import lsn_text
from cdc.record import UNCHANGED

FORMATS = ("line", "record", "value")
WAIT_S = 0.5
OPERATIONS = {"r": "read", "c": "create", "u": "update", "d": "delete", "t": "truncate"}
OPERATIONS |= {"m": "message", "v": "vanished"}  # the last is of a history only


def table_pattern(text: str | None, key: str = "--tables") -> JavaPattern | None:
    """A regular expression over ``schema.table``, of the whole name. Raises ConfigError."""
    if text is None:
        return None
    try:
        return javaregex.compile(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no regular expression: {error}", key=key) from None


def unknown_tables(reader: JournalReader, pattern: JavaPattern | None) -> ConfigError | None:
    """What to say of a pattern that fits no table of a journal which holds some."""
    schemas = reader.schemas(lost=lambda _: None).values()  # damage is told where it is read
    names = {str(schema.table) for schema in schemas if schema.kind != "message"}
    if pattern is None or not names or any(map(pattern.matches, names)):
        return None
    return ConfigError(
        f"{pattern.text} fits no table of the journal", key="--tables",
        remedy=nearest(re.sub(r"[\\^$()?*+]", "", pattern.text), names),
    )  # fmt: skip


def unknown_columns(
    reader: JournalReader, pattern: JavaPattern | None, where: str | None
) -> list[ConfigError]:
    """What to say of columns in a condition that none of the tables has: they are null."""
    schemas = reader.schemas(lost=lambda _: None).values()
    wanted = [s for s in schemas if pattern is None or pattern.matches(str(s.table))]
    if where is None or not wanted or any(s.kind == "record" for s in wanted):
        return []  # what transforms have made has what they put in
    names = {field.name for schema in wanted for field in schema.row.fields}
    names |= {name for schema in wanted for name in schema.key_names}
    return [
        ConfigError(
            f"no table {'of the journal' if pattern is None else pattern.text} has a column {name}",
            key="--where", remedy=nearest(name, names),
        )
        for name in columns_of(where)
        if name not in names
    ]  # fmt: skip


class Filter:
    """Which rows of a block are wanted."""

    def __init__(self, tables: JavaPattern | None = None, where: str | None = None) -> None:
        self._tables = tables
        self._where = compile_expression(where) if where is not None else None
        self._renderer = Renderer()

    def __call__(self, block: Block) -> Block | None:
        """These rows as a block; None when there are none."""
        rows: Sequence[int] = range(len(block))
        if self._tables is not None:
            fits = [self._tables.matches(str(s.table)) for s in block.schemas]
            rows = [row for row in rows if fits[block.schema[row]] and block.op[row] != MESSAGE]
        if self._where is not None:
            rows = [row for row in rows if self._where(scope_of(block, row, self._renderer))]
        return block.select(rows) if rows else None


def scope_of(block: Block, row: int, renderer: Renderer) -> Scope:
    """What an expression sees of one event. Values that were not sent are null."""
    schema, before, after, unsent = renderer.images(block, row)
    transaction = block.transactions[block.transaction[row]]
    key = block.keys[row]
    shown = None if after is None else renderer.row(schema, after, unsent)
    if shown is not None and unsent:
        shown = {name: None if v is UNCHANGED else v for name, v in shown.items()}
    return {
        "op": chr(block.op[row]),
        "table": str(schema.table),
        "key": None if key is None else renderer.key(schema, key),
        "before": None if before is None else renderer.row(schema, before),
        "after": shown,
        "lsn": Lsn(block.lsn[row]),
        "tx": transaction.xid or None,
        "offset": block.offsets[row],
        "time": time_text(moment(transaction.commit_us)),
    }


def blocks(
    reader: JournalReader,
    first: int,
    *,
    end: int | None = None,
    follow: bool = False,
    dropped: Callable[[Gap], None] | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Block]:
    """From an offset up to ``end``, or to the end there is; with ``follow`` for ever.

    ``dropped`` is told of rows that are gone for want of space, which raise without it.
    """
    offset = first
    while end is None or offset < end:
        try:
            block = reader.read(offset)
        except Gap as gap:
            if dropped is None:
                raise
            dropped(gap)
            offset = gap.end
            continue
        if block is None:
            if not follow or (stop is not None and stop.is_set()):
                return
            reader.wait(WAIT_S)
            continue
        offset += len(block)
        if end is not None and offset > end:
            block = block.select(range(len(block) - (offset - end)))
        yield block


def renderer_of(format_: str, *, tombstones: bool = False) -> Callable[[Block], list[bytes]]:
    """From a block to lines; each ends in a newline."""
    if format_ == "line":
        lines = _Lines()
        return lines.render
    plain = JsonConverter(schemas_enable=False)
    return JsonLines(plain, plain, format_, tombstones=tombstones).render


class _Lines:
    """One line an event: offset, LSN, time, transaction, operation, table, key, what is new."""

    def __init__(self) -> None:
        self._renderer = Renderer()

    def render(self, block: Block) -> list[bytes]:
        return [self._line(block, row).encode() for row in range(len(block))]

    def _line(self, block: Block, row: int) -> str:
        scope: dict[str, Any] = dict(scope_of(block, row, self._renderer))
        op = block.op[row]
        schema, _, _, unsent = self._renderer.images(block, row)
        skip = {schema.row.fields[index].name for index in unsent}
        image = scope["before"] if op == DELETE else scope["after"]
        shown = {} if image is None or op == TRUNCATE else image
        before = scope["before"] if op != DELETE else None
        pairs = [
            f"{printable(name)}={value_text(value)}"
            for name, value in shown.items()
            if name not in skip and (before is None or before.get(name) != value)
        ]
        words = [
            str(scope["offset"]),
            lsn_text(scope["lsn"]),
            scope["time"],
            "-" if scope["tx"] is None else str(scope["tx"]),
            OPERATIONS[scope["op"]],
            printable(scope["table"]) if op != MESSAGE else "-",
            "-" if scope["key"] is None else printable(orjson.dumps(scope["key"]).decode()),
        ]
        return " ".join([*words, *pairs]) + "\n"
