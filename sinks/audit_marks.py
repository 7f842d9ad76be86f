"""Marks: where the chains of a target ended, as noted outside of it, in the sink's own store.

Whoever can change the target can cut off a chain's end and the position that tells of it; then
only a hash that was noted elsewhere betrays that. A mark is one: the runtime keeps it beside the
sink's position, after the target has taken the records, so it is never ahead of them.

What the target does not hold any more when the sink starts stays noted, beside the marks that
come after it: else a restart would hide what a cut has removed. A chain that the journal has
filled up with the same records again holds it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import orjson

from sinks.audit_chain import Link
from sinks.audit_target import PARQUET, is_path

KEPT_MAX: Final = 64  # of one table that are not there any more
_HERE: Final = frozenset((None, "", "127.0.0.1", "::1", "localhost"))


class Holder(Protocol):
    """What records are asked of."""

    def has(self, table: str) -> bool:
        """Whether there is such a table."""

    def hash_at(self, table: str, seq: int) -> str | None:
        """The hash of one record; None where it is not there."""


class Marks:
    """Those of one sink and one target."""

    def __init__(self, target: str, text: str | None) -> None:
        """``text``: what was kept, of whichever target."""
        self._target = target
        self._missing = noted(text, target)
        self._ends: dict[str, Link] = {}

    def begin(self, store: Holder, table: str) -> Link | None:
        """The sink goes on in a table: forget what that holds; the newest that it does not."""
        kept = self._missing.pop(table, [])
        if table in self._ends:
            kept.append(self._ends.pop(table))
        there = store.has(table)
        missing = [m for m in kept if not there or store.hash_at(table, m.seq) != m.hash]
        if missing:
            self._missing[table] = missing[:KEPT_MAX]
        return max(missing, default=None)

    def note(self, table: str, end: Link) -> None:
        """A chain ends there, and the target has it."""
        if end.seq:
            self._ends[table] = end

    @property
    def text(self) -> str:
        """To be kept."""
        tables = {table: [list(mark) for mark in marks] for table, marks in self._missing.items()}
        for table, end in self._ends.items():
            tables.setdefault(table, []).append(list(end))
        return orjson.dumps({"target": self._target, "marks": tables}).decode()


def noted(text: str | None, target: str) -> dict[str, list[Link]]:
    """The marks in what was kept of a target, by table; empty where it is another's."""
    found: Mapping[str, list[list[int | str]]] = {}
    if text is not None:
        raw = orjson.loads(text)
        found = raw["marks"] if raw["target"] == target else {}
    return {table: [Link(int(s), str(h)) for s, h in marks] for table, marks in found.items()}


def target_name(target: str) -> str:
    """What tells targets apart, however they are spelled: a path, or server and database."""
    if target.startswith(PARQUET):
        return str(Path(target.removeprefix(PARQUET).removeprefix("//")).resolve())
    if is_path(target):
        return str(Path(target).resolve())
    from sinks.sql_url import parse_url

    url = parse_url(target, None, None)
    if url.get_backend_name() == "sqlite":
        return str(Path(url.database or "").resolve())
    hosts, ports = url.query.get("host", url.host), url.query.get("port", url.port)
    host = ",".join(hosts) if isinstance(hosts, tuple) else hosts
    return f"postgresql:{'localhost' if host in _HERE else host}:{ports or 5432}/{url.database}"
