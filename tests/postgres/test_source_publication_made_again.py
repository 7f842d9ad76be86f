"""A publication, or a table in it, that was away for a while: what changed meanwhile is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cdc.errors import ConnectionLost, LogLost
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
def test_another_row_filter_or_column_list_is_noticed(database: Any, tmp_path: Path) -> None:
    """The rows that it adds are in no event, and those that it takes away stay in copies."""
    database.execute(TABLES + LISTED)
    run(tmp_path / "j", database, **OURS)
    database.execute("ALTER PUBLICATION p SET TABLE a WHERE (id > 5), b (id)")
    assert "public.a, public.b: taken out" in refused(tmp_path / "j", database, **OURS).problem
    with Pipeline(tmp_path / "j", database.dsn, **NEEDED) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO a VALUES (0, 0), (11, 0); INSERT INTO b VALUES (11, 0)")
        for name, rows in {"a": "SELECT * FROM a WHERE id > 5", "b": "SELECT id FROM b"}.items():
            want = sorted(database.execute(rows))
            pipeline.until(
                lambda _: pipeline.copy().rows(f"public.{name}") == want,  # noqa: B023
                "what is published now",
            )


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


@pytest.mark.parametrize("mode", ["initial", "when_needed", "always"])
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
        if mode != "initial":
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
    error = ended(tmp_path / "j", database, ["DROP PUBLICATION p"], **OURS)
    assert isinstance(error, LogLost)
    assert "the publication was dropped" in str(error)


def ended(path: Path, database: Any, statements: list[str], **settings: str) -> Any:
    """What ends the stream after these statements, each a transaction of its own."""
    pipeline = Pipeline(path, database.dsn, **settings).start()
    try:
        pipeline.running()
        database.execute("INSERT INTO a VALUES (100, 0)")
        pipeline.until(lambda es: any(e.key == {"id": 100} for e in es), "the stream")
        for statement in statements:
            database.execute(statement)
        until(lambda: pipeline.error, "the refusal")
    finally:
        pipeline.stop()
    return pipeline.error


def lost(path: Path, database: Any, statements: list[str], **settings: str) -> str:
    error = ended(path, database, statements, **settings)
    assert isinstance(error, LogLost), error
    assert "when_needed" in error.remedy
    return error.problem


@pytest.mark.postgres_versions(12, 18)
@pytest.mark.parametrize("mode", ["initial", "no_data"])
def test_a_publication_made_again_at_once_while_streaming_ends_it(
    database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(source, "TABLES_INTERVAL_S", 0.1)
    database.execute(TABLES + LISTED)
    again = [f"DROP PUBLICATION p; {MISSED}; {LISTED}"]  # one transaction
    settings = {**OURS, "snapshot_mode": mode}
    said = lost(tmp_path / "j", database, again, **settings)
    # whoever is first: older servers say so, too
    assert "dropped and made again: changes after" in said or '"p" does not exist' in said


SET = "ALTER PUBLICATION p SET (publish = '{}')"
NARROW, WIDE = SET.format("insert, update"), SET.format("insert, update, delete, truncate")
LESS = "the publication p no longer publishes delete, truncate: changes after "
MAYBE = "in between it may have published less: changes after "


@pytest.mark.postgres_versions(12, 18)
def test_operations_that_are_published_no_more_end_the_stream(
    database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "TABLES_INTERVAL_S", 0.1)
    database.execute(TABLES + LISTED)
    assert LESS in lost(tmp_path / "j", database, [NARROW, MISSED], **OURS)
    assert LESS in refused(tmp_path / "j", database, **OURS).problem
    database.execute(WIDE)
    assert MAYBE in refused(tmp_path / "j", database, **OURS).problem
    run(tmp_path / "j", database, **NEEDED)
    run(tmp_path / "j", database, **OURS)


def test_operations_left_out_for_a_moment_are_noticed(
    database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "TABLES_INTERVAL_S", 0.1)
    database.execute(TABLES + LISTED)
    assert MAYBE in lost(tmp_path / "j", database, [f"{NARROW}; {MISSED}; {WIDE}"], **OURS)
    run(tmp_path / "j", database, **NEEDED)
    for statement in (NARROW, MISSED, WIDE):
        database.execute(statement)
    assert MAYBE in refused(tmp_path / "j", database, **OURS).problem
    run(tmp_path / "j", database, **NEEDED)


@pytest.mark.parametrize("mode", ["when_needed", "always"])
def test_what_only_a_start_can_read_again_asks_for_one(
    database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(source, "TABLES_INTERVAL_S", 0.1)
    database.execute(TABLES + LISTED)
    settings = {**OURS, "snapshot_mode": mode}
    error = ended(tmp_path / "j", database, [NARROW, MISSED, WIDE], **settings)
    assert isinstance(error, ConnectionLost), error
    run(tmp_path / "j", database, **settings)


def test_what_loses_nothing_is_no_reason_to_stop(
    database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "TABLES_INTERVAL_S", 0.1)
    database.execute(TABLES + LISTED)
    role = database.create_role("LOGIN SUPERUSER")
    own = {**OURS, "skipped_operations": "t"}
    with Pipeline(tmp_path / "j", database.dsn, **own) as pipeline:
        pipeline.running().until_agrees(database, "public.a", "public.b")
        for statement in (
            f"ALTER PUBLICATION p OWNER TO {role}",
            SET.format("insert, update, delete"),  # a truncate is not captured
            WIDE,
            "CREATE TABLE c (id int PRIMARY KEY, n int)",
            "ALTER PUBLICATION p ADD TABLE c",
            # what is away at the end was not all that there was at any look
            "ALTER PUBLICATION p ADD TABLES IN SCHEMA public",
            "ALTER PUBLICATION p DROP TABLE a, b, c",
        ):
            database.execute(statement)
            looks = pipeline.task._tables_at  # type: ignore[union-attr]
            until(lambda at=looks: pipeline.task._tables_at > at, "a look")  # type: ignore[misc]
            database.execute("UPDATE a SET n = n + 1 WHERE id = 1")
        before = len(pipeline.until_agrees(database, "public.a", "public.b"))
    assert len(run(tmp_path / "j", database, **own)) == before
    database.execute("ALTER PUBLICATION p OWNER TO postgres")
    assert len(run(tmp_path / "j", database, **own)) == before
