"""Snapshot and stream under concurrent writes: every change once, and the same rows at the end."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import Copy, Pipeline, source_rows, workload

pytestmark = pytest.mark.postgres_versions(12, 13, 14, 15, 16, 17, 18)

LEDGER = """
CREATE SCHEMA hidden;
CREATE TABLE hidden.ledger (op text, id int, version int, tx bigint);
CREATE SEQUENCE hidden.versions;
CREATE TABLE item (id int PRIMARY KEY, version int, big text);
ALTER TABLE item ALTER big SET STORAGE EXTERNAL;
ALTER TABLE item REPLICA IDENTITY FULL;
CREATE FUNCTION hidden.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    INSERT INTO hidden.ledger VALUES ('d', OLD.id, OLD.version, txid_current());
  ELSE
    INSERT INTO hidden.ledger
    VALUES (CASE TG_OP WHEN 'INSERT' THEN 'c' ELSE 'u' END, NEW.id, NEW.version, txid_current());
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON item
  FOR EACH ROW EXECUTE FUNCTION hidden.note();
INSERT INTO item SELECT i, nextval('hidden.versions'), repeat(md5(i::text), 80)
  FROM generate_series(1, 3000) i;
"""


def test_every_change_is_in_the_snapshot_or_in_the_stream(database: Any, tmp_path: Path) -> None:
    database.execute(LEDGER)
    turns = itertools.count()

    def work(connection: Any) -> None:
        turn = next(turns)
        low = turn * 37 % 3000
        with connection.transaction(force_rollback=turn % 5 == 4):
            connection.execute(
                "UPDATE item SET version = nextval('hidden.versions')"
                f" WHERE id BETWEEN {low} AND {low + 5}"
            )
            connection.execute(f"DELETE FROM item WHERE id = {low + 7}")
            connection.execute(
                "INSERT INTO item VALUES (%s, nextval('hidden.versions'), repeat('x', 3000))",
                [10_000 + turn],
            )

    settings = {
        "table_include_list": "public.item",
        "publication_autocreate_mode": "filtered",
        "snapshot_chunk_rows": "200",
        "snapshot_max_threads": "2",
    }
    with (
        workload(work, database),
        Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline,
    ):
        pipeline.until(lambda es: any(e.marker == "last" for e in es), "the snapshot's end")
        seen = len(pipeline.events())
        pipeline.until(lambda es: len(es) > seen + 200, "changes in the stream")
    with Pipeline(tmp_path / "j", database.dsn, **settings) as pipeline:
        events = pipeline.until_agrees(database, "public.item")

    copy = Copy.of(events)
    assert copy.rows("public.item") == source_rows(database, "public.item")
    assert not copy.complaints
    check_ledger(database, events)


def check_ledger(database: Any, events: list[Any]) -> None:
    """No change twice, and none missing from the stream but what was committed before it."""
    streamed = Counter(
        (e.op, (e.before if e.op == "d" else e.row)["id"], (e.before or e.row)["version"]
         if e.op == "d" else e.row["version"])
        for e in events
        if e.marker == "false"
    )  # fmt: skip
    ledger = database.execute("SELECT op, id, version, tx FROM hidden.ledger")
    known = {(op, number, version): tx for op, number, version, tx in ledger}
    assert not [change for change, times in streamed.items() if times > 1]
    assert not streamed.keys() - known.keys()
    # transactions are whole: those in the stream and those only in the snapshot are disjoint
    inside = {known[change] for change in streamed}
    outside = {tx for change, tx in known.items() if change not in streamed}
    assert not inside & outside
    markers = [e.marker for e in events if e.op == "r"]
    assert markers.count("first") == 1
    assert markers.count("last") == 1
    assert markers[0] == "first"
    assert markers[-1] == "last"
