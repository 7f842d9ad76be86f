"""A sink's offset is of one journal: another one in its place is refused, whoever keeps it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import pytest

from cdc.errors import LogError
from cdc.log.backup import backup
from cdc.log.identity import identity_of
from cdc.log.journal import Journal
from cdc.runtime import identities
from cdc.runtime.offsets import Offsets
from tests.log.rows import make_block
from tests.runtime.sinking import Copy

KINDS = ("sql", "audit", "search", "file")
KEEPERS = ("sql", "audit", "search")
POSITIONS = {"sql": "cdc_offsets", "audit": "cdc_audit", "search": "cdc_search"}


def copy_of(kind: str, folder: Path) -> Copy:
    target = folder / "copy.sqlite"
    config = {
        "sql": {},
        "audit": {"connection.url": f"jdbc:sqlite:{target}"},
        "search": {"connection.url": "", "search.file": str(target)},
        "file": {"file": str(folder / "lines")},
    }[kind]
    return Copy(folder, {"connector.class": kind, **config})


def fill(copy: Copy, ids: Iterable[int]) -> int:
    return copy.append(*(make_block([i]) for i in ids))


def everything(copy: Copy) -> object:
    """All that the target and the connector's store hold."""
    found = []
    for path in (copy.target, copy.store):
        if path.exists():
            with closing(sqlite3.connect(path)) as database:
                found.append(list(database.iterdump()))
    lines = copy.folder / "lines"
    return found, lines.read_bytes() if lines.exists() else b""


def identity(copy: Copy) -> str:
    found = identity_of(copy.journal)
    assert found is not None
    return found


def stored(copy: Copy) -> str | None:
    with closing(Offsets(copy.store)) as offsets:
        return offsets.load()["shop"].identity


def move(copy: Copy, offset: int | None) -> None:
    with closing(Offsets(copy.store)) as offsets:
        offsets.move("shop", offset)


def target_identity(copy: Copy, kind: str) -> str | None:
    with closing(sqlite3.connect(copy.target)) as database:
        ((found,),) = database.execute(f"SELECT identity FROM {POSITIONS[kind]}").fetchall()
    return str(found) if found is not None else None


def forget_identity(path: Path, table: str) -> None:
    """As a version before there were identities made it."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"ALTER TABLE {table} DROP COLUMN identity")
        database.commit()


def refused(copy: Copy, *texts: str) -> None:
    """With these words, and nothing is changed by it."""
    before = everything(copy)
    with pytest.raises(LogError) as caught:
        copy.run()
    for text in (*texts, "PUT /connectors/copy/stop", "DELETE", "PATCH"):
        assert text in str(caught.value)
    assert everything(copy) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_journal_made_anew_is_refused_by_both_names(tmp_path: Path, kind: str) -> None:
    copy = copy_of(kind, tmp_path)
    fill(copy, range(10))
    copy.run()
    first = identity(copy)
    assert stored(copy) == first
    if kind in KEEPERS:
        assert target_identity(copy, kind) == first
    shutil.rmtree(copy.journal)
    fill(copy, range(100, 130))  # longer than the first was
    refused(copy, f"identity {first}", f"identity {identity(copy)}", "its offset 10")


@pytest.mark.parametrize("kind", KEEPERS)
def test_a_target_knows_it_without_the_connectors_store(tmp_path: Path, kind: str) -> None:
    copy = copy_of(kind, tmp_path)
    fill(copy, range(10))
    copy.run()
    first = identity(copy)
    shutil.rmtree(copy.journal)
    copy.store.unlink()
    fill(copy, range(100, 130))
    with pytest.raises(LogError, match=f"{first}.*{identity(copy)}"):
        copy.run()
    assert target_identity(copy, kind) == first


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [None, 20])
def test_an_offset_moved_by_hand_is_of_the_journal_that_is_there(
    tmp_path: Path, kind: str, place: int | None
) -> None:
    copy = copy_of(kind, tmp_path)
    fill(copy, range(10))
    copy.run()
    shutil.rmtree(copy.journal)
    end = fill(copy, range(100, 130))
    move(copy, place)
    copy.run()
    assert copy.position() == end
    assert stored(copy) == identity(copy)
    if kind in KEEPERS:
        assert target_identity(copy, kind) == identity(copy)
    copy.run()  # and goes on


@pytest.mark.parametrize("kind", KINDS)
def test_an_older_backup_behind_the_sink_is_told_apart(tmp_path: Path, kind: str) -> None:
    copy = copy_of(kind, tmp_path)
    fill(copy, range(10))
    backup(copy.journal, tmp_path / "backup")
    fill(copy, range(10, 15))
    copy.run()
    first = identity(copy)
    shutil.rmtree(copy.journal)
    shutil.copytree(tmp_path / "backup", copy.journal)
    assert identity(copy) == first
    refused(copy, "journal shop ends at offset 10, the sink stands at 15", "older backup")


@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_that_is_not_behind_goes_on(tmp_path: Path, kind: str) -> None:
    copy = copy_of(kind, tmp_path)
    fill(copy, range(10))
    copy.run()
    backup(copy.journal, tmp_path / "backup")
    shutil.rmtree(copy.journal)
    shutil.copytree(tmp_path / "backup", copy.journal)
    end = fill(copy, range(10, 12))
    copy.run()
    assert copy.position() == end


def test_a_removed_journal_without_a_successor_is_refused_too(tmp_path: Path) -> None:
    copy = copy_of("sql", tmp_path)
    fill(copy, range(10))
    copy.run()
    shutil.rmtree(copy.journal)
    refused(copy, "ends at offset 0, the sink stands at 10", "removed")


@pytest.mark.parametrize("kind", KINDS)
def test_what_older_versions_stored_goes_on_and_takes_the_identity(
    tmp_path: Path, kind: str
) -> None:
    copy = copy_of(kind, tmp_path)
    end = fill(copy, range(10))
    copy.run()
    forget_identity(copy.store, "position")
    if kind in KEEPERS:
        forget_identity(copy.target, POSITIONS[kind])
    copy.run()  # with nothing new to read
    assert copy.position() == end
    assert stored(copy) == identity(copy)
    if kind in KEEPERS:
        assert target_identity(copy, kind) == identity(copy)
    shutil.rmtree(copy.journal)
    fill(copy, range(100, 130))
    refused(copy, "its offset 10")


def _until(done: Callable[[], bool], copy: Copy) -> Callable[[], bool]:
    """Once: replace the journal beneath the running sink, then wait for what comes of it."""
    state = {"replaced": False}

    def condition() -> bool:
        if done() and not state["replaced"]:
            state["replaced"] = True
            shutil.rmtree(copy.journal)
            fill(copy, range(100, 130))
        return False

    return condition


def test_a_journal_replaced_beneath_a_running_sink_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities, "LOOK_S", 0.0)
    copy = copy_of("sql", tmp_path)
    fill(copy, range(10))
    first = identity(copy)
    with pytest.raises(LogError, match=f"{first}.*it was removed or replaced"):
        copy.run(until=_until(lambda: "stored 10" in copy.watch.log, copy))
    assert copy.position() == 10


def test_a_sink_that_came_before_its_journal_takes_the_identity(tmp_path: Path) -> None:
    copy = copy_of("sql", tmp_path)
    Journal.open(copy.journal).close()
    assert identity_of(copy.journal) is None

    def condition() -> bool:
        if "stored 0" in copy.watch.log and identity_of(copy.journal) is None:
            fill(copy, range(10))
        return "stored 10" in copy.watch.log

    copy.run(until=condition)
    assert stored(copy) == target_identity(copy, "sql") == identity(copy)
