"""Verification of a target: every chain that was ever written there, in use or left behind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from cdc.errors import ConfigError
from sinks.audit_chain import Damaged, Hasher, Link, Report, fits, verify
from sinks.audit_store import Position, Store


class Table(NamedTuple):
    """A table of records. ``position``: where its chain ends, None where nothing says so.

    ``retired``: a replay or another ``audit.table`` has left it.
    """

    name: str
    position: Position | None
    retired: bool = False


def tables_of(store: Store) -> list[Table]:
    """All of them: those left behind first, in their order, those in use last.

    Of records that nothing keeps the end of, an older version left them, or somebody removed
    their row.
    """
    current = {position.table: position for position in store.positions()}
    left = {position.table: position for position in store.retired()}
    # A table may be configured with the schema that everybody sees.
    named = {name for table in (*current, *left) for name in (table, table.removeprefix("public."))}
    return [
        *(Table(name, position, retired=True) for name, position in left.items()),
        *(Table(name, None) for name in store.tables() if name not in named and _any(store, name)),
        *(Table(name, position) for name, position in current.items()),
    ]


def _any(store: Store, table: str) -> bool:
    """Whether there is a record: a replay that another one overtook leaves an empty table."""
    with closing(_readable(store, table)) as records:
        try:
            return next(records, None) is not None
        except Damaged:
            return True


def check(
    store: Store,
    table: Table,
    hasher: Hasher,
    *,
    last_hash: str | None = None,
    marks: Sequence[Link] = (),
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Walk one chain. Raises ConfigError where the key is not its.

    ``marks``: records that were noted elsewhere, and have to be there.
    """
    position = table.position
    if position is not None and position.key_check != hasher.check:
        given = "--key-file is needed" if hasher.check == "none" else "another key was given"
        if position.key_check == "none":
            given = "it has no key: leave --key-file out"
        hint = "The key looks like name=value: give the value alone" if hasher.is_named else ""
        raise ConfigError(f"the chain in {table.name} cannot be checked: {given}", remedy=hint)
    if position is not None and not store.has(table.name):
        problem = f"the table was dropped: {position.seq} records were there"
        return Report(problem=problem, at=1)
    if marks and not store.has(table.name):
        problem = f"the table was dropped: the sink has noted record {max(marks).seq} of it"
        return Report(problem=problem, at=1)
    kept = position.end if position else None
    seen: dict[int, str] = {}
    with closing(_readable(store, table.name)) as records:
        watched = _watched(records, {mark.seq for mark in marks}, seen)
        report = verify(watched, hasher, last_hash=last_hash, kept=kept, progress=progress)
    lost = [mark for mark in marks if seen.get(mark.seq) != mark.hash]
    if report.ok and lost:
        report.problem, report.at = _unlike(lost[0], report.end), lost[0].seq
    if position is None and report.at == 1 and not report.records:
        _check_key(store, table.name, hasher)
    return report


def _watched(
    records: Iterable[Sequence[Any]], wanted: Collection[int], seen: dict[int, str]
) -> Iterator[Sequence[Any]]:
    """The records as they come; ``seen`` gets the hashes of those that were noted."""
    for record in records:
        if record[0] in wanted and isinstance(record[-1], bytes):
            seen[record[0]] = record[-1].decode("utf-8", "replace")
        yield record


def _unlike(mark: Link, end: Link) -> str:
    if mark.seq > end.seq:
        return (
            f"the tail was removed, and the position with it: the sink has noted record {mark.seq},"
            f" the last one here is {end.seq}"
        )
    return f"the chain was written anew: record {mark.seq} is not the one that the sink has noted"


def _check_key(store: Store, table: str, hasher: Hasher) -> None:
    """Tell an altered first record from a chain under another key, of which no record fits."""
    try:
        with closing(_readable(store, table)) as records:
            if any(fits(record, hasher) for record in records):
                return
    except Damaged:
        return
    keyless = hasher.check == "none"
    raise ConfigError(
        f"the chain in {table} cannot be checked: no record fits"
        f" {'without a key' if keyless else 'this key'}, and nothing says under which it was"
        " written",
        remedy="--key-file is needed, or all records were altered"
        if keyless
        else "Give another key, or leave --key-file out; else all records were altered",
    )


def _readable(store: Store, table: str) -> Generator[Sequence[Any]]:
    """The records; Damaged for what the target says when they are not as the sink made them."""
    try:
        yield from store.records(table)
    except Exception as error:
        if not (store.is_driver_error(error) and store.is_damage(error)):
            raise
        said = str(error).partition("\n")[0]
        raise Damaged(f"the table is damaged, or was altered: {said}") from None
