"""Our slot: waited for while it is busy, and what it can be made."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest

from cdc.api import LogState
from cdc.errors import SlotBusy
from cdc.postgres import slots
from cdc.postgres.source import PostgresSourceTask
from tests.fix_postgres import Database
from tests.pipeline import Pipeline, config_for


def test_a_busy_slot_is_looked_at_often_and_refused_in_time(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    read_slot = slots.read_slot

    def counted(*arguments: Any) -> Any:
        looks.append(time.monotonic())
        return read_slot(*arguments)

    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with Pipeline(tmp_path / "j", database.dsn) as first:
        first.running()
        monkeypatch.setattr(slots, "read_slot", counted)
        patience = {"slot_max_retries": "3", "slot_retry_delay_ms": "400"}  # 1.2 s in all
        second = PostgresSourceTask(config_for(database.dsn, **patience))
        with pytest.raises(SlotBusy, match=r"is active for pid .*stop that reader"):
            second.start(LogState())
        second.stop()
    waited = looks[-1] - looks[0]
    pauses = [after - before for before, after in itertools.pairwise(looks)]
    assert 1.2 <= waited < 5
    assert min(pauses) >= slots.BUSY_SLOT_POLL_S == 0.2
    assert len(looks) >= 4
