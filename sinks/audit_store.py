"""Where audit records are kept: the contract of a target (:mod:`sinks.audit_target` opens one).

The position (table, offset, epoch, end of the chain) lies in the target's own table
``cdc_audit`` and moves in the same transaction as the records. When a chain gives way to
another one, by a replay or a new name, its last position goes to ``cdc_audit_retired``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from cdc.errors import ConfigError
from sinks.audit_chain import GENESIS, Link, Record

POSITIONS: Final = "cdc_audit"
RETIRED: Final = "cdc_audit_retired"  # chains that are complete: where each ended
# Columns of both tables: a position's fields, in their order.
FIELDS: Final = (
    "connector", "base", "table_name", "next_offset", "epoch", "seq", "hash", "key_check",
    "identity",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Position:
    """A sink's state in its target. ``base`` is ``audit.table``, ``table`` the one in use.

    ``next_offset`` is None as long as nothing was ever flushed; ``identity`` is the journal's
    that it is of, None where an older version stored it.
    """

    connector: str
    base: str
    table: str
    next_offset: int | None = None
    epoch: int = 0
    seq: int = 0
    hash: str = GENESIS
    key_check: str = "none"
    identity: str | None = None

    @property
    def values(self) -> tuple[Any, ...]:
        """In the order of FIELDS."""
        return astuple(self)

    @property
    def end(self) -> Link:
        """The chain's end."""
        return Link(self.seq, self.hash)


def known_fields(columns: Collection[str]) -> tuple[str, ...]:
    """Those of FIELDS that a target has: an older version made it without the last."""
    return tuple(name for name in FIELDS if name in columns)


@dataclass(frozen=True, slots=True)
class Filter:
    """What ``cdc audit query`` asks for; None is anything. Times are as stored."""

    table: str | None = None
    since: str | None = None
    until: str | None = None
    who: str | None = None

    def sql(self, mark: str) -> tuple[str, list[str]]:
        """A condition that no wanted record fails, and its parameters."""
        parts, values = ["1 = 1"], []
        if self.table is not None:
            parts.append(f"(table_name = {mark} OR table_name LIKE {mark})")
            values += [self.table, f"%.{self.table}"]
        for column, sign, value in (
            ("committed_at", ">=", self.since),
            ("committed_at", "<=", self.until),
            ("who", "=", self.who),
        ):
            if value is not None:
                parts.append(f"{column} {sign} {mark}")
                values.append(value)
        return " AND ".join(parts), values

    def accepts(self, record: dict[str, Any]) -> bool:
        """Whether a record is wanted."""
        name, at = record["table_name"], record["committed_at"]
        return (
            (self.table is None or name == self.table or name.partition(".")[2] == self.table)
            and (self.since is None or at >= self.since)
            and (self.until is None or at <= self.until)
            and (self.who is None or record["who"] == self.who)
        )


class Store(Protocol):
    """A target. Writes are seen by others after ``commit``; driver's errors pass through."""

    def prepare(self, connector: str) -> None:
        """Make the table of positions where there is none."""

    def positions(self) -> list[Position]:
        """Of every connector that writes here."""

    def retired(self) -> list[Position]:
        """Of chains that are complete, each where it ended."""

    def retire(self, position: Position) -> None:
        """Keep where a chain ended, inside the transaction."""

    def has(self, table: str) -> bool:
        """Whether there is such a table."""

    def create(self, table: str) -> None:
        """Make a table of records, inside the transaction."""

    def last(self, table: str) -> Link:
        """The last record that is stored."""

    def hash_at(self, table: str, seq: int) -> str | None:
        """The hash of one record; None where it is not there."""

    def insert(self, table: str, records: Sequence[Record]) -> None:
        """Append records."""

    def save(self, position: Position, previous: Position | None) -> bool:
        """Store a position; False when it is no longer the previous one."""

    def commit(self, position: Position | None = None) -> None:
        """Make all of it durable."""

    def tick(self, position: Position) -> None:
        """Between transactions, now and then: do what time alone makes due."""

    def begin_read(self) -> None:
        """From here on, reads see one state of the target."""

    def tables(self) -> list[str]:
        """Tables that hold records."""

    def records(self, table: str) -> Iterator[Sequence[Any]]:
        """All records by ``seq``, texts as bytes. Raises Damaged."""

    def find(self, table: str, wanted: Filter) -> Iterator[Sequence[Any]]:
        """Records by ``seq`` that may be wanted, texts as bytes."""

    def is_driver_error(self, error: Exception) -> bool:
        """Whether the target, or its driver, said it."""

    def is_damage(self, error: Exception) -> bool:
        """Whether what is stored is not as the sink made it."""

    def is_unavailable(self, error: Exception) -> bool:
        """Whether waiting may help."""

    def explain(self, error: Exception) -> tuple[str, str]:
        """What the target said, without row values, and a remedy."""

    def close(self) -> None:
        """Roll back what was not committed, and let go."""


@dataclass(frozen=True, slots=True)
class ParquetOptions:
    """When a file is sealed."""

    rows: int = 500_000
    age_s: float = 3600.0


def stored_time(text: str) -> str:
    """A time as people write it, as ``committed_at`` is stored; without a zone it is UTC."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is no time", remedy="Write it like 2026-01-31 or 2026-01-31T12:00:00+01:00"
        ) from None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
