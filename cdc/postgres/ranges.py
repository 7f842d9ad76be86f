"""Ranges: numbers that come mostly in order, kept as the few ranges they make. Pure.

A snapshot's position counts chunks, and is stored with each of them: of a large table there
are hundreds of thousands. What is asked here for each costs the same however many there are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence


class Ranges:
    """A set of integers. ``pairs`` are ``[first, last]``, ascending and apart."""

    __slots__ = ("_count", "_pairs")

    def __init__(self, pairs: Iterable[Sequence[int]] = ()) -> None:
        self._pairs = [[first, last] for first, last in pairs]
        self._count = sum(last - first + 1 for first, last in self._pairs)

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Ranges:
        """{0, 1, 2, 5} → 0–2 and 5."""
        out = cls()
        for number in sorted(numbers):
            out.add(number)
        return out

    @property
    def pairs(self) -> list[list[int]]:
        """The stored form."""
        return [list(pair) for pair in self._pairs]

    def add(self, number: int) -> None:
        """One more; nothing is changed where it is there already."""
        if number in self:
            return
        self._count += 1
        pairs, at = self._pairs, self._behind(number)
        follows = at > 0 and pairs[at - 1][1] == number - 1
        precedes = at < len(pairs) and pairs[at][0] == number + 1
        if follows and precedes:
            pairs[at - 1][1] = pairs.pop(at)[1]
        elif follows:
            pairs[at - 1][1] = number
        elif precedes:
            pairs[at][0] = number
        else:
            pairs.insert(at, [number, number])

    def _behind(self, number: int) -> int:
        """How many ranges begin at the number or before it."""
        return bisect_right(self._pairs, number, key=lambda pair: pair[0])

    def __contains__(self, number: int) -> bool:
        at = self._behind(number)
        return at > 0 and number <= self._pairs[at - 1][1]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        for first, last in self._pairs:
            yield from range(first, last + 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self._pairs == other._pairs

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Ranges({self._pairs})"
