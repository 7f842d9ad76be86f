"""Random kills of everything, in snapshot and in stream, under a concurrent workload.

``CDC_CRASH_SEED`` replays a run's choices (its moments are the machine's), and
``CDC_CRASH_KILLS`` says how many: 20 in the suite, 200 by ``make crash``.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter

import pytest

from tests.crash.conftest import MakeRig
from tests.crash.database import Size
from tests.crash.rig import EVERY, SOURCE, Rig, eventually
from tests.crash.workload import Workload

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("CDC_CRASH_KILLS", "20"))
SEED = int(os.environ.get("CDC_CRASH_SEED") or random.SystemRandom().randrange(10**6))
# Kills in the snapshot cost a new one each, so the rows grow with the kills.
SIZE = Size() if KILLS <= 50 else Size(4000, 20_000, 6, 30_000)
SNAPSHOT_S = 900.0  # it is durable chunk by chunk of ten rows, on a machine that may be busy

VICTIMS = {"source": 30, "reader": 20, "sink": 25, "worker": 12, "server": 10}


class Chaos:
    """Kills, one after the other."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig, self.random = rig, random.Random(seed)
        self.done: Counter[str] = Counter()
        self.in_snapshot = 0

    def step(self) -> None:
        """One kill, at a random moment: often once there was progress, sometimes at once."""
        rig, chance = self.rig, self.random
        if chance.random() < 0.8:
            rows = rig.stored_rows()
            eventually(lambda: rig.stored_rows() != rows, "progress")
        time.sleep(min(chance.expovariate(1 / 0.25), 1.5))
        before = rig.snapshot_open()
        self.done[self._kill()] += 1
        self.in_snapshot += before
        # confirmed is read first: what is stored only grows
        confirmed = rig.confirmed_lsn()
        stored = rig.stored_lsn()
        assert not stored or confirmed <= stored, f"confirmed {confirmed:X}, stored {stored:X}"

    def _kill(self) -> str:
        rig = self.rig
        while True:
            (victim,) = self.random.choices(list(VICTIMS), list(VICTIMS.values()))
            if victim == "server":
                rig.server.restart("immediate")
                return victim
            if victim == "worker":
                rig.kill_worker()
                return victim
            if victim == "source":
                pid = rig.pid(SOURCE)
            elif victim == "sink":
                pid = rig.pid(self.random.choice(rig.sinks))
            else:
                pid = self.random.choice(rig.readers() or [None])  # type: ignore[list-item]
            if rig.kill(pid):
                return victim


def test_whatever_is_killed_nothing_is_lost_or_doubled(make_rig: MakeRig) -> None:
    print(f"CDC_CRASH_SEED={SEED} CDC_CRASH_KILLS={KILLS}")
    rig = make_rig(SIZE, sinks=EVERY)
    with Workload(rig.dsn, SEED, SIZE) as workload:
        rig.start()
        chaos = Chaos(rig, SEED)
        for number in range(KILLS):
            if number == KILLS // 2:
                eventually(lambda: not rig.snapshot_open(), "the snapshot to end", SNAPSHOT_S)
            chaos.step()
            workload.check()
    workload.check()
    rig.catch_up()
    assert rig.end() == 0
    report = rig.check()
    print(f"{dict(chaos.done)}, {chaos.in_snapshot} in a snapshot;", report)
    assert report.changes > 0
