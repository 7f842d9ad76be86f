"""Authors: who changed something and why, as the application said in the transaction.

The other end of :mod:`cdc.audit`, for all that reads a journal. The message ``cdc.audit`` is
the author of the transaction's rows after it until the next such message, and the first one
also of the rows before it. A message that is not part of a transaction (``transactional``
false) is nobody's: it is not in commit order. Rows of a snapshot have no author.
"""

from __future__ import annotations

import logging
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import orjson

from cdc.block import Block

log = logging.getLogger(__name__)

PREFIX: Final = b'{"prefix":"cdc.audit"}'  # the key of such a message's row


class Author(NamedTuple):
    """Who changed something, and why."""

    who: str | None = None
    why: str | None = None


NOBODY: Final = Author()


def author_of(block: Block, row: int) -> Author | None:
    """The author that a message names; None for other messages, and for broken ones."""
    if block.keys[row] != PREFIX:
        return None
    content = orjson.loads(block.afters[row] or b"{}").get("content")
    said = _said(content or "")
    if said is None:
        offset = block.offsets[row] if block.offsets else -1
        log.warning("a cdc.audit message at offset %d is no JSON object", offset)
        return None
    return Author(_words(said.get("who")), _words(said.get("why")))


def _said(content: str) -> Mapping[str, Any] | None:
    """A message's JSON, in whichever form binary.handling.mode gave it."""
    forms: tuple[Callable[[str], bytes], ...] = (b64decode, bytes.fromhex, urlsafe_b64decode)
    for decode in forms:
        try:
            found = orjson.loads(decode(content))
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return None


def _words(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
