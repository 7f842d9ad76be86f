"""An LSN, a place in PostgreSQL's log, as people read and write it."""

from __future__ import annotations


def lsn_text(lsn: int) -> str:
    """``X/Y``, as PostgreSQL prints it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_number(text: str) -> int:
    """The inverse of :func:`lsn_text`; raises ValueError for anything else."""
    high, slash, low = text.partition("/")
    if not slash:
        raise ValueError(f"not an LSN: {text!r} (expected two hexadecimal numbers, X/Y)")
    return (int(high, 16) << 32) | int(low, 16)


def parse_lsn(text: str | None) -> int | None:
    """Of a column that may be NULL."""
    return None if text is None else lsn_number(text)
