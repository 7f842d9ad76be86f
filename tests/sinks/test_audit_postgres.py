"""The audit sink and a PostgreSQL that goes away, and replays into a second target."""

from __future__ import annotations

import pytest

from cdc.errors import SinkError
from sinks import audit, search
from tests.blocks import INT32, STRING, Source, optional
from tests.contract.targets import AuditTarget, started
from tests.fix_postgres import Database


def test_a_lost_connection_is_no_lost_and_no_second_record(database: Database) -> None:
    shop, target = Source(), AuditTarget(database.dsn)
    table = shop.table("items", id=INT32, note=optional(STRING))
    blocks = []
    for id_ in range(6):
        shop.insert(table, id=id_, note='ü \t\n \\N "quoted" \x01')
        blocks.append(shop.block())
    task = started(target)
    for number, block in enumerate(blocks):
        task.put(block)
        if number in (1, 4):
            database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'cdc copy'"
            )
            with pytest.raises(SinkError) as caught:
                task.flush(block.offsets[-1] + 1)
            assert caught.value.retriable
            task.stop()
            task = started(target)
            offset = task.stored_offset() or 0
            for again in blocks[offset : number + 1]:
                task.put(again)
        task.flush(block.offsets[-1] + 1)
    task.stop()
    assert [record["journal_offset"] for record in target.records()] == list(range(6))


def test_a_server_out_of_reach_is_waited_for() -> None:
    with pytest.raises(SinkError) as caught:
        started(AuditTarget("postgresql://nobody@127.0.0.1:1/none"))
    assert caught.value.retriable


def test_tables_may_lie_in_a_schema_of_their_own(database: Database) -> None:
    shop, target = Source(), AuditTarget(database.dsn, **{"audit.table": "records.audit"})
    shop.insert(shop.table("items", id=INT32), id=1)
    block = shop.block()
    task = started(target)
    task.put(block)
    task.flush(1)
    task.stop()
    assert database.execute("SELECT count(*) FROM records.audit") == [(1,)]
    assert len(target.records()) == 1


def test_second_targets_lie_beside_the_first() -> None:
    config = audit.CONFIG.parse({"connection.url": "jdbc:sqlite:x"})
    assert audit.AuditSinkTask.into(config, "two") == {"audit.table": "audit_two"}
    found = search.CONFIG.parse({"connection.url": "jdbc:sqlite:/a/b.db"})
    changes = search.SearchSinkTask.into(found, "two")
    assert changes == {"search.file": "/a/b-two.db", "connection.url": ""}
    search.CONFIG.parse({**found.raw, **changes})
