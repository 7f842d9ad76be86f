"""A dry run counts what the replay sends: of the sink's topics, what its transforms leave."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cdc.api import Batch, Lane
from cdc.log import Journal
from cdc.runtime import into, replay
from cdc.runtime.replay import Sink
from cdc.runtime.state import DataDir
from tests.blocks import INT32, STRING, Source, optional

FILE = {"connector.class": "file", "topics": "srv.public.orders"}
COPY = {
    "connector.class": "sql", "topics": "srv.public.orders", "insert.mode": "upsert",
    "pk.mode": "record_key", "delete.enabled": "true", "auto.create": "true",
}  # fmt: skip
NO_TOMBSTONES = {
    "transforms": "drop", "transforms.drop.type": "org.apache.kafka.connect.transforms.Filter",
    "transforms.drop.predicate": "gone",
    "predicates": "gone", "predicates.gone.type": "RecordIsTombstone",
}  # fmt: skip
ONLY_TOMBSTONES = {**NO_TOMBSTONES, "transforms.drop.negate": "true"}
NO_ORDERS = {
    **NO_TOMBSTONES, "predicates.gone.type": "TopicNameMatches",
    "predicates.gone.pattern": ".*orders",
}  # fmt: skip
NO_SUCH_FIELD = {
    "errors.tolerance": "all", "transforms": "key", "transforms.key.type": "ValueToKey",
    "transforms.key.fields": "missing",
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    """Two tables: an order comes three times and goes, as do customers."""
    data = DataDir(str(tmp_path / "data"))
    data.prepare()
    shop = Source()
    tables = [shop.table(t, id=INT32, note=optional(STRING)) for t in ("orders", "customers")]
    with Journal.open(data.journal("shop")) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        for table in tables:
            for id_ in (1, 2, 3):
                shop.insert(table, id=id_, note="new")
            shop.update(table, id=1, note="paid")
            shop.delete(table, id=2, note="new")
        journal.append(Batch(Lane.STREAM, {}, shop.block()))
    return data


def make_sink(tmp_path: Path, config: dict[str, str]) -> Sink:
    targets = {
        "file": str(tmp_path / "lines.jsonl"),
        "connection.url": f"jdbc:sqlite:{tmp_path}/copy.db",
    }
    own = {k: v for k, v in targets.items() if (k == "file") == (config["connector.class"] == k)}
    return Sink("sink", {"name": "sink", **config, **own}, {}, ["shop"], {})


def counted(data: DataDir, sink: Sink, **body: Any) -> dict[str, Any]:
    request = replay.read_request({"from": "beginning", "dry-run": True, **body})
    return replay.count(data, sink, replay.make_plan(data, sink, request))


@pytest.mark.parametrize(
    ("config", "rows"),
    [
        (FILE, 5),
        (FILE | NO_TOMBSTONES, 5),
        (FILE | ONLY_TOMBSTONES, 1),
        (FILE | NO_ORDERS, 0),
        (COPY, 5),
        (COPY | ONLY_TOMBSTONES, 1),
        (COPY | NO_SUCH_FIELD, 0),
    ],
)
def test_a_dry_run_counts_the_rows_that_the_replay_puts(
    data: DataDir, tmp_path: Path, config: dict[str, str], rows: int
) -> None:
    sink = make_sink(tmp_path, config)
    found = counted(data, sink)
    assert found["rows"] == found["transactions"] == rows
    assert list(found["tables"]) == (["public.orders"] if rows else [])
    assert not {file.name for file in tmp_path.iterdir()} - {"data"}
    request = replay.read_request({"from": "beginning", "into": "v2"})
    into.run(replay.job(sink, replay.make_plan(data, sink, request), data))
    if config["connector.class"] == "sql":
        assert len(copied(tmp_path / "copy.db")) == (2 if rows == 5 else 0)
    else:
        lines = (tmp_path / "lines-v2.jsonl").read_text().splitlines()
        # A tombstone is made of a delete as it is written; a chain sees it as a record.
        assert len(lines) == rows + (config == FILE)


def copied(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        named = [name for (name,) in db.execute("SELECT name FROM sqlite_master")]
        (table,) = [name for name in named if "orders" in name] or [""]
        return db.execute(f'SELECT * FROM "{table}"').fetchall() if table else []


def test_what_a_chain_fails_on_is_counted_apart(data: DataDir, tmp_path: Path) -> None:
    sink = make_sink(tmp_path, FILE | NO_SUCH_FIELD)
    found = counted(data, sink)
    assert (found["rows"], found["failed"]) == (0, 6)  # five rows and a tombstone
    assert "failed" not in counted(data, make_sink(tmp_path, FILE))
