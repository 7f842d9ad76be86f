"""Random kills of everything, in snapshot and in stream, under a concurrent workload.

In between, sinks that end in the source's state are replayed from anywhere.

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

# Each is killed once at first, in the snapshot and in this order, then as often as weighed.
VICTIMS = {"reader": 20, "source": 30, "sink": 25, "server": 10, "worker": 12}

REPLAYED = ("copy-postgres", "copy-sqlite", "search")  # others are logs: theirs would be doubled


class Chaos:
    """Kills, one after the other, and replays."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig, self.random = rig, random.Random(seed)
        self.done: Counter[str] = Counter()
        self.replays: Counter[str] = Counter()
        self.in_snapshot: Counter[str] = Counter()

    def step(self, victim: str | None = None) -> None:
        """One kill, at a random moment: often once there was progress, sometimes at once."""
        rig, chance = self.rig, self.random
        if chance.random() < 0.8:
            rows = rig.stored_rows()
            eventually(lambda: rig.stored_rows() != rows, "progress")
        time.sleep(min(chance.expovariate(1 / 0.25), 1.5))
        before = rig.snapshot_open()
        killed = eventually(lambda: self._kill(victim or self._choice()), "somebody to kill")
        self.done[killed] += 1
        self.in_snapshot[killed] += before
        # confirmed is read first: what is stored only grows
        confirmed = rig.confirmed_lsn()
        stored = rig.stored_lsn()
        assert not stored or confirmed <= stored, f"confirmed {confirmed:X}, stored {stored:X}"

    def replay(self, sink: str) -> None:
        """From a random place behind it, while it is at work or is being started again."""
        share = self.random.random()

        def accepted() -> bool:
            assert self.rig.worker is not None
            body = {"from": str(int(self.rig.sink_offset(sink) * share))}
            answer = self.rig.worker("POST", f"/connectors/{sink}/replay", body)
            return answer.status == 202  # not while nothing is stored yet

        eventually(accepted, f"a replay of {sink}")
        self.replays[sink] += 1

    def _choice(self) -> str:
        return self.random.choices(list(VICTIMS), list(VICTIMS.values()))[0]

    def _kill(self, victim: str) -> str:
        """The victim; empty when none of that kind lives at this moment."""
        rig = self.rig
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
        return victim if rig.kill(pid) else ""


def test_whatever_is_killed_nothing_is_lost_or_doubled(make_rig: MakeRig) -> None:
    print(f"CDC_CRASH_SEED={SEED} CDC_CRASH_KILLS={KILLS}")
    rig = make_rig(SIZE, sinks=EVERY)
    with Workload(rig.dsn, SEED, SIZE) as workload:
        rig.start()
        chaos = Chaos(rig, SEED)
        for victim in VICTIMS:
            chaos.step(victim)
            workload.check()
        for number in range(len(VICTIMS), KILLS):
            if number == max(KILLS // 2, len(VICTIMS)):
                eventually(lambda: not rig.snapshot_open(), "the snapshot to end", SNAPSHOT_S)
            if number % 3 == 0:
                chaos.replay(REPLAYED[number // 3 % len(REPLAYED)])
            chaos.step()
            workload.check()
    workload.check()
    rig.catch_up()
    assert rig.end() == 0
    report = rig.check()
    print(f"{dict(chaos.done)}, {dict(chaos.in_snapshot)} in a snapshot;", report)
    print(f"replayed: {dict(chaos.replays)}")
    assert chaos.done.keys() == VICTIMS.keys()
    assert {victim for victim, times in chaos.in_snapshot.items() if times} >= {"reader", "source"}
    assert report.changes > 0
    assert KILLS < 16 or chaos.replays.keys() == set(REPLAYED)
