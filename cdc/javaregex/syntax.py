r"""The syntax of ``java.util.regex`` (JDK 17), as Python's engine has it.

Translated are named groups ``(?<n>)``, ``\p{…}``, ``\Q…\E``, ``\h``, ``\R``, ``\z``, flags in
the middle, unions and intersections of classes; ``\d``, ``\w``, ``\s`` and ``(?i)`` mean ASCII,
as there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cdc.javaregex.charclasses import (
    CLASSES,
    LINE_ENDS,
    SHORTHANDS,
    Ranges,
    closed,
    complement,
    property_ranges,
    union,
    written,
)

_LINE_END = "(?:\\r\\n|[\\n\\r\\x85\\u2028\\u2029])"
_QUANTIFIER = re.compile(r"[*+?]|\{\d+(?:,\d*)?\}")
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9]*")
_INLINE = re.compile(r"\?([a-zA-Z]*)(?:-([a-zA-Z]*))?([:)])")
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "a": "\x07", "e": "\x1b"}
_FLAGS = frozenset("idmsuxU")
_MAX_CODE = 0x10FFFF


class PatternSyntax(ValueError):
    """Not a Java regular expression, or one that Python's engine has no equal of."""

    def __init__(self, description: str, pattern: str, index: int) -> None:
        pointer = f"\n{' ' * index}^" if 0 <= index < len(pattern) else ""
        super().__init__(f"{description} near index {index}\n{pattern}{pointer}")
        self.description, self.index = description, index


def translate(text: str, *, any_case: bool = False) -> str:
    """The expression for Python's engine. Raises PatternSyntax."""
    return _Translator(text).translate(frozenset("i" if any_case else ""))


def _case(flags: frozenset[str]) -> str:
    """What opens a part of these flags' case rule."""
    return ("(?ui:" if "u" in flags else "(?ai:") if "i" in flags else "(?-i:"


@dataclass
class _Group:
    """An open group: its flags before it, and what has to be closed with it."""

    opened: int
    flags: frozenset[str]
    number: int = 0
    wrapped: bool = False
    closing: str = ")"


@dataclass
class _Translator:
    """One pass over a pattern; ``flags`` are those in force."""

    text: str
    at: int = 0
    out: list[str] = field(default_factory=list)
    flags: frozenset[str] = frozenset()
    groups: list[_Group] = field(default_factory=list)
    count: int = 0
    names: set[str] = field(default_factory=set)
    closed: set[int] = field(default_factory=set)

    def translate(self, flags: frozenset[str]) -> str:
        self.groups.append(_Group(0, self.flags, closing=""))
        self._switch(flags)
        repeatable = False
        while self.at < len(self.text):
            repeatable = self._step(repeatable)
        if len(self.groups) > 1:
            raise self._error("Unclosed group", len(self.text))
        self._unwrap()
        return "".join(self.out)

    def _error(self, description: str, index: int | None = None) -> PatternSyntax:
        return PatternSyntax(description, self.text, self.at if index is None else index)

    def _lacking(self, construct: str, remedy: str) -> PatternSyntax:
        return self._error(f"{construct} is not supported here: {remedy}")

    def _step(self, repeatable: bool) -> bool:
        """One atom, group bracket or quantifier; whether a quantifier may follow."""
        char = self.text[self.at]
        if "x" in self.flags and (char in " \t\n\r\f\v" or char == "#"):
            self._comment()
            return repeatable
        if char in "*+?" or char == "{":
            return self._quantifier(repeatable)
        self.at += 1
        if char == "(":
            return self._open()
        if char == ")":
            return self._close()
        if char == "|":
            self._alternative()
            return False
        if char in "^$":
            self._anchor(char)
        elif char == ".":
            self._dot()
        elif char == "[":
            self.at -= 1
            self._emit_class(_ClassReader(self).read())
        elif char == "\\":
            return self._escape()
        else:
            self.out.append(re.escape(char))
        return True

    def _comment(self) -> None:
        if self.text[self.at] == "#":
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end
        else:
            self.at += 1

    def _quantifier(self, repeatable: bool) -> bool:
        char = self.text[self.at]
        found = _QUANTIFIER.match(self.text, self.at)
        if found is None:
            raise self._error("Illegal repetition")
        if not repeatable and char != "{":
            raise self._error(f"Dangling meta character '{char}'")
        low, _, high = found[0].strip("{}").partition(",")
        if char == "{" and high and int(high) < int(low):
            raise self._error("Illegal repetition range", found.end() - 1)
        self.at = found.end()
        suffix = self.text[self.at] if self.text.startswith(("?", "+"), self.at) else ""
        self.at += len(suffix)
        if repeatable:  # else Java repeats the empty text before the brace
            self.out.append(found[0] + suffix)
        return False

    # --- groups ---

    def _open(self) -> bool:
        opened = self.at
        group = _Group(opened, self.flags)
        if self.text[self.at : self.at + 1] != "?":
            self._capture(group, "(")
        elif self.text.startswith(("?<=", "?<!", "?=", "?!", "?>"), self.at):
            size = 3 if self.text[self.at + 1] == "<" else 2
            self.out.append("(" + self.text[self.at : self.at + size])
            self.at += size
        elif self.text.startswith("?<", self.at):
            self._named(group)
        else:
            return self._inline(group)
        self.groups.append(group)
        return False

    def _capture(self, group: _Group, bracket: str) -> None:
        self.count += 1
        group.number = self.count
        self.out.append(bracket)

    def _named(self, group: _Group) -> None:
        name = _NAME.match(self.text, self.at + 2)
        if name is None:
            self.at += 2
            raise self._error("capturing group name does not start with a Latin letter")
        self.at = name.end()
        if self.text[self.at : self.at + 1] != ">":
            raise self._error("named capturing group is missing trailing '>'")
        if name[0] in self.names:
            raise self._error(f"Named capturing group <{name[0]}> is already defined")
        self.names.add(name[0])
        self.at += 1
        self._capture(group, f"(?P<{name[0]}>")

    def _inline(self, group: _Group) -> bool:
        found = _INLINE.match(self.text, self.at)
        if found is None:
            self.at += 1
            raise self._error("Unknown inline modifier")
        on, off = set(found[1]), set(found[2] or "")
        if not (on | off) <= _FLAGS:
            raise self._error("Unknown inline modifier", self.at + 1)
        flags = (self.flags | on) - off
        if "U" in flags:
            raise self._lacking("(?U)", r"write \p{L}, \p{Nd} and the like for Unicode classes")
        self.at = found.end()
        if found[3] == ")":
            self._switch(frozenset(flags))
            return False
        self.groups.append(group)
        self.out.append("(?:")
        self.flags = group.flags
        self._switch(frozenset(flags))
        return False

    def _switch(self, flags: frozenset[str]) -> None:
        """Flags for the rest of the innermost group."""
        same = _case(flags) == _case(self.flags)
        self.flags = flags
        if same:
            return
        self._unwrap()
        self.groups[-1].wrapped = True
        self.out.append(_case(flags))

    def _unwrap(self) -> None:
        if self.groups[-1].wrapped:
            self.out.append(")")
            self.groups[-1].wrapped = False

    def _alternative(self) -> None:
        wrapped = self.groups[-1].wrapped
        self._unwrap()
        self.out.append("|")
        if wrapped:
            self.groups[-1].wrapped = True
            self.out.append(_case(self.flags))

    def _close(self) -> bool:
        if len(self.groups) == 1:
            raise self._error("Unmatched closing ')'", max(self.at - 2, 0))
        self._unwrap()
        group = self.groups.pop()
        self.out.append(group.closing)
        self.flags = group.flags
        self.closed.add(group.number)
        return True

    # --- atoms ---

    def _anchor(self, char: str) -> None:
        multiline = "m" in self.flags
        line_end = "\\n" if "d" in self.flags else _LINE_END
        if char == "^":
            after = "\\n" if "d" in self.flags else "[\\n\\x85\\u2028\\u2029]"
            carriage = "" if "d" in self.flags else "|(?<=\\r)(?!\\n)"
            # In one group: a quantifier that follows repeats all of it.
            begin = f"(?:(?:\\A|(?<={after}){carriage})(?!\\Z))"
            self.out.append(begin if multiline else "\\A")
        elif multiline:
            self.out.append(f"(?:(?={line_end})(?<!\\r(?=\\n))|\\Z)")
        else:
            # Between \r and \n is no end of a line.
            self.out.append(f"(?:(?={line_end}\\Z)(?!(?<=\\r)\\n)|\\Z)")

    def _dot(self) -> None:
        if "s" in self.flags:
            self.out.append("(?s:.)")
        else:
            self.out.append("[^\\n]" if "d" in self.flags else f"[^{LINE_ENDS}]")

    def _escape(self) -> bool:
        if self.at == len(self.text):
            raise self._error("Unexpected internal error")
        char = self.text[self.at]
        if char == "Q":
            return self._quote()
        if char in "dDsSwWhHvV":
            self.at += 1
            self.out.append(SHORTHANDS[char])
        elif char in "pP":
            self._emit_class(self.read_property())
        elif char in "AzZbBGRXN" or char == "k" or char in "123456789":
            self._special(char)
        else:
            self.out.append(re.escape(chr(self.read_character())))
        return True

    def _special(self, char: str) -> None:
        fixed = {"A": "\\A", "z": "\\Z", "B": "(?!(?u:\\b))"}
        self.at += 1
        if char in fixed:
            self.out.append(fixed[char])
        elif char == "Z":
            self.out.append(f"(?:(?={_LINE_END}\\Z)(?!(?<=\\r)\\n)|\\Z)")
        elif char == "R":
            self.out.append("(?:\\r\\n|[\\n\\x0b\\f\\r\\x85\\u2028\\u2029])")
        elif char == "b":
            if self.text.startswith("{g}", self.at):
                raise self._lacking("\\b{g}", "write \\b")
            self.out.append("(?u:\\b)")
        elif char == "G":
            raise self._lacking("\\G", "leave it out; an expression here is applied once")
        elif char == "X":
            raise self._lacking("\\X", "write \\P{M}\\p{M}*")
        elif char == "N":
            raise self._lacking("\\N{…}", "write the character's code, \\x{…}")
        elif char == "k":
            self._named_reference()
        else:
            self._reference(int(char))

    def _named_reference(self) -> None:
        found = re.compile(r"<([a-zA-Z][a-zA-Z0-9]*)>").match(self.text, self.at)
        if found is None:
            raise self._error("\\k is not followed by '<' for named capturing group")
        if found[1] not in self.names:
            raise self._error(f"named capturing group <{found[1]}> does not exist")
        self.at = found.end()
        self.out.append(f"(?P={found[1]})")

    def _reference(self, number: int) -> None:
        while self.text[self.at : self.at + 1] and self.text[self.at] in "0123456789":
            longer = number * 10 + int(self.text[self.at])
            if longer > self.count:
                break
            number, self.at = longer, self.at + 1
        # A group that is not closed yet has not matched: the reference never does.
        self.out.append(f"(?:\\{number})" if number in self.closed else "(?!)")

    def _quote(self) -> bool:
        end = self.text.find("\\E", self.at + 1)
        quoted = self.text[self.at + 1 : len(self.text) if end < 0 else end]
        self.at = len(self.text) if end < 0 else end + 2
        self.out.append(re.escape(quoted))
        return bool(quoted)

    def read_property(self) -> Ranges:
        r"""``\p{…}``, ``\pL`` and their negations, from the letter on."""
        negated = self.text[self.at] == "P"
        opened = self.at
        if self.text[self.at + 1 : self.at + 2] == "{":
            end = self.text.find("}", self.at)
            if end < 0:
                raise self._error("Unclosed character family", len(self.text) - 1)
            name = self.text[self.at + 2 : end]
            self.at = end + 1
        else:
            name = self.text[self.at + 1 : self.at + 2]
            self.at += 2
        try:
            found = property_ranges(name, any_case="i" in self.flags)
        except LookupError as error:
            raise PatternSyntax(str(error.args[0]), self.text, opened + 1) from None
        return complement(found) if negated else found

    def read_character(self) -> int:
        """A character's code after a backslash."""
        char = self.text[self.at]
        self.at += 1
        if char in _CONTROLS:
            return ord(_CONTROLS[char])
        if char == "0":
            return self._coded(r"[0-3][0-7][0-7]|[0-7][0-7]?", 8, "Illegal octal escape sequence")
        if char == "x" and self.text[self.at : self.at + 1] == "{":
            self.at += 1
            code = self._coded(r"[0-9a-fA-F]+(?=\})", 16, "Illegal hexadecimal escape sequence")
            self.at += 1
            if code > _MAX_CODE:
                raise self._error("Hexadecimal codepoint is too big")
            return code
        if char == "x":
            return self._coded("[0-9a-fA-F]{2}", 16, "Illegal hexadecimal escape sequence")
        if char == "u":
            return self._unicode()
        if char == "c":
            if self.at == len(self.text):
                raise self._error("Illegal control escape sequence")
            self.at += 1
            return ord(self.text[self.at - 1]) ^ 64
        if char.isascii() and char.isalpha():
            raise self._error("Illegal/unsupported escape sequence", self.at - 1)
        return ord(char)

    def _unicode(self) -> int:
        reason = "Illegal Unicode escape sequence"
        code = self._coded("[0-9a-fA-F]{4}", 16, reason)
        low = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})").match(self.text, self.at)
        if 0xD800 <= code < 0xDC00 and low:
            self.at = low.end()
            return 0x10000 + ((code - 0xD800) << 10) + int(low[1], 16) - 0xDC00
        return code

    def _coded(self, digits: str, base: int, reason: str) -> int:
        found = re.compile(digits).match(self.text, self.at)
        if found is None:
            raise self._error(reason)
        self.at = found.end()
        return int(found[0], base)

    def _emit_class(self, ranges: Ranges) -> None:
        if "i" in self.flags and "u" not in self.flags:
            self.out.append(f"(?-i:{written(ranges)})")  # the reader has closed them by case
        else:
            self.out.append(written(ranges))


class _ClassReader:
    """A character class, as the ranges it means."""

    def __init__(self, translator: _Translator) -> None:
        self._of = translator

    def read(self) -> Ranges:
        """From the opening bracket to after the closing one."""
        of = self._of
        of.at += 1
        negated = of.text[of.at : of.at + 1] == "^"
        of.at += negated
        found: Ranges = ()
        whole: Ranges | None = None
        empty = True
        while True:
            self._skip()
            if of.at >= len(of.text):
                raise of._error("Unclosed character class", len(of.text) - 1)
            char = of.text[of.at]
            if char == "]" and (not empty or whole is not None):
                of.at += 1
                break
            if of.text.startswith("&&", of.at):
                of.at += 2
                while of.text.startswith("&", of.at):
                    of.at += 1
                if whole is not None or not empty:  # else nothing is before it
                    whole = _intersected(whole, found, empty)
                found, empty = (), True
                continue
            found, empty = union(found, self._item()), False
        found = _intersected(whole, found, empty)
        return complement(found) if negated else found

    def _skip(self) -> None:
        of = self._of
        while "x" in of.flags and of.at < len(of.text) and of.text[of.at] in " \t\n\r\f\v#":
            of._comment()

    def _item(self) -> Ranges:
        of = self._of
        char = of.text[of.at]
        if char == "[":
            return self.read()
        if char == "\\":
            special = self._escaped()
            if special is not None:
                return special
        low = self._character()
        text = of.text
        if text[of.at : of.at + 1] == "-" and text[of.at + 1 : of.at + 2] not in ("]", "[", ""):
            of.at += 1
            high = self._character()
            if high < low:
                raise of._error("Illegal character range", of.at - 1)
        else:
            high = low
        return self._cased(((low, high),))

    def _escaped(self) -> Ranges | None:
        """A class that a backslash gives; None where it is a character."""
        of = self._of
        char = of.text[of.at + 1 : of.at + 2]
        if char in CLASSES:
            of.at += 2
            return CLASSES[char]
        if char in ("p", "P"):
            of.at += 1
            return of.read_property()
        if char == "Q":
            end = of.text.find("\\E", of.at)
            if end < 0:
                raise of._error("Unclosed character class", len(of.text) - 1)
            quoted = of.text[of.at + 2 : end]
            of.at = end + 2
            return self._cased(union((), tuple((ord(c), ord(c)) for c in sorted(set(quoted)))))
        return None

    def _character(self) -> int:
        of = self._of
        char = of.text[of.at]
        of.at += 1
        if char != "\\":
            return ord(char)
        if of.at == len(of.text):
            raise of._error("Illegal/unsupported escape sequence")
        if of.text[of.at] in "123456789bBAzZGRXNk":
            raise of._error("Illegal/unsupported escape sequence")
        return of.read_character()

    def _cased(self, ranges: Ranges) -> Ranges:
        flags = self._of.flags
        if "i" not in flags:
            return ranges
        return closed(ranges, unicode="u" in flags)


def _intersected(whole: Ranges | None, found: Ranges, empty: bool) -> Ranges:
    if whole is None:
        return found
    if empty:
        return whole
    return complement(union(complement(whole), complement(found)))
