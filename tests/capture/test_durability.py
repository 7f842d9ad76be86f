"""What a capture confirms is on disk: its output, then its state, seen in system calls.

As a program it is a capture: ``python -m tests.capture.test_durability broken URL …`` runs
one with fsync switched off, which has to be found out.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import orjson
import pytest

from tests import syscalls
from tests.capture.commands import ROOT, command, is_streaming, lines, until
from tests.fix_postgres import Database
from tests.guard import guarded
from tests.syscalls import Disk, Seen

POSITIONS = ("snapshot_position", "stream_position")
STANDBY_STATUS_BYTES = 39  # CopyData with 'r': see the protocol's "Standby status update"


def confirmations(seen: Iterable[Seen], disk: Disk, state: Path) -> tuple[int, list[str]]:
    """How many rising LSNs were confirmed, and what was wrong with them."""
    highest = count = 0
    saved, durable, wrong = 0, 0, list[str]()
    for call in seen:
        data = call.data
        if call.path == str(state) + ".part" and call.call == "write":
            lanes = orjson.loads(data)["lanes"]
            saved = max((p or {}).get("lsn", 0) for p in map(lanes.get, POSITIONS))
        elif call.path == str(state.parent) and call.call == "fsync":
            durable = saved
        is_status = call.call in ("sendto", "write") and len(data) == STANDBY_STATUS_BYTES
        if is_status and data[:1] == b"d" and data[5:6] == b"r":
            flushed = int.from_bytes(data[14:22], "big")
            if flushed > highest:
                highest, count = flushed, count + 1
                disk.promise(f"{flushed:X} confirmed")
                if flushed > durable:
                    wrong.append(f"{flushed:X} confirmed, {durable:X} saved")
        else:
            disk.see(call)
    return count, disk.early + wrong


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "broken"])
def test_no_lsn_is_confirmed_before_output_and_state_are_on_disk(
    database: Database, tmp_path: Path, whole: bool
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    database.execute("INSERT INTO t VALUES (0, 'first')")
    work, trace = tmp_path / "work", tmp_path / "trace"
    work.mkdir()
    out, state = work / "out.jsonl", work / "state" / "state.json"
    words = command(database.dsn, "--output", out, "--state", state.parent)
    if not whole:
        words[2:4] = ["tests.capture.test_durability", "broken"]
    stderr = tmp_path / "stderr"
    with stderr.open("wb") as err:
        traced = subprocess.Popen(
            syscalls.strace(trace, *words), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=err
        )
    guarded(traced)
    try:
        until(lambda: traced.poll() is not None or is_streaming(database))
        syscalls.check_permitted(stderr.read_text())
        assert traced.poll() is None, stderr.read_text()
        for number in range(1, 8):
            database.execute("INSERT INTO t VALUES (%s, 'next')", [number])
            until(lambda: len(lines(out)) == number + 1)  # noqa: B023
            ((end,),) = database.execute("SELECT pg_current_wal_insert_lsn()::text")
            until(lambda: is_confirmed(database, end))  # noqa: B023
        (pid,) = Path(f"/proc/{traced.pid}/task/{traced.pid}/children").read_text().split()
        os.kill(int(pid), signal.SIGTERM)
        assert traced.wait(60) == 0
    finally:
        if traced.poll() is None:
            traced.kill()
            traced.wait()
    disk = Disk(work)
    count, early = confirmations(syscalls.read(trace), disk, state)
    assert count >= 7
    assert disk.renames >= 7
    if whole:
        assert early == []
    else:
        assert len(early) > count


def is_confirmed(database: Database, lsn: str) -> bool:
    rows = database.execute(
        "SELECT 1 FROM pg_replication_slots WHERE database = current_database()"
        " AND confirmed_flush_lsn >= %s::pg_lsn",
        [lsn],
    )
    return bool(rows)


if __name__ == "__main__":
    from cdc.__main__ import main

    os.fsync = lambda _: None  # type: ignore[assignment]
    sys.exit(main(["capture", *sys.argv[2:]]))
