"""Targets: which tables are captured, under which name, and what of them the stream shows. Pure.

The snapshot must not show more than the stream, so the publication decides along with the
include lists: its tables, its column lists and row filters, and whether partitions appear
as themselves or as their root.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cdc.errors import SourceError
from cdc.postgres import judge
from cdc.postgres.catalog import Publication, PublishedTable, TableInfo
from cdc.postgres.quoting import quoted, quoted_tables
from cdc.postgres.settings import Settings
from schemas import TableId

# Percona's is a heap, only encrypted.
HEAPS = frozenset({"heap", "tde_heap", "tde_heap_basic"})


@dataclass(frozen=True)
class Target:
    """One heap to read, and the table its events belong to.

    ``entries`` are the oids of what brings that table into the publication; ``root`` is that
    table where the heap is a part of it. ``columns`` are in that table's order.
    """

    info: TableInfo
    as_table: TableId
    columns: tuple[str, ...]
    row_filter: str | None
    entries: tuple[int, ...] = ()
    root: TableInfo | None = None

    @property
    def shape(self) -> TableInfo:
        """What the stream sends: a partition may have its columns in another order, or NOT NULL."""
        return self.root or self.info

    @property
    def name(self) -> str:
        """The heap's own name: what progress is counted by."""
        return str(self.info.schema.id)

    @property
    def is_heap(self) -> bool:
        """Its rows lie in pages that can be told apart."""
        return self.info.access_method in HEAPS

    @property
    def by_key(self) -> tuple[str, ...]:
        """The primary key's columns, where ranges of it can be read."""
        key = self.info.schema.key if self.info.has_primary_key else ()
        return key if set(key) <= set(self.columns) else ()

    def key(self, settings: Settings) -> list[str]:
        """The columns of its events' key."""
        named = settings.keys.of_table(self.shape.schema)
        wanted = self.shape.schema.key if named is None else named
        return [name for name in wanted if name in self.columns]


def choose_targets(
    tables: Sequence[TableInfo], publication: Publication | None, settings: Settings
) -> list[Target]:
    """The heaps that a snapshot reads; ``publication`` None: no stream follows."""
    published = {t.table: t for t in publication.tables} if publication else None
    by_id = {info.schema.id: info for info in tables}
    out = []
    for info in tables:
        if info.kind != "r" or info.persistence == "u":
            continue
        as_table, entry = _appears_as(info, published)
        if as_table is None or not settings.tables(as_table):
            continue
        if not settings.snapshot_tables.allows(str(as_table)):
            continue
        root = by_id.get(as_table) if as_table != info.schema.id else None
        own = set(info.schema.column_names)
        names = (root or info).schema.column_names
        columns = tuple(n for n in names if n in own and _streamed(info, entry, n))
        row_filter, entries = (entry.row_filter, entry.entries) if entry else (None, ())
        out.append(Target(info, as_table, columns, row_filter, entries, root))
    return out


def check_readable_in_pieces(targets: Sequence[Target]) -> None:
    """Chunks are ranges of a heap's pages, else of a primary key. Raises SourceError."""
    others = [t for t in targets if not t.is_heap and not t.by_key]
    if others:
        found = ", ".join(f"{t.name} ({t.info.access_method})" for t in others)
        raise SourceError(
            f"{found}: not stored as heap, and without a primary key to be read by",
            remedy="add a primary key, or exclude what is named here: table.exclude.list",
        )


def check_topics(targets: Sequence[Target], settings: Settings) -> None:
    """Tables whose events nobody could tell apart, by topic and name. Raises SourceError."""
    tables: dict[str, set[TableId]] = {}
    for target in targets:
        tables.setdefault(settings.naming.data(target.as_table), set()).add(target.as_table)
    for topic, ids in tables.items():
        if len(ids) > 1:
            names = " and ".join(quoted(i.schema, i.table) for i in sorted(ids))
            raise SourceError(
                f"the events of {names} would be in one topic, {topic}",
                remedy="rename one of them, or leave it out with table.exclude.list or "
                "schema.exclude.list",
            )


def check_published(
    tables: Sequence[TableInfo], publication: Publication, settings: Settings
) -> None:
    """Every table the include lists ask for is in the publication. Raises SourceError."""
    if not _asked(settings):
        return
    check_partitioned(tables, settings, via_root=publication.via_root)
    published = {t.table for t in publication.tables}
    missing = [
        t.schema.id
        for t in tables
        if t.persistence == "p"
        and settings.tables(t.schema.id)
        and published.isdisjoint((t.schema.id, *t.ancestors))
        and not (t.kind == "p" and _is_seen(t, tables, publication, published, settings))
    ]
    if missing:
        raise SourceError(
            f"{', '.join(map(str, missing))}: captured by the include lists, but not in the "
            f"publication {publication.name}, so no change would arrive",
            remedy=f"{_first(missing, tables, publication)}ALTER PUBLICATION "
            f"{quoted(publication.name)} ADD TABLE {quoted_tables(missing, only=True)}",
        )


def _first(
    missing: Sequence[TableId], tables: Sequence[TableInfo], publication: Publication
) -> str:
    """What else the application's updates would need, once these tables are published."""
    if not (publication.update or publication.delete):
        return ""
    found = judge.identities(heaps_of(missing, tables), publication.name)
    return "".join(f"{finding.text}: {finding.remedy}. Then " for finding in found)


def heaps_of(chosen: Iterable[TableId], tables: Sequence[TableInfo]) -> list[TableInfo]:
    """What an UPDATE changes rows of: the server asks each partition for its own identity."""
    ids = set(chosen)
    return [t for t in tables if t.kind == "r" and not ids.isdisjoint((t.schema.id, *t.ancestors))]


def check_partitioned(tables: Sequence[TableInfo], settings: Settings, *, via_root: bool) -> None:
    """A partitioned table's changes are its partitions' unless published ``via_root``.

    Raises SourceError where the include lists ask for the table and for none of these.
    """
    if via_root or not _asked(settings):
        return
    for table in tables:
        leaves = [t.schema.id for t in _parts(table, tables) if t.kind == "r"]
        if not leaves or not settings.tables(table.schema.id) or any(map(settings.tables, leaves)):
            continue
        name = quoted(settings.publication)
        raise SourceError(
            f"{table.schema.id} is partitioned: its changes appear under its partitions, which the "
            "include lists leave out",
            remedy="include the partitions; or set publish.via.partition.root=true, and for a "
            f"publication that is there ALTER PUBLICATION {name}"
            " SET (publish_via_partition_root = true)",
        )


def _asked(settings: Settings) -> bool:
    """Whether tables are named that have to be there."""
    return bool(settings.tables.tables.include or settings.tables.schemas.include)


def _parts(table: TableInfo, tables: Sequence[TableInfo]) -> list[TableInfo]:
    return [t for t in tables if t.persistence == "p" and table.schema.id in t.ancestors]


def _is_seen(
    table: TableInfo, tables: Sequence[TableInfo], publication: Publication,
    published: set[TableId], settings: Settings,
) -> bool:  # fmt: skip
    """Whether a partitioned table need not be published, since its partitions are, or will be."""
    ids = [part.schema.id for part in _parts(table, tables)]
    return not publication.via_root or any(i in published and settings.tables(i) for i in ids)


def _appears_as(
    info: TableInfo, published: dict[TableId, PublishedTable] | None
) -> tuple[TableId | None, PublishedTable | None]:
    own = info.schema.id
    if published is None:
        return own, None
    if own in published:
        entry = published[own]
        # one made since under this name is in no publication that we know
        same = entry.relation in (0, info.schema.relation_id)
        return (own, entry) if same else (None, None)
    for ancestor in reversed(info.ancestors):  # the server takes the topmost, too
        if ancestor in published:
            return ancestor, published[ancestor]
    return None, None


def _streamed(info: TableInfo, entry: PublishedTable | None, column: str) -> bool:
    """Whether the stream has this column: those of a column list (from 15 on), else all but
    generated ones; where the server (18) publishes such, it lists the columns.
    """
    if entry is not None and entry.columns is not None:
        return column in entry.columns
    return column not in info.generated
