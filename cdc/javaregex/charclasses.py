r"""Sets of characters as ranges of codes: what Java's classes and ``\p{…}`` mean.

Unicode's categories are those of Python's own tables.
"""

from __future__ import annotations

import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache

Ranges = tuple[tuple[int, int], ...]

LAST = sys.maxunicode
LINE_ENDS = "\\n\\r\\x85\\u2028\\u2029"
_UPPER, _LOWER, _DIGIT = (65, 90), (97, 122), (48, 57)
_PUNCTUATION: Ranges = ((33, 47), (58, 64), (91, 96), (123, 126))
POSIX: Mapping[str, Ranges] = {
    "Lower": (_LOWER,),
    "Upper": (_UPPER,),
    "ASCII": ((0, 127),),
    "Alpha": (_UPPER, _LOWER),
    "Digit": (_DIGIT,),
    "Alnum": (_DIGIT, _UPPER, _LOWER),
    "Punct": _PUNCTUATION,
    "Graph": ((33, 126),),
    "Print": ((32, 126),),
    "Blank": ((9, 9), (32, 32)),
    "Cntrl": ((0, 31), (127, 127)),
    "XDigit": (_DIGIT, (65, 70), (97, 102)),
    "Space": ((9, 13), (32, 32)),
}
_HORIZONTAL: Ranges = (
    (9, 9), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x180E, 0x180E), (0x2000, 0x200A),
    (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000),
)  # fmt: skip
_VERTICAL: Ranges = ((10, 13), (0x85, 0x85), (0x2028, 0x2029))
_WORD: Ranges = (_DIGIT, _UPPER, (95, 95), _LOWER)
# Names that Java gives to a set of general categories.
_NAMED = {
    "LC": "Lu Ll Lt",
    "LD": "L Nd",
    "L1": "",
    "all": "",
    "javaLetter": "L",
    "javaDigit": "Nd",
    "javaLetterOrDigit": "L Nd",
    "javaTitleCase": "Lt",
    "javaDefined": "L M N P S Z Cc Cf Co Cs",
    "javaSpaceChar": "Z",
    "IsLetter": "L",
    "IsDigit": "Nd",
    "IsPunctuation": "P",
    "IsControl": "Cc",
    "IsTitlecase": "Lt",
    "IsAssigned": "L M N P S Z Cc Cf Co Cs",
}
_CASED = {"Lu", "Ll", "Lt"}


def union(*sets: Ranges) -> Ranges:
    """The characters of any of the sets, in order and joined."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(each for ranges in sets for each in ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return tuple(joined)


def complement(ranges: Ranges) -> Ranges:
    """All other characters."""
    out = []
    start = 0
    for low, high in union(ranges):
        if low > start:
            out.append((start, low - 1))
        start = high + 1
    if start <= LAST:
        out.append((start, LAST))
    return tuple(out)


def closed(ranges: Ranges, *, unicode: bool) -> Ranges:
    """The characters and those that differ from them by case."""
    if not unicode:
        more = []
        for low, high in ranges:
            for (first, last), shift in ((_UPPER, 32), (_LOWER, -32)):
                cut = (max(low, first), min(high, last))
                if cut[0] <= cut[1]:
                    more.append((cut[0] + shift, cut[1] + shift))
        return union(ranges, tuple(more))
    found = {
        ord(other)
        for low, high in ranges
        for code in range(low, min(high, 0x1FFFF) + 1)
        for other in (chr(code).lower(), chr(code).upper())
        if len(other) == 1
    }
    return union(ranges, tuple((code, code) for code in found))


@lru_cache(1)
def _categories() -> dict[str, Ranges]:
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    start, previous = 0, unicodedata.category("\0")
    for code in range(1, LAST + 2):
        category = unicodedata.category(chr(code)) if code <= LAST else ""
        if category != previous:
            found[previous].append((start, code - 1))
            start, previous = code, category
    return {name: tuple(ranges) for name, ranges in found.items()}


def _of_categories(names: Iterable[str]) -> Ranges:
    found = _categories()
    return union(*(r for name in names for c, r in found.items() if c.startswith(name)))


def property_ranges(name: str, *, any_case: bool = False) -> Ranges:
    r"""What ``\p{name}`` means. Raises LookupError with the reason."""
    if name in POSIX:
        both = any_case and name in ("Lower", "Upper")
        return POSIX["Alpha"] if both else POSIX[name]
    if name == "L1":
        return ((0, 255),)
    if name == "all":
        return ((0, LAST),)
    if name in _NAMED:
        return _of_categories(_NAMED[name].split())
    key, _, value = name.partition("=")
    if value and key.lower() in ("gc", "general_category"):
        name = value
    bare = name.removeprefix("Is")
    if bare in _categories() or (len(bare) == 1 and bare in "LMNPSZC"):
        names = _CASED if any_case and bare in _CASED else {bare}
        return _of_categories(names)
    if name.startswith(("In", "Is", "java")) or value:
        raise LookupError(
            f"Character property {{{name}}} is not supported here: write the ranges of "
            "characters, or a general category such as \\p{L}"
        )
    raise LookupError(f"Unknown character property name {{{name}}}")


def written(ranges: Ranges) -> str:
    """The set as a class of Python's engine."""
    if not ranges:
        return "(?!)"
    return "[" + "".join(_range(low, high) for low, high in union(ranges)) + "]"


def _range(low: int, high: int) -> str:
    return _code(low) if low == high else f"{_code(low)}-{_code(high)}"


def _code(code: int) -> str:
    char = chr(code)
    if char.isascii() and char.isalnum():
        return char
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


# What a backslash and a letter mean, inside a class and outside.
CLASSES: Mapping[str, Ranges] = {
    "d": (_DIGIT,),
    "D": complement((_DIGIT,)),
    "s": POSIX["Space"],
    "S": complement(POSIX["Space"]),
    "w": _WORD,
    "W": complement(_WORD),
    "h": _HORIZONTAL,
    "H": complement(_HORIZONTAL),
    "v": _VERTICAL,
    "V": complement(_VERTICAL),
}
SHORTHANDS: Mapping[str, str] = {letter: written(r) for letter, r in CLASSES.items()}
