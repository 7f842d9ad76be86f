"""Jackson: its spelling of JSON strings, where it is another than ours.

Characters beyond U+FFFF are written as escaped surrogate pairs, and the digits of escapes in
upper case. Both are rare: texts without either cost a look at their bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Fragment = bytes | None

_BEYOND = re.compile(rb"[\xf0-\xf4][\x80-\xbf]{3}")
_ESCAPE = re.compile(rb"\\(?:u00(?:0[a-f]|1[a-f])|.)", re.DOTALL)
_CONTROL = b"\\u00"


def escape(text: bytes) -> bytes:
    """JSON text as Jackson would have written it."""
    if not text.isascii():
        text = _BEYOND.sub(_surrogates, text)
    return _ESCAPE.sub(_upper, text) if _CONTROL in text else text


def escape_all(texts: Sequence[Fragment]) -> Sequence[Fragment]:
    """:func:`escape` for each; the same sequence where nothing changes, which is common."""
    joined = b"".join(filter(None, texts))
    # One byte is looked for at many times the speed of four.
    if joined.isascii() and (b"\\" not in joined or _CONTROL not in joined):
        return texts
    return [None if text is None else escape(text) for text in texts]


def _surrogates(found: re.Match[bytes]) -> bytes:
    number = ord(found[0].decode()) - 0x10000
    return b"\\u%04X\\u%04X" % (0xD800 + (number >> 10), 0xDC00 + (number & 0x3FF))


def _upper(found: re.Match[bytes]) -> bytes:
    whole = found[0]
    return whole if len(whole) == 2 else b"\\u00" + whole[4:].upper()
