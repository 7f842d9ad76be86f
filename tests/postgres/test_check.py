"""``cdc check``: what it finds on real servers, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.postgres import judge
from cdc.postgres.catalog import ServerFacts
from tests.fix_postgres import Database, StartPostgres
from tests.pipeline import Copy, Pipeline
from tests.postgres.servers_of_tests import pgbouncer, replaced

ROOT = Path(__file__).resolve().parents[2]

SHOP = """
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, seen timestamptz);
CREATE TABLE orders (id int PRIMARY KEY, note text, total numeric(10,2),
                     doubled numeric GENERATED ALWAYS AS (total * 2) STORED);
CREATE TABLE notes (note text);
CREATE TABLE places (id int PRIMARY KEY, at box);
CREATE TABLE parts (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE UNLOGGED TABLE cache (id int PRIMARY KEY);
CREATE SEQUENCE numbers;
CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM orders;
INSERT INTO customers VALUES (1, 'Ada Lovelace', NULL);
INSERT INTO orders VALUES (7, 'call first', 12.50);
SELECT lo_create(0);
ANALYZE;
INSERT INTO places VALUES (1, '((0,0),(1,1))');
TRUNCATE parts;
INSERT INTO parts VALUES (1, '2026-01-01');
"""


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cdc", "check", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, **env},
    )  # fmt: skip


def report(dsn: str, *sets: str, code: int | None = None) -> dict[str, Any]:
    options = [word for pair in sets for word in ("--set", pair)]
    done = run(dsn, "--json", *options)
    assert done.returncode in ((0, 1) if code is None else (code,)), done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["ok"] == (done.returncode == 0)
    return found


def texts(found: dict[str, Any], level: str | None = None) -> str:
    return "\n".join(
        f"{f['subject']}: {f['text']} → {f['remedy']}"
        for f in found["findings"]
        if level in (None, f["level"])
    )


FILTERED = "publication.autocreate.mode=filtered"


@pytest.fixture
def shop(database: Database) -> Database:
    database.execute(SHOP)
    return database


@pytest.mark.postgres_versions(12, 15, 18)
def test_a_database_is_described_and_nothing_is_left_behind(
    shop: Database, postgres_major: int
) -> None:
    def everything() -> list[tuple[Any, ...]]:
        return shop.execute(
            "SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database()"
            " UNION ALL SELECT pubname FROM pg_publication"
            " UNION ALL SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        )

    before = everything()
    found = report(shop.dsn, FILTERED, r"table.exclude.list=public\.notes", code=0)
    assert everything() == before
    assert found["server"].startswith(f"PostgreSQL {postgres_major} (")
    assert found["slot"] == "debezium would be created"
    assert found["publication"].startswith('CREATE PUBLICATION "dbz_publication" FOR TABLE ')
    assert '"notes"' not in found["publication"]
    tables = {t["table"]: t for t in found["tables"]}
    assert sorted(tables) == [
        "public.customers", "public.orders", "public.parts_1", "public.places",
    ]  # fmt: skip
    customers = tables["public.customers"]
    assert customers["topic"] == f"{shop.name}.public.customers"
    assert customers["rows_estimate"] == 1
    assert customers["nbytes"] > 0
    # filled after they were analyzed, or never analyzed
    assert [tables[f"public.{t}"]["rows_estimate"] for t in ("places", "parts_1")] == [None, None]
    assert customers["key"] == ["id"]
    assert customers["before"].startswith("the primary key (id) in a delete; null in an update")
    assert customers["toasted"] == ["name"]
    assert tables["public.orders"]["generated"] == ["doubled"]
    assert tables["public.parts_1"]["partition_of"] == "public.parts"
    absent = {n["what"]: n["count"] for n in found["not_logged"]}
    assert absent == {
        "sequences": 1, "materialized views": 1, "unlogged tables": 1, "large objects": 1,
        "DDL": None,
    }  # fmt: skip
    assert "generated columns are left out: doubled" in texts(found, "note")
    assert "at: types without a form in events" in texts(found, "warning")
    assert "nothing limits the WAL" in texts(found) or postgres_major < 13


def test_an_example_event_is_masked_unless_told_otherwise(shop: Database) -> None:
    options = ("--set", FILTERED, "--set", r"table.include.list=public\.customers")
    done = run(shop.dsn, *options[:-1], r"table.include.list=public\.(customers|parts_1)")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ada" not in done.stdout
    assert re.search(r"public\.customers  about 1 rows, \d+ kB\n", done.stdout)
    assert re.search(r"public\.parts_1  rows not analyzed yet, \d+ kB, a part", done.stdout)
    assert '{"key": {"id": "***"}, "after": {"id": "***", "name": "***", "seen": null}}' \
        in done.stdout  # fmt: skip
    (absent,) = re.findall("not in the log, so in no event: (.*)", done.stdout)
    assert "1 large objects; " in absent
    assert absent.endswith("; DDL")
    assert done.stdout.endswith("go\n")
    done = run(shop.dsn, *options, "--show-values", "--json")
    (table,) = json.loads(done.stdout)["tables"]
    assert table["example"]["value"]["after"]["name"] == "Ada Lovelace"
    assert table["example"]["value"]["op"] == "r"
    assert table["example"]["topic"] == f"{shop.name}.public.customers"


def test_a_table_without_identity_is_a_no_go_with_its_statement(shop: Database) -> None:
    found = report(shop.dsn, code=1)
    said = texts(found, "no-go")
    assert "publishing public.notes would make the application's UPDATE and DELETE" in said
    assert 'ALTER TABLE "public"."notes" REPLICA IDENTITY FULL' in said
    shop.execute("ALTER TABLE notes REPLICA IDENTITY FULL")
    found = report(shop.dsn, code=0)
    assert found["publication"] == 'CREATE PUBLICATION "dbz_publication" FOR ALL TABLES'
    notes = next(t for t in found["tables"] if t["table"] == "public.notes")
    assert (notes["before"], notes["key"]) == ("all columns", [])
    assert "its events have no key" in texts(found, "warning")


WITHOUT_THE_KEY = """
CREATE TABLE by_code (id int PRIMARY KEY, code text NOT NULL UNIQUE);
ALTER TABLE by_code REPLICA IDENTITY USING INDEX by_code_code_key;
CREATE TABLE by_both (id int, part int, PRIMARY KEY (id), UNIQUE (id, part));
ALTER TABLE by_both ALTER part SET NOT NULL;
ALTER TABLE by_both REPLICA IDENTITY USING INDEX by_both_id_part_key;
CREATE TABLE by_nothing (id int PRIMARY KEY);
ALTER TABLE by_nothing REPLICA IDENTITY NOTHING;
CREATE TABLE by_default (id int PRIMARY KEY, code text);
CREATE PUBLICATION dbz_publication FOR ALL TABLES;
"""


@pytest.mark.postgres_versions(12, 18)
def test_a_replica_identity_without_the_events_key_is_named_with_its_statement(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the check and by each start: the deletes of such a table never reach a copy."""
    database.execute(WITHOUT_THE_KEY)
    keys = "public.by_default:code"
    found = report(database.dsn, f"message.key.columns={keys}", code=0)
    said = texts(found, "warning")
    with Pipeline(tmp_path / "j", database.dsn, message_key_columns=keys) as pipeline:
        pipeline.running()
    for table, text, form in (
        ("by_code", "code only (its replica identity), and the key of the events is id", "DEFAULT"),
        ("by_default", "id only (its replica identity), and the key of the events is code", "FULL"),
        ("by_nothing", "no usable replica identity", "FULL"),
    ):
        assert f"public.{table}: " in said
        for warnings in (said, caplog.text):
            assert text in warnings
            assert f'ALTER TABLE "public"."{table}" REPLICA IDENTITY {form}' in warnings
    assert "by_both" not in said + caplog.text


def test_a_delete_by_such_an_identity_really_stays_in_a_copy(
    database: Database, tmp_path: Path
) -> None:
    database.execute(WITHOUT_THE_KEY)
    database.execute("INSERT INTO by_code VALUES (1, 'a'); INSERT INTO by_both VALUES (1, 1)")
    with Pipeline(tmp_path / "j", database.dsn) as pipeline:
        pipeline.until_agrees(database, "public.by_code", "public.by_both")
        database.execute("DELETE FROM by_code; DELETE FROM by_both")
        events = pipeline.until_agrees(database, "public.by_both")
    assert Copy.of(events).rows("public.by_code") == [(1, "a")]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        database.execute("INSERT INTO by_nothing VALUES (1); DELETE FROM by_nothing")


@pytest.mark.postgres_versions(18)
def test_a_publication_that_is_there_is_taken_as_it_is(shop: Database) -> None:
    shop.execute(
        "CREATE PUBLICATION dbz_publication FOR TABLE customers (id, name) WHERE (id > 5)"
        " WITH (publish = 'insert, update')"
    )
    found = report(shop.dsn, code=0)
    assert found["publication"] == "dbz_publication exists, with 1 tables"
    (table,) = found["tables"]
    assert table["columns"] == ["id", "name"]
    assert table["row_filter"] == "(id > 5)"
    assert table["example"] is None
    said = texts(found)
    assert "the publication filters its rows: (id > 5)" in said
    assert "column list leaves out seen" in said
    assert "does not publish delete" in said
    assert "SET (publish = 'insert, update, delete')" in said
    everything = texts(report(shop.dsn, "skipped.operations=none", code=0))
    assert "does not publish delete, truncate" in everything
    found = report(shop.dsn, r"table.include.list=public\.(customers|orders)", code=1)
    assert 'ALTER PUBLICATION "dbz_publication" ADD TABLE ONLY "public"."orders"' in texts(found)
    found = report(shop.dsn, FILTERED, r"table.include.list=public\.orders", code=0)
    statement = 'ALTER PUBLICATION "dbz_publication" SET TABLE ONLY "public"."orders"'
    assert found["publication"] == statement
    assert [t["table"] for t in found["tables"]] == ["public.orders"]


def test_a_role_without_rights_is_told_each_statement(shop: Database) -> None:
    role = shop.create_role("LOGIN")
    with shop.connect(user=role) as conn:
        dsn = shop.dsn.replace("postgres:", f"{role}:", 1)
        assert conn.info.user == role
    found = report(dsn, FILTERED, r"table.include.list=public\.(customers|orders)", code=1)
    said = texts(found, "no-go")
    assert f'the role {role} may not replicate → ALTER ROLE "{role}" REPLICATION' in said
    assert f'GRANT SELECT ON "public"."customers", "public"."orders" TO "{role}"' in said
    assert f"{role} does not own public.customers" in said
    assert f'GRANT CREATE ON DATABASE "{shop.name}" TO "{role}"' in said


def test_all_that_is_missing_is_told_at_once_and_then_it_is_go(shop: Database) -> None:
    """The schema, the tables, the role, the publication and a replica identity."""
    shop.execute('CREATE SCHEMA "Stock room"; CREATE TABLE "Stock room".items (id int PRIMARY KEY)')
    shop.execute('INSERT INTO "Stock room".items VALUES (1)')
    role = shop.create_role("LOGIN")
    dsn = shop.dsn.replace("postgres:", f"{role}:", 1)
    found = report(dsn, code=1)
    said = texts(found, "no-go")
    assert f"{role} cannot create a publication FOR ALL TABLES" in said
    statements = re.findall(
        r'(?:GRANT (?:USAGE|SELECT)|ALTER) .*?(?:TO "\w+"|REPLICATION|FULL)', said
    )
    assert f'GRANT USAGE ON SCHEMA "Stock room" TO "{role}"' in statements
    shop.execute("; ".join([*statements, found["publication"]]))
    shop.execute(f"REVOKE SELECT ON orders FROM {role}; GRANT SELECT (id) ON orders TO {role}")
    said = texts(report(dsn, code=1), "no-go")
    again = f'GRANT SELECT ON "public"."orders" TO "{role}"'
    assert said.endswith(f"cannot be read: permission denied for table orders → {again}")
    shop.execute(again)
    assert report(dsn, code=0)["publication"].startswith("dbz_publication exists")


def test_row_level_security_is_named(shop: Database) -> None:
    role = shop.create_role("LOGIN REPLICATION")
    shop.execute("ALTER TABLE customers ENABLE ROW LEVEL SECURITY")
    shop.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    dsn = shop.dsn.replace("postgres:", f"{role}:", 1)
    said = texts(report(dsn, r"table.include.list=public\.customers", code=1))
    assert "row-level security would hide rows of public.customers" in said
    assert f'ALTER ROLE "{role}" BYPASSRLS' in said


def test_a_slot_that_is_there_is_judged_as_a_start_would(shop: Database) -> None:
    slot = f"check_{shop.name}"
    shop.execute("SELECT pg_create_physical_replication_slot(%s)", [slot])
    options = (FILTERED, r"table.include.list=public\.orders", f"slot.name={slot}")
    try:
        assert "is a physical one" in texts(report(shop.dsn, *options, code=1), "no-go")
    finally:
        shop.execute("SELECT pg_drop_replication_slot(%s)", [slot])
    shop.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", [slot])
    said = texts(report(shop.dsn, *options, code=1), "no-go")
    assert "decodes with test_decoding, not with pgoutput" in said
    shop.execute("SELECT pg_drop_replication_slot(%s)", [slot])
    shop.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    found = report(shop.dsn, *options, code=0)
    assert found["slot"] == f"{slot} exists"
    assert "begins at it" in texts(found, "note")


def test_a_server_that_cannot_is_named_with_every_reason(start_postgres: StartPostgres) -> None:
    server = start_postgres(wal_level="replica", max_replication_slots=1, fsync=False)
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as conn:
        conn.execute("CREATE TABLE t (id int PRIMARY KEY)")
        conn.execute("SELECT pg_create_physical_replication_slot('standby')")
    found = report(server.dsn("postgres"), code=1)
    said = texts(found, "no-go")
    assert "wal_level is replica" in said
    assert "ALTER SYSTEM SET wal_level = logical" in said
    assert "1 of max_replication_slots=1 are in use (inactive: standby)" in said
    assert "a standby that takes over does not have the slot" in texts(found, "note")


def test_managed_services_are_known_by_their_roles(start_postgres: StartPostgres) -> None:
    server = start_postgres(wal_level="replica", fsync=False)
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as conn:
        conn.execute("CREATE ROLE rds_superuser")
        conn.execute("CREATE ROLE rds_replication")
        conn.execute("CREATE ROLE cdc LOGIN PASSWORD 'shop-secret'")
        conn.execute("CREATE TABLE t (id int PRIMARY KEY)")
    dsn = server.dsn("postgres").replace("postgres:", "cdc:", 1)
    found = report(dsn, code=1)
    assert found["service"] == "Amazon RDS or Aurora"
    said = texts(found, "no-go")
    assert "set rds.logical_replication=1 in the parameter group" in said
    assert 'GRANT rds_replication TO "cdc"' in said
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as conn:
        conn.execute("GRANT rds_replication TO cdc")
    assert "may not replicate" not in texts(report(dsn, code=1))


@pytest.mark.parametrize("service", judge.SERVICES, ids=lambda service: service.role)
def test_every_service_is_found_by_role_and_by_setting(service: judge.Service) -> None:
    assert judge.service_of([service.role], []) is service
    assert judge.service_of([], [service.setting]) is service
    assert judge.service_of(["postgres"], []) is None


@pytest.mark.parametrize("service", judge.SERVICES, ids=lambda service: service.role)
def test_every_services_own_way_is_told(service: judge.Service) -> None:
    replica = replace(facts(170002), wal_level="replica")
    found = {f.subject: f for f in judge.server(replica, judge.Role("reader"), service)}
    assert found["wal_level"].remedy == f"{service.name}: {service.wal_level}"
    assert found["role"].remedy == service.replication.format(role='"reader"')
    assert "{" not in found["role"].remedy
    for name in service.replicators:
        role = judge.Role("reader", member_of=frozenset({name}))
        assert "role" not in [f.subject for f in judge.server(replica, role, service)]


def facts(version: int, *, in_recovery: bool = False) -> ServerFacts:
    return ServerFacts(
        version=version, system_id="1", timeline=1, wal_level="logical", in_recovery=in_recovery,
        lsn=1, database="shop", database_id=5, encoding="UTF8", block_size=8192,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("server", "level", "said"),
    [
        (facts(110022), "no-go", "PostgreSQL 11 is too old"),
        (facts(190000), "warning", "PostgreSQL 19 is newer than what this was tested with"),
        (facts(150004, in_recovery=True), "no-go", "PostgreSQL 15 decodes on a primary only"),
        (facts(160000, in_recovery=True), "note", "this server is a standby: it can be captured"),
    ],
)
def test_versions_and_standbys_are_judged(server: ServerFacts, level: str, said: str) -> None:
    (found,) = judge.server(server, judge.Role("cdc", replication=True))
    assert (found.level, said in found.text) == (level, True)


def test_the_second_slot_that_is_needed_now_and_then_is_asked_for() -> None:
    def judged(slots: int) -> list[tuple[str, str]]:
        room = judge.Room(10, slots, (), 10, 0)
        return [(f.level, f.text) for f in judge.free_room(room, "shop")]

    assert judged(8) == []
    ((level, said),) = judged(9)
    assert (level, said.startswith("only one replication slot is free")) == ("warning", True)


def test_a_pooler_is_named(shop: Database, tmp_path: Path) -> None:
    with pgbouncer(shop, tmp_path) as port:
        done = run(replaced(shop.dsn, port=port), "--json")
    assert done.returncode == 1
    assert "a pooler is in between: connect to the server itself" in done.stderr


@pytest.mark.postgres_versions(12, 18)
def test_slots_that_nobody_reads_are_named_with_their_statement(shop: Database) -> None:
    names = {kind: f"{kind}_{shop.name}" for kind in ("lost", "other", "own")}
    make = "SELECT pg_create_logical_replication_slot(%s, %s)"
    shop.execute(make, [names["lost"], "pgoutput"])
    shop.execute(make, [names["own"], "pgoutput"])
    shop.execute(make, [names["other"], "test_decoding"])
    shop.execute("SELECT pg_switch_wal() FROM txid_current()")
    found = report(shop.dsn, FILTERED, r"table.exclude.list=public\.notes",
                   f"slot.name={names['own']}", code=0)  # fmt: skip
    (said,) = [f for f in found["findings"] if names["lost"] in f["text"]]
    start = f"nobody reads the slot {names['lost']} of the database {shop.name}: it makes the"
    assert said["text"].startswith(f"{start} server keep ")
    assert not said["text"].endswith(" 0 MB of WAL")
    assert (
        said["remedy"] == f"SELECT pg_drop_replication_slot('{names['lost']}') if nobody needs it"
    )
    assert "nobody reads the slot own" not in texts(found)
    assert names["other"] not in texts(found)


@pytest.mark.postgres_versions(16, 18)
def test_a_failover_slot_is_made_where_it_can_be(shop: Database, postgres_major: int) -> None:
    found = report(shop.dsn, FILTERED, "slot.failover=true", r"table.exclude.list=public\.notes")
    said = "slot.failover needs PostgreSQL 17 and a primary: not set" in texts(found, "warning")
    assert said == (postgres_major < 17)


def test_wrong_usage_is_exit_code_2_and_no_connection_is_1(shop: Database, tmp_path: Path) -> None:
    sink, misspelt = tmp_path / "copy.properties", tmp_path / "shop.properties"
    sink.write_text("name=copy\nconnector.class=io.confluent.connect.jdbc.JdbcSinkConnector\n")
    misspelt.write_text(
        "name=shop\nconnector.class=postgres\ndatabase.hostnam=db\n"
        "transforms=t\ntransforms.t.type=io.x.Y\n"
    )
    for arguments, text in (
        (("--set", "table.includ.list=x", shop.dsn), "table.include.list"),
        (("--set", "snapshot.mode=sometimes", shop.dsn), "snapshot.mode"),
        ((), "no database is named"),
        (("--set", "table.include.list=x"), "no database is named"),
        (("--config", str(sink)), "JdbcSinkConnector is no source"),
        (("--config", str(misspelt)), "did you mean database.hostname?"),
        (("--config", str(misspelt)), "Class io.x.Y could not be found"),
        (("mysql://x/y",), "a URL begins with"),
        ((shop.dsn, "--config", str(tmp_path / "none.json")), "none.json"),
    ):
        done = run(*arguments)
        assert done.returncode == 2, done.stderr
        assert text in done.stderr
        assert "Traceback" not in done.stderr
    done = run("postgresql://nobody@127.0.0.1:1/x")
    assert done.returncode == 1
    assert "127.0.0.1" in done.stderr


def test_a_note_for_each_of_many_tables_does_not_hide_what_stops_it(database: Database) -> None:
    made = "".join(f"CREATE TABLE t{n:02} (id int PRIMARY KEY, v text);" for n in range(40))
    database.execute(f"{made} CREATE TABLE loose (v text)")
    done = run(database.dsn)
    assert done.returncode == 1
    assert done.stdout.count("\nnote: ") == 30
    assert " notes more: --json\nno go\n" in done.stdout
    assert "no-go: public.loose: " in done.stdout
    assert "a sink with pk.mode=record_key refuses them" in done.stdout


def test_a_connectors_file_is_checked_as_it_is(shop: Database, tmp_path: Path) -> None:
    file = tmp_path / "shop.json"
    config = {"connector.class": "io.debezium.connector.postgresql.PostgresConnector",
              "topic.prefix": "shop", "publication.autocreate.mode": "filtered",
              "table.include.list": r"public\.orders", "plugin.name": "pgoutput"}  # fmt: skip
    file.write_text(json.dumps({"name": "shop", "config": config}))
    done = run(shop.dsn, "--config", str(file), "--json")
    assert done.returncode == 0, done.stderr
    (table,) = json.loads(done.stdout)["tables"]
    assert table["topic"] == "shop.public.orders"
