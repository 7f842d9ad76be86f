"""A standby of a server that a test has started, by streaming replication."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg

from cdc.demo.postgres import PostgresServer, SettingValue
from tests.pipeline import until

SLOT = "standby"


def standby_of(primary: Any, **settings: SettingValue) -> PostgresServer:
    """Not started yet: use it as a context manager. It streams by a physical slot ``standby``.

    Copied by hand: not every folder of binaries has a pg_basebackup.
    """
    conninfo = (
        f"host={primary.socket_dir} port={primary.port} user=postgres dbname=postgres"
        " application_name=standby"
    )
    standby = PostgresServer(
        primary.bin_dir,
        settings={
            **primary.settings,
            "primary_conninfo": conninfo,
            "primary_slot_name": SLOT,
            "hot_standby_feedback": True,
            "wal_receiver_status_interval": 1,
            **settings,
        },
    )
    with psycopg.connect(primary.dsn(host="unix"), autocommit=True) as connection:
        connection.execute("SELECT pg_create_physical_replication_slot(%s, true)", [SLOT])
        connection.execute("SELECT pg_backup_start('standby', true)")
        _copy(primary.data_dir, standby.data_dir)
        row = connection.execute("SELECT labelfile FROM pg_backup_stop(false)").fetchone()
    assert row is not None
    for name, text in (("backup_label", row[0]), ("standby.signal", "")):
        path = standby.data_dir / name
        path.write_text(text)
        shutil.chown(path, primary.data_dir.stat().st_uid, primary.data_dir.stat().st_gid)
    return standby


def _copy(source: Path, target: Path) -> None:
    # a file that is removed meanwhile is no failure: WAL replay makes it right
    subprocess.run(["cp", "-a", source, target], check=False, capture_output=True)
    (target / "postmaster.pid").unlink()
    assert (target / "PG_VERSION").exists()


def caught_up(primary: Any, standby: Any) -> None:
    """Wait until the standby shows all that the primary has committed."""
    (lsn,) = primary.execute("SELECT pg_current_wal_insert_lsn()::text")[0]
    primary.execute("SELECT txid_current()")  # whose end has the WAL before it written out
    replayed = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
    until(lambda: standby.execute(replayed, [lsn])[0][0], "the standby")


def promote(standby: Any) -> None:
    """Make it a primary, and wait for that."""
    standby.execute("SELECT pg_promote()")
    until(lambda: not standby.execute("SELECT pg_is_in_recovery()")[0][0], "promotion")
