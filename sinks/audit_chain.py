"""The audit chain: what a record's hash is computed over, and what breaks a chain. No I/O.

**The hash.** A record has the columns of :data:`COLUMNS`. Its hash is taken over these bytes::

    cdc-audit-2 LF
    previous_hash seq journal_offset lsn
    journal who why committed_at txid table_name op
    key before after changed

(without the spaces and line ends shown here). Each column is a netstring, ``<n>:<bytes>,``:
the number of bytes in decimal digits, a colon, the bytes, a comma. Texts are their UTF-8
bytes as stored, numbers their decimal digits; NULL is the single byte ``-`` instead of a
netstring. The hash is the SHA-256 of that, or with ``audit.hash.key`` the HMAC-SHA256 under
the key's UTF-8 bytes, in lower-case hex. ``previous_hash`` of the record before is its
``hash``; the first record's is 64 zeros. ``seq`` counts the chain's records from 1.

**The format** of a record's key and images is in what is hashed: since ``cdc-audit-2`` decimals,
dates and times are written as people read them (:mod:`schemas.semantic`). Records of older
versions, ``cdc-audit-1``, hold them as events do (base64, days, microseconds since 1970); they
verify as they are, and one chain may hold both.

Without a key, whoever can write the table can also compute a whole new chain: only a hash
noted elsewhere (``cdc audit verify --last-hash``) shows that. With one, he needs the key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from cdc.authors import Author
from cdc.errors import SinkRejected

COLUMNS: Final = (
    "seq", "journal", "journal_offset", "who", "why", "committed_at", "lsn", "txid",
    "table_name", "op", "key", "before", "after", "changed", "previous_hash", "hash",
)  # fmt: skip
NUMBERS: Final = frozenset(("seq", "journal_offset", "lsn", "txid"))
REQUIRED: Final = frozenset(COLUMNS) - {"who", "why", "txid", "key", "before", "after", "changed"}

GENESIS: Final = "0" * 64
_TAG: Final = b"cdc-audit-2\n"
_RAW_TAG: Final = b"cdc-audit-1\n"
_COLUMN_TAG: Final = b"cdc-audit-column\n"
_CHECK_TAG: Final = b"cdc-audit-key-check\n"
_NULL: Final = b"-"
HASHED_PREFIX: Final = "hmac-sha256:"

# One record of a store, in the order of COLUMNS.
Record = tuple[Any, ...]


class Link(NamedTuple):
    """The end of a chain: the last record's number and hash."""

    seq: int = 0
    hash: str = GENESIS


START: Final = Link()


class Entry(NamedTuple):
    """A record before it is linked: what an event says, without who and why."""

    journal_offset: int
    lsn: int
    committed_at: str
    txid: int | None
    table_name: str
    op: str
    key: bytes | None
    before: bytes | None
    after: bytes | None
    changed: bytes | None


_NAMED: Final = re.compile(rb"\s*[\w.]+\s*=\s*[^=\s]")  # and no padding of base64


class Hasher:
    """Hashes of records and of columns, with or without a key."""

    def __init__(self, key: str | None) -> None:
        self._key = key.encode() if key else None

    @property
    def is_named(self) -> bool:
        """Whether the key looks like ``name=value``, of which the value alone may be meant."""
        return self._key is not None and _NAMED.match(self._key) is not None

    def record(self, content: bytes) -> str:
        """A record's hash, of its canonical bytes."""
        if self._key is None:
            return hashlib.sha256(content).hexdigest()
        return hmac.digest(self._key, content, "sha256").hex()

    def column(self, value: bytes) -> str:
        """What is stored in place of a sensitive value."""
        assert self._key is not None
        return HASHED_PREFIX + hmac.digest(self._key, _COLUMN_TAG + value, "sha256").hex()

    @property
    def check(self) -> str:
        """Tells whether another key is the same one, and nothing else about it."""
        if self._key is None:
            return "none"
        return hmac.digest(self._key, _CHECK_TAG, "sha256").hex()[:16]


def netstring(value: bytes | None) -> bytes:
    """One column's bytes inside the content that is hashed."""
    return _NULL if value is None else b"%d:%b," % (len(value), value)


def _text(value: str | None) -> bytes:
    return _NULL if value is None else netstring(value.encode())


def _number(value: int | None) -> bytes:
    return _NULL if value is None else netstring(b"%d" % value)


class Chain:
    """Links entries to the end of a chain."""

    def __init__(self, journal: str, hasher: Hasher, end: Link) -> None:
        self.journal, self.hasher, self.end = journal, hasher, end
        self._hash = hasher.record
        self._heads: dict[tuple[Any, ...], bytes] = {}

    def link(self, entries: Iterable[Entry], author: Author) -> list[Record]:
        """The records of some entries with one author, the chain's end moved on."""
        journal, (who, why), hash_ = self.journal, author, self._hash
        seq, previous = self.end
        heads, out = self._heads, []
        heads.clear()
        for offset, lsn, at, txid, table, op, key, before, after, changed in entries:
            seq += 1
            head = heads.get((at, txid, table, op))
            if head is None:
                head = heads[at, txid, table, op] = self._head(author, at, txid, table, op)
            number, place, position = b"%d" % seq, b"%d" % offset, b"%d" % lsn
            content = b"%b64:%b,%d:%b,%d:%b,%d:%b,%b%b%b%b%b" % (
                _TAG, previous.encode(), len(number), number, len(place), place,
                len(position), position, head,
                _NULL if key is None else b"%d:%b," % (len(key), key),
                _NULL if before is None else b"%d:%b," % (len(before), before),
                _NULL if after is None else b"%d:%b," % (len(after), after),
                _NULL if changed is None else b"%d:%b," % (len(changed), changed),
            )  # fmt: skip
            found = hash_(content)
            out.append(
                (
                    seq, journal, offset, who, why, at, lsn, txid, table, op,
                    None if key is None else key.decode(),
                    None if before is None else before.decode(),
                    None if after is None else after.decode(),
                    None if changed is None else changed.decode(),
                    previous, found,
                )
            )  # fmt: skip
            previous = found
        self.end = Link(seq, previous)
        return out

    def _head(self, author: Author, at: str, txid: int | None, table: str, op: str) -> bytes:
        parts = (self.journal, author.who, author.why, at)
        return b"".join((*map(_text, parts), _number(txid), _text(table), _text(op)))


def content_of(record: Sequence[Any], tag: bytes = _TAG) -> bytes:
    """A stored record's canonical bytes; its texts are bytes, as the store has them."""
    (seq, journal, offset, who, why, at, lsn, txid, table, op, key, before, after, changed,
     previous, _) = record  # fmt: skip
    parts = (
        previous, seq, offset, lsn, journal, who, why, at, txid, table, op,
        key, before, after, changed,
    )  # fmt: skip
    return tag + b"".join(
        _number(part) if isinstance(part, int) else netstring(part) for part in parts
    )


class Damaged(SinkRejected):
    """What holds records does not hold them as the sink wrote them. ``seq``: from there on."""

    def __init__(self, problem: str, seq: int | None = None) -> None:
        super().__init__(problem)
        self.seq = seq


@dataclass(slots=True)
class Report:
    """What verification found. ``problem`` is the first thing that is wrong, or empty."""

    records: int = 0
    end: Link = START
    problem: str = ""
    at: int | None = None  # the record (seq) where the problem is
    raw: int = 0  # records of the older format
    since_last: int | None = None  # records after the one with the last known hash

    @property
    def ok(self) -> bool:
        """Whether the chain is whole."""
        return not self.problem


def verify(
    records: Iterable[Sequence[Any]],
    hasher: Hasher,
    *,
    last_hash: str | None = None,
    kept: Link | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Walk a chain in the order of ``seq``; texts are bytes. Stops at the first problem.

    ``kept`` is where the sink says its chain ends. Damaged records are a problem too.
    """
    report = Report()
    try:
        _walk(records, hasher, report, last_hash, progress)
    except Damaged as damage:
        report.problem, report.at = str(damage), damage.seq or report.end.seq + 1
    if report.ok and kept is not None and report.end != kept:
        report.problem, report.at = _tail(report.end, kept), report.end.seq + 1
    elif report.ok and last_hash is not None and report.since_last is None:
        report.problem = unseen(last_hash)
    return report


def unseen(last_hash: str) -> str:
    """What is wrong with a chain in which a hash is not."""
    return (
        f"no record has the last known hash {last_hash}: the chain's tail was removed, or the"
        " whole chain was written anew"
    )


def fits(record: Sequence[Any], hasher: Hasher) -> bool:
    """Whether a record's hash is that of its columns, in any format."""
    try:
        contents = [content_of(record, tag) for tag in (_TAG, _RAW_TAG)]
    except TypeError:
        return False
    return any(hasher.record(content).encode() == record[-1] for content in contents)


def _walk(
    records: Iterable[Sequence[Any]],
    hasher: Hasher,
    report: Report,
    last_hash: str | None,
    progress: Callable[[int], None] | None,
) -> None:
    report.since_last = 0 if last_hash == GENESIS else None
    places: dict[bytes, int] = {}
    for record in records:
        try:
            problem = _miscounted(record, report.end)
            if not problem and hasher.record(content_of(record)).encode() != record[-1]:
                # Asked second: chains that are written now have none of these.
                raw = fits(record, hasher)
                problem = "" if raw else _ALTERED.format(record[0])
                report.raw += raw
        except TypeError:  # a table made again may have columns of any type
            seq = report.end.seq + 1
            raise Damaged(f"record {seq} was altered: a value has another type", seq) from None
        problem = problem or _misplaced(record, report.end, places)
        if problem:
            report.problem, report.at = problem, record[0]
            return
        report.end = Link(record[0], record[-1].decode())
        report.records += 1
        if report.since_last is not None:
            report.since_last += 1
        elif report.end.hash == last_hash:
            report.since_last = 0
        if progress is not None and report.records % 100_000 == 0:
            progress(report.records)


def _tail(end: Link, kept: Link) -> str:
    if end.seq < kept.seq:
        return (
            f"the tail was removed: the sink wrote {kept.seq} records, the last one here is"
            f" {end.seq}"
        )
    if end.seq > kept.seq:
        return f"records after {kept.seq} were inserted: the sink did not write them"
    return f"record {end.seq} is not the one that the sink wrote last"


_ALTERED: Final = "record {} was altered: its hash does not match its columns"


def _miscounted(record: Sequence[Any], end: Link) -> str:
    """What is wrong with a record's number; an empty text for nothing."""
    seq = record[0]
    if seq > end.seq + 1:
        missing = f"{end.seq + 1} to {seq - 1}" if seq > end.seq + 2 else str(seq - 1)
        return f"a gap: record {missing} is missing"
    return f"record {seq} is there twice" if seq <= end.seq else ""


def _misplaced(record: Sequence[Any], end: Link, places: dict[bytes, int]) -> str:
    """What is wrong with a whole record's place after the end so far."""
    seq, journal, offset = record[:3]
    if record[-2] != end.hash.encode():
        return f"broken link: record {seq} does not follow record {end.seq} as it is stored"
    if offset <= places.get(journal, -1):
        return f"record {seq} is out of order: offset {offset} of the journal was passed already"
    places[journal] = offset
    return ""
