"""Every state of server, slot and stored position: what is decided, and what is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cdc.errors import ConnectionLost, LogLost, SourceError
from cdc.lsn import lsn_number, lsn_text
from cdc.postgres.catalog import SlotRow
from cdc.postgres.position import OpenTransaction, Position
from cdc.postgres.startup import Read, Server, Start, decide
from cdc.postgres.timelines import parse_history

HERE = Server(system="7000", timeline=1, database=5, lsn=2000)
STORED = Position("7000", 1, 5, "s", 1000)
SLOT = SlotRow(
    name="s", plugin="pgoutput", slot_type="logical", database="db", elsewhere=False,
    active_pid=None, restart_lsn=800, confirmed_flush_lsn=900, wal_status="reserved",
    conflicting=False, invalidation_reason=None, synced=False,
)  # fmt: skip
MODES = ("initial", "always", "no_data", "when_needed", "initial_only")


def slot(**values: Any) -> SlotRow:
    return replace(SLOT, **values)


@pytest.mark.parametrize(
    ("mode", "read"),
    [("initial", Read.ALL), ("always", Read.ALL), ("when_needed", Read.ALL),
     ("no_data", Read.NOTHING)],
)  # fmt: skip
@pytest.mark.parametrize(("row", "start"), [(None, Start.NEW_SLOT), (SLOT, Start.SLOT)])
def test_the_first_start(mode: str, read: Read, row: SlotRow | None, start: Start) -> None:
    plan = decide(mode, HERE, row, None, "s")
    assert (plan.start, plan.read) == (start, read)


@pytest.mark.parametrize(
    ("mode", "read"),
    [("initial", Read.MISSING), ("always", Read.ALL), ("when_needed", Read.MISSING),
     ("no_data", Read.NOTHING)],
)  # fmt: skip
def test_going_on(mode: str, read: Read) -> None:
    for confirmed in (None, 900, 1000):
        plan = decide(mode, HERE, slot(confirmed_flush_lsn=confirmed), STORED, "s")
        assert (plan.start, plan.read) == (Start.POSITION, read)


@pytest.mark.parametrize("stored", [None, STORED])
@pytest.mark.parametrize("row", [None, SLOT])
def test_initial_only_streams_nothing(stored: Position | None, row: SlotRow | None) -> None:
    assert decide("initial_only", HERE, row, stored, "s").start is Start.NONE


# (server, slot, what the message holds, whether a slot that is there is made anew)
LOST: list[tuple[str, Server, SlotRow | None, list[str], bool]] = [
    ("another server", replace(HERE, system="8000"), SLOT,
     ["identifier is 8000", "from 7000", "0/3E8"], False),
    ("another database", replace(HERE, database=6), SLOT, ["oid 6 instead of 5"], False),
    ("failover", replace(HERE, timeline=2), SLOT, ["timeline 2", "timeline 1", "0/3E8"], False),
    ("slot gone", HERE, None, ["slot s is gone", "after 0/3E8 are lost"], False),
    ("invalidated", HERE, slot(invalidation_reason="wal_removed"),
     ["invalidated (wal_removed)", "after 0/3E8 are lost"], True),
    ("conflict", HERE, slot(conflicting=True), ["conflict with recovery"], True),
    ("lost before 17", HERE, slot(wal_status="lost"), ["required WAL removed"], True),
    ("restored", replace(HERE, lsn=999), SLOT, ["ends at 0/3E7", "position 0/3E8"], False),
    ("made again", HERE, slot(restart_lsn=1400, confirmed_flush_lsn=1500),
     ["moved on, or dropped and created again", "at 0/5DC", "from 0/3E8"], False),
    ("moved on", HERE, slot(confirmed_flush_lsn=1500),
     ["moved on, or dropped and created again", "at 0/5DC", "from 0/3E8"], False),
    ("failover before our end", replace(HERE, timeline=2, branches={1: 999}), SLOT,
     ["left that timeline at 0/3E7", "from there to 0/3E8 were lost"], False),
    ("a stranger's timeline", replace(HERE, timeline=3, branches={2: 5000}), SLOT,
     ["timeline 3 did not come from it"], False),
]  # fmt: skip


FOREIGN = slot(elsewhere=True, database="other", invalidation_reason="wal_removed")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stored", [None, STORED, replace(STORED, database=6)])
def test_the_slot_of_another_database_is_never_used(mode: str, stored: Position | None) -> None:
    if mode == "initial_only":
        assert decide(mode, HERE, FOREIGN, stored, "s").start is Start.NONE
        return
    with pytest.raises(SourceError) as caught:
        decide(mode, HERE, FOREIGN, stored, "s")
    moved = stored is not None and stored.database != HERE.database and mode != "when_needed"
    says = "another database: oid" if moved else "slot s is of database other"
    assert says in caught.value.problem


@pytest.mark.parametrize(
    ("server", "row", "says"), [c[1:4] for c in LOST], ids=[c[0] for c in LOST]
)
@pytest.mark.parametrize("mode", ["initial", "always", "no_data"])
def test_what_is_lost_is_refused_with_its_range_and_a_remedy(
    mode: str, server: Server, row: SlotRow | None, says: list[str]
) -> None:
    with pytest.raises(LogLost) as caught:
        decide(mode, server, row, STORED, "s")
    for text in says:
        assert text in caught.value.problem
    assert "when_needed" in caught.value.remedy


@pytest.mark.parametrize(
    ("server", "row", "says", "new"), [c[1:] for c in LOST], ids=[c[0] for c in LOST]
)
def test_when_needed_reads_again(
    server: Server, row: SlotRow | None, says: list[str], new: bool
) -> None:
    plan = decide("when_needed", server, row, STORED, "s")
    assert plan.read is Read.ALL
    assert plan.start is (Start.NEW_SLOT if row is None or new else Start.SLOT)
    for text in says:
        assert text in plan.reason, "the reason is for the log"


def test_a_timeline_that_came_from_ours_behind_our_end_goes_on() -> None:
    for server in (
        replace(HERE, timeline=2, branches={1: 1000}),
        replace(HERE, timeline=4, branches={1: 1500, 2: 1600, 3: 1700}),
    ):
        assert decide("initial", server, SLOT, STORED, "s").start is Start.POSITION


@pytest.mark.parametrize(
    "stored",
    [
        replace(STORED, open=OpenTransaction(1500, 6, 7)),
        replace(STORED, message_lsn=1500),
        replace(STORED, until={"public.t": 1501}),
    ],
)
def test_whatever_is_stored_from_behind_the_branch_was_lost(stored: Position) -> None:
    with pytest.raises(LogLost, match="left that timeline at 0/5DC"):
        decide("initial", replace(HERE, timeline=2, branches={1: 1500}), SLOT, stored, "s")


def test_a_server_from_before_the_failover_is_not_ours() -> None:
    stored = replace(STORED, timeline=2)
    with pytest.raises(LogLost, match="before a failover") as caught:
        decide("initial", HERE, SLOT, stored, "s")
    assert "connect to the server that took over" in caught.value.remedy


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stored", [None, STORED])
def test_a_standbys_copy_of_a_slot_is_not_read(mode: str, stored: Position | None) -> None:
    standby, copy = replace(HERE, in_recovery=True), slot(synced=True)
    with pytest.raises(SourceError, match="copy that this standby keeps"):
        decide(mode, standby, copy, stored, "s")
    # what is left of it after the promotion is a slot like any other
    assert decide(mode, HERE, copy, stored, "s")


def test_a_standby_that_has_not_come_so_far_is_waited_for() -> None:
    with pytest.raises(ConnectionLost, match="waited for") as caught:
        decide("when_needed", replace(HERE, in_recovery=True, lsn=999), SLOT, STORED, "s")
    assert caught.value.retriable


def test_a_timelines_history_is_read() -> None:
    text = "1\t0/303C598\tno recovery target specified\n\n2\tA/3E8\t# not a comment\n# one\n"
    assert parse_history(text) == {1: 0x303C598, 2: (10 << 32) + 0x3E8}


@pytest.mark.parametrize("mode", ["initial", "no_data", "when_needed"])
def test_an_unusable_slot_at_the_first_start(mode: str) -> None:
    with pytest.raises(LogLost, match=r"nothing was stored.*pg_drop_replication_slot\('s'\)"):
        decide(mode, HERE, slot(invalidation_reason="idle_timeout"), None, "s")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stored", [None, STORED])
def test_a_slot_that_is_not_ours_to_read(mode: str, stored: Position | None) -> None:
    with pytest.raises(SourceError, match="physical"):
        decide(mode, HERE, slot(slot_type="physical", plugin=None), stored, "s")
    with pytest.raises(SourceError, match=r"decodes with wal2json.*slot\.name"):
        decide(mode, HERE, slot(plugin="wal2json"), stored, "s")


def test_positions_and_lsns_round_trip() -> None:
    for position in (
        STORED,
        replace(STORED, open=OpenTransaction(5, 6, 7), message_lsn=3, commit_end=2),
        replace(STORED, until={"public.t": 9}),
    ):
        assert Position.from_dict(position.to_dict()) == position
    for lsn in (0, 1, 2**32 - 1, 2**32, 2**64 - 1):
        assert lsn_number(lsn_text(lsn)) == lsn
    for text in ("", "1", "x/y"):
        with pytest.raises(ValueError, match=r"."):
            lsn_number(text)
