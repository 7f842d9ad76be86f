"""Another connector makes the table that a sink is making: it is waited for, not refused."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from cdc.errors import SinkError
from tests.blocks import INT32, Source
from tests.contract.targets import AuditTarget, PostgresTarget, Target, started
from tests.fix_postgres import Database
from tests.waiting import wait_for

BLOCKED = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'cdc copy'"


def copied(database: Database) -> Target:
    return PostgresTarget(database)


def audited(database: Database) -> Target:
    return AuditTarget(database.dsn)


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

    def write() -> None:
        task = started(target)
        task.put(block)
        task.flush(1)
        task.stop()

    with ThreadPoolExecutor() as pool, database.connect(autocommit=False) as other:
        other.execute(f"CREATE TABLE {made} (seen int)".encode())
        writing = pool.submit(write)
        blocked = f"{BLOCKED} AND cardinality(pg_blocking_pids(pid)) > 0"
        wait_for(lambda: database.execute(blocked), "the sink to wait for the other", 30)
        other.commit()
        with pytest.raises(SinkError) as caught:
            writing.result()
    assert caught.value.retriable, caught.value
    assert "at the same time" in str(caught.value)
    database.execute(f"DROP TABLE {made}")
    write()
    assert database.execute(f"SELECT count(*) FROM {made}") == [(1,)]
