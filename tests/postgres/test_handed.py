"""What was handed out and is not durable: the lag, and whether a stop was in order."""

from __future__ import annotations

from typing import Any

import pytest

from cdc.api import Batch, Lane
from cdc.block import Block, Transaction
from cdc.postgres.handed import Handed


def stream(lsn: int, commit_s: int) -> Batch:
    transaction = Transaction(1, lsn, lsn, commit_s * 1_000_000, 0)
    return Batch(Lane.STREAM, {"lsn": lsn}, Block.build([], (), (transaction,), 0, marker="false"))


def test_the_lag_grows_until_what_was_handed_out_is_durable() -> None:
    handed = Handed()
    assert handed.lag_ms(100, under_way=False) == 0
    handed.out([stream(1, 90), stream(2, 95)])
    assert handed.lag_ms(100, under_way=False) == 5000
    assert handed.lag_ms(200, under_way=False) == 105_000, "a journal without space"
    handed.durable(Lane.STREAM, {"lsn": 1})
    assert handed.lag_ms(100, under_way=False) == 5000
    handed.durable(Lane.STREAM, {"lsn": 2})
    assert handed.lag_ms(100, under_way=False) == 0
    assert handed.lag_ms(100, under_way=True) == 5000
    assert handed.lag_ms(1, under_way=True) == 0, "clocks differ"


@pytest.mark.parametrize("lane", Lane)
def test_each_lane_has_to_be_durable(lane: Any) -> None:
    handed = Handed()
    assert handed.all_durable
    handed.out([Batch(lane, {"lsn": 1})])
    assert not handed.all_durable
    handed.durable(lane, {})
    assert not handed.all_durable
    handed.durable(lane, {"lsn": 1})
    assert handed.all_durable
