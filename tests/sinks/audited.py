"""Small audit targets of every kind, and hands that change them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.blocks import INT32, STRING, Source, optional
from tests.contract.targets import AuditTarget, SearchTarget, started
from tests.fix_postgres import Database

KINDS = ("sqlite", "parquet", "postgres")


def shop() -> Source:
    """Three changes of two tables; the first two have an author."""
    source = Source()
    orders = source.table("orders", id=INT32, note=optional(STRING))
    people = source.table("people", id=INT32, note=optional(STRING))
    source.begin()
    source.insert(orders, id=17, note="apple pie")
    source.message("cdc.audit", b'{"who":"ann","why":"4711"}')
    source.insert(people, id=17, note="José Smith-Jones, New York")
    source.commit()
    source.update(orders, id=17, note="apple cake")
    return source


def fill(target: AuditTarget | SearchTarget, source: Source | None = None, **seek: int) -> None:
    """One run of a sink; ``offset`` and ``epoch`` make it a replay."""
    task = started(target)
    block = (source or shop()).block()
    try:
        if seek:
            task.seek(seek["offset"], seek["epoch"])
        task.put(block)
        task.flush(block.offsets[-1] + 1)
    finally:
        task.stop()


class Audited:
    """A target of one kind: its name on the command line, its sink's, and SQL on its tables."""

    def __init__(
        self, kind: str, path: Path, database: Callable[[], Database] | None = None
    ) -> None:
        self.kind, self.path = kind, path
        self._database = database() if database is not None and kind == "postgres" else None
        scheme = "parquet:" if kind == "parquet" else "jdbc:sqlite:"
        self.name = self._database.dsn if self._database else str(path)
        self.url = self.name if self._database else f"{scheme}{path}"

    def target(self, **options: Any) -> AuditTarget:
        return AuditTarget(self.url, **options)

    def cut(self, table: str, seq: int) -> None:
        """Remove the records from ``seq`` on, by hand; of Parquet, from the sealed file."""
        if self.kind != "parquet":
            self.execute(f"DELETE FROM {table} WHERE seq >= {seq}")
            return
        from pyarrow import parquet

        (file,) = (self.path / table).iterdir()
        parquet.write_table(parquet.read_table(file).slice(0, seq - 1), file)

    def execute(self, statement: str) -> None:
        """By hand; of Parquet, in the file that is not sealed yet."""
        if self._database:
            self._database.execute(statement)
            return
        path = self.path / "open.db" if self.kind == "parquet" else self.path
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(statement)
