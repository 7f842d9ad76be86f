"""A key that is said to be used is read somewhere: nothing that is set is ignored in silence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from cdc.config import Key
from tests.readme_tables import TABLES

ROOT = Path(__file__).resolve().parent.parent.parent
# What declares a key, or compares two of them, does not read them.
DECLARING = {"Key", "inert", "refused", "_inert", "regex_list", "exclusive"}
ONE_VALUE = {("Audit sink", "tasks.max")}  # its validator takes no other


@cache
def literals() -> tuple[re.Pattern[str], ...]:
    """Every text of the code outside the declarations; a hole of an f-string is anything."""
    found: set[str] = set()
    for folder in ("cdc", "sinks"):
        for path in (ROOT / folder).rglob("*.py"):
            found.update(_texts(ast.parse(path.read_text())))
    return tuple(re.compile(text) for text in sorted(found))


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in DECLARING:
        return
    if isinstance(node, ast.JoinedStr):
        fixed = [p.value for p in node.values if isinstance(p, ast.Constant)]
        if any(re.search(r"\w{3}", str(text)) for text in fixed):
            yield "".join(
                re.escape(str(p.value)) if isinstance(p, ast.Constant) else r"[\w.]*"
                for p in node.values
            )
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from _texts(part.value)
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield re.escape(node.value)
    for child in ast.iter_child_nodes(node):
        yield from _texts(child)


def used() -> Iterator[tuple[str, Key]]:
    for title, definition in TABLES.items():
        for key in definition.keys.values():
            one = len(key.choices) == 1 or (title, key.name) in ONE_VALUE
            if key.effect == "used" and not one:
                yield title, key


@pytest.mark.parametrize(
    ("title", "key"), [pytest.param(t, k, id=f"{t}: {k.name}") for t, k in used()]
)
def test_a_key_that_is_used_is_read_by_some_code(title: str, key: Key) -> None:
    name = re.split("[*<(]", key.name)[0] if key.pattern else key.name
    names = {name, name.rstrip(".")}
    assert any(text.fullmatch(n) for n in names for text in literals()), f"nothing reads {name}"
