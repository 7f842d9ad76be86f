"""Partitions of partitions, and tables that inherit: what publishing one does to the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cdc.errors import SourceError
from cdc.log import JournalReader
from tests.capture.commands import left_behind
from tests.pipeline import Pipeline

TREE = """
CREATE TABLE top (id int, day int, n int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE mid PARTITION OF top FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (day);
CREATE TABLE leaf_1 PARTITION OF mid FOR VALUES FROM (0) TO (10);
CREATE TABLE leaf_2 PARTITION OF mid FOR VALUES FROM (10) TO (20);
CREATE TABLE aside PARTITION OF top FOR VALUES FROM (100) TO (200);
INSERT INTO top VALUES (1, 1, 1), (2, 11, 1), (3, 101, 1);
"""
VIA_ROOT = {"publish_via_partition_root": "true"}
MORE = "INSERT INTO top VALUES (4, 2, 1), (5, 150, 1); UPDATE top SET n = 2 WHERE id = 2"
BY_HAND = "CREATE PUBLICATION p FOR TABLE {} WITH (publish_via_partition_root = true)"
OURS = {"publication_name": "p", "publication_autocreate_mode": "disabled"}


@pytest.mark.postgres_versions(13, 15, 18)
@pytest.mark.parametrize(
    ("made", "lists", "tables"),
    [
        ("", "public.mid", ["mid"]),
        ("mid", "public.*", ["mid"]),
        ("", "public.top,public.mid,public.leaf_1", ["top"]),
        ("top, mid", "public.*", ["top"]),
        ("", "public.leaf_1,public.aside", ["aside", "leaf_1"]),
    ],
)
def test_changes_and_rows_appear_under_the_topmost_table_that_is_published(
    database: Any, tmp_path: Path, made: str, lists: str, tables: list[str]
) -> None:
    settings = {**VIA_ROOT, "table_include_list": lists, "publication_autocreate_mode": "filtered"}
    database.execute(TREE)
    if made:
        database.execute(BY_HAND.format(made))
        settings |= OURS
        del settings["table_include_list"]
    for _ in range(2):
        with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
            pipeline.running()
            database.execute(MORE)
            events = pipeline.until_agrees(database, *(f"public.{t}" for t in tables))
        database.execute("DELETE FROM top WHERE id > 3")
    assert {e.table for e in events} == {f"public.{t}" for t in tables}
    assert [e.op for e in events].count("r") == len({e.raw_key for e in events if e.op == "r"}), (
        "read once"
    )


@pytest.mark.postgres_versions(13, 18)
def test_rows_of_a_partition_have_the_form_of_the_table_that_they_appear_under(
    database: Any, tmp_path: Path
) -> None:
    """Whatever the order of its columns, its NOT NULLs and defaults: as the stream has them."""
    database.execute(
        "CREATE TABLE top (id int, day int, n text DEFAULT 'x', PRIMARY KEY (id, day))"
        " PARTITION BY RANGE (day);"
        "CREATE TABLE leaf (n text NOT NULL DEFAULT 'y', gone int, day int NOT NULL,"
        " id int NOT NULL); ALTER TABLE leaf DROP gone;"
        "ALTER TABLE top ATTACH PARTITION leaf FOR VALUES FROM (0) TO (10);"
        "INSERT INTO top VALUES (1, 1, 'a')"
    )
    settings = {**VIA_ROOT, "table_include_list": "public.top"}
    settings["message_key_columns"] = "public.top:day,id"
    settings["publication_autocreate_mode"] = "filtered"
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO top VALUES (2, 2, 'b')")
        pipeline.until_agrees(database, "public.top")
    with JournalReader(tmp_path / "j") as reader:
        blocks = [reader.read(0), reader.read(1)]
    forms = [schema for block in blocks if block for schema in block.schemas]
    assert len(forms) == 2
    assert forms[0].row == forms[1].row
    assert forms[0].key == forms[1].key
    assert [field.name for field in forms[0].row.fields] == ["id", "day", "n"]


@pytest.mark.postgres_versions(12, 18)
@pytest.mark.parametrize("mode", ["all_tables", "filtered"])
def test_partitions_of_partitions_are_tables_of_their_own(
    database: Any, tmp_path: Path, mode: str
) -> None:
    database.execute(TREE)
    settings = {"publication_autocreate_mode": mode, "table_include_list": "public.*"}
    leaves = ["public.leaf_1", "public.leaf_2", "public.aside"]
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.running()
        database.execute(MORE)
        events = pipeline.until_agrees(database, *leaves)
    assert {e.table for e in events} == set(leaves)


@pytest.mark.postgres_versions(13, 14, 18)
def test_a_partition_whose_updates_would_fail_is_named(database: Any, tmp_path: Path) -> None:
    """The server looks at the partition's identity, not at that of the table it is a part of."""
    database.execute(TREE + "ALTER TABLE leaf_2 REPLICA IDENTITY NOTHING")
    settings = {**VIA_ROOT, "publication_autocreate_mode": "filtered"}
    settings["table_include_list"] = "public.top"
    mend = 'ALTER TABLE "public"."leaf_2" REPLICA IDENTITY FULL'
    with (
        pytest.raises(SourceError, match=f"run {mend};"),
        Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline,
    ):
        pipeline.running()
    assert left_behind(database) == []
    database.execute(mend)
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.running()
        database.execute("UPDATE top SET n = 3; DELETE FROM top WHERE id = 2")  # as it did before
        pipeline.until_agrees(database, "public.top")


@pytest.mark.postgres_versions(12, 18)
def test_a_table_that_inherits_is_not_published_along(database: Any, tmp_path: Path) -> None:
    """It has neither been asked for nor, often, a key: its updates would fail from then on."""
    database.execute(
        "CREATE TABLE parent (id int PRIMARY KEY, n int); CREATE TABLE child () INHERITS (parent);"
        "INSERT INTO parent VALUES (1, 1); INSERT INTO child VALUES (2, 2)"
    )
    settings = {"publication_autocreate_mode": "filtered", "table_include_list": "public.parent"}
    query = "SELECT tablename FROM pg_publication_tables"
    for updates in (1, 2):
        with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
            pipeline.running()
            assert database.execute(query) == [("parent",)]
            database.execute("UPDATE parent SET n = n + 1")  # both tables' rows
            wanted = [("r", 1), *[("u", 1)] * updates]
            pipeline.until(lambda es: [(e.op, e.key["id"]) for e in es] == wanted, "the update")  # noqa: B023
            # it was published along by an older version: no more from the next start on
            database.execute("ALTER TABLE child REPLICA IDENTITY FULL")
            database.execute("ALTER PUBLICATION dbz_publication ADD TABLE child")
    assert pipeline.copy().rows("public.parent") == database.execute("SELECT * FROM ONLY parent")


@pytest.mark.parametrize("via_root", ["true", "false"])
@pytest.mark.parametrize("mode", ["all_tables", "filtered"])
def test_a_partitioned_table_that_has_no_partition_yet_is_no_obstacle(
    database: Any, tmp_path: Path, mode: str, via_root: str
) -> None:
    database.execute(TREE + "CREATE TABLE early (LIKE top) PARTITION BY RANGE (day)")
    settings = {"publication_autocreate_mode": mode, "publish_via_partition_root": via_root}
    settings["table_include_list"] = "public.*"
    table = "public.top" if via_root == "true" else "public.leaf_1"
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.until_agrees(database, table)


@pytest.mark.parametrize("case", ["all_tables", "filtered", "initial_only", "by hand"])
def test_a_partitioned_table_of_which_no_change_would_arrive_is_named(
    database: Any, tmp_path: Path, case: str
) -> None:
    database.execute(TREE)
    settings = {"table_include_list": "public.top"}
    said = r"public\.top is partitioned.*publish\.via\.partition\.root=true"
    if case == "by hand":
        database.execute(BY_HAND.format("leaf_1"))
        settings |= OURS
        said = r'public\.top: .* not in the publication p.*ADD TABLE ONLY "public"\."top"'
    elif case == "initial_only":
        settings["snapshot_mode"] = case
    else:
        settings["publication_autocreate_mode"] = case
    there = left_behind(database)
    with (
        pytest.raises(SourceError, match=said),
        Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline,
    ):
        pipeline.running()
    assert left_behind(database) == there


def test_what_is_advised_breaks_no_update_either(database: Any, tmp_path: Path) -> None:
    """A table that is missing in somebody's publication: without its heirs, and its identity."""
    database.execute(
        "CREATE TABLE parent (id int PRIMARY KEY, n int); CREATE TABLE child () INHERITS (parent);"
        "CREATE TABLE bare (id int, n int); INSERT INTO child VALUES (2, 2);"
        "INSERT INTO bare VALUES (3, 3); CREATE PUBLICATION p"
    )
    settings = {**OURS, "table_include_list": "public.parent,public.bare"}
    with (
        pytest.raises(SourceError, match="not in the publication p") as caught,
        Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline,
    ):
        pipeline.running()
    mend = 'ALTER TABLE "public"."bare" REPLICA IDENTITY FULL'
    add = 'ALTER PUBLICATION "p" ADD TABLE ONLY "public"."bare", ONLY "public"."parent"'
    assert f"run {mend};" in caught.value.remedy
    assert caught.value.remedy.endswith(f"Then {add}")
    database.execute(f"{mend}; {add}; UPDATE parent SET n = 0; UPDATE bare SET n = 0")
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.until_agrees(database, "public.bare")
