"""Pattern: a compiled Java expression: full matches, finds and replacements."""

from __future__ import annotations

import re
from functools import lru_cache

from cdc.javaregex.syntax import PatternSyntax, translate


class JavaPattern:
    """A compiled expression."""

    def __init__(self, text: str, *, any_case: bool = False) -> None:
        self.text = text
        translated = translate(text, any_case=any_case)
        try:
            self._regex = re.compile(translated)
        except (re.error, OverflowError, RecursionError) as error:
            raise _foreign(error, text) from None

    def matches(self, text: str) -> bool:
        """Whether the whole of ``text`` matches."""
        return self._regex.fullmatch(text) is not None

    def replace_first(self, text: str, replacement: str) -> str:
        r"""``text`` with its first match replaced.

        ``$1`` and ``${name}`` stand for groups; a backslash takes the meaning from what
        follows. Raises ValueError or IndexError with Java's text.
        """
        found = self._regex.search(text)
        if found is None:
            return text
        return text[: found.start()] + _expanded(found, replacement) + text[found.end() :]

    def __repr__(self) -> str:
        return f"JavaPattern({self.text!r})"


@lru_cache(256)
def compile(  # noqa: A001 - the name the field knows
    text: str, *, any_case: bool = False
) -> JavaPattern:
    """The pattern; ``any_case`` is Java's CASE_INSENSITIVE. Raises PatternSyntax, a ValueError."""
    return JavaPattern(text, any_case=any_case)


def _foreign(error: Exception, text: str) -> PatternSyntax:
    reason = str(error)
    if "look-behind" in reason:
        at = max(text.find("(?<="), text.find("(?<!"))
        return PatternSyntax(
            "Look-behind of varying width is not supported here: give each width as an "
            "alternative of its own, (?<=a)|(?<=bc)",
            text,
            at,
        )
    return PatternSyntax(f"Not supported here: {reason}", text, getattr(error, "pos", None) or 0)


def _expanded(found: re.Match[str], replacement: str) -> str:
    out = ""
    at = 0
    while at < len(replacement):
        char = replacement[at]
        at += 1
        if char == "\\":
            if at == len(replacement):
                raise ValueError("character to be escaped is missing")
            out += replacement[at]
            at += 1
        elif char == "$":
            group, at = _group(found, replacement, at)
            out += group
        else:
            out += char
    return out


def _group(found: re.Match[str], replacement: str, at: int) -> tuple[str, int]:
    if at == len(replacement):
        raise ValueError("Illegal group reference: group index is missing")
    if replacement[at] == "{":
        return _named_group(found, replacement, at + 1)
    if replacement[at] not in "0123456789":
        raise ValueError("Illegal group reference")
    number = int(replacement[at])
    at += 1
    if number > found.re.groups:
        raise IndexError(f"No group {number}")
    while replacement[at : at + 1] and replacement[at] in "0123456789":
        longer = number * 10 + int(replacement[at])
        if longer > found.re.groups:
            break
        number, at = longer, at + 1
    return found[number] or "", at


def _named_group(found: re.Match[str], replacement: str, at: int) -> tuple[str, int]:
    end = at
    while replacement[end : end + 1].isascii() and replacement[end : end + 1].isalnum():
        end += 1
    name = replacement[at:end]
    if not name:
        raise ValueError("named capturing group has 0 length name")
    if replacement[end : end + 1] != "}":
        raise ValueError("named capturing group is missing trailing '}'")
    if name[0].isdigit():
        raise ValueError(f"capturing group name {{{name}}} starts with digit character")
    if name not in found.re.groupindex:
        raise ValueError(f"No group with name {{{name}}}")
    return found[name] or "", end + 1
