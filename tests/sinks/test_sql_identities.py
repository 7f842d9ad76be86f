"""Tables whose replica identity is not their key, from a real server into a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.targets import SqliteTarget, started
from tests.fix_postgres import Database
from tests.pipeline import Pipeline
from tests.sinks.journals import blocks_of

TABLE = """
CREATE TABLE items (id int PRIMARY KEY, code int NOT NULL, note text);
CREATE UNIQUE INDEX other ON items (code);
ALTER TABLE items REPLICA IDENTITY {};
INSERT INTO items SELECT i, i, 'old' FROM generate_series(1, 6) i;
CREATE TABLE done (id int PRIMARY KEY);
"""
CHANGES = """
UPDATE items SET note = 'x' WHERE id = 1;
UPDATE items SET code = code + 100 WHERE id = 2;
UPDATE items SET id = 30 WHERE id = 3;
DELETE FROM items WHERE id = 4;
INSERT INTO items VALUES (9, 9, 'a');
DELETE FROM items WHERE id = 9;
INSERT INTO done VALUES (1);
"""


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL", "USING INDEX other"])
def test_a_copy_goes_by_the_identity_where_that_is_made_the_key(
    database: Database, tmp_path: Path, identity: str
) -> None:
    """A delete holds the identity's columns only: another key has to be named for an index."""
    database.execute(TABLE.format(identity))
    more = {"message_key_columns": "public.items:code"} if "INDEX" in identity else {}
    with Pipeline(tmp_path / "journal", database.dsn, **more) as source:
        source.running()
        database.execute(CHANGES)
        source.until(lambda events: events and events[-1].table.endswith("done"), "the end")
    target = SqliteTarget(tmp_path)
    task = started(target)
    for block in blocks_of(tmp_path / "journal"):
        task.put(block)
        task.flush(block.offsets[-1] + 1)
    task.stop()
    there = target.query("SELECT id, code, note FROM items ORDER BY id")
    here = database.execute("SELECT id, code, note FROM items ORDER BY id")
    assert [tuple(row.values()) for row in there] == here
