"""A sink that is killed at any moment has every record once, its chain or its words intact."""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from sinks.audit_chain import COLUMNS, Hasher, verify
from sinks.audit_target import open_store
from sinks.search_index import search, unpacked
from tests.contract.targets import check_words
from tests.fix_postgres import Database
from tests.forks import Fork
from tests.sinks.history import WORDS, History, history, run

SEED, COUNT = 11, 120
KINDS = ("sqlite", "parquet", "postgres", "search")
POINTS = {
    "sqlite": ("audit.commit.before", "audit.commit.after"),
    "parquet": (
        "audit.commit.before", "audit.commit.after", "audit.seal.before_rename",
        "audit.seal.after_rename",
    ),
    "postgres": ("audit.commit.before", "audit.commit.after"),
    "search": ("search.commit.before", "search.commit.after"),
}  # fmt: skip


@pytest.fixture
def path(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of the target: a file, a folder, or a database's URL."""
    if kind == "postgres":
        database: Database = request.getfixturevalue("database")
        return database.dsn
    return str(tmp_path / "target")


def check(kind: str, path: str, told: History) -> None:
    if kind == "search":
        check_index(Path(path), told)
        return
    store = open_store(path, existing=True)
    store.begin_read()
    (position,) = store.positions()
    report = verify(store.records("audit"), Hasher(None), kept=position.end)
    assert report.ok, report.problem
    found = [dict(zip(COLUMNS, row, strict=True)) for row in store.records("audit")]
    store.close()
    offsets = [record["journal_offset"] for record in found]
    assert offsets == sorted(told.authors)
    for record in found:
        who = told.authors[record["journal_offset"]]
        assert record["who"] == (None if who is None else who.encode())


def check_index(path: Path, told: History) -> None:
    check_words(path)
    db = sqlite3.connect(path)
    rows = db.execute("SELECT key, layout, body FROM documents").fetchall()
    db.close()
    expected = {
        str(key): {n: row[n] for n in ("note", "big") if row[n] is not None}
        for key, row in told.rows.items()
    }
    assert {key: unpacked(layout, body) for key, layout, body in rows} == expected
    for word in WORDS:
        hits = {hit.key for hit in search(str(path), word, limit=10_000)}
        holds = {key for key, texts in expected.items() if word in " ".join(texts.values())}
        assert hits == holds


def finish(kind: str, path: str, told: History) -> None:
    with Fork(run, kind, path, told.blocks) as fork:
        assert fork.end() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_failpoints(kind: str, path: str) -> None:
    told = history(SEED, COUNT)
    for point in POINTS[kind]:
        for hit in (1, 3):
            with Fork(run, kind, path, told.blocks, points=f"{point}=kill@{hit}") as fork:
                assert fork.end() == -signal.SIGKILL
    finish(kind, path, told)
    check(kind, path, told)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(kind: str, path: str) -> None:
    told, chance = history(SEED, COUNT), random.Random(kind)
    killed = 0
    for _ in range(12):
        with Fork(run, kind, path, told.blocks) as fork:
            assert fork.hear() == "ready"
            time.sleep(chance.uniform(0.0, 0.03))  # a whole run takes some 0.2
            killed += fork.kill() == -signal.SIGKILL
    assert killed > 3
    finish(kind, path, told)
    check(kind, path, told)
