"""Groups of key filters: those of many blocks joined, so that a search reads long runs.

A block's filter lies beside its body: reading 25,000 of them is as many jumps on a disk. The
writer therefore joins the filters of the newest blocks into one row of ``filters`` now and
then, and when the segment is sealed. Measured on 50 million events in 2,048-row blocks, cold:
6.6 s one by one, see ``python -m benchmarks history`` for joined ones; for 4 more bytes an event.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Collection
from typing import Any, NamedTuple, Self

from cdc.block import ENTRY_BYTES, find_entries

GROUP_BYTES = 256 << 10  # joined when there are as many bytes of filters,
GROUP_BLOCKS = 1024  # or as many blocks

# start and stop are rows of the lane; blocks holds two columns: first rows, then entry counts.
GROUP_COLUMNS = "start, stop, crc, blocks, entries"


class FilterRun:
    """The writer's: filters of consecutive blocks that are in no group yet."""

    def __init__(self) -> None:
        self._starts, self._counts = array("q"), array("I")
        self._entries: list[bytes] = []
        self._nbytes = 0
        self.stop = 0  # 0: empty

    def add(self, start: int, rows: int, filter_: bytes) -> None:
        """The next block."""
        self._starts.append(start)
        self._counts.append(len(filter_) // ENTRY_BYTES)
        self._entries.append(filter_)
        self._nbytes += len(filter_)
        self.stop = start + rows

    @property
    def due(self) -> bool:
        """Whether it is time to join them."""
        return self._nbytes >= GROUP_BYTES or len(self._starts) >= GROUP_BLOCKS

    def group(self) -> tuple[int, int, int, bytes, bytes]:
        """The row of ``filters``."""
        blocks = self._starts.tobytes() + self._counts.tobytes()
        entries = b"".join(self._entries)
        start = self._starts[0]
        return start, self.stop, _crc(start, self.stop, blocks, entries), blocks, entries


class Group(NamedTuple):
    """The filters of some consecutive blocks, as stored."""

    stop: int
    starts: array[int]
    firsts: list[int]  # each block's first entry
    entries: bytes

    @classmethod
    def read(cls, row: tuple[Any, ...]) -> Self | None:
        """From the columns :data:`GROUP_COLUMNS`; None when they are damaged."""
        start, stop, crc, blocks, entries = row
        try:
            if _crc(start, stop, blocks, entries) != crc:
                return None
        except (TypeError, AttributeError, OverflowError):  # a damaged type byte
            return None
        starts, counts = array("q"), array("I")
        number = len(blocks) // (starts.itemsize + counts.itemsize)
        starts.frombytes(blocks[: number * starts.itemsize])
        counts.frombytes(blocks[number * starts.itemsize :])
        firsts, at = [], 0
        for count in counts:
            firsts.append(at)
            at += count
        return cls(stop, starts, firsts, entries)

    def find(self, hashes: Collection[int], row: int) -> list[int]:
        """First rows of the blocks that can hold one of the keys and reach beyond ``row``."""
        # An entry's block: the last one that begins at or before it, empty ones left out.
        found = {bisect_right(self.firsts, at) - 1 for at in find_entries(self.entries, hashes)}
        ends = [*self.starts[1:], self.stop]
        return [self.starts[number] for number in sorted(found) if ends[number] > row]


def _crc(start: int, stop: int, blocks: bytes, entries: bytes) -> int:
    return zlib.crc32(entries, zlib.crc32(blocks, zlib.crc32(b"%d,%d" % (start, stop))))
