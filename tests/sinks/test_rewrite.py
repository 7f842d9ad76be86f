"""Fragments are made readable value by value, as if the row were parsed and written again."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Field, Schema
from schemas import rewrite as module
from schemas.rewrite import rewriter
from schemas.semantic import make_readable, readable_fields
from tests.blocks import (
    BOOLEAN,
    DATE,
    INT32,
    MICRO_TIMESTAMP,
    STRING,
    VARIABLE_DECIMAL,
    array_of,
    decimal,
    optional,
    unscaled,
)

NAMES = st.lists(
    st.sampled_from(["a", "b", "value", "scale", 'a"b', "a,b", "ä", "\\", '{"a', ',"a']),
    min_size=1, max_size=6, unique=True,
)  # fmt: skip
TEXTS = st.sampled_from(['","a":1', '{"a":', '\\"b":', "}", ",", "ä", ""]) | st.text(max_size=5)
# Of each type: values, and some that are not of it.
TYPES: list[tuple[Schema, st.SearchStrategy[Any]]] = [
    (optional(INT32), st.none() | st.integers(-9, 9)),
    (BOOLEAN, st.booleans()),
    (STRING, TEXTS),
    (optional(decimal(9, 2)), st.none() | st.integers(-(10**9), 10**9).map(unscaled) | TEXTS),
    (DATE, st.integers(-(10**6), 10**6) | st.floats(0, 9) | st.booleans()),
    (optional(MICRO_TIMESTAMP), st.none() | st.integers(-(2**63), 2**63 - 1) | TEXTS),
    (array_of(decimal(4, 1)), st.lists(st.integers(0, 99).map(unscaled), max_size=2)),
]
NESTED = (VARIABLE_DECIMAL, st.fixed_dictionaries(
    {"scale": st.integers(0, 3), "value": st.integers(0, 99).map(unscaled)}
))  # fmt: skip


@st.composite
def rows(draw: st.DrawFn) -> tuple[Schema, dict[str, Any], list[str]]:
    names = draw(NAMES)
    kinds = st.sampled_from([*TYPES, NESTED] if draw(st.booleans()) else TYPES)
    chosen = [(name, *draw(kinds)) for name in names]
    struct = Schema("struct", fields=tuple(Field(name, schema) for name, schema, _ in chosen))
    row = {name: draw(values) for name, _, values in chosen if draw(st.integers(0, 5))}
    return struct, row, draw(st.lists(st.sampled_from(names), unique=True, max_size=2))


@given(st.lists(rows(), min_size=1, max_size=3))
def test_a_fragment_is_as_readable_as_its_values(drawn: list[Any]) -> None:
    for struct, row, skip in drawn:
        expected = dict(row)
        make_readable(expected, readable_fields(struct), skip)
        rewrite = rewriter(struct)
        fragment = orjson.dumps(row)
        for _ in range(2):  # the second time by what is remembered
            found = fragment if rewrite is None else rewrite(fragment, skip)
            assert orjson.loads(found) == orjson.loads(orjson.dumps(expected))


def test_readable_columns_cost_nothing() -> None:
    plain = Schema("struct", fields=(Field("id", INT32), Field("a", STRING), Field("b", BOOLEAN)))
    assert rewriter(plain) is None
    assert rewriter(None) is None


def test_only_what_is_not_readable_is_parsed() -> None:
    """The rest of a row need not even be JSON."""
    struct = Schema("struct", fields=(Field("day", DATE), Field("a", STRING), Field("at", DATE)))
    rewrite = rewriter(struct)
    assert rewrite is not None
    fragment = b'{"day":19723,"a": not JSON ,"at":19724}'
    assert rewrite(fragment, ()) == b'{"day":"2024-01-01","a": not JSON ,"at":"2024-01-02"}'
    assert rewrite(fragment, ("day",)) == b'{"day":19723,"a": not JSON ,"at":"2024-01-02"}'


def test_what_is_remembered_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KNOWN_MAX", 3)
    struct = Schema("struct", fields=(Field("day", DATE),))
    rewrite = rewriter(struct)
    assert rewrite is not None
    for day in (*range(10), *range(10)):
        assert rewrite(b'{"day":%d}' % day, ()) == b'{"day":"1970-01-%02d"}' % (day + 1)
