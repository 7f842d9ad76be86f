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
    place: tuple[int, int]  # its order among the row's versions


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
    shifts: bool = False

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
        elif what < 0.12 and self.shifts:
            self.shift()
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

    def note(
        self,
        op: str,
        row: Row | None,
        key: int,
        before: dict[str, Any] | None,
        place: tuple[int, int] | None = None,
    ) -> None:
        offset = self.source.offset + len(self.source._rows) - 1
        values = None if row is None or op in "dt" else dict(row.values)
        changed: tuple[str, ...] | None = ()
        if values is not None:
            changed = tuple(n for n, v in values.items() if before is None or v != before.get(n))
        identity = row.identity if row else -1
        self.facts.append(
            Fact(
                offset, op, identity, key, values, changed, len(self.blocks),
                place or (offset, 1),
            )
        )  # fmt: skip

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
        self.source.begin()
        self._leave(row, key, new)
        self._arrive(row, key, new)
        self.source.commit()

    def shift(self) -> None:
        """``SET id = id + 1`` over neighbours, in whatever order the rows lie on disk."""
        ends = [k for k in range(1, KEYS) if k not in self.rows and k - 1 in self.rows]
        if not ends:
            return
        end = first = self.random.choice(ends)
        while first - 1 in self.rows and (first == end or self.random.random() < 0.8):
            first -= 1
        moves = list(range(first, end))
        self.random.shuffle(moves)
        leaving = {key: self.rows.pop(key) for key in moves}
        arrivals: dict[int, int] = {}  # key → where a row arrived while another had it
        self.source.begin()
        for key in moves:
            row = leaving.pop(key)
            at = arrivals.pop(key, None)
            self._leave(row, key, key + 1, None if at is None else (at, 0))
            self._arrive(row, key, key + 1)
            if key + 1 in leaving:
                arrivals[key + 1] = self.facts[-1].offset
        self.source.commit()

    def _leave(self, row: Row, key: int, new: int, place: tuple[int, int] | None = None) -> None:
        self.source._moved[len(self.source._rows)] = b'{"id":%d}' % new
        self.source.delete(self.schema, **self.wire(row.values))
        self.note("d", row, key, None, place)

    def _arrive(self, row: Row, key: int, new: int) -> None:
        before, values = row.values, self.values(new)
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

    def read_all(self) -> Block | None:
        """A snapshot of all rows, as they are; None when there are none."""
        for key, row in sorted(self.rows.items()):
            row.values = self.shaped(row.values)
            self.source.read(self.schema, **self.wire(row.values))
            self.note("r", row, key, self.known(key))
            self.facts[-1].block = -1  # no block of the stream
        return self.source.block() if self.source._rows else None

    def shaped(self, values: dict[str, Any]) -> dict[str, Any]:
        """With the columns there are now."""
        return {f.name: values.get(f.name) for f in self.schema.row.fields}

    def known(self, key: int) -> dict[str, Any] | None:
        """What the journal says the row is: the newest fact of its key."""
        facts = self.of_key(key)
        return facts[-1].row if facts else None

    def lose(self, blocks: int) -> None:
        """The newest blocks never reached the journal."""
        for _ in range(min(blocks, len(self.blocks))):
            lost = self.blocks.pop()
            self.source.offset = lost.offsets[0]
            self.facts = [fact for fact in self.facts if fact.block < len(self.blocks)]

    def vanish(self, offset: int) -> None:
        """What the journal still has, and a snapshot that begins there has not."""
        for key in range(KEYS):
            facts = self.of_key(key)
            if facts and facts[-1].row is not None and key not in self.rows:
                self.facts.append(
                    Fact(offset, "v", facts[-1].identity, key, None, (), -1, (offset, 0))
                )  # fmt: skip

    def truncate(self) -> None:
        self.source.truncate(self.schema)
        for key, row in self.rows.items():
            self.note("t", row, key, None)
        self.rows.clear()

    # --- what must be found

    def of_key(self, key: int) -> list[Fact]:
        return sorted((f for f in self.facts if f.key == key), key=lambda f: f.place)

    def followed(self, key: int) -> list[Fact]:
        """All of the rows that ever had the key."""
        identities = {fact.identity for fact in self.of_key(key)}
        return [fact for fact in self.facts if fact.identity in identities]
