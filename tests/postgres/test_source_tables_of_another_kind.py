"""Tables that are no heap: read by ranges of their primary key."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from cdc.errors import SourceError
from tests.pipeline import Copy, Pipeline, source_rows
from tests.stepper import Stepper

# The server has no other access method than heap; by another name it is one.
KIND = "CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler;"
TABLES = (
    KIND
    + r"""
CREATE TABLE a (place text, n int, v int, PRIMARY KEY (n, place)) USING other;
CREATE TABLE b (at timestamptz PRIMARY KEY, v int);
CREATE TABLE c (id int PRIMARY KEY, v int) USING other;
INSERT INTO a SELECT repeat(E'\'\t\\', i % 3), i / 3, i FROM generate_series(0, 1999) i;
INSERT INTO b SELECT 'epoch'::timestamptz + i * interval '1.000001 s', i
    FROM generate_series(1, 500) i;
INSERT INTO c SELECT i, 0 FROM generate_series(1, 200) i;
ANALYZE;
"""
)
SMALL = {"snapshot_chunk_rows": "100"}


def reads(events: list[Any]) -> list[tuple[str, Any]]:
    return [(e.table, e.raw_key) for e in events if e.op == "r"]


@pytest.mark.postgres_versions(12, 18)
def test_ranges_of_the_key_are_all_rows_once_whatever_reader_dies(
    database: Any, tmp_path: Path
) -> None:
    database.execute(TABLES)
    stepper = Stepper(tmp_path / "j", database.dsn, **SMALL, snapshot_max_threads="3")
    for rows in (300, 1500):
        stepper.until_rows(rows)
        os.kill(stepper.readers()[0].process.pid, signal.SIGKILL)
        database.execute("UPDATE a SET v = v + 1 WHERE n = 5")
    assert stepper.task._snapshot is not None
    assert stepper.task._snapshot.chunks_total >= 15
    stepper.until_read()
    events = stepper.events()
    stepper.close()
    assert len(reads(events)) == len(set(reads(events))) == 2700
    keys = [(e.row["n"], e.row["place"]) for e in events if (e.op, e.table) == ("r", "public.a")]
    assert keys == sorted(keys)
    with Pipeline(tmp_path / "j", database.dsn, **SMALL) as pipeline:
        events = pipeline.until_agrees(database, "public.a", "public.c")
    assert len(reads(events)) == 2700, "once"


def test_after_a_crash_such_a_table_is_read_from_the_beginning(
    database: Any, tmp_path: Path
) -> None:
    database.execute(TABLES)
    stepper = Stepper(tmp_path / "j", database.dsn, **SMALL)
    stepper.until_rows(700)
    stepper.close()
    database.execute("UPDATE a SET n = n + 5000 WHERE n % 10 = 0; DELETE FROM a WHERE n % 10 = 1")
    with Pipeline(tmp_path / "j", database.dsn, **SMALL) as pipeline:
        events = pipeline.until_agrees(database, "public.a", "public.c")
    assert Copy.of(events).rows("public.a") == source_rows(database, "public.a")


def test_without_a_key_it_is_refused_by_name(database: Any, tmp_path: Path) -> None:
    database.execute(KIND + "CREATE TABLE t (id int) USING other; ALTER TABLE t REPLICA IDENTITY"
                     " FULL")  # fmt: skip
    with (
        pytest.raises(SourceError, match=r"public\.t \(other\).*without a primary key"),
        Pipeline(tmp_path / "j", database.dsn) as pipeline,
    ):
        pipeline.running()
    assert not database.execute("SELECT 1 FROM pg_publication")
