"""Failover slots (17 and newer): the source goes on at the server that took over, or says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc.errors import LogLost, SourceError
from cdc.postgres.check import check
from tests.pipeline import Pipeline, config_for, until
from tests.postgres.servers_of_tests import Plain
from tests.postgres.standbys import SLOT, caught_up, promote, standby_of
from tests.postgres.test_source_on_a_standby import TABLE, Two

pytestmark = pytest.mark.slow

FAILOVER = {"slot_failover": "true"}


def a_pair(start_postgres: Any, major: int, **settings: Any) -> Iterator[Two]:
    with start_postgres(major, fsync=False, **settings) as primary:
        first = Plain(primary)
        first.execute(TABLE)
        own = {"sync_replication_slots": True, "synchronized_standby_slots": ""}
        with standby_of(primary, **own) as standby:
            second = Plain(standby)
            caught_up(first, second)
            yield Two(first, second)


@pytest.fixture
def two(start_postgres: Any, postgres_major: int) -> Iterator[Two]:
    """The slots of the primary wait for the standby."""
    yield from a_pair(start_postgres, postgres_major, synchronized_standby_slots=SLOT)


@pytest.fixture
def loose(start_postgres: Any, postgres_major: int) -> Iterator[Two]:
    """They do not."""
    yield from a_pair(start_postgres, postgres_major)


def synced(two: Two) -> bool:
    """Whether the standby has the slot as it is at the primary now, to survive a promotion."""
    query = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 's_postgres'"
    there = two.standby.execute(f"{query} AND synced AND NOT temporary")
    return bool(there) and there == two.primary.execute(query)


def begun(two: Two, path: Path) -> None:
    """A snapshot and some changes from the primary; then the source goes."""
    with Pipeline(path, two.primary.dsn, **FAILOVER) as pipeline:
        pipeline.running()
        two.primary.execute("UPDATE t SET n = 1")
        pipeline.until_agrees(two.primary, "public.t")
        made = "SELECT failover FROM pg_replication_slots WHERE slot_name = 's_postgres'"
        assert two.primary.execute(made) == [(True,)]
        until(lambda: synced(two), "the slot on the standby")


@pytest.mark.postgres_versions(17, 18)
def test_the_connector_goes_on_at_the_promoted_server(two: Two, tmp_path: Path) -> None:
    begun(two, tmp_path / "j")
    two.primary.execute("UPDATE t SET n = 2")  # which nobody has read
    caught_up(two.primary, two.standby)
    two.primary.server.stop("immediate")
    promote(two.standby)
    two.standby.execute("UPDATE t SET n = 3; INSERT INTO t VALUES (1000, 3)")
    with Pipeline(tmp_path / "j", two.standby.dsn, **FAILOVER) as pipeline:
        events = pipeline.until_agrees(two.standby, "public.t")
    assert [e.op for e in events] == ["r"] * 300 + ["u"] * 900 + ["c"]
    stored = [(e.lsn, e.ordinal) for e in events if e.marker == "false"]
    assert len(stored) == len(set(stored))
    two.standby.execute("DELETE FROM t WHERE id = 1")
    with Pipeline(tmp_path / "j", two.standby.dsn, **FAILOVER) as pipeline:
        pipeline.until_agrees(two.standby, "public.t")


def test_a_standby_before_its_promotion_is_refused(two: Two, tmp_path: Path) -> None:
    begun(two, tmp_path / "j")
    with (
        pytest.raises(SourceError, match="the copy that this standby keeps") as caught,
        Pipeline(tmp_path / "j", two.standby.dsn, **FAILOVER) as pipeline,
    ):
        pipeline.running()
    assert "connect to the primary" in caught.value.remedy
    said = check(config_for(two.standby.dsn, **FAILOVER))
    assert caught.value.problem in [finding.text for finding in said.findings]


@pytest.mark.postgres_versions(17, 18)
def test_what_the_new_primary_never_had_is_named(loose: Two, tmp_path: Path) -> None:
    two = loose
    begun(two, tmp_path / "j")
    two.standby.server.stop("fast")
    with Pipeline(tmp_path / "j", two.primary.dsn, **FAILOVER) as pipeline:
        two.primary.execute("UPDATE t SET n = 2")
        before = pipeline.until_agrees(two.primary, "public.t")
    two.primary.server.stop("immediate")
    two.standby.server.start()
    promote(two.standby)
    with (
        pytest.raises(
            LogLost, match=r"timeline 2.*timeline 1 up to .*left that timeline at .*failover"
        ) as caught,
        Pipeline(tmp_path / "j", two.standby.dsn, **FAILOVER) as pipeline,
    ):
        pipeline.running()
    assert "when_needed" in caught.value.remedy
    settings = {**FAILOVER, "snapshot_mode": "when_needed"}
    with Pipeline(tmp_path / "j", two.standby.dsn, **settings) as pipeline:
        events = pipeline.until_agrees(two.standby, "public.t")
    assert len([e for e in events[len(before) :] if e.op == "r"]) == 300


def test_the_old_primary_is_refused_afterwards(two: Two, tmp_path: Path) -> None:
    begun(two, tmp_path / "j")
    promote(two.standby)
    two.standby.execute("UPDATE t SET n = 2")
    with Pipeline(tmp_path / "j", two.standby.dsn, **FAILOVER) as pipeline:
        pipeline.until_agrees(two.standby, "public.t")
    with (
        pytest.raises(LogLost, match="this is a server from before a failover") as caught,
        Pipeline(tmp_path / "j", two.primary.dsn, **FAILOVER) as pipeline,
    ):
        pipeline.running()
    assert "connect to the server that took over" in caught.value.remedy


def test_a_slot_that_was_not_taken_over_is_lost(loose: Two, tmp_path: Path) -> None:
    with Pipeline(tmp_path / "j", loose.primary.dsn) as pipeline:
        pipeline.until_agrees(loose.primary, "public.t")
    caught_up(loose.primary, loose.standby)
    promote(loose.standby)
    with (
        pytest.raises(LogLost, match="slot s_postgres is gone"),
        Pipeline(tmp_path / "j", loose.standby.dsn) as pipeline,
    ):
        pipeline.running()
