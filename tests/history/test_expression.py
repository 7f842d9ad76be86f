"""The language of --where: what it means, and that nothing else is accepted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.errors import ConfigError
from cdc.history.expression import Lsn, compile_expression

SCOPE: dict[str, Any] = {
    "op": "u",
    "table": "public.orders",
    "key": {"id": 42},
    "before": None,
    "after": {
        "status": "paid", "total": "12.50", "weight": 0.1, "note": None, "odd name": 1,
        "tags": ["a", "b"], "at": "2026-03-01T12:00:00.000000", "yes": True, "map": {"k": "v"},
    },
    "lsn": Lsn(0x16B3748),
    "tx": 742,
    "offset": 7,
    "time": "2026-03-01T12:00:00.000000Z",
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "op == 'u' and after.status == 'paid'",
        "op in ('c', 'u') and op not in ['d']",
        "not op == 'd'",
        "table == 'public.orders'",
        "key.id == 42 and key['id'] >= 42 and 41 < key.id <= 42",
        "after.total == 12.5 and after.total > 12 and after.total < 12.51",
        "after.weight == 0.1",
        "after.note is null and after.missing is None and before is null",
        "after.status is not null and after.note == null",
        "before.status != 'paid' and after['odd name'] == 1",
        "lsn == '0/16B3748' and lsn > '0/16B3747' and lsn < 99999999",
        "tx in (741, 742) and tx != 741 and offset == 7",
        "after.at > '2026-03-01' and time < '2026-03-02'",
        "'ai' in after.status and 'a' in after.tags and after.tags[1] == 'b'",
        "after.yes and after.yes == true and after.map.k == 'v' and 'k' in after.map",
        "key.id == '42' and -1 < key.id",
        "not (after.note > 1) and not (after.note < 1)",
        "  op\n== 'u' ",
    ],
)
def test_these_hold(text: str) -> None:
    assert compile_expression(text)(SCOPE) is True


@pytest.mark.parametrize(
    "text", ["op == 'd'", "after.status > 5", "'x' in after.note", "after.missing", "key.id < null"]
)
def test_these_do_not(text: str) -> None:
    assert compile_expression(text)(SCOPE) is False


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("op = 'u'", 4),
        ("op == 'u' and afer.x == 1", 15),
        ("  op == 'ü' and print(1)", 17),
        ("__import__('os').system('true')", 1),
        ("after.x + 1 == 2", 1),
        ("[x for x in after]", 1),
        ("lambda: 1", 1),
        ("(op := 'u')", 2),
        ("op == f'{op}'", 7),
        ("after[op] == 1", 1),
        ("op == b'u'", 7),
        ("", 1),
        ("op ==", 6),
    ],
)
def test_what_is_not_part_of_the_language_is_refused_at_its_place(text: str, position: int) -> None:
    with pytest.raises(ConfigError, match=rf"--where: at character {position}: "):
        compile_expression(text)


@pytest.mark.parametrize(
    "text",
    ["(" * 500 + "1" + ")" * 500, "not " * 5000 + "op", "x" * 20_000, "op == '\0'", "9" * 5000],
)
def test_sizes_are_limited(text: str) -> None:
    with pytest.raises(ConfigError):
        compile_expression(text)


_WORDS = (
    "op table key before after lsn tx null true and or not in is == != < <= > >= ( ) [ ] , . : "
    "'u' '0/1' \"x\" 1 2.5 -1 1e999 after.total key['id'] lambda if else for := f'{op}' \\ \n # * "
    "after.tags[0] () b'' ... 0x1F 1j print exec __class__ after.__class__ '\\d'"
).split(" ")
_FUZZ = st.lists(st.sampled_from(_WORDS), max_size=14).map(" ".join) | st.text(max_size=40)


@settings(max_examples=1500, deadline=None)
@given(text=_FUZZ)
def test_any_text_is_a_condition_or_the_one_documented_error(text: str) -> None:
    try:
        condition = compile_expression(text)
    except ConfigError as error:
        assert str(error).startswith("--where: ")  # noqa: PT017 - any text may be one or not
        return
    assert condition(SCOPE) in (True, False)
    assert condition(SCOPE | {"after": None, "key": None, "tx": None}) in (True, False)
