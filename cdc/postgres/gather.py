"""Gather: the rows of many small tables, to be stored at once.

A batch of a snapshot carries the progress of all tables and costs an fsync. Of thousands of
tables with a few rows each, that would be nearly all that is written, and their square.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Final

from cdc.block import Block, EncodedBlock
from cdc.postgres.chunks import Chunk

GATHER_ROWS: Final = 1000
GATHER_BYTES: Final = 256 << 10  # as stored
GATHER_S: Final = 1.0

# Chunks whose rows are in one block.
Stored = tuple[list[Chunk], Block | EncodedBlock]


class Gatherer:
    """Holds back small blocks for a moment; what comes out is in the order it went in."""

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []
        self._blocks: list[EncodedBlock] = []
        self._rows = self._nbytes = 0
        self._since = 0.0

    def put(self, chunks: Sequence[Chunk], block: EncodedBlock, *, hold: bool) -> list[Stored]:
        """Take a block, that may be held back or not; gives what is to be stored now."""
        out: list[Stored] = []
        if self._rows + block.rows > GATHER_ROWS or self._nbytes + block.nbytes > GATHER_BYTES:
            out += self.flush()
            hold = hold and block.rows <= GATHER_ROWS and block.nbytes <= GATHER_BYTES
        if not hold:
            return [*out, *self.flush(), (list(chunks), block)]
        self._since = self._since if self._blocks else time.monotonic()
        self._chunks += chunks
        self._blocks.append(block)
        self._rows += block.rows
        self._nbytes += block.nbytes
        return out

    def due(self) -> list[Stored]:
        """What was held back for long enough."""
        return self.flush() if time.monotonic() - self._since >= GATHER_S else []

    def flush(self) -> list[Stored]:
        """All that is held back, as one block."""
        chunks, blocks = self._chunks, self._blocks
        self._chunks, self._blocks, self._rows, self._nbytes = [], [], 0, 0
        if not blocks:
            return []
        return [(chunks, blocks[0] if len(blocks) == 1 else join([b.decode() for b in blocks]))]


def join(blocks: Sequence[Block]) -> Block:
    """Blocks of one snapshot as one: their rows were read in one transaction, at one LSN."""
    numbers: dict[str, int] = {}
    schema = array("H")
    markers: dict[int, str] = {}
    for block in blocks:
        own = [numbers.setdefault(s.fingerprint, len(numbers)) for s in block.schemas]
        markers |= {len(schema) + row: marker for row, marker in block.markers.items()}
        schema.extend(own[number] for number in block.schema)
    schemas = {s.fingerprint: s for block in blocks for s in block.schemas}
    return replace(
        blocks[0],
        schemas=tuple(schemas.values()),
        op=b"".join(block.op for block in blocks),
        schema=schema,
        transaction=array("I", chain.from_iterable(block.transaction for block in blocks)),
        lsn=array("Q", chain.from_iterable(block.lsn for block in blocks)),
        ordinal=array("I", chain.from_iterable(block.ordinal for block in blocks)),
        keys=list(chain.from_iterable(block.keys for block in blocks)),
        befores=list(chain.from_iterable(block.befores for block in blocks)),
        afters=list(chain.from_iterable(block.afters for block in blocks)),
        markers=markers,
        offsets=range(0),
    )
