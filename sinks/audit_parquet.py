"""Audit records in sealed Parquet files; the chain goes across them.

A Parquet file cannot grow, so records lie in ``open.db`` (SQLite, as in
:mod:`sinks.audit_sqlite`, with the position) until there are ``audit.parquet.rows`` of them
or the oldest has waited ``audit.parquet.ms``, however often the sink was started since and
whether more come or not. Then they become
``<table>/<first seq>-<last seq>.parquet``: written under another name, synced, renamed, and
only then removed from ``open.db``. Whatever a crash leaves in both is removed at the next
start. A sealed file is never written again. What a chain had open when a replay, or another
name, retired it is sealed then, and its table leaves ``open.db``; only where somebody has altered
that, it stays as it is, for ``cdc audit verify`` to find.
"""

# ruff: noqa: D102 - sinks.audit_store.Store says what each method does

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from cdc.durable import make_folder, sync
from cdc.errors import ConfigError, SinkRejected
from cdc.failpoints import hit
from sinks.audit_chain import COLUMNS, NUMBERS, Damaged, Link, Record
from sinks.audit_sqlite import SqliteStore
from sinks.audit_store import Filter, ParquetOptions, Position

OPEN: Final = "open.db"
WAITING: Final = "cdc_audit_waiting"  # since when a table's records wait there to be sealed
_NAME: Final = re.compile(r"(\d{12})-(\d{12})\.parquet")
# What is in memory at once: of narrow rows by their number, of wide ones by their texts.
_GROUP_ROWS, _GROUP_BYTES = 2_000, 1 << 20
_FETCH: Final = 50
Sealed = tuple[int, int, Path]  # a file's first and last number, and the file


class ParquetStore(SqliteStore):
    """A folder."""

    def __init__(self, folder: Path, options: ParquetOptions, *, existing: bool = False) -> None:
        _require()
        if not existing:
            try:
                make_folder(folder)
            except OSError as error:
                raise ConfigError(
                    f"{folder} cannot be used: {error.strerror}", key="connection.url"
                ) from None
        super().__init__(str(folder / OPEN), existing=existing)
        self._folder, self._options = folder, options
        self._sealed_to: tuple[str, int] | None = None  # the table in use, and its last number
        self._left: list[Position] | None = None  # retired with records here; None: to be looked up

    # --- writing ---

    def prepare(self, connector: str) -> None:
        super().prepare(connector)
        self._connection.execute(
            f"CREATE TABLE IF NOT EXISTS {WAITING}"
            " (table_name TEXT PRIMARY KEY, since REAL NOT NULL) STRICT"
        )

    def insert(self, table: str, records: Sequence[Record]) -> None:
        super().insert(table, records)
        self._connection.execute(
            f"INSERT OR IGNORE INTO {WAITING} VALUES (?, ?)", [table, time.time()]
        )

    def retire(self, position: Position) -> None:
        super().retire(position)
        self._left = None

    def last(self, table: str) -> Link:
        """The last record; what a crash left in both places goes from here first."""
        self._remove_drafts(table)
        sealed = self._sealed(table)
        if not sealed:
            return super().last(table)
        self._refuse_foreign(table, sealed[-1])
        if super().has(table):
            self.delete_up_to(table, sealed[-1][1])
            self._connection.commit()
            link = super().last(table)
            if link.seq:
                return link
        *_, record = _rows(*sealed[-1])
        return Link(record[0], record[-1].decode())

    def _refuse_foreign(self, table: str, newest: Sealed) -> None:
        """Records are sealed after the position is stored: none lie beyond it."""
        kept = next((p for p in self.positions() if p.table == table), None)
        if kept is not None and newest[1] > kept.seq:
            raise SinkRejected(
                f"file {newest[2]} holds records that the sink did not write: its last one is"
                f" {kept.seq}",
                remedy="See cdc audit verify, and move the file away",
            )

    def hash_at(self, table: str, seq: int) -> str | None:
        found = super().hash_at(table, seq) if super().has(table) else None
        for first, last, path in self._sealed(table):
            if found is None and first <= seq <= last:
                rows = _rows(first, last, path)
                found = next((row[-1].decode() for row in rows if row[0] == seq), None)
        return found

    def has(self, table: str) -> bool:
        return super().has(table) or bool(self._sealed(table))

    def commit(self, position: Position | None = None) -> None:
        super().commit()
        if position is not None:
            self.tick(position)

    def tick(self, position: Position) -> None:
        table = position.table
        if self._sealed_to is None or self._sealed_to[0] != table:
            self._sealed_to = (table, self._sealed_last(table))
        last = self._sealed_to[1]
        waiting = position.seq - last
        if waiting and (waiting >= self._options.rows or self._is_old(table)):
            self._seal(table, last + 1, position.seq)
            self._sealed_to = (table, position.seq)
        if self._left is None:
            self._left = [old for old in self.retired() if SqliteStore.has(self, old.table)]
        while self._left:
            self._settle(self._left[-1])
            self._left.pop()

    def _settle(self, old: Position) -> None:
        """Seal what a chain had open that was left; a crash may have come in the middle of it."""
        table, sql = old.table, self._sql(old.table)
        self._remove_drafts(table)
        last = self._sealed_last(table)
        if last > old.seq:
            return  # a file that the sink did not write
        self.delete_up_to(table, last)
        super().commit()
        rows = self._connection.execute(f"SELECT min(seq), max(seq), count(*) FROM {sql}")
        if rows.fetchone() == (last + 1, old.seq, old.seq - last):
            self._seal(table, last + 1, old.seq)
            last = old.seq
        is_empty = self._connection.execute(f"SELECT 1 FROM {sql}").fetchone() is None
        if is_empty and last == old.seq:
            self._begin()
            self._connection.execute(f"DROP TABLE {sql}")
            super().commit()

    def _sealed_last(self, table: str) -> int:
        sealed = self._sealed(table)
        return sealed[-1][1] if sealed else 0

    def _is_old(self, table: str) -> bool:
        """Whether its records have waited long enough; also where nobody can tell since when."""
        sql = f"SELECT since FROM {WAITING} WHERE table_name = ?"
        row = self._connection.execute(sql, [table]).fetchone()
        # An older version noted nothing; and a clock may be set back.
        return row is None or not 0 <= time.time() - row[0] < self._options.age_s

    def _seal(self, table: str, first: int, last: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder = self._folder / self._name(table)
        make_folder(folder)
        path = folder / f"{first:012d}-{last:012d}.parquet"
        draft = path.with_suffix(".draft")
        schema = _schema()
        with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
            cursor = self._connection.execute(
                f"SELECT * FROM {self._sql(table)} WHERE seq <= ? ORDER BY seq", [last]
            )
            for rows in _groups(cursor):
                columns = zip(*rows, strict=True)
                arrays = [
                    pa.array(column, field.type)
                    for column, field in zip(columns, schema, strict=True)
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        sync(draft)
        hit("audit.seal.before_rename")
        draft.rename(path)
        sync(folder)
        hit("audit.seal.after_rename")
        self.delete_up_to(table, last)
        super().commit()

    def delete_up_to(self, table: str, seq: int) -> None:
        super().delete_up_to(table, seq)
        nothing = f"NOT EXISTS (SELECT 1 FROM {self._sql(table)})"
        self._connection.execute(
            f"DELETE FROM {WAITING} WHERE table_name = ? AND {nothing}", [table]
        )

    def _remove_drafts(self, table: str) -> None:
        """What a crash left of files that were being written."""
        folder = self._folder / self._name(table)
        for draft in folder.glob("*.draft"):
            draft.unlink()

    # --- reading ---

    def tables(self) -> list[str]:
        folders = [path for path in self._folder.iterdir() if path.is_dir()]
        return sorted({*super().tables(), *(path.name for path in folders if _sealed(path))})

    def records(self, table: str) -> Iterator[Sequence[Any]]:
        sealed = self._sealed(table)
        for file in sealed:
            yield from _rows(*file)
        last = sealed[-1][1] if sealed else 0
        if super().has(table):
            rows = super().records(table)
            # a number that is none is for the chain to find
            yield from (row for row in rows if not isinstance(row[0], int) or row[0] > last)

    def find(self, table: str, wanted: Filter) -> Iterator[Sequence[Any]]:  # noqa: ARG002
        """All of them: the caller looks at each anyway."""
        return self.records(table)

    def _sealed(self, table: str) -> list[Sealed]:
        return _sealed(self._folder / self._name(table))


def _sealed(folder: Path) -> list[Sealed]:
    """The sealed files of a table, in order."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match:
            found.append((int(match[1]), int(match[2]), path))
    return sorted(found)


def _groups(cursor: sqlite3.Cursor) -> Iterator[list[Sequence[Any]]]:
    """The rows of a query, as many at a time as go into one row group."""
    rows: list[Sequence[Any]] = []
    nbytes = 0
    while more := cursor.fetchmany(_FETCH):
        rows += more
        nbytes += sum(len(text) for row in more for text in row if isinstance(text, bytes))
        if len(rows) >= _GROUP_ROWS or nbytes >= _GROUP_BYTES:
            yield rows
            rows, nbytes = [], 0
    if rows:
        yield rows


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema([(name, pa.int64() if name in NUMBERS else pa.string()) for name in COLUMNS])


def _rows(first: int, last: int, path: Path) -> Iterator[Sequence[Any]]:
    """The records of a sealed file. Raises Damaged for one that is not as it was sealed."""
    import pyarrow as pa

    seq = first
    try:
        for row in _read(path):
            yield row
            seq = row[0] + 1
    except (pa.ArrowException, OSError) as error:
        said = str(error).partition("\n")[0]
        raise Damaged(f"file {path} is damaged, from record {seq} on: {said}", seq) from None
    if seq <= last:
        raise Damaged(f"file {path} is damaged: it ends before record {seq}", seq)


def _read(path: Path) -> Iterator[Sequence[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        types = {field.name: field.type for field in file.schema_arrow}
        altered = [field.name for field in _schema() if types.get(field.name) != field.type]
        if altered:
            raise pa.ArrowInvalid(f"column {altered[0]} was taken out or has another type")
        for batch in file.iter_batches(_GROUP_ROWS, columns=list(COLUMNS)):
            columns = [
                column.cast(pa.binary()) if pa.types.is_string(column.type) else column
                for column in batch.columns
            ]
            yield from zip(*(column.to_pylist() for column in columns), strict=True)


def _require() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise ConfigError(
            "Parquet files need pyarrow",
            key="connection.url",
            remedy="Install it: pip install 'cdc-engine[parquet]'",
        ) from None
