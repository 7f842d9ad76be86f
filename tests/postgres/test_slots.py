"""Our slot: waited for while it is busy, and what it can be made."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from cdc.api import LogState
from cdc.errors import LogLost, SlotBusy, SourceError
from cdc.postgres import slots
from cdc.postgres.replication import LogReader
from cdc.postgres.source import PostgresSourceTask
from tests.fix_postgres import Database
from tests.pipeline import Pipeline, config_for, until


def test_a_busy_slot_is_looked_at_often_and_refused_in_time(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    read_slot = slots.read_slot

    def counted(*arguments: Any) -> Any:
        looks.append(time.monotonic())
        return read_slot(*arguments)

    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with Pipeline(tmp_path / "j", database.dsn) as first:
        first.running()
        monkeypatch.setattr(slots, "read_slot", counted)
        patience = {"slot_max_retries": "3", "slot_retry_delay_ms": "400"}  # 1.2 s in all
        second = PostgresSourceTask(config_for(database.dsn, **patience))
        with pytest.raises(SlotBusy, match=r"is active for pid .*stop that reader"):
            second.start(LogState())
        second.stop()
    waited = looks[-1] - looks[0]
    pauses = [after - before for before, after in itertools.pairwise(looks)]
    assert 1.2 <= waited < 5
    assert min(pauses) >= slots.BUSY_SLOT_POLL_S == 0.2
    assert len(looks) >= 4


def test_one_of_another_database_is_refused_at_once(
    database: Database, copy_database: Database, tmp_path: Path
) -> None:
    """Whether it is read or not: it will never be ours."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with Pipeline(tmp_path / "j", database.dsn) as first:
        first.running()
        slot = first.config["slot.name"]
        second = PostgresSourceTask(config_for(copy_database.dsn, slot_name=slot))
        of = rf"the replication slot {slot} is of database {database.name}.*another slot\.name"
        with pytest.raises(SourceError, match=of):
            second.start(LogState())
        second.stop()
    assert not copy_database.execute("SELECT 1 FROM pg_publication")


@pytest.mark.postgres_versions(12, 13)  # which send a BEGIN before they look at the publication
def test_a_confirmation_that_comes_too_late_raises_what_ended_the_stream(
    database: Database,
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    reader = LogReader(conninfo_to_dict(database.dsn))
    slot = f"late_{database.name}"
    start = reader.create_slot(slot).consistent_lsn
    options = {"proto_version": "1", "publication_names": "nowhere"}
    reader.start(slot, start, options)
    database.execute("INSERT INTO t VALUES (1)")
    walsender = "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active"
    until(lambda: not database.execute(walsender, [slot]), "the stream's end")
    frames = reader.read(0, 10)
    assert len(frames) == 1, "the BEGIN, and behind it the error"
    with pytest.raises(LogLost, match=r"publication .* does not exist"):
        reader.confirm(start + 1)
    reader.close()


@pytest.mark.parametrize("host", ["dsn", "socket_dsn"])
def test_the_last_confirmation_arrives_though_more_was_on_its_way(
    database: Database, host: str
) -> None:
    """A connection that is closed with unread data is reset, and what was sent on it is lost."""
    database.execute("CREATE TABLE t (id int, text text)")
    database.execute("CREATE PUBLICATION p FOR TABLE t")
    for run in range(3):
        slot = f"last_{run}_{database.name}"
        reader = LogReader(conninfo_to_dict(getattr(database, host)))
        start = reader.create_slot(slot).consistent_lsn
        reader.start(slot, start, {"proto_version": "1", "publication_names": "p"})
        database.execute("INSERT INTO t VALUES (0, '')")
        database.execute(
            "INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 30000) i"
        )
        frames = []
        while not (commits := [body for _, body in frames if body[:1] == b"C"]):
            frames += reader.read(1, 10)
        end_lsn = int.from_bytes(commits[0][10:18], "big")
        time.sleep(0.05)  # both sockets' buffers fill
        reader.confirm(end_lsn)
        reader.close()
        look = "SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = %s"
        look += " AND NOT active"
        found = until(lambda: database.execute(look, [slot]), "the slot to be free")  # noqa: B023
        assert found == [(end_lsn,)]
