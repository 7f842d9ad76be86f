"""Handed: what a source handed out, and what of it has become durable."""

from __future__ import annotations

from collections.abc import Sequence

from cdc.api import Batch, Lane, Position
from cdc.block import Block


class Handed:
    """The newest position of each lane, on its way out and back. Used from one thread."""

    def __init__(self) -> None:
        self._out: dict[Lane, Position] = {}
        self._durable: dict[Lane, Position] = {}
        self._commit_us = 0

    def out(self, batches: Sequence[Batch]) -> None:
        """These are given to the runtime."""
        for batch in batches:
            self._out[batch.lane] = batch.position
            block = batch.block
            if batch.lane is Lane.STREAM and isinstance(block, Block) and block.transactions:
                self._commit_us = block.transactions[-1].commit_us or self._commit_us

    def durable(self, lane: Lane, position: Position) -> None:
        """This one, and all before it, is stored."""
        if position:
            self._durable[lane] = position

    @property
    def all_durable(self) -> bool:
        """Nothing that was handed out is on its way, or was lost on it."""
        return all(self._durable.get(lane) == position for lane, position in self._out.items())

    def lag_ms(self, now_s: float, *, under_way: bool) -> float:
        """Age of the newest transaction handed out while it is not durable, or not complete.

        ``under_way``: more of it is to come. 0 when there is no such transaction.
        """
        behind = under_way or self._durable.get(Lane.STREAM) != self._out.get(Lane.STREAM)
        if not behind or not self._commit_us:
            return 0.0
        return 1000.0 * max(0.0, now_s - self._commit_us / 1e6)


__all__ = ["Handed"]
