"""Documents for search: one per key, made of the texts of chosen columns. No target here.

A document's id is its key: the text of a key of one column, the JSON array of a key of
several; ids are unique within a table. Its fields are the chosen columns' texts, NULL left
out. A value that the server did not send (unchanged TOAST) keeps the text the document had,
across a change of the key too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

import orjson

from cdc import javaregex
from cdc.block import CREATE, DELETE, READ, TRUNCATE, UPDATE, Block
from cdc.errors import ConfigError
from cdc.javaregex import JavaPattern
from schemas import EventSchema

log = logging.getLogger(__name__)

KEY: Final = "search.columns"
Fields = dict[str, str]
# Stored documents of a table by id, of those asked for.
Load = Callable[[str, Sequence[str]], Mapping[str, Fields]]


@dataclass(frozen=True, slots=True)
class Choice:
    """Columns of the tables whose ``schema.table`` matches."""

    pattern: JavaPattern
    columns: tuple[str, ...]
    exact: bool  # no pattern, one table


def parse_choices(text: str) -> tuple[Choice, ...]:
    """``table:column,column;table:…``, as in ``message.key.columns``; ValueError if it is not."""
    choices = []
    for item in filter(None, (part.strip() for part in text.split(";"))):
        table, colon, names = item.rpartition(":")
        columns = tuple(filter(None, (name.strip() for name in names.split(","))))
        if not colon or not table or not columns:
            raise ValueError(f"{item!r} is not table:column,column")
        try:
            pattern = javaregex.compile(table.strip(), any_case=True)
        except ValueError as error:
            raise ValueError(f"{table!r} is not a regular expression: {error}") from None
        exact = re.fullmatch(r"[\w\s]+\\?\.[\w\s]+", table.strip()) is not None
        choices.append(Choice(pattern, columns, exact))
    return tuple(choices)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a schema's rows become documents."""

    table: str
    columns: tuple[str, ...]
    names: tuple[str, ...]  # all of the row's, as ``unchanged`` counts them
    keys: tuple[str, ...]


@dataclass(slots=True)
class Changes:
    """What a block does to a table's documents: all of them first, if ``truncated``, are gone.

    ``old`` holds the stored documents among those that change, ``new`` what each becomes.
    """

    table: str
    truncated: bool = False
    old: dict[str, Fields] = field(default_factory=dict)
    new: dict[str, Fields | None] = field(default_factory=dict)


class Builder:
    """Turns blocks into changes of documents. ``known``: columns a table had in the target."""

    def __init__(
        self, choices: Sequence[Choice], load: Load, known: Callable[[str], Iterable[str]]
    ) -> None:
        self._choices, self._load, self._known = choices, load, known
        self._plans: dict[str, Plan | None] = {}
        self._seen: set[str] = set()
        # A key change is two rows, maybe in two blocks: what the old key's document held.
        self._departed: tuple[str, str, Fields] | None = None

    def changes(self, block: Block) -> list[Changes]:
        """By table. Raises ConfigError for a chosen column that is not there."""
        plans = [self.plan(schema) for schema in block.schemas]
        rows: dict[str, list[int]] = {}
        by_schema: list[list[int] | None] = [
            None if plan is None else rows.setdefault(plan.table, []) for plan in plans
        ]
        for row, schema in enumerate(block.schema):
            found = by_schema[schema]
            if found is not None:
                found.append(row)
        return [self._table(block, plans, table, rows[table]) for table in rows if rows[table]]

    def _table(
        self, block: Block, plans: Sequence[Plan | None], table: str, rows: Sequence[int]
    ) -> Changes:
        keys = block.keys
        ids = {row: document_id(key) for row in rows if (key := keys[row]) is not None}
        found = Changes(table, old=dict(self._load(table, list(dict.fromkeys(ids.values())))))
        new = found.new
        current: dict[str, Fields | None] = dict(found.old)
        ops, schemas, afters = block.op, block.schema, block.afters
        unchanged, moved = block.unchanged, block.moved
        for row in rows:
            op, id_ = ops[row], ids.get(row, "")
            if op in (CREATE, UPDATE, READ):
                plan, after = plans[schemas[row]], afters[row]
                assert plan is not None
                fields = texts(after or b"{}", plan.columns)
                departed = self._arrival(table, id_) if self._departed else None
                if unchanged and row in unchanged:
                    before = departed or current.get(id_) or {}
                    fields = _kept(fields, before, plan, unchanged[row])
                current[id_] = new[id_] = fields
            elif op == DELETE:
                if row in moved:
                    target = document_id(moved[row])
                    self._departed = (table, target, current.get(id_) or {})
                current[id_] = new[id_] = None
            elif op == TRUNCATE:
                found.truncated = True
                found.old.clear()
                current.clear()
                new.clear()
        return found

    def _arrival(self, table: str, id_: str) -> Fields | None:
        """What the document held under its old key, if this row is the second of a key change."""
        if self._departed is None or self._departed[0] != table:
            return None
        _, target, fields = self._departed
        self._departed = None
        return fields if target == id_ else None

    def present(self, table: str, keys: Sequence[bytes]) -> list[bytes]:
        """Which of some keys have a document."""
        found = self._load(table, [document_id(key) for key in keys])
        return [key for key in keys if document_id(key) in found]

    def plan(self, schema: EventSchema) -> Plan | None:
        """None for what is not searched: messages, tables without key or chosen columns."""
        if schema.fingerprint not in self._plans:
            self._plans[schema.fingerprint] = self._make(schema)
        return self._plans[schema.fingerprint]

    def _make(self, schema: EventSchema) -> Plan | None:
        if schema.kind != "table":
            return None
        table = str(schema.table)
        names = tuple(f.name for f in schema.row.fields)
        columns = self._columns(schema, table, names)
        self._seen.add(table)
        if not columns:
            return None
        if not schema.key_names:
            log.warning("table %s has no key, so its rows are not searchable", table)
            return None
        return Plan(table, columns, names, schema.key_names)

    def _columns(self, schema: EventSchema, table: str, names: tuple[str, ...]) -> tuple[str, ...]:
        if not self._choices:
            return tuple(f.name for f in schema.row.fields if f.schema.type == "string")
        wanted: dict[str, None] = {}
        for choice in self._choices:
            if choice.pattern.matches(table):
                for name in choice.columns:
                    if name in names:
                        wanted[name] = None
                    elif choice.exact:
                        self._complain(table, name, names)
        return tuple(wanted)

    def _complain(self, table: str, name: str, names: Sequence[str]) -> None:
        if table in self._seen or name in self._known(table):
            log.warning("table %s no longer has column %s of %s", table, name, KEY)
            return
        nearest = get_close_matches(name, names, 1, 0.5)
        raise ConfigError(
            f"table {table} has no column {name}",
            key=KEY,
            remedy=f"Did you mean {nearest[0]}?" if nearest else f"It has: {', '.join(names)}",
        )


def document_id(key: bytes) -> str:
    """A document's id within its table, from its key's JSON."""
    values = list(orjson.loads(key).values())
    if len(values) == 1 and isinstance(values[0], str | int) and not isinstance(values[0], bool):
        return str(values[0])
    return orjson.dumps(values).decode()


def texts(image: bytes, columns: Sequence[str]) -> Fields:
    """The chosen columns' texts."""
    values = orjson.loads(image)
    out = {}
    for name in columns:
        value = values.get(name)
        if value is not None:
            out[name] = value if isinstance(value, str) else _text(value)
    return out


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _kept(fields: Fields, before: Fields, plan: Plan, unsent: Sequence[int]) -> Fields:
    """The texts of columns that were not sent, from the document as it was; in plan's order."""
    missing = {plan.names[i] for i in unsent}
    merged = {name: before.get(name) if name in missing else fields.get(name)
              for name in plan.columns}  # fmt: skip
    return {name: text for name, text in merged.items() if text is not None}
