"""A cut of an audit's target that takes the position with it: the sink has noted where it was."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cdc.__main__ import main
from cdc.api import SinkContext
from cdc.runtime.offsets import Offsets, witness_in
from cdc.runtime.state import DataDir
from sinks.audit_marks import target_name
from tests.blocks import INT32, Source
from tests.sinks.audited import KINDS, Audited, shop


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return DataDir(tmp_path / "data")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, data: DataDir) -> Audited:
    store = Audited(request.param, tmp_path / "audit", lambda: request.getfixturevalue("database"))
    fill(store, data)
    return store


def fill(store: Audited, data: DataDir, source: Source | None = None, **seek: int) -> None:
    """As the runtime runs a sink: what it has noted is kept with the position, and given back."""
    block = (source or shop()).block()
    offsets = Offsets(data.sink("copy"))
    task = store.target().task()
    try:
        task.start(SinkContext("copy", data.path, witness=offsets.witness()))
        if seek:
            task.seek(seek["offset"], seek["epoch"])
        at = task.stored_offset() or 0
        rest = [row for row, offset in enumerate(block.offsets) if offset >= at]
        if rest:
            task.put(block.select(rest))
            task.flush(block.offsets[-1] + 1)
        offsets.store({"shop": block.offsets[-1] + 1}, None, task.witness())
    finally:
        task.stop()
        offsets.close()


def more(offset: int = 4) -> Source:
    source = Source(offset=offset)
    items = source.table("items", id=INT32)
    for number in range(3):
        source.insert(items, id=number)
    return source


def verified(
    store: Audited, data: DataDir, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, dict[str, Any]]:
    """With the data folder: the exit code, and what was said by table."""
    arguments = ["audit", "verify", "--json", store.name, "--data-dir", str(data.path), *more]
    code = main(arguments)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return code, {body["table"]: body for body in said}


def cut(store: Audited, seq: int) -> None:
    """The records from ``seq`` on, and the position set back to the one before."""
    store.execute(f"DELETE FROM audit WHERE seq >= {seq}")
    store.execute(
        f"UPDATE cdc_audit SET seq = {seq - 1}, hash = (SELECT hash FROM audit WHERE seq ="
        f" {seq - 1}), next_offset = (SELECT journal_offset + 1 FROM audit WHERE seq = {seq - 1})"
    )


def test_a_whole_chain_is_what_the_sink_has_noted(
    store: Audited, data: DataDir, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = verified(store, data, capsys)
    assert (code, said["audit"]["noted_by_sink"]) == (0, 3)
    fill(store, data, more())
    code, said = verified(store, data, capsys)
    assert (code, said["audit"]["noted_by_sink"]) == (0, 6)
    assert main(["audit", "verify", store.name, "--data-dir", str(data.path)]) == 0
    assert "noted in its own store: record 6" in capsys.readouterr().out


def test_a_tail_that_was_removed_with_its_position_is_found_with_the_data_folder_only(
    store: Audited, data: DataDir, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cut(store, 3)
    elsewhere = str(tmp_path / "none")
    assert main(["audit", "verify", store.name, "--data-dir", elsewhere]) == 0
    capsys.readouterr()
    code, said = verified(store, data, capsys)
    assert (code, said["audit"]["at"]) == (1, 3)
    assert "the sink has noted record 3, the last one here is 2" in said["audit"]["problem"]


def test_records_that_the_sink_writes_again_after_a_cut_are_whole(
    store: Audited, data: DataDir, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(store, 3)
    fill(store, data)  # the journal still has them
    assert verified(store, data, capsys)[0] == 0
    fill(store, data, more())
    marks = json.loads(witness_in(data.sink("copy")) or "")["marks"]
    assert [seq for seq, _ in marks["audit"]] == [6]


def test_a_cut_is_found_though_the_sink_has_gone_on_from_it(
    store: Audited,
    data: DataDir,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    cut(store, 3)
    store.execute("UPDATE cdc_audit SET next_offset = 4")  # so that they are not written again
    for offset in (4, 7):
        fill(store, data, more(offset))
        assert "record 3 of table audit, which the target had taken" in caplog.text
        code, said = verified(store, data, capsys)
        assert (code, said["audit"]["at"]) == (1, 3)
        assert "the chain was written anew: record 3" in said["audit"]["problem"]


def test_chains_that_replays_have_left_are_compared_too(
    store: Audited, data: DataDir, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(store, data, more(), offset=4, epoch=1)
    code, said = verified(store, data, capsys)
    assert code == 0
    assert {table: body["noted_by_sink"] for table, body in said.items()} == {
        "audit": 3, "audit_r1": 3,
    }  # fmt: skip
    store.execute("DROP TABLE cdc_audit_retired")
    if store.kind == "parquet":
        shutil.rmtree(store.path / "audit")
    else:
        store.execute("DROP TABLE audit")
    assert main(["audit", "verify", store.name, "--data-dir", "/nowhere"]) == 0
    capsys.readouterr()
    code, said = verified(store, data, capsys)
    assert (code, said["audit_r1"]["ok"]) == (1, True)
    assert "the table was dropped: the sink has noted record 3" in said["audit"]["problem"]


def test_a_copy_of_the_target_and_another_sinks_notes_are_not_compared(
    tmp_path: Path, data: DataDir, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backup of a target is behind what was noted since, and that is no forgery."""
    store = Audited("sqlite", tmp_path / "audit")
    fill(store, data)
    with closing(sqlite3.connect(store.path)) as db, closing(sqlite3.connect(tmp_path / "b")) as b:
        db.backup(b)
    fill(store, data, more())
    assert main(["audit", "verify", str(tmp_path / "b"), "--data-dir", str(data.path)]) == 0
    assert "has noted anything of this target" in capsys.readouterr().err


def test_a_store_of_an_older_version_has_noted_nothing(
    tmp_path: Path, data: DataDir, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Audited("sqlite", tmp_path / "audit")
    fill(store, data)
    with closing(sqlite3.connect(data.sink("copy"))) as db:
        db.execute("DROP TABLE witness")
    code, said = verified(store, data, capsys)
    assert (code, said["audit"]["noted_by_sink"]) == (0, None)
    fill(store, data, more())
    assert verified(store, data, capsys)[1]["audit"]["noted_by_sink"] == 6


def test_notes_that_cannot_be_read_are_named_and_the_chain_is_verified_without(
    tmp_path: Path, data: DataDir, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Audited("sqlite", tmp_path / "audit")
    fill(store, data)
    data.sink("copy").write_bytes(b"no database" * 100)
    assert main(["audit", "verify", store.name, "--data-dir", str(data.path)]) == 0
    shown = capsys.readouterr()
    assert "the chain is whole" in shown.out
    assert "not compared with what sinks have noted:" in shown.err


def test_a_target_is_the_same_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    same = ["audit.db", f"jdbc:sqlite:{tmp_path}/audit.db", f"sqlite:///{tmp_path}/x/../audit.db"]
    assert {target_name(text) for text in same} == {f"{tmp_path}/audit.db"}
    assert target_name("parquet:audit") == target_name(f"{tmp_path}/audit/")
    same = ["jdbc:postgresql://127.0.0.1/a?user=u", "postgresql://u:p@localhost:5432/a"]
    assert len({target_name(text) for text in same}) == 1
    assert target_name("postgresql://h/a") != target_name("postgresql://h:5433/a")
