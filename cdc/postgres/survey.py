"""Survey: what a check, or a start, must know of roles, room and tables. It only reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from cdc.postgres.judge import SERVICES, Access, Role, Room, Service, service_of

Conn = psycopg.Connection[Any]

_ROLE = """
SELECT rolname, rolsuper, rolreplication,
       has_database_privilege(current_database(), 'CREATE'),
       ARRAY(SELECT m.rolname::text FROM pg_roles m WHERE pg_has_role(r.oid, m.oid, 'MEMBER'))
FROM pg_roles r WHERE rolname = current_user
"""
_ROOM = """
SELECT current_setting('max_replication_slots')::int, count(*)::int,
       coalesce(array_agg(slot_name::text ORDER BY slot_name) FILTER (WHERE NOT active), '{}'),
       current_setting('max_wal_senders')::int,
       (SELECT count(*)::int FROM pg_stat_get_wal_senders())
FROM pg_replication_slots
"""
_ACCESS = """
SELECT c.oid::int8, has_any_column_privilege(c.oid, 'SELECT'), row_security_active(c.oid),
       pg_has_role(c.relowner, 'USAGE'), has_schema_privilege(c.relnamespace, 'USAGE')
FROM pg_class c WHERE c.oid = ANY(%s)
"""


def read_role(conn: Conn) -> Role:
    """The role that is connected."""
    row = conn.execute(_ROLE).fetchone()
    assert row is not None
    name, superuser, replication, create, members = row
    return Role(name, superuser, replication, frozenset(members) - {name}, create)


def read_room(conn: Conn) -> Room:
    """Slots and senders in use."""
    row = conn.execute(_ROOM).fetchone()
    assert row is not None
    slots_max, slots, idle, senders_max, senders = row
    return Room(slots_max, slots, tuple(idle), senders_max, senders)


def read_access(conn: Conn, oids: Sequence[int]) -> dict[int, Access]:
    """The role's rights by table."""
    rows = conn.execute(_ACCESS, [list(oids)]).fetchall()
    return {oid: Access(*rights) for oid, *rights in rows}


def read_service(conn: Conn) -> Service | None:
    """The managed service this is, by its roles and settings."""
    roles = conn.execute(
        "SELECT rolname::text FROM pg_roles WHERE rolname = ANY(%s)", [[s.role for s in SERVICES]]
    ).fetchall()
    settings = [s.setting for s in SERVICES]
    found = conn.execute(
        "SELECT name FROM unnest(%s::text[]) name WHERE current_setting(name, true) IS NOT NULL",
        [settings],
    ).fetchall()
    return service_of((name for (name,) in roles), (name for (name,) in found))


@dataclass(frozen=True, slots=True)
class Stored:
    """How one table is stored: bytes with TOAST, and columns that may be TOASTed.

    ``counted``: the server has an estimate of its rows; not so right after a load.
    """

    nbytes: int
    counted: bool
    toasted: tuple[str, ...]


_STORED = """
SELECT c.oid::int8, pg_table_size(c.oid)::int8,
       c.reltuples > 0 OR c.reltuples = 0 AND (c.relpages > 0 OR pg_relation_size(c.oid) = 0),
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               AND a.attstorage IN ('x', 'e') ORDER BY a.attnum)
FROM pg_class c WHERE c.oid = ANY(%s)
"""


def read_stored(conn: Conn, oids: Sequence[int]) -> dict[int, Stored]:
    """Size and TOAST by table."""
    rows = conn.execute(_STORED, [list(oids)]).fetchall()
    return {oid: Stored(nbytes, counted, tuple(columns)) for oid, nbytes, counted, columns in rows}


# What is never in the log, by pg_class.relkind or otherwise.
_NOT_LOGGED = """
SELECT CASE WHEN c.relpersistence = 'u' THEN 'unlogged tables'
            WHEN c.relkind = 'S' THEN 'sequences'
            WHEN c.relkind = 'm' THEN 'materialized views'
            ELSE 'foreign tables' END AS what,
       count(*)::int, (array_agg(n.nspname || '.' || c.relname ORDER BY 1))[1:10]
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (c.relkind IN ('S', 'm', 'f') OR (c.relpersistence = 'u' AND c.relkind IN ('r', 'p')))
  AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%%'
GROUP BY 1 ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class NotLogged:
    """Things of one kind that no event ever tells of; the first ten by name.

    ``count``: None of what is not there to be counted.
    """

    what: str
    count: int | None
    names: tuple[str, ...] = field(default=())


def read_not_logged(conn: Conn) -> list[NotLogged]:
    """What the database has beside tables in the log, and DDL, which any may have."""
    rows = conn.execute(_NOT_LOGGED.replace("%%", "%").encode()).fetchall()
    found = [NotLogged(what, count, tuple(names)) for what, count, names in rows]
    row = conn.execute("SELECT count(*)::int FROM pg_largeobject_metadata").fetchone()
    if row and row[0]:
        found.append(NotLogged("large objects", row[0]))
    return [*found, NotLogged("DDL", None)]


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings that decide how long a stopped reader can stay away."""

    keep_mb: int  # max_slot_wal_keep_size; -1: none
    idle_timeout: str | None
    standbys: int


def read_limits(conn: Conn) -> Limits:
    """Of the server."""
    row = conn.execute(
        "SELECT coalesce((SELECT setting::int8 FROM pg_settings"
        "  WHERE name = 'max_slot_wal_keep_size'), -1),"
        " nullif(current_setting('idle_replication_slot_timeout', true), '0'),"
        " (SELECT count(*)::int FROM pg_replication_slots WHERE slot_type = 'physical')"
    ).fetchone()
    assert row is not None
    return Limits(*row)


@dataclass(frozen=True, slots=True)
class IdleSlot:
    """A slot of this plug-in that nobody reads; ``retained`` are the bytes of WAL kept for it."""

    name: str
    database: str
    retained: int


_IDLE = """
SELECT s.slot_name::text, s.database::text,
       greatest(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                ELSE pg_current_wal_lsn() END, s.restart_lsn), 0)::int8 AS retained
FROM pg_replication_slots s
WHERE s.plugin = 'pgoutput' AND NOT s.active AND NOT s.temporary AND s.restart_lsn IS NOT NULL
      AND coalesce(to_jsonb(s) ->> 'synced', 'false') = 'false'
ORDER BY retained DESC, 1
"""


def read_idle_slots(conn: Conn) -> list[IdleSlot]:
    """Of the whole server, those that keep most first."""
    return [IdleSlot(*row) for row in conn.execute(_IDLE).fetchall()]
