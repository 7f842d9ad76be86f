"""Slots: ours, waited for, used and dropped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import psycopg

from cdc.errors import SlotBusy, SourceError
from cdc.lsn import lsn_number
from cdc.postgres import judge
from cdc.postgres.catalog import ServerFacts, SlotRow, read_slot
from cdc.postgres.settings import Settings

log = logging.getLogger(__name__)

BUSY_SLOT_POLL_S = 0.2
# How long our slot may take to become free, before it is left behind.
DROP_S = 2.0


def slot_holder(conn: psycopg.Connection[Any], slot: SlotRow) -> str:
    """Who reads an active slot: pid, client address, application."""
    row = conn.execute(
        "SELECT coalesce(host(client_addr), 'a Unix socket'), application_name"
        " FROM pg_stat_activity WHERE pid = %s",
        [slot.active_pid],
    ).fetchone()
    where = f" from {row[0]} ({row[1] or 'unnamed'})" if row else ""
    return f"the slot {slot.name} is active for pid {slot.active_pid}{where}"


def wait_for_slot(
    connection: Callable[[], psycopg.Connection[Any]],
    name: str,
    timeout_s: float,
    check: Callable[[], None] = lambda: None,
) -> SlotRow | None:
    """The slot, once nobody reads it. Raises SlotBusy naming who does, or what ``check`` does.

    One of another database is not waited for.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        slot = read_slot(connection(), name)
        if slot is None or slot.active_pid is None or slot.elsewhere:
            return slot
        check()
        if time.monotonic() >= deadline:
            raise SlotBusy(
                slot_holder(connection(), slot),
                remedy="stop that reader, or choose another slot.name",
            )
        time.sleep(BUSY_SLOT_POLL_S)


def drop_slot(connection: Callable[[], psycopg.Connection[Any]], name: str) -> None:
    """Drop it, if it becomes free soon; else say that it is left behind."""
    try:
        slot = wait_for_slot(connection, name, DROP_S)
        if slot is not None and not slot.elsewhere:
            connection().execute("SELECT pg_drop_replication_slot(%s)", [name])
    except (SourceError, psycopg.Error) as error:
        log.warning("the slot %s is left behind: %s", name, " ".join(str(error).split()))


def advance_slot(conn: psycopg.Connection[Any], name: str) -> int:
    """Let it begin where the server is now; that LSN."""
    row = conn.execute(
        "SELECT end_lsn::text FROM pg_replication_slot_advance(%s,"
        " CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
        " ELSE pg_current_wal_lsn() END)",
        [name],
    ).fetchone()
    assert row is not None
    return lsn_number(row[0])


def may_fail_over(settings: Settings, facts: ServerFacts | None) -> bool:
    """Whether a new slot is made a failover slot."""
    if not settings.slot_failover:
        return False
    assert facts is not None
    against = list(judge.failover(facts))
    for finding in against:
        log.warning("%s", finding.text)
    return not against


def stream_options(settings: Settings, facts: ServerFacts | None) -> dict[str, str]:
    """What pgoutput is asked for."""
    return {
        "proto_version": "1",
        "publication_names": '"' + settings.publication.replace('"', '""') + '"',
        **({"messages": "true"} if facts and facts.major >= 14 else {}),
        **settings.stream_params,
    }
