"""A made-up table's life, and what its history must be, in plain Python.

:class:`Life` performs random changes on a :class:`tests.blocks.Source` and keeps, beside each,
what is to be found later: who had which key, and what the row was.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from cdc.block import Block
from schemas import EventSchema
from tests.blocks import INT32, STRING, Source, base64, decimal, event_schema, optional, unscaled

KEYS = 6
FIRST = {"id": INT32, "big": optional(STRING), "n": optional(decimal(10, 2))}
SCHEMAS = (
    event_schema("t", FIRST),
    event_schema("t", FIRST | {"more": optional(STRING)}),
    event_schema("t", {"id": INT32, "big": optional(STRING), "more": optional(STRING)}),
)
OTHER = event_schema("other", {"id": INT32, "big": optional(STRING)})


@dataclass
class Fact:
    """What the history must say of one event."""

    offset: int
    op: str
    identity: int
    key: int
    row: dict[str, Any] | None
    changed: tuple[str, ...] | None
    block: int


@dataclass
class Row:
    identity: int
    values: dict[str, Any]


@dataclass
class Life:
    """A table of few keys, so that they are used again and again."""

    seed: int
    source: Source = field(default_factory=Source)
    rows: dict[int, Row] = field(default_factory=dict)
    facts: list[Fact] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.schema: EventSchema = SCHEMAS[0]
        self.identities = 0

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
            if self.random.random() < 0.3:
                self.flush()
        self.flush()

    def flush(self) -> None:
        if self.source._rows:
            self.blocks.append(self.source.block())

    def step(self) -> None:
        key = self.random.randrange(KEYS)
        what = self.random.random()
        if what < 0.03:
            self.truncate()
        elif what < 0.07:
            self.schema = self.random.choice(SCHEMAS)
        elif what < 0.15:
            self.source.insert(OTHER, id=key, big="elsewhere")
        elif key not in self.rows:
            self.insert(key)
        elif what < 0.3:
            self.delete(key)
        elif what < 0.45:
            self.move(key)
        else:
            self.update(key)

    # --- changes

    def note(self, op: str, row: Row | None, key: int, before: dict[str, Any] | None) -> None:
        offset = self.source.offset + len(self.source._rows) - 1
        values = None if row is None or op in "dt" else dict(row.values)
        changed: tuple[str, ...] | None = ()
        if values is not None:
            changed = tuple(n for n, v in values.items() if before is None or v != before.get(n))
        identity = row.identity if row else -1
        self.facts.append(Fact(offset, op, identity, key, values, changed, len(self.blocks)))

    def values(self, key: int) -> dict[str, Any]:
        made = {"id": key, "big": f"big {self.random.randrange(3)}", "n": None, "more": None}
        if self.random.random() < 0.7:
            made["n"] = f"{self.random.randrange(-300, 300) / 100:.2f}"
            made["more"] = f"more {self.random.randrange(3)}"
        return {f.name: made[f.name] for f in self.schema.row.fields}

    def wire(self, values: dict[str, Any]) -> dict[str, Any]:
        n = values.get("n")
        return values | ({"n": None if n is None else unscaled(round(float(n) * 100))})

    def insert(self, key: int) -> None:
        self.identities += 1
        row = self.rows[key] = Row(self.identities, self.values(key))
        self.source.insert(self.schema, **self.wire(row.values))
        self.note("c", row, key, None)

    def update(self, key: int) -> None:
        row = self.rows[key]
        before, values = row.values, self.values(key)
        unsent = ["big"] if self.random.random() < 0.5 else []
        if unsent:
            values["big"] = before["big"]
        row.values = values
        self.source.update(self.schema, unchanged=unsent, **self.wire(values))
        self.note("u", row, key, before)

    def delete(self, key: int) -> None:
        row = self.rows.pop(key)
        self.source.delete(self.schema, **self.wire(row.values))
        self.note("d", row, key, None)

    def move(self, key: int) -> None:
        free = [k for k in range(KEYS) if k not in self.rows]
        if not free:
            return
        new = self.random.choice(free)
        row = self.rows.pop(key)
        before = row.values
        values = self.values(new)
        self.source.begin()
        self.source._moved[len(self.source._rows)] = b'{"id":%d}' % new
        self.source.delete(self.schema, **self.wire(before))
        self.note("d", row, key, None)
        self.source._moved[len(self.source._rows)] = b'{"id":%d}' % key
        if self.random.random() < 0.5:  # its TOASTed value is not sent
            values["big"] = before["big"]
            at = len(self.source._rows)
            self.source._unchanged[at] = (self.schema.row.field_index["big"],)
            self.source.insert(self.schema, **self.wire(values | {"big": base64(b"placeholder")}))
        else:
            self.source.insert(self.schema, **self.wire(values))
        row.values = values
        self.rows[new] = row
        self.note("c", row, new, before)
        self.source.commit()

    def truncate(self) -> None:
        self.source.truncate(self.schema)
        for key, row in self.rows.items():
            self.note("t", row, key, None)
        self.rows.clear()

    # --- what must be found

    def of_key(self, key: int) -> list[Fact]:
        return [fact for fact in self.facts if fact.key == key]

    def followed(self, key: int) -> list[Fact]:
        """All of the rows that ever had the key."""
        identities = {fact.identity for fact in self.of_key(key)}
        return [fact for fact in self.facts if fact.identity in identities]
