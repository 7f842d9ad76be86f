"""Ahead: whether a transaction that a block leaves open has its end in the journal already.

A target that applies whole transactions holds one of its own open while the rest of a source's
comes. If that rest is not there yet, it may be long in coming, and the open transaction does
harm: on the source's own server it keeps a slot from being made, and with it the snapshot that
the rest is to come after. So such a target is given no part of a transaction before its end.
"""

from __future__ import annotations

from cdc.api import Reader
from cdc.block import Block, Transaction
from cdc.log.reader import Gap
from cdc.record import whole_rows


class Ahead:
    """Looks ahead in one journal; what was looked at is not looked at again."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._of: tuple[int, int] | None = None  # the transaction
        self._at = 0  # it goes on up to here, as far as was looked
        self._ends = False

    def whole_rows(self, block: Block) -> int:
        """How many of a block's rows belong to transactions whose end is stored."""
        rows = whole_rows(block)
        return len(block) if rows == len(block) or self._is_stored(block) else rows

    def _is_stored(self, block: Block) -> bool:
        transaction = _identity(block.transactions[block.transaction[-1]])
        if transaction != self._of:
            self._of, self._at, self._ends = transaction, 0, False
        self._at = max(self._at, block.offsets[-1] + 1)
        while not self._ends:
            try:
                found = self._reader.read(self._at)
                if found is None and self._reader.settled():
                    # Its last rows were dropped on the way; see SinkLoop for the second read.
                    found = self._reader.read(self._at)
                    self._ends = found is None
            except Gap:
                self._ends = True  # there is no more of it
                break
            if found is None:
                break
            first = found.transactions[found.transaction[0]] if found.transactions else None
            goes_on = first is not None and _identity(first) == transaction
            self._ends = not goes_on or whole_rows(found) > 0
            self._at = found.offsets[-1] + 1
        return self._ends


def _identity(transaction: Transaction) -> tuple[int, int]:
    return transaction.xid, transaction.commit_lsn
