"""What the loops tell their surroundings."""

from __future__ import annotations

from collections.abc import Mapping

from cdc.api import Batch
from cdc.block import Block
from cdc.errors import SinkError


def rows_of(batch: Batch) -> int:
    """How many rows a batch brings, encoded or not."""
    block = batch.block
    if block is None:
        return 0
    return len(block) if isinstance(block, Block) else block.rows


class Observer:
    """Does nothing; override what you want to hear. Called from the thread that is named."""

    def started(self) -> None:
        """The task started; from the thread that polls or puts."""

    def appended(self, batch: Batch, nbytes: int) -> None:
        """A batch is durable, and not yet committed; from the thread that appends."""

    def put(self, block: Block) -> None:
        """The target took a block, which is not flushed yet; from the sink's thread."""

    def stored(self, positions: Mapping[str, int]) -> None:
        """Flushed and stored: the next offset by journal; from the sink's thread."""

    def retrying(self, error: SinkError) -> None:
        """The target is out of reach, and is tried again; from the sink's thread."""

    def noted(self, text: str) -> None:
        """What a running task's status is to say; empty: nothing. From the sink's thread."""

    def measured(self, values: Mapping[str, float]) -> None:
        """The metrics of this moment, about once a second; from the polling thread."""
