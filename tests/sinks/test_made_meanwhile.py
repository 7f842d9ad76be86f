"""Another connector makes the table that a sink is making: it is waited for, not refused."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from cdc.block import Block
from cdc.errors import SinkError, SinkRejected
from tests.blocks import INT32, STRING, Source, optional
from tests.contract.targets import AuditTarget, PostgresTarget, Target, started
from tests.fix_postgres import Database
from tests.waiting import wait_for

BLOCKED = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'cdc copy'"


def waited_for(database: Database) -> None:
    blocked = f"{BLOCKED} AND cardinality(pg_blocking_pids(pid)) > 0"
    wait_for(lambda: database.execute(blocked), "the sink to wait for the other", 30)


def copied(database: Database) -> Target:
    return PostgresTarget(database)


def audited(database: Database) -> Target:
    return AuditTarget(database.dsn)


def write(target: Target, block: Block) -> None:
    task = started(target)
    task.put(block)
    task.flush(1)
    task.stop()


@pytest.mark.parametrize(
    ("made", "target_of"),
    [
        ("items", copied),
        ("cdc_offsets", copied),
        ("cdc_audit", audited),
        ("audit", audited),
    ],
)
def test_a_table_that_two_connectors_make_at_once_is_no_error(
    database: Database, made: str, target_of: Callable[[Database], Target]
) -> None:
    target, shop = target_of(database), Source()
    shop.insert(shop.table("items", id=INT32), id=1)
    block = shop.block()

    with ThreadPoolExecutor() as pool, database.connect(autocommit=False) as other:
        other.execute(f"CREATE TABLE {made} (seen int)".encode())
        writing = pool.submit(write, target, block)
        waited_for(database)
        other.commit()
        with pytest.raises(SinkError) as caught:
            writing.result()
    assert caught.value.retriable, caught.value
    assert "at the same time" in str(caught.value)
    database.execute(f"DROP TABLE {made}")
    write(target, block)
    assert database.execute(f"SELECT count(*) FROM {made}") == [(1,)]


def test_a_column_that_two_connectors_add_at_once_is_there_once(database: Database) -> None:
    target, shop = PostgresTarget(database), Source()
    database.execute("CREATE TABLE items (id int PRIMARY KEY)")
    shop.insert(shop.table("items", id=INT32, note=optional(STRING)), id=1, note="a")
    block = shop.block()
    with ThreadPoolExecutor() as pool, database.connect(autocommit=False) as other:
        other.execute(b"ALTER TABLE items ADD COLUMN note text")
        writing = pool.submit(write, target, block)
        waited_for(database)
        other.commit()
        writing.result()
    assert database.execute("SELECT * FROM items") == [(1, "a")]


def test_a_generated_column_of_the_target_is_named(database: Database) -> None:
    target, shop = PostgresTarget(database), Source()
    made = "CREATE TABLE items (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)"
    database.execute(made)
    shop.insert(shop.table("items", id=INT32, twice=INT32), id=1, twice=2)
    with pytest.raises(SinkRejected, match=r"items.*: twice is there, and cannot be written"):
        write(target, shop.block())
