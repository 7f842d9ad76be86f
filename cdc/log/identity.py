"""Which journal a folder holds: a UUID made with its first segment, in ``meta`` of each.

And of which database: what the newest position of its stream says.

Segments alone do not tell a journal from another one of the same name: after a folder was
removed or replaced, offsets begin anew and mean other rows. A backup holds the same segments,
so it is the same journal, of an earlier moment. A journal from before there were identities
gets one when it is next opened for writing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import orjson

from cdc.api import PositionMembers
from cdc.errors import LogCorrupt
from cdc.log.files import STREAM, listing, newest
from cdc.log.reader import READ_ATTEMPTS
from cdc.log.segment import SegmentReader

T = TypeVar("T")


def identity_of(path: Path) -> str | None:
    """The journal's in a folder; None before its first segment, and where it has none yet.

    Raises LogError.
    """
    return _retried(path, _identity_of)


def origin_of(path: Path) -> PositionMembers:
    """The newest position of its stream, also while readers still get the snapshot before it.

    Empty where there is none. Raises LogError.
    """
    return _retried(path, _origin_of)


def _retried(path: Path, look: Callable[[Path], T]) -> T:
    for _ in range(READ_ATTEMPTS):
        try:
            return look(path)
        except FileNotFoundError:  # taken by retention since we listed
            continue
    raise LogCorrupt(f"journal {path}: it changes faster than it can be read")


def _origin_of(path: Path) -> PositionMembers:
    for entry in newest(listing(path)):
        if entry.lane == STREAM:
            with SegmentReader(path, entry) as segment:
                text = segment.state().position
                found: PositionMembers = {} if text is None else orjson.loads(text)
                return found
    return {}


def _identity_of(path: Path) -> str | None:
    for entry in newest(listing(path)):
        with SegmentReader(path, entry) as segment:
            if segment.identity is not None:
                return segment.identity
    return None
