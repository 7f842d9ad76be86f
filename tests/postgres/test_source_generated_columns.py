"""Generated columns in a replica identity: from 18 on the server refuses updates once published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cdc.errors import SourceError
from tests.capture.commands import left_behind
from tests.pipeline import Pipeline

FULL = "; ALTER TABLE t REPLICA IDENTITY FULL"
STORED = "CREATE TABLE t (id int PRIMARY KEY, n int, g int GENERATED ALWAYS AS (id) STORED)" + FULL
VIRTUAL = STORED.replace("STORED", "VIRTUAL")
KEY = "CREATE TABLE t (id int, n int, g int GENERATED ALWAYS AS (id) STORED PRIMARY KEY)"
INDEX = (
    "CREATE TABLE t (id int PRIMARY KEY, n int, g int GENERATED ALWAYS AS (id) STORED NOT NULL);"
    "CREATE UNIQUE INDEX i ON t (g); ALTER TABLE t REPLICA IDENTITY USING INDEX i"
)
NONE = "CREATE TABLE t (id int, n int, g int GENERATED ALWAYS AS (id) VIRTUAL)"
DEFAULT = 'ALTER TABLE "public"."t" REPLICA IDENTITY DEFAULT'
PUBLISH = (
    'CREATE PUBLICATION "dbz_publication" FOR TABLE ONLY "public"."t"'
    " WITH (publish_generated_columns = stored)"
)
ADD_KEY = "add a primary key"
MENDED = {DEFAULT: DEFAULT, PUBLISH: PUBLISH, ADD_KEY: "ALTER TABLE t ADD PRIMARY KEY (id)"}
ROWS = "INSERT INTO t (id, n) VALUES (1, 1), (2, 2)"
WORK = "UPDATE t SET n = n + 1; DELETE FROM t WHERE id = 2"


@pytest.mark.postgres_versions(18)
@pytest.mark.parametrize("mode", ["all_tables", "filtered"])
@pytest.mark.parametrize(
    ("make", "remedy"),
    [(STORED, DEFAULT), (VIRTUAL, DEFAULT), (INDEX, DEFAULT), (KEY, PUBLISH), (NONE, ADD_KEY)],
    ids=["stored", "virtual", "index", "key", "none"],
)
def test_updates_that_would_fail_are_named_with_what_helps(
    database: Any, tmp_path: Path, make: str, remedy: str, mode: str
) -> None:
    database.execute(f"{make}; {ROWS}")
    settings = {"publication_autocreate_mode": mode}
    with (
        pytest.raises(SourceError, match=r"publishing public\.t would make") as caught,
        Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline,
    ):
        pipeline.running()
    assert left_behind(database) == []
    assert remedy in caught.value.remedy
    assert "IDENTITY FULL" not in caught.value.remedy
    database.execute(MENDED[remedy])
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        pipeline.running()
        database.execute(WORK)
        pipeline.until(
            lambda _: [row[:2] for row in pipeline.copy().rows("public.t")] == [(1, 2)], "all of it"
        )


@pytest.mark.postgres_versions(12, 17)
def test_before_18_they_do_no_harm(database: Any, tmp_path: Path) -> None:
    database.execute(f"{STORED}; {ROWS}")
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.running()
        database.execute(WORK)
        pipeline.until(lambda _: pipeline.copy().rows("public.t") == [(1, 2)], "all of it")
