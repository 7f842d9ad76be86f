"""The script in tests/data/capture, run against a capture, and what Debezium made of it.

``debezium.jsonl`` is Debezium 3.6's own output for these statements, without what differs
from run to run. Made anew, and compared field by field with ours on the same WAL, by
``python -m tests.capture.oracle``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg

DATA = Path(__file__).resolve().parent.parent / "data" / "capture"
GOLDEN = DATA / "debezium.jsonl"
PREFIX = "golden"
SNAPSHOT_ROWS = 3 + 3 + 2 + 1 + 2
# Both read the whole script's events, truncates and messages included.
PROPERTIES = {
    "topic.prefix": PREFIX,
    "publication.name": "golden",
    "skipped.operations": "none",
    "snapshot.mode": "initial",
}

# What a second run of the same statements gives another value.
VOLATILE = ("ts_ms", "ts_us", "ts_ns")
VOLATILE_SOURCE = (*VOLATILE, "lsn", "txId", "sequence", "db", "version")


def prepare(url: str) -> None:
    """The tables, their first rows, and the publication."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute((DATA / "schema.sql").read_bytes())
        connection.execute("CREATE PUBLICATION golden FOR ALL TABLES")


def paragraphs() -> Iterator[str]:
    """The statements that belong together: each is one call, and one wait."""
    text = (DATA / "changes.sql").read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if not line.startswith("--")]
    yield from filter(None, (part.strip() for part in "\n".join(lines).split("\n\n")))


def is_ddl(statements: str) -> bool:
    """Whether a reader of the catalogue had better catch up afterwards."""
    return statements.startswith("ALTER")


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The events of a file whose last line may be half written."""
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.split("\n") if line]


def normalised(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without volatile fields; the snapshot's rows sorted, since tables come in any order.

    Headers are left out: Debezium's embedded API, which the golden file comes from, has none.
    """
    out = [_normal(event) for event in events]
    rows = [e for e in out if is_snapshot(e)]
    for event in rows:  # which is the first and which the last depends on that order too
        event["value"]["source"]["snapshot"] = "true"
    rows.sort(key=lambda e: (e["topic"], json.dumps(e["value"]["after"], sort_keys=True)))
    return rows + [e for e in out if not is_snapshot(e)]


def is_snapshot(event: dict[str, Any]) -> bool:
    return event["value"] is not None and event["value"].get("op") == "r"


def _normal(event: dict[str, Any]) -> dict[str, Any]:
    value = event["value"]
    if value is not None:
        value = {k: v for k, v in value.items() if k not in VOLATILE}
        source = value["source"]
        value["source"] = {k: v for k, v in source.items() if k not in VOLATILE_SOURCE}
    return {"topic": event["topic"], "key": event["key"], "value": value}
