"""Blocks for journal tests, a plan of batches, and a writer process that follows it.

As a program: ``python -m tests.log.rows FOLDER SEED COUNT OPTIONS-AS-JSON`` appends the plan's
batches from where the journal says it stopped, and prints each one's number once it is on disk.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cdc.api import Batch, Lane
from cdc.block import CREATE, Block, Row, Transaction
from cdc.log import Gap, Journal, JournalReader
from tests.blocks import INT32, STRING, event_schema, optional

# Where fsync costs nothing: with many small journals or segments it would take most of the time.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None

SCHEMA = event_schema("t", {"id": INT32, "note": optional(STRING)})
OTHER = event_schema("other", {"id": INT32, "note": optional(STRING)})


def make_block(ids: Sequence[int], *, width: int = 20, seed: int = 0) -> Block:
    """One row per id in one transaction; ``width`` bytes that do not compress in each."""
    source = random.Random(seed)
    rows: list[Row] = []
    for n, i in enumerate(ids):
        after = b'{"id":%d,"note":"%s"}' % (i, source.randbytes(width // 2).hex().encode())
        rows.append((CREATE, i % 2, 0, 1000 + i, n, b'{"id":%d}' % i, None, after))
    last = 1000 + (ids[-1] if ids else 0)
    transaction = Transaction(7, last + 5, last + 9, 1_700_000_000_000_000 + last * 1000, 0)
    return Block.build(rows, (SCHEMA, OTHER), (transaction,), 1_700_000_000_000_000)


def batch(lane: Lane, first: int, count: int, *, close: bool = False, width: int = 20) -> Batch:
    """A batch of the ids from ``first`` on."""
    block = make_block(range(first, first + count), width=width, seed=first) if count else None
    return Batch(lane, {"next": first + count}, block, close)


def snapshot(first: int, count: int, **kwargs: Any) -> Batch:
    return batch(Lane.SNAPSHOT, first, count, **kwargs)


def stream(first: int, count: int, **kwargs: Any) -> Batch:
    return batch(Lane.STREAM, first, count, **kwargs)


def ids_of(block: Block) -> list[int]:
    return [int(key[6:-1]) for key in block.keys if key is not None]


def read_all(path: Path, offset: int | None = None) -> list[int]:
    """All ids from ``offset`` (default: the oldest) on; asserts that offsets are consecutive."""
    with JournalReader(path) as reader:
        at = reader.bounds()[0] if offset is None else offset
        out: list[int] = []
        while (block := reader.read(at)) is not None:
            assert list(block.offsets) == list(range(at, at + len(block)))
            out.extend(ids_of(block))
            at += len(block)
        assert at == reader.bounds()[1]
        return out


def read_by_offset(path: Path) -> dict[int, int]:
    """Offset → id of every row there is; dropped rows are skipped."""
    out: dict[int, int] = {}
    with JournalReader(path) as reader:
        at, after = reader.bounds()
        while at < after:
            try:
                block = reader.read(at)
            except Gap as gap:
                at = gap.end
                continue
            assert block is not None
            out.update(zip(block.offsets, ids_of(block), strict=True))
            at += len(block)
    return out


class Step(NamedTuple):
    """One batch of a plan."""

    number: int
    lane: Lane
    rows: int
    close: bool

    @property
    def ids(self) -> range:
        return range(self.number * 100, self.number * 100 + self.rows)

    @property
    def batch(self) -> Batch:
        block = make_block(self.ids, width=2000, seed=self.number) if self.rows else None
        return Batch(self.lane, {"number": self.number}, block, self.close)


def plan(seed: int, count: int) -> Iterator[Step]:
    """Batches of both lanes, over several generations, ending with both lanes closed."""
    source = random.Random(seed)
    snapshot_open = True
    for number in range(count - 2):
        lane = source.choice(list(Lane)) if snapshot_open else Lane.STREAM
        close = source.random() < (0.1 if lane is Lane.SNAPSHOT else 0.04)
        if lane is Lane.STREAM and snapshot_open:
            close = False
        rows = source.choice((0, 1, 3, 20))
        if not snapshot_open and source.random() < 0.2:  # a closed lane takes positions still
            lane, rows, close = Lane.SNAPSHOT, 0, True
        yield Step(number, lane, rows, close)
        if close:
            snapshot_open = lane is Lane.STREAM
    lane = Lane.SNAPSHOT if snapshot_open else Lane.STREAM
    yield Step(count - 2, lane, 1, snapshot_open)
    yield Step(count - 1, Lane.STREAM, 1, True)


def expected(steps: Sequence[Step]) -> list[int]:
    """The ids in the order of a reader, once all steps are done."""
    out: list[int] = []
    lanes: dict[Lane, list[int]] = {Lane.SNAPSHOT: [], Lane.STREAM: []}
    for step in steps:
        lanes[step.lane].extend(step.ids)
        if step.close and step.lane is Lane.STREAM:
            out.extend(lanes[Lane.SNAPSHOT] + lanes[Lane.STREAM])
            lanes = {Lane.SNAPSHOT: [], Lane.STREAM: []}
    return out + lanes[Lane.SNAPSHOT] + lanes[Lane.STREAM]


def stored_number(journal: Journal) -> int:
    """The number of the newest step the journal holds; -1 for none."""
    state = journal.state()
    positions = (state.snapshot_position, state.stream_position)
    return max((int(p["number"]) for p in positions if p is not None), default=-1)


def main(path: str, seed: str, count: str, options: str) -> None:
    with Journal.open(path, **json.loads(options)) as journal:
        done = stored_number(journal)
        for step in plan(int(seed), int(count)):
            if step.number > done:
                journal.append(step.batch)
                print(step.number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
