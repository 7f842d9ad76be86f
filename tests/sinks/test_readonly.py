"""Somebody who may only read can verify, query and search: with a sink at work and without."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.targets import AuditTarget, SearchTarget, started
from tests.runtime.workers import ROOT, environment
from tests.sinks.audited import fill, shop

PR_CAPBSET_DROP = 24
# Root may write where nobody may, unless it has lost these: CAP_DAC_OVERRIDE and _READ_SEARCH.
CAPABILITIES = (1, 2)
COMMANDS = {
    "verify": (["audit", "verify", "audit.db"], "the chain is whole"),
    "query": (["audit", "query", "audit.db", "--key", "17"], "insert public.orders"),
    "verify-parquet": (["audit", "verify", "parquet"], "the chain is whole"),
    "search": (["search", "search.db", "cake"], "apple [cake]"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    chmod(tmp_path, 0o700, 0o600)


def chmod(folder: Path, folders: int, files: int) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(folders if path.is_dir() else files)


def targets(folder: Path) -> list[AuditTarget | SearchTarget]:
    return [
        AuditTarget(f"jdbc:sqlite:{folder}/audit.db"),
        AuditTarget(f"parquet:{folder}/parquet", **{"audit.parquet.rows": "2"}),
        SearchTarget(folder),
    ]


def powerless() -> None:
    if os.getuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in CAPABILITIES:
            if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl")


def reader(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of somebody to whom the file permissions apply."""
    return subprocess.run(
        [sys.executable, "-m", "cdc", *arguments],
        cwd=folder, env={**environment(), "PYTHONPATH": str(ROOT)}, preexec_fn=powerless,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def state(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_without_rights_reads_and_leaves_nothing(folder: Path, command: str) -> None:
    arguments, said = COMMANDS[command]
    for target in targets(folder):
        fill(target)
    before = state(folder)
    chmod(folder, 0o555, 0o444)
    done = reader(folder, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout
    assert state(folder) == before


def test_a_sink_at_work_is_read_beside(folder: Path) -> None:
    tasks = [started(target) for target in targets(folder)]
    block = shop().block()
    for task in tasks:
        task.put(block)
        task.flush(block.offsets[-1] + 1)
    chmod(folder, 0o555, 0o444)
    try:
        for arguments, said in COMMANDS.values():
            done = reader(folder, *arguments)
            assert said in done.stdout, done.stderr
    finally:
        chmod(folder, 0o700, 0o600)
        for task in tasks:
            task.stop()


def test_an_index_that_may_not_be_read_is_still_one(folder: Path) -> None:
    fill(SearchTarget(folder))
    chmod(folder, 0o555, 0o000)
    done = reader(folder, "search", "search.db", "cake")
    assert (done.returncode, done.stdout) == (1, "")
    assert "search.db cannot be read: unable to open database file" in done.stderr
