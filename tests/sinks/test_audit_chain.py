"""Whatever is changed in a chain is found: one column, one record, the order, the end."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.authors import Author
from sinks.audit_chain import (
    COLUMNS,
    GENESIS,
    NUMBERS,
    Chain,
    Entry,
    Hasher,
    Link,
    content_of,
    verify,
)

Stored = list[Any]
NULLABLE = {"who", "why", "txid", "key", "before", "after", "changed"}


def chain(count: int, key: str | None = None) -> list[Stored]:
    """As a store gives it: texts as bytes."""
    made = Chain("shop", Hasher(key), Link())
    out: list[Stored] = []
    for n in range(count):
        body = b'{"id":%d}' % n
        entry = Entry(
            n * 2, 1000 + n, "2026-01-01T00:00:00.000000Z", 7 if n % 2 else None, "public.t",
            "u", body, body if n % 3 else None, body, b'["a"]',
        )  # fmt: skip
        author = Author("ann", "ticket") if n % 2 else Author()
        out += map(as_stored, made.link([entry], author))
    return out


def as_stored(record: Any) -> Stored:
    return [x.encode() if isinstance(x, str) else x for x in record]


def broken(records: list[Stored], original: list[Stored], key: str | None = None) -> str:
    last = original[-1][-1].decode()
    return verify(records, Hasher(key), last_hash=last).problem


@pytest.mark.parametrize("key", [None, "secret"])
def test_an_untouched_chain_is_whole(key: str | None) -> None:
    records = chain(9, key)
    report = verify(records, Hasher(key), last_hash=records[4][-1].decode())
    assert report.ok
    assert (report.records, report.since_last) == (9, 4)
    assert report.end == Link(9, records[-1][-1].decode())
    assert verify([], Hasher(key)).end == Link(0, GENESIS)


def test_the_documented_bytes_are_what_is_hashed() -> None:
    record = chain(2)[1]
    previous = record[14].decode()
    text = (
        f"cdc-audit-2\n64:{previous},1:2,1:2,4:1001,4:shop,3:ann,6:ticket,"
        '27:2026-01-01T00:00:00.000000Z,1:7,8:public.t,1:u,8:{"id":1},8:{"id":1},8:{"id":1},'
        '5:["a"],'
    )
    assert content_of(record) == text.encode()
    assert record[-1].decode() == hashlib.sha256(text.encode()).hexdigest()
    keyed = chain(1, "k")[0]
    expected = hmac.new(b"k", content_of(keyed), "sha256").hexdigest()
    assert keyed[-1].decode() == expected


@given(st.data())
def test_any_change_of_a_column_is_found(data: st.DataObject) -> None:
    original, records = chain(8), chain(8)
    row = data.draw(st.integers(0, 7))
    column = data.draw(st.sampled_from(range(len(COLUMNS))))
    name, value = COLUMNS[column], records[row][column]
    if name in NUMBERS:
        changed: st.SearchStrategy[Any] = st.integers(0, 2**40)
    else:
        changed = st.binary(max_size=70) | st.just((value or b"") + b"\n")
    if name in NULLABLE:
        changed |= st.none()
    records[row][column] = data.draw(changed.filter(lambda x: x != value))
    assert broken(records, original)


@given(st.data())
def test_any_move_of_bytes_between_columns_is_found(data: st.DataObject) -> None:
    original, records = chain(5), chain(5)
    row, column = data.draw(st.integers(0, 4)), data.draw(st.sampled_from([10, 12]))
    text = records[row][column]
    cut = data.draw(st.integers(0, len(text) - 1))
    following = records[row][column + 1] or b""
    records[row][column], records[row][column + 1] = text[:cut], text[cut:] + following
    assert broken(records, original)


@given(st.integers(0, 7))
def test_a_removed_record_is_found(row: int) -> None:
    original, records = chain(8), chain(8)
    del records[row]
    problem = broken(records, original)
    assert ("gap" in problem) if row < 7 else ("tail" in problem)


@given(st.integers(0, 7), st.integers(0, 7))
def test_an_inserted_record_is_found(at: int, of: int) -> None:
    original, records = chain(8), chain(8)
    records.insert(at, list(records[of]))
    assert broken(records, original)


@given(st.integers(0, 7), st.integers(0, 7), st.booleans())
def test_swapped_records_are_found(a: int, b: int, renumbered: bool) -> None:
    original, records = chain(8), chain(8)
    if a == b:
        return
    records[a], records[b] = records[b], records[a]
    if renumbered:
        records[a][0], records[b][0] = records[b][0], records[a][0]
    assert broken(records, original)


def test_a_chain_computed_anew_needs_the_key_or_is_betrayed_by_the_last_hash() -> None:
    original = chain(6)
    forged = chain(6)
    forged[2][12] = b'{"id":"forged"}'
    for n in range(2, 6):
        forged[n][14] = forged[n - 1][15]
        forged[n][15] = hashlib.sha256(content_of(forged[n])).hexdigest().encode()
    assert verify(forged, Hasher(None)).ok
    assert "last known hash" in broken(forged, original)
    assert "altered" in verify(forged, Hasher("key")).problem


def test_the_end_that_the_sink_keeps_betrays_a_removed_tail() -> None:
    records = chain(6)
    kept = Link(6, records[-1][-1].decode())
    assert verify(records, Hasher(None), kept=kept).ok
    assert "tail was removed" in verify(records[:4], Hasher(None), kept=kept).problem
    assert "inserted" in verify(records, Hasher(None), kept=Link(5, "x")).problem
