"""A kill at every step that makes something durable: journal, source, sinks, the worker's files.

One system goes through all of them, since what one kill leaves behind is what the next one
meets; the oracle speaks at the end. ``CDC_CRASH_FAILPOINT`` runs a single one.
"""

from __future__ import annotations

import ast
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
HIT = re.compile(r'\bhit\(f?"([^"]+)"\)')
# A step of cdc.durable's is named by its caller.
WRITE = re.compile(r'\bwrite\(.*, "([^"]+)"\)')
FAILPOINT = re.compile(r"\w+(?:\.\w+){1,2}")
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
    texts = [file.read_text() for file in files]
    found = {name for text in texts for name in HIT.findall(text)}
    points = {point for text in texts for point in WRITE.findall(text)}
    return {
        name.replace("{point}", point)
        for name in found
        for point in (points if "{point}" in name else {""})
    }


def test_every_failpoint_in_the_code_is_killed_at() -> None:
    """Here, or by the tests of a part alone: what removes rows, replays, has no journal."""
    names, here = names_in_code(), {name for name, _ in KILLS}
    files = [file for file in (ROOT / "tests").rglob("*.py") if file.parent.name != "crash"]
    others = "".join(file.read_text() for file in files)
    assert here <= names
    killed = {name for name in names if f"{name}=kill" in others or f'"{name}"' in others}
    assert {name for name in names - here - killed if not kills_all(name)} == set()


# Steps that persist something and have no failpoint in the same function: why none is needed.
# A word with dots is the failpoint that a caller hits.
NO_FAILPOINT = {
    "cdc/capture/output.py:_cut": "the next start does it again",
    "cdc/capture/output.py:_open": "an empty file",
    "cdc/capture/output.py:_write_file": "takes a half line back, as the next start would",
    "cdc/capture/output.py:sync": "its caller: capture.after_write, capture.after_sync",
    "cdc/capture/state.py:__init__": "a process id, for people",
    "cdc/capture/state.py:forget": "one removal that a command asks for",
    "cdc/durable.py:make_folder": "a folder with nothing in it; the next start looks at it again",
    "cdc/durable.py:sync": "its callers have their own",
    "cdc/history/export.py:_replacing": "a file for people: the same command makes it again",
    "cdc/log/backup.py:_copy_database": "what a backup that was cut has left",
    "cdc/log/backup.py:_leave_only": "what is in no journal yet; the next backup does it again",
    "cdc/log/files.py:__init__": "a process id, for people",
    "cdc/log/files.py:lacks_space": "a trial, of which nothing stays",
    "cdc/log/files.py:remove_segment": "its caller: journal.retain.before_unlink",
    "cdc/log/files.py:remove_unfinished": "what a crash left; the next open does it again",
    "cdc/log/retention.py:_make_gap": "its caller: journal.drop.after_gap; before, nothing is gone",
    "cdc/log/retention.py:load": "what a kill at journal.drop.after_gap may leave, at each open",
    "cdc/log/segment.py:_transaction": "journal.append.before_commit, journal.append.after_commit",
    "cdc/log/segment.py:change": "callers: journal.seal.before_mark, journal.close_lane.after_base",
    "cdc/log/segment.py:identify": "one transaction, done again by the next open",
    "cdc/runtime/deadletters.py:_each": "one transaction that a command asks for",
    "cdc/runtime/deadletters.py:begin": "one transaction before letters.put.before",
    "cdc/runtime/deadletters.py:delivered": "one transaction after letters.put.after",
    "cdc/runtime/deadletters.py:leave": "one transaction after letters.put.after",
    "cdc/runtime/deadletters.py:put": "one transaction: letters.put.before is about what is around",
    "cdc/runtime/offsets.py:intend": "the replay: replay.intended",
    "cdc/runtime/offsets.py:load": "reads",
    "cdc/runtime/offsets.py:move": "one transaction that a request asks for",
    "cdc/runtime/offsets.py:note_replay": "before the task is told: the next start notes it again",
    "cdc/runtime/offsets.py:store": "the loop: sink.store.before, sink.store.after",
    "cdc/runtime/state.py:delete": "one rename: the connector is there or in deleted/",
    "cdc/runtime/state.py:forget": "one removal; a worker that still finds it looks again",
    "cdc/runtime/state.py:withdraw": "a file for commands, which a killed worker leaves, too",
    "sinks/audit.py:_open": "tables without a row, made again if need be",
    "sinks/audit_parquet.py:_remove_drafts": "what a kill at audit.seal.before_rename left",
    "sinks/audit_parquet.py:commit": "the task: audit.commit.before, audit.commit.after",
    "sinks/audit_parquet.py:_settle": "around audit.seal.after_rename; done again by the next tick",
    "sinks/audit_parquet.py:last": "makes the position's table, without a row",
    "sinks/audit_postgres.py:commit": "the task: audit.commit.before, audit.commit.after",
    "sinks/audit_sqlite.py:commit": "the task: audit.commit.before, audit.commit.after",
    "sinks/file.py:_cut": "the next start does it again",
    "sinks/file.py:_finish_rotation": "rotate: file.rotate.before_rename, file.rotate.after_rename",
    "sinks/file.py:_mend": "takes a half line back, as the next start would",
    "sinks/file.py:seek": "its state's: file.state.before_rename, file.state.after_rename",
    "sinks/search_index.py:_prepare": "tables without a row, made again if need be",
    "sinks/search_index.py:commit": "the task: search.commit.before, search.commit.after",
    "sinks/sql.py:_load_offset": "makes the offsets' table, without a row",
    "sinks/sql_postgres.py:prepare": "makes the offsets' table, without a row",
}


def is_persist_step(node: ast.AST) -> bool:
    """A rename, removal, cut or fsync; a commit, or a block that commits; a confirmation."""
    if isinstance(node, ast.With):
        return any(
            ast.unparse(item.context_expr) in ("self._db", "self._transaction()")
            for item in node.items
        )
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    name, first = called.rpartition(".")[2], node.args[0] if node.args else None
    if name == "execute":
        return isinstance(first, ast.Constant) and first.value == "COMMIT"
    if name == "replace":
        return "." in called and len(node.args) == 1 and not node.keywords
    if name == "commit":
        return first is None or called == "self._task.commit"
    if name == "truncate":
        return called == "os.truncate"  # not the SQL sink's tables
    return name in ("rename", "unlink", "ftruncate", "fsync", "sync")


def test_every_persist_step_has_a_failpoint_or_a_reason() -> None:
    bare = set()
    for file in [*(ROOT / "cdc").rglob("*.py"), *(ROOT / "sinks").rglob("*.py")]:
        where = str(file.relative_to(ROOT))
        if where.startswith("cdc/demo/"):
            continue
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef) and not HIT.search(
                ast.unparse(function).replace("'", '"')
            ):
                bare |= {
                    f"{where}:{function.name}"
                    for node in ast.walk(function)
                    if is_persist_step(node)
                }
    assert bare == NO_FAILPOINT.keys(), bare ^ NO_FAILPOINT.keys()
    named = {word for text in NO_FAILPOINT.values() for word in FAILPOINT.findall(text)}
    assert named <= names_in_code()
    assert len(named) > 10


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
