"""Properties of the decoder over random relations, rows and cuts."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.postgres.pgoutput import Frame
from cdc.postgres.plan import UNCHANGED, packed_tuple, raw_tuple, unescape
from tests.postgres import wire
from tests.postgres.wire import decoder, describer, rows

INT4, TEXT, BOOL = 23, 25, 16
UNSENT = "__debezium_unavailable_value"
_strings = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
_names = st.lists(
    _strings.filter(bool), min_size=1, max_size=6, unique=True
).map(lambda names: ["id", *[n for n in names if n != "id"]])  # fmt: skip
_types = {INT4: st.integers(-(2**31), 2**31 - 1), TEXT: _strings, BOOL: st.booleans()}


def encoded(type_id: int, value: Any) -> bytes | None:
    if value is None:
        return None
    if type_id == BOOL:
        return b"t" if value else b"f"
    return str(value).encode()


@st.composite
def tables(draw: Any) -> dict[str, Any]:
    """A table's columns, its rows, and a change of each."""
    names = draw(_names)
    types = [INT4, *draw(st.lists(st.sampled_from(list(_types)), min_size=9, max_size=9))]
    columns = list(zip(names, types, strict=False))
    value = [st.one_of(st.none(), _types[t]) for _, t in columns[1:]]
    row = st.tuples(_types[INT4], *value)
    return {"columns": columns, "rows": draw(st.lists(row, min_size=1, max_size=8))}


def image(table: dict[str, Any], row: tuple[Any, ...]) -> list[bytes | None]:
    return [encoded(t, v) for (_, t), v in zip(table["columns"], row, strict=True)]


def as_dict(table: dict[str, Any], row: tuple[Any, ...]) -> dict[str, Any]:
    return {name: v for (name, _), v in zip(table["columns"], row, strict=True)}


def changes(table: dict[str, Any]) -> tuple[list[bytes], list[tuple[Any, ...]]]:
    """Messages of every kind for the rows, and (op, key, before, after) as they must come out."""
    payloads, want = [], []
    for row in table["rows"]:
        now, new = as_dict(table, row), image(table, row)
        key = {"id": now["id"]}
        payloads.append(wire.insert(7, new))
        want.append(("c", key, None, now))
        payloads.append(wire.update(7, new, new))
        want.append(("u", key, now, now))
        sent = [
            v if t != TEXT else UNCHANGED for (_, t), v in zip(table["columns"], new, strict=True)
        ]
        payloads.append(wire.update(7, sent, new))
        want.append(("u", key, now, now))
        payloads.append(wire.update(7, sent))
        held = {n: UNSENT if t == TEXT else now[n] for n, t in table["columns"]}
        want.append(("u", key, None, held))
        payloads.append(wire.delete(7, new))
        want.append(("d", key, now, None))
    return payloads, want


def frames_of(table: dict[str, Any], transactions: int = 2) -> tuple[list[Frame], list[Any]]:
    frames: list[Frame] = []
    wanted = []
    for number in range(1, transactions + 1):
        commit = number * 10_000
        payloads, want = changes(table)
        frames.append((commit - 5000, wire.begin(commit, xid=number)))
        frames.append((0, wire.relation(7, "t", table["columns"], "f")))
        frames += [(commit - 5000 + n // 2, p) for n, p in enumerate(payloads)]
        frames.append((commit + 8, wire.commit(commit, commit + 8)))
        wanted += want
    return frames, wanted


def outcome(found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [(r[0], *r[4:7]) for r in found]


@given(tables())
def test_what_is_encoded_is_decoded(table: dict[str, Any]) -> None:
    frames, wanted = frames_of(table)
    found = rows(decoder(describer(required=("id",))).decode(frames, 0))
    assert outcome(found) == wanted


@given(tables(), st.data())
@settings(max_examples=60)
def test_cuts_anywhere_are_equivalent(table: dict[str, Any], data: Any) -> None:
    frames, _ = frames_of(table)
    whole = rows(decoder().decode(frames, 0))
    places = sorted(data.draw(st.lists(st.integers(0, len(frames)), max_size=6)))
    reader = decoder()
    parts = [frames[a:b] for a, b in itertools.pairwise([0, *places, len(frames)])]
    blocks = [reader.decode(part, 0) for part in parts]
    assert rows(*blocks) == whole
    ends = [t.end_lsn for b in blocks for t in b.transactions if t.end_lsn]
    assert ends == [10_008, 20_008]


@given(tables(), st.data())
@settings(max_examples=60)
def test_a_crash_after_any_block_loses_and_doubles_nothing(
    table: dict[str, Any], data: Any
) -> None:
    from tests.postgres.test_pgoutput import resumed

    frames, _ = frames_of(table)
    whole = rows(decoder().decode(frames, 0))
    half = len(frames) // 2
    stored: list[tuple[Any, ...]] = []
    reader = decoder()
    for _ in range(data.draw(st.integers(1, 4))):
        # the server sends again from the last whole transaction on
        again = frames[half:] if reader.end_lsn else frames
        stored += rows(reader.decode(again[: data.draw(st.integers(0, len(again)))], 0))
        if reader.end_lsn == 20_008:
            break
        reader = resumed(reader)
    else:
        stored += rows(reader.decode(frames[half:] if reader.end_lsn else frames, 0))
    assert stored == whole


@given(st.lists(st.one_of(st.none(), st.just(UNCHANGED), st.binary(max_size=20)), max_size=9))
def test_tuples_pack_and_unpack(values: list[Any]) -> None:
    packed = packed_tuple(values)
    assert raw_tuple(packed + b"\0\0\0\0", 0) == (values, len(packed))


_ESCAPES = {"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
            "\v": "\\v"}  # fmt: skip


@given(st.text(st.sampled_from("\\\b\f\n\r\t\vabnrtNé "), max_size=20))
def test_copy_fields_are_unescaped(value: str) -> None:
    escaped = "".join(_ESCAPES.get(c, c) for c in value)
    assert unescape(escaped.encode()) == value.encode()


@given(tables())
def test_a_copy_line_and_a_tuple_give_the_same_row(table: dict[str, Any]) -> None:
    from cdc.postgres.messages import parse_relation

    plan = describer(required=("id",))(parse_relation(wire.relation(7, "t", table["columns"], "f")))
    assert plan is not None
    for row in table["rows"]:
        fields = []
        for field in image(table, row):
            text = None if field is None else field.decode()
            escaped = "".join(_ESCAPES.get(c, c) for c in text) if text is not None else "\\N"
            fields.append(escaped.encode())
        key, after = plan.line(fields)
        same_key, same, _, _ = plan.image(packed_tuple(image(table, row)) + b"\0\0\0\0", 0)
        assert (key, after) == (same_key, same)
        assert orjson.loads(after) == as_dict(table, row)
