"""Admin: preconditions, publication and slot: what must be in place before anything is read.

Everything that is wrong is said before anything is created, with the statement that mends it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc.config import Config
from cdc.errors import SourceError
from cdc.postgres.catalog import (
    Publication,
    ServerFacts,
    SlotRow,
    TableInfo,
    read_publication,
    read_slot,
)
from cdc.postgres.dsn import conninfo
from cdc.postgres.sessions import connect
from cdc.postgres.settings import Settings
from cdc.postgres.targets import Target

log = logging.getLogger(__name__)

Conn = psycopg.Connection[Any]

VERSION_MIN, VERSION_MAX = 12, 18


def check_server(facts: ServerFacts, conn: Conn) -> None:
    """Version, wal_level and privileges. Raises SourceError with the remedy."""
    if facts.major < VERSION_MIN:
        raise SourceError(
            f"PostgreSQL {facts.major} is too old", remedy=f"{VERSION_MIN} or newer is needed"
        )
    if facts.major > VERSION_MAX:
        log.warning("PostgreSQL %d is newer than what this was tested with", facts.major)
    if facts.wal_level != "logical":
        raise SourceError(
            f"wal_level is {facts.wal_level}, so the WAL lacks what logical decoding needs",
            remedy="ALTER SYSTEM SET wal_level = logical, then restart the server "
            "(managed services: rds.logical_replication=1, cloudsql.logical_decoding=on, …)",
        )
    row = conn.execute(
        "SELECT rolreplication OR rolsuper, rolname FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    if row and not row[0] and not _replicates_by_membership(conn):
        raise SourceError(
            f"the role {row[1]} may not replicate", remedy=f'ALTER ROLE "{row[1]}" REPLICATION'
        )


def _replicates_by_membership(conn: Conn) -> bool:
    """Managed services grant replication by membership in a role of theirs."""
    row = conn.execute(
        "SELECT count(*) FROM pg_roles WHERE pg_has_role(current_user, oid, 'member') AND rolname"
        " IN ('rds_superuser', 'rds_replication', 'rdsadmin', 'rdsrepladmin', 'azure_pg_admin',"
        " 'cloudsqlsuperuser')"
    ).fetchone()
    return bool(row and row[0])


def check_free_slot(conn: Conn, name: str) -> None:
    """There must be room for one more slot. Raises SourceError naming the idle ones."""
    row = conn.execute(
        "SELECT current_setting('max_replication_slots')::int, count(*)::int,"
        " coalesce(string_agg(slot_name, ', ') FILTER (WHERE NOT active), 'none')"
        " FROM pg_replication_slots"
    ).fetchone()
    if row and row[1] >= row[0]:
        raise SourceError(
            f"no replication slot is free for {name}: {row[1]} of max_replication_slots={row[0]} "
            f"are in use (inactive: {row[2]})",
            remedy="raise max_replication_slots, or drop a slot nobody reads with "
            "pg_drop_replication_slot()",
        )


def check_readable(conn: Conn, targets: Sequence[Target]) -> None:
    """A snapshot must be able to read every row of its tables. Raises SourceError."""
    rows = conn.execute(
        "SELECT c.oid::int8, has_any_column_privilege(c.oid, 'SELECT'), row_security_active(c.oid)"
        " FROM pg_class c WHERE c.oid = ANY(%s)",
        [[t.info.schema.relation_id for t in targets]],
    ).fetchall()
    denied = {oid for oid, readable, _ in rows if not readable}
    policed = {oid for oid, _, hidden in rows if hidden} - denied
    role = conn.info.user
    if denied:
        names, quoted = _named(targets, denied)
        raise SourceError(
            f"the role {role} may not read {names}",
            remedy=f'GRANT SELECT ON {quoted} TO "{role}", or leave it out with table.exclude.list',
        )
    if policed:
        names, _ = _named(targets, policed)
        raise SourceError(
            f"row-level security would hide rows of {names} from the role {role}",
            remedy=f'ALTER ROLE "{role}" BYPASSRLS, or leave the table out with table.exclude.list',
        )


def _named(targets: Sequence[Target], oids: set[int]) -> tuple[str, str]:
    """Those targets for people, and for a statement."""
    ids = [t.info.schema.id for t in targets if t.info.schema.relation_id in oids]
    return ", ".join(map(str, ids)), ", ".join(f'"{i.schema}"."{i.table}"' for i in ids)


def slot_holder(conn: Conn, slot: SlotRow) -> str:
    """Who reads an active slot: pid, client address, application."""
    row = conn.execute(
        "SELECT coalesce(host(client_addr), 'a Unix socket'), application_name"
        " FROM pg_stat_activity WHERE pid = %s",
        [slot.active_pid],
    ).fetchone()
    where = f" from {row[0]} ({row[1] or 'unnamed'})" if row else ""
    return f"the slot {slot.name} is active for pid {slot.active_pid}{where}"


def ensure_publication(conn: Conn, settings: Settings, tables: Sequence[TableInfo]) -> Publication:
    """The publication, created or altered as ``publication.autocreate.mode`` says (facts §5.6).

    ``tables`` are all of the database. Raises SourceError when it is missing and may not be
    created, or when publishing a table would make the application's updates fail.
    """
    name, mode = settings.publication, settings.autocreate
    found = read_publication(conn, name)
    if found is None:
        if mode == "disabled":
            raise SourceError(
                f"the publication {name} does not exist, and publication.autocreate.mode=disabled",
                remedy=f'CREATE PUBLICATION "{name}" FOR TABLE …',
            )
        _create(conn, settings, tables)
    elif mode == "filtered":
        _alter(conn, settings, found, tables)
    publication = read_publication(conn, name)
    if publication is None:
        raise SourceError(f"the publication {name} was dropped while we started")
    _name_limits(publication, settings)
    return publication


def _create(conn: Conn, settings: Settings, tables: Sequence[TableInfo]) -> None:
    mode = settings.autocreate
    captured = [t for t in tables if settings.tables(t.schema.id)]
    target: sql.Composable = sql.SQL("")
    if mode == "all_tables":
        check_identities([t for t in tables if t.kind == "r"], settings)
        target = sql.SQL(" FOR ALL TABLES")
    elif mode == "filtered":
        chosen = _publishable(captured, settings)
        if not chosen:
            raise SourceError(
                "no table matches the include lists, so there is nothing to publish",
                remedy="check schema.include.list and table.include.list",
            )
        check_identities(chosen, settings)
        target = sql.SQL(" FOR TABLE ") + _names(chosen)
    statement = sql.SQL("CREATE PUBLICATION {}").format(sql.Identifier(settings.publication))
    try:
        conn.execute(statement + target + _options(settings, conn.info.server_version))
    except psycopg.errors.InsufficientPrivilege as error:
        raise SourceError(
            f"the publication {settings.publication} cannot be created: {error}",
            remedy="let a superuser create it, or set publication.autocreate.mode=filtered "
            "and GRANT CREATE ON DATABASE to an owner of the tables",
        ) from None
    except psycopg.errors.ReadOnlySqlTransaction:
        raise SourceError(
            f"the publication {settings.publication} is missing, and this server is a standby",
            remedy="create the publication on the primary",
        ) from None
    log.info("created publication %s (%s)", settings.publication, mode)


def _alter(conn: Conn, settings: Settings, found: Publication, tables: Sequence[TableInfo]) -> None:
    if found.all_tables:
        raise SourceError(
            f"the publication {found.name} is FOR ALL TABLES and cannot be filtered",
            remedy="drop it, choose another publication.name, or use all_tables",
        )
    chosen = _publishable([t for t in tables if settings.tables(t.schema.id)], settings)
    wanted = {t.schema.id for t in chosen}
    present = {t.table for t in found.tables}
    if wanted == present:
        return
    check_identities([t for t in chosen if t.schema.id not in present], settings)
    conn.execute(
        sql.SQL("ALTER PUBLICATION {} SET TABLE ").format(sql.Identifier(found.name))
        + _names(chosen)
    )
    log.info("publication %s now has %d tables", found.name, len(chosen))


def _publishable(tables: Sequence[TableInfo], settings: Settings) -> list[TableInfo]:
    """Unlogged tables cannot be published; of partitioned ones either root or leaves are."""
    kind = "p" if settings.via_root else "r"
    return [
        t
        for t in tables
        if t.persistence == "p" and (t.kind == kind or (t.kind == "r" and t.root is None))
    ]


def _names(tables: Sequence[TableInfo]) -> sql.Composed:
    ids = [t.schema.id for t in tables]
    return sql.SQL(", ").join(sql.Identifier(i.schema, i.table) for i in ids)


def _options(settings: Settings, version: int) -> sql.Composable:
    options = []
    if settings.skipped_set:
        options.append(f"publish = '{settings.published}'")
    if settings.via_root and version >= 130000:
        options.append("publish_via_partition_root = true")
    # the texts are ours, no configuration is quoted into them
    return sql.SQL(f" WITH ({', '.join(options)})") if options else sql.SQL("")


def check_identities(tables: Sequence[TableInfo], settings: Settings) -> None:
    """Publishing a table without a usable replica identity makes UPDATE and DELETE on it fail.

    That would hit the application, not us, so it is refused before it can happen.
    """
    if not {"update", "delete"} & set(settings.published.split(",")) and settings.skipped_set:
        return
    bad = [t.schema.id for t in tables if t.persistence == "p" and not has_identity(t)]
    if bad:
        statements = "; ".join(
            f'ALTER TABLE "{i.schema}"."{i.table}" REPLICA IDENTITY FULL' for i in bad
        )
        raise SourceError(
            f"publishing {', '.join(map(str, bad))} would make the application's UPDATE and "
            "DELETE on it fail: it has no primary key and no replica identity",
            remedy=f"run {statements}; or add a primary key; or leave the table out with "
            "publication.autocreate.mode=filtered and table.exclude.list",
        )


def has_identity(table: TableInfo) -> bool:
    """Whether an update of this table can be published."""
    if table.identity == "f":
        return True
    if table.identity == "i":
        return bool(table.identity_columns)
    return table.identity == "d" and table.has_primary_key


def _name_limits(publication: Publication, settings: Settings) -> None:
    """What this publication leaves out: said, because snapshot and stream must agree."""
    flags = {
        "insert": publication.insert,
        "update": publication.update,
        "delete": publication.delete,
    }
    missing = [name for name, published in flags.items() if not published]
    if missing:
        log.warning(
            "publication %s does not publish %s: the stream lacks them",
            publication.name,
            ", ".join(missing),
        )
    for table in publication.tables:
        if not settings.tables(table.table):
            continue
        if table.row_filter:
            log.warning(
                "publication %s filters rows of %s by %s: the snapshot reads those rows only",
                publication.name, table.table, table.row_filter,
            )  # fmt: skip


def drop(config: Config) -> list[str]:
    """Drop a connector's slot and publication; what was dropped, as sentences.

    Raises SourceError when the slot is in use. What is not there is no error.
    """
    done = []
    with connect(conninfo(config)) as conn:
        slot = read_slot(conn, config["slot.name"])
        if slot is not None and slot.active_pid:
            raise SourceError(slot_holder(conn, slot), remedy="stop its reader first")
        if slot is not None:
            conn.execute("SELECT pg_drop_replication_slot(%s)", [slot.name])
            done.append(f"dropped replication slot {slot.name}")
        if read_publication(conn, config["publication.name"]) is not None:
            name = sql.Identifier(config["publication.name"])
            conn.execute(sql.SQL("DROP PUBLICATION {}").format(name))
            done.append(f"dropped publication {config['publication.name']}")
    return done
