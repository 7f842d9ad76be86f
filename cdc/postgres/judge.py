"""Judge: what is wrong with a server, a role or a table, and the statement that mends it. Pure.

The start (:mod:`cdc.postgres.admin`) and ``cdc check`` ask the same functions: the start
raises the first finding that forbids going on, the check shows them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cdc.errors import SourceError
from cdc.postgres.catalog import ServerFacts, TableInfo
from cdc.postgres.quoting import quoted, quoted_tables
from schemas import TableId

VERSION_MIN, VERSION_MAX = 12, 18
STANDBY_MIN: Final = 16  # logical decoding on a standby
FAILOVER_MIN: Final = 17  # slots that standbys keep copies of
NO_GO, WARNING, NOTE = "no-go", "warning", "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know. ``subject`` is what it is about, a table's name for one."""

    level: str
    subject: str
    text: str
    remedy: str = ""


def refuse(findings: Iterable[Finding]) -> list[Finding]:
    """Raise the first that forbids going on as a SourceError; the others."""
    found = list(findings)
    for finding in found:
        if finding.level == NO_GO:
            raise SourceError(finding.text, remedy=finding.remedy)
    return found


# --- the server and the role


@dataclass(frozen=True, slots=True)
class Role:
    """Who connects. ``member_of`` are the roles it has the rights of."""

    name: str
    superuser: bool = False
    replication: bool = False
    member_of: frozenset[str] = frozenset()
    may_create: bool = False  # CREATE on the database


@dataclass(frozen=True, slots=True)
class Service:
    """A managed service and its ways. ``wal_level``, ``replication``: what to do there."""

    name: str
    role: str
    setting: str
    wal_level: str
    replication: str
    # Membership in one of these replicates without the attribute.
    replicators: tuple[str, ...] = ()


SERVICES: Final = (
    Service(
        "Amazon RDS or Aurora", "rds_superuser", "rds.logical_replication",
        "set rds.logical_replication=1 in the parameter group, then reboot",
        "GRANT rds_replication TO {role}",
        ("rds_superuser", "rds_replication", "rdsadmin", "rdsrepladmin"),
    ),
    Service(
        "AlloyDB", "alloydbsuperuser", "alloydb.logical_decoding",
        "set the flag alloydb.logical_decoding=on, then restart",
        "ALTER ROLE {role} REPLICATION, as a member of alloydbsuperuser",
    ),
    Service(
        "Google Cloud SQL", "cloudsqlsuperuser", "cloudsql.logical_decoding",
        "set the flag cloudsql.logical_decoding=on, then restart",
        "ALTER ROLE {role} REPLICATION, as a member of cloudsqlsuperuser",
        ("cloudsqlsuperuser",),
    ),
    Service(
        "Azure Database for PostgreSQL", "azure_pg_admin", "azure.extensions",
        "set the server parameter wal_level=logical, then restart",
        "ALTER ROLE {role} REPLICATION, as the administrator",
        ("azure_pg_admin",),
    ),
    Service(
        "Neon", "neon_superuser", "neon.tenant_id",
        "enable logical replication in the project's settings",
        "create the role in the console: it may replicate",
        ("neon_superuser",),
    ),
)  # fmt: skip
_REPLICATORS: Final = frozenset(name for s in SERVICES for name in s.replicators)


def service_of(roles: Iterable[str], settings: Iterable[str]) -> Service | None:
    """The managed service that has such roles or settings."""
    roles, settings = set(roles), set(settings)
    return next((s for s in SERVICES if s.role in roles or s.setting in settings), None)


def replicates(role: Role) -> bool:
    """Whether it may, by itself or by a membership as managed services grant it."""
    return role.replication or role.superuser or bool(role.member_of & _REPLICATORS)


def server(facts: ServerFacts, role: Role, service: Service | None = None) -> Iterator[Finding]:
    """Version, wal_level, the right to replicate, and what a standby can do."""
    if facts.major < VERSION_MIN:
        yield Finding(
            NO_GO, "version", f"PostgreSQL {facts.major} is too old",
            f"{VERSION_MIN} or newer is needed",
        )  # fmt: skip
    if facts.major > VERSION_MAX:
        text = f"PostgreSQL {facts.major} is newer than what this was tested with"
        yield Finding(WARNING, "version", text)
    if facts.wal_level != "logical":
        remedy = (
            "ALTER SYSTEM SET wal_level = logical, then restart the server "
            "(managed services: rds.logical_replication=1, cloudsql.logical_decoding=on, …)"
        )
        yield Finding(
            NO_GO, "wal_level",
            f"wal_level is {facts.wal_level}, so the WAL lacks what logical decoding needs",
            f"{service.name}: {service.wal_level}" if service else remedy,
        )  # fmt: skip
    if not replicates(role):
        remedy = service.replication if service else "ALTER ROLE {role} REPLICATION"
        yield Finding(
            NO_GO,
            "role",
            f"the role {role.name} may not replicate",
            remedy.format(role=quoted(role.name)),
        )
    if facts.in_recovery:
        yield from _standby(facts)


def _standby(facts: ServerFacts) -> Iterator[Finding]:
    if facts.major < STANDBY_MIN:
        yield Finding(
            NO_GO, "standby",
            f"this server is a standby, and PostgreSQL {facts.major} decodes on a primary only",
            f"connect to the primary, or use PostgreSQL {STANDBY_MIN}",
        )  # fmt: skip
        return
    yield Finding(
        NOTE, "standby",
        "this server is a standby: it can be captured; the publication is created on the"
        " primary, and a new slot waits until the primary's next checkpoint or SELECT"
        " pg_log_standby_snapshot() there",
    )  # fmt: skip


def failover(facts: ServerFacts) -> Iterator[Finding]:
    """What ``slot.failover`` needs; where that is not so a new slot is made without it."""
    if facts.major < FAILOVER_MIN or facts.in_recovery:
        yield Finding(
            WARNING, "slot.failover",
            f"slot.failover needs PostgreSQL {FAILOVER_MIN} and a primary: not set",
            f"let the source read the primary, PostgreSQL {FAILOVER_MIN} or newer",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Room:
    """Slots and senders. ``idle`` are the slots that nobody reads."""

    slots_max: int
    slots: int
    idle: tuple[str, ...]
    senders_max: int = 0
    senders: int = 0


def free_slot(room: Room, name: str) -> Iterator[Finding]:
    """There must be room for one more slot."""
    if room.slots >= room.slots_max:
        yield Finding(
            NO_GO, "slots",
            f"no replication slot is free for {name}: {room.slots} of"
            f" max_replication_slots={room.slots_max} are in use"
            f" (inactive: {', '.join(room.idle) or 'none'})",
            "raise max_replication_slots, or drop a slot nobody reads with "
            "pg_drop_replication_slot()",
        )  # fmt: skip


def free_room(room: Room, name: str) -> Iterator[Finding]:
    """As free_slot, for senders too, and for the second slot that is needed now and then."""
    found = list(free_slot(room, name))
    yield from found
    if not found and room.slots_max - room.slots < 2:
        yield Finding(
            WARNING, "slots",
            "only one replication slot is free; a second one is needed for a moment when tables"
            " are added or a snapshot is resumed",
            "raise max_replication_slots",
        )  # fmt: skip
    if room.senders >= room.senders_max:
        yield Finding(
            NO_GO, "senders",
            f"no WAL sender is free: {room.senders} of max_wal_senders={room.senders_max} run",
            "raise max_wal_senders",
        )  # fmt: skip


# --- tables


@dataclass(frozen=True, slots=True)
class Access:
    """What the role may do with one table."""

    granted: bool  # SELECT on it
    policed: bool  # row-level security hides rows from it
    owned: bool = True
    reachable: bool = True  # USAGE on its schema, without which no other right is of use

    @property
    def readable(self) -> bool:
        """Whether a SELECT is answered, with whatever rows."""
        return self.granted and self.reachable


def readable(ids: Sequence[tuple[TableId, Access]], role: str) -> Iterator[Finding]:
    """A snapshot must be able to read every row of its tables."""
    denied = [i for i, access in ids if not access.readable]
    policed = [i for i, access in ids if access.readable and access.policed]
    if denied:
        yield Finding(
            NO_GO, names(denied), f"the role {role} may not read {names(denied)}",
            f"{'; '.join(_grants(ids, role))}; or leave it out with table.exclude.list",
        )  # fmt: skip
    if policed:
        yield Finding(
            NO_GO, names(policed),
            f"row-level security would hide rows of {names(policed)} from the role {role}",
            f"ALTER ROLE {quoted(role)} BYPASSRLS, or leave the table out with table.exclude.list",
        )  # fmt: skip


def _grants(ids: Sequence[tuple[TableId, Access]], role: str) -> Iterator[str]:
    schemas = {i.schema for i, access in ids if not access.reachable}
    tables = [i for i, access in ids if not access.granted]
    if schemas:
        yield f"GRANT USAGE ON SCHEMA {', '.join(map(quoted, sorted(schemas)))} TO {quoted(role)}"
    if tables:
        yield f"GRANT SELECT ON {quoted_tables(tables)} TO {quoted(role)}"


def identities(tables: Sequence[TableInfo], publication: str) -> Iterator[Finding]:
    """Publishing a table without a usable replica identity makes UPDATE and DELETE on it fail."""
    logged = [t for t in tables if t.persistence == "p"]
    bad = [t for t in logged if not has_identity(t)]
    hidden = [t for t in logged if unpublished(t)]
    for found, why in (
        (bad, "it has no primary key and no replica identity"),
        (hidden, "its replica identity has generated columns, which are not published"),
    ):
        if found:
            ids = [t.schema.id for t in found]
            yield Finding(
                NO_GO, names(ids),
                f"publishing {names(ids)} would make the application's UPDATE and "
                f"DELETE on it fail: {why}",
                f"{_mending(found, publication)}; or leave the table out with "
                "publication.autocreate.mode=filtered and table.exclude.list",
            )  # fmt: skip


def _mending(tables: Sequence[TableInfo], publication: str) -> str:
    """What gives tables an identity that can be published."""
    statements, keyless, made = [], False, []
    for table in tables:
        own = quoted_tables([table.schema.id])
        if may_be_full(table):
            statements.append(f"ALTER TABLE {own} REPLICA IDENTITY FULL")
        elif table.has_primary_key and set(table.schema.key).isdisjoint(table.generated):
            statements.append(f"ALTER TABLE {own} REPLICA IDENTITY DEFAULT")
        elif table.has_primary_key:
            made.append(table.schema.id)
        keyless |= may_be_full(table) or not table.has_primary_key
    parts = [f"run {'; '.join(statements)}"] if statements else []
    if keyless:
        parts.append("add a primary key")
    if made:
        parts.append(
            "make the publication by hand, of all that is captured: CREATE PUBLICATION "
            f"{quoted(publication)} FOR TABLE {quoted_tables(made, only=True)}"
            " WITH (publish_generated_columns = stored)"
        )
    return "; or ".join(parts)


def has_identity(table: TableInfo) -> bool:
    """Whether an update of this table can be published."""
    if table.identity == "f":
        return True
    if table.identity == "i":
        return bool(table.identity_columns)
    return table.identity == "d" and table.has_primary_key


def may_be_full(table: TableInfo) -> bool:
    """Whether REPLICA IDENTITY FULL lets updates through."""
    return not (table.strict and table.generated)


def unpublished(table: TableInfo, published: Iterable[str] = ()) -> list[str]:
    """Generated columns of its identity that are not ``published``: no update gets through."""
    if not table.strict or not has_identity(table):
        return []
    sent = {"f": table.schema.column_names, "i": table.identity_columns}
    names = sent.get(table.identity, table.schema.key)
    return [n for n in names if n in table.generated and n not in set(published)]


def old_row(
    table: TableInfo, key: Iterable[str], published: Iterable[str] = ()
) -> Iterator[Finding]:
    """Whether the old row that the server sends has the record's ``key``.

    ``published`` are the columns that it sends.
    """
    subject, statement = str(table.schema.id), f"ALTER TABLE {quoted_tables([table.schema.id])}"
    if not has_identity(table) or unpublished(table, published):
        yield Finding(
            WARNING, subject,
            "it has no usable replica identity: once published, UPDATE and DELETE on it fail",
            f"{statement} REPLICA IDENTITY FULL; or add a primary key" if may_be_full(table)
            else f"{statement} REPLICA IDENTITY DEFAULT, with a primary key of other columns than "
            "generated ones",
        )  # fmt: skip
        return
    if table.identity == "f":
        return
    chosen = table.identity == "i"
    sent = table.identity_columns if chosen else table.schema.key
    missing = [name for name in key if name not in sent]
    if missing:
        default = chosen and table.has_primary_key and set(key) <= set(table.schema.key)
        yield Finding(
            WARNING, subject,
            f"of a deleted row the server sends {', '.join(sent)} only (its replica identity), and"
            f" the key of the events is {', '.join(key)}: what is deleted, or gets another key,"
            " stays in copies",
            f"{statement} REPLICA IDENTITY {'DEFAULT' if default else 'FULL'}"
            if default or may_be_full(table)
            else f"name {', '.join(sent)} in message.key.columns",
        )  # fmt: skip


def names(ids: Iterable[TableId]) -> str:
    """For people."""
    return ", ".join(map(str, ids))
