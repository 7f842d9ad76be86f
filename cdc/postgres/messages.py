"""pgoutput's messages outside the row data: bytes in, named fields out. No I/O.

Layouts are the protocol documentation's, "Logical Replication Message Formats", protocol
version 1. Malformed bytes raise DecodeError.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from cdc.errors import DecodeError

# Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
EPOCH_US = 946_684_800_000_000


class Begin(NamedTuple):
    """``commit_us``: µs since the Unix epoch."""

    commit_lsn: int
    commit_us: int
    xid: int


class Commit(NamedTuple):
    """``end_lsn`` is what may be confirmed."""

    commit_lsn: int
    end_lsn: int
    commit_us: int


class Origin(NamedTuple):
    """``lsn`` is the commit's on its own server."""

    lsn: int
    name: str


class RelationColumn(NamedTuple):
    """``key`` is set for the columns of the replica identity, not of the primary key."""

    name: str
    type_id: int
    modifier: int
    key: bool


class Relation(NamedTuple):
    """``identity`` is pg_class.relreplident: d, n, f or i."""

    id: int
    schema: str
    name: str
    identity: str
    columns: tuple[RelationColumn, ...]


class Truncate(NamedTuple):
    """Options are those of the statement."""

    relation_ids: tuple[int, ...]
    cascade: bool
    restart_identity: bool


class Message(NamedTuple):
    """``content`` is arbitrary bytes."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


class Type(NamedTuple):
    """A user's type."""

    id: int
    schema: str
    name: str


def parse_begin(buf: bytes) -> Begin:
    """BEGIN."""
    lsn, us, xid = _exactly(">xQqI", buf)
    return Begin(lsn, us + EPOCH_US, xid)


def parse_commit(buf: bytes) -> Commit:
    """COMMIT."""
    _flags, lsn, end, us = _exactly(">xBQQq", buf)
    return Commit(lsn, end, us + EPOCH_US)


def parse_origin(buf: bytes) -> Origin:
    """ORIGIN: where a replicated transaction comes from."""
    reader = _Reader(buf)
    (lsn,) = reader.take(">Q")
    origin = Origin(lsn, reader.text())
    reader.finish()
    return origin


def parse_type(buf: bytes) -> Type:
    """TYPE: a type that is no built-in one."""
    reader = _Reader(buf)
    (oid,) = reader.take(">I")
    found = Type(oid, reader.text() or "pg_catalog", reader.text())
    reader.finish()
    return found


def parse_relation(buf: bytes) -> Relation:
    """RELATION: a table's structure, sent before its first change."""
    reader = _Reader(buf)
    (oid,) = reader.take(">I")
    # the protocol sends an empty name for pg_catalog
    schema, name = reader.text() or "pg_catalog", reader.text()
    identity, count = reader.take(">BH")
    columns = []
    for _ in range(count):
        (flags,) = reader.take(">B")
        column = reader.text()
        type_id, modifier = reader.take(">Ii")
        columns.append(RelationColumn(column, type_id, modifier, bool(flags & 1)))
    reader.finish()
    names = {column.name for column in columns}
    if "" in names or len(names) < len(columns):
        raise DecodeError(f"RELATION {name}: a column without a name, or two of one name")
    return Relation(oid, schema, name, chr(identity), tuple(columns))


def parse_truncate(buf: bytes) -> Truncate:
    """TRUNCATE of one or more tables."""
    reader = _Reader(buf)
    count, options = reader.take(">IB")
    if count * 4 != len(buf) - 6:
        raise DecodeError(f"TRUNCATE of {count} relations in {len(buf)} bytes")
    ids = reader.take(f">{count}I")
    return Truncate(tuple(ids), bool(options & 1), bool(options & 2))


def parse_message(buf: bytes) -> Message:
    """MESSAGE: what pg_logical_emit_message wrote."""
    reader = _Reader(buf)
    flags, lsn = reader.take(">BQ")
    prefix = reader.text()
    (length,) = reader.take(">I")
    content = buf[reader.at : reader.at + length]
    reader.at += length
    reader.finish()
    return Message(bool(flags & 1), lsn, prefix, content)


def _exactly(layout: str, buf: bytes) -> tuple[int, ...]:
    try:
        return struct.unpack(layout, buf)
    except struct.error as error:
        raise DecodeError(f"message {buf[:1]!r} of {len(buf)} bytes: {error}") from None


class _Reader:
    """A cursor over one message, past its tag."""

    def __init__(self, buf: bytes) -> None:
        self.buf, self.at = buf, 1

    def take(self, layout: str) -> tuple[int, ...]:
        """The next numbers."""
        try:
            values: tuple[int, ...] = struct.unpack_from(layout, self.buf, self.at)
        except struct.error as error:
            raise DecodeError(f"message {self.buf[:1]!r} ends early: {error}") from None
        self.at += struct.calcsize(layout)
        return values

    def text(self) -> str:
        """The next NUL-terminated name."""
        end = self.buf.find(b"\x00", self.at)
        if end < 0:
            raise DecodeError(f"message {self.buf[:1]!r}: text without its end")
        raw, self.at = self.buf[self.at : end], end + 1
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise DecodeError(f"message {self.buf[:1]!r}: a name is not UTF-8") from None

    def finish(self) -> None:
        """All bytes must have been read."""
        if self.at != len(self.buf):
            raise DecodeError(
                f"message {self.buf[:1]!r}: {len(self.buf)} bytes where {self.at} were expected"
            )
