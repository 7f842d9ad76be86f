"""Properties: Java's file format of keys and values, as ``java.util.Properties`` reads it.

Facts: JDK 17. A line that ends in a backslash goes on in the next one, whose leading blanks do
not count; ``#`` and ``!`` begin a comment; a key ends at ``=``, ``:`` or a blank; a backslash
takes the meaning from the next character, or begins ``\\uXXXX``, half of a character maybe.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_BLANKS: Final = " \t\f"
_KEY: Final = re.compile(r"(?:[^\\=: \t\f]|\\.)*", re.DOTALL)
_SEPARATOR: Final = re.compile(r"[ \t\f]*[=:]?[ \t\f]*")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_MEANING: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


class Malformed(ValueError):
    """An escape that is none, in line ``line``."""

    def __init__(self, line: int) -> None:
        super().__init__("Malformed \\uxxxx encoding.")
        self.line = line


def read_properties(text: str) -> dict[str, str]:
    """Keys and values; of a key that is there twice the last one. Raises Malformed."""
    found: dict[str, str] = {}
    for number, line in _logical_lines(text):
        key = _KEY.match(line)
        separator = _SEPARATOR.match(line, key.end() if key else 0)
        assert key is not None, "it matches nothing, too"
        assert separator is not None, "so does it"
        try:
            found[_plain(key[0])] = _plain(line[separator.end() :])
        except ValueError:
            raise Malformed(number) from None
    return {_paired(key): _paired(value) for key, value in found.items()}


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with those they go on in, and the number of the first one; no comments."""
    lines = re.split(r"\r\n|\r|\n", text)
    if not lines[-1]:
        lines.pop()
    whole, first, going_on = "", 1, False
    for number, natural in enumerate(lines, 1):
        line = natural.lstrip(_BLANKS)
        if not whole:
            first = number
            if line.startswith(("#", "!")) or not (line or going_on):
                going_on = False
                continue
        last = number == len(lines)
        going_on = _goes_on(line)
        whole += line[:-1] if going_on else line
        if last or not going_on:
            if whole or (going_on and last):
                yield first, whole
            whole = ""


def _goes_on(line: str) -> bool:
    """Whether it ends in a backslash that no other one takes the meaning from."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _plain(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[1] is not None:
            return chr(int(match[1], 16))
        if match[2] == "u":
            raise ValueError(match[0])
        return _MEANING.get(match[2], match[2])

    return _ESCAPE.sub(replace, text)


def _paired(text: str) -> str:
    """Java's text is of halves of characters beyond U+FFFF: two escapes are one character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
