"""Which journal a folder holds: a UUID made with its first segment, in ``meta`` of each.

Segments alone do not tell a journal from another one of the same name: after a folder was
removed or replaced, offsets begin anew and mean other rows. A backup holds the same segments,
so it is the same journal, of an earlier moment. A journal from before there were identities
gets one when it is next opened for writing.
"""

from __future__ import annotations

from pathlib import Path

from cdc.errors import LogCorrupt
from cdc.log.files import listing, newest
from cdc.log.reader import READ_ATTEMPTS
from cdc.log.segment import SegmentReader


def identity_of(path: Path) -> str | None:
    """The journal's in a folder; None before its first segment, and where it has none yet.

    Raises LogError.
    """
    for _ in range(READ_ATTEMPTS):
        try:
            return _identity_of(path)
        except FileNotFoundError:  # taken by retention since we listed
            continue
    raise LogCorrupt(f"journal {path}: it changes faster than it can be read")


def _identity_of(path: Path) -> str | None:
    for entry in newest(listing(path)):
        with SegmentReader(path, entry) as segment:
            if segment.identity is not None:
                return segment.identity
    return None
