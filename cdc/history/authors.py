"""Who changed a row: the messages of its transaction, wherever they lie in the journal.

A transaction lies in one block as a rule, the one that holds the row. Of a longer one only the
blocks are read whose key filter says that a message may be in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Final

from cdc.authors import NOBODY, PREFIX, Author, author_of
from cdc.block import MESSAGE, STREAMED, Block, key_hash
from cdc.errors import SinkRejected
from cdc.images import RowImages
from cdc.log import JournalReader
from cdc.log.places import Places
from cdc.log.reader import Lost
from schemas import EventSchema

Said = list[tuple[int, Author]]  # by offset
Mark = tuple[int, int]  # a transaction: xid and commit LSN
NONE: Final = (0, 0)


class Authors:
    """Of the rows of one journal."""

    def __init__(
        self, reader: JournalReader, schemas: Mapping[str, EventSchema], lost: Lost | None
    ) -> None:
        """``schemas``: all of the journal, by fingerprint."""
        self._reader, self._lost = reader, lost
        # Without a table: messages, or what the source's transforms have made of them.
        messages = [name for name, schema in schemas.items() if not schema.table.table]
        self._hashes = {key_hash(name, PREFIX) for name in messages}
        self._images = RowImages(_pass)
        self._mark, self._said = NONE, Said()

    def of(self, block: Block, row: int) -> Author:
        """The author of a row of a block as it was read, whole."""
        transaction = block.transactions[block.transaction[row]]
        if not self._hashes or not transaction.xid or block.marker_of(row) != STREAMED:
            return NOBODY
        mark = (transaction.xid, transaction.commit_lsn)
        if mark != self._mark:
            # One of each run: an application may say the same before each of a million rows.
            runs = groupby(self._messages(block, row, mark), key=lambda said: said[1])
            self._mark, self._said = mark, [next(run) for _, run in runs]
        at, author = block.offsets[row], None
        for offset, said in self._said:
            if author is not None and offset > at:
                break
            author = said
        return author or NOBODY

    def _messages(self, block: Block, row: int, mark: Mark) -> Iterator[tuple[int, Author]]:
        """Those of a row's transaction, in order."""
        index = block.transaction[row]
        if block.transaction[0] != index and block.transactions[index].end_lsn:
            yield from self._in(block, mark)
            return
        places, offset = Places(self._reader), block.offsets[row]
        begin, end = places.begin_of(offset), places.end_of(offset + 1)
        for other in self._reader.blocks_with(self._hashes, begin, end, lost=self._lost):
            yield from self._in(other, mark)

    def _in(self, block: Block, mark: Mark) -> Iterator[tuple[int, Author]]:
        rows, row = [], block.op.find(MESSAGE)
        while row >= 0:
            transaction = block.transactions[block.transaction[row]]
            if (transaction.xid, transaction.commit_lsn) == mark and block.keys[row] == PREFIX:
                rows.append(row)
            row = block.op.find(MESSAGE, row + 1)
        messages = self._images.apply(block.select(rows)) if rows else None
        if messages is None:
            return
        for row in range(len(messages)):
            author = author_of(messages, row)
            if author is not None:
                yield messages.offsets[row], author


def _pass(_block: Block, _row: int, _error: SinkRejected) -> None:
    """What transforms made of a message says nothing when it has no content."""
