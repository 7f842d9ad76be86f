"""What an attack on the source found: tables and keys that were taken for something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cdc.errors import SourceError
from tests.pipeline import Pipeline

TABLES = "CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a VALUES (1, 1)"


def test_a_table_made_under_narrower_lists_is_read_when_they_widen(
    database: Any, tmp_path: Path
) -> None:
    database.execute(TABLES)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until_agrees(database, "public.a")
    database.execute("CREATE TABLE b (id int PRIMARY KEY, n int); INSERT INTO b VALUES (1, 1)")
    with Pipeline(tmp_path / "j", database.dsn, table_include_list="public.a") as pipeline:
        pipeline.running()
    database.execute("INSERT INTO b VALUES (2, 2)")
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until_agrees(database, "public.a", "public.b")


def test_a_table_that_was_unlogged_at_first_is_read(database: Any, tmp_path: Path) -> None:
    database.execute(TABLES)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until_agrees(database, "public.a")
    database.execute(
        "CREATE UNLOGGED TABLE b (id int PRIMARY KEY, n int); INSERT INTO b VALUES (1, 1);"
        "ALTER TABLE b SET LOGGED; INSERT INTO b VALUES (2, 2)"
    )
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until_agrees(database, "public.a", "public.b")


def test_a_key_is_that_of_its_time_not_of_today(database: Any, tmp_path: Path) -> None:
    """The primary key was replaced while nobody read."""
    database.execute(
        "CREATE TABLE a (id int PRIMARY KEY, u int NOT NULL); INSERT INTO a VALUES (1, 7)"
    )
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until_agrees(database, "public.a")
    database.execute("INSERT INTO a VALUES (2, 8); DELETE FROM a WHERE id = 2")
    database.execute("ALTER TABLE a DROP CONSTRAINT a_pkey, ADD PRIMARY KEY (u)")
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        events = pipeline.until(lambda es: any(e.op == "d" for e in es), "the delete")
    assert [e.key for e in events if e.op in "cd"] == [{"id": 2}, {"id": 2}]


def test_a_deferrable_primary_key_is_no_replica_identity(database: Any, tmp_path: Path) -> None:
    database.execute("CREATE TABLE a (id int PRIMARY KEY DEFERRABLE, n int)")
    with (
        pytest.raises(SourceError, match="UPDATE"),
        Pipeline(tmp_path / "j", database.dsn) as pipeline,
    ):
        pipeline.until(bool, "never")
    assert not database.execute("SELECT 1 FROM pg_publication")
