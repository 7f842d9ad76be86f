"""What a start finds of the tables is stored behind the snapshot, whose rows it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cdc.history import history
from tests.pipeline import Pipeline, until

TABLES = """
CREATE TABLE t (id int PRIMARY KEY, n int);
CREATE TABLE u (id int PRIMARY KEY);
INSERT INTO t VALUES (1, 1), (2, 2);
INSERT INTO u VALUES (1);
"""
NEEDED = {"snapshot_mode": "when_needed"}
DROP = (
    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
    " WHERE database = current_database()"
)


def test_a_row_that_vanished_stays_so_when_its_table_is_dropped_later(
    database: Any, tmp_path: Path
) -> None:
    path = tmp_path / "j"
    database.execute(TABLES)
    with Pipeline(path, database.dsn, **NEEDED) as pipeline:
        pipeline.until_agrees(database, "public.t", "public.u")
    database.execute(DROP)
    database.execute("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (9, 9)")
    with Pipeline(path, database.dsn, **NEEDED) as pipeline:
        pipeline.until(lambda es: [e.op for e in es].count("r") == 6, "all to be read again")
    assert [version.op for version in history(path, "public.t", 1)] == ["r", "v"]
    database.execute("DROP TABLE t")
    with Pipeline(path, database.dsn, **NEEDED) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO u VALUES (2)")
        pipeline.until(lambda es: es[-1].op == "c", "the stream")
    assert [version.op for version in history(path, "public.t", 1)] == ["r", "v"]


def test_rows_vanish_with_a_snapshot_that_finds_none_at_all(database: Any, tmp_path: Path) -> None:
    path = tmp_path / "j"

    def operations() -> list[str]:
        return [version.op for version in history(path, "public.t", 1)]

    database.execute(TABLES)
    with Pipeline(path, database.dsn, **NEEDED) as pipeline:
        pipeline.until_agrees(database, "public.t", "public.u")
    database.execute(DROP)
    database.execute("DELETE FROM t; DELETE FROM u")
    with Pipeline(path, database.dsn, **NEEDED) as pipeline:
        pipeline.running()
        until(lambda: operations() == ["r", "v"], "all to be read again, and nothing else to come")
    database.execute("DROP TABLE t")
    with Pipeline(path, database.dsn, **NEEDED) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO u VALUES (2)")
        pipeline.until(lambda es: es[-1].op == "c", "the stream")
    assert operations() == ["r", "v"]
