"""Chunks: every tuple once a snapshot, whatever is lost in between; on real servers too."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.postgres.chunks import (
    UNREAD,
    Chunk,
    Progress,
    TableProgress,
    chunk_condition,
    newer_condition,
    plan_table,
    rows_at_once,
    tuples_per_page,
)
from cdc.postgres.ranges import Ranges
from tests.servers import give_up


@given(st.lists(st.integers(0, 60)))
def test_ranges_are_a_set(numbers: list[int]) -> None:
    found = Ranges()
    for number in numbers:
        found.add(number)
    assert list(found) == sorted(set(numbers))
    assert len(found) == len(set(numbers))
    assert [n for n in range(-1, 62) if n in found] == list(found)
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(found.pairs)), "as few as can be"
    assert found == Ranges(found.pairs) == Ranges.of(numbers)


def stored(table: TableProgress) -> TableProgress:
    """As it comes back from the log."""
    return TableProgress.from_dict(json.loads(json.dumps(table.to_dict())))


@given(st.integers(0, 50), st.integers(1, 400), st.integers(1, 20_000), st.integers(0, 10**8))
def test_chunks_cover_all_pages_once(pages: int, rows: int, chunk_rows: int, nbytes: int) -> None:
    table = plan_table(
        relation=1, file=1, pages=pages, rows=rows, nbytes=nbytes, chunk_rows=chunk_rows,
        snapshot="5:5:",
    )  # fmt: skip
    chunks = list(table.remaining("t"))
    assert chunks[0].first_page == 0
    assert chunks[-1].end_page is None, "the last one takes what was appended since"
    for one, two in itertools.pairwise(chunks):
        assert one.end_page == two.first_page
    assert chunks[-1].first_page <= max(pages - 1, 0)


@given(
    st.integers(0, 120),
    st.lists(st.tuples(st.integers(0, 45), st.lists(st.integers(0, 40), max_size=10)), max_size=5),
    st.integers(0, 45),
)
@settings(max_examples=300)
def test_every_place_is_read_once_and_visited_for_what_moved(
    pages: int, runs: list[tuple[int, list[int]]], last_growth: int
) -> None:
    """Each run reads some of what is left and is cut; the last one reads on to the end.

    Before each the table grows. ``seen`` is what the log has of each page: the snapshot it
    was last read or visited under; ``born`` the number of the first snapshot that shows it.
    """
    table = plan_table(
        relation=9, file=1, pages=pages, rows=pages, nbytes=0, chunk_rows=10, snapshot="1:1:"
    )
    born = dict.fromkeys(range(pages), 1)
    seen: dict[int, str] = {}
    number = 1
    for growth, picks in [(0, []), *runs, (last_growth, None)]:
        number += 1
        snapshot = f"{number}:{number}:"
        born |= dict.fromkeys(range(len(born), len(born) + growth), number)
        table = stored(table)
        table.under(snapshot, len(born))
        left = list(table.remaining("t"))
        assert sorted(p for c in left for p in places(c, born)) == list(born), "all, and once"
        chosen = left if picks is None else [left[p % len(left)] for p in picks if left]
        for chunk in dict.fromkeys(chosen):
            assert len(places(chunk, born)) <= 10, "no chunk grows with the table"
            for page in places(chunk, born):
                check_place(chunk, seen.get(page), born[page])
                seen[page] = snapshot
            table.store(chunk)
        if table.complete:
            break
    assert table.complete
    assert seen == dict.fromkeys(born, snapshot), "all is as of one snapshot"
    assert not list(stored(table).remaining("t"))
    assert stored(table).is_of(9)
    assert not stored(table).is_of(8)
    chunks = table.chunks
    table.under("99:99:", 10**6)
    assert (table.complete, table.chunks) == (True, chunks)


def places(chunk: Chunk, born: dict[int, int]) -> list[int]:
    end = len(born) if chunk.end_page is None else min(chunk.end_page, len(born))
    return list(range(chunk.first_page, end))


def check_place(chunk: Chunk, seen: str | None, born: int) -> None:
    if chunk.kind == UNREAD:
        assert seen is None, "nothing is read twice"
    elif seen is None:
        # it filled up a chunk that was read before: all in it is newer than that
        assert int((chunk.newer_than or "").split(":")[0]) < born
    else:
        # nothing between the snapshot it was seen under and this one is left out
        assert chunk.newer_than == seen


@given(st.integers(0, 6), st.permutations(range(7)))
def test_ranges_of_keys_are_whole_once_all_of_them_are_stored(last: int, order: list[int]) -> None:
    table = TableProgress(1, 0, 0, "1:1:")
    (chunk,) = table.remaining("t")
    chunks = [chunk]
    for number in range(last):
        chunks.append(chunks[-1].following((str(number),)))
    for done, index in enumerate([i for i in order if i <= last]):
        assert not table.complete, done
        table = stored(table)
        table.store(replace(chunks[index], more=index < last))
    assert table.complete
    assert not list(table.remaining("t"))
    again = TableProgress(1, 0, 0, "1:1:", Ranges.of([0, 1]))
    again.under("2:2:", 99)
    assert list(stored(again).remaining("t")) == chunks[:1], "from the beginning"


def test_a_range_of_keys_has_so_many_rows_or_bytes() -> None:
    assert rows_at_once(0, 0, 100) == rows_at_once(1000, 10_000, 100) == 100
    assert rows_at_once(1000, 1000 * (4 << 20), 100) == 2
    assert rows_at_once(10, 10 << 30, 100) == 1


def test_progress_round_trips() -> None:
    progress = Progress(
        {"public.t": TableProgress(3, 10, 4, "1:1:", Ranges.of([0, 2]))}, "f", Ranges.of([1, 2, 9])
    )
    again = Progress.from_dict(json.loads(json.dumps(progress.to_dict())))
    assert again == progress
    assert Progress.from_dict(None) == Progress()
    assert not progress.complete


def test_of_many_tables_only_what_changed_is_written_anew() -> None:
    """It is stored with each chunk: else the cost of a snapshot would be that of their square."""
    tables = {name: TableProgress(1, 10, 2, "1:1:", relation=n) for n, name in enumerate("ab", 1)}
    progress = Progress(tables)
    before = progress.to_dict()["tables"]
    tables["a"].store(Chunk("a", 1, 10, None))
    after = progress.to_dict()["tables"]
    assert after["b"] is before["b"]
    assert (before["a"]["done"], after["a"]["done"]) == ([], [[1, 1]])
    tables["b"].entries = (5,)
    assert progress.to_dict()["tables"]["b"]["entries"] == [5]
    assert before["b"]["entries"] == []


# --- on real servers ---------------------------------------------------------------------------

FILL = """
CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0, fill text) WITH (autovacuum_enabled = off);
INSERT INTO t SELECT i, 0, repeat('x', i % 300) FROM generate_series(1, 5000) i;
DELETE FROM t WHERE id % 7 = 0;
UPDATE t SET n = 1 WHERE id % 5 = 0;
"""


@pytest.mark.postgres_versions(12, 15, 18)
def test_the_chunks_of_a_table_are_its_rows(database: Any) -> None:
    database.execute(FILL)
    major = database.server.major
    pages = database.execute("SELECT pg_relation_size('t') / 8192")[0][0]
    want = sorted(database.execute("SELECT id FROM t"))
    for chunk_rows in (50, 700, 10**6):
        table = plan_table(
            relation=1, file=1, pages=pages, rows=5000, nbytes=0, chunk_rows=chunk_rows,
            snapshot="5:5:",
        )  # fmt: skip
        for tid_ranges in {False, major >= 14}:
            found = []
            for chunk in table.remaining("t"):
                condition = chunk_condition(chunk, tid_ranges=tid_ranges, block_size=8192)
                found += database.execute(f"SELECT id FROM t WHERE {condition}")
            assert sorted(found) == want


@pytest.mark.postgres_versions(12, 18)
def test_a_page_holds_as_many_tuples_as_a_chunk_looks_for(database: Any) -> None:
    database.execute("CREATE TABLE t (); INSERT INTO t SELECT FROM generate_series(1, 1000)")
    (size, most) = database.execute(
        "SELECT current_setting('block_size')::int, max((ctid::text::point)[1])::int FROM t"
    )[0]
    assert tuples_per_page(size) == most


@pytest.mark.parametrize(("block_size", "most"), [(1024, 35), (8192, 291), (32768, 1169)])
def test_servers_may_have_been_built_with_other_pages(block_size: int, most: int) -> None:
    condition = chunk_condition(Chunk("t", 1, 10, 12), tid_ranges=False, block_size=block_size)
    assert f"generate_series(1, {most}) AS item" in condition


@pytest.mark.postgres_versions(12, 18)
def test_a_chunk_is_found_without_reading_the_table(database: Any) -> None:
    database.execute(FILL)
    chunk = Chunk("t", 1, 10, 12)
    tid_ranges = database.server.major >= 14
    condition = chunk_condition(chunk, tid_ranges=tid_ranges, block_size=8192)
    plan = database.execute(f"EXPLAIN SELECT * FROM t WHERE {condition}")
    assert "Tid" in plan[0][0]


@pytest.mark.postgres_versions(12, 18)
def test_tuples_newer_than_a_snapshot_are_found(database: Any) -> None:
    """Those of transactions that ran when it was taken too, and of their savepoints."""
    database.execute(FILL)
    with database.connect() as running, database.connect() as other:
        running.execute("BEGIN")
        running.execute("UPDATE t SET n = 50 WHERE id = 50")
        running.execute("SAVEPOINT a")
        running.execute("UPDATE t SET n = 51 WHERE id = 51")
        other.execute("UPDATE t SET n = 7 WHERE id = 1")  # before: visible
        (snapshot,) = other.execute("SELECT txid_current_snapshot()::text").fetchone()
        running.execute("SAVEPOINT b")
        running.execute("UPDATE t SET n = 52 WHERE id = 52")
        running.execute("ROLLBACK TO b")
        running.execute("UPDATE t SET n = 53 WHERE id = 53")
        running.execute("COMMIT")
        other.execute("UPDATE t SET n = 54 WHERE id = 54")
    found = {
        number
        for (number,) in database.execute(f"SELECT id FROM t WHERE {newer_condition(snapshot)}")
    }
    assert found >= {50, 51, 53, 54}
    assert len(found) < 10, "and hardly any other"
    database.execute("VACUUM FREEZE t")
    again = database.execute(f"SELECT id FROM t WHERE {newer_condition(snapshot)}")
    assert {number for (number,) in again} == found, "freezing hides none of them"


@pytest.mark.slow
@pytest.mark.postgres_versions(15, 18)
@pytest.mark.parametrize("epoch", [0, 3])
def test_transaction_numbers_that_begin_again(start_postgres: Any, epoch: int) -> None:
    """Snapshots have 64 bits, a tuple's xmin the lower 32: across the wrap they still compare."""
    near = 2**32 - 40
    with start_postgres(fsync=False, autovacuum=False) as server:
        if not (server.bin_dir / "pg_resetwal").exists():
            give_up("this server comes without pg_resetwal")
        # else the catalogue's rows would lie in the future
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("VACUUM FREEZE")
        server.stop("fast")
        done = reset_to(server, near, epoch)
        assert done.returncode == 0, done.stderr
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as connection:

            def query(statement: str) -> list[Any]:
                return connection.execute(statement.encode()).fetchall()

            connection.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
            for number in range(10):
                connection.execute(f"INSERT INTO t VALUES ({number}, 0)")
            before = query("SELECT txid_current_snapshot()::text")[0][0]
            for number in range(5, 60):
                connection.execute(
                    f"INSERT INTO t VALUES ({number}, 1) ON CONFLICT (id) DO UPDATE SET n = 1"
                )
            middle = query("SELECT txid_current_snapshot()::text")[0][0]
            connection.execute("UPDATE t SET n = 2 WHERE id = 3")
            assert int(before.split(":")[0]) >> 32 == epoch
            assert int(middle.split(":")[0]) >> 32 == epoch + 1
            found = query(f"SELECT id FROM t WHERE {newer_condition(before)} ORDER BY 1")
            assert found == [(3,), *[(n,) for n in range(5, 60)]]
            assert query(f"SELECT id FROM t WHERE {newer_condition(middle)}") == [(3,)]


def reset_to(server: Any, xid: int, epoch: int) -> Any:
    """pg_resetwal, and the commit log's segment that the new number needs."""
    tool = str(server.bin_dir / "pg_resetwal")
    data = str(server.data_dir)
    # 32768 transactions a page of 8 kB, 32 pages a segment
    segment = server.data_dir / "pg_xact" / f"{xid // (32768 * 32):04X}"
    segment.write_bytes(bytes(262144))
    owner = server.data_dir.stat()
    os.chown(segment, owner.st_uid, owner.st_gid)
    # the oldest number is kept within two billion of the next
    options = ["-f", "-x", str(xid), "-e", str(epoch)]
    if server.major >= 15:
        options += ["-u", str(xid - 2**30)]
    return server._run(tool, *options, data)
