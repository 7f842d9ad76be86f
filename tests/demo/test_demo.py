"""The demo, whole, as a child without a terminal; and that nothing is left behind."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest

from cdc.demo import shop
from cdc.demo.compare import Result
from cdc.demo.full import COPY_DB, FullDemo
from cdc.demo.readonly import BYTES_MAX, ROWS_MAX, Found, choose
from cdc.demo.show import Show
from cdc.demo.stage import DemoFailed, Stage, patience
from cdc.demo.uses import Order, Uses
from cdc.demo.workload import Tally, Workload
from tests.fix_postgres import StartPostgres

REPO = Path(__file__).parents[2]
TIME_LIMIT_S = 60
ESCAPE = "\x1b"


@contextmanager
def new_folder() -> Iterator[Path]:
    """Where the demo's temporary folders go; the server's own user can enter it."""
    path = Path(tempfile.mkdtemp(prefix="demo-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cdc", "demo", *arguments]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder)}


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=REPO, env=environment(folder), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=patience(TIME_LIMIT_S), check=False,
    )  # fmt: skip


def left_behind(folder: Path, *expected: Path) -> list[object]:
    """Processes with the folder in their environment, and what is in the folder."""
    deadline = time.monotonic() + 5
    while True:
        found: list[object] = [path for path in folder.iterdir() if path not in expected]
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


def rows_written(dsn: str) -> dict[str, tuple[int, int, int]]:
    """Rows inserted, updated and deleted per table, since it was made.

    A session's counts are there once it has gone.
    """
    others = (
        "SELECT 1 FROM pg_stat_activity"
        " WHERE backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid()"
    )
    deadline = time.monotonic() + patience(20)
    with psycopg.connect(dsn, autocommit=True) as conn:
        while conn.execute(others).fetchone():
            assert time.monotonic() < deadline, "somebody is still connected"
            time.sleep(0.05)
        query = "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables"
        return {name: (i, u, d) for name, i, u, d in conn.execute(query)}


# --- the whole story ----------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """One run with --keep."""

    done: subprocess.CompletedProcess[str]
    folder: Path
    left: list[object]

    @property
    def kept(self) -> Path:
        return self.folder / "kept"

    def numbers(self, pattern: str) -> tuple[int, ...]:
        found = re.search(pattern, self.done.stdout)
        assert found, pattern
        return tuple(int(text.replace(",", "")) for text in found.groups())


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    with new_folder() as folder:
        done = demo(folder, "--keep", str(folder / "kept"), "--seconds", "3")
        yield Told(done, folder, left_behind(folder, folder / "kept"))


@pytest.mark.slow
def test_the_whole_story_ends_with_no_difference(told: Told) -> None:
    shown = told.done.stdout
    assert (told.done.returncode, told.done.stderr) == (0, "")
    assert re.search(r"^ +differences: 0 ", shown, re.MULTILINE)
    assert ESCAPE not in shown
    assert "\r" not in shown
    assert re.search(r"kill -9 \d+", shown)
    assert re.search(r"goes on where it was, \d", shown)
    made, stored = told.numbers(r"changed by the shop ([\d,]+), changes in the journal ([\d,]+)")
    assert made == stored
    for table in shop.TABLES:
        assert re.search(rf"^ +{table} +([\d,]+) +\1 +\d+ +0$", shown, re.MULTILINE)


def seen_on_a_terminal(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and all that was drawn, of a run whose streams are a terminal."""
    ours, theirs = pty.openpty()
    environ = {**environment(folder), "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(
        command(*arguments), cwd=REPO, env=environ, stdin=theirs, stdout=theirs, stderr=theirs
    ) as child:
        os.close(theirs)
        drawn = bytearray()
        try:
            while piece := os.read(ours, 65536):
                drawn += piece
        except OSError:  # EIO: nobody holds the other side any more
            pass
        os.close(ours)
    return child.returncode, drawn.decode()


@pytest.mark.slow
def test_on_a_terminal_it_draws_bars_and_events_within_a_minute(folder: Path) -> None:
    began, limit_s = time.monotonic(), patience(TIME_LIMIT_S)
    code, drawn = seen_on_a_terminal(folder)
    took_s = time.monotonic() - began
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
    assert code == 0, plain[-3000:]
    assert took_s < limit_s
    for place in ("journal", "copy", "console", "audit", "search"):
        assert re.search(rf"the {place} +━+ +100%", plain), place
    # which of them is drawn half-way depends on how fast the machine is
    assert re.search(r"the \w+ +[━╸╺]+ +[1-9]\d?%", plain), "they grow"
    event = r"\d\d:\d\d:\d\d\.\d{3}  (create|update|delete) +\w+ +\w+="
    assert len(re.findall(event, plain)) > 10
    assert re.search(r"kill -9 \d+", plain)
    assert re.search(r"differences: 0 ", plain)
    assert left_behind(folder) == []


@pytest.mark.slow
def test_the_story_shows_what_the_journal_is_for(told: Told) -> None:
    shown = told.done.stdout
    assert "$ cdc search search.db 'chloe garcia'" in shown
    assert "[Chloé] [García] customer2@example.com" in shown
    assert re.search(r'status: "placed" → "paid"', shown)
    assert re.search(r"insert public.orders .* by unknown$", shown, re.MULTILINE)
    assert "by pia@shop.example, parcels" in shown
    assert re.search(r"shop\.message  \d+ rows", shown)
    assert re.search(r"--from [0-9A-F]+/[0-9A-F]+ --into again", shown)
    since, again = told.numbers(r"changed since [0-9A-F/]+ ([\d,]+), in search-again.db ([\d,]+)")
    assert since == again > 0
    said, stored = told.numbers(r"who and why ([\d,]+), such messages in the journal ([\d,]+)")
    assert said == stored > 0
    changes, records = told.numbers(r"in the journal ([\d,]+), audit records ([\d,]+);")
    assert changes == records
    signed, named = told.numbers(r"somebody's name ([\d,]+), records that say so ([\d,]+)")
    assert 0 < signed == named < records
    altered, whole = told.numbers(
        r"BROKEN: record (\d+) was altered[^\n]*\n +whole up to record (\d+)"
    )
    assert whole == altered - 1


@pytest.mark.slow
def test_keep_leaves_the_folder_and_no_process(told: Told) -> None:
    assert told.left == []
    names = {path.name for path in told.kept.iterdir()}
    assert {"data", "console.jsonl", "shop.json", "worker.log", "audit.db", "search.db"} <= names
    again = demo(told.folder, "--keep", str(told.kept))
    assert again.returncode == 2
    assert "is not empty" in again.stderr


@pytest.mark.slow
def test_what_does_not_hold_is_a_failure(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    changes, signed = told.numbers(
        r"audit records ([\d,]+); rows changed in somebody's name ([\d,]+)"
    )
    uses = Uses(Show(), Stage(told.kept), "postgresql://nobody@localhost:1/none")
    tally = Tally(signed=signed)
    uses._verify(tally, changes)
    with pytest.raises(DemoFailed, match=f"{changes} audit records of {changes + 1} changes"):
        uses._verify(tally, changes + 1)
    with pytest.raises(DemoFailed, match=f"{signed} records name who, of {signed + 1}"):
        uses._verify(Tally(signed=signed + 1), changes)
    (told.kept / "forged.db").unlink()
    with pytest.raises(DemoFailed, match="exit code 0"):
        uses._forge(Order(1, 1, last_seq=changes + 1))  # alters nothing
    with closing(sqlite3.connect(told.kept / "audit.db")) as db, db:
        db.execute("DELETE FROM audit WHERE seq = 7")
    with pytest.raises(DemoFailed, match="exit code 1"):
        uses._verify(tally, changes)
    assert "record 7 is missing" in capsys.readouterr().out


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
    monkeypatch.setattr(Uses, "run", lambda *_: None)
    with pytest.raises(DemoFailed, match="2 rows, in customers, products"):
        FullDemo(2, None).run()
    shown = capsys.readouterr().out
    assert "DIFFERENT  customers (5): changed tags" in shown
    assert "DIFFERENT  products (17): missing" in shown
    assert "differences: 0" not in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGINT, "into the journal"), (signal.SIGTERM, "--into again")],
)
def test_a_signal_in_the_middle_leaves_nothing(
    folder: Path, number: signal.Signals, moment: str
) -> None:
    with subprocess.Popen(
        command("--seconds", "2"), cwd=REPO, env=environment(folder), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        for line in child.stdout:
            if moment in line:
                break
        child.send_signal(number)
        _, error = child.communicate(timeout=patience(20))
    assert child.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert error == ""
    assert left_behind(folder) == []


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
    # of the tables that the workload leaves alone
    written = rows_written(server.dsn())
    assert (written["Odd, name"], written["no_key"]) == ((1, 0, 0), (0, 0, 0))
    name = re.findall(r"replication slot +(cdc_demo_\w+)", done.stdout)[0]
    assert f"dropped replication slot {name}" in done.stdout
    assert objects_at(server.dsn()) == (0, 0)
    assert left_behind(folder) == []


@pytest.mark.slow
def test_a_signal_drops_slot_and_publication(folder: Path, start_postgres: StartPostgres) -> None:
    server = start_postgres()
    shop.create(server.dsn(), shop.Size(500, 200, 1_000))
    before = rows_written(server.dsn())
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
        child.communicate(timeout=patience(20))
    assert child.returncode == 130
    assert objects_at(server.dsn()) == (0, 0)
    assert rows_written(server.dsn()) == before
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
