"""What the audit and the search sink have to hold in the end, by the ledger and by the tables."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import psycopg

from cdc.block import CREATE, DELETE, READ, TRUNCATE, UPDATE
from cdc.log.reader import JournalReader
from sinks.audit_chain import COLUMNS
from sinks.search_index import search, unpacked
from tests.contract.targets import check_words
from tests.crash import oracle
from tests.crash.database import KEYS, TABLES, read_commits
from tests.runtime.workers import cdc

HASH_KEY = "of the crash test"
# Texts of every table; those of ``body`` are often not sent by the server.
TEXTS: dict[str, tuple[str, ...]] = {
    "accounts": ("owner", "body"),
    "orders": ("state", "body"),
    "order_lines": ("product",),
    "event_notes": ("body",),
    "marks": ("at",),
}
SEARCHED = ";".join(f"public.{table}:{','.join(names)}" for table, names in TEXTS.items())
OPERATIONS = {"r": READ, "c": CREATE, "u": UPDATE, "d": DELETE, "t": TRUNCATE}
NOT_SENT = "__debezium_unavailable_value"
SAMPLE = 50


# --- audit


def check_audit(path: Path, journal: Path, dsn: str) -> None:
    """A whole chain, with every record of the journal and every change of the ledger once."""
    key_file = path.with_suffix(".key")
    key_file.write_text(HASH_KEY)
    done = cdc("audit", "verify", path, "--key-file", key_file)
    assert done.returncode == 0, done.stdout + done.stderr
    with psycopg.connect(dsn, autocommit=True) as connection:
        commits = {xid: lsn for lsn, xid in read_commits(connection)}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection_:
        offsets = [at for (at,) in connection_.execute("SELECT journal_offset FROM audit")]
        with JournalReader(journal) as reader:
            assert sorted(offsets) == list(range(reader.bounds()[1])), "records of the audit"
        oracle.check_changes(_audited(connection_, commits), dsn, "the audit", moves=False)


def _audited(connection: sqlite3.Connection, commits: Mapping[int, int]) -> Iterator[oracle.Change]:
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    for found in connection.execute(f"SELECT {names} FROM audit ORDER BY seq"):
        record = dict(zip(COLUMNS, found, strict=True))
        table = record["table_name"].partition(".")[2]
        row, unsent = _image(table, record["after"])
        xid = record["txid"] or 0
        yield oracle.Change(
            OPERATIONS[record["op"]],
            table,
            None if record["key"] is None else oracle.key_of(table, orjson.loads(record["key"])),
            None,
            row,
            unsent,
            record["lsn"],
            commits.get(xid, 0),
            xid,
            _image(table, record["before"])[0],
        )


def _image(table: str, text: str | None) -> tuple[oracle.Row | None, frozenset[str]]:
    if text is None:
        return None, frozenset()
    values = orjson.loads(text)
    unsent = frozenset(name for name, value in values.items() if value == NOT_SENT)
    sent = {name: value for name, value in values.items() if name not in unsent}
    return oracle.normal(table, sent), unsent


# --- search


def check_index(path: Path, source: Mapping[str, Mapping[oracle.Key, oracle.Row]]) -> None:
    """Its documents are the tables' rows, and its words those of the documents."""
    check_words(path)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        found = connection.execute(
            "SELECT tables.name, key, layout, body FROM documents"
            " JOIN tables ON tables.id = table_id"
        ).fetchall()
    documents: dict[str, dict[str, Any]] = {table: {} for table in TEXTS}
    for name, key, layout, body in found:
        documents[name.partition(".")[2]][key] = unpacked(layout, body)
    for table in TEXTS:
        want = {_id(table, key): _texts(table, row) for key, row in source[table].items()}
        have = {id_: _read(table, fields) for id_, fields in documents[table].items()}
        different = [id_ for id_ in want.keys() | have.keys() if want.get(id_) != have.get(id_)]
        assert not different, f"the index: {table} differs in {len(different)}: {different[:5]}"
    states = Counter(row["state"] for row in source["orders"].values() if row["state"] != "new")
    for state, count in states.most_common()[:SAMPLE]:
        hits = search(str(path), f'"{state}"', table="orders", limit=1000)
        assert len(hits) == count, state


def _id(table: str, key: oracle.Key) -> str:
    return str(key[0]) if len(KEYS[table]) == 1 else orjson.dumps(key).decode()


def _texts(table: str, row: oracle.Row) -> oracle.Row:
    return {name: row[name] for name in TEXTS[table] if row[name] is not None}


def _read(table: str, fields: Mapping[str, str]) -> oracle.Row:
    return {name: oracle.NORMAL[TABLES[table][name]](text) for name, text in fields.items()}
