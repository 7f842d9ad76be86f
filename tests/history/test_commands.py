"""cdc history, cdc tail and cdc journal export: what they print, refuse and return."""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cdc.api import Batch, Lane
from cdc.block import Block
from cdc.errors import ConfigError
from cdc.history import export
from cdc.log import Journal
from cdc.log.files import listing
from tests.blocks import INT32, STRING, Source, decimal, event_schema, optional, unscaled
from tests.guard import guarded
from tests.runtime.workers import ROOT, cdc, environment
from tests.unchanged import unchanged

ORDERS = event_schema(
    "orders", {"id": INT32, "status": optional(STRING), "total": decimal(10, 2), "big": STRING}
)
OTHER = event_schema("other", {"id": INT32, "status": optional(STRING)})


def changes() -> Iterator[Block]:
    source = Source()
    source.insert(ORDERS, id=42, status="new\x1b[31m", total=unscaled(1250), big="long")
    source.insert(OTHER, id=1, status="x")
    yield source.block()
    source.update(ORDERS, unchanged=["big"], id=42, status="paid", total=unscaled(1250))
    yield source.block()
    source.delete(ORDERS, id=42, status="paid", total=unscaled(1250), big="long")
    yield source.block()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with one journal of three changes of a row, in segments of their own."""
    with Journal.open(tmp_path / "data" / "journal" / "shop", segment_bytes=1) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        for block in changes():
            journal.append(Batch(Lane.STREAM, {"lsn": 10**7, "timeline": 1}, block))
    return tmp_path / "data"


def test_every_version_is_shown(data: Path) -> None:
    done = cdc("history", "orders", "42", "--data-dir", data)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == ["0", "2", "3"]
    assert "tx 701  create  public.orders" in lines[0]
    assert "  changed: status" in lines
    assert "delete" in lines[-1]


def test_a_diff_shows_before_and_after_and_obeys_no_value(data: Path) -> None:
    done = cdc("history", "orders", "id=42", "--diff", "--data-dir", data)
    assert "\x1b" not in done.stdout
    assert '  + total: "12.50"' in done.stdout
    assert '  status: "new\\u001b[31m" → "paid"' in done.stdout
    assert '  - big: "long"' in done.stdout


def test_versions_as_json(data: Path) -> None:
    done = cdc(
        "history", "orders", '{"id":42}', "--json", "--columns", "status", "--data-dir", data
    )
    versions = [json.loads(line) for line in done.stdout.splitlines()]
    assert [v["row"] for v in versions] == [{"status": "new\x1b[31m"}, {"status": "paid"}, None]
    assert [v["changed"] for v in versions] == [["status"], ["status"], []]


def test_the_row_as_it_was(data: Path) -> None:
    def at(point: str) -> subprocess.CompletedProcess[str]:
        return cdc("history", "orders", "42", "--at", point, "--json", "--data-dir", data)

    versions = cdc("history", "orders", "42", "--json", "--data-dir", data).stdout.splitlines()
    lsn = json.loads(versions[1])["lsn"]
    for point in (lsn, "2", json.loads(versions[1])["time"]):
        row = {"id": 42, "status": "paid", "total": "12.50", "big": "long"}
        assert json.loads(at(point).stdout)["row"] == row
    gone = at("3")
    assert (gone.returncode, gone.stderr) == (1, "no row orders 42 at 3: delete\n")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["ordes", "42"], 2, "no table ordes. Did you mean public.orders?"),
        (["orders", "x"], 2, "id: 'x' is no int32"),
        (["orders", "42", "--columns", "statsu"], 2, "no column statsu. Did you mean status?"),
        (["orders", "42", "--at", "soon"], 2, "--at: 'soon' is no place in a journal"),
        (["orders", "42", "--at", "FFFF/0"], 2, "FFFF/0 is not in journal shop. It holds"),
        (["orders", "42", "--at", "1999-01-01"], 2, "The oldest commit there is: 2023-"),
        (["orders", "42", "--at", "1", "--diff"], 2, "--at shows one row"),
        (["orders", "43"], 1, "the journal has no version of orders 43"),
        (["orders", "42", "--source", "shp"], 2, "There are: shop."),
    ],
)
def test_what_cannot_be_answered_is_said(
    data: Path, arguments: list[str], code: int, text: str
) -> None:
    with unchanged(data):
        done = cdc("history", *arguments, "--data-dir", data)
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert done.stdout == ""


def test_the_source_is_asked_for_where_there_are_several(data: Path, tmp_path: Path) -> None:
    (data / "journal" / "second").mkdir()
    failed = cdc("history", "orders", "42", "--data-dir", data)
    assert failed.returncode == 2
    assert "there are several journals: second, shop" in failed.stderr
    assert cdc("history", "orders", "42", "--data-dir", data, "--source", "shop").returncode == 0
    none = cdc("tail", "--data-dir", tmp_path / "none")
    assert none.returncode == 2
    assert "has no journal" in none.stderr


def test_a_damaged_segment_is_named_and_the_rest_is_shown(data: Path) -> None:
    path = data / "journal" / "shop"
    victim = next(entry for entry in listing(path) if entry.lane == 1)
    with closing(sqlite3.connect(path / victim.file)) as db, db:
        db.execute("UPDATE blocks SET body = zeroblob(length(body))")
    done = cdc("history", "orders", "42", "--data-dir", data)
    assert done.returncode == 1
    assert done.stderr.count(victim.file) == 1
    assert "update" in done.stdout


def test_tail_filters_and_formats(data: Path) -> None:
    def tail(*arguments: str) -> list[str]:
        done = cdc("tail", "--data-dir", data, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert len(tail()) == 4
    assert [line.split()[0] for line in tail("-n", "2")] == ["2", "3"]
    (update,) = tail("--where", "op == 'u' and after.total == 12.5 and after.big is null")
    assert update.endswith('update public.orders {"id":42} id=42 status="paid" total="12.50"')
    assert len(tail("--tables", "public\\.or.*", "--from", "beginning")) == 3
    assert len(tail("--from", "0")) == 4
    assert len(tail("--from", "2023-11-14T22:25:03Z")) == 2
    (value,) = map(json.loads, tail("--from", "3", "--format", "value"))
    assert value["op"] == "d"
    (record,) = map(json.loads, tail("--from", "3", "--format", "record"))
    assert record["key"] == {"id": 42}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--where", "op = 'u'"], "--where: at character 4"),
        (["--tables", "("], "--tables: '(' is no regular expression"),
        (["--from", "never"], "--from: 'never' is no place in a journal"),
        (["--lines", "-1"], "--lines: -1 is less than 0"),
        (
            ["--tables", "public\\.ordes"],
            "fits no table of the journal. Did you mean public.orders",
        ),
        (["--tables", "orders"], "--tables: orders fits no table of the journal. Did you mean"),
    ],
)
def test_tail_refuses(data: Path, arguments: list[str], text: str) -> None:
    with unchanged(data):
        done = cdc("tail", "--data-dir", data, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--where", "after.statsu == 'paid' or after['status'] == 'x'"],
         "no table of the journal has a column statsu. Did you mean status"),
        (["--where", "before.total > 1", "--tables", "public\\.other"],
         "no table public\\.other has a column total"),
        (["--where", "key.ID == 42 and op == 'u'"], "has a column ID. There are: big, id, "),
        (["--where", "after.total > 1 and key.id == 1 and lsn > '0/1'"], ""),
    ],
)  # fmt: skip
def test_a_column_that_no_table_has_is_said(data: Path, arguments: list[str], said: str) -> None:
    """It is null then, as the column of another table is, so nothing is refused."""
    done = cdc("tail", "--data-dir", data, *arguments)
    assert done.returncode == 0
    assert done.stderr.startswith("warning: --where: ") if said else not done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == bool(said)


def test_tail_follows_until_it_is_stopped(data: Path) -> None:
    command = [sys.executable, "-m", "cdc", "tail", "-f", "-n", "0", "--data-dir", str(data)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        guarded(process)
        assert process.stdout is not None
        source = Source()
        with Journal.open(data / "journal" / "shop") as journal:
            lines: list[str] = []
            while not lines:  # until it has begun to follow
                source.insert(OTHER, id=7, status="later")
                journal.append(Batch(Lane.STREAM, {}, source.block()))
                assert process.poll() is None
                if select.select([process.stdout], [], [], 0.2)[0]:
                    lines.append(process.stdout.readline())
        assert "create public.other" in lines[0]
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(30) == 0


def test_export_as_json_lines_is_what_the_console_writes(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("old")
    arguments = ("journal", "export", "shop", "--data-dir", data, "--output", target)
    done = cdc(*arguments, "--tables", "public\\.orders")
    assert done.stdout == f"3 events written to {target}\n", done.stderr
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [line["value"] and line["value"]["op"] for line in lines] == ["c", "u", "d", None]
    assert {file.name for file in tmp_path.iterdir()} == {"data", "out.jsonl"}
    with unchanged(tmp_path):
        failed = cdc(*arguments, "--from", "3", "--to", "1")
    assert (failed.returncode, "offset 1 is before offset 3" in failed.stderr) == (2, True)
    assert len(target.read_text().splitlines()) == 4


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("1", "3"),
        ("0/1E8870", "0/2DCAB8"),  # the commits of 1 and 2: the end's transaction is in it
        ("2023-11-14T22:25:02Z", "2023-11-14T22:25:04Z"),  # the first after it is not
    ],
    ids=["offset", "lsn", "time"],
)
def test_export_takes_what_lies_between_two_places(
    data: Path, tmp_path: Path, start: str, end: str, suffix: str
) -> None:
    target = tmp_path / f"out.{suffix}"
    done = cdc("journal", "export", "shop", "--data-dir", data, "--output", target,
               "--from", start, "--to", end)  # fmt: skip
    assert done.stdout == f"2 events written to {target}\n", done.stderr
    if suffix == "jsonl":
        values = [json.loads(line)["value"] for line in target.read_text().splitlines()]
        found = [(value["source"]["table"], value["op"]) for value in values]
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(target).to_pylist()
        assert [row["offset"] for row in rows] == [1, 2]
        found = [(row["table"].removeprefix("public."), row["op"]) for row in rows]
    assert found == [("other", "c"), ("orders", "u")]


def test_export_of_no_table_leaves_the_file_as_it_was(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("old")
    arguments = ("journal", "export", "shop", "--data-dir", data, "--output", target)
    with unchanged(tmp_path):
        done = cdc(*arguments, "--tables", "public\\.ordes")
    assert (done.returncode, done.stdout) == (2, "")
    assert "fits no table of the journal. Did you mean public.orders" in done.stderr
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == {
        "out.jsonl": b"old"
    }
    assert cdc(*arguments, "--tables", "public\\.\\p{Lower}+").stdout.startswith("4 events")


def test_following_a_table_that_is_not_there_yet_is_said(data: Path) -> None:
    command = [sys.executable, "-m", "cdc", "tail", "-f", "--tables", "public\\.later",
               "--data-dir", str(data)]  # fmt: skip
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        guarded(process)
        assert process.stderr is not None
        assert "warning: --tables: public\\.later fits no table" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_export_into_a_folder_that_is_not_there_changes_nothing(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "none" / "out.jsonl"
    done = cdc("journal", "export", "shop", "--data-dir", data, "--output", target)
    assert done.returncode == 1
    assert f"{target} cannot be written: No such file" in done.stderr


def test_export_to_a_pipe(data: Path, tmp_path: Path) -> None:
    """The standard output is written to, by whatever name; what is no file is not replaced."""
    arguments = ("journal", "export", "shop", "--data-dir", data, "--tables", "public\\.orders")
    done = cdc(*arguments, "--output", "-")
    assert (done.returncode, done.stderr) == (0, "")
    target = tmp_path / "out.jsonl"
    assert cdc(*arguments, "--output", target).returncode == 0
    assert done.stdout == target.read_text()
    done = cdc(*arguments, "--output", "-", "--format", "parquet")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Parquet is written to a file" in done.stderr
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = cdc(*arguments, "--output", pipe)
    assert (done.returncode, pipe.is_fifo()) == (2, True)
    assert "- is the standard output" in done.stderr
    link = tmp_path / "link.jsonl"
    link.symlink_to(target)
    target.write_text("old")
    assert cdc(*arguments, "--output", link).returncode == 0
    assert link.is_symlink()
    assert len(target.read_text().splitlines()) == 4


def test_export_as_parquet(data: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    target = tmp_path / "out.parquet"
    done = cdc("journal", "export", "shop", "--data-dir", data, "--output", target)
    assert done.stdout.startswith("4 events"), done.stderr
    rows = parquet.read_table(target).to_pylist()
    assert [row["offset"] for row in rows] == [0, 1, 2, 3]
    assert [row["op"] for row in rows] == list("ccud")
    assert rows[1]["table"] == "public.other"
    assert json.loads(rows[0]["after"])["id"] == 42
    assert rows[0]["commit_time"].isoformat() == "2023-11-14T22:25:01+00:00"
    assert rows[3]["after"] is None


def test_parquet_without_pyarrow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'cdc-engine\[parquet\]'"):
        export._pyarrow()


def test_what_retention_has_taken_is_said(data: Path) -> None:
    """Its journal is that of three changes of order 42, at offsets 0, 2 and 3; 1 is another's."""
    whole = cdc("history", "orders", "42", "--data-dir", data)
    assert whole.stderr == ""
    with Journal.open(data / "journal" / "shop") as journal:
        assert journal.prune(2)
    said = "note: retention has taken what the journal had before offset 2 (2023-11-14T"
    pruned = cdc("history", "orders", "42", "--json", "--data-dir", data)
    assert pruned.returncode == 0
    assert pruned.stderr.startswith(said)
    assert [json.loads(line)["offset"] for line in pruned.stdout.splitlines()] == [2, 3]
    none = cdc("history", "orders", "41", "--data-dir", data)
    assert (none.returncode, none.stdout) == (1, "")
    assert said in none.stderr
    assert "the journal has no version of orders 41" in none.stderr


def test_a_row_of_which_retention_may_have_taken_all_is_not_said_to_have_been_none(
    data: Path,
) -> None:
    path = data / "journal" / "shop"

    def at(point: str) -> subprocess.CompletedProcess[str]:
        return cdc("history", "orders", "41", "--at", point, "--data-dir", data)

    assert at("2").stderr == "no row orders 41 at 2: there was none yet\n"
    with Journal.open(path) as journal:
        assert journal.prune(2)
    done = at("2")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the journal does not know what this row was at 2: retention has taken" in done.stderr
    source = Source(offset=4)
    source.read(ORDERS, id=7, status="", total=unscaled(1), big="")
    with Journal.open(path) as journal:
        journal.append(Batch(Lane.STREAM, {}, None, close=True))
        journal.append(Batch(Lane.SNAPSHOT, {"whole": True}, source.block(), close=True))
    assert "does not know" in at("2").stderr
    assert at("4").stderr == "no row orders 41 at 4: there was none yet\n"  # all were read then
