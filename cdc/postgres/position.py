"""Position: where in the WAL the stored changes end, and how it is compared.

Stored as JSON beside the changes it covers; opaque to everybody else. LSNs are plain
64-bit integers inside and ``X/Y`` text towards people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """A transaction of which only the first ``ordinal`` wire changes are stored.

    ``lsn`` is that of the change with this ordinal: on resume the same must stand there.
    """

    commit_lsn: int
    ordinal: int
    lsn: int


@dataclass(frozen=True, slots=True)
class Position:
    """A place in one server's WAL.

    ``lsn`` is the *end* LSN of the last transaction stored whole (or a keep-alive's LSN
    beyond it): what may be confirmed. ``commit_end`` is that end LSN without the keep-alives
    (Debezium's sequence[0]). ``message_lsn`` is that of the last non-transactional message
    stored: those travel outside the commit order. ``until`` are the tables whose changes are
    left out up to an LSN, since a snapshot taken there holds them.
    """

    system: str
    timeline: int
    database: int
    slot: str
    lsn: int
    message_lsn: int = 0
    commit_end: int = 0
    open: OpenTransaction | None = None
    until: Mapping[str, int] = field(default_factory=dict)

    @property
    def reach(self) -> int:
        """The newest LSN that anything stored depends on."""
        # of a record there is the start's LSN, of all else the end's
        records = (self.message_lsn + 1, self.open.commit_lsn + 1 if self.open else 0)
        return max(self.lsn, *records, *self.until.values())

    def to_dict(self) -> dict[str, Any]:
        """The stored form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Position:
        """The inverse of :meth:`to_dict`."""
        opened = raw.get("open")
        return cls(
            system=raw["system"],
            timeline=raw["timeline"],
            database=raw["database"],
            slot=raw["slot"],
            lsn=raw["lsn"],
            message_lsn=raw.get("message_lsn", 0),
            commit_end=raw.get("commit_end", 0),
            open=OpenTransaction(**opened) if opened else None,
            until=raw.get("until", {}),
        )
