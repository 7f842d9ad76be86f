"""What a journal holds, for tests that put it into a sink themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cdc.block import Block
from cdc.log import JournalReader


def blocks_of(path: Path) -> Iterator[Block]:
    """All blocks, in order."""
    with JournalReader(path) as reader:
        at, after = reader.bounds()
        while at < after:
            block = reader.read(at)
            assert block is not None
            yield block
            at = block.offsets[-1] + 1
