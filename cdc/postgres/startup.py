"""Startup: what to do with this server, this slot and this stored position. Pure.

Every state that server and slot can be in is told apart here, in one function, and nowhere
else. What cannot be continued raises LogLost, which names the range that is lost; with
``snapshot.mode=when_needed`` the tables are read again instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from cdc.errors import ConnectionLost, LogLost, SourceError
from cdc.lsn import lsn_text
from cdc.postgres.catalog import SlotRow
from cdc.postgres.position import Position


class Start(Enum):
    """How streaming begins."""

    # create it, in place of an invalidated one; it starts where its exported snapshot stands
    NEW_SLOT = "new slot"
    SLOT = "slot"  # at the slot's confirmed_flush: nothing is stored yet
    SLOT_NOW = "slot, from now on"  # what it holds is of no use any more
    POSITION = "position"  # where the log ends
    NONE = "none"  # initial_only: no stream, no slot


class Read(Enum):
    """Which tables are read."""

    NOTHING = "nothing"
    MISSING = "missing"  # those without a complete snapshot
    ALL = "all"


@dataclass(frozen=True)
class Server:
    """Who answers: identity, and how far its WAL goes.

    ``branches``: where its timeline left those before it, by timeline.
    """

    system: str
    timeline: int
    database: int
    lsn: int
    in_recovery: bool = False
    branches: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StartPlan:
    """The decision. ``reason`` is for the log, and tells why tables are read again."""

    start: Start
    read: Read
    reason: str = ""


def decide(
    mode: str, server: Server, slot: SlotRow | None, stored: Position | None, slot_name: str
) -> StartPlan:
    """What to do. Raises LogLost or SourceError where going on would lose or invent events."""
    if slot is not None:
        _check_kind(slot, slot_name)
        _check_usable(server, slot)
    if mode == "initial_only":
        return StartPlan(Start.NONE, Read.MISSING)
    if stored is None:
        _check_here(slot)
        return _first_start(mode, slot)
    try:
        _check_continuity(server, slot, stored, slot_name)
    except LogLost as lost:
        if mode != "when_needed":
            raise
        _check_here(slot)
        # one that is invalidated is of no use to anybody: it gives way to a new one
        new = slot is None or _invalid(slot)
        return StartPlan(Start.NEW_SLOT if new else Start.SLOT, Read.ALL, lost.problem)
    read = {"always": Read.ALL, "no_data": Read.NOTHING}.get(mode, Read.MISSING)
    return StartPlan(Start.POSITION, read)


def _first_start(mode: str, slot: SlotRow | None) -> StartPlan:
    read = Read.NOTHING if mode == "no_data" else Read.ALL
    if slot is None:
        return StartPlan(Start.NEW_SLOT, read)
    reason = _invalid(slot)
    if reason:
        raise LogLost(
            f"the slot {slot.name} is invalidated ({reason}) and nothing was stored yet",
            remedy=f"SELECT pg_drop_replication_slot('{slot.name}'), then start again",
        )
    return StartPlan(Start.SLOT, read)


def _check_kind(slot: SlotRow, name: str) -> None:
    if slot.slot_type != "logical":
        raise SourceError(
            f"the replication slot {name} is a physical one", remedy="choose another slot.name"
        )
    if slot.plugin != "pgoutput":
        raise SourceError(
            f"the replication slot {name} decodes with {slot.plugin}, not with pgoutput",
            remedy="choose another slot.name, or drop that slot",
        )


def _check_here(slot: SlotRow | None) -> None:
    """The server lists the slots of all its databases, and lets each be read from its own."""
    if slot is not None and slot.elsewhere:
        raise SourceError(
            f"the replication slot {slot.name} is of database {slot.database}",
            remedy="its name is taken at the whole server: choose another slot.name",
        )


def _check_usable(server: Server, slot: SlotRow) -> None:
    """A standby's copy of the primary's slot cannot be read before it is promoted."""
    if server.in_recovery and slot.synced:
        raise SourceError(
            f"the replication slot {slot.name} is the copy that this standby keeps of the "
            "primary's: it cannot be read before the standby is promoted",
            remedy="connect to the primary, or choose another slot.name for the standby",
        )


def _check_continuity(server: Server, slot: SlotRow | None, stored: Position, name: str) -> None:
    """The server's log must go on exactly where ours ends."""
    end = lsn_text(stored.lsn)
    again = "set snapshot.mode=when_needed to read the tables again"
    if server.system != stored.system:
        raise LogLost(
            f"this is another server: its system identifier is {server.system}, the log was "
            f"written from {stored.system} up to {end}",
            remedy=f"connect to the right server, or {again}",
        )
    if server.database != stored.database:
        raise LogLost(
            f"this is another database: oid {server.database} instead of {stored.database}",
            remedy=f"check database.dbname, or {again}",
        )
    _check_here(slot)
    if server.timeline != stored.timeline:
        _check_timeline(server, stored, again)
    if slot is None and stored.slot != name:
        raise LogLost(
            f"there is no replication slot {name}; the log was written from slot {stored.slot} up "
            f"to {end}",
            remedy=f"set slot.name={stored.slot} again, or {again}",
        )
    if slot is None:
        raise LogLost(
            f"the replication slot {name} is gone: changes after {end} are lost",
            remedy=f"the slot was dropped; {again}",
        )
    reason = _invalid(slot)
    if reason:
        raise LogLost(
            f"the replication slot {name} is invalidated ({reason}): changes after {end} are lost",
            remedy=f"raise max_slot_wal_keep_size; {again}",
        )
    if server.lsn < stored.lsn and server.in_recovery:
        raise ConnectionLost(
            f"the standby has come to {lsn_text(server.lsn)} only, the log goes on to {end}: it "
            "is waited for",
            remedy="see whether it still receives WAL, or connect to the primary",
        )
    if server.lsn < stored.lsn:
        raise LogLost(
            f"the server's WAL ends at {lsn_text(server.lsn)}, before the log's position {end}: "
            "it was restored, or it lost what it had written",
            remedy=again,
        )
    _check_slot_place(slot, stored, again)


def _check_timeline(server: Server, stored: Position, again: str) -> None:
    """After a failover the log goes on where all of it is in the new timeline's history."""
    end, left = lsn_text(stored.reach), server.branches.get(stored.timeline)
    where = (
        f"the server is on timeline {server.timeline}, the log was written on timeline "
        f"{stored.timeline} up to {end}"
    )
    if server.timeline < stored.timeline:
        raise LogLost(
            f"{where}: this is a server from before a failover",
            remedy=f"connect to the server that took over, or {again}",
        )
    if left is None:
        raise LogLost(
            f"{where}: timeline {server.timeline} did not come from it, or its history is gone",
            remedy=again,
        )
    if stored.reach > left:
        raise LogLost(
            f"{where}, but the server left that timeline at {lsn_text(left)}: the changes from "
            f"there to {end} were lost in a failover, and the log holds them",
            remedy=f"{again}; synchronized_standby_slots at the primary prevents it",
        )


def _check_slot_place(slot: SlotRow, stored: Position, again: str) -> None:
    """A slot behind the log is fine (a crashed server forgets confirmations), ahead is not.

    The server does not say when a slot was made: one that is moved on past a checkpoint gets
    a new restart_lsn too, and one under its name may be the copy of an older one.
    """
    confirmed = slot.confirmed_flush_lsn
    if confirmed is None or confirmed <= stored.lsn:
        return
    raise LogLost(
        f"the replication slot {slot.name} was moved on, or dropped and created again, by somebody "
        f"else: it starts at {lsn_text(confirmed)}, changes from {lsn_text(stored.lsn)} to there "
        "are lost",
        remedy=again,
    )


def _invalid(slot: SlotRow) -> str:
    """Why the slot can no longer be used; empty when it can."""
    if slot.invalidation_reason:
        return slot.invalidation_reason
    if slot.conflicting:
        return "conflict with recovery"
    if slot.wal_status == "lost":
        return "required WAL removed"
    return ""
