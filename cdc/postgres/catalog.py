"""The source's catalogue: types, tables, publications, slots and facts of the server.

Everything here reads, over an ordinary psycopg connection that the caller owns, and gives
frozen values. Servers from 12 to 18 are understood: a column a version does not have yet is
None, never an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row, tuple_row

from cdc.errors import SourceError
from cdc.lsn import parse_lsn
from cdc.postgres.types import PgType, TypeCatalog
from schemas import Column, TableId, TableSchema

Conn = Connection[Any]


def _rows(conn: Conn, query: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query.encode(), tuple(values)).fetchall()


def _dicts(conn: Conn, query: str, values: Iterable[Any] = ()) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), tuple(values)).fetchall()


@contextmanager
def _one_moment(conn: Conn) -> Iterator[None]:
    """What several statements read is of one moment; in a caller's transaction, of that one's.

    A table that is written anew between two of them would have its old file and new columns.
    """
    if conn.info.transaction_status is not TransactionStatus.IDLE:
        yield
        return
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


# --- types ---

# A true array is a varlena with subscripts of its own element; oidvector, name and point
# have a typelem too.
_TYPES = """
SELECT t.oid::int8, t.typname, n.nspname, t.typtype::text, t.typcategory::text,
       CASE WHEN t.typcategory = 'A' AND t.typlen = -1 THEN t.typelem ELSE 0 END::int8,
       t.typbasetype::int8, t.typtypmod,
       ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e
             WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
"""


def _type(row: tuple[Any, ...]) -> PgType:
    oid, name, schema, kind, category, element, base, modifier, labels = row
    return PgType(oid, name, schema, kind, category, element, base, modifier, tuple(labels))


def read_type(conn: Conn, oid: int) -> PgType | None:
    """One type, for a catalogue that does not know it yet."""
    rows = _rows(conn, _TYPES + "WHERE t.oid = %s", [oid])
    return _type(rows[0]) if rows else None


def read_types(conn: Conn, lookup: Callable[[int], PgType | None] | None = None) -> TypeCatalog:
    """All types but the row types of tables; ``lookup`` finds the ones created later."""
    rows = _rows(conn, _TYPES + "WHERE t.typtype <> 'c' AND t.typtype <> 'p'")
    return TypeCatalog(map(_type, rows), lookup)


# --- tables ---


@dataclass(frozen=True)
class TableInfo:
    """A table and what matters for capturing it.

    ``kind`` is relkind (r table, p partitioned table), ``persistence`` relpersistence
    (u unlogged: never in the stream), ``identity`` relreplident (d, n, f, i), with the
    columns of the index for i in ``identity_columns``. ``ancestors`` are the partitioned tables
    that a partition is a part of, the nearest first. ``generated`` columns are not in the
    stream before server 18, which refuses updates under an identity with such columns that are
    not published (``strict``). ``numbers`` are the columns' attnums; ``filled`` is the text of
    what a column holds in rows that are older than the column (attmissingval), by its name.
    """

    schema: TableSchema
    kind: str
    persistence: str
    identity: str
    identity_columns: tuple[str, ...]
    has_primary_key: bool
    ancestors: tuple[TableId, ...]
    generated: frozenset[str]
    access_method: str
    file_node: int
    pages: int
    rows_estimate: int
    numbers: tuple[int, ...]
    filled: Mapping[str, str]
    strict: bool = False


_TABLES = """
SELECT c.oid::int8, current_database(), n.nspname, c.relname, c.relkind::text,
       c.relpersistence::text, c.relreplident::text, coalesce(am.amname, ''),
       c.relfilenode::int8, c.relpages,
       greatest(c.reltuples, 0)::int8, pg_catalog.obj_description(c.oid, 'pg_class'),
       CASE WHEN c.relispartition THEN ARRAY(
           SELECT relid::oid::int8 FROM pg_catalog.pg_partition_ancestors(c.oid)
           WITH ORDINALITY AS a (relid, distance) WHERE distance > 1 ORDER BY distance) END
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname NOT LIKE 'pg\\_toast%%' AND n.nspname NOT LIKE 'pg\\_temp%%'
"""

_COLUMNS = """
SELECT a.attrelid::int8, a.attnum, a.attname, a.atttypid::int8, a.atttypmod,
       NOT (a.attnotnull OR (t.typtype = 'd' AND t.typnotnull)),
       CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
       a.attgenerated <> '',
       CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""

# In the order of JDBC's getIndexInfo: clustered first, then by name. An index with an
# expression has a 0 among its columns.
_INDEXES = """
SELECT i.indrelid::int8, i.indisprimary, i.indisreplident, i.indnkeyatts, i.indkey::int2[]::int[],
       i.indimmediate
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
WHERE i.indrelid = ANY(%s) AND i.indisunique
ORDER BY i.indrelid, NOT i.indisclustered, ic.relname
"""


def read_tables(
    conn: Conn, wanted: Callable[[TableId], bool] = lambda _: True
) -> tuple[TableInfo, ...]:
    """The capturable tables that ``wanted`` lets through, ordered by name.

    Partitioned tables and their partitions are both listed; unlogged tables are, with their
    persistence, so that a caller can say why they are not captured.
    """
    with _one_moment(conn):
        rows = _rows(conn, _TABLES)
        chosen = [row for row in rows if wanted(TableId(row[1], row[2], row[3]))]
        found = _tables(conn, chosen, rows)
    return tuple(sorted(found, key=lambda info: info.schema.id))


def read_table(conn: Conn, relation_id: int) -> TableInfo | None:
    """One table by its oid; None if it is gone."""
    with _one_moment(conn):
        rows = _rows(conn, _TABLES + " AND c.oid = %s", [relation_id])
        above = [oid for row in rows for oid in row[12] or ()]
        known = _rows(conn, _TABLES + " AND c.oid = ANY(%s)", [above]) if above else []
        found = _tables(conn, rows, rows + known)
    return found[0] if found else None


def _tables(
    conn: Conn, rows: list[tuple[Any, ...]], known: list[tuple[Any, ...]]
) -> list[TableInfo]:
    oids = [row[0] for row in rows]
    ids = {row[0]: TableId(row[1], row[2], row[3]) for row in known}
    columns: dict[int, list[tuple[Any, ...]]] = {oid: [] for oid in oids}
    indexes: dict[int, list[tuple[Any, ...]]] = {oid: [] for oid in oids}
    for row in _rows(conn, _COLUMNS, [oids]):
        columns[row[0]].append(row[1:])
    for row in _rows(conn, _INDEXES, [oids]):
        indexes[row[0]].append(row[1:])
    strict = conn.info.server_version >= 180000
    return [_table(row, columns[row[0]], indexes[row[0]], ids, strict=strict) for row in rows]


def _table(
    row: tuple[Any, ...],
    columns: list[tuple[Any, ...]],
    indexes: list[tuple[Any, ...]],
    ids: dict[int, TableId],
    *,
    strict: bool,
) -> TableInfo:
    oid, _, _, _, kind, persistence, identity, method, node, pages, tuples, comment, above = row
    names = {number: name for number, name, *_ in columns}
    filled = {name: text for _, name, *_, text in columns if text is not None}

    def named(numbers: list[int]) -> tuple[str, ...]:
        return tuple(names[number] for number in numbers)

    # Of a unique index JDBC names the INCLUDEd columns as well, of a primary key it does not.
    plain = [index for index in indexes if 0 not in index[3]]
    primary = [named(numbers[:count]) for first, _, count, numbers, _ in plain if first]
    identities = [named(numbers[:count]) for _, chosen, count, numbers, _ in plain if chosen]
    key = next(iter(primary or [named(index[3]) for index in plain]), ())
    schema = TableSchema(
        id=ids[oid],
        columns=tuple(
            Column(name, type_id, modifier, nullable, default)
            for _, name, type_id, modifier, nullable, default, _, _ in columns
        ),
        key=key,
        relation_id=oid,
        comment=comment,
    )
    return TableInfo(
        schema=schema,
        kind=kind,
        persistence=persistence,
        identity=identity,
        identity_columns=next(iter(identities), ()) if identity == "i" else (),
        # a deferrable one is a key of the table, but no replica identity
        has_primary_key=any(first and immediate for first, *_, immediate in plain),
        ancestors=tuple(ids[ancestor] for ancestor in above or () if ancestor in ids),
        generated=frozenset(name for _, name, *_, generated, _ in columns if generated),
        access_method=method,
        file_node=node,
        pages=pages,
        rows_estimate=tuples,
        numbers=tuple(names),
        filled=filled,
        strict=strict,
    )


# --- publications ---


@dataclass(frozen=True)
class PublishedTable:
    """A table in a publication. ``columns`` None: all but generated ones (always so before 15),
    those too that it gets after this was read.

    ``entries``: the oids of the rows of pg_publication_rel and pg_publication_namespace by
    which it, or a table it is a partition of, is listed; none under FOR ALL TABLES.
    ``relation`` is its oid: by its name it may be another one a moment later. ``chosen``: its
    columns are a list that somebody wrote.
    """

    table: TableId
    columns: tuple[str, ...] | None
    row_filter: str | None
    entries: tuple[int, ...] = ()
    relation: int = 0
    chosen: bool = False


@dataclass(frozen=True)
class Publication:
    """A publication's flags and content.

    ``version`` is the transaction that wrote its flags, name and owner last; tables come and
    go without it.
    """

    name: str
    all_tables: bool
    insert: bool
    update: bool
    delete: bool
    truncate: bool
    via_root: bool
    tables: tuple[PublishedTable, ...]
    oid: int = 0
    version: int = 0
    owner: int = 0

    @property
    def operations(self) -> tuple[str, ...]:
        """What it publishes, as ``publish`` lists it."""
        names = ("insert", "update", "delete", "truncate")
        return tuple(name for name in names if getattr(self, name))


# Listed itself, or a table it is a partition of; from 15 on by its schema, too.
_LISTED = """
SELECT r.oid::int8 FROM pg_catalog.pg_publication_rel r
WHERE r.prpubid = p.oid AND (r.prrelid = c.oid
      OR r.prrelid IN (SELECT relid FROM pg_catalog.pg_partition_ancestors(c.oid)))
"""
_LISTED_BY_SCHEMA = """
UNION ALL SELECT s.oid::int8 FROM pg_catalog.pg_publication_namespace s
WHERE s.pnpubid = p.oid AND (s.pnnspid = c.relnamespace OR s.pnnspid IN (
      SELECT o.relnamespace FROM pg_catalog.pg_partition_ancestors(c.oid) a
      JOIN pg_catalog.pg_class o ON o.oid = a.relid))
"""
# Whether its columns are a list that somebody chose, not those it happens to have.
_CHOSEN = """EXISTS (SELECT FROM pg_catalog.pg_publication_rel r
    WHERE r.prpubid = p.oid AND r.prrelid = c.oid AND r.prattrs IS NOT NULL)"""
_PUBLISHED = """
SELECT t.*, current_database() AS catalog, c.oid::int8 AS relation,
       ARRAY({listed}) AS entries, {chosen} AS chosen
FROM pg_catalog.pg_publication_tables t
JOIN pg_catalog.pg_publication p ON p.pubname = t.pubname
JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
WHERE t.pubname = %s ORDER BY t.schemaname, t.tablename
"""


def read_publication(conn: Conn, name: str) -> Publication | None:
    """The publication; None if there is none of that name."""
    query = "SELECT *, xmin::text AS version FROM pg_catalog.pg_publication WHERE pubname = %s"
    rows = _dicts(conn, query, [name])
    if not rows:
        return None
    row = rows[0]
    newer = conn.info.server_version >= 150000
    query = _PUBLISHED.format(
        listed=_LISTED + (_LISTED_BY_SCHEMA if newer else ""), chosen=_CHOSEN if newer else "false"
    )
    try:
        content = _dicts(conn, query, [name])
    except psycopg.errors.InternalError_ as error:
        if "cache lookup failed for publication" not in str(error):
            raise
        return read_publication(conn, name)  # dropped between the two statements
    generated = row.get("pubgencols") == "s"  # stored ones: which those are the server knows
    return Publication(
        name=name,
        all_tables=row["puballtables"],
        insert=row["pubinsert"],
        update=row["pubupdate"],
        delete=row["pubdelete"],
        truncate=row["pubtruncate"],
        via_root=row.get("pubviaroot", False),
        tables=tuple(
            PublishedTable(
                TableId(table["catalog"], table["schemaname"], table["tablename"]),
                tuple(table["attnames"]) if table["chosen"] or generated else None,
                table.get("rowfilter"),
                tuple(sorted(table["entries"])),
                table["relation"],
                table["chosen"],
            )
            for table in content
        ),
        oid=row["oid"],
        version=int(row["version"]),
        owner=row["pubowner"],
    )


# --- the server and its slots ---


@dataclass(frozen=True)
class ServerFacts:
    """What the engine must know of a server before it captures from it.

    ``version`` is server_version_num. ``system_id`` is empty where pg_control_system() is
    not ours to call: ask IDENTIFY_SYSTEM then. ``lsn`` is the replayed one in recovery.
    """

    version: int
    system_id: str
    timeline: int
    wal_level: str
    in_recovery: bool
    lsn: int
    database: str
    database_id: int
    encoding: str
    block_size: int

    @property
    def major(self) -> int:
        """15 of 150018."""
        return self.version // 10_000


_FACTS = """
SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
       pg_is_in_recovery(),
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_lsn() END::text,
       d.datname, d.oid::int8, pg_encoding_to_char(d.encoding),
       current_setting('block_size')::int,
       has_function_privilege('pg_control_system()', 'EXECUTE')
       AND has_function_privilege('pg_control_checkpoint()', 'EXECUTE')
FROM pg_catalog.pg_database d WHERE d.datname = current_database()
"""
_CONTROL = """
SELECT s.system_identifier::text, c.timeline_id
FROM pg_control_system() s, pg_control_checkpoint() c
"""


def read_server(conn: Conn) -> ServerFacts:
    """Facts of the server and the connected database."""
    rows = _rows(conn, _FACTS)
    if not rows:
        raise SourceError("the database has no row in pg_database")
    version, wal_level, recovery, lsn, database, oid, encoding, block_size, allowed = rows[0]
    system_id, timeline = _rows(conn, _CONTROL)[0] if allowed else ("", 0)
    return ServerFacts(
        version=version,
        system_id=system_id,
        timeline=timeline,
        wal_level=wal_level,
        in_recovery=recovery,
        lsn=parse_lsn(lsn) or 0,
        database=database,
        database_id=oid,
        encoding=encoding,
        block_size=block_size,
    )


@dataclass(frozen=True)
class SlotRow:
    """A row of pg_replication_slots; None where the server's version has no such column.

    ``elsewhere``: it is of another database than the one that was asked. The server lists it there
    too, and drops it from there; only reading it is refused.
    """

    name: str
    plugin: str | None
    slot_type: str
    database: str | None
    elsewhere: bool
    active_pid: int | None
    restart_lsn: int | None
    confirmed_flush_lsn: int | None
    wal_status: str | None  # 13: reserved, extended, unreserved, lost
    conflicting: bool | None  # 16
    invalidation_reason: str | None  # 17
    synced: bool | None  # 17


_SLOT = """
SELECT s.*, s.restart_lsn::text AS restart, s.confirmed_flush_lsn::text AS confirmed,
       coalesce(s.database <> current_database(), false) AS elsewhere
FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = %s
"""


def read_slot(conn: Conn, name: str) -> SlotRow | None:
    """The slot; None if there is none of that name at the server."""
    rows = _dicts(conn, _SLOT, [name])
    if not rows:
        return None
    row = rows[0]
    return SlotRow(
        name=row["slot_name"],
        plugin=row["plugin"],
        slot_type=row["slot_type"],
        database=row["database"],
        elsewhere=row["elsewhere"],
        active_pid=row["active_pid"],
        restart_lsn=parse_lsn(row["restart"]),
        confirmed_flush_lsn=parse_lsn(row["confirmed"]),
        wal_status=row.get("wal_status"),
        conflicting=row.get("conflicting"),
        invalidation_reason=row.get("invalidation_reason"),
        synced=row.get("synced"),
    )
