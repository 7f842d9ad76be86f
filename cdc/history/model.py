"""Version: one state of a row, and the transaction that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from cdc.log.places import time_text
from cdc.lsn import lsn_text
from cdc.record import UNCHANGED

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """A row after one change. Values are readable: decimals as digits, times in ISO form.

    ``row`` is None after a delete, a truncate, and where the row left for another key.
    ``op`` is r, c, u, d, t as in events, or ``v``, vanished: the log was lost, and when the
    tables were read again the row was not there; when it went, nobody knows.
    A value that was never sent since the journal's beginning is ``cdc.record.UNCHANGED``.
    ``before`` is the row before, as far as it is known; ``changed`` names the columns that
    differ from it, None where that is not known. ``moved`` is the other key of a key change:
    where a create came from, where a delete went. ``lsn`` is the change's, ``commit_lsn``
    its transaction's; ``xid`` is None for rows of a snapshot that had no transaction id.
    ``who`` and ``why`` are what the application said (:mod:`cdc.audit`), else None.
    """

    offset: int
    lsn: int
    commit_lsn: int
    time: datetime
    xid: int | None
    op: str
    table: str
    key: Row
    row: Row | None
    before: Row | None
    changed: tuple[str, ...] | None
    snapshot: bool
    moved: Row | None = None
    who: str | None = None
    why: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON. Values nobody knows are left out of the row and named in ``unknown``."""
        row, unknown = _known(self.row)
        return {
            "offset": self.offset,
            "lsn": lsn_text(self.lsn),
            "commit_lsn": lsn_text(self.commit_lsn),
            "time": time_text(self.time),
            "xid": self.xid,
            "op": self.op,
            "table": self.table,
            "key": self.key,
            "row": row,
            "unknown": unknown,
            "changed": None if self.changed is None else list(self.changed),
            "snapshot": self.snapshot,
            "moved": self.moved,
            "who": self.who,
            "why": self.why,
        }


class Since(NamedTuple):
    """Where a journal begins of which the part before was taken: by retention, or by hand.

    The oldest row there is: its offset, and its transaction's commit LSN and time, None where
    that cannot be read. ``str`` says so to people.
    """

    offset: int
    lsn: int | None = None
    time: datetime | None = None

    def __str__(self) -> str:
        at = f"offset {self.offset}"
        if self.lsn is not None and self.time is not None:
            at += f" ({time_text(self.time)}, LSN {lsn_text(self.lsn)})"
        return f"retention has taken what the journal had before {at}"


def _known(row: Mapping[str, Any] | None) -> tuple[Row | None, list[str]]:
    if row is None:
        return None, []
    unknown = [name for name, value in row.items() if value is UNCHANGED]
    return {name: value for name, value in row.items() if value is not UNCHANGED}, unknown
