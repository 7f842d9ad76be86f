"""Damaged or altered files of an audit: named, a record given, never an error of a library."""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cdc.__main__ import main
from cdc.block import Block
from cdc.errors import SinkError, SinkRejected
from sinks import sql_sqlite
from tests.blocks import INT32, STRING, Source
from tests.contract.targets import AuditTarget, SearchTarget, started
from tests.sinks.audited import KINDS, Audited, fill


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(4, len(data) // 2):
        data[at] ^= 0xFF
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def take_a_column_out(path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(path).drop_columns(["who"]), path)


def retype(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    number = table.schema.get_field_index("seq")
    pq.write_table(table.set_column(number, "seq", table["seq"].cast(pa.string())), path)


def take_the_end_out(path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(path).slice(0, 2), path)


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (flip, "is damaged"),
        (cut, "is damaged, from record 1 on"),
        (empty, "is damaged, from record 1 on"),
        (take_a_column_out, "is damaged, from record 1 on: column who was taken out"),
        (retype, "column seq was taken out or has another type"),
        (take_the_end_out, "is damaged: it ends before record 3"),
    ],
)
def test_a_sealed_file_that_is_damaged_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
    harm: Callable[[Path], None], problem: str,
) -> None:  # fmt: skip
    target = AuditTarget(f"parquet:{tmp_path}/audit", **{"audit.parquet.rows": "2"})
    fill(target)
    (sealed,) = (tmp_path / "audit" / "audit").iterdir()
    harm(sealed)
    assert main(["audit", "verify", str(tmp_path / "audit"), "--json"]) == 1
    shown = capsys.readouterr()
    body = json.loads(shown.out)
    assert (body["ok"], shown.err) == (False, "")
    assert problem in body["problem"]
    assert str(sealed) in body["problem"]
    assert body["at"] in (1, 3)
    assert main(["audit", "query", str(tmp_path / "audit")]) == 1
    assert str(sealed) in capsys.readouterr().err
    with pytest.raises(SinkRejected, match="is damaged"):
        started(target)


def test_a_database_that_is_damaged_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "audit.db"
    fill(AuditTarget(f"jdbc:sqlite:{path}"))
    data = path.read_bytes()
    page = int.from_bytes(data[16:18], "big")
    at = data.rindex(b"apple cake") // page * page
    path.write_bytes(data[:at] + b"\xff" * page + data[at + page :])
    assert main(["audit", "verify", str(path), "--json"]) == 1
    body = json.loads(capsys.readouterr().out)
    assert "the table is damaged, or was altered: database disk image" in body["problem"]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Audited:
    """Three records, in a file of Parquet that is not sealed."""
    store = Audited(request.param, tmp_path / "audit", lambda: request.getfixturevalue("database"))
    fill(store.target())
    return store


@pytest.mark.parametrize(
    ("forged", "asked"),
    [
        ("lsn = lsn + 0.5", []),
        ("seq = NULL", None),
        ("lsn = NULL", []),
        ("after = 'oops'", ["--json"]),
        ("key = '{'", ["--key", "17"]),
        ("key = '[1]'", ["--key", "17"]),
    ],
)
def test_a_table_made_again_holds_what_no_sink_writes(
    store: Audited, capsys: pytest.CaptureFixture[str], forged: str, asked: list[str] | None
) -> None:
    """Without its types and constraints a value can be anything."""
    retyped = store.kind == "postgres" and "0.5" in forged  # the column, of all records
    for statement in (
        "CREATE TABLE forged AS SELECT * FROM audit",
        "DROP TABLE audit",
        "ALTER TABLE forged RENAME TO audit",
        *(["ALTER TABLE audit ALTER lsn TYPE numeric"] if retyped else []),
        f"UPDATE audit SET {forged} WHERE seq = 2",
    ):
        store.execute(statement)
    assert main(["audit", "verify", store.name, "--json"]) == 1
    shown = capsys.readouterr()
    body = json.loads(shown.out)
    assert (body["ok"], shown.err) == (False, "")
    assert "was altered" in body["problem"] or "is missing" in body["problem"]
    if asked is not None:
        assert main(["audit", "query", store.name, *asked]) == 1
        said = f"record {2 - retyped} was altered: it cannot be read. See cdc audit verify"
        assert said in capsys.readouterr().err


def test_a_file_that_was_cut_is_broken_and_one_in_use_is_locked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.db"
    fill(AuditTarget(f"jdbc:sqlite:{path}"))
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, timeout=0.1))
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        for action in ("verify", "query"):
            assert main(["audit", action, str(path)]) == 1
            assert f"{path} is locked by another program" in capsys.readouterr().err
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    for action in ("verify", "query"):
        assert main(["audit", action, str(path)]) == 1
        assert f"{path} is damaged: database disk image is malformed" in capsys.readouterr().err


def put(task: Any, block: Block) -> None:
    task.put(block)
    task.flush(block.offsets[-1] + 1)


@pytest.mark.parametrize("kind", ["audit", "search"])
def test_a_sink_that_waits_for_its_file_says_what_for(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_sqlite, "BUSY_TIMEOUT_MS", 50)
    path = tmp_path / f"{kind}.db"
    target: AuditTarget | SearchTarget = SearchTarget(tmp_path)
    if kind == "audit":
        target = AuditTarget(f"jdbc:sqlite:{path}")
    fill(target)
    for statements, said in (
        (["BEGIN IMMEDIATE"], r"SQLITE_BUSY. Another program holds its lock"),
        (["PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"], r"SQLITE_BUSY. Another program"),
    ):
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            for statement in statements:
                other.execute(statement)
            with pytest.raises(SinkError, match=said) as caught:
                started(target)
        assert caught.value.retriable
    task: Any = started(target)
    connection = task._store._connection if kind == "audit" else task._index._db
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    source = Source(offset=4)
    orders = source.table("orders", id=INT32, note=STRING)
    source.insert(orders, id=1, note="word " * 50_000)
    with pytest.raises(SinkError, match=r"SQLITE_FULL. Make room on its disk") as caught:
        put(task, source.block())
    assert caught.value.retriable
    path.write_bytes(path.read_bytes()[:6000])
    with pytest.raises(SinkRejected, match=r"SQLITE_CORRUPT\. (It is damaged|Name a new)"):
        started(target)
