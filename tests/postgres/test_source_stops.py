"""A stop: soon, whatever is waited for, and the slot goes only where nothing was lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cdc.api import LogState
from cdc.errors import ConnectionLost, SourceError
from cdc.postgres.config import CONFIG
from cdc.postgres.dsn import from_url
from cdc.postgres.source import STOPPED, PostgresSourceTask
from cdc.runtime.retry import Action, decide
from tests.pipeline import until
from tests.stepper import Stepper

SLOTS = "SELECT slot_name, active FROM pg_replication_slots WHERE database = current_database()"


def source(database: Any, **more: str) -> PostgresSourceTask:
    raw = {
        "topic.prefix": "shop",
        "slot.name": f"stops_{database.name}",
        "publication.name": "stops",
        **{name.replace("_", "."): value for name, value in more.items()},
    }
    url = database.dsn
    return PostgresSourceTask(CONFIG.parse({**from_url(url), **raw}))


def stopped_while_starting(task: PostgresSourceTask, waits: Callable[[], bool]) -> None:
    caught: list[ConnectionLost] = []

    def run() -> None:
        try:
            task.start(LogState())
        except ConnectionLost as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(waits, "the start to wait")
    began = time.monotonic()
    task.interrupt()
    thread.join(20)
    assert time.monotonic() - began < 5
    assert [e.problem for e in caught] == [STOPPED]
    task.stop()


def test_a_start_that_waits_for_a_busy_slot(database: Any) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    first, second = source(database), source(database)
    first.start(LogState())
    began = time.monotonic()
    stopped_while_starting(second, lambda: time.monotonic() - began > 1)
    first.stop()


def test_a_start_that_waits_for_a_transaction(database: Any) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with database.connect(autocommit=False) as other:
        other.execute("SELECT txid_current()")
        made = "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s"
        name = f"stops_{database.name}"
        stopped_while_starting(source(database), lambda: bool(database.execute(made, [name])))
        assert not database.execute(made, [name]), "nothing is left behind"


@pytest.mark.parametrize("durable", [True, False])
def test_the_slot_is_dropped_when_all_is_durable(database: Any, durable: bool) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    task = source(database, slot_drop_on_stop="true")
    task.start(LogState())
    for batch in task.poll(5):
        if durable:
            task.commit(batch.lane, batch.position)
    task.stop()
    assert bool(database.execute(SLOTS)) is not durable


def test_the_slot_is_kept_after_a_lost_connection(database: Any) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    task = source(database, slot_drop_on_stop="true")
    task.start(LogState())
    database.execute(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
        " WHERE database = current_database()"
    )

    def lost() -> bool:
        try:
            for batch in task.poll(0.2):
                task.commit(batch.lane, batch.position)
        except ConnectionLost:
            return True
        return False

    until(lost, "the loss")
    task.stop()
    assert database.execute(SLOTS)


def test_readers_that_die_one_after_the_other_are_not_waited_for_as_a_server_is(
    database: Any, tmp_path: Path
) -> None:
    """What the system ends for want of memory it ends again: the task is to fail in the end."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")

    def kill_each(stepper: Stepper) -> None:
        while True:
            stepper.step()
            for reader in stepper.readers():
                reader.process.kill()

    with (
        closing(Stepper(tmp_path / "j", database.dsn)) as stepper,
        database.connect(autocommit=False) as other,
    ):
        other.execute("LOCK TABLE t")  # so that none of them gets through
        with pytest.raises(SourceError, match=r"6 .* readers died in a row \(exit -9\)") as caught:
            kill_each(stepper)
    assert decide(caught.value) is Action.RESTART
