"""Source or target behind a network that cuts, stalls and trickles: the same oracle."""

from __future__ import annotations

import random
import time

import pytest

from tests.crash.conftest import MakeRig
from tests.crash.database import Size
from tests.crash.rig import eventually
from tests.crash.workload import Workload
from tests.fix_postgres import StartPostgres
from tests.fix_proxy import MakeProxy, Proxy

pytestmark = pytest.mark.slow

STALL_S = 3.0  # longer than wal_sender_timeout


def disturb(between: Proxy, what: str, chance: random.Random) -> None:
    """One trouble of a network, and its end."""
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
            disturb(between, what, chance)
            assert rig.confirmed_lsn() <= rig.stored_lsn()
    workload.check()
    rig.catch_up()
    assert rig.end() == 0
    assert rig.check().changes > 0


def test_a_target_behind_such_a_network_loses_and_doubles_nothing_either(
    make_rig: MakeRig, proxy: MakeProxy, start_postgres: StartPostgres
) -> None:
    """And the source does not wait for it: the journal grows while the target stalls."""
    server = start_postgres(18, fsync=True, max_connections=60)
    between = proxy(server.port)
    size = Size(50, 300, 2, 150)
    copy_url = between.url(server.dsn("copy"))
    source = {"snapshot.chunk.rows": 1000}
    rig = make_rig(size, server=server, source=source, copy_url=copy_url, sinks=("copy-postgres",))
    chance = random.Random(9)
    with Workload(rig.dsn, 9, size) as workload:
        rig.start()
        for what in ("cut", "stall", "refuse", "trickle"):
            at = rig.sink_offset("copy-postgres")
            eventually(lambda: rig.sink_offset("copy-postgres") > at, "progress")  # noqa: B023
            if what == "stall":
                rows = rig.stored_rows()
                between.stall()
                eventually(lambda: rig.stored_rows() > rows, "the source to go on")  # noqa: B023
                between.resume()
            else:
                disturb(between, what, chance)
    workload.check()
    rig.catch_up()
    assert rig.end() == 0
    assert rig.check().changes > 0
