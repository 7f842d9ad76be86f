"""Block: some thousand changes in columns, the unit that crosses every border.

A decoder fills one through :meth:`Block.build`; a log stores its encoded form; sinks read
it by column (``op``, ``keys``, ``afters``) or, where they must, row by row as a
:class:`cdc.record.Record`. Objects per row are made only where someone looks.

Rows are changes of a table, logical decoding messages, or records that a chain of transforms
has made (``EventSchema.kind``). A record row has the JSON form of its key in ``keys`` and that
of its whole value in ``afters``, None for null; ``befores`` holds nothing. Its ``op`` is that of
the change it comes from, DELETE where its value is null. A tombstone is a row of its own.

Encoded form, what a log stores per block. Format 1, or 2 where the block holds what a reader of
format 1 would get wrong: record rows, tables routed to another topic, headers of rows::

    header   JSON: row count, schema fingerprints, snapshot markers, sparse columns
    body     zstd over: fixed-width columns, fragment lengths, fragments
    crc      zlib.crc32 over header and body
    filter   crc32 of every (schema, key): which rows can be in here; a truncate counts as
             the empty key of its schema
"""

from __future__ import annotations

import sys
import threading
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple, cast

import orjson
import zstandard

from cdc.block.headers import RowHeaders, dump_headers, load_headers
from cdc.errors import LogCorrupt, LogVersion
from schemas import EventSchema

FORMAT = 2
PLAIN_FORMAT = 1  # of a block that holds nothing a chain of transforms has made
ENTRY_BYTES = 4  # of one hash in a filter
ZSTD_LEVEL = 1  # level 3 saves 8 % of the space and costs twice the CPU on row data

READ, CREATE, UPDATE, DELETE, TRUNCATE, MESSAGE = b"rcudtm"

# Marker of a row that was streamed, not read by a snapshot (facts: source.snapshot).
STREAMED = "false"

Fragment = bytes | None
# (op, schema index, transaction index, lsn, ordinal, key, before, after)
Row = tuple[int, int, int, int, int, Fragment, Fragment, Fragment]


class Transaction(NamedTuple):
    """A source transaction, as far as a block needs it.

    ``end_lsn`` is 0 while the transaction's COMMIT lies in a later block; ``commit_us`` is
    the commit time in µs since the Unix epoch; ``previous_end_lsn`` is the end LSN of the
    transaction committed before it (0: none seen).
    """

    xid: int
    commit_lsn: int
    end_lsn: int
    commit_us: int
    previous_end_lsn: int
    origin: str | None = None
    origin_lsn: int | None = None


@dataclass(slots=True)
class Block:
    """Changes in log order, by column. All columns have ``len(block)`` entries.

    ``schemas`` and ``transactions`` are dictionaries for the index columns ``schema`` and
    ``transaction``. ``keys``, ``befores``, ``afters`` hold JSON fragments, None where the
    event has none. Sparse columns: ``unchanged`` (row → indices of the row struct's fields
    the server did not send; their fragment holds the placeholder), ``moved`` (row → key
    fragment: the new key on the DELETE, the old key on the CREATE of a key change).
    ``marker`` is ``source.snapshot`` of all rows but those in ``markers``. ``created_us``
    is the connector's clock. ``context`` are constant headers; ``tombstones``:
    the source wants a record of key and nothing after each delete. ``offsets`` are journal
    offsets, empty before the block is stored.
    """

    schemas: tuple[EventSchema, ...]
    transactions: tuple[Transaction, ...]
    op: bytes
    schema: array[int]
    transaction: array[int]
    lsn: array[int]
    ordinal: array[int]
    keys: Sequence[Fragment]
    befores: Sequence[Fragment]
    afters: Sequence[Fragment]
    created_us: int
    unchanged: dict[int, tuple[int, ...]] = field(default_factory=dict)
    moved: dict[int, bytes] = field(default_factory=dict)
    marker: str = STREAMED
    markers: dict[int, str] = field(default_factory=dict)
    context: Mapping[str, str] = field(default_factory=dict)
    tombstones: bool = True
    offsets: Sequence[int] = range(0)
    headers: dict[int, RowHeaders] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.op)

    @classmethod
    def build(
        cls,
        rows: Sequence[Row],
        schemas: tuple[EventSchema, ...],
        transactions: tuple[Transaction, ...],
        created_us: int,
        **sparse: Any,
    ) -> Block:
        """A block from row tuples. ``rows`` may be empty."""
        columns: Sequence[Any] = list(zip(*rows, strict=True)) or [()] * 8
        op, schema, transaction, lsn, ordinal, keys, befores, afters = columns
        return cls(
            schemas,
            transactions,
            bytes(op),
            array("H", schema),
            array("I", transaction),
            array("Q", lsn),
            array("I", ordinal),
            keys,
            befores,
            afters,
            created_us,
            **sparse,
        )

    def marker_of(self, row: int) -> str:
        """``source.snapshot`` of one row."""
        return self.markers.get(row, self.marker)

    def select(self, rows: Sequence[int]) -> Block:
        """The given rows as a block of their own, with their journal offsets."""
        if len(rows) == len(self):
            return self
        position = {row: i for i, row in enumerate(rows)}

        def pick(column: Sequence[Any]) -> list[Any]:
            return [column[row] for row in rows]

        def sparse(values: dict[int, Any]) -> dict[int, Any]:
            return {position[row]: v for row, v in values.items() if row in position}

        return Block(
            self.schemas,
            self.transactions,
            bytes(pick(self.op)),
            array("H", pick(self.schema)),
            array("I", pick(self.transaction)),
            array("Q", pick(self.lsn)),
            array("I", pick(self.ordinal)),
            pick(self.keys),
            pick(self.befores),
            pick(self.afters),
            self.created_us,
            sparse(self.unchanged),
            sparse(self.moved),
            self.marker,
            sparse(self.markers),
            self.context,
            self.tombstones,
            pick(self.offsets) if self.offsets else range(0),
            sparse(self.headers),
        )

    def pruned(self) -> Block:
        """Without the schemas that no row has: who plans by schema plans nothing for them."""
        used = sorted(set(self.schema))
        if len(used) == len(self.schemas):
            return self
        numbers = {schema: number for number, schema in enumerate(used)}
        return replace(
            self,
            schemas=tuple(self.schemas[schema] for schema in used),
            schema=array("H", [numbers[schema] for schema in self.schema]),
        )

    def encode(self) -> EncodedBlock:
        """The stored form. Costs the compression; releases the GIL meanwhile."""
        changed = bool(self.headers) or any(s.kind == "record" or s.routed for s in self.schemas)
        header = orjson.dumps(
            {
                "v": FORMAT if changed else PLAIN_FORMAT,
                "n": len(self),
                "created_us": self.created_us,
                "schemas": [s.fingerprint for s in self.schemas],
                "marker": self.marker,
                "markers": _text_keys(self.markers),
                "unchanged": _text_keys(self.unchanged),
                "moved": _text_keys({row: key.decode() for row, key in self.moved.items()}),
                "context": dict(self.context),
                "tombstones": self.tombstones,
                "origins": {
                    str(i): [t.origin, t.origin_lsn]
                    for i, t in enumerate(self.transactions)
                    if t.origin is not None
                },
                "transactions": len(self.transactions),
                **({"headers": dump_headers(self.headers)} if self.headers else {}),
            }
        )
        body = _compressor().compress(b"".join(_body_parts(self)))
        return EncodedBlock(
            rows=len(self),
            header=header,
            body=body,
            crc=zlib.crc32(body, zlib.crc32(header)),
            filter=_key_filter(self),
            schemas=self.schemas,
            first_lsn=min(self.lsn, default=0),
            last_lsn=max(self.lsn, default=0),
            commit_lsn=self.transactions[-1].commit_lsn if self.transactions else 0,
            commit_us=max((t.commit_us for t in self.transactions), default=0),
        )


@dataclass(frozen=True, slots=True)
class EncodedBlock:
    """A Block as stored. ``commit_lsn`` is its last transaction's; ``commit_us`` the latest."""

    rows: int
    header: bytes
    body: bytes
    crc: int
    filter: bytes
    schemas: tuple[EventSchema, ...]
    first_lsn: int
    last_lsn: int
    commit_lsn: int
    commit_us: int

    @property
    def nbytes(self) -> int:
        """Bytes on disk, without the log's own index."""
        return len(self.header) + len(self.body) + len(self.filter)

    def remark(self, markers: Mapping[int, str]) -> EncodedBlock:
        """The same block with other snapshot markers; the body is not touched."""
        header = orjson.loads(self.header)
        header["markers"].update(_text_keys(markers))
        text = orjson.dumps(header)
        crc = zlib.crc32(self.body, zlib.crc32(text))
        return EncodedBlock(
            self.rows, text, self.body, crc, self.filter, self.schemas,
            self.first_lsn, self.last_lsn, self.commit_lsn, self.commit_us,
        )  # fmt: skip

    def decode(self) -> Block:
        """The block again, which has no journal offsets yet."""
        schemas = {schema.fingerprint: schema for schema in self.schemas}
        plain = decode_block(self.header, self.body, self.crc, schemas.__getitem__, 0)
        return replace(plain, offsets=range(0))


def decode_block(
    header: bytes,
    body: bytes,
    crc: int,
    schema_of: Callable[[str], EventSchema],
    first_offset: int,
) -> Block:
    """The inverse of :meth:`Block.encode`; fragments are sliced only when asked for.

    ``schema_of`` finds a schema by fingerprint. Raises LogCorrupt when the checksum does
    not match, LogVersion for a newer format.
    """
    if zlib.crc32(body, zlib.crc32(header)) != crc:
        raise LogCorrupt(f"block at offset {first_offset}: checksum does not match")
    head = orjson.loads(header)
    if head["v"] > FORMAT:
        raise LogVersion(f"block format {head['v']} is newer than {FORMAT}")
    rows, count = head["n"], head["transactions"]
    data = memoryview(_decompressor().decompress(body))
    cursor = _Cursor(data)
    op = bytes(cursor.take(rows))
    schema = cursor.column("H", rows)
    transaction = cursor.column("I", rows)
    lsn = cursor.column("Q", rows)
    ordinal = cursor.column("I", rows)
    transactions = _read_transactions(cursor, count, head["origins"])
    lengths = [cursor.column("i", rows) for _ in range(3)]
    keys, befores, afters = (_Fragments(cursor, n) for n in lengths)
    return Block(
        tuple(schema_of(f) for f in head["schemas"]),
        transactions,
        op,
        schema,
        transaction,
        lsn,
        ordinal,
        keys,
        befores,
        afters,
        created_us=head["created_us"],
        unchanged={int(row): tuple(v) for row, v in head["unchanged"].items()},
        moved={int(row): key.encode() for row, key in head["moved"].items()},
        marker=head["marker"],
        markers={int(row): v for row, v in head["markers"].items()},
        context=head["context"],
        tombstones=head.get("tombstones", True),
        offsets=range(first_offset, first_offset + rows),
        headers=load_headers(head["headers"]) if "headers" in head else {},
    )


def key_hash(fingerprint: str, key: bytes) -> int:
    """The entry of a block's filter for one (schema, key); the empty key: a truncate."""
    return zlib.crc32(key, int(fingerprint[:8], 16))


def may_hold(filter_: bytes, hashes: Iterable[int]) -> bool:
    """Whether a block with this filter can hold one of the keys: never a false no."""
    return any(True for _ in find_entries(filter_, hashes))


def find_entries(filter_: bytes, hashes: Iterable[int]) -> Iterator[int]:
    """Where the entries of these hashes are in a filter, or in several joined ones.

    A search over bytes is some fifty times faster than making a set of the entries.
    """
    for hash_ in hashes:
        entry = hash_.to_bytes(ENTRY_BYTES, sys.byteorder)
        at = filter_.find(entry)
        while at >= 0:
            if at % ENTRY_BYTES == 0:  # else found across two entries
                yield at // ENTRY_BYTES
            at = filter_.find(entry, at + 1)


class _Cursor:
    """Walks the fixed-width part of a body."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def take(self, nbytes: int) -> memoryview:
        piece = self.data[self.at : self.at + nbytes]
        self.at += nbytes
        return piece

    def column(self, code: str, rows: int) -> array[int]:
        out: array[int] = array(code)
        out.frombytes(self.take(rows * out.itemsize))
        return out


class _Fragments(Sequence[Fragment]):
    """One column of fragments inside a decompressed body, sliced on first use."""

    __slots__ = ("_lengths", "_list", "_raw")

    def __init__(self, cursor: _Cursor, lengths: array[int]) -> None:
        self._lengths = lengths
        # A missing fragment has length -1; counting them is cheaper than skipping them.
        missing = lengths.count(-1)
        self._raw = cursor.take(sum(lengths) + missing)
        self._list: list[Fragment] | None = [None] * missing if missing == len(lengths) else None

    def _slices(self) -> list[Fragment]:
        if self._list is None:
            raw, at = bytes(self._raw), 0
            out: list[Fragment] = []
            append = out.append
            for n in self._lengths:
                if n < 0:
                    append(None)
                else:
                    append(raw[at : at + n])
                    at += n
            self._list = out
        return self._list

    def __len__(self) -> int:
        return len(self._lengths)

    def __getitem__(self, index: Any) -> Any:
        return self._slices()[index]

    def __iter__(self) -> Any:
        return iter(self._slices())


def _text_keys(sparse: Mapping[int, Any]) -> dict[str, Any]:
    return {str(row): value for row, value in sparse.items()}


def _body_parts(block: Block) -> list[bytes]:
    t = block.transactions
    columns = [_fragment_parts(c) for c in (block.keys, block.befores, block.afters)]
    return [
        block.op,
        block.schema.tobytes(),
        block.transaction.tobytes(),
        block.lsn.tobytes(),
        block.ordinal.tobytes(),
        array("q", [x.xid for x in t]).tobytes(),
        array("Q", [x.commit_lsn for x in t]).tobytes(),
        array("Q", [x.end_lsn for x in t]).tobytes(),
        array("q", [x.commit_us for x in t]).tobytes(),
        array("Q", [x.previous_end_lsn for x in t]).tobytes(),
        *(lengths for lengths, _ in columns),
        *chain.from_iterable(texts for _, texts in columns),
    ]


def _fragment_parts(column: Sequence[Fragment]) -> tuple[bytes, Sequence[bytes]]:
    """Lengths (-1: none) and the texts of one column of fragments.

    Not joined here: a block of wide rows would be in memory once more.
    """
    full = cast("Sequence[bytes]", column)  # most columns hold no None: try that first
    try:
        return array("i", list(map(len, full))).tobytes(), full
    except TypeError:
        lengths = array("i", [-1 if f is None else len(f) for f in column])
        return lengths.tobytes(), [f for f in column if f is not None]


def _read_transactions(
    cursor: _Cursor, count: int, origins: Mapping[str, Any]
) -> tuple[Transaction, ...]:
    columns = [cursor.column(code, count) for code in "qQQqQ"]
    out = [Transaction(*values) for values in zip(*columns, strict=True)]
    for i, (name, lsn) in origins.items():
        out[int(i)] = out[int(i)]._replace(origin=name, origin_lsn=lsn)
    return tuple(out)


def _key_filter(block: Block) -> bytes:
    seeds = [int(s.fingerprint[:8], 16) for s in block.schemas]
    crc = zlib.crc32
    try:
        keys = cast("Sequence[bytes]", block.keys)
        hashes = set(map(crc, keys, map(seeds.__getitem__, block.schema)))
    except TypeError:  # some rows have no key
        pairs = zip(block.keys, block.schema, strict=True)
        hashes = {crc(key, seeds[schema]) for key, schema in pairs if key is not None}
    if TRUNCATE in block.op:
        rows = zip(block.op, block.schema, strict=True)
        hashes.update(crc(b"", seeds[schema]) for op, schema in rows if op == TRUNCATE)
    return array("I", hashes).tobytes()


# zstd contexts are costly to make and not safe to share between threads.
_local = threading.local()


def _compressor() -> zstandard.ZstdCompressor:
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    compressor: zstandard.ZstdCompressor = _local.compressor
    return compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    decompressor: zstandard.ZstdDecompressor = _local.decompressor
    return decompressor
