"""A replay by LSN from a journal that went on at a promoted server: two timelines, one LSN each."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc.api import Batch, Lane
from cdc.errors import ConfigError
from cdc.log import Journal
from cdc.runtime import replay
from cdc.runtime.replay import Sink
from cdc.runtime.state import DataDir
from tests.log.rows import make_block


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    """Ids 100 … 199 on timeline 1, 150 … 249 on timeline 2: the LSN is 1000 more."""
    data = DataDir(str(tmp_path))
    data.prepare()
    with Journal.open(data.journal("shop")) as journal:
        for timeline, first in ((1, 100), (2, 150)):
            position = {"system": "s", "timeline": timeline}
            journal.append(Batch(Lane.SNAPSHOT, position, None, close=True))
            for at in range(first, first + 100, 10):
                journal.append(Batch(Lane.STREAM, position, make_block(range(at, at + 10))))
            journal.append(Batch(Lane.STREAM, position, None, close=True))
    return data


def start(data: DataDir, place: str) -> int:
    config = {"name": "copy", "connector.class": "console", "topics.regex": ".*"}
    request = replay.read_request({"from": place, "dry-run": True})
    return replay.make_plan(data, Sink("copy", config, {}, ["shop"], {}), request).start


def text(id_: int) -> str:
    """An LSN of the transaction of an id that ends in 0, beyond the commit before it."""
    return f"0/{id_ + 1005:X}"


def test_an_lsn_of_both_timelines_needs_one(data: DataDir) -> None:
    with pytest.raises(ConfigError, match=r"from: .*is on several timelines: .*Say which"):
        start(data, text(180))
    assert start(data, f"1:{text(180)}") == 80
    assert start(data, f"2:{text(180)}") == 130


def test_an_lsn_of_one_timeline_is_its_own(data: DataDir) -> None:
    assert start(data, text(110)) == 10
    assert start(data, text(230)) == 180
    for place in (f"2:{text(110)}", f"1:{text(230)}", f"3:{text(180)}", text(300)):
        with pytest.raises(ConfigError, match=r"It holds .* on timeline 1 .* on timeline 2"):
            start(data, place)
