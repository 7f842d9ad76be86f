"""A made-up history for sinks that are killed, and what must come of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from cdc.api import SinkContext, SinkTask
from cdc.block import DELETE, MESSAGE, Block
from cdc.record import UNCHANGED, image
from sinks import audit, search
from tests.blocks import INT32, STRING, Source, optional
from tests.forks import Tell

WORDS = "apple brown cedar delta eagle fjord grape hotel igloo jolly".split()


@dataclass
class History:
    """Blocks, the author of every row, and the rows that are left at the end."""

    blocks: list[Block]
    authors: dict[int, str | None] = field(default_factory=dict)
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        waiting: list[int] = []
        author: str | None = None
        for block in self.blocks:
            for row, op in enumerate(block.op):
                transaction = block.transactions[block.transaction[row]]
                if (transaction.xid, transaction.commit_lsn) != getattr(self, "_open", None):
                    self._open = (transaction.xid, transaction.commit_lsn)
                    waiting, author = [], None
                offset = block.offsets[row]
                if op == MESSAGE:
                    author = f"m{offset}"
                    self.authors.update(dict.fromkeys(waiting, author))
                    waiting = []
                    continue
                self.authors[offset] = author
                if author is None:
                    waiting.append(offset)
                self._apply(block, row)

    def _apply(self, block: Block, row: int) -> None:
        key = orjson.loads(block.keys[row] or b"{}")["id"]
        if block.op[row] == DELETE:
            gone = self.rows.pop(key, None)
            if row in block.moved:
                self._moved = gone or {}
            return
        values = image(block, row) or {}
        before = self._moved if row in block.moved else self.rows.get(key, {})
        self.rows[key] = {n: before.get(n) if v is UNCHANGED else v for n, v in values.items()}


def history(seed: int, count: int) -> History:
    """Transactions in blocks that end anywhere, with messages, key changes and unsent values."""
    chance, shop = random.Random(seed), Source()
    table = shop.table("items", id=INT32, note=optional(STRING), big=optional(STRING))
    live: list[int] = []
    blocks: list[Block] = []
    while len(blocks) < count:
        for _ in range(chance.randint(1, 40)):
            if shop._open is None:
                shop.begin()
            _step(chance, shop, table, live)
            if chance.random() < 0.15:
                shop.commit()
        last = len(blocks) == count - 1
        if shop._open is not None and (last or chance.random() < 0.6):
            shop.commit()
        blocks.append(shop.block())
    return History(blocks)


def _step(chance: random.Random, shop: Source, table: Any, live: list[int]) -> None:
    note = " ".join(chance.choices(WORDS, k=3))
    kind = chance.choice(["insert", "insert", "update", "unsent", "delete", "key", "message"])
    if kind == "message":
        who = f"m{shop.offset + len(shop._rows)}"
        shop.message("cdc.audit", orjson.dumps({"who": who, "why": "x"}))
    elif kind == "insert" or not live:
        live.append(max(live, default=0) + 1)
        shop.insert(table, id=live[-1], note=note, big=f"{note} large")
    elif kind == "update":
        shop.update(table, id=chance.choice(live), note=note, big=None)
    elif kind == "unsent":
        shop.update(table, id=chance.choice(live), note=note, unchanged=["big"])
    elif kind == "delete":
        shop.delete(table, id=live.pop(chance.randrange(len(live))))
    else:
        old = live.pop(chance.randrange(len(live)))
        live.append(max([*live, old]) + 1)
        row = {"note": note, "big": note}
        shop.change_key(table, {"id": old, **row}, {"id": live[-1], **row})


def make(kind: str, path: str) -> SinkTask:
    """A task of one of the sinks; ``path`` is PostgreSQL's URL too."""
    if kind == "search":
        options = {"search.file": path, "search.columns": "public.items:note,big"}
        return search.SearchSinkTask(search.CONFIG.parse(options))
    schemes = {"parquet": f"parquet:{path}", "sqlite": f"jdbc:sqlite:{path}"}
    more = {"audit.parquet.rows": "40", "audit.transaction.rows": "20"}
    url = schemes.get(kind, path)
    return audit.AuditSinkTask(audit.CONFIG.parse({"connection.url": url, **more}))


def feed(task: SinkTask, blocks: list[Block], chance: random.Random) -> None:
    """As the sink loop does: flush only where a transaction ends."""
    offset = task.stored_offset() or 0
    for number, block in enumerate(blocks):
        if block.offsets[-1] < offset:
            continue
        task.put(block)
        last = number == len(blocks) - 1
        transaction = block.transactions[block.transaction[len(block) - 1]]
        if last or (transaction.end_lsn and chance.random() < 0.5):
            task.flush(block.offsets[-1] + 1)


def run(tell: Tell, kind: str, path: str, blocks: list[Block]) -> None:
    """Feed a sink from where its target says that it is; to be killed at any moment."""
    tell("ready")
    sink = make(kind, path)
    sink.start(SinkContext("copy", Path()))
    feed(sink, blocks, random.Random())
    sink.stop()
