"""Check: would this database be captured as configured? Creates nothing, changes nothing.

Every session is read-only for the server itself. What is judged is in
:mod:`cdc.postgres.judge`, :mod:`cdc.postgres.startup` and :mod:`cdc.postgres.admin`, which
the start asks as well; here all of it is gathered instead of the first refusal raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import psycopg
from psycopg import sql

from cdc.config import Config
from cdc.errors import CdcError, SourceError
from cdc.postgres import judge
from cdc.postgres.admin import publication_statement, publishable
from cdc.postgres.catalog import (
    Publication,
    PublishedTable,
    ServerFacts,
    SlotRow,
    TableInfo,
    read_publication,
    read_server,
    read_slot,
    read_tables,
)
from cdc.postgres.judge import NO_GO, NOTE, WARNING, Finding, Role
from cdc.postgres.limits import of_table, operations
from cdc.postgres.planner import Planner
from cdc.postgres.quoting import quoted, quoted_tables
from cdc.postgres.replication import LogReader
from cdc.postgres.sample import example_of
from cdc.postgres.sessions import connect
from cdc.postgres.settings import Settings, settings_of
from cdc.postgres.slots import slot_holder
from cdc.postgres.startup import Server, Start, decide
from cdc.postgres.survey import (
    IdleSlot,
    Limits,
    NotLogged,
    Stored,
    read_access,
    read_idle_slots,
    read_limits,
    read_not_logged,
    read_role,
    read_room,
    read_service,
    read_stored,
)
from cdc.postgres.targets import Target, check_published, choose_targets
from cdc.postgres.values import plan_column
from cdc.postgres.watch import gb

LIST_MAX: Final = 10


@dataclass(frozen=True)
class TableReport:
    """One captured table, and what its events will hold."""

    table: str
    topic: str
    rows_estimate: int | None
    nbytes: int
    key: list[str]
    replica_identity: str
    before: str
    toasted: list[str]
    columns: list[str]
    left_out: list[str]
    generated: list[str]
    row_filter: str | None
    partition_of: str | None
    example: dict[str, Any] | None


@dataclass
class Report:
    """All of it. ``ok``: nothing forbids to go."""

    server: str
    service: str | None
    role: str
    slot: str
    publication: str
    tables: list[TableReport] = field(default_factory=list)
    not_logged: list[NotLogged] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Go."""
        return not any(finding.level == NO_GO for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"ok": self.ok, **asdict(self)}


def check(config: Config, *, show_values: bool = False) -> Report:
    """Look at everything. Raises ConfigError, or ConnectionLost when there is no connection."""
    settings = settings_of(config, run_id="check")

    def session() -> psycopg.Connection[Any]:
        conn = connect(settings.conninfo)
        conn.execute("SET default_transaction_read_only = on")
        return conn

    planner = Planner(session, settings)
    try:
        return _check(planner, settings, show_values=show_values)
    finally:
        planner.close()


def _check(planner: Planner, settings: Settings, *, show_values: bool) -> Report:
    conn = planner.connection
    facts, role, service = read_server(conn), read_role(conn), read_service(conn)
    slot, publication = read_slot(conn, settings.slot), read_publication(conn, settings.publication)
    standby = ", a standby" if facts.in_recovery else ""
    report = Report(
        server=f"PostgreSQL {facts.major} ({facts.version}), wal_level {facts.wal_level}{standby}",
        service=service.name if service else None,
        role=role.name,
        slot="",
        publication="",
    )
    found = report.findings
    found += judge.server(facts, role, service)
    found += _replication(settings, role)
    if settings.snapshot_mode != "initial_only":
        report.slot = _slot(conn, settings, facts, slot, found)
        found += _limits(read_limits(conn), facts, settings)
        if settings.slot_failover:
            found += judge.failover(facts)
    found += _idle_slots(read_idle_slots(conn), settings)
    tables = read_tables(conn)
    ground = Ground(conn, settings, facts, role, tables)
    report.publication, planned = _publication(ground, publication, found)
    targets = choose_targets(tables, planned, settings)
    _tables(planner, settings, targets, report, show_values=show_values)
    report.not_logged = read_not_logged(conn)
    return report


def attempt(found: list[Finding], subject: str, act: Callable[[], Any]) -> Any:
    """What a start would raise, as a finding; None then."""
    try:
        return act()
    except SourceError as error:
        found.append(Finding(NO_GO, subject, error.problem, error.remedy))
        return None


def _replication(settings: Settings, role: Role) -> list[Finding]:
    """The replication protocol, without a slot: pg_hba.conf and poolers say no here."""
    if not judge.replicates(role):
        return []  # it would be refused, which is said of the role already
    try:
        reader = LogReader(settings.conninfo)
        try:
            reader.identify()
        finally:
            reader.close()
    except CdcError as error:
        problem = error.problem.rstrip(".")
        return [Finding(
            NO_GO, "connection",
            f"an ordinary connection works, one for replication does not: {problem}",
            "connect to the server itself, since a pooler (PgBouncer, RDS Proxy, a provider's"
            " pooled port) does not speak this protocol; and let pg_hba.conf accept"
            f" connections of {role.name} for replication",
        )]  # fmt: skip
    return []


def _slot(
    conn: psycopg.Connection[Any], settings: Settings, facts: ServerFacts, slot: SlotRow | None,
    found: list[Finding],
) -> str:  # fmt: skip
    server = Server(
        facts.system_id, facts.timeline, facts.database_id, facts.lsn, facts.in_recovery
    )
    plan = attempt(
        found, "slot", lambda: decide(settings.snapshot_mode, server, slot, None, settings.slot)
    )
    if slot is not None and slot.active_pid and not slot.elsewhere:
        text = slot_holder(conn, slot)
        found.append(
            Finding(WARNING, "slot", text, "stop that reader, or choose another slot.name")
        )
    if plan is None:
        return f"{settings.slot} cannot be used"
    if plan.start is Start.NEW_SLOT:
        found += judge.free_room(read_room(conn), settings.slot)
        return f"{settings.slot} would be created"
    found.append(Finding(
        NOTE, "slot",
        f"the slot {settings.slot} exists: a connector without a stored position begins at it",
        f"SELECT pg_drop_replication_slot('{settings.slot}') if nobody needs it",
    ))  # fmt: skip
    return f"{settings.slot} exists"


def _idle_slots(slots: Sequence[IdleSlot], settings: Settings) -> Iterable[Finding]:
    """Whoever made them may have lost the folder that knew of them."""
    for slot in [slot for slot in slots if slot.name != settings.slot][:LIST_MAX]:
        yield Finding(
            NOTE, "slots",
            f"nobody reads the slot {slot.name} of the database {slot.database}: it makes the"
            f" server keep {gb(slot.retained)} of WAL",
            f"SELECT pg_drop_replication_slot('{slot.name}') if nobody needs it",
        )  # fmt: skip


def _limits(limits: Limits, facts: ServerFacts, settings: Settings) -> Iterable[Finding]:
    if limits.keep_mb < 0:
        yield Finding(
            NOTE, "max_slot_wal_keep_size",
            "nothing limits the WAL that a stopped source makes the server keep",
            "set max_slot_wal_keep_size to what the disk can spare"
            if facts.major >= 13 else "watch cdc_slot_retained_bytes",
        )  # fmt: skip
    else:
        yield Finding(
            NOTE, "max_slot_wal_keep_size",
            f"a source that is {gb(limits.keep_mb << 20)} of WAL behind loses its slot",
        )  # fmt: skip
    if limits.idle_timeout:
        yield Finding(
            WARNING, "idle_replication_slot_timeout",
            f"a source that is stopped for {limits.idle_timeout} loses its slot",
        )  # fmt: skip
    if limits.standbys and not settings.slot_failover:
        yield Finding(
            NOTE, "failover",
            "a standby that takes over does not have the slot: the source would read all tables"
            " again",
            "set slot.failover=true, and sync_replication_slots=on at the standby"
            if facts.major >= 17 else "PostgreSQL 17 can keep slots through a failover",
        )  # fmt: skip


# --- the publication


@dataclass(frozen=True)
class Ground:
    """Where a publication would be made."""

    conn: psycopg.Connection[Any]
    settings: Settings
    facts: ServerFacts
    role: Role
    tables: Sequence[TableInfo]


def _publication(
    ground: Ground, there: Publication | None, found: list[Finding]
) -> tuple[str, Publication | None]:
    """What would become of it, and it as it would be (None: no stream follows)."""
    settings, tables, version = ground.settings, ground.tables, ground.facts.version
    name = settings.publication
    if settings.snapshot_mode == "initial_only":
        return "not needed", None
    refused: list[Finding] = []
    statement = attempt(
        refused, "publication",
        lambda: publication_statement(settings, there, tables, version, found.extend),
    )  # fmt: skip
    found += refused
    if refused or (statement is None and there is None):
        return f"{name} cannot be used as it is" if there else f"{name} is missing", there
    if statement is not None:
        found += _rights(ground, statement, new=there is None)
        said, planned = statement.as_string(ground.conn), _as_planned(settings, there, tables)
    else:
        assert there is not None
        said, planned = f"{name} exists, with {len(there.tables)} tables", there
    attempt(found, "publication", lambda: check_published(tables, planned, settings))
    found += operations(planned, settings)
    return said, planned


def _rights(ground: Ground, statement: sql.Composed, *, new: bool) -> Iterable[Finding]:
    """What a role needs to create or alter a publication."""
    settings, role = ground.settings, ground.role
    if ground.facts.in_recovery:
        yield Finding(
            NO_GO, "publication",
            f"the publication {settings.publication} is {'missing' if new else 'to be altered'},"
            " and this server is a standby",
            f"run on the primary: {statement.as_string(ground.conn)}",
        )  # fmt: skip
    if role.superuser:
        return
    if settings.autocreate == "all_tables":
        yield Finding(
            NO_GO, "publication", f"{role.name} cannot create a publication FOR ALL TABLES",
            "let a superuser run the statement above; or, if it owns the tables, GRANT CREATE ON"
            f" DATABASE {quoted(settings.database)} TO {quoted(role.name)} and set"
            " publication.autocreate.mode=filtered",
        )  # fmt: skip
        return
    if new and not role.may_create:
        yield Finding(
            NO_GO, "publication", f"{role.name} may not create a publication in this database",
            f"GRANT CREATE ON DATABASE {quoted(settings.database)} TO {quoted(role.name)}, or let"
            " an owner of the tables create it",
        )  # fmt: skip
    ids = {t.schema.relation_id: t.schema.id for t in ground.tables
           if settings.tables(t.schema.id)}  # fmt: skip
    access = read_access(ground.conn, list(ids))
    foreign = [ids[oid] for oid, rights in access.items() if not rights.owned]
    if foreign:
        shown = judge.names(foreign[:LIST_MAX])
        yield Finding(
            NO_GO, shown, f"{role.name} does not own {shown}, so it may not publish them",
            "let their owner run the statement above, then set"
            " publication.autocreate.mode=disabled",
        )  # fmt: skip


def _as_planned(
    settings: Settings, there: Publication | None, tables: Sequence[TableInfo]
) -> Publication:
    """The publication after the statement."""
    everything = settings.autocreate == "all_tables"
    kept = {t.table: t for t in there.tables} if there else {}
    own = [t for t in tables if everything or settings.tables(t.schema.id)]
    listed = [t.schema.id for t in publishable(own, settings)]
    operations = settings.published if settings.skipped_set else "insert,update,delete,truncate"
    listed = [] if settings.autocreate == "no_tables" else listed
    return Publication(
        name=settings.publication,
        all_tables=everything,
        insert="insert" in operations,
        update="update" in operations,
        delete="delete" in operations,
        truncate="truncate" in operations,
        via_root=there.via_root if there else settings.via_root,
        tables=tuple(kept.get(i, PublishedTable(i, None, None)) for i in listed),
    )


# --- tables


def _tables(
    planner: Planner, settings: Settings, targets: Sequence[Target], report: Report, *,
    show_values: bool,
) -> None:  # fmt: skip
    conn, found = planner.connection, report.findings
    oids = [t.info.schema.relation_id for t in targets]
    access, stored = read_access(conn, oids), read_stored(conn, oids)
    ids = [(t.info.schema.id, access[t.info.schema.relation_id]) for t in targets]
    found += judge.readable(ids, report.role)
    if not targets:
        found.append(Finding(
            NO_GO, "tables", "no table would be captured",
            "check schema.include.list, table.include.list and the publication",
        ))  # fmt: skip
    for target in targets:
        rights = access[target.info.schema.relation_id]
        example = None
        if rights.readable and not rights.policed:
            example = attempt(
                found,
                target.name,
                lambda: example_of(planner, settings, target, show_values),  # noqa: B023
            )
        one = _table(planner, settings, target, stored[target.info.schema.relation_id], example)
        report.tables.append(one)
        found += _judge_table(target, one, settings)


def _table(
    planner: Planner, settings: Settings, target: Target, stored: Stored,
    example: dict[str, Any] | None,
) -> TableReport:  # fmt: skip
    info = target.info
    wanted = [info.schema.column(n) for n in target.columns if settings.columns(target.as_table, n)]
    left_out = [c for c in wanted if plan_column(c, planner.types, settings.values) is None]
    return TableReport(
        table=target.name,
        topic=settings.naming.data(target.as_table),
        rows_estimate=info.rows_estimate if stored.counted else None,
        nbytes=stored.nbytes,
        key=target.key(settings),
        replica_identity=_identity(info),
        before=before_of(info),
        toasted=[n for n in stored.toasted if n in {c.name for c in wanted}],
        columns=[c.name for c in wanted if c not in left_out],
        left_out=[c.name for c in left_out],
        generated=sorted(info.generated),
        row_filter=target.row_filter,
        partition_of=str(info.ancestors[-1]) if info.ancestors else None,
        example=example,
    )


def _identity(info: TableInfo) -> str:
    names = {"d": "default", "n": "nothing", "f": "full", "i": "index"}
    columns = f" ({', '.join(info.identity_columns)})" if info.identity == "i" else ""
    return names.get(info.identity, info.identity) + columns


def before_of(info: TableInfo) -> str:
    """What ``before`` holds in an update and in a delete."""
    if info.identity == "f":
        return "all columns"
    if info.identity == "i":
        columns = f"the index's columns ({', '.join(info.identity_columns)})"
    elif info.identity == "d" and info.has_primary_key:
        columns = f"the primary key ({', '.join(info.schema.key)})"
    else:
        return "nothing"
    return f"{columns} in a delete; null in an update that does not change it"


def _judge_table(target: Target, one: TableReport, settings: Settings) -> Iterable[Finding]:
    full = f"ALTER TABLE {quoted_tables([target.info.schema.id])} REPLICA IDENTITY FULL"
    yield from judge.old_row(target.info, one.key, target.columns)
    if not one.key:
        yield Finding(
            WARNING, one.table,
            "its events have no key: a sink with pk.mode=record_key refuses them, others append",
            "add a primary key, or name columns in message.key.columns",
        )  # fmt: skip
    if one.toasted and target.info.identity != "f":
        yield Finding(
            NOTE, one.table,
            f"an update that leaves a long value of {', '.join(one.toasted)} as it is sends"
            f" {settings.values.unavailable_value_placeholder} for it",
            full if judge.may_be_full(target.info) else "",
        )  # fmt: skip
    if one.left_out:
        yield Finding(
            WARNING, one.table, f"{', '.join(one.left_out)}: types without a form in events",
            "include.unknown.datatypes=true sends their text as bytes",
        )  # fmt: skip
    if one.generated:
        yield Finding(
            NOTE, one.table, f"generated columns are left out: {', '.join(one.generated)}"
        )
    hidden = set(target.info.schema.column_names) - set(target.columns) - set(one.generated)
    left_out = [c for c in sorted(hidden) if settings.columns(target.as_table, c)]
    yield from of_table(one.table, one.row_filter, left_out)
