"""Heads: what every text that an expression matches begins with, as far as that is plain.

Plain are literals, escaped signs, alternatives and groups of them; whatever else there is ends
a head. So a head is never wrong, but may be short: the empty one says nothing.
"""

from __future__ import annotations

from typing import Final

HEADS_MAX: Final = 64
_UNKNOWN: Final = frozenset({""})


class _Unclear(Exception):
    """Where alternatives begin and end is not plain either."""


def heads(text: str) -> frozenset[str]:
    """Each match of a sound expression, as a whole, begins with one of these."""
    scanner = _Scanner(text)
    try:
        ended, whole = scanner.alternatives()
    except (_Unclear, RecursionError):
        return _UNKNOWN
    return frozenset(ended | whole)


# Heads that have ended, and those that what follows may still make longer.
_Heads = tuple[set[str], set[str]]


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def _next(self, ahead: int = 0) -> str:
        return self._text[self._at + ahead : self._at + ahead + 1]

    def alternatives(self) -> _Heads:
        """Up to the end of the group, or of the text."""
        ended, whole = self._branch()
        while self._next() == "|":
            self._at += 1
            more = self._branch()
            ended, whole = ended | more[0], whole | more[1]
        return ended, whole

    def _branch(self) -> _Heads:
        ended: set[str] = set()
        grown = {""}
        while (char := self._next()) and char not in "|)":
            atom = self._atom(char)
            if atom is None:  # of no width: it can only make matches fewer
                continue
            ended |= {head + more for head in grown for more in atom[0]}
            grown = {head + more for head in grown for more in atom[1]}
            if len(ended) + len(grown) > HEADS_MAX:
                raise _Unclear
        return ended, grown

    def _atom(self, char: str) -> _Heads | None:
        found: _Heads | None = {""}, set()
        if char == "(":
            found = self._group()
        elif char == "[":
            self._skip_class()
        elif char == "\\":
            found = self._escape()
        else:
            self._at += 1
            if char in "^$":
                found = None
            elif char not in ".?*+{":
                found = set(), {char}
        if self._next() and self._next() in "?*{":
            return {""}, set()
        if self._next() == "+" and found is not None:
            return found[0] | found[1], set()
        return found

    def _group(self) -> _Heads | None:
        self._at += 1
        around = False
        if self._next() == "?":
            kind = self._next(1)
            around = (self._next(2) if kind == "<" else kind) in ("=", "!")
            if not around and kind != ":":
                raise _Unclear  # flags, a name
            self._at += 2
        found = self.alternatives()
        self._at += 1
        return None if around else found

    def _escape(self) -> _Heads:
        char = self._next(1)
        if char in ("Q", "E", "c"):
            raise _Unclear
        self._at += 2
        return ({""}, set()) if char.isalnum() else (set(), {char})

    def _skip_class(self) -> None:
        depth = 0
        while char := self._next():
            if char == "\\" and self._next(1) in ("Q", "E", "c"):
                raise _Unclear
            self._at += 2 if char == "\\" else 1
            if char == "[":
                depth += 1
                if self._next() == "^":
                    self._at += 1
                if self._next() == "]":
                    raise _Unclear
            elif char == "]":
                depth -= 1
                if not depth:
                    return
        raise _Unclear
