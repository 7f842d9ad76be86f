"""One wire message, one test: the bytes a PostgreSQL 18 sent, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cdc.errors import DecodeError
from cdc.postgres import messages
from cdc.postgres.messages import (
    Begin,
    Commit,
    Message,
    Origin,
    Relation,
    RelationColumn,
    Truncate,
    Type,
)
from tests.postgres import wire
from tests.postgres.wire import recorded

GOLDEN: list[tuple[Callable[[bytes], Any], str, Any]] = [
    (
        messages.parse_begin,
        "42000000000174b550000303b69f006c1a000002f2",
        Begin(0x174B550, 1795192616668186, 754),
    ),
    (
        messages.parse_commit,
        "4300000000000174b550000000000174b580000303b69f006c1a",
        Commit(0x174B550, 0x174B580, 1795192616668186),
    ),
    (messages.parse_origin, "4f000000000012345666617200", Origin(0x123456, "far")),
    (
        messages.parse_type,
        "59000040017075626c6963006d6f6f6400",
        Type(16385, "public", "mood"),
    ),
    (
        messages.parse_relation,
        (
            "52000040057075626c69630064006400040169640000000017ffffffff"
            "006e616d650000000019ffffffff006e0000000017ffffffff006269670000000019ffffffff"
        ),
        Relation(
            16389,
            "public",
            "d",
            "d",
            (
                RelationColumn("id", 23, -1, key=True),
                RelationColumn("name", 25, -1, key=False),
                RelationColumn("n", 23, -1, key=False),
                RelationColumn("big", 25, -1, key=False),
            ),
        ),
    ),
    (
        messages.parse_truncate,
        "540000000203000040050000400e",
        Truncate((16389, 16398), cascade=True, restart_identity=True),
    ),
    (
        messages.parse_message,
        "4d0100000000017508087072650000000002696e",
        Message(transactional=True, lsn=0x1750808, prefix="pre", content=b"in"),
    ),
    (
        messages.parse_message,
        "4d00000000000175084870726500000000036f7574",
        Message(transactional=False, lsn=0x1750848, prefix="pre", content=b"out"),
    ),
]


@pytest.mark.parametrize(("parse", "raw", "value"), GOLDEN, ids=[g[0].__name__ for g in GOLDEN])
def test_golden_bytes(parse: Callable[[bytes], Any], raw: str, value: Any) -> None:
    assert parse(bytes.fromhex(raw)) == value


@pytest.mark.parametrize(("parse", "raw", "value"), GOLDEN, ids=[g[0].__name__ for g in GOLDEN])
def test_every_other_length_is_refused(parse: Callable[[bytes], Any], raw: str, value: Any) -> None:
    whole = bytes.fromhex(raw)
    for short in range(1, len(whole)):
        with pytest.raises(DecodeError):
            parse(whole[:short])
    with pytest.raises(DecodeError):
        parse(whole + b"\0")


def test_the_golden_bytes_are_the_recorded_ones() -> None:
    frames = {payload for step in recorded(18).values() for _, payload in step}
    assert {bytes.fromhex(raw) for _, raw, _ in GOLDEN} <= frames


def test_an_empty_schema_name_is_pg_catalog() -> None:
    raw = wire.relation(7, "t", [("id", 23)]).replace(b"public\0", b"\0", 1)
    assert messages.parse_relation(raw).schema == "pg_catalog"


def test_names_that_are_not_utf8() -> None:
    raw = wire.relation(7, "t", [("id", 23)]).replace(b"public", b"publ\xff", 1)
    with pytest.raises(DecodeError, match="UTF-8"):
        messages.parse_relation(raw)


def test_the_encoder_of_these_tests_writes_the_same_bytes() -> None:
    columns = [("id", 23), ("name", 25), ("n", 23), ("big", 25)]
    step = [payload for _, payload in recorded(18)["insert"]]
    assert step[0] == wire.begin(0x174B550, 1795192616668186, 754)
    assert step[1] == wire.relation(16389, "d", columns)
    assert step[2] == wire.insert(16389, [b"1", "é".encode(), None, b"short"])
    assert step[3] == wire.commit(0x174B550, 0x174B580, 1795192616668186)
