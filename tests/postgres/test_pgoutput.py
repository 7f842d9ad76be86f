"""Frames that servers 12 and 18 sent, decoded: every kind of change, cut and resumed anywhere."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from cdc.block import CREATE, DELETE, UPDATE
from cdc.errors import DecodeError, PositionMismatch, RecordError
from cdc.postgres.pgoutput import Decoder, Frame
from cdc.postgres.position import OpenTransaction, Position
from tests.postgres import wire
from tests.postgres.wire import decoder, recorded, rows

UNSENT = "__debezium_unavailable_value"
BIG_D, BIG_F = "D" * 2100, "F" * 2100
MAJORS = pytest.mark.parametrize("major", [12, 18])


def all_frames(major: int) -> list[Frame]:
    return list(itertools.chain.from_iterable(recorded(major).values()))


def decoded(major: int, step: str, **options: Any) -> list[tuple[Any, ...]]:
    """The rows of one step, without LSNs and xids."""
    steps = recorded(major)
    reader = decoder(**options)
    for name, frames in steps.items():
        found = rows(reader.decode(frames, 0))
        if name == step:
            return [(r[0], r[1], *r[3:9]) for r in found]
    raise AssertionError(step)


# (op, table, ordinal, key, before, after, unchanged, moved)
EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    "insert": [
        ("c", "d", 1, {"id": 1}, None, {"id": 1, "name": "é", "n": None, "big": "short"}, [], None)
    ],
    "toast": [
        ("c", "d", 1, {"id": 2}, None, {"id": 2, "name": "b", "n": 2, "big": BIG_D}, [], None),
        ("c", "f", 2, {"id": 2}, None, {"id": 2, "name": "b", "n": 2, "big": BIG_F}, [], None),
    ],
    "update": [
        ("u", "d", 1, {"id": 1}, None, {"id": 1, "name": "é", "n": 3, "big": "short"}, [], None),
        ("u", "d", 2, {"id": 2}, None, {"id": 2, "name": "b", "n": 3, "big": UNSENT}, ["big"],
         None),
        ("u", "f", 3, {"id": 2}, {"id": 2, "name": "b", "n": 2, "big": BIG_F},
         {"id": 2, "name": "b", "n": 3, "big": BIG_F}, [], None),
    ],
    "key": [
        ("d", "d", 1, {"id": 2}, {"id": 2, "name": "", "n": None, "big": None}, None, [],
         {"id": 12}),
        ("c", "d", 1, {"id": 12}, None, {"id": 12, "name": "b", "n": 3, "big": UNSENT}, ["big"],
         {"id": 2}),
        ("d", "f", 2, {"id": 2}, {"id": 2, "name": "b", "n": 3, "big": BIG_F}, None, [],
         {"id": 12}),
        ("c", "f", 2, {"id": 12}, None, {"id": 12, "name": "b", "n": 3, "big": BIG_F}, [],
         {"id": 2}),
    ],
    # the identity lacks the primary key: Debezium takes its fallback for an old key
    "index": [
        ("c", "i", 1, {"id": 5}, None, {"id": 5, "code": "a", "n": 1}, [], None),
        ("u", "i", 2, {"id": 5}, None, {"id": 5, "code": "a", "n": 2}, [], None),
        ("d", "i", 3, {"id": 0}, {"id": 0, "code": "a", "n": None}, None, [], {"id": 5}),
        ("c", "i", 3, {"id": 5}, None, {"id": 5, "code": "b", "n": 2}, [], {"id": 0}),
        ("d", "i", 4, {"id": 0}, {"id": 0, "code": "b", "n": None}, None, [], None),
    ],
    "delete": [
        ("d", "d", 1, {"id": 12}, {"id": 12, "name": "", "n": None, "big": None}, None, [], None),
        ("d", "f", 2, {"id": 12}, {"id": 12, "name": "b", "n": 3, "big": BIG_F}, None, [], None),
    ],
    "nokey": [
        ("c", "x", 1, None, None, {"id": 1, "name": None}, [], None),
        ("u", "x", 2, None, {"id": 1, "name": None}, {"id": 1, "name": "n"}, [], None),
        ("d", "x", 3, None, {"id": 1, "name": "n"}, None, [], None),
    ],
    "enum": [("c", "e", 1, {"id": 1}, None, {"id": 1, "m": "glad"}, [], None)],
    "truncate": [
        ("t", "d", 1, None, None, None, [], None),
        ("t", "f", 1, None, None, None, [], None),
    ],
    "rollback": [
        ("c", "d", n, {"id": i}, None, {"id": i, "name": "in", "n": 0, "big": ""}, [], None)
        for n, i in ((1, 50), (2, 52))
    ],
}  # fmt: skip


@MAJORS
@pytest.mark.parametrize("step", EXPECTED)
def test_what_a_server_sent(major: int, step: str) -> None:
    assert decoded(major, step) == EXPECTED[step]


def test_messages_inside_and_outside_a_transaction() -> None:
    outside, inside, row = decoded(18, "message")
    assert outside[:4] == ("m", "", 0, {"prefix": "pre"})
    assert outside[5] == {"prefix": "pre", "content": b"out".hex()}
    assert inside[:4] == ("m", "", 1, {"prefix": "pre"})
    assert inside[5]["content"] == b"in".hex()
    assert row[2] == 2, "a message is a wire change and counts"


@MAJORS
def test_the_origin_and_what_came_from_here(major: int) -> None:
    reader = decoder()
    found = [r for frames in recorded(major).values() for r in rows(reader.decode(frames, 0))]
    assert {r[10] for r in found if r[4] == {"id": 77}} == {"far"}
    assert {r[10] for r in found if r[4] != {"id": 77}} == {None}


def test_rows_of_one_record_have_one_lsn_and_many_ordinals() -> None:
    found = rows(decoder().decode(big_transaction(7), 0))
    assert [r[2:4] for r in found] == [
        (500, 1), (500, 2), (501, 3), (501, 4), (501, 5), (502, 6), (502, 7),
    ]  # fmt: skip


def test_skipped_operations() -> None:
    frames = [f for name, step in recorded(18).items() for f in step if name != "message"]
    for skipped in ({CREATE}, {UPDATE}, {DELETE}, {CREATE, DELETE}):
        reader = decoder(skipped=frozenset(skipped))
        found = rows(reader.decode(frames, 0))
        kept = rows(decoder().decode(frames, 0))
        letters = {chr(op) for op in skipped}
        # of a key change, what is not skipped of its two halves stays
        assert [r[:7] for r in found] == [r[:7] for r in kept if r[0] not in letters]


# --- transactions and positions ----------------------------------------------------------------


@MAJORS
def test_the_place_after_each_transaction(major: int) -> None:
    reader = decoder()
    for frames in recorded(major).values():
        reader.decode(frames, 0)
        end = int.from_bytes(frames[-1][1][10:18], "big")
        assert reader.end_lsn == end
        assert reader.open is None
        assert not reader.in_transaction


def cut_at(frames: list[Frame], *places: int) -> list[list[Frame]]:
    edges = [0, *places, len(frames)]
    return [frames[a:b] for a, b in itertools.pairwise(edges)]


@MAJORS
def test_blocks_cut_at_any_frame_give_the_same_rows(major: int) -> None:
    frames = all_frames(major)
    whole = rows(decoder().decode(frames, 0))
    for place in range(len(frames) + 1):
        reader = decoder()
        blocks = [reader.decode(part, 0) for part in cut_at(frames, place)]
        assert rows(*blocks) == whole
    reader = decoder()
    assert rows(*[reader.decode([frame], 0) for frame in frames]) == whole


@MAJORS
def test_a_block_with_a_commit_holds_a_row_of_its_transaction(major: int) -> None:
    """So that a sink can see from rows alone where a transaction is complete."""
    frames = all_frames(major)
    counted = {t.xid for t in decoder().decode(frames, 0).transactions if t.xid}
    for place in range(len(frames) + 1):
        reader, ended = decoder(), []
        for part in cut_at(frames, place):
            block = reader.decode(part, 0)
            for number, transaction in enumerate(block.transactions):
                assert number in block.transaction, "a transaction without a row"
                if transaction.end_lsn and transaction.xid:
                    ended.append(transaction.xid)
        assert sorted(ended) == sorted(counted)


@MAJORS
def test_resume_after_any_cut_gives_exactly_the_rest(major: int) -> None:
    """Frames are delivered again from the stored position on, as a server would."""
    steps = recorded(major)
    frames = all_frames(major)
    whole = rows(decoder().decode(frames, 0))
    relations = [f for f in frames if f[1][:1] in b"RY"]
    starts = list(itertools.accumulate([0, *map(len, steps.values())]))
    for place in range(len(frames) + 1):
        first = decoder()
        stored = rows(first.decode(frames[:place], 0))
        second = resumed(first)
        begun = max(s for s in starts if s <= place)
        # the whole transaction again, and its relations anew on a new connection
        again = [f for f in frames[begun:] if f[1][:1] not in b"RY"]
        rest = rows(second.decode([*relations, *again], 0))
        assert stored + rest == whole, place


def resumed(stored: Decoder) -> Decoder:
    position = Position(
        "s", 1, 1, "slot", stored.end_lsn, stored.message_lsn, stored.previous_end_lsn, stored.open
    )
    again = decoder()
    again.resume(Position.from_dict(position.to_dict()))
    again.end_lsn = stored.end_lsn
    return again


def big_transaction(rows_: int, commit_lsn: int = 1000) -> list[Frame]:
    columns = [("id", 23), ("name", 25)]
    changes = [(500 + n // 3, wire.insert(7, [str(n).encode(), b"x"])) for n in range(1, rows_ + 1)]
    return [
        (500, wire.begin(commit_lsn, xid=9)),
        (0, wire.relation(7, "t", columns)),
        *changes,
        (commit_lsn + 8, wire.commit(commit_lsn, commit_lsn + 8)),
    ]


def test_resume_at_every_ordinal() -> None:
    frames = big_transaction(20)
    for place in range(2, 22):
        first = decoder()
        stored = rows(first.decode(frames[:place], 0))
        place_in = first.open
        assert (place_in.ordinal if place_in else 0) == len(stored) == max(0, place - 3)
        second = resumed(first)
        rest = rows(second.decode(frames, 0))
        assert [r[4]["id"] for r in stored + rest] == list(range(1, 21))


def test_the_place_in_a_transaction_survives_a_keep_alive_before_it_is_sent_again() -> None:
    """Else one more crash before its BEGIN would have it stored twice."""
    frames = big_transaction(9)
    first = decoder()
    first.decode(frames[:7], 0)
    assert first.open == OpenTransaction(1000, 4, 501)
    second = resumed(first)
    assert second.open == first.open
    second.decode([], 0)
    outside = wire.message("p", b"", 990, transactional=False)
    second.decode([(990, outside)], 0)
    assert second.open == first.open
    second.decode(frames[:5], 0)  # what is stored already, again
    assert second.open == first.open
    rest = rows(second.decode(frames[5:], 0))
    assert [r[4]["id"] for r in rest] == [5, 6, 7, 8, 9]
    assert second.open is None


@pytest.mark.parametrize(
    ("stored", "what"),
    [
        (OpenTransaction(2000, 4, 501), "committed at 0/3E8"),
        (OpenTransaction(1000, 4, 777), "change 4 at 0/1F5"),
        (OpenTransaction(1000, 40, 501), "a transaction of 9 changes"),
    ],
)
def test_a_log_that_does_not_go_on_where_we_stopped(stored: OpenTransaction, what: str) -> None:
    reader = decoder()
    reader.resume(Position("s", 1, 1, "slot", 400, open=stored))
    with pytest.raises(PositionMismatch) as caught:
        reader.decode(big_transaction(9), 0)
    assert what in str(caught.value)
    assert "when_needed" in caught.value.remedy


def test_a_message_stored_already_is_not_given_again() -> None:
    frame = (90, wire.message("p", b"x", 90, transactional=False))
    later = (95, wire.message("p", b"y", 95, transactional=False))
    reader = decoder()
    assert len(rows(reader.decode([frame], 0))) == 1
    again = resumed(reader)
    assert [r[6]["content"] for r in rows(again.decode([frame, later], 0))] == [b"y".hex()]


def test_tables_that_a_later_snapshot_holds_are_left_out_up_to_it() -> None:
    one = big_transaction(3)
    two = [(f[0], f[1]) for f in big_transaction(2, 3000) if f[1][:1] != b"R"]
    reader = decoder()
    reader.ignore_until({"public.t": 2000, "public.other": 9000})
    assert rows(reader.decode(one, 0)) == []
    assert reader.until == {"public.t": 2000, "public.other": 9000}
    assert len(rows(reader.decode(two, 0))) == 2
    assert reader.until == {"public.other": 9000}


# --- what is no message ------------------------------------------------------------------------

BROKEN: list[tuple[str, list[bytes]]] = [
    ("unknown message", [b"Z"]),
    ("unknown message", [b""]),
    ("before its RELATION", [wire.begin(9), wire.insert(99, [b"1"])]),
    ("before its RELATION", [wire.begin(9), b"I"]),
    ("before its RELATION", [wire.begin(9), wire.truncate(99)]),
    ("outside any transaction", [wire.relation(7, "t", [("id", 23)]), wire.insert(7, [b"1"])]),
    ("outside any transaction", [wire.origin("o")]),
    ("outside any transaction", [wire.relation(7, "t", [("id", 23)]), wire.truncate(7)]),
    ("BEGIN inside", [wire.begin(9), wire.begin(10)]),
    ("did not begin", [wire.commit(9, 10)]),
    ("did not begin", [wire.begin(9), wire.commit(11, 12)]),
    ("wrong side", [wire.begin(9), wire.message("p", b"", 5, transactional=False)]),
    ("wrong side", [wire.message("p", b"", 5, transactional=True)]),
    (
        "2 columns for a relation of 1",
        [wire.begin(9), wire.relation(7, "t", [("id", 23)]), wire.insert(7, [b"1", b"2"])],
    ),
    (
        "ends at byte",
        [wire.begin(9), wire.relation(7, "t", [("id", 23)]), wire.insert(7, [b"1"]) + b"\0"],
    ),
    (
        "tuple of kind 0x58",
        [wire.begin(9), wire.relation(7, "t", [("id", 23)]),
         wire.insert(7, [b"1"]).replace(b"N\0", b"X\0", 1)],
    ),
    (
        "expected t, n or u",
        [wire.begin(9), wire.relation(7, "t", [("id", 23)]),
         wire.insert(7, [b"1"]).replace(b"\0\1t", b"\0\1b", 1)],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("says", "payloads"), BROKEN)
def test_what_is_no_message_is_refused_with_its_lsn(says: str, payloads: list[bytes]) -> None:
    with pytest.raises(DecodeError) as caught:
        decoder().decode([(0x10000002A, payload) for payload in payloads], 0)
    assert "1/2A" in str(caught.value)
    assert says in str(caught.value)


def test_a_value_that_is_not_utf8_names_table_and_column() -> None:
    frames = [wire.begin(9), wire.relation(7, "t", [("id", 23), ("name", 25)])]
    frames.append(wire.insert(7, [b"1", b"caf\xe9"]))
    with pytest.raises(RecordError, match=r"public\.t.*column name.*UTF-8"):
        decoder().decode([(5, f) for f in frames], 0)
