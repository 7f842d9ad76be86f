"""Chains that a replay or another name has left are kept, verified and found again."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cdc.__main__ import main
from cdc.errors import ConfigError, SinkRejected
from sinks.audit_parquet import ParquetStore
from tests.blocks import INT32, Source
from tests.contract.targets import started
from tests.forks import Fork, Tell
from tests.sinks.audited import KINDS, Audited, fill


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Audited:
    """Three records, in a file of Parquet that is not sealed."""
    store = Audited(request.param, tmp_path / "audit", lambda: request.getfixturevalue("database"))
    fill(store.target())
    return store


def replayed(store: Audited, epoch: int = 1) -> None:
    """From another place each time: what is the same has the same hashes."""
    source = Source(offset=epoch)
    items = source.table("items", id=INT32)
    source.begin()
    source.insert(items, id=epoch)
    source.message("cdc.audit", b'{"who":"ann"}')
    source.commit()
    fill(store.target(), source, offset=epoch, epoch=epoch)


def verified(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and what was said by table."""
    code = main(["audit", "verify", "--json", *arguments])
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return code, {body["table"]: body for body in said}


def test_a_hash_noted_before_a_replay_is_no_alarm(
    store: Audited, capsys: pytest.CaptureFixture[str]
) -> None:
    noted = verified(capsys, store.name)[1]["audit"]["last_hash"]
    replayed(store)
    replayed(store, epoch=2)
    code, said = verified(capsys, store.name, "--last-hash", noted)
    assert (code, list(said)) == (0, ["audit", "audit_r1", "audit_r2"])
    assert [body["ok"] for body in said.values()] == [True] * 3
    assert [body["in_use"] for body in said.values()] == [False, False, True]
    assert said["audit"]["records_since_last_hash"] == 0
    assert said["audit_r2"]["records_since_last_hash"] is None
    assert verified(capsys, store.name, "--last-hash", "0" * 63 + "1")[0] == 1
    assert verified(capsys, store.name, "--table", "audit_r1", "--last-hash", noted)[0] == 1


def test_a_chain_left_behind_is_verified_to_its_end(
    store: Audited, capsys: pytest.CaptureFixture[str]
) -> None:
    replayed(store)
    store.cut("audit", 3)
    code, said = verified(capsys, store.name)
    assert (code, said["audit"]["ok"], said["audit_r1"]["ok"]) == (1, False, True)
    problem = "the tail was removed: the sink wrote 3 records"
    if store.kind == "parquet":
        problem = "it ends before record 3"
    assert problem in said["audit"]["problem"]


def test_another_name_leaves_a_chain_too(
    store: Audited, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed = store.target(**{"audit.table": "fresh"})
    source = Source(offset=4)
    source.insert(source.table("items", id=INT32), id=1)
    fill(renamed, source)
    assert verified(capsys, store.name)[1].keys() == {"audit", "fresh"}
    with pytest.raises(ConfigError, match="holds the chain of copy"):
        started(store.target())
    store.cut("audit", 1)
    with pytest.raises(ConfigError, match="holds the chain of copy"):
        started(store.target())
    assert verified(capsys, store.name)[0] == 1


def test_a_query_says_where_the_other_records_are(
    store: Audited, capsys: pytest.CaptureFixture[str]
) -> None:
    replayed(store)
    assert main(["audit", "query", store.name, "--json", "--who", "ann"]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1
    assert "asked was audit_r1; other chains are in audit: --audit-table" in shown.err
    assert main(["audit", "query", store.name, "--audit-table", "audit"]) == 0
    assert capsys.readouterr().err == ""


def test_a_key_that_is_missing_is_no_forgery(
    store: Audited, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    key.write_text("right\n")
    keyed = {"audit.hash.key": "right", "audit.table": "keyed"}
    source = Source(offset=4)
    source.insert(source.table("items", id=INT32), id=1)
    fill(store.target(**keyed), source)
    fill(store.target(**keyed), offset=0, epoch=1)
    asked = ["audit", "verify", store.name, "--table"]
    for table in ("keyed_r1", "audit"):
        wrong = [] if table == "keyed_r1" else ["--key-file", str(key)]
        assert main([*asked, table, *wrong]) == 2
    store.execute("DELETE FROM cdc_audit")  # nothing says what key that chain has
    capsys.readouterr()
    assert main([*asked, "keyed_r1"]) == 2
    assert "no record fits without a key" in capsys.readouterr().err
    assert main([*asked, "keyed_r1", "--key-file", str(key)]) == 0
    assert "nothing says where it ended" in capsys.readouterr().out
    key.write_text("wrong")
    assert main([*asked, "keyed_r1", "--key-file", str(key)]) == 2
    key.write_text("right")
    store.execute("UPDATE keyed_r1 SET who = 'eve' WHERE seq = (SELECT min(seq) FROM keyed_r1)")
    assert main([*asked, "keyed_r1", "--key-file", str(key)]) == 1
    assert "record 1 was altered" in capsys.readouterr().out


def test_a_journal_offset_is_written_once(store: Audited) -> None:
    """A record that somebody put in for the next change is no reason to write that twice."""
    columns = "who, why, committed_at, lsn, txid, table_name, op, key, before, after, changed"
    store.execute(
        f"INSERT INTO audit (seq, journal, journal_offset, {columns}, previous_hash, hash)"
        f" SELECT 99, journal, 4, {columns}, previous_hash, hash FROM audit WHERE seq = 3"
    )
    source = Source(offset=4)
    source.insert(source.table("items", id=INT32), id=1)
    with pytest.raises(SinkRejected, match="cdc audit verify"):
        fill(store.target(), source)


def test_a_file_that_was_put_in_takes_no_record(tmp_path: Path) -> None:
    store = Audited("parquet", tmp_path / "audit")
    fill(store.target(**{"audit.parquet.rows": "2"}))
    source = Source(offset=4)
    source.insert(source.table("items", id=INT32), id=1)
    fill(store.target(), source)
    folder = store.path / "audit"
    (sealed,) = folder.iterdir()
    shutil.copy(sealed, folder / f"{4:012d}-{99:012d}.parquet")
    with pytest.raises(SinkRejected, match="holds records that the sink did not write"):
        started(store.target())
    with closing(sqlite3.connect(store.path / "open.db")) as db:
        assert db.execute("SELECT seq FROM audit").fetchall() == [(4,)]


# --- what a retired chain of Parquet had open ---


def in_open(store: Audited) -> set[str]:
    with closing(sqlite3.connect(store.path / "open.db")) as db:
        names = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return {name for (name,) in names if not name.startswith("cdc_audit")}


def files(store: Audited, table: str = "audit") -> list[str]:
    return sorted(file.name for file in (store.path / table).iterdir())


WHOLE = ["000000000001-000000000003.parquet"]


@pytest.fixture
def parquet(tmp_path: Path) -> Audited:
    pytest.importorskip("pyarrow.parquet")
    store = Audited("parquet", tmp_path / "audit")
    fill(store.target())
    return store


def test_what_a_chain_of_parquet_had_open_is_sealed_when_it_is_left(
    parquet: Audited, capsys: pytest.CaptureFixture[str]
) -> None:
    replayed(parquet)
    assert (files(parquet), in_open(parquet)) == (WHOLE, {"audit_r1"})
    source = Source(offset=9)
    source.insert(source.table("items", id=INT32), id=1)
    fill(parquet.target(**{"audit.table": "fresh"}), source)
    assert files(parquet, "audit_r1") == ["000000000001-000000000001.parquet"]
    assert in_open(parquet) == {"fresh"}
    code, said = verified(capsys, parquet.name)
    assert (code, [body["records"] for body in said.values()]) == (0, [3, 1, 1])


def test_what_an_older_version_left_open_is_sealed_at_the_next_start(
    parquet: Audited, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ParquetStore, "_settle", lambda self, old: None)
        replayed(parquet)
    assert in_open(parquet) == {"audit", "audit_r1"}
    task = started(parquet.target())
    task.tick()
    task.stop()
    assert (files(parquet), in_open(parquet)) == (WHOLE, {"audit_r1"})
    assert verified(capsys, parquet.name)[0] == 0


def _replay(tell: Tell, path: Path) -> None:
    replayed(Audited("parquet", path))
    tell("done")


@pytest.mark.parametrize("point", ["audit.seal.before_rename", "audit.seal.after_rename"])
def test_a_kill_while_it_is_sealed_loses_and_doubles_nothing(
    parquet: Audited, point: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Fork(_replay, parquet.path, points=f"{point}=kill") as fork:
        assert fork.end() == -9
    code, said = verified(capsys, parquet.name)
    assert (code, said["audit"]["records"]) == (0, 3)
    task = started(parquet.target())
    task.tick()
    task.stop()
    assert (files(parquet), in_open(parquet)) == (WHOLE, {"audit_r1"})
    assert verified(capsys, parquet.name)[0] == 0


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM audit WHERE seq = 3", "the tail was removed"),
        ("DELETE FROM audit WHERE seq = 2", "record 2"),
        ("UPDATE audit SET seq = 7 WHERE seq = 3", "record 3"),
    ],
)
def test_an_open_part_that_somebody_altered_stays_as_it_is_to_be_found(
    parquet: Audited, damage: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parquet.execute(damage)
    replayed(parquet)
    assert in_open(parquet) == {"audit", "audit_r1"}
    code, found = verified(capsys, parquet.name)
    assert (code, found["audit_r1"]["ok"]) == (1, True)
    assert said in found["audit"]["problem"]
