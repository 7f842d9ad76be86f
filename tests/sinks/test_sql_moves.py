"""Keys that move between rows under a deferrable primary key, from a real server into each copy."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.api import Batch
from cdc.block import STREAMED, Block
from cdc.log import JournalReader
from cdc.postgres.pgoutput import Frame
from cdc.postgres.source import PostgresSourceTask
from cdc.postgres.taking import after_last_commit
from cdc.record import whole_rows
from tests.contract.targets import (
    PostgresTarget,
    SearchTarget,
    SqliteTarget,
    SqlTarget,
    Target,
    started,
)
from tests.fix_postgres import Database
from tests.pipeline import Pipeline

SEED = int(os.environ.get("CDC_TEST_SEED", "20"))
Rows = dict[int, str]
# A transaction's number → what its commit left.
States = dict[int, Rows]

TABLE = """
CREATE TABLE items (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, note text, number int);
ALTER TABLE items REPLICA IDENTITY FULL;
CREATE TABLE done (id int PRIMARY KEY);
"""
ONE = "(SELECT ctid FROM items ORDER BY random() LIMIT 1)"
TAKEN = "INSERT INTO items SELECT id, 'twin', random() * 1000 FROM items ORDER BY random() LIMIT 1"
SHIFTS = (
    "UPDATE items SET id = id + 1",
    "UPDATE items SET id = id - 1 WHERE id % 3 > 0",
    "UPDATE items SET id = 20 - id",
    "UPDATE items SET id = (id * 7) % 19",
    f"UPDATE items SET id = id + 1 WHERE ctid = {ONE}",
    f"UPDATE items SET id = (random() * 20)::int WHERE ctid = {ONE}",
    f"UPDATE items SET note = 'n' || (random() * 1000)::int WHERE ctid = {ONE}",
    f"DELETE FROM items WHERE ctid = {ONE}",
    "INSERT INTO items VALUES ((random() * 1000000)::int + 100, 'new', 1)",
)
TWINS_GO = "DELETE FROM items a USING items b WHERE a.id = b.id AND a.number {} b.number"


def _transaction(connection: Any, choice: random.Random, statements: tuple[str, ...]) -> int:
    """A transaction of a few statements; its number. What is twice at its end goes, mostly."""
    with connection.transaction():
        for _ in range(choice.randint(1, 5)):
            connection.execute(choice.choice(statements))
        connection.execute(TWINS_GO.format(choice.choice("<>")))
        return int(connection.execute("SELECT txid_current()").fetchone()[0])


class Whole(PostgresSourceTask):
    """Its blocks end where transactions do, however their frames come."""

    _kept: Sequence[Frame] = ()

    def _decoded(self, frames: Sequence[Frame]) -> list[Batch]:
        frames = [*self._kept, *frames]
        end = after_last_commit(frames)
        self._kept = frames[end:]
        return super()._decoded(frames[:end]) if end or not frames else []


def history(
    database: Database, path: Path, statements: tuple[str, ...], transactions: int
) -> tuple[list[Block], States]:
    """A random history in a journal, and the table's rows after each transaction."""
    choice, states = random.Random(SEED), States()
    database.execute(TABLE)
    database.execute(
        "INSERT INTO items SELECT i, 'old ' || i, i * 100 FROM generate_series(1, 12) i"
    )
    with Pipeline(path, database.dsn, task=Whole) as source, database.connect() as connection:
        source.running()
        connection.execute(f"SELECT setseed({SEED / 1000})")
        for _ in range(transactions):
            try:
                number = _transaction(connection, choice, statements)
            except psycopg.errors.UniqueViolation:
                continue  # two rows with the same number have met: rolled back
            found = connection.execute("SELECT id, note FROM items").fetchall()
            states[number] = dict(found)
        connection.execute("INSERT INTO done VALUES (1)")
        source.until(lambda events: events and events[-1].table.endswith("done"), "the end")
    blocks = []
    with JournalReader(path) as reader:
        at, after = reader.bounds()
        while at < after:
            block = reader.read(at)
            assert block is not None
            blocks.append(block)
            at = block.offsets[-1] + 1
    assert len(states) > transactions / 2
    return blocks, states


def pieces(block: Block, choice: random.Random, most: int) -> Iterator[Block]:
    """The block, cut anywhere, as a source that stores so much at a time would have it."""
    at = 0
    while at < len(block):
        end = min(len(block), at + choice.randint(1, most))
        piece, last = block.select(range(at, end)), block.transaction[end - 1]
        if end < len(block) and block.transaction[end] == last:
            transactions = list(piece.transactions)
            transactions[last] = transactions[last]._replace(end_lsn=0)
            piece = replace(piece, transactions=tuple(transactions))
        yield piece
        at = end


def rows_of(target: Target) -> Rows:
    if isinstance(target, SqlTarget):
        return {row["id"]: row["note"] for row in target.query("SELECT id, note FROM items")}
    return {id_: row["note"] for id_, row in target.state().get("items", {}).items()}


def check(target: Target, blocks: list[Block], states: States, most: int) -> None:
    """Put a history in pieces; after each transaction the target has the source's rows."""
    choice, task, compared = random.Random(SEED + most), started(target), 0
    for block in blocks:
        for piece in pieces(block, choice, most):
            task.put(piece)
            if whole_rows(piece) == len(piece):
                task.flush(piece.offsets[-1] + 1)
                number = piece.transactions[piece.transaction[-1]].xid
                streamed = piece.marker_of(len(piece) - 1) == STREAMED
                if streamed and number in states:
                    assert rows_of(target) == states[number]
                    compared += 1
    assert rows_of(target) == list(states.values())[-1]
    assert compared or most > 100  # a whole block may end behind the last of them
    # A replay goes through it all again.
    task.seek(0, 1)
    for block in blocks:
        task.put(block)
    task.flush(blocks[-1].offsets[-1] + 1)
    task.stop()
    assert rows_of(target) == list(states.values())[-1]


@pytest.fixture(params=["sqlite", "postgres", "search"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    if request.param == "sqlite":
        yield SqliteTarget(tmp_path)
    elif request.param == "search":
        yield SearchTarget(tmp_path)
    else:
        copy = Database(request.getfixturevalue("postgres_server"), f"copy_{os.getpid()}")
        copy.create()
        yield PostgresTarget(copy)
        copy.drop()


@pytest.mark.parametrize("most", [1, 7, 10_000])
def test_random_key_changes_leave_every_copy_with_the_sources_rows(
    database: Database, tmp_path: Path, target: Target, most: int
) -> None:
    blocks, states = history(database, tmp_path / "journal", SHIFTS, 60)
    check(target, blocks, states, most)


def test_an_insert_under_a_key_that_is_given_up_later_is_seen_within_a_block(
    database: Database, tmp_path: Path, target: Target
) -> None:
    blocks, states = history(database, tmp_path / "journal", (*SHIFTS, TAKEN, TAKEN, TAKEN), 60)
    check(target, blocks, states, 10_000)


def test_a_shift_of_all_keys_keeps_all_rows(
    database: Database, tmp_path: Path, target: Target
) -> None:
    blocks, states = history(database, tmp_path / "journal", SHIFTS[:1], 3)
    check(target, blocks, states, 1)
    found = rows_of(target)
    assert found == {min(found) + i: f"old {i + 1}" for i in range(12)}
