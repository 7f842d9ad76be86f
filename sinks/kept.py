"""Kept: where each journal stands in a target, for the targets that keep it with their rows.

A target holds the position of the journal that was committed last in columns of their own, as
when a sink had one journal, and those of the others beside it, as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from cdc.api import NOT_KEPT


@dataclass(frozen=True, slots=True)
class Kept:
    """One journal's position, which is at work, and the others'.

    ``offset`` None: nothing is kept. ``journal`` None: a version that knew no names kept it.
    ``others``: by journal, [offset, epoch, identity].
    """

    offset: int | None = None
    epoch: int = 0
    identity: str | None = None
    journal: str | None = None
    others: Mapping[str, list[Any]] = field(default_factory=dict)

    @property
    def floor(self) -> int:
        """Rows below are in the target."""
        return max(self.offset or 0, 0)

    def turned_to(self, journal: str, *, unnamed: bool) -> Kept:
        """This journal's at work; see :meth:`cdc.api.SinkTask.turn_to`.

        What nobody has a name for is forgotten.
        """
        if journal == self.journal:
            return self
        if self.journal is None and unnamed and self.offset != NOT_KEPT:
            return replace(self, journal=journal)
        others = dict(self.others)
        if self.journal is not None and self.offset is not None:
            others[self.journal] = [self.offset, self.epoch, self.identity]
        offset, epoch, identity = others.pop(journal, (None, 0, None))
        return Kept(offset, epoch, identity, journal, others)


def others_text(others: Mapping[str, list[Any]]) -> str | None:
    """The other journals' positions as a target's text; None: there are none."""
    return orjson.dumps(others, option=orjson.OPT_SORT_KEYS).decode() if others else None


def others_of(text: str | None) -> dict[str, list[Any]]:
    """The other way."""
    return orjson.loads(text) if text else {}
