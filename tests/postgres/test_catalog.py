"""The catalogue as read from a real server."""

from __future__ import annotations

from typing import Any

import pytest

from cdc.lsn import parse_lsn
from cdc.postgres import catalog
from cdc.postgres.catalog import (
    TableInfo,
    read_publication,
    read_server,
    read_slot,
    read_table,
    read_tables,
    read_type,
    read_types,
)
from schemas import TableId
from tests.fix_postgres import Database


@pytest.fixture
def tables(database: Database) -> dict[str, TableInfo]:
    for statement in (
        "CREATE TABLE plain (id serial PRIMARY KEY, note text NOT NULL DEFAULT 'a', n int)",
        "CREATE TABLE two_keys (a int, b int, c int, PRIMARY KEY (c, a) INCLUDE (b))",
        "CREATE TABLE by_index (a int, b int NOT NULL, c int)",
        "CREATE UNIQUE INDEX zz ON by_index (a)",
        "CREATE UNIQUE INDEX aa ON by_index (lower(c::text))",
        "CREATE UNIQUE INDEX cc ON by_index (c, b) INCLUDE (a)",
        "CREATE UNIQUE INDEX ii ON by_index (b)",
        "ALTER TABLE by_index REPLICA IDENTITY USING INDEX ii",
        "CREATE UNLOGGED TABLE unlogged (id int)",
        "CREATE TABLE made (id int, twice int GENERATED ALWAYS AS (id * 2) STORED)",
        "CREATE TABLE dropped (a int, b int, c int)",
        "ALTER TABLE dropped DROP COLUMN b, ADD d int[] DEFAULT '{1,2}', ADD e text DEFAULT ''",
        "CREATE DOMAIN needed AS int NOT NULL",
        "CREATE TABLE with_domain (d needed)",
        "CREATE TABLE root (id int, at date) PARTITION BY RANGE (at)",
        "CREATE TABLE leaf PARTITION OF root FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
        "CREATE VIEW looks AS SELECT 1 AS one",
        "COMMENT ON TABLE plain IS 'what it is for'",
    ):
        database.execute(statement)
    with database.connect() as conn:
        return {info.schema.id.table: info for info in read_tables(conn)}


def test_tables_are_listed_with_columns_key_and_comment(tables: dict[str, TableInfo]) -> None:
    plain = tables["plain"].schema
    assert plain.key == ("id",)
    assert plain.comment == "what it is for"
    assert [(c.name, c.nullable, c.default) for c in plain.columns] == [
        ("id", False, "nextval('plain_id_seq'::regclass)"),
        ("note", False, "'a'::text"),
        ("n", True, None),
    ]


def test_the_key_is_in_the_order_of_the_primary_key(tables: dict[str, TableInfo]) -> None:
    assert tables["two_keys"].schema.key == ("c", "a")


def test_without_a_primary_key_the_first_plain_unique_index_is_the_key(
    tables: dict[str, TableInfo],
) -> None:
    # Debezium has the INCLUDEd column in the key too
    assert tables["by_index"].schema.key == ("c", "b", "a")


def test_replica_identity_names_its_columns(tables: dict[str, TableInfo]) -> None:
    assert (tables["by_index"].identity, tables["by_index"].identity_columns) == ("i", ("b",))
    assert (tables["plain"].identity, tables["plain"].identity_columns) == ("d", ())


def test_what_is_no_table_is_not_listed_and_unlogged_is_marked(
    tables: dict[str, TableInfo],
) -> None:
    assert "looks" not in tables
    assert tables["unlogged"].persistence == "u"


def test_generated_and_dropped_columns(tables: dict[str, TableInfo]) -> None:
    assert tables["made"].generated == {"twice"}
    assert tables["made"].schema.column("twice").default is None
    dropped = tables["dropped"]
    assert dropped.schema.column_names == ("a", "c", "d", "e")
    assert dropped.numbers == (1, 3, 4, 5)
    assert dropped.filled == {"d": "{1,2}", "e": ""}


def test_a_domain_can_forbid_null(tables: dict[str, TableInfo]) -> None:
    assert not tables["with_domain"].schema.column("d").nullable


def test_a_partition_knows_what_it_is_a_part_of(tables: dict[str, TableInfo]) -> None:
    assert tables["root"].kind == "p"
    assert tables["root"].ancestors == ()
    assert tables["leaf"].ancestors == (tables["root"].schema.id,)


def test_one_table_is_read_by_its_oid(tables: dict[str, TableInfo], database: Database) -> None:
    with database.connect() as conn:
        assert read_table(conn, tables["leaf"].schema.relation_id) == tables["leaf"]
        assert read_table(conn, 1) is None


def test_a_filter_keeps_tables_out(tables: dict[str, TableInfo], database: Database) -> None:
    def wanted(table: TableId) -> bool:
        return table.table == "plain"

    with database.connect() as conn:
        assert [info.schema.id.table for info in read_tables(conn, wanted)] == ["plain"]


def test_types_know_their_elements_bases_and_labels(database: Database) -> None:
    database.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    database.execute("ALTER TYPE mood ADD VALUE 'meh' BEFORE 'ok'")
    database.execute("CREATE DOMAIN cents AS numeric(12, 4)")
    with database.connect() as conn:
        types = read_types(conn, lambda oid: read_type(conn, oid))
        by_name = {
            name: conn.execute("SELECT %s::regtype::oid::int8", [name]).fetchone()
            for name in ("mood", "mood[]", "cents", "pg_class")
        }
        oids = {name: row[0] for name, row in by_name.items() if row}
        mood, moods = types.get(oids["mood"]), types.get(oids["mood[]"])
        assert mood is not None
        assert moods is not None
        assert mood.labels == ("sad", "meh", "ok")
        assert moods.element == mood.oid
        base, modifier = types.resolve(oids["cents"], -1)
        assert base is not None
        assert (base.name, modifier) == ("numeric", (12 << 16 | 4) + 4)
        row_type = types.get(oids["pg_class"])
        assert row_type is not None
        assert row_type.kind == "c"


def test_a_publication_with_its_tables(database: Database, postgres_major: int) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, a int, b int)")
    narrowed = " (id, a) WHERE (id > 0)" if postgres_major >= 15 else ""
    database.execute(f"CREATE PUBLICATION p FOR TABLE t{narrowed} WITH (publish = 'insert,delete')")
    with database.connect() as conn:
        found = read_publication(conn, "p")
        assert read_publication(conn, "nope") is None
    assert found is not None
    assert (found.insert, found.update, found.delete, found.truncate) == (True, False, True, False)
    assert not found.via_root
    (table,) = found.tables
    assert table.table.table == "t"
    if postgres_major >= 15:
        assert table.columns == ("id", "a")
        assert table.row_filter == "(id > 0)"


def test_facts_of_the_server(database: Database, postgres_major: int) -> None:
    with database.connect() as conn:
        facts = read_server(conn)
        row: Any = conn.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
    assert facts.major == postgres_major
    assert facts.system_id == str(row[0])
    assert (facts.timeline, facts.wal_level, facts.in_recovery) == (1, "logical", False)
    assert facts.lsn > 0
    assert facts.encoding == "UTF8"


@pytest.mark.postgres_versions(12, 18)
def test_a_look_is_of_one_moment(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table written anew in the middle of a look is what it was, not half of each."""
    database.execute("CREATE TABLE t (id int)")
    rows, statements = catalog._rows, ["ALTER TABLE t ADD code float8 DEFAULT random()"]

    def interrupted(conn: Any, query: str, *values: Any) -> list[tuple[Any, ...]]:
        if query == catalog._COLUMNS and statements:
            database.execute(statements.pop())
        return rows(conn, query, *values)

    monkeypatch.setattr(catalog, "_rows", interrupted)
    with database.connect() as conn:
        (before,), (after,) = read_tables(conn), read_tables(conn)
    assert not statements
    assert (before.schema.column_names, after.schema.column_names) == (("id",), ("id", "code"))
    assert before.file_node != after.file_node


def test_a_slots_row(database: Database, postgres_major: int) -> None:
    with database.connect() as conn:
        assert read_slot(conn, "nope") is None
        conn.execute("SELECT pg_create_logical_replication_slot('cdc_catalog', 'pgoutput')")
        conn.commit()
        try:
            slot = read_slot(conn, "cdc_catalog")
        finally:
            conn.execute("SELECT pg_drop_replication_slot('cdc_catalog')")
    assert slot is not None
    assert (slot.plugin, slot.slot_type, slot.active_pid) == ("pgoutput", "logical", None)
    assert slot.confirmed_flush_lsn is not None
    assert slot.restart_lsn is not None
    assert slot.confirmed_flush_lsn >= slot.restart_lsn
    assert slot.wal_status == ("reserved" if postgres_major >= 13 else None)


def test_an_lsn_is_a_number() -> None:
    assert parse_lsn("16/B374D848") == 0x16B374D848
    assert parse_lsn(None) is None
