"""Looking for a key: filters joined or not, older segments, damage in the way."""

from __future__ import annotations

import random
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from cdc.api import Batch, Lane
from cdc.block import TRUNCATE, Block, key_hash
from cdc.errors import LogCorrupt, LogError
from cdc.log import Journal, JournalReader
from cdc.log.files import listing
from cdc.log.filters import FilterRun, Group
from cdc.log.format import INDEX, meta_crc
from cdc.log.segment import SegmentReader
from cdc.log.verify import verify
from tests.blocks import INT32, STRING, Source, event_schema, optional
from tests.log.rows import SCHEMA, ids_of, snapshot, stream

GONE = key_hash(SCHEMA.fingerprint, b"")


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdc.log.filters.GROUP_BYTES", 200)
    monkeypatch.setattr("cdc.log.segment.FILTERS_AT_ONCE", 3)


def truncate() -> Block:
    source = Source()
    source.truncate(SCHEMA)
    return source.block()


def fill(path: Path, blocks: int = 60) -> dict[int, list[int]]:
    """Random ids over several segments; id → offsets of the blocks that hold it."""
    random_ = random.Random(3)
    places: dict[int, list[int]] = {}
    offset = 0
    journal = Journal.open(path, segment_bytes=150_000)
    for number in range(blocks):
        if number % 17 == 5:  # goes on where it stopped
            journal.close()
            journal = Journal.open(path, segment_bytes=150_000)
        first, count = random_.randrange(100) * 2, random_.choice((1, 3, 20))
        make = snapshot if number < 10 else stream
        journal.append(make(first, count, width=1000, close=number == 9))
        for i in range(first, first + count, 2):
            places.setdefault(i, []).append(offset)
        offset += count
    journal.close()
    return places


def found(path: Path, i: int) -> list[int]:
    hashes = {key_hash(SCHEMA.fingerprint, b'{"id":%d}' % i)}
    with JournalReader(path) as reader:
        return [block.offsets[0] for block in reader.blocks_with(hashes)]


def test_every_block_with_a_key_is_found_in_order(memory: Path) -> None:
    places = fill(memory)
    for i in range(220):
        assert found(memory, i) == places.get(i, [])
    groups = []
    for entry in listing(memory):
        with SegmentReader(memory, entry) as segment:
            groups += segment.groups()
    assert len(groups) > len(listing(memory))
    assert verify(memory).ok


def downgrade(path: Path) -> None:
    """Make all segments what the first format wrote."""
    for entry in listing(path):
        with closing(sqlite3.connect(path / entry.file)) as db, db:
            db.execute("DROP TABLE filters")
            row = (1, meta_crc("format", 1))
            db.execute("UPDATE meta SET value = ?, crc = ? WHERE key = 'format'", row)


def test_segments_of_the_first_format_are_searched_and_continued(memory: Path) -> None:
    places = fill(memory)
    downgrade(memory)
    with Journal.open(memory) as journal:
        end = sum(segment.rows for segment in verify(memory).segments)
        journal.append(stream(4, 1))
    places[4].append(end)
    for i in range(0, 220, 2):
        assert found(memory, i) == places.get(i, [])
    assert {segment.format for segment in verify(memory).segments} == {1, 2}
    assert verify(memory).ok


def test_truncates_are_found_in_segments_of_both_formats(memory: Path) -> None:
    def holds(keyless: bool) -> bool:
        with JournalReader(memory) as reader:
            blocks = reader.blocks_with({GONE}, keyless=keyless)
            return [block.op for block in blocks] == [bytes([TRUNCATE])]

    with Journal.open(memory) as journal:
        journal.append(snapshot(0, 3, close=True))
        journal.append(Batch(Lane.STREAM, {}, truncate()))
        journal.append(stream(3, 3))
    assert holds(keyless=False)
    with closing(sqlite3.connect(memory / listing(memory)[-1].file)) as db, db:
        old = "UPDATE blocks SET filter = x'', filter_crc = 0, index_crc = ? WHERE start = 0"
        columns = "start, rows, crc, first_lsn, last_lsn, commit_lsn, commit_us, high_lsn, high_us"
        ((*values,),) = db.execute(f"SELECT {columns} FROM blocks WHERE start = 0").fetchall()
        db.execute(old, (zlib.crc32(INDEX.pack(*values, 0)),))
    downgrade(memory)
    assert not holds(keyless=False)
    assert holds(keyless=True)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE filters SET entries = zeroblob(length(entries)) WHERE start = 0",
        "UPDATE filters SET blocks = x'00' WHERE start = 0",
        "UPDATE filters SET stop = stop + 1 WHERE start = 0",
        "UPDATE filters SET entries = 7 WHERE start = 0",
    ],
)
def test_damaged_groups_are_named_and_other_segments_still_answer(
    memory: Path, statement: str
) -> None:
    places = fill(memory)
    victim = next(entry for entry in listing(memory) if entry.lane == 1)
    with closing(sqlite3.connect(memory / victim.file)) as db, db:
        db.execute(statement)
    (bad,) = [segment for segment in verify(memory).segments if not segment.ok]
    assert bad.name == victim.file
    errors: list[LogError] = []
    with JournalReader(memory) as reader:
        hashes = {key_hash(SCHEMA.fingerprint, b'{"id":%d}' % i) for i in places}
        with pytest.raises(LogCorrupt, match=victim.file):
            list(reader.blocks_with(hashes))
        blocks = list(reader.blocks_with(hashes, lost=errors.append))
        ends = {span.entry: end for span, end in reader.spans()}
    assert [victim.file in str(error) for error in errors] == [True]
    seen = {offset for block in blocks for offset in block.offsets}
    assert {*range(ends[victim], max(ends.values()))} <= seen


def test_schemas_of_all_segments_are_known(memory: Path) -> None:
    changed = event_schema("t", {"id": INT32, "more": optional(STRING)})
    with Journal.open(memory) as journal:
        journal.append(snapshot(0, 3, close=True))
        source = Source()
        source.insert(changed, id=1, more="x")
        journal.append(Batch(Lane.STREAM, {}, source.block()))
    with JournalReader(memory) as reader:
        assert {SCHEMA.fingerprint, changed.fingerprint} <= set(reader.schemas())


def test_a_group_finds_the_block_of_an_entry_beside_empty_ones() -> None:
    run = FilterRun()
    entry = (77).to_bytes(4, "little")
    other = (78).to_bytes(4, "little")
    for start, filter_ in ((0, b""), (5, other), (10, b""), (15, other + entry), (20, b"")):
        run.add(start, 5, filter_)
    group = Group.read(run.group())
    assert group is not None
    assert group.find([77], 0) == [15]
    assert group.find([78], 0) == [5, 15]
    assert group.find([78], 10) == [15]
    assert group.find([77, 78], 24) == []
    assert Group.read((*run.group()[:2], 1, b"", b"")) is None
    assert ids_of(truncate()) == []
