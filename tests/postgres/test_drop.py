"""What ``cdc drop`` takes from the server, and what it leaves for others."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc.config import Config
from cdc.postgres.admin import drop, idle_metrics, leftover
from cdc.postgres.slots import drop_slot
from tests.fix_postgres import Database
from tests.pipeline import Pipeline, config_for

TABLE = "CREATE TABLE t (id int PRIMARY KEY)"


def run_once(database: Database, folder: Path, **settings: str) -> Config:
    """A source that has made what it needs, and is stopped."""
    with Pipeline(folder, database.dsn, **settings) as pipeline:
        pipeline.running()
    return pipeline.config


def left(database: Database) -> list[str]:
    """Publications and slots, by name."""
    rows = database.execute(
        "SELECT pubname::text FROM pg_publication UNION ALL SELECT slot_name::text"
        " FROM pg_replication_slots WHERE database = current_database() ORDER BY 1"
    )
    return [name for (name,) in rows]


@pytest.mark.postgres_versions(12, 18)
def test_what_the_source_made_is_dropped(database: Database, tmp_path: Path) -> None:
    database.execute(TABLE)
    config = run_once(database, tmp_path / "j")
    slot = config["slot.name"]
    assert left(database) == ["dbz_publication", slot]
    # nothing of ours is asked who made it: the folder may be lost
    assert drop(config, {}) == [
        f"dropped replication slot {slot}",
        "dropped publication dbz_publication",
    ]
    assert left(database) == []
    assert drop(config, {}) == []


def test_a_publication_made_by_others_is_left_with_its_statement(
    database: Database, tmp_path: Path
) -> None:
    database.execute(f"{TABLE}; CREATE PUBLICATION dbz_publication FOR ALL TABLES")
    config = run_once(database, tmp_path / "j")
    (_, said) = drop(config, {})
    assert said == (
        "publication dbz_publication is left: cdc did not create it. If nobody needs it:"
        ' DROP PUBLICATION "dbz_publication"'
    )
    assert left(database) == ["dbz_publication"]


def test_one_that_was_made_again_by_others_is_theirs(database: Database, tmp_path: Path) -> None:
    database.execute(TABLE)
    config = run_once(database, tmp_path / "j")
    database.execute("DROP PUBLICATION dbz_publication; CREATE PUBLICATION dbz_publication")
    assert "cdc did not create it" in drop(config, {})[1]
    assert left(database) == ["dbz_publication"]


def test_what_another_source_names_is_left(database: Database, tmp_path: Path) -> None:
    database.execute(TABLE)
    config = run_once(database, tmp_path / "j")
    slot, own = config["slot.name"], f"own_{database.name}"
    also = "is left: it is also that of second"
    assert drop(config, {"second": config}) == [
        f"replication slot {slot} {also}",
        f"publication dbz_publication {also}",
    ]
    said = drop(config, {"second": None})
    assert said[1] == f"publication dbz_publication {also} (its configuration cannot be read)"
    assert left(database) == ["dbz_publication", slot]
    # it calls the server by another name, but its slot is here
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [own])
    second = config_for(database.dsn, database_hostname="192.0.2.1", slot_name=own)
    assert drop(config, {"second": second}) == [
        f"dropped replication slot {slot}",
        f"publication dbz_publication {also}",
    ]
    assert left(database) == ["dbz_publication", own]


def test_a_slot_of_that_name_in_another_database_is_another_sources(
    database: Database, copy_database: Database, tmp_path: Path
) -> None:
    """Slots are the server's, and it drops one from any database: the default name is one name."""
    database.execute(TABLE)
    slot = run_once(database, tmp_path / "j")["slot.name"]
    beside = config_for(copy_database.dsn, slot_name=slot)
    assert drop(beside, {}) == [
        f"replication slot {slot} is left: it is of database {database.name}"
    ]
    with copy_database.connect() as other:
        drop_slot(lambda: other, slot)
    assert left(database) == ["dbz_publication", slot]
    assert (leftover(beside), idle_metrics(beside)) == (None, {})


def test_a_source_of_another_server_is_no_reader(database: Database, tmp_path: Path) -> None:
    database.execute(TABLE)
    config = run_once(database, tmp_path / "j")
    others = {
        "far": config_for(database.dsn, database_hostname="192.0.2.1"),
        "beside": config_for(database.dsn, publication_name="own", slot_name="s_beside"),
    }
    assert len(drop(config, others)) == 2
    assert left(database) == []


def test_a_slot_that_nobody_knows_keeps_the_publication(database: Database, tmp_path: Path) -> None:
    database.execute(TABLE)
    config = run_once(database, tmp_path / "j")
    stranger = f"stranger_{database.name}"
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [stranger])
    assert f"whoever reads the slots {stranger} may need it" in drop(config, {})[1]
    assert left(database) == ["dbz_publication", stranger]
    # a publication whose name was made up has one reader, and no others are asked for
    assert drop(config) == ["dropped publication dbz_publication"]
