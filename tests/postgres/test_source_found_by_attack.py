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


ODD = '"s.1 é%"."T ""x"" {0}%s\\"'
NAMES = rf"""
CREATE SCHEMA "s.1 é%";
CREATE TABLE {ODD} ("a b" int, "1st" text, "quote'd" int[], "😀.{{}}" text,
    PRIMARY KEY ("a b", "1st"));
INSERT INTO {ODD} VALUES (1, E'\t\\N', '{{1}}', E'\\.');
"""
FIELDS = {
    "none": ["a b", "1st", "quote'd", "😀.{}"],
    "avro": ["a_b", "_1st", "quote_d", "_____"],
}


@pytest.mark.parametrize("mode", FIELDS)
def test_names_of_any_kind(database: Any, tmp_path: Path, mode: str) -> None:
    database.execute(NAMES)
    settings = {"field_name_adjustment_mode": mode, "slot_name": "odd"}
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.until(bool, "the snapshot")
        database.execute(f'UPDATE {ODD} SET "quote\'d" = NULL')
        database.execute(f'UPDATE {ODD} SET "a b" = 2')
        events = pipeline.until(lambda es: len(es) == 4, "all changes")
    assert [e.op for e in events] == ["r", "u", "d", "c"]
    assert {e.table for e in events} == {'s.1 é%.T "x" {0}%s\\'}
    names = FIELDS[mode]
    assert all(list(e.fields) == names for e in events)
    rows = [[1, "\t\\N", [1], "\\."], [1, "\t\\N", None, "\\."], [2, "\t\\N", None, "\\."]]
    images = [e.row for e in events if e.op != "d"]
    assert images == [dict(zip(names, row, strict=True)) for row in rows]
    assert [e.key for e in events] == [dict(zip(names[:2], [n, "\t\\N"], strict=True))
                                       for n in (1, 1, 1, 2)]  # fmt: skip
