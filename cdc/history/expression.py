"""The language of ``--where``: one condition over an event, as Python writes conditions.

::

    op == 'u' and after.status == 'paid' and before.status != 'paid'
    table in ('public.orders', 'public.lines') and key.id >= 1000
    after.note is null or 'urgent' in after.note
    lsn > '0/16B3748' and not tx in (742, 743)

Names: op, table, key, before, after, lsn, tx, offset, time. Members by ``after.name`` or
``after['na me']``; what is not there is null. Values are readable, as in a history; decimals
compare as numbers, times as ISO text. A comparison of things that do not compare is false.

Parsed by Python's own grammar into a tree of which only what is listed here is accepted, and
turned into closures: nothing of it is ever run as Python.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from cdc.errors import ConfigError

LENGTH_MAX = 10_000
DEPTH_MAX = 50

Scope = Mapping[str, Any]
Part = Callable[[Scope], Any]

NAMES = ("op", "table", "key", "before", "after", "lsn", "tx", "offset", "time")
_CONSTANTS = {"null": None, "true": True, "false": False}
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_ORDER = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def columns_of(text: str) -> dict[str, None]:
    """The columns that an expression which compiles asks events for, in order."""
    tree = ast.parse(re.sub(r"\s", " ", text).lstrip(), mode="eval")
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="key" | "before" | "after"), attr=str() as name):
                found[name] = None
            case ast.Subscript(
                value=ast.Name(id="key" | "before" | "after"),
                slice=ast.Constant(value=str() as name),
            ):
                found[name] = None
    return found


def compile_expression(text: str, key: str = "--where") -> Callable[[Scope], bool]:
    """From text to a test of a scope (name → value). Raises ConfigError naming the position."""
    if len(text) > LENGTH_MAX:
        raise ConfigError(f"the expression is longer than {LENGTH_MAX} characters", key=key)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd escapes
            line = re.sub(r"\s", " ", text)
            tree = ast.parse(line.lstrip(), mode="eval")
        condition = _Compiler(key, line).part(tree.body, 0)
    except SyntaxError as error:
        begin = len(text) - len(text.lstrip())
        raise _wrong(error.msg, begin + (error.offset or len(text.strip()) + 1), key) from None
    except (ValueError, MemoryError, RecursionError, OverflowError) as error:
        raise ConfigError(f"the expression cannot be read: {error}", key=key) from None
    return lambda scope: bool(condition(scope))


def _wrong(problem: str, position: int, key: str) -> ConfigError:
    return ConfigError(
        f"at character {position}: {problem}",
        key=key,
        remedy="For example: op == 'u' and after.status == 'paid' and key.id in (1, 2)",
    )


class _Compiler:
    """From the accepted part of Python's tree to closures."""

    def __init__(self, key: str, text: str) -> None:
        self._key, self._text = key, text

    def part(self, node: ast.expr, depth: int) -> Part:
        if depth > DEPTH_MAX:
            raise self._refused(node, "nested too deeply")
        found = self._logic(node, depth + 1) or self._value(node, depth + 1)
        if found is None:
            raise self._refused(node, f"{type(node).__name__} is not part of the language")
        return found

    def _logic(self, node: ast.expr, depth: int) -> Part | None:
        match node:
            case ast.BoolOp(op=op, values=values):
                parts = [self.part(value, depth) for value in values]
                if isinstance(op, ast.And):
                    return lambda scope: all(part(scope) for part in parts)
                return lambda scope: any(part(scope) for part in parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self.part(operand, depth)
                return lambda scope: not inner(scope)
            case ast.Compare():
                return self._compare(node, depth)
        return None

    def _value(self, node: ast.expr, depth: int) -> Part | None:
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                negative = _number(-number)
                return lambda _: negative
            case ast.Name(id=name):
                return self._name(node, name)
            case ast.Attribute(value=value, attr=member):
                return _member(self.part(value, depth), member)
            case ast.Subscript(value=value, slice=ast.Constant(value=str() | int() as member)):
                return _member(self.part(value, depth), member)
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                parts = [self.part(element, depth) for element in elements]
                return lambda scope: [part(scope) for part in parts]
            case ast.Constant(value=str() | bool() | int() | float() | None as value):
                constant = _number(value)
                return lambda _: constant
        return None

    def _name(self, node: ast.expr, name: str) -> Part:
        if name.lower() in _CONSTANTS:
            constant = _CONSTANTS[name.lower()]
            return lambda _: constant
        if name not in NAMES:
            raise self._refused(node, f"unknown name {name}; there are {', '.join(NAMES)}")
        return lambda scope: scope[name]

    def _compare(self, node: ast.Compare, depth: int) -> Part:
        parts = [self.part(value, depth + 1) for value in (node.left, *node.comparators)]
        tests = [self._test(node, op) for op in node.ops]

        def compare(scope: Scope) -> bool:
            left = parts[0](scope)
            for test, part in zip(tests, parts[1:], strict=True):
                right = part(scope)
                if not test(left, right):
                    return False
                left = right
            return True

        return compare

    def _test(self, node: ast.expr, op: ast.cmpop) -> Callable[[Any, Any], bool]:
        match op:
            case ast.Eq() | ast.Is():
                return _equal
            case ast.NotEq() | ast.IsNot():
                return lambda a, b: not _equal(a, b)
            case ast.In():
                return _within
            case ast.NotIn():
                return lambda a, b: not _within(a, b)
        order = _ORDER.get(type(op))
        if order is None:
            raise self._refused(node, f"{type(op).__name__} is not part of the language")
        return lambda a, b: _ordered(order, a, b)

    def _refused(self, node: ast.expr, problem: str) -> ConfigError:
        begin = len(self._text) - len(self._text.lstrip())
        before = self._text.lstrip().encode()[: node.col_offset].decode()  # it counts bytes
        return _wrong(problem, begin + len(before) + 1, self._key)


class Lsn(int):
    """An LSN in a scope: compares with numbers and with ``X/Y`` texts."""


def _member(part: Part, member: str | int) -> Part:
    def get(scope: Scope) -> Any:
        owner = part(scope)
        if isinstance(owner, Mapping):
            return owner.get(member)
        if (
            isinstance(owner, list)
            and isinstance(member, int)
            and -len(owner) <= member < len(owner)
        ):
            return owner[member]
        return None

    return get


def _number(value: Any) -> Any:
    """Fractions as decimals: ``0.1`` means just that."""
    return Decimal(repr(value)) if isinstance(value, float) else value


def _alike(a: Any, b: Any) -> tuple[Any, Any]:
    """Both sides in a form that compares: a text beside a number is read as one."""
    if isinstance(a, Lsn) or isinstance(b, Lsn):
        return _lsn(a), _lsn(b)
    if _is_number(a) and isinstance(b, str):
        b = _decimal(b)
    elif _is_number(b) and isinstance(a, str):
        a = _decimal(a)
    if isinstance(a, float) and isinstance(b, Decimal):
        a = Decimal(repr(a))
    elif isinstance(b, float) and isinstance(a, Decimal):
        b = Decimal(repr(b))
    return a, b


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _decimal(text: str) -> Any:
    try:
        number = Decimal(text)
    except ArithmeticError:
        return text
    return number if number.is_finite() else text


def _lsn(value: Any) -> Any:
    match = _LSN.fullmatch(value) if isinstance(value, str) else None
    return int(match[1], 16) << 32 | int(match[2], 16) if match else value


def _equal(a: Any, b: Any) -> bool:
    a, b = _alike(a, b)
    return bool(a == b)


def _ordered(order: Callable[[Any, Any], bool], a: Any, b: Any) -> bool:
    a, b = _alike(a, b)
    try:
        return bool(order(a, b))
    except (TypeError, ArithmeticError):
        return False


def _within(a: Any, b: Any) -> bool:
    if isinstance(b, str):
        return isinstance(a, str) and a in b
    if isinstance(b, list):
        return any(_equal(a, item) for item in b)
    return isinstance(b, Mapping) and isinstance(a, str) and a in b
