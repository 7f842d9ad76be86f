"""A publication, or a table in it, that was away for a while: what changed meanwhile is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cdc.errors import LogLost
from cdc.postgres import source
from tests.pipeline import Pipeline, until

TABLES = """
CREATE TABLE a (id int PRIMARY KEY, n int);
CREATE TABLE b (id int PRIMARY KEY, n int);
INSERT INTO a SELECT i, 0 FROM generate_series(1, 10) i;
INSERT INTO b SELECT i, 0 FROM generate_series(1, 10) i;
"""
LISTED = "CREATE PUBLICATION p FOR TABLE a, b"
EVERYTHING = "CREATE PUBLICATION p FOR ALL TABLES"
BY_SCHEMA = "CREATE PUBLICATION p FOR TABLES IN SCHEMA public"
OURS = {
    "publication_name": "p", "publication_autocreate_mode": "disabled",
    "skipped_operations": "none", "table_include_list": "public.*",
}  # fmt: skip
NEEDED = {**OURS, "snapshot_mode": "when_needed"}


def run(path: Path, database: Any, **settings: str) -> list[Any]:
    """One start, up to agreement."""
    with Pipeline(path, database.dsn, **settings) as pipeline:
        pipeline.running()
        return pipeline.until_agrees(database, "public.a", "public.b")


def refused(path: Path, database: Any, **settings: str) -> LogLost:
    with (
        pytest.raises(LogLost) as caught,
        Pipeline(path, database.dsn, **settings) as pipeline,
    ):
        pipeline.running()
    assert "when_needed" in caught.value.remedy
    return caught.value


MISSED = "UPDATE a SET n = 7 WHERE id = 7; DELETE FROM b WHERE id = 3"


@pytest.mark.postgres_versions(12, 15, 17, 18)
@pytest.mark.parametrize("made", [LISTED, EVERYTHING])
def test_a_publication_made_again_is_refused_then_everything_is_read(
    database: Any, tmp_path: Path, made: str
) -> None:
    database.execute(TABLES + made)
    run(tmp_path / "j", database, **OURS)
    database.execute("DROP PUBLICATION p")
    database.execute(MISSED)
    database.execute(made)
    for _ in range(2):
        error = refused(tmp_path / "j", database, **OURS)
        assert "the publication p was dropped and made again: changes after " in error.problem
    before = len(run(tmp_path / "j", database, **NEEDED))
    database.execute("UPDATE a SET n = 8; INSERT INTO b VALUES (11, 1)")
    events = run(tmp_path / "j", database, **OURS)
    assert [e.op for e in events[10 + 10 :]].count("r") == 10 + 9
    assert [e.op for e in events[before:]] == ["u"] * 10 + ["c"]


def test_without_a_publication_autocreate_makes_one_and_refuses_too(
    database: Any, tmp_path: Path
) -> None:
    database.execute(TABLES)
    own = {"skipped_operations": "none"}
    run(tmp_path / "j", database, **own)
    database.execute("DROP PUBLICATION dbz_publication")
    database.execute(MISSED)
    assert "dropped and made again" in refused(tmp_path / "j", database, **own).problem
    run(tmp_path / "j", database, snapshot_mode="when_needed", **own)


@pytest.mark.postgres_versions(12, 18)
def test_a_table_added_again_is_refused_then_read_alone(database: Any, tmp_path: Path) -> None:
    database.execute(TABLES + LISTED)
    before = run(tmp_path / "j", database, **OURS)
    database.execute("ALTER PUBLICATION p DROP TABLE b")
    database.execute("DELETE FROM b WHERE id = 3")
    database.execute("ALTER PUBLICATION p ADD TABLE b")
    error = refused(tmp_path / "j", database, **OURS)
    assert error.problem.startswith(
        "public.b: taken out of the publication p and added again: changes after "
    )
    events = run(tmp_path / "j", database, **NEEDED)
    assert [(e.table, e.op) for e in events[len(before) :]] == [
        ("public.b", "t"), *[("public.b", "r")] * 9,
    ]  # fmt: skip
    assert len(run(tmp_path / "j", database, **OURS)) == len(events)


@pytest.mark.postgres_versions(15, 18)
def test_a_schema_added_again_is_refused(database: Any, tmp_path: Path) -> None:
    database.execute(TABLES + BY_SCHEMA)
    run(tmp_path / "j", database, **OURS)
    database.execute("ALTER PUBLICATION p DROP TABLES IN SCHEMA public")
    database.execute(MISSED)
    database.execute("ALTER PUBLICATION p ADD TABLES IN SCHEMA public")
    assert "public.a, public.b: taken out" in refused(tmp_path / "j", database, **OURS).problem
    run(tmp_path / "j", database, **NEEDED)


@pytest.mark.postgres_versions(15, 18)
def test_a_table_that_stays_in_by_another_entry_has_missed_nothing(
    database: Any, tmp_path: Path
) -> None:
    database.execute(TABLES + BY_SCHEMA)
    before = run(tmp_path / "j", database, **OURS)
    database.execute("ALTER PUBLICATION p ADD TABLE b")
    assert len(run(tmp_path / "j", database, **OURS)) == len(before)
    database.execute("ALTER PUBLICATION p ADD TABLE a")
    assert len(run(tmp_path / "j", database, **OURS)) == len(before)
    database.execute("ALTER PUBLICATION p DROP TABLES IN SCHEMA public")
    database.execute(MISSED)
    events = run(tmp_path / "j", database, **OURS)
    assert [e.op for e in events[len(before) :]] == ["u", "d"]


@pytest.mark.parametrize("mode", ["initial", "when_needed"])
def test_it_is_noticed_while_streaming_too(
    database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(source, "TABLES_INTERVAL_S", 0.1)
    database.execute(TABLES + LISTED)
    settings = {**OURS, "snapshot_mode": mode}
    pipeline = Pipeline(tmp_path / "j", database.dsn, **settings).start()
    try:
        pipeline.running().until_agrees(database, "public.a", "public.b")
        with database.connect() as connection, connection.transaction():
            connection.execute("ALTER PUBLICATION p DROP TABLE b")
            connection.execute("DELETE FROM b WHERE id = 3")
            connection.execute("ALTER PUBLICATION p ADD TABLE b")
        if mode == "when_needed":
            pipeline.until_agrees(database, "public.b")
        else:
            until(lambda: pipeline.error, "the refusal")
            assert isinstance(pipeline.error, LogLost)
            assert "public.b: taken out of the publication" in str(pipeline.error)
    finally:
        pipeline.stop()


def test_a_publication_dropped_while_streaming_ends_the_stream(
    database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "TABLES_INTERVAL_S", 0.1)
    database.execute(TABLES + LISTED)
    pipeline = Pipeline(tmp_path / "j", database.dsn, **OURS).start()
    try:
        pipeline.running().until_agrees(database, "public.a", "public.b")
        database.execute("DROP PUBLICATION p")
        until(lambda: pipeline.error, "the refusal")
    finally:
        pipeline.stop()
    assert isinstance(pipeline.error, LogLost)
    assert "the publication was dropped" in str(pipeline.error)
