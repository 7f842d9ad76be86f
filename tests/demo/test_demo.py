"""The demo, whole, as a child without a terminal; and that nothing is left behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from cdc.demo import shop
from cdc.demo.compare import Result
from cdc.demo.full import COPY_DB, FullDemo
from cdc.demo.readonly import BYTES_MAX, ROWS_MAX, Found, choose
from cdc.demo.stage import DemoFailed
from cdc.demo.workload import Workload
from tests.fix_postgres import StartPostgres

REPO = Path(__file__).parents[2]
TIME_LIMIT_S = 60
ESCAPE = "\x1b"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the demo's temporary folders go; the server's own user can enter it."""
    path = Path(tempfile.mkdtemp(prefix="demo-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cdc", "demo", *arguments]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder)}


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=REPO, env=environment(folder), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False,
    )  # fmt: skip


def left_behind(folder: Path) -> list[object]:
    """Processes with the folder in their environment, and what is in the folder."""
    deadline = time.monotonic() + 5
    while True:
        found: list[object] = list(folder.iterdir())
        for process in psutil.process_iter():
            try:
                if process.environ().get("TMPDIR") == str(folder):
                    found.append(process)
            except psutil.Error:
                continue
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def objects_at(dsn: str) -> tuple[int, int]:
    with psycopg.connect(dsn) as conn:
        row = conn.execute(
            "SELECT (SELECT count(*) FROM pg_replication_slots),"
            " (SELECT count(*) FROM pg_publication)"
        ).fetchone()
    assert row is not None
    return row[0], row[1]


@pytest.mark.slow
def test_the_whole_story_ends_with_no_difference_and_leaves_nothing(folder: Path) -> None:
    done = demo(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^ +differences: 0 ", done.stdout, re.MULTILINE)
    assert ESCAPE not in done.stdout
    assert "\r" not in done.stdout
    assert re.search(r"kill -9 \d+", done.stdout)
    assert re.search(r"goes on where it was, \d", done.stdout)
    made, stored = re.findall(
        r"changed by the shop ([\d,]+), changes in the journal ([\d,]+)", done.stdout
    )[0]
    assert made == stored
    for table in shop.TABLES:
        assert re.search(rf"^ +{table} +([\d,]+) +\1 +\d+ +0$", done.stdout, re.MULTILINE)
    assert left_behind(folder) == []


@pytest.mark.slow
def test_a_copy_that_differs_is_told_and_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compare = FullDemo._compare

    def spoil(self: FullDemo) -> list[Result]:
        with psycopg.connect(self._server.dsn(COPY_DB)) as conn:
            conn.execute("DELETE FROM products WHERE id = 17")
            conn.execute("UPDATE customers SET tags[1] = 'spoiled' WHERE id = 5")
        return compare(self)

    monkeypatch.setattr(FullDemo, "_compare", spoil)
    with pytest.raises(DemoFailed, match="2 rows, in customers, products"):
        FullDemo(2, None).run()
    shown = capsys.readouterr().out
    assert "DIFFERENT  customers (5): changed tags" in shown
    assert "DIFFERENT  products (17): missing" in shown
    assert "differences: 0" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing(folder: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        command(), cwd=REPO, env=environment(folder), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        for line in child.stdout:
            if "into the journal" in line:
                break
        child.send_signal(number)
        _, error = child.communicate(timeout=20)
    assert child.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert error == ""
    assert left_behind(folder) == []


@pytest.mark.slow
def test_keep_leaves_the_folder(folder: Path) -> None:
    kept = folder / "kept"
    done = demo(folder, "--keep", str(kept), "--seconds", "2")
    assert done.returncode == 0, done.stderr
    assert left_behind(folder) == [kept]
    assert {"data", "console.jsonl", "shop.json", "worker.log"} <= {p.name for p in kept.iterdir()}
    again = demo(folder, "--keep", str(kept))
    assert again.returncode == 2
    assert "is not empty" in again.stderr


# --- somebody's own database --------------------------------------------------------------


@pytest.mark.slow
def test_a_source_in_use_is_captured_and_nothing_stays_there(
    folder: Path, start_postgres: StartPostgres
) -> None:
    server = start_postgres()
    size = shop.create(server.dsn(), shop.Size(500, 200, 1_000))
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute("CREATE TABLE no_key (n int)")
        conn.execute('CREATE TABLE "Odd, name" (id int PRIMARY KEY, "a b" interval)')
        conn.execute("INSERT INTO \"Odd, name\" VALUES (1, '1 hour')")
    workload = Workload(server.dsn(), size, writers=1)
    workload.start()
    try:
        done = demo(folder, "--source", server.dsn(), "--seconds", "3")
    finally:
        workload.stop()
    workload.check()
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^ +differences: 0 ", done.stdout, re.MULTILINE)
    assert "not compared in Odd, name: a b" in done.stdout
    assert "no_key" not in done.stdout
    assert "SKU-" not in done.stdout  # a value of somebody's row
    assert "shop-secret" not in done.stdout
    name = re.findall(r"replication slot +(cdc_demo_\w+)", done.stdout)[0]
    assert f"dropped replication slot {name}" in done.stdout
    assert objects_at(server.dsn()) == (0, 0)
    assert left_behind(folder) == []


@pytest.mark.slow
def test_a_signal_drops_slot_and_publication(folder: Path, start_postgres: StartPostgres) -> None:
    server = start_postgres()
    shop.create(server.dsn(), shop.Size(500, 200, 1_000))
    with subprocess.Popen(
        command("--source", server.dsn()), cwd=REPO, env=environment(folder),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        for line in child.stdout:
            if "into the copy" in line:
                break
        assert objects_at(server.dsn()) == (1, 1)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=20)
    assert child.returncode == 130
    assert objects_at(server.dsn()) == (0, 0)
    assert left_behind(folder) == []


@pytest.mark.slow
def test_a_server_that_cannot_be_captured_is_told_apart(
    folder: Path, start_postgres: StartPostgres
) -> None:
    server = start_postgres(wal_level="replica")
    done = demo(folder, "--source", server.dsn())
    assert done.returncode == 1
    assert "wal_level is replica. ALTER SYSTEM SET wal_level = logical" in done.stderr
    done = demo(folder, "--source", server.dsn(password="wrong"))
    assert done.returncode == 1
    assert "password authentication failed" in done.stderr
    assert left_behind(folder) == []


def test_the_smallest_tables_are_taken_up_to_a_limit() -> None:
    small, large = Found("s", "small", 10, 100), Found("s", "large", ROWS_MAX, BYTES_MAX)
    assert choose([small, large], "") == ([small], [large])
    assert choose([small, large], r"S\.lar.*") == ([large], [])
