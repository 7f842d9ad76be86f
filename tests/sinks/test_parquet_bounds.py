"""Parquet: memory by bytes and not by rows, and no half file, whatever is killed when."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cdc
from cdc.api import Batch, Lane
from cdc.log import Journal
from tests.blocks import INT32, STRING, Source
from tests.contract.targets import AuditTarget, started
from tests.forks import Fork
from tests.sinks.history import history, run

ROOT = Path(cdc.__file__).parent.parent
parquet = pytest.importorskip("pyarrow.parquet")
WIDE = 40_000
GROUP_BYTES_MAX = 24 << 20  # the limit, and what the last rows may add to it


def wide(rows: int) -> Source:
    source = Source()
    table = source.table("wide", id=INT32, body=STRING)
    for number in range(rows):
        source.insert(table, id=number, body=f"{number:08}" * (WIDE // 8))
    return source


def raw_bytes(path: Path) -> list[int]:
    """Bytes of each row group, in memory."""
    table = parquet.ParquetFile(path)
    groups = range(table.metadata.num_row_groups)
    return [table.read_row_group(group).nbytes for group in groups]


def test_wide_audit_records_are_sealed_in_groups_of_bounded_bytes(tmp_path: Path) -> None:
    to = AuditTarget(f"parquet:{tmp_path}/audit", **{"audit.parquet.rows": "1500"})
    task = started(to)
    block = wide(1500).block()
    task.put(block)
    task.flush(len(block))
    task.stop()
    (sealed,) = (tmp_path / "audit" / "audit").glob("*.parquet")
    sizes = raw_bytes(sealed)
    assert sum(sizes) > 1500 * WIDE
    assert len(sizes) > 3
    assert max(sizes) < GROUP_BYTES_MAX
    assert len(to.records()) == 1500


def test_a_wide_export_is_written_in_groups_of_bounded_bytes(tmp_path: Path) -> None:
    path, target = tmp_path / "data" / "journal" / "shop", tmp_path / "out.parquet"
    with Journal.open(path) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        source = wide(0)
        table = source.table("wide", id=INT32, body=STRING)
        for number in range(20):
            for row in range(100):
                source.insert(table, id=number * 100 + row, body="x" * WIDE)
            journal.append(Batch(Lane.STREAM, {}, source.block()))
    assert export(tmp_path, target).wait() == 0
    sizes = raw_bytes(target)
    assert len(sizes) >= 4
    assert max(sizes) < GROUP_BYTES_MAX
    assert sum(parquet.ParquetFile(target).metadata.row_group(i).num_rows
               for i in range(len(sizes))) == 2000  # fmt: skip


def export(folder: Path, target: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cdc", "journal", "export", "shop"]
    return subprocess.Popen(
        [*command, "--data-dir", str(folder / "data"), "--output", str(target)],
        cwd=ROOT, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def test_an_export_that_is_killed_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path, target = tmp_path / "data" / "journal" / "shop", tmp_path / "out.parquet"
    source = Source()
    table = source.table("t", id=INT32)
    with Journal.open(path) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, None, close=True))
        for number in range(100):
            for row in range(2000):
                source.insert(table, id=number * 2000 + row)
            journal.append(Batch(Lane.STREAM, {}, source.block()))
    target.write_bytes(b"an earlier export")
    killed = 0
    for _ in range(3):
        process = export(tmp_path, target)
        while process.poll() is None and not list(tmp_path.glob(".out.parquet.*.part")):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += process.returncode == -signal.SIGKILL
        visible = [file.name for file in tmp_path.glob("[!.]*.parquet*")]
        assert visible == ["out.parquet"]
        assert target.read_bytes() == b"an earlier export" or killed < 3
    assert killed
    assert export(tmp_path, target).wait() == 0
    assert parquet.ParquetFile(target).metadata.num_rows == 200_000


def test_a_seal_that_is_killed_leaves_no_half_file_and_its_draft_goes(tmp_path: Path) -> None:
    arguments = "parquet", str(tmp_path / "audit"), history(11, 120).blocks
    with Fork(run, *arguments, points="audit.seal.before_rename=kill@2") as fork:
        assert fork.end() == -signal.SIGKILL
    folder = tmp_path / "audit" / "audit"
    assert [file.suffix for file in folder.iterdir()].count(".draft") == 1
    for file in folder.glob("*.parquet"):
        assert parquet.ParquetFile(file).metadata.num_rows > 0
    with Fork(run, *arguments) as fork:
        assert fork.end() == 0
    names = sorted(file.name for file in folder.iterdir())
    assert all(re.fullmatch(r"\d{12}-\d{12}\.parquet", name) for name in names)
