"""Rows that come without a change in the log: attached partitions, rewritten tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cdc.log.files import SNAPSHOT, STREAM, listing
from cdc.log.places import newest_snapshot
from cdc.log.verify import info
from cdc.postgres import source
from tests.pipeline import Event, Pipeline, until


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "TABLES_INTERVAL_S", 0.1)


# --- partitions ---------------------------------------------------------------------------

PARTS = """
CREATE TABLE parts (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
INSERT INTO parts SELECT i, 0 FROM generate_series(1, 10) i;
"""
FILLED = """
CREATE TABLE parts_2 (id int PRIMARY KEY, n int);
INSERT INTO parts_2 SELECT i, 0 FROM generate_series(101, 110) i;
"""
ATTACH = "ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (100) TO (200)"
VIA_ROOT = "WITH (publish_via_partition_root = true)"
MINE = {"publication_name": "p", "publication_autocreate_mode": "disabled"}


@pytest.mark.postgres_versions(13, 18)
@pytest.mark.parametrize("published", ["FOR ALL TABLES", "FOR TABLE parts"])
@pytest.mark.parametrize("when", ["at once", "filled before", "away"])
def test_a_filled_table_that_is_attached_is_read_as_its_root(
    database: Any, tmp_path: Path, published: str, when: str
) -> None:
    database.execute(f"{PARTS} CREATE PUBLICATION p {published} {VIA_ROOT}")
    if when == "filled before":  # it is captured as a table of its own, where all are
        database.execute(FILLED)
    with Pipeline(tmp_path / "j", database.dsn, **MINE) as pipeline:
        pipeline.until_agrees(database, "public.parts")
        if when != "away":
            database.execute(ATTACH if when == "filled before" else FILLED + ATTACH)
            pipeline.until_agrees(database, "public.parts")
    if when == "away":
        database.execute(FILLED + ATTACH)
    with Pipeline(tmp_path / "j", database.dsn, **MINE) as pipeline:
        pipeline.running()
        database.execute("UPDATE parts SET n = n + 1 WHERE id % 2 = 0")
        events = pipeline.until_agrees(database, "public.parts")
    reads = [e.row["id"] for e in events if e.table == "public.parts" and e.op == "r"]
    assert sorted(reads) == [*range(1, 11), *range(101, 111)]


def test_a_partition_that_was_made_as_one_is_not_read(database: Any, tmp_path: Path) -> None:
    database.execute(f"{PARTS} CREATE PUBLICATION p FOR ALL TABLES {VIA_ROOT}")
    with Pipeline(tmp_path / "j", database.dsn, **MINE) as pipeline:
        pipeline.until_agrees(database, "public.parts")
        database.execute("CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200)")
    with Pipeline(tmp_path / "j", database.dsn, **MINE) as pipeline:
        pipeline.running()
        database.execute("INSERT INTO parts SELECT i, 0 FROM generate_series(101, 110) i")
        events = pipeline.until_agrees(database, "public.parts")
    with Pipeline(tmp_path / "j", database.dsn, **MINE) as pipeline:
        pipeline.running()
        database.execute("UPDATE parts SET n = 1")
        events = pipeline.until_agrees(database, "public.parts")
    assert [e.op for e in events] == ["r"] * 10 + ["c"] * 10 + ["u"] * 20


def test_a_detached_partition_is_a_table_of_its_own(database: Any, tmp_path: Path) -> None:
    database.execute(f"{PARTS} CREATE PUBLICATION p FOR ALL TABLES {VIA_ROOT}")
    with Pipeline(tmp_path / "j", database.dsn, **MINE) as pipeline:
        pipeline.until_agrees(database, "public.parts")
        database.execute("ALTER TABLE parts DETACH PARTITION parts_1")
        pipeline.until_agrees(database, "public.parts_1")


# --- rewritten tables ---------------------------------------------------------------------

TABLE = """
CREATE TABLE t (id int PRIMARY KEY, n int);
INSERT INTO t SELECT i, 0 FROM generate_series(1, 200) i;
"""
ALTERED = [
    ("there", "ALTER TABLE t ADD code text NOT NULL DEFAULT gen_random_uuid()::text"),
    ("away", "ALTER TABLE t ADD number bigint GENERATED ALWAYS AS IDENTITY"),
    ("there", "ALTER TABLE t ALTER n TYPE text USING 'n' || id"),
    # one value for all rows, of that moment: the table is not written anew
    ("away", "ALTER TABLE t ADD made text DEFAULT 'in ' || now()::date"),
    ("there", "ALTER TABLE t ADD made text DEFAULT 'now'; ALTER TABLE t ALTER made DROP DEFAULT"),
    ("away", "ALTER TABLE t RENAME n TO m"),
    ("there", "ALTER TABLE t DROP n, ADD n int"),
]


@pytest.mark.postgres_versions(13, 18)
@pytest.mark.parametrize(("when", "statement"), ALTERED)
def test_a_table_whose_rows_have_got_other_values_is_read_again(
    database: Any, tmp_path: Path, statement: str, when: str
) -> None:
    database.execute(TABLE)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until_agrees(database, "public.t")
        if when == "there":
            database.execute(statement)
            pipeline.until_agrees(database, "public.t")
    if when == "away":
        database.execute(statement)
    for _ in range(2):
        with Pipeline(tmp_path / "j", database.dsn) as pipeline:
            pipeline.running()
            database.execute("DELETE FROM t WHERE id = (SELECT max(id) FROM t)")
            pipeline.until(lambda es: len(es) >= 400, "what is read again")
            events = pipeline.until_agrees(database, "public.t")
    assert [e.op for e in events].count("r") in (400, 399), "once more, and only once"


STAYS = {
    "vacuum full": "VACUUM FULL t",
    # old rows have what the default in the schema of the next event says
    "constant defaults": "ALTER TABLE t ADD code text DEFAULT 'x', ADD price numeric(9,2)"
    " DEFAULT 1.5, ADD at timestamptz DEFAULT '2020-01-02 03:04:05+01', ADD yes bool DEFAULT true",
    "no default": "ALTER TABLE t ADD code varchar(9); ALTER TABLE t ALTER code TYPE varchar(20)",
    "dropped column": "ALTER TABLE t DROP n, ALTER id SET DEFAULT 9",
    "truncate": "TRUNCATE t",
}


@pytest.mark.parametrize("statement", STAYS.values(), ids=STAYS)
def test_what_gives_rows_no_new_values_reads_nothing_again(
    database: Any, tmp_path: Path, statement: str
) -> None:
    database.execute(TABLE)
    for number in range(3):
        with Pipeline(tmp_path / "j", database.dsn, skipped_operations="none") as pipeline:
            pipeline.running()
            database.execute(f"INSERT INTO t (id) VALUES (1000 + {number})")
            events = pipeline.until(
                lambda es, key=1000 + number: any(e.row and e.row["id"] == key for e in es), "it"
            )
        if number == 0:
            database.execute(statement)
        if number == 1 and "VACUUM" in statement:  # after which no other file is news
            database.execute("ALTER TABLE t ADD code text DEFAULT 'x'")
    assert len([e for e in events if e.op == "r" and e.row["id"] < 1000]) == 200


def test_a_column_made_again_is_known_by_the_one_dropped_before(
    database: Any, tmp_path: Path
) -> None:
    """A look in between finds the table without it, which gives rows no other values."""
    database.execute(TABLE)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until_agrees(database, "public.t")
    for statement in ("ALTER TABLE t DROP n", "ALTER TABLE t ADD n int"):
        database.execute(statement)
        with Pipeline(tmp_path / "j", database.dsn) as pipeline:
            pipeline.running()
            database.execute("DELETE FROM t WHERE id = (SELECT max(id) FROM t)")
            kept = database.execute("SELECT count(*) FROM t")[0][0]
            pipeline.until(lambda es: [e.op for e in es].count("d") == 200 - kept, "the delete")  # noqa: B023
            if "ADD" in statement:
                pipeline.until(lambda es: len(es) >= 400, "what is read again")
                pipeline.until_agrees(database, "public.t")
    assert [e.op for e in pipeline.events()].count("r") in (398, 399)


def known(path: Path) -> Any:
    """The tables that are read, as the journal says by now."""
    return info(path).positions["snapshot"]["tables"]


LOGGED_AGAIN = "INSERT INTO t VALUES (500, 5); ALTER TABLE t SET LOGGED"


@pytest.mark.parametrize("when", ["there", "away"])
def test_a_table_that_was_unlogged_for_a_while_is_read_again(
    database: Any, tmp_path: Path, when: str
) -> None:
    database.execute(TABLE)
    with Pipeline(tmp_path / "j", database.dsn, skipped_operations="none") as pipeline:
        pipeline.until_agrees(database, "public.t")
        database.execute("ALTER TABLE t SET UNLOGGED; DELETE FROM t WHERE id > 9")
        until(lambda: "public.t" not in known(tmp_path / "j"), "a look at it")
        if when == "there":
            database.execute(LOGGED_AGAIN)
            pipeline.until_agrees(database, "public.t")
    if when == "away":
        database.execute(LOGGED_AGAIN)
        with Pipeline(tmp_path / "j", database.dsn, skipped_operations="none") as pipeline:
            pipeline.until_agrees(database, "public.t")


@pytest.mark.parametrize(
    "statement",
    ["ALTER TABLE t RENAME n TO m", "ALTER TABLE t ADD made text DEFAULT 'in ' || now()::date"],
)
def test_a_table_made_while_the_source_ran_is_known_after_a_restart(
    database: Any, tmp_path: Path, statement: str
) -> None:
    database.execute("CREATE TABLE first (id int PRIMARY KEY); INSERT INTO first VALUES (1)")
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until_agrees(database, "public.first")
        database.execute(TABLE)
        pipeline.until_agrees(database, "public.t")
        until(lambda: "public.t" in known(tmp_path / "j"), "a look at it")
        database.execute("CREATE TABLE third (id int PRIMARY KEY)")
        until(lambda: "public.third" in known(tmp_path / "j"), "another look")
    lanes = [entry.lane_key for entry in listing(tmp_path / "j")]
    assert lanes == [(1, SNAPSHOT), (1, SNAPSHOT), (1, STREAM)], "looks make no files"
    database.execute(statement)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.running()
        assert newest_snapshot(tmp_path / "j") == 0, "where every row is, not where one was noted"
        database.execute("DELETE FROM t WHERE id = 7")
        pipeline.until(lambda es: len(es) >= 401, "what is read again")
        events = pipeline.until_agrees(database, "public.t")
    assert [e.op for e in events if e.table == "public.t"].count("r") in (199, 200)


MADE = "CREATE TABLE made (id int PRIMARY KEY, n int); INSERT INTO made VALUES (1, 1), (2, 2);"
SWAPPED = (
    "ALTER TABLE made ADD o int; UPDATE made SET o = 5; ALTER TABLE made RENAME n TO p;"
    "ALTER TABLE made RENAME o TO n; ALTER TABLE made RENAME p TO o"
)
BETWEEN_LOOKS = [
    ("away", "ALTER TABLE made ADD code text DEFAULT gen_random_uuid()::text"),
    ("there", "ALTER TABLE made ADD at text DEFAULT 'at ' || now()"),
    ("away", "ALTER TABLE made ADD x text DEFAULT 'x'; ALTER TABLE made ALTER x DROP DEFAULT"),
    ("there", "ALTER TABLE made RENAME n TO m"),
    ("away", "ALTER TABLE made RENAME n TO m"),
    ("there", "ALTER TABLE made DROP n; ALTER TABLE made ADD n int"),
    ("away", SWAPPED),
]


@pytest.mark.parametrize(("when", "statement"), BETWEEN_LOOKS)
def test_a_table_made_filled_and_altered_between_two_looks_is_read(
    database: Any, tmp_path: Path, when: str, statement: str
) -> None:
    def reads(events: list[Event]) -> list[Event]:
        return [e for e in events if e.table == "public.made" and e.op == "r"]

    database.execute(TABLE)
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until_agrees(database, "public.t")
        if when == "there":
            with database.connect() as connection, connection.transaction():  # no look in between
                connection.execute(MADE)
                for part in statement.split(";"):
                    connection.execute(part)
            pipeline.until(reads, "it to be read")
    if when == "away":
        database.execute(MADE)
        database.execute(statement)
        with Pipeline(tmp_path / "j", database.dsn) as pipeline:
            pipeline.until(lambda es: any(e.table == "public.made" for e in es), "the stream")
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until(reads, "it to be read")
        database.execute("INSERT INTO made (id) VALUES (9)")
        events = pipeline.until_agrees(database, "public.made", "public.t")
    assert len(reads(events)) == 2, "and only once"


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE made ADD code text DEFAULT 'x'",
        "ALTER TABLE made ADD m int; UPDATE made SET m = n",
        "ALTER TABLE made ALTER n SET NOT NULL, ALTER n SET DEFAULT 4",
        "TRUNCATE made; ALTER TABLE made ADD at timestamptz DEFAULT now()",
    ],
)
def test_a_new_table_whose_rows_are_all_in_the_stream_is_not_read(
    database: Any, tmp_path: Path, statement: str
) -> None:
    database.execute(TABLE)
    with Pipeline(tmp_path / "j", database.dsn, skipped_operations="none") as pipeline:
        pipeline.until_agrees(database, "public.t")
    database.execute(MADE + statement)
    with Pipeline(tmp_path / "j", database.dsn, skipped_operations="none") as pipeline:
        pipeline.running()
        database.execute("INSERT INTO made (id, n) VALUES (9, 9)")
        pipeline.until(lambda es: any(e.row and e.row["id"] == 9 for e in es if e.op == "c"), "it")
        database.execute("CREATE TABLE later (id int PRIMARY KEY)")
        until(lambda: "public.later" in known(tmp_path / "j"), "a look behind it")
    assert not [e for e in pipeline.events() if e.table == "public.made" and e.op == "r"]
