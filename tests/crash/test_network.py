"""The source behind a network that cuts, stalls and trickles: the same oracle."""

from __future__ import annotations

import random
import time

import pytest

from tests.crash.conftest import MakeRig
from tests.crash.database import Size
from tests.crash.rig import eventually
from tests.crash.workload import Workload
from tests.fix_postgres import StartPostgres
from tests.fix_proxy import MakeProxy

pytestmark = pytest.mark.slow

STALL_S = 3.0  # longer than wal_sender_timeout


def test_cuts_stalls_and_trickles_lose_and_double_nothing(
    make_rig: MakeRig, proxy: MakeProxy, start_postgres: StartPostgres
) -> None:
    server = start_postgres(18, fsync=True, wal_sender_timeout="2s", max_connections=60)
    between = proxy(server.port)
    size = Size(300, 2000, 4, 1000)
    rig = make_rig(size, server=server, source_url=between.url(server.dsn("crash")))
    chance = random.Random(6)
    with Workload(rig.dsn, 6, size) as workload:
        rig.start()
        for what in ("cut", "stall", "cut", "trickle", "refuse", "cut", "stall", "cut"):
            rows = rig.stored_rows()
            eventually(lambda: rig.stored_rows() != rows, "progress")  # noqa: B023
            time.sleep(chance.random() * 0.3)
            if what == "cut":
                assert between.cut() >= 0
            elif what == "stall":
                between.stall(chance.choice(("both", "to_client", "to_server")))
                time.sleep(STALL_S)
                between.resume()
            elif what == "refuse":
                between.refuse()
                between.cut()
                time.sleep(1)
                between.accept()
            else:
                between.trickle(20_000)
                time.sleep(STALL_S)
                between.resume()
            assert rig.confirmed_lsn() <= rig.stored_lsn()
    workload.check()
    rig.catch_up()
    assert rig.end() == 0
    assert rig.check().changes > 0
