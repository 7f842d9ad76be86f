"""What has to be true in the end, checked against the ledger and the tables themselves.

The guarantee, per table T. Let L(T) be the LSN from which T is captured: the slot's first
position, or that of a later snapshot if nothing of T had been stored before. Then

- a change of T that was committed at or after L(T) is in the journal exactly once, in the
  order of the ledger inside its transaction, and transactions in the order of their commits;
- a change of T committed before L(T) is not in the journal: its effect is in T's rows;
- L(T) is not beyond the LSN at which T's first rows were read, so nothing is in neither;
- the journal, applied in order, ends in the rows the source has: every key, every column.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import psycopg

from cdc.block import CREATE, DELETE, READ, STREAMED, TRUNCATE, UPDATE, Block
from cdc.log.reader import JournalReader
from tests.crash.database import KEYS, TABLES, LedgerRow, read_commits, read_ledger

Row = dict[str, Any]
Key = tuple[Any, ...]


def _time(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    return datetime.fromisoformat(value).timestamp()


# Tables with REPLICA IDENTITY FULL: what is changed or deleted comes with the whole old row.
FULL = {"orders"}


# --- values: one form for the source's, the ledger's, an event's and a copy's

NORMAL: Mapping[str, Callable[[Any], Any]] = {
    "int": int,
    "text": str,
    "numeric": lambda value: Decimal(str(value)),
    "json": lambda value: orjson.loads(value) if isinstance(value, str) else value,
    "time": _time,
}


def normal(table: str, row: Mapping[str, Any]) -> Row:
    """A row in one form, whoever gave it."""
    return {
        name: None if row[name] is None else NORMAL[kind](row[name])
        for name, kind in TABLES[table].items()
        if name in row
    }


def digested(row: Row) -> Row:
    """As the ledger's images: a long text by its digest."""
    if row.get("body") is None:
        return row
    return {**row, "body": hashlib.md5(row["body"].encode()).hexdigest()}


def key_of(table: str, row: Mapping[str, Any]) -> Key:
    return tuple(int(row[name]) for name in KEYS[table])


# --- the journal


class Change(NamedTuple):
    """One row of the journal. ``unsent``: columns the server did not send."""

    op: int
    table: str
    key: Key | None
    moved: Key | None
    row: Row | None
    unsent: frozenset[str]
    lsn: int
    commit_lsn: int
    xid: int
    before: Row | None


def changes(path: Path) -> Iterator[Change]:
    """Everything in a journal, in order; offsets are consecutive."""
    with JournalReader(path) as reader:
        first, after = reader.bounds()
        assert first == 0, f"the journal begins at {first}"
        at = 0
        while (block := reader.read(at)) is not None:
            assert list(block.offsets) == list(range(at, at + len(block)))
            yield from _block_changes(block)
            at += len(block)
        assert at == after


def _block_changes(block: Block) -> Iterator[Change]:
    tables = [schema.table.table for schema in block.schemas]
    fields = [[f.name for f in schema.row.fields] for schema in block.schemas]
    for i in range(len(block)):
        op, number = block.op[i], block.schema[i]
        table, transaction = tables[number], block.transactions[block.transaction[i]]
        assert (op == READ) == (block.marker_of(i) != STREAMED)
        unsent = frozenset(fields[number][f] for f in block.unchanged.get(i, ()))
        yield Change(
            op,
            table,
            _key(table, block.keys[i]),
            _key(table, block.moved.get(i)),
            _image(table, block.afters[i], unsent),
            unsent,
            block.lsn[i],
            transaction.commit_lsn,
            transaction.xid,
            _image(table, block.befores[i], frozenset()),
        )


def _key(table: str, text: bytes | None) -> Key | None:
    return None if text is None else key_of(table, orjson.loads(text))


def _image(table: str, text: bytes | None, unsent: frozenset[str]) -> Row | None:
    if text is None:
        return None
    values = {name: v for name, v in orjson.loads(text).items() if name not in unsent}
    return normal(table, values)


# --- applying


@dataclass
class Replica:
    """The tables as the journal makes them."""

    tables: dict[str, dict[Key, Row]] = field(default_factory=lambda: {t: {} for t in TABLES})
    # key changes take what was not sent from the row under the old key
    _left: dict[tuple[str, Key], Row] = field(default_factory=dict)

    def apply(self, change: Change) -> None:
        rows = self.tables[change.table]
        if change.op == TRUNCATE:
            rows.clear()
            return
        assert change.key is not None
        if change.op == DELETE:
            gone = rows.pop(change.key, {})
            if change.moved is not None:
                self._left[change.table, change.key] = gone
            return
        assert change.row is not None
        before = rows.get(change.key, {})
        if change.op == CREATE and change.moved is not None:
            before = self._left.pop((change.table, change.moved), {})
        kept = {name: before[name] for name in change.unsent if name in before}
        rows[change.key] = {**change.row, **kept}


# --- the ledger


class Expected(NamedTuple):
    op: int
    table: str
    key: Key | None
    row: Row | None
    moved: Key | None = None
    before: Row | None = None


def expected(row: LedgerRow) -> Iterable[Expected]:
    """What a change of the ledger becomes: a key change is two."""
    before = normal(row.table, row.before) if row.before else None
    after = normal(row.table, row.after) if row.after else None
    old = key_of(row.table, before) if before else None
    new = key_of(row.table, after) if after else None
    if row.op == "T":
        return [Expected(TRUNCATE, row.table, None, None)]
    if row.op == "I":
        return [Expected(CREATE, row.table, new, after)]
    if row.op == "D":
        return [Expected(DELETE, row.table, old, None, before=before)]
    if old == new:
        return [Expected(UPDATE, row.table, new, after, before=before)]
    return [
        Expected(DELETE, row.table, old, None, new, before),
        Expected(CREATE, row.table, new, after, old),
    ]


@dataclass
class Report:
    """Figures of a check, for the test's output."""

    transactions: int = 0
    changes: int = 0
    rows_read: int = 0
    captured_from: dict[str, int] = field(default_factory=dict)


def check_journal(path: Path, dsn: str) -> Report:
    """The guarantee above. The source must be quiet."""
    return check_changes(changes(path), dsn, "the journal, applied")


def check_changes(found: Iterable[Change], dsn: str, what: str, *, moves: bool = True) -> Report:
    """The guarantee, for whoever kept every change in order.

    ``moves``: each says which key it came from or went to, without which what the server did
    not send is not known behind a key change, so that the rows are not compared either.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        ledger, commits = read_ledger(connection), read_commits(connection)
        tables = source_tables(connection)
    assert len(commits) == len(ledger), "the ledger's own slot does not agree with it"
    replica, report = Replica(), Report()
    streamed: dict[str, dict[int, list[Change]]] = {name: {} for name in TABLES}
    whole: dict[int, list[str]] = {}
    read_at: dict[str, int] = {}
    order: list[tuple[int, int]] = []
    for change in found:
        if moves:
            replica.apply(change)
        if change.op == READ:
            report.rows_read += 1
            read_at.setdefault(change.table, change.lsn)
            continue
        if not order or order[-1] != (change.commit_lsn, change.xid):
            order.append((change.commit_lsn, change.xid))
        streamed[change.table].setdefault(change.xid, []).append(change)
        whole.setdefault(change.xid, []).append(change.table)
        report.changes += 1
    known = set(commits)
    assert all(one in known for one in order), "a transaction the source never committed"
    assert order == sorted(set(order)), "transactions are doubled or out of order"
    report.transactions = len(order)
    for table in TABLES:
        report.captured_from[table] = _check_table(
            table, streamed[table], ledger, commits, read_at.get(table), moves=moves
        )
    _check_order_inside(whole, ledger, report.captured_from, commits)
    if moves:
        compare_tables(replica.tables, tables, what)
    return report


def _check_table(
    table: str,
    streamed: dict[int, list[Change]],
    ledger: dict[int, list[LedgerRow]],
    commits: list[tuple[int, int]],
    read_at: int | None,
    *,
    moves: bool,
) -> int:
    """Changes of one table: absent below its L, exactly once from there. Returns L."""
    wanted = [(lsn, xid) for lsn, xid in commits if any(r.table == table for r in ledger[xid])]
    first = next((i for i, (_, xid) in enumerate(wanted) if xid in streamed), len(wanted))
    for _, xid in wanted[first:]:
        want = [e for row in ledger[xid] if row.table == table for e in expected(row)]
        have = streamed.get(xid, [])
        assert len(have) == len(want), (
            f"{table}, transaction {xid}: {len(want)} changes, {len(have)} in the journal"
        )
        for w, h in zip(want, have, strict=True):
            _check_change(w if moves else w._replace(moved=None), h, xid)
    assert len(streamed) == len(wanted) - first
    captured_from = wanted[first][0] if first < len(wanted) else 0
    below = wanted[first - 1][0] if first else 0
    if first and read_at is not None:
        # what is not in the journal is in the rows: they were read after it
        assert below < read_at, f"{table}: changes up to {below:X}, rows read at {read_at:X}"
    return captured_from


def _check_change(want: Expected, have: Change, xid: int) -> None:
    what = f"{want.table} {want.key}, transaction {xid}"
    assert (have.op, have.key, have.moved) == (want.op, want.key, want.moved), what
    if want.table in FULL:
        assert have.before is None or want.before is not None, what
        assert digested(have.before or {}) == (want.before or {}), what
    if want.row is None:
        return
    assert have.row is not None, what
    assert have.unsent <= {"body"}, what
    sent = {name: v for name, v in want.row.items() if name not in have.unsent}
    assert digested(have.row) == sent, what


def _check_order_inside(
    whole: dict[int, list[str]],
    ledger: dict[int, list[LedgerRow]],
    captured_from: Mapping[str, int],
    commits: list[tuple[int, int]],
) -> None:
    """Across tables: the changes of a transaction come in the order they were made."""
    for lsn, xid in commits:
        tables = {row.table for row in ledger[xid]}
        if len(tables) < 2 or any(captured_from[t] > lsn or not captured_from[t] for t in tables):
            continue
        want = [e for row in ledger[xid] for e in expected(row)]
        assert [e.table for e in want] == whole[xid], f"transaction {xid}"


# --- tables


def source_tables(connection: psycopg.Connection[Any]) -> dict[str, dict[Key, Row]]:
    out: dict[str, dict[Key, Row]] = {}
    for table, columns in TABLES.items():
        cursor = connection.execute(f'SELECT {", ".join(columns)} FROM "{table}"'.encode())
        names = list(columns)
        rows = (normal(table, dict(zip(names, row, strict=True))) for row in cursor)
        out[table] = {key_of(table, row): row for row in rows}
    return out


def postgres_copy(dsn: str) -> dict[str, dict[Key, Row]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return source_tables(connection)


def sqlite_copy(path: Path) -> dict[str, dict[Key, Row]]:
    out: dict[str, dict[Key, Row]] = {}
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        for table, columns in TABLES.items():
            cursor = connection.execute(f'SELECT {", ".join(columns)} FROM "{table}"')
            rows = (dict(zip(columns, row, strict=True)) for row in cursor)
            out[table] = {key_of(table, row): _of_sqlite(table, row) for row in rows}
    finally:
        connection.close()
    return out


def _of_sqlite(table: str, row: Row) -> Row:
    """Times are text without a zone there, always in UTC."""
    for name, kind in TABLES[table].items():
        if kind == "time" and row[name] is not None:
            row[name] = datetime.fromisoformat(f"{row[name].rstrip('Z')[:26]}+00:00")
    return normal(table, row)


def compare_tables(
    have: Mapping[str, Mapping[Key, Row]], want: Mapping[str, Mapping[Key, Row]], what: str
) -> None:
    """Row by row, all columns; the first differences are named."""
    for table, rows in want.items():
        other = have[table]
        missing = sorted(rows.keys() - other.keys())
        surplus = sorted(other.keys() - rows.keys())
        assert not missing, f"{what}: {table} lacks {len(missing)} rows: {missing[:5]}"
        assert not surplus, f"{what}: {table} has {len(surplus)} rows too many: {surplus[:5]}"
        different = [key for key, row in rows.items() if other[key] != row]
        columns = {
            name
            for key in different
            for name in rows[key]
            if other[key].get(name) != rows[key][name]
        }
        assert not different, (
            f"{what}: {table} differs in {len(different)} rows, columns {columns}: {different[:5]}"
        )


# --- the file sink


def check_file(path: Path, journal: Path) -> int:
    """Its lines are the journal's rows and tombstones, each once, in order; their number."""
    files = [*sorted(path.parent.glob(f"{path.name}.[0-9]*")), path]
    lines = (orjson.loads(line) for file in files for line in file.read_bytes().splitlines())
    count = 0
    letters = {READ: "r", CREATE: "c", UPDATE: "u", DELETE: "d", TRUNCATE: "t"}
    for change in changes(journal):
        line = next(lines)
        value = line["value"]
        source = value["source"]
        found = (value["op"], source["table"], _line_key(change.table, line), source["lsn"])
        want = (letters[change.op], change.table, change.key, change.lsn)
        assert found == want, f"line {count}: {found}, in the journal {want}"
        count += 1
        if change.op == DELETE:
            assert next(lines)["value"] is None, f"line {count}: no tombstone"
            count += 1
    assert next(lines, None) is None, "lines that are not in the journal"
    return count


def _line_key(table: str, line: Mapping[str, Any]) -> Key | None:
    return None if line["key"] is None else key_of(table, line["key"])
