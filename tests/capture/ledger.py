"""A workload and what it did: a trigger notes every change in a table of its own.

The ledger is filled by the transactions themselves, so it holds exactly what was committed,
whatever the capture saw.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any, Self

import psycopg

from tests.fix_postgres import Database

SCHEMA = """
CREATE TABLE work (id int PRIMARY KEY, v int NOT NULL, pad text);
ALTER TABLE work REPLICA IDENTITY FULL;
CREATE TABLE ledger (n bigserial PRIMARY KEY, op text, id int, v int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO ledger (op, id, v) VALUES ('d', OLD.id, OLD.v);
    ELSE
        INSERT INTO ledger (op, id, v) VALUES (lower(left(TG_OP, 1)), NEW.id, NEW.v);
    END IF;
    RETURN NULL;
END $$;
INSERT INTO work SELECT i, 0, repeat('x', 100) FROM generate_series(1, %d) i;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON work FOR EACH ROW EXECUTE FUNCTION note();
CREATE PUBLICATION work FOR TABLE work;
"""
ARGUMENTS = (
    "--set", "table.include.list=public.work",
    "--set", "publication.name=work",
    "--set", "tombstones.on.delete=false",
)  # fmt: skip


def prepare(database: Database, rows: int) -> None:
    with database.connect() as connection:
        connection.execute((SCHEMA % rows).encode())


class Workload:
    """Random transactions in a thread, some of them rolled back; use it as a context manager."""

    def __init__(self, database: Database, rows: int, seed: int = 1) -> None:
        self._database, self._rows = database, rows
        self._random = random.Random(seed)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.number = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with self._database.connect(autocommit=False) as connection:
            while not self._ended.is_set():
                for _ in range(self._random.randint(1, 20)):
                    self._change(connection)
                if self._random.random() < 0.1:
                    connection.rollback()
                else:
                    connection.commit()
                self._ended.wait(0.001)

    def _change(self, connection: psycopg.Connection[Any]) -> None:
        self.number += 1
        kind, id_ = self._random.random(), self._random.randint(1, self._rows)
        if kind < 0.4:
            connection.execute("UPDATE work SET v = %s WHERE id = %s", [self.number, id_])
        elif kind < 0.6:
            connection.execute("DELETE FROM work WHERE id = %s", [id_])
        else:
            connection.execute(
                "INSERT INTO work VALUES (%s, %s, 'new') ON CONFLICT (id) DO NOTHING",
                [self._rows + self.number, self.number],
            )


def noted(database: Database) -> Counter[tuple[str, int, int]]:
    """What was committed, as (op, id, value)."""
    names = {"i": "c", "u": "u", "d": "d"}
    return Counter(
        (names[op], id_, v) for op, id_, v in database.execute("SELECT op, id, v FROM ledger")
    )


def streamed(events: list[dict[str, Any]]) -> Counter[tuple[str, int, int]]:
    """The same of what a capture wrote, without the snapshot's rows."""
    found: Counter[tuple[str, int, int]] = Counter()
    for event in events:
        value = event["value"]
        if value["op"] != "r":
            row = value["after"] or value["before"]
            found[(value["op"], row["id"], row["v"])] += 1
    return found


def replayed(events: list[dict[str, Any]]) -> dict[int, int]:
    """The table that the events make, applied in order."""
    table: dict[int, int] = {}
    for event in events:
        after = event["value"]["after"]
        if after is None:
            table.pop(event["key"]["id"], None)
        else:
            table[after["id"]] = after["v"]
    return table


def table_of(database: Database) -> dict[int, int]:
    return dict(database.execute("SELECT id, v FROM work"))
