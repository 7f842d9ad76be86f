"""Parquet: the last records before a quiet time are sealed, however often the sink starts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sinks import audit_parquet
from tests.blocks import INT32
from tests.contract.targets import AuditTarget, started
from tests.sinks.audited import fill, shop

pytest.importorskip("pyarrow.parquet")
AGE_S = 3600


class Clock:
    """The wall's, as the store sees it; set by hand."""

    now = 1_800_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(audit_parquet, "time", clock)
    return clock


@pytest.fixture
def target(tmp_path: Path) -> AuditTarget:
    return AuditTarget(f"parquet:{tmp_path}/audit", **{"audit.parquet.ms": str(AGE_S * 1000)})


def sealed(folder: Path) -> list[str]:
    return sorted(file.stem for file in (folder / "audit" / "audit").glob("*.parquet"))


def test_records_that_wait_are_sealed_in_time_though_no_more_come(
    tmp_path: Path, target: AuditTarget, clock: Clock
) -> None:
    fill(target)
    clock.now += AGE_S - 1
    task = started(target)  # what has passed till then counts
    task.tick()
    assert sealed(tmp_path) == []
    clock.now += 1
    task.tick()
    task.tick()
    task.stop()
    assert sealed(tmp_path) == ["000000000001-000000000003"]
    assert len(target.records()) == 3


def test_the_time_begins_with_the_first_record_after_a_seal(
    tmp_path: Path, target: AuditTarget, clock: Clock
) -> None:
    source = shop()
    table = source.table("orders", id=INT32)
    for wait_s in (AGE_S, AGE_S, AGE_S - 1):
        fill(target, source)  # the second comes when it is time for the first
        clock.now += wait_s
        source.insert(table, id=1)
    task = started(target)
    task.tick()
    assert sealed(tmp_path) == ["000000000001-000000000004"]
    clock.now += 1
    task.tick()
    task.stop()
    assert sealed(tmp_path)[1:] == ["000000000005-000000000005"]
    assert len(target.records()) == 5


def test_records_that_nobody_knows_the_time_of_are_sealed(
    tmp_path: Path, target: AuditTarget
) -> None:
    """An older version noted none, and a clock may have been set back."""
    fill(target)
    with closing(sqlite3.connect(tmp_path / "audit" / "open.db")) as database, database:
        database.execute(f"DROP TABLE {audit_parquet.WAITING}")
    task = started(target)
    task.tick()
    task.stop()
    assert sealed(tmp_path) == ["000000000001-000000000003"]
