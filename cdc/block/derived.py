"""Derived: a block made row by row from another one, whose transactions and places it keeps."""

from __future__ import annotations

from array import array
from typing import NamedTuple

from cdc.block.block import Block, Fragment
from cdc.block.headers import RowHeaders
from schemas import EventSchema


class NewRow(NamedTuple):
    """A row of the new block, as in :class:`cdc.block.Block`; the rest is the old row's."""

    op: int
    key: Fragment
    before: Fragment
    after: Fragment
    unchanged: tuple[int, ...] = ()
    moved: bytes | None = None
    headers: RowHeaders | None = None


class Derived:
    """Rows of ``block``, some of them changed, left out, or there twice.

    Transaction, LSN, ordinal, marker and journal offset are those of the row it comes from.
    """

    def __init__(self, block: Block) -> None:
        self._of = block
        self._rows: list[int] = []
        self._op = bytearray()
        self._schemas: dict[str, int] = {}  # fingerprint → index
        self._found: list[EventSchema] = []
        self._schema = array("H")
        self._keys: list[Fragment] = []
        self._befores: list[Fragment] = []
        self._afters: list[Fragment] = []
        self._unchanged: dict[int, tuple[int, ...]] = {}
        self._moved: dict[int, bytes] = {}
        self._headers: dict[int, RowHeaders] = {}

    def schema(self, schema: EventSchema) -> int:
        """The number of a schema in the new block."""
        number = self._schemas.setdefault(schema.fingerprint, len(self._found))
        if number == len(self._found):
            self._found.append(schema)
        return number

    def keep(self, row: int, schema: int, headers: RowHeaders | None = None) -> None:
        """A row as it is, under a schema of the new block; ``headers``: other ones."""
        of = self._of
        own = of.headers.get(row) if headers is None else headers
        unchanged, moved = of.unchanged.get(row, ()), of.moved.get(row)
        parts = (of.op[row], of.keys[row], of.befores[row], of.afters[row])
        self.add(row, schema, NewRow(*parts, unchanged, moved, own))

    def add(self, row: int, schema: int, new: NewRow) -> None:
        """A row that comes from ``row``."""
        at = len(self._rows)
        self._rows.append(row)
        self._op.append(new.op)
        self._schema.append(schema)
        self._keys.append(new.key)
        self._befores.append(new.before)
        self._afters.append(new.after)
        if new.unchanged:
            self._unchanged[at] = new.unchanged
        if new.moved is not None:
            self._moved[at] = new.moved
        if new.headers is not None:
            self._headers[at] = new.headers

    def block(self) -> Block | None:
        """The new block; None when it has no rows."""
        of, rows = self._of, self._rows
        if not rows:
            return None
        markers = {at: of.markers[row] for at, row in enumerate(rows) if row in of.markers}
        return Block(
            tuple(self._found),
            of.transactions,
            bytes(self._op),
            self._schema,
            array("I", map(of.transaction.__getitem__, rows)),
            array("Q", map(of.lsn.__getitem__, rows)),
            array("I", map(of.ordinal.__getitem__, rows)),
            self._keys,
            self._befores,
            self._afters,
            of.created_us,
            self._unchanged,
            self._moved,
            of.marker,
            markers if of.markers else {},
            of.context,
            of.tombstones,
            [of.offsets[row] for row in rows] if of.offsets else range(0),
            self._headers,
        )
