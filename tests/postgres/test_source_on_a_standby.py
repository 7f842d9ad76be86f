"""A source on a standby (16 and newer): its slot, its snapshot, its end, and its promotion."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cdc.api import Batch, Lane
from cdc.capture import capture
from cdc.errors import ConnectionLost, SourceError
from cdc.log import Journal
from cdc.postgres import source
from cdc.postgres.check import check
from tests.pipeline import Copy, Pipeline, config_for, source_rows, until, workload
from tests.postgres.servers_of_tests import Plain
from tests.postgres.standbys import caught_up, promote, standby_of

TABLE = """
CREATE TABLE t (id int PRIMARY KEY, n int);
INSERT INTO t SELECT i, 0 FROM generate_series(1, 300) i;
"""
PUBLICATION = "CREATE PUBLICATION dbz_publication FOR ALL TABLES"
LOG_SNAPSHOT = "SELECT pg_log_standby_snapshot()"


@dataclass
class Two:
    """A primary and its standby, as databases; and the servers."""

    primary: Plain
    standby: Plain

    def make_slots(self) -> None:
        """What a slot that is being made on the standby waits for."""
        self.primary.execute(LOG_SNAPSHOT)

    def running(self, pipeline: Pipeline) -> None:
        """Wait until the pipeline has started, its slot made."""
        until(lambda: self.make_slots() or pipeline.started.wait(0.2), "the start")
        pipeline.running()


@pytest.fixture
def two(start_postgres: Any, postgres_major: int) -> Iterator[Two]:
    with start_postgres(postgres_major, fsync=False) as primary:
        first = Plain(primary)
        first.execute(TABLE)
        first.execute(PUBLICATION)
        with standby_of(primary) as standby:
            second = Plain(standby)
            caught_up(first, second)
            yield Two(first, second)


@pytest.mark.postgres_versions(16, 17, 18)
def test_snapshot_stream_and_resume(
    two: Two, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Pipeline(tmp_path / "j", two.standby.dsn, snapshot_chunk_rows="100") as pipeline:
        slots = "SELECT 1 FROM pg_replication_slots WHERE slot_name = 's_postgres'"
        until(lambda: two.standby.execute(slots), "the slot that is being made")
        assert not pipeline.started.is_set()
        assert "SELECT pg_log_standby_snapshot() is run there" in caplog.text
        two.running(pipeline)
        two.primary.execute("UPDATE t SET n = 1")
        pipeline.until_agrees(two.primary, "public.t")
    two.primary.execute("UPDATE t SET n = 2; DELETE FROM t WHERE id = 7")
    with Pipeline(tmp_path / "j", two.standby.dsn) as pipeline:
        events = pipeline.until_agrees(two.primary, "public.t")
    assert {op: [e.op for e in events].count(op) for op in "rud"} == {"r": 300, "u": 600, "d": 1}


@pytest.mark.parametrize("mode", ["all_tables", "filtered"])
def test_a_publication_is_not_made_on_a_standby(two: Two, tmp_path: Path, mode: str) -> None:
    settings = {"publication_name": "own", "publication_autocreate_mode": mode}
    tables = {"all_tables": "FOR ALL TABLES", "filtered": 'FOR TABLE ONLY "public"."t"'}[mode]
    with (
        pytest.raises(SourceError, match=r"publication own is missing.*a standby") as caught,
        Pipeline(tmp_path / "j", two.standby.dsn, **settings) as pipeline,
    ):
        pipeline.running()
    assert caught.value.remedy == f'run on the primary: CREATE PUBLICATION "own" {tables}'
    said = check(config_for(two.standby.dsn, **settings))
    assert not said.ok
    assert caught.value.remedy in [finding.remedy for finding in said.findings]


def test_a_publication_is_not_altered_on_a_standby(two: Two, tmp_path: Path) -> None:
    two.primary.execute("CREATE PUBLICATION own FOR TABLE t; CREATE TABLE u (id int PRIMARY KEY)")
    caught_up(two.primary, two.standby)
    settings = {"publication_name": "own", "publication_autocreate_mode": "filtered"}
    with (
        pytest.raises(SourceError, match=r"publication own is to be altered.*a standby") as caught,
        Pipeline(tmp_path / "j", two.standby.dsn, **settings) as pipeline,
    ):
        pipeline.running()
    assert 'run on the primary: ALTER PUBLICATION "own" SET TABLE' in caught.value.remedy


def test_check_says_what_a_standby_needs(two: Two) -> None:
    found = check(config_for(two.standby.dsn))
    assert found.ok
    assert found.server.endswith(", a standby")
    (said,) = [f.text for f in found.findings if f.subject == "standby"]
    assert "SELECT pg_log_standby_snapshot() there" in said
    found = check(config_for(two.standby.dsn, slot_failover="true"))
    (warning,) = [f.text for f in found.findings if f.subject == "slot.failover"]
    assert warning == "slot.failover needs PostgreSQL 17 and a primary: not set"


def test_a_capture_until_now_ends_with_what_the_standby_has_received(two: Two) -> None:
    two.primary.execute("UPDATE t SET n = 5 WHERE id <= 10")
    caught_up(two.primary, two.standby)
    settings = {"publication.name": "dbz_publication", "publication.autocreate.mode": "disabled"}
    with (
        workload(lambda connection: connection.execute(LOG_SNAPSHOT), two.primary),
        capture(two.standby.dsn, settings, until="current") as events,
    ):
        rows = [event.value["after"] for event in events]
    assert sorted((row["id"], row["n"]) for row in rows) == source_rows(two.primary, "t")


def test_a_table_added_on_the_primary_is_read_on_the_standby(
    two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "TABLES_INTERVAL_S", 0.1)
    two.primary.execute("CREATE PUBLICATION own FOR TABLE t")
    two.primary.execute("CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1), (2)")
    caught_up(two.primary, two.standby)
    settings = {"publication_name": "own", "publication_autocreate_mode": "disabled"}
    with Pipeline(tmp_path / "j", two.standby.dsn, **settings) as pipeline:
        two.running(pipeline)
        pipeline.until_agrees(two.primary, "public.t")
        two.primary.execute("ALTER PUBLICATION own ADD TABLE u")

        def agrees() -> bool:
            two.make_slots()  # of the later snapshot, a temporary one
            return Copy.of(pipeline.events()).rows("public.u") == [(1,), (2,)]

        until(agrees, "u's rows")
        two.primary.execute("INSERT INTO u VALUES (3)")
        pipeline.until_agrees(two.primary, "public.u")


@pytest.mark.postgres_versions(16, 18)
def test_a_promotion_while_streaming_is_followed(
    two: Two, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Pipeline(tmp_path / "j", two.standby.dsn) as pipeline:
        two.running(pipeline)
        two.primary.execute("UPDATE t SET n = 1")
        pipeline.until_agrees(two.primary, "public.t")
        caught_up(two.primary, two.standby)
        promote(two.standby)
        two.standby.execute("UPDATE t SET n = 2")
        pipeline.until_agrees(two.standby, "public.t")
    assert "went over from timeline 1 to 2" in caplog.text
    two.standby.execute("UPDATE t SET n = 3")
    with Pipeline(tmp_path / "j", two.standby.dsn) as pipeline:
        events = pipeline.until_agrees(two.standby, "public.t")
    assert [e.op for e in events] == ["r"] * 300 + ["u"] * 900


def test_a_promotion_while_the_source_is_away_is_followed(two: Two, tmp_path: Path) -> None:
    with Pipeline(tmp_path / "j", two.standby.dsn) as pipeline:
        two.running(pipeline)
        pipeline.until_agrees(two.primary, "public.t")
    two.primary.execute("UPDATE t SET n = 1")
    caught_up(two.primary, two.standby)
    promote(two.standby)
    two.standby.execute("UPDATE t SET n = 2")
    with Pipeline(tmp_path / "j", two.standby.dsn) as pipeline:
        events = pipeline.until_agrees(two.standby, "public.t")
    assert [e.op for e in events] == ["r"] * 300 + ["u"] * 600


def test_a_standby_that_is_behind_the_log_is_waited_for(two: Two, tmp_path: Path) -> None:
    with Pipeline(tmp_path / "j", two.standby.dsn) as pipeline:
        two.running(pipeline)
        pipeline.until_agrees(two.primary, "public.t")
        position = pipeline.task._position  # type: ignore[union-attr]
    server = two.standby.server
    server.stop("fast")
    server.settings = {**server.settings, "recovery_min_apply_delay": "1h", "primary_conninfo": ""}
    server.start()
    far = {**position.to_dict(), "lsn": position.lsn + (1 << 30)}
    store(tmp_path / "j", far)
    with (
        pytest.raises(ConnectionLost, match=r"the standby has come to .* only.*waited for"),
        Pipeline(tmp_path / "j", two.standby.dsn) as pipeline,
    ):
        pipeline.running()


def store(path: Path, position: dict[str, Any]) -> None:
    """As if the log had come that far."""
    with Journal.open(path) as journal:
        journal.append(Batch(Lane.STREAM, position))


@pytest.fixture(autouse=True)
def warnings_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
