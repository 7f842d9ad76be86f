"""A kill at every step that makes something durable: journal, source, sinks, the worker's files.

One system goes through all of them, since what one kill leaves behind is what the next one
meets; the oracle speaks at the end. ``CDC_CRASH_FAILPOINT`` runs a single one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from cdc import failpoints
from tests.crash.conftest import MakeRig
from tests.crash.database import Size
from tests.crash.rig import Rig, eventually
from tests.crash.workload import Workload

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
HIT = re.compile(r'failpoints\.hit\("([^"]+)"\)')
# Name and hit. Those of a generation's beginning come first: there has to be a snapshot that
# was cut. The hit is chosen so that the step is one in the middle, not the first of a start.
KILLS = (
    ("journal.generation.between_lanes", 1),
    ("journal.create.before_rename", 1),
    ("journal.create.after_rename", 1),
    ("journal.close_lane.before_base", 1),
    ("journal.close_lane.after_base", 1),
    ("journal.append.before_insert", 9),
    ("journal.append.before_commit", 9),
    ("journal.append.after_commit", 9),
    ("journal.seal.before_mark", 1),
    ("journal.seal.after_mark", 1),
    ("journal.seal.after_checkpoint", 1),
    ("source.confirm.before", 5),
    ("sink.flush.before", 3),
    ("sink.store.before", 3),
    ("sink.store.after", 3),
    ("sql.commit.before", 3),
    ("sql.commit.after", 3),
    ("file.flush.before_state", 2),
    ("file.state.before_rename", 2),
    ("file.state.after_rename", 2),
    ("file.rotate.before_rename", 1),
    ("file.rotate.after_rename", 1),
    ("state.write.before_rename", 2),
    ("state.write.after_rename", 2),
    ("state.write.before_rename", 7),
    ("state.write.after_rename", 7),
)


def names_in_code() -> set[str]:
    files = [*(ROOT / "cdc").rglob("*.py"), *(ROOT / "sinks").rglob("*.py")]
    return {name for file in files for name in HIT.findall(file.read_text())}


def test_every_failpoint_in_the_code_is_killed_at() -> None:
    """Here, or by the tests of a part alone: what removes rows, replays, has no journal."""
    names, here = names_in_code(), {name for name, _ in KILLS}
    files = [file for file in (ROOT / "tests").rglob("*.py") if file.parent.name != "crash"]
    others = "".join(file.read_text() for file in files)
    assert here <= names
    assert {name for name in names - here if name not in others and not kills_all(name)} == set()


def kills_all(name: str) -> bool:
    """tests/log/test_crash.py takes its names from the code."""
    return name.startswith("journal.")


def start_and_die(rig: Rig, name: str, hit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose tasks, or which itself, is killed at the n-th hit; then it is gone."""
    log = rig.folder / "worker.log"
    before = log.read_text().count("ended (-9)") if log.exists() else 0
    with monkeypatch.context() as patch:
        patch.setenv(failpoints.VARIABLE, f"{name}=kill@{hit}")
        try:
            worker = rig.start()
        except AssertionError:
            return  # it did not live to be ready
    eventually(
        lambda: worker.process.poll() is not None or log.read_text().count("ended (-9)") > before,
        f"a kill at {name}",
    )
    assert worker.process.poll() in (None, -9)
    rig.stop_hard()


def test_a_kill_at_each_persist_step_loses_and_doubles_nothing(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = os.environ.get("CDC_CRASH_FAILPOINT")
    kills = [kill for kill in KILLS if only in (None, kill[0])]
    size = Size(200, 1500, 4, 800)
    rig = make_rig(size, sink={"file.rotate.bytes": 100_000})
    with Workload(rig.dsn, 5, size, pause_s=0.01) as workload:
        for name, hit in kills:
            start_and_die(rig, name, hit, monkeypatch)
        rig.start()
    workload.check()
    rig.catch_up()
    assert rig.end() == 0
    assert rig.check().changes > 0
