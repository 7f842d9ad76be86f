"""Versions of a row: found by key filters, ordered into lives, filled in.

The events of one key fall into lives (:mod:`cdc.history.lives`). A key change is a delete and
a create that name each other; with ``follow`` a life goes on under the other key, both ways.

Where a part of the journal cannot be read, a row's values are not carried over it: what the
server did not send after it stays unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from cdc.authors import Author
from cdc.block import (
    CREATE,
    DELETE,
    READ,
    STREAMED,
    TRUNCATE,
    UPDATE,
    Block,
    Transaction,
    key_hash,
)
from cdc.errors import ConfigError, LogError, OffsetOutOfRange, SinkRejected
from cdc.history.authors import Authors
from cdc.history.keys import key_fragments
from cdc.history.lives import Event, Reading, lacks, leads, lives
from cdc.history.model import Row, Since, Version
from cdc.history.render import Renderer
from cdc.history.tables import check_columns, find_table
from cdc.images import RowImages, table_schema
from cdc.keytext import Key
from cdc.log import JournalReader
from cdc.log.files import SNAPSHOT
from cdc.log.places import (
    BEGINNING,
    OFFSET_MAX,
    Place,
    Places,
    Stretch,
    moment,
    parse_place,
    stretches,
    time_text,
)
from cdc.log.reader import Lost
from cdc.lsn import lsn_text
from cdc.record import UNCHANGED
from schemas import EventSchema
from schemas.model import type_name

CHAIN_MAX = 1000  # how many keys one row is followed through

At = str | int | datetime | Place


def history(
    journal: Path | str,
    table: str,
    key: Key,
    *,
    at: At | None = None,
    columns: Sequence[str] | None = None,
    follow: bool = False,
    lost: Lost | None = None,
) -> list[Version]:
    """Every version of a row, oldest first; up to ``at`` where that is given.

    ``table`` is ``schema.table``, or ``table`` where that is enough; ``key`` a mapping, a
    single column's value, or text (``42``, ``id=42,line=3``, ``{"id":42}``). ``columns``
    leaves the others out, and versions that changed none of these. ``follow`` includes what
    the row was under earlier and later keys. ``lost`` is told of what cannot be read (damage,
    dropped segments); without it that raises. Raises ConfigError for a table, key or column
    that is not there, and for a place of which the journal says nothing.
    """
    place = None if at is None else parse_place(at)
    versions, around = _found(
        journal, table, key, place=place, columns=columns, lost=lost, follow=follow
    )
    if place is not None:
        versions = versions[: _cut(versions, place, around)]
    return versions if columns is None else list(_narrowed(versions, columns))


def _found(
    journal: Path | str,
    table: str,
    key: Key,
    *,
    place: Place | None,
    columns: Sequence[str] | None,
    lost: Lost | None,
    follow: bool = False,
) -> tuple[list[Version], tuple[int, int]]:
    """All versions, and the offsets around the place."""
    with JournalReader(journal) as reader:
        search = _Search(reader, table, key, lost)
        check_columns(search.schemas, columns or ())
        around = (0, OFFSET_MAX) if place is None else Places(reader).around(place)
        return search.versions(follow=follow), around


def version_at(
    journal: Path | str,
    table: str,
    key: Key,
    *,
    at: At,
    columns: Sequence[str] | None = None,
    lost: Lost | None = None,
) -> Version | None:
    """The version in force at a place; None where no row had this key yet.

    An LSN or a time stands for the state in which every transaction committed until then is
    seen and no other; the LSN of a change itself, as it stands in events and in a history, for
    the state right after that change. A version whose ``row`` is None: the row was gone.
    Raises as :func:`history`, and OffsetOutOfRange where the journal begins to know the row
    only later.
    """
    place = parse_place(at)
    versions, around = _found(journal, table, key, place=place, columns=columns, lost=lost)
    cut = _cut(versions, place, around)
    if cut:
        version = versions[cut - 1]
        return version if columns is None else _only(version, columns)
    if versions and versions[0].op != "c":
        first = versions[0]
        raise OffsetOutOfRange(
            f"the journal does not know what this row was at {place}",
            remedy=f"It knows it from {time_text(first.time)}, LSN {lsn_text(first.commit_lsn)},"
            f" offset {first.offset} on",
        )
    since = None if versions else known_since(journal)
    if since is not None and not _is_read(journal, table, place, lost):
        raise OffsetOutOfRange(f"the journal does not know what this row was at {place}: {since}")
    return None


def _is_read(journal: Path | str, table: str, place: Place, lost: Lost | None) -> bool:
    """Whether all of the table's rows were read up to a place: one without a version was not."""
    with JournalReader(journal) as reader:
        name = str(find_table(reader.schemas(lost), table)[0].table)
        readings = list(_readings(reader, name, first=True))
    if place.kind == "time":
        return any(reading.transaction.commit_us <= place.value for reading in readings)
    if place.kind == "lsn":
        return any(reading.lsn <= place.value for reading in readings)
    return any(reading.start <= place.value for reading in readings)


def known_since(journal: Path | str) -> Since | None:
    """Where the journal begins, if a part of it was taken: versions before are in no history.

    None: it is as long as it ever was, apart from what it dropped for want of space (``lost``).
    """
    with JournalReader(journal) as reader:
        oldest, _ = reader.bounds()
        if not oldest:
            return None
        with suppress(LogError):
            block = reader.read(oldest)
            if block is not None and len(block):
                first = block.transactions[block.transaction[0]]
                return Since(oldest, first.commit_lsn, moment(first.commit_us))
        return Since(oldest)


def row_at(
    journal: Path | str, table: str, key: Key, *, at: At, lost: Lost | None = None
) -> Row | None:
    """The row as it was at an LSN, a time or an offset; None: there was no such row."""
    version = version_at(journal, table, key, at=at, lost=lost)
    return None if version is None else version.row


def _cut(versions: Sequence[Version], place: Place, around: tuple[int, int]) -> int:
    """How many of the versions are seen at a place: up to the last that is."""
    seen = 0
    for number, version in enumerate(versions, 1):
        if place.kind in (BEGINNING, "offset"):
            counts = version.offset <= (place.value if place.kind == "offset" else around[0])
        elif place.kind == "time":
            counts = version.time <= moment(place.value)
        else:
            counts = version.commit_lsn <= place.value or version.lsn == place.value
            counts = version.offset < around[0] or (counts and version.offset < around[1])
        if counts:
            seen = number
    return seen


def _narrowed(versions: Iterable[Version], columns: Sequence[str]) -> Iterator[Version]:
    for version in versions:
        narrow = _only(version, columns)
        if narrow.row is None or narrow.changed is None or narrow.changed:
            yield narrow


def _only(version: Version, columns: Sequence[str]) -> Version:
    def pick(row: Row | None) -> Row | None:
        return None if row is None else {name: row[name] for name in columns if name in row}

    changed = version.changed
    if changed is not None:
        changed = tuple(name for name in changed if name in columns)
    return replace(version, row=pick(version.row), before=pick(version.before), changed=changed)


class _Search:
    """One row's events in one journal."""

    def __init__(self, reader: JournalReader, table: str, key: Key, lost: Lost | None) -> None:
        self._reader, self._lost = reader, lost
        schemas = reader.schemas(lost)
        found = find_table(schemas, table)
        self._fingerprints = {schema.fingerprint for schema in found}
        self._images = RowImages(_refuse)
        self.schemas = [rows for schema in found if (rows := table_schema(schema)) is not None]
        self._keys = key_fragments(found, key)
        self._table = str(found[0].table)
        self._renderer = Renderer()
        self._authors = Authors(reader, schemas, lost)
        self._broken = self._told = False
        self._read_again: list[Reading] | None = None

    def versions(self, *, follow: bool) -> list[Version]:
        """All of them, oldest first."""
        # A truncate belongs to every row it ends: a version is known by its row's first event.
        out: dict[tuple[tuple[int, int], int], Version] = {}
        for life in self._lives(self._keys):
            chain, since = life, life[0].offset
            if follow:
                chain, since = self._after(self._before(life)), 0
            elif lacks(life[0]):
                chain = self._before(life)  # lends its values, and is not shown
            for event, version in zip(chain, self._replay(chain), strict=True):
                if version.offset >= since:
                    out[event.place, chain[0].offset] = version
        return [out[place] for place in sorted(out)]

    def _lives(self, keys: Iterable[bytes]) -> list[list[Event]]:
        events = list(self._events(keys))
        return list(lives(events, self._readings()))

    def _readings(self) -> list[Reading]:
        """Where all tables were read again; none where a part of that may be what was lost."""
        if self._told:
            return []
        if self._read_again is None:
            self._read_again = list(_readings(self._reader, self._table))
        return self._read_again

    # -- events --------------------------------------------------------------------------

    def _events(self, keys: Iterable[bytes]) -> Iterator[Event]:
        """In journal order."""
        wanted = set(keys)
        hashes = {key_hash(name, key) for name in self._fingerprints for key in (*wanted, b"")}
        self._broken = False
        lost = None if self._lost is None else self._tell
        for block in self._reader.blocks_with(hashes, keyless=True, lost=lost):
            own = [schema.fingerprint in self._fingerprints for schema in block.schemas]
            rows = [row for row in _rows_of(block, wanted) if own[block.schema[row]]]
            found = self._images.apply(block.select(rows)) if rows else None
            for row in range(len(found or ())):
                assert found is not None
                author = self._authors.of(block, found.offsets[row] - block.offsets[0])
                yield self._event(found, row, found.schemas[found.schema[row]], author)
                self._broken = False

    def _tell(self, error: LogError) -> None:
        self._broken = self._told = True
        assert self._lost is not None
        self._lost(error)

    def _event(self, block: Block, row: int, schema: EventSchema, author: Author) -> Event:
        after, before = block.afters[row], block.befores[row]
        render = self._renderer.row
        return Event(
            block.offsets[row],
            block.op[row],
            block.lsn[row],
            block.transactions[block.transaction[row]],
            schema,
            block.keys[row] or b"",
            None if after is None else render(schema, after, block.unchanged.get(row, ())),
            None if before is None else render(schema, before),
            block.moved.get(row),
            block.marker_of(row) != STREAMED,
            self._broken,
            (block.offsets[row], 1),
            author,
        )

    # -- key changes ---------------------------------------------------------------------

    def _before(self, life: list[Event]) -> list[Event]:
        """The life, preceded by what the row was under earlier keys."""
        for _ in range(CHAIN_MAX):
            first = life[0]
            if first.op != CREATE or first.moved is None:
                break
            earlier = [
                found for found in self._lives([first.moved])
                if leads(found[-1], first) and found[-1].offset < first.offset
            ]  # fmt: skip
            if not earlier:
                break
            life = max(earlier, key=lambda found: found[-1].offset) + life
        return life

    def _after(self, life: list[Event]) -> list[Event]:
        """The life, followed by what the row was under later keys."""
        for _ in range(CHAIN_MAX):
            last = life[-1]
            if last.op != DELETE or last.moved is None:
                break
            later = [
                found for found in self._lives([last.moved])
                if leads(last, found[0]) and found[0].offset > last.offset
            ]  # fmt: skip
            if not later:
                break
            life = life + min(later, key=lambda found: found[0].offset)
        return life

    # -- versions ------------------------------------------------------------------------

    def _replay(self, life: list[Event]) -> Iterator[Version]:
        row: Row | None = None
        key, keyed = b"", life[0].schema
        for event in life:
            known = None if event.broken else row
            values, changed = _applied(event, known)
            if event.key:  # a truncate has none of its own
                key, keyed = event.key, event.schema
            yield Version(
                offset=event.offset,
                lsn=event.lsn,
                commit_lsn=event.transaction.commit_lsn,
                time=moment(event.transaction.commit_us),
                xid=event.transaction.xid or None,
                op=chr(event.op),
                table=str(event.schema.table),
                key=self._renderer.key(keyed, key),
                row=values,
                before=event.before if known is None and event.op == UPDATE else known,
                changed=changed,
                snapshot=event.snapshot,
                moved=None
                if event.moved is None
                else self._renderer.key(event.schema, event.moved),
                who=event.author.who,
                why=event.author.why,
            )
            # The row that leaves for another key lends its values to the create there.
            row = known if event.op == DELETE and event.moved is not None else values


def _refuse(block: Block, row: int, _: SinkRejected) -> None:
    """A record of the row that is looked for has no columns."""
    schema = block.schemas[block.schema[row]]
    kind = "no" if schema.value is None else f"a {type_name(schema.value)}"
    raise ConfigError(
        f"the source's transforms have made records without columns of {schema.table}'s rows"
        f" (topic {schema.topic}, {kind} schema): there are no versions of a row to show",
        remedy="cdc tail shows the records",
    )


def _readings(reader: JournalReader, table: str, *, first: bool = False) -> Iterator[Reading]:
    """Every whole snapshot; but the ``first`` there is: what came before it is older, or lost."""
    known = stretches(reader.path)
    for stretch in known[0 if first else 1 :]:
        read = stretch.position.get("tables")
        whole = stretch.complete and stretch.closed and stretch.position.get("whole")
        if stretch.lane != SNAPSHOT or not whole or (read is not None and table not in read):
            continue
        found = _taken(reader, stretch)
        if found is not None:
            yield Reading(stretch.start, stretch.end, *found)


def _taken(reader: JournalReader, stretch: Stretch) -> tuple[int, Transaction] | None:
    """When a snapshot is of, by its first row. Of one without rows its position may say it.

    Else it is as old as what comes next; None where nothing does.
    """
    taken = stretch.position.get("taken")
    if stretch.start == stretch.end and taken:
        lsn = taken["lsn"]
        return lsn, Transaction(taken["xid"], lsn, lsn, taken["us"], 0)
    block = reader.read(stretch.start)
    if block is None or not len(block):
        return None
    return block.lsn[0], block.transactions[block.transaction[0]]


def _rows_of(block: Block, wanted: set[bytes]) -> list[int]:
    """Rows with one of the keys, and truncates, in order."""
    found: set[int] = set()
    keys = list(block.keys)
    for key in wanted:
        at = -1
        with suppress(ValueError):
            while True:
                at = keys.index(key, at + 1)
                found.add(at)
    at = block.op.find(TRUNCATE)
    while at >= 0:
        found.add(at)
        at = block.op.find(TRUNCATE, at + 1)
    return sorted(found)


def _applied(event: Event, known: Row | None) -> tuple[Row | None, tuple[str, ...] | None]:
    """The row after an event, and the columns it changed."""
    if event.op not in (READ, CREATE, UPDATE) or event.values is None:
        return None, ()
    unsent = {name for name, value in event.values.items() if value is UNCHANGED}
    values = dict(event.values)
    for name in unsent:
        values[name] = (known or {}).get(name, UNCHANGED)
        if values[name] is UNCHANGED and event.before is not None:
            sent = event.before.get(name)
            values[name] = UNCHANGED if sent is None else sent
    earlier = known
    if earlier is None and event.op == UPDATE:
        earlier = event.before
    if earlier is None:
        return values, None if event.op == UPDATE else tuple(values)
    changed = tuple(
        name for name, value in values.items() if name not in unsent and value != earlier.get(name)
    )
    return values, changed
