"""Who and why in a history: as the application said it, wherever in the transaction."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import orjson
import psycopg
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc import audit
from cdc.api import Batch, Lane
from cdc.history import history
from cdc.log import Journal
from tests.blocks import INT32, STRING, Source, optional
from tests.fix_postgres import Database
from tests.log.rows import MEMORY
from tests.pipeline import Pipeline
from tests.runtime.test_chain import chain_config, chain_of
from tests.runtime.workers import cdc

ROWS = 3  # of a table: each is changed again and again


class Shop:
    """A table of few rows in one long run of transactions, and who changed them."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.source = journal, Source()
        self.table = self.source.table("items", id=INT32, note=optional(STRING))
        for id_ in range(ROWS):
            self.source.insert(self.table, id=id_)
        self.whos: dict[int, list[str | None]] = {id_: [None] for id_ in range(ROWS)}
        self._waiting: list[tuple[int, int]] = []  # row, and number of its version
        self._author: str | None = None
        self.source.begin()

    def row(self, number: int) -> None:
        id_ = number % ROWS
        self.source.update(self.table, id=id_, note=f"{number}")
        self.whos[id_].append(self._author)
        if self._author is None:
            self._waiting.append((id_, len(self.whos[id_]) - 1))

    def say(self, number: int) -> None:
        self._author = f"m{number}"
        said = {"who": self._author, "why": number}
        self.source.message("cdc.audit", orjson.dumps(said))
        for id_, at in self._waiting:
            self.whos[id_][at] = self._author
        self._waiting = []

    def other(self, _: int) -> None:
        self.source.message("outbox", orjson.dumps({"who": "outbox"}))

    def end(self, _: int) -> None:
        self.source.commit()
        self.source.begin()
        self._waiting, self._author = [], None

    def cut(self, _: int) -> None:
        block = self.source.block()
        if len(block):
            self.journal.append(Batch(Lane.STREAM, {}, block))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["row", "say", "other", "cut", "cut", "end"]), max_size=40))
def test_a_version_has_the_message_before_it_else_the_first_after(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        with Journal.open(Path(folder), segment_bytes=1, retention_ms=None) as journal:
            journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
            shop = Shop(journal)
            for number, step in enumerate([*steps, "end", "cut"]):
                getattr(shop, step)(number)
        for id_, whos in shop.whos.items():
            found = history(folder, "items", id_)
            assert [version.who for version in found] == whos
            assert [version.why for version in found] == [who and who[1:] for who in whos]


def test_messages_that_a_chain_has_made_records_of_say_it_too(tmp_path: Path) -> None:
    insert = ("InsertField$Value", {"static.field": "at", "static.value": "home"})
    shop = Source()
    table = shop.table("items", id=INT32)
    shop.begin()
    shop.insert(table, id=1)
    shop.message("cdc.audit", b'{"who":"ann"}')
    shop.commit()
    block = chain_of(chain_config(insert), sink=False).apply(shop.block())
    assert block is not None
    with Journal.open(tmp_path) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        journal.append(Batch(Lane.STREAM, {}, block))
    assert [(v.who, v.why) for v in history(tmp_path, "items", 1)] == [("ann", None)]


def test_what_an_application_says_is_shown(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE item (id int PRIMARY KEY, n int); INSERT INTO item VALUES (7)")
    path = tmp_path / "journal" / "shop"

    def change(statement: str, **said: Any) -> None:
        with psycopg.connect(database.dsn) as connection:
            if said:
                audit.set(connection, **said)
            connection.execute(statement.encode())

    with Pipeline(path, database.dsn) as pipeline:
        pipeline.running()
        change("UPDATE item SET n = 1", who="ann\x1b", why="ticket 4711")
        change("UPDATE item SET n = 2")
        change("UPDATE item SET id = 8", who="bob")
        change("DELETE FROM item", why="end of life")
        pipeline.until(lambda events: events and events[-1].op == "d" and events[-1].moved is None,
                       "the delete")  # fmt: skip
    found = [(v.op, v.who, v.why) for v in history(path, "item", 7, follow=True)]
    assert found == [
        ("r", None, None), ("u", "ann\x1b", "ticket 4711"), ("u", None, None), ("d", "bob", None),
        ("c", "bob", None), ("d", None, "end of life"),
    ]  # fmt: skip
    shown = cdc("history", "item", "7", "--data-dir", tmp_path).stdout
    assert '{"id": 7}  by ann\\u001b, ticket 4711\n' in shown
    assert shown.count("  by ") == 2
    lines = cdc("history", "item", "8", "--json", "--data-dir", tmp_path).stdout.splitlines()
    assert [json.loads(line)["why"] for line in lines] == [None, "end of life"]
