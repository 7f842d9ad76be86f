"""Decoder: pgoutput frames in, Blocks out. No I/O, no clock, no logging.

A frame is ``(lsn, payload)``: the start LSN of its XLogData header and one message. The
decoder keeps the relations and the open transaction between calls, so frames may be cut
into calls anywhere. What a relation looks like to us is asked of ``describe`` when its
RELATION message arrives; that callable does the catalogue I/O, or answers from memory.

Order of events for one wire change (facts §1.7, §3.3): a key change becomes a DELETE under
the old key and a CREATE under the new one, both with the wire change's ordinal.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from cdc.block import (
    CREATE,
    DELETE,
    MESSAGE,
    TRUNCATE,
    UPDATE,
    Block,
    Fragment,
    Row,
    Transaction,
)
from cdc.errors import DecodeError, PositionMismatch, RecordError
from cdc.lsn import lsn_text
from cdc.postgres.messages import (
    Message,
    Relation,
    parse_begin,
    parse_commit,
    parse_message,
    parse_origin,
    parse_relation,
    parse_truncate,
    parse_type,
)
from cdc.postgres.plan import PAD, UNCHANGED, RelationPlan, packed_tuple, raw_tuple
from cdc.postgres.position import OpenTransaction, Position
from cdc.postgres.values import LOAD_ERRORS
from schemas import EventSchema

Frame = tuple[int, bytes]
Describe = Callable[[Relation], RelationPlan | None]

_INSERT, _UPDATE, _DELETE, _BEGIN, _COMMIT = b"IUDBC"
_NEW, _OLD, _KEY = b"NOK"
_ROW_TAGS = frozenset(b"IUD")
_MESSAGE = b"M"[0]
_unpack_oid = struct.Struct(">I").unpack_from


@dataclass(frozen=True)
class DecoderOptions:
    """What is not captured. ``skipped`` holds operation codes (facts: skipped.operations)."""

    skipped: frozenset[int] = frozenset((TRUNCATE,))
    message_schema: EventSchema | None = None
    message_content: Callable[[bytes], bytes] = lambda content: orjson.dumps(content.hex())
    wants_prefix: Callable[[str], bool] = lambda _prefix: True


class _Held(NamedTuple):
    """A row kept back for the next block."""

    row: Row
    schema: EventSchema
    unsent: tuple[int, ...] | None
    moved: bytes | None


@dataclass(slots=True)
class _Output:
    """The block under construction."""

    rows: list[Row] = field(default_factory=list)
    transactions: list[Transaction] = field(default_factory=list)
    schemas: list[EventSchema] = field(default_factory=list)
    unchanged: dict[int, tuple[int, ...]] = field(default_factory=dict)
    moved: dict[int, bytes] = field(default_factory=dict)
    # by identity: comparing schemas, or asking for their fingerprints, is no work per row
    _indices: dict[int, int] = field(default_factory=dict)

    def index(self, schema: EventSchema) -> int:
        """The schema's place in the block's dictionary."""
        index = self._indices.get(id(schema))
        if index is None:
            index = self._indices[id(schema)] = len(self.schemas)
            self.schemas.append(schema)
        return index


class Decoder:
    """One stream's decoder. ``end_lsn``, ``open`` and ``message_lsn`` say where it stands.

    ``end_lsn`` is the end LSN of the last transaction decoded whole; ``open`` the place in
    the transaction that is not, None between transactions.
    """

    def __init__(self, describe: Describe, options: DecoderOptions, *, start_lsn: int = 0) -> None:
        self.describe, self.options = describe, options
        self.end_lsn = start_lsn
        self.message_lsn = 0
        # of each relation, by oid, when it was truncated last, as the transaction's commit LSN
        self.truncated: dict[int, int] = {}
        self.last_commit_us = 0
        self.in_transaction = False
        # Debezium's sequence[0]: 0 until a COMMIT was seen or resumed from
        self.previous_end_lsn = 0
        self._relations: dict[bytes, RelationPlan | None] = {}
        # what the rows of the present transaction are looked up in: _relations, less the
        # tables whose snapshot holds this transaction already
        self._active = self._relations
        self._until: dict[str, int] = {}
        self._transaction = Transaction(0, 0, 0, 0, 0)
        self._ordinal = 0
        self._resume: OpenTransaction | None = None
        self._held: list[_Held] = []
        self._out = _Output()
        # the place in the unfinished transaction where the blocks so far end
        self.open: OpenTransaction | None = None

    def resume(self, stored: Position) -> None:
        """Go on from there: skip what is stored of the transaction that is sent again."""
        self._resume, self.message_lsn = stored.open, stored.message_lsn
        self.previous_end_lsn = stored.commit_end
        # a keep-alive may move the position before that transaction comes again
        self.open = stored.open

    def ignore_until(self, tables: Mapping[str, int]) -> None:
        """Drop changes of these ``schema.table``s committed below their LSN.

        They are in the snapshot taken there (commit LSN < snapshot LSN: visible in it).
        """
        self._until = dict(tables)

    @property
    def until(self) -> dict[str, int]:
        """The tables that are left out still, and up to which LSN."""
        return self._until

    def decode(self, frames: Sequence[Frame], created_us: int) -> Block:
        """All events of these frames; the block may be empty.

        Raises DecodeError for bytes that are no message, PositionMismatch when a resumed
        transaction is not the one that was stored, RecordError for a value no loader reads.
        """
        out = self._out = _Output()
        self._take_held()
        active = self._active
        for lsn, payload in frames:
            tag = payload[0] if payload else 0
            if tag not in _ROW_TAGS:
                self._other(tag, lsn, payload)
                active = self._active
                continue
            self._ordinal += 1
            if self._resume is not None and self._stored_already(lsn):
                continue
            try:
                plan = active[payload[1:5]]
                if plan is not None:
                    self._row(plan, tag, lsn, payload)
            except KeyError:
                raise self._unknown_relation(payload, lsn) from None
            except (DecodeError, RecordError) as error:
                where = f"at LSN {lsn_text(lsn)}: {plan.schema.table}" if plan else lsn_text(lsn)
                raise type(error)(f"{where}: {error.problem}", remedy=error.remedy) from error
        self._hold_back()
        return Block.build(
            out.rows,
            tuple(out.schemas),
            tuple(out.transactions),
            created_us,
            unchanged=out.unchanged,
            moved=out.moved,
        )

    def _hold_back(self) -> None:
        """Keep the newest change of an unfinished transaction for the next block.

        So the block that holds a COMMIT always holds a row of its transaction, and a sink
        can tell from rows alone where a transaction is complete.
        """
        out = self._out
        last = len(out.transactions) - 1
        if not self.in_transaction:
            self.open = self._resume
            return
        ordinal = out.rows[-1][4] if out.rows and out.rows[-1][2] == last else 0
        while out.rows and out.rows[-1][2] == last and out.rows[-1][4] == ordinal:
            row, index = out.rows.pop(), len(out.rows)
            unsent, moved = out.unchanged.pop(index, None), out.moved.pop(index, None)
            self._held.insert(0, _Held(row, out.schemas[row[1]], unsent, moved))
        if out.rows and out.rows[-1][2] == last:
            stored = out.rows[-1]
            self.open = OpenTransaction(self._transaction.commit_lsn, stored[4], stored[3])
        else:
            out.transactions.pop()

    def _take_held(self) -> None:
        out, held = self._out, self._held
        if self.in_transaction:
            out.transactions.append(self._transaction)
        self._held = []
        for row, schema, unsent, moved in held:
            index = len(out.rows)
            out.rows.append((row[0], out.index(schema), 0, *row[3:]))
            if unsent is not None:
                out.unchanged[index] = unsent
            if moved is not None:
                out.moved[index] = moved

    # --- rows -----------------------------------------------------------------------------

    def _row(self, plan: RelationPlan, tag: int, lsn: int, payload: bytes) -> None:
        """One row change. Nothing of it is appended before all of it is rendered."""
        if not self.in_transaction:
            raise DecodeError("a change outside any transaction")
        try:
            self._render(plan, tag, lsn, payload)
        except (*LOAD_ERRORS, struct.error):
            # by loaders that deal with what a schema cannot hold; what fails again is no
            # value's fault but the message's
            try:
                self._render(plan.safe, tag, lsn, payload)
            except (*LOAD_ERRORS, struct.error) as error:
                raise DecodeError(f"the message is damaged ({error})") from error

    def _render(self, plan: RelationPlan, tag: int, lsn: int, payload: bytes) -> None:
        kind, buf = payload[5], payload + PAD
        if tag == _INSERT:
            if kind != _NEW:
                raise DecodeError(f"INSERT holds a tuple of kind {kind:#04x}")
            key, after, unsent, end = plan.image(buf, 6)
            op, before = CREATE, None
        elif tag == _DELETE:
            if kind not in (_OLD, _KEY):
                raise DecodeError(f"DELETE holds a tuple of kind {kind:#04x}")
            key, before, _, end = plan.image(buf, 6)
            op, after, unsent = DELETE, None, ()
        else:
            old_key, before, at = _old_image(plan, kind, buf)
            key, after, unsent, end = plan.image(buf, at)
            op = UPDATE
            if unsent and kind == _OLD:  # the full old image has what the new one left out
                key, after, unsent = _filled(plan, buf, at)
        if end != len(payload):
            raise DecodeError(f"a tuple ends at byte {end} of {len(payload)}")
        if op == UPDATE and old_key is not None and old_key != key:
            self._key_change(plan, lsn, (old_key, before), (key, after), unsent)
        elif op not in self.options.skipped:
            self._append(op, plan, lsn, key, before, after, unsent)

    def _key_change(
        self,
        plan: RelationPlan,
        lsn: int,
        old: tuple[bytes, Fragment],
        new: tuple[Fragment, Fragment],
        unsent: tuple[int, ...],
    ) -> None:
        """DELETE under the old key and CREATE under the new one (facts §3.3)."""
        rows, moved = self._out.rows, self._out.moved
        if DELETE not in self.options.skipped:
            if new[0] is not None:
                moved[len(rows)] = new[0]
            self._append(DELETE, plan, lsn, old[0], old[1], None, ())
        if CREATE not in self.options.skipped:
            moved[len(rows)] = old[0]
            self._append(CREATE, plan, lsn, new[0], None, new[1], unsent)

    def _append(  # noqa: PLR0917 - per row: keywords cost
        self,
        op: int,
        plan: RelationPlan,
        lsn: int,
        key: Fragment,
        before: Fragment,
        after: Fragment,
        unsent: tuple[int, ...],
    ) -> None:
        out = self._out
        rows = out.rows
        if unsent:
            out.unchanged[len(rows)] = unsent
        transaction = len(out.transactions) - 1
        index = out.index(plan.schema)
        rows.append((op, index, transaction, lsn, self._ordinal, key, before, after))

    # --- everything else ------------------------------------------------------------------

    def _other(self, tag: int, lsn: int, payload: bytes) -> None:
        handler = _HANDLERS.get(tag)
        if handler is None:
            raise DecodeError(
                f"at LSN {lsn_text(lsn)}: unknown message {payload[:1]!r}",
                remedy="only protocol version 1 of pgoutput is understood",
            )
        try:
            handler(self, lsn, payload)
        except DecodeError as error:
            raise DecodeError(f"at LSN {lsn_text(lsn)}: {error.problem}") from None

    def _on_begin(self, _lsn: int, payload: bytes) -> None:
        if self.in_transaction:
            raise DecodeError("BEGIN inside a transaction")
        begin = parse_begin(payload)
        self.in_transaction, self._ordinal, self.open = True, 0, self._resume
        self._transaction = Transaction(
            begin.xid, begin.commit_lsn, 0, begin.commit_us, self.previous_end_lsn
        )
        self._out.transactions.append(self._transaction)
        if self._resume is not None and self._resume.commit_lsn != begin.commit_lsn:
            raise self._mismatch(f"a transaction committed at {lsn_text(begin.commit_lsn)}")
        self._choose_relations(begin.commit_lsn)

    def _choose_relations(self, commit_lsn: int) -> None:
        """Leave out the tables whose snapshot holds this transaction."""
        if not self._until:
            return
        self._until = {t: lsn for t, lsn in self._until.items() if commit_lsn < lsn}
        self._active = {
            oid: None if plan and str(plan.schema.table) in self._until else plan
            for oid, plan in self._relations.items()
        }
        if not self._until:
            self._active = self._relations

    def _on_commit(self, _lsn: int, payload: bytes) -> None:
        commit = parse_commit(payload)
        if not self.in_transaction or commit.commit_lsn != self._transaction.commit_lsn:
            raise DecodeError("COMMIT of a transaction that did not begin")
        if self._resume is not None:
            raise self._mismatch(f"a transaction of {self._ordinal} changes")
        out = self._out
        if out.rows and out.rows[-1][2] == len(out.transactions) - 1:
            out.transactions[-1] = out.transactions[-1]._replace(end_lsn=commit.end_lsn)
        else:
            out.transactions.pop()
        self.in_transaction, self.open = False, None
        self.end_lsn = self.previous_end_lsn = commit.end_lsn
        self.last_commit_us = commit.commit_us

    def _on_origin(self, _lsn: int, payload: bytes) -> None:
        if not self.in_transaction:
            raise DecodeError("ORIGIN outside any transaction")
        origin = parse_origin(payload)
        self._transaction = self._transaction._replace(origin=origin.name, origin_lsn=origin.lsn)
        self._out.transactions[-1] = self._transaction

    def _on_relation(self, _lsn: int, payload: bytes) -> None:
        relation = parse_relation(payload)
        self._relations[payload[1:5]] = self.describe(relation)
        if self._active is not self._relations:
            self._choose_relations(self._transaction.commit_lsn)

    def _on_type(self, _lsn: int, payload: bytes) -> None:
        # types are looked up by oid in the catalogue; the message only has to be well-formed
        parse_type(payload)

    def _on_truncate(self, lsn: int, payload: bytes) -> None:
        truncate = parse_truncate(payload)
        if not self.in_transaction:
            raise DecodeError("a TRUNCATE outside any transaction")
        self._ordinal += 1
        if self._resume is not None and self._stored_already(lsn):
            return
        for oid in truncate.relation_ids:
            key = struct.pack(">I", oid)
            if key not in self._active:
                raise DecodeError(f"TRUNCATE of relation {oid} before its RELATION message")
            plan = self._active[key]
            if plan is not None:
                self.truncated[oid] = self._transaction.commit_lsn
            if plan is not None and TRUNCATE not in self.options.skipped:
                self._append(TRUNCATE, plan, lsn, None, None, None, ())

    def _on_message(self, lsn: int, payload: bytes) -> None:
        message = parse_message(payload)
        if message.transactional != self.in_transaction:
            raise DecodeError("a MESSAGE on the wrong side of a transaction's border")
        if message.transactional:
            self._ordinal += 1
            if self._resume is not None and self._stored_already(lsn):
                return
        elif lsn <= self.message_lsn:
            return
        else:
            self.message_lsn = lsn
            # to Debezium a transaction of its own that ends here: sequence[0] says so from now on
            self.previous_end_lsn = lsn
        self._append_message(message, lsn)

    def _append_message(self, message: Message, lsn: int) -> None:
        schema, out = self.options.message_schema, self._out
        if schema is None or not self.options.wants_prefix(message.prefix):
            return
        transaction = len(out.transactions) - 1
        if not message.transactional:
            # outside the commit order: a transaction of its own without an xid
            loose = Transaction(0, lsn, lsn, self.last_commit_us, self.previous_end_lsn)
            out.transactions.append(loose)
            transaction += 1
        prefix = orjson.dumps(message.prefix)
        content = self.options.message_content(message.content)
        row = b'{"prefix":%b,"content":%b}' % (prefix, content)
        key = b'{"prefix":%b}' % prefix
        ordinal = self._ordinal if message.transactional else 0
        index = out.index(schema)
        out.rows.append((MESSAGE, index, transaction, lsn, ordinal, key, None, row))

    # --- resume and errors ----------------------------------------------------------------

    def _stored_already(self, lsn: int) -> bool:
        """Whether this change of the resumed transaction is in the log; it checks the last."""
        stored = self._resume
        if stored is None or self._ordinal > stored.ordinal:
            return False
        if self._ordinal == stored.ordinal:
            if lsn != stored.lsn:
                raise self._mismatch(f"change {self._ordinal} at {lsn_text(lsn)}")
            self._resume = None
        return True

    def _mismatch(self, found: str) -> PositionMismatch:
        stored = self._resume or OpenTransaction(0, 0, 0)
        return PositionMismatch(
            f"the server sent {found} where the log stopped in the transaction committed at "
            f"{lsn_text(stored.commit_lsn)}, after change {stored.ordinal} at "
            f"{lsn_text(stored.lsn)}",
            remedy="the publication or the server changed under a stored position: drop the slot "
            "and set snapshot.mode=when_needed to read the tables again",
        )

    def _unknown_relation(self, payload: bytes, lsn: int) -> DecodeError:
        oid = _unpack_oid(payload, 1)[0] if len(payload) >= 5 else "?"
        return DecodeError(
            f"at LSN {lsn_text(lsn)}: a change of relation {oid} before its RELATION message"
        )


def _old_image(plan: RelationPlan, kind: int, buf: bytes) -> tuple[Fragment, Fragment, int]:
    """(key, row, where the new tuple starts) of an UPDATE's old tuple, if it has one."""
    if kind == _NEW:
        return None, None, 6
    if kind not in (_OLD, _KEY):
        raise DecodeError(f"UPDATE holds a tuple of kind {kind:#04x}")
    key, row, _, at = plan.image(buf, 6)
    if buf[at] != _NEW:
        raise DecodeError("UPDATE without its new tuple")
    return key, row, at + 1


def _filled(
    plan: RelationPlan, buf: bytes, new_at: int
) -> tuple[bytes | None, bytes, tuple[int, ...]]:
    """The new image with its unsent values taken from the full old one (facts §3.2)."""
    old, _ = raw_tuple(buf, 6)
    new, _ = raw_tuple(buf, new_at)
    merged = [o if n == UNCHANGED else n for o, n in zip(old, new, strict=True)]
    key, row, unsent, _ = plan.image(packed_tuple(merged) + PAD, 0)
    return key, row, unsent


_HANDLERS: dict[int, Callable[[Decoder, int, bytes], None]] = {
    _BEGIN: Decoder._on_begin,
    _COMMIT: Decoder._on_commit,
    b"O"[0]: Decoder._on_origin,
    b"R"[0]: Decoder._on_relation,
    b"Y"[0]: Decoder._on_type,
    b"T"[0]: Decoder._on_truncate,
    _MESSAGE: Decoder._on_message,
}
