"""Whatever a database's or a role's settings say, every session reads the same values in peace."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from cdc.api import Lane
from cdc.log import Journal
from tests.fix_postgres import Database
from tests.pipeline import Pipeline, SlowLog, until

# What changes the text of a value, or how a statement is understood or ends.
HOSTILE = {
    "array_nulls": "off",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "datestyle": "German, DMY",
    "default_transaction_isolation": "serializable",
    "escape_string_warning": "off",
    "extra_float_digits": "-5",
    "intervalstyle": "iso_8601",
    "lc_monetary": "C.UTF-8",
    "quote_all_identifiers": "on",
    "row_security": "on",
    "search_path": "nowhere",
    "standard_conforming_strings": "off",
    "timezone": "Asia/Tokyo",
    "transform_null_equals": "on",
    "xmloption": "content",
    "default_transaction_read_only": "on",
}
TIMEOUTS = {
    "statement_timeout": "250ms",
    "lock_timeout": "50ms",
    "idle_in_transaction_session_timeout": "250ms",
    "idle_session_timeout": "250ms",
    "transaction_timeout": "250ms",
}
HOLD_S = 0.4  # longer than each of them
TABLE = """
CREATE TABLE t (id int PRIMARY KEY, d date, ts timestamp, tz timestamptz, i interval, b bytea,
                f double precision, m money, s text, a text[]);
"""
ROW = r"""
INSERT INTO public.t SELECT %s, '2024-02-03', '2024-02-03 04:05:06.7', '2024-02-03 04:05:06.7+00',
    '1 day 02:03:04.5', '\x00ff41', 0.1, 12.34, U&'\00FC', '{NULL,x}'
"""
READ = {
    "d": 19756,
    "ts": 1706933106700000,
    "tz": "2024-02-03T04:05:06.700000Z",
    "i": 93784500000,
    "b": "AP9B",
    "f": 0.1,
    "m": "BNI=",
    "s": "ü",
    "a": [None, "x"],
}


def be_hostile(database: Database, settings: dict[str, str]) -> list[str]:
    """Set all that this version knows for every new session; the names."""
    with database.connect() as conn:
        rows = conn.execute("SELECT lower(name) FROM pg_settings").fetchall()
        known = [name for name in settings if (name,) in rows]
        for name in known:
            conn.execute(f"ALTER DATABASE {database.name} SET {name} = '{settings[name]}'".encode())
    return known


@pytest.mark.postgres_versions(12, 15, 18)
@pytest.mark.parametrize("way", ["dsn", "socket_dsn"])
def test_values_do_not_depend_on_settings(database: Database, tmp_path: Path, way: str) -> None:
    with database.connect() as conn:  # from before the settings
        conn.execute(TABLE.encode())
        conn.execute(ROW.encode(), [1])
        assert len(be_hostile(database, HOSTILE)) == len(HOSTILE)
        with Pipeline(tmp_path / "j", getattr(database, way)) as pipeline:
            pipeline.until(lambda es: len(es) >= 1, "the snapshot")
            conn.execute(ROW.encode(), [2])
            events = pipeline.until(lambda es: len(es) >= 2, "the stream")
    assert [e.row for e in events] == [{"id": 1, **READ}, {"id": 2, **READ}]


@pytest.mark.postgres_versions(12, 15, 18)
def test_no_timeout_ends_a_session(
    database: Database, tmp_path: Path, postgres_major: int, caplog: pytest.LogCaptureFixture
) -> None:
    logs: list[SlowLog] = []

    def wrap(journal: Journal) -> Any:
        logs.append(SlowLog(journal))
        logs[0].append_s[Lane.SNAPSHOT] = HOLD_S
        return logs[-1]

    with database.connect() as conn:
        conn.execute(b"CREATE TABLE t (id int PRIMARY KEY, n int)")
        conn.execute(b"INSERT INTO t SELECT i, i FROM generate_series(1, 500) i")
        conn.execute(b"ANALYZE t")
        known = be_hostile(database, TIMEOUTS)
        assert len(known) == {12: 3, 15: 4, 18: 5}[postgres_major]
        small = {"snapshot_chunk_rows": "100", "max_queue_size": "150", "max_batch_size": "100"}
        # an error of any session ends the pipeline, which raises it
        with (
            caplog.at_level(logging.WARNING),
            Pipeline(tmp_path / "j", database.dsn, log=wrap, **small) as pipeline,
        ):
            pipeline.until(lambda es: len(es) == 500, "the snapshot")
            (before,) = senders(conn)
            threading.Event().wait(HOLD_S)
            conn.execute(b"INSERT INTO t VALUES (5000, 0)")
            events = pipeline.until(lambda es: len(es) > 500, "the stream")
            assert senders(conn) == [before]
    assert logs[0].calls > 2
    assert events[-1].row == {"id": 5000, "n": 0}
    assert "timeout" not in caplog.text


def senders(conn: Any) -> list[int]:
    """The process that sends the stream."""
    query = "SELECT active_pid FROM pg_replication_slots WHERE database = current_database()"
    return until(lambda: [pid for (pid,) in conn.execute(query).fetchall()], "the stream")
