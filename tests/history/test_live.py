"""History equals what a trigger wrote down at the source, change by change."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from cdc.history import history, row_at
from cdc.lsn import lsn_text
from tests.fix_postgres import Database
from tests.pipeline import Pipeline, workload

TEMPORAL = """
CREATE TABLE item (id int PRIMARY KEY, status text, price numeric(10,2), at timestamp, big text);
ALTER TABLE item ALTER big SET STORAGE EXTERNAL;
CREATE SCHEMA hidden;
CREATE TABLE hidden.t_history (
    valid_from bigserial PRIMARY KEY, tx bigint, id int, op text, data jsonb);
CREATE FUNCTION hidden.shape(i item) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('id', i.id, 'status', i.status, 'price', i.price::text,
    'at', to_char(i.at, 'YYYY-MM-DD"T"HH24:MI:SS.US'), 'big', i.big) $$;
CREATE FUNCTION hidden.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    INSERT INTO hidden.t_history (tx, id, op)
      SELECT pg_current_xact_id()::text::bigint, id, 't' FROM item;
    RETURN NULL;
  END IF;
  IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND OLD.id <> NEW.id THEN
    INSERT INTO hidden.t_history (tx, id, op)
      VALUES (pg_current_xact_id()::text::bigint, OLD.id, 'd');
  END IF;
  IF TG_OP <> 'DELETE' THEN
    INSERT INTO hidden.t_history (tx, id, op, data) VALUES (pg_current_xact_id()::text::bigint,
      NEW.id, CASE WHEN TG_OP = 'INSERT' OR OLD.id <> NEW.id THEN 'c' ELSE 'u' END,
      hidden.shape(NEW));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON item
  FOR EACH ROW EXECUTE FUNCTION hidden.note();
CREATE TRIGGER gone BEFORE TRUNCATE ON item EXECUTE FUNCTION hidden.note();
"""
# Rows whose first version is the snapshot's; no trigger saw them come.
EARLIER = """
ALTER TABLE item DISABLE TRIGGER USER;
INSERT INTO item SELECT i, 'old', i / 4.0, '2024-01-01 10:00', repeat('x', 5000)
  FROM generate_series(0, 6, 2) AS i;
ALTER TABLE item ENABLE TRIGGER USER;
"""
KEYS = 8
LAST = 1_000_000


def change(connection: Any, source: random.Random, turn: int) -> None:
    key = source.randrange(KEYS)
    with connection.transaction(force_rollback=turn % 7 == 6):
        for _ in range(source.randrange(1, 4)):
            match source.randrange(12):
                case 0 if turn % 10 == 0:
                    connection.execute("TRUNCATE item")
                case 0 | 1:
                    connection.execute("DELETE FROM item WHERE id = %s", [key])
                case 2 | 3:
                    new = source.randrange(KEYS)
                    connection.execute(
                        "UPDATE item SET id = %s, price = 7 WHERE id = %s"
                        " AND NOT EXISTS (SELECT FROM item WHERE id = %s)",
                        [new, key, new],
                    )
                case 4 | 5:
                    connection.execute(
                        "UPDATE item SET big = repeat(%s, 4000) WHERE id = %s", [str(turn), key]
                    )
                case 6 | 7 | 8:
                    connection.execute(
                        "UPDATE item SET status = %s, price = %s WHERE id = %s",
                        [f"s{turn}", source.randrange(-9999, 9999) / 100, key],
                    )
                case _:
                    connection.execute(
                        "INSERT INTO item VALUES (%s, 'new', 1.5, clock_timestamp(),"
                        " repeat(%s, 5000)) ON CONFLICT DO NOTHING",
                        [key, str(turn)],
                    )


def test_history_equals_a_temporal_table_filled_by_triggers(
    database: Database, tmp_path: Path
) -> None:
    database.execute(TEMPORAL)
    database.execute(EARLIER)
    earlier = dict(database.execute("SELECT id, hidden.shape(item) FROM item"))
    source, turns = random.Random(11), itertools.count()
    settings = {
        "table_include_list": "public.item",
        "publication_autocreate_mode": "filtered",
        "skipped_operations": "none",
    }
    path = tmp_path / "j"
    with Pipeline(path, database.dsn, **settings) as pipeline:
        pipeline.running()
        pipeline.until(lambda events: len(events) >= len(earlier), "the snapshot")
        with workload(lambda connection: change(connection, source, next(turns)), database):
            pipeline.until(lambda events: len(events) > 1500, "changes")
        database.execute(f"INSERT INTO item (id) VALUES ({LAST})")
        pipeline.until(lambda es: any(e.key == {"id": LAST} for e in es), "the last change")
    expected = defaultdict(list)
    for key, data in earlier.items():
        expected[key].append((None, "r", data))
    rows = database.execute("SELECT id, tx, op, data FROM hidden.t_history ORDER BY valid_from")
    for key, tx, op, data in rows:
        expected[key].append((tx, op, data))
    assert {op for facts in expected.values() for _, op, _ in facts} == set("rcudt")
    filled = 0
    for key in range(KEYS):
        versions = history(path, "item", key)
        found = [(None if v.snapshot else v.xid, v.op, v.row) for v in versions]
        assert found == expected[key]
        filled += sum(v.op == "u" and "big" not in (v.changed or ()) for v in versions)
        for version, after in itertools.pairwise(versions):
            if version.commit_lsn != after.commit_lsn:
                at = lsn_text(version.commit_lsn)
                assert row_at(path, "item", key, at=at) == version.row
                break
        now = database.execute(f"SELECT hidden.shape(item) FROM item WHERE id = {key}")
        assert versions[-1].row == (now[0][0] if now else None)
    assert filled > 50
