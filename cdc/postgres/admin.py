"""Admin: preconditions, publication and slot: what must be in place before anything is read.

Everything that is wrong is said before anything is created, with the statement that mends it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from cdc import metrics as names
from cdc.config import Config
from cdc.errors import SlotBusy, SourceError
from cdc.postgres import judge, watch
from cdc.postgres.catalog import (
    Publication,
    PublishedTable,
    ServerFacts,
    SlotRow,
    TableInfo,
    read_publication,
    read_slot,
)
from cdc.postgres.config import DEFAULT_SLOT
from cdc.postgres.dsn import conninfo
from cdc.postgres.judge import refuse
from cdc.postgres.limits import limits
from cdc.postgres.quoting import quoted
from cdc.postgres.sessions import connect
from cdc.postgres.settings import Settings
from cdc.postgres.slots import wait_for_slot
from cdc.postgres.survey import read_access, read_role, read_room
from cdc.postgres.targets import Target, check_partitioned, heaps_of
from schemas import TableId

log = logging.getLogger(__name__)

Conn = psycopg.Connection[Any]
Tell = Callable[[Iterable[judge.Finding]], object]

LOOK_TIMEOUT_S = 5
DROP_WAIT_S = 10.0
# The comment on a publication of ours. It is at the server, so it outlives our own files.
MADE = "created by cdc"


def check_server(facts: ServerFacts, conn: Conn) -> None:
    """Version, wal_level and privileges. Raises SourceError with the remedy."""
    for finding in refuse(judge.server(facts, read_role(conn))):
        if finding.level == judge.WARNING:
            log.warning("%s", finding.text)


def check_free_slot(conn: Conn, name: str) -> None:
    """There must be room for one more slot. Raises SourceError naming the idle ones."""
    refuse(judge.free_slot(read_room(conn), name))


def check_readable(conn: Conn, targets: Sequence[Target]) -> None:
    """A snapshot must be able to read every row of its tables. Raises SourceError."""
    ids = [t.info.schema for t in targets]
    access = read_access(conn, [schema.relation_id for schema in ids])
    found = [(s.id, access[s.relation_id]) for s in ids if s.relation_id in access]
    refuse(judge.readable(found, conn.info.user))


def ensure_publication(conn: Conn, settings: Settings, tables: Sequence[TableInfo]) -> Publication:
    """The publication, created or altered as ``publication.autocreate.mode`` says (facts §5.6).

    ``tables`` are all of the database. Raises SourceError when it is missing and may not be
    created, or when publishing a table would make the application's updates fail.
    """
    name = settings.publication
    found = read_publication(conn, name)
    statement = publication_statement(settings, found, tables, conn.info.server_version)
    if statement is not None:
        _execute(conn, settings, statement, new=found is None)
    publication = read_publication(conn, name)
    if publication is None:
        raise SourceError(f"the publication {name} was dropped while we started")
    for limit in limits(publication, tables, settings):
        log.warning("%s: %s", limit.subject, limit.text)
    return publication


def publication_statement(
    settings: Settings, found: Publication | None, tables: Sequence[TableInfo], version: int,
    tell: Tell = refuse,
) -> sql.Composed | None:  # fmt: skip
    """What creates or alters the publication; None when it is as it should be. Pure.

    Raises SourceError when it may not be created. ``tell`` gets what harm publishing would do,
    which is raised too by default.
    """
    name, mode = settings.publication, settings.autocreate
    if found is None:
        if mode == "disabled":
            raise SourceError(
                f"the publication {name} does not exist, and publication.autocreate.mode=disabled",
                remedy=f"CREATE PUBLICATION {quoted(name)} FOR TABLE …",
            )
        if mode != "no_tables":
            check_partitioned(tables, settings, via_root=settings.via_root)
        return _creation(settings, tables, version, tell)
    return _alteration(settings, found, tables, tell) if mode == "filtered" else None


def _creation(
    settings: Settings, tables: Sequence[TableInfo], version: int, tell: Tell
) -> sql.Composed:
    mode = settings.autocreate
    target: sql.Composable = sql.SQL("")
    if mode == "all_tables":
        tell(identities([t for t in tables if t.kind == "r"], settings))
        target = sql.SQL(" FOR ALL TABLES")
    elif mode == "filtered":
        chosen = _chosen(settings, tables)
        tell(identities(heaps_of(_ids(chosen), tables), settings))
        target = sql.SQL(" FOR TABLE ") + _names(chosen)
    statement = sql.SQL("CREATE PUBLICATION {}").format(sql.Identifier(settings.publication))
    return statement + target + _options(settings, version)


def _alteration(
    settings: Settings, found: Publication, tables: Sequence[TableInfo], tell: Tell
) -> sql.Composed | None:
    if found.all_tables:
        raise SourceError(
            f"the publication {found.name} is FOR ALL TABLES and cannot be filtered",
            remedy="drop it, choose another publication.name, or use all_tables",
        )
    chosen = _chosen(settings, tables)
    present = {t.table for t in found.tables}
    if _ids(chosen) == present:
        return None
    tell(identities(heaps_of(_ids(chosen) - present, tables), settings))
    name = sql.Identifier(found.name)
    kept = {t.table: t for t in found.tables}
    return sql.SQL("ALTER PUBLICATION {} SET TABLE ").format(name) + _names(chosen, kept)


def _execute(conn: Conn, settings: Settings, statement: sql.Composed, *, new: bool) -> None:
    name = settings.publication
    try:
        with conn.transaction():
            conn.execute(statement)
            if new:
                comment = sql.SQL("COMMENT ON PUBLICATION {} IS {}")
                conn.execute(comment.format(sql.Identifier(name), sql.Literal(MADE)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise SourceError(
            f"the publication {name} cannot be {'created' if new else 'altered'}: {error}",
            remedy="let a superuser create it, or set publication.autocreate.mode=filtered "
            "and GRANT CREATE ON DATABASE to an owner of the tables",
        ) from None
    except psycopg.errors.ReadOnlySqlTransaction:
        raise SourceError(
            f"the publication {name} is {'missing' if new else 'to be altered'}, and this server "
            "is a standby",
            remedy=f"run on the primary: {statement.as_string(conn)}",
        ) from None
    log.info("%s", statement.as_string(conn))


def _chosen(settings: Settings, tables: Sequence[TableInfo]) -> list[TableInfo]:
    """What ``filtered`` publishes. Raises SourceError where that is nothing."""
    chosen = publishable([t for t in tables if settings.tables(t.schema.id)], settings)
    if not chosen:
        raise SourceError(
            "no table matches the include lists, so there is nothing to publish",
            remedy="check schema.include.list and table.include.list; where the tables are made"
            " later, publication.autocreate.mode=all_tables takes them then",
        )
    return chosen


def _ids(tables: Iterable[TableInfo]) -> set[TableId]:
    return {t.schema.id for t in tables}


def publishable(tables: Sequence[TableInfo], settings: Settings) -> list[TableInfo]:
    """Unlogged tables cannot be published; of partitioned ones the topmost or the leaves are."""
    logged = [t for t in tables if t.persistence == "p"]
    if not settings.via_root:
        return [t for t in logged if t.kind == "r"]
    ids = _ids(logged)
    return [t for t in logged if ids.isdisjoint(t.ancestors)]


def _names(
    tables: Sequence[TableInfo], kept: Mapping[TableId, PublishedTable] | None = None
) -> sql.Composed:
    """Each without those that inherit from it: they were not asked for, or have their turn.

    What is published already keeps its column list and row filter: they hide something.
    """
    names = []
    for own in (t.schema.id for t in tables):
        name = sql.SQL("ONLY ") + sql.Identifier(own.schema, own.table)
        entry = (kept or {}).get(own)
        if entry is not None and entry.chosen and entry.columns:
            columns = sql.SQL(", ").join(map(sql.Identifier, entry.columns))
            name += sql.SQL(" ({})").format(columns)
        if entry is not None and entry.row_filter:
            # the publication's own expression
            name += sql.SQL(" WHERE ({})").format(sql.SQL(entry.row_filter))
        names.append(name)
    return sql.SQL(", ").join(names)


def _options(settings: Settings, version: int) -> sql.Composable:
    options = []
    if settings.skipped_set:
        options.append(f"publish = '{settings.published}'")
    if settings.via_root and version >= 130000:
        options.append("publish_via_partition_root = true")
    # the texts are ours, no configuration is quoted into them
    return sql.SQL(f" WITH ({', '.join(options)})") if options else sql.SQL("")


def identities(tables: Sequence[TableInfo], settings: Settings) -> Iterable[judge.Finding]:
    """Publishing a table without a usable replica identity makes UPDATE and DELETE on it fail.

    That would hit the application, not us, so it is refused before it can happen.
    """
    if not {"update", "delete"} & set(settings.published.split(",")) and settings.skipped_set:
        return ()
    return judge.identities(tables, settings.publication)


def warnings(values: Mapping[str, float], *, running: bool) -> list[str]:
    """What a source's metrics say of its slot, with the remedy."""
    return watch.warnings(values, running=running)


@contextmanager
def _as_source_error(what: str) -> Iterator[None]:
    """For commands: what the server or the connection refused, without psycopg's classes."""
    try:
        yield
    except psycopg.Error as error:
        raise SourceError(f"{what}: {str(error).strip()}") from error


def idle_metrics(config: Config) -> dict[str, float]:
    """Of a source that does not run: what its slot makes the server keep; empty without one.

    Raises ConfigError or SourceError when the server cannot be asked.
    """
    info = {**conninfo(config), "connect_timeout": LOOK_TIMEOUT_S}
    with _as_source_error("the server cannot be asked for the slot"), connect(info) as conn:
        slot = read_slot(conn, config["slot.name"])
        if slot is None or slot.elsewhere:
            return {}
        seen = watch.look(conn, slot.name)
    behind = max(0, seen.lsn - (slot.confirmed_flush_lsn or seen.lsn))
    return {**seen.metrics(), names.SOURCE_LAG_BYTES: float(behind)}


def slot_name(config: Mapping[str, str]) -> str:
    """The slot of a connector's configuration as it was given, placeholders and all."""
    return config.get("slot.name") or DEFAULT_SLOT


def leftover(config: Config) -> str | None:
    """What the slot of a deleted connector does; None: it is gone; empty: it is read.

    Raises ConfigError or SourceError when the server cannot be asked.
    """
    info = {**conninfo(config), "connect_timeout": LOOK_TIMEOUT_S}
    with _as_source_error("the server cannot be asked for the slot"), connect(info) as conn:
        slot = read_slot(conn, config["slot.name"])
        if slot is None or slot.elsewhere:
            return None
        retained = watch.look(conn, slot.name).retained_bytes
    if slot.active_pid:
        return ""
    kept = "some" if retained is None else watch.gb(retained)
    return f"its slot {slot.name} still lives and makes the server keep {kept} of WAL"


def drop(config: Config, others: Mapping[str, Config | None] | None = None) -> list[str]:
    """Drop a connector's slot and publication; what was done and what is left, as sentences.

    ``others``: the other sources that are kept, by name; None for a configuration that cannot
    be read. What one of them names too is left, and so is a publication that we did not make.
    Where ``others`` is not given, the names are known to be nobody else's. Raises SourceError
    when the slot is in use. What is not there is no error.
    """
    asked = conninfo(config)
    with _as_source_error("not everything could be dropped"), connect(asked) as conn:
        try:  # a reader that was stopped just now is gone in a moment
            slot = wait_for_slot(lambda: conn, config["slot.name"], DROP_WAIT_S)
        except SlotBusy as error:
            raise SourceError(error.problem, remedy="stop its reader first") from None
        neighbours = Neighbours(conn, config, others)
        done = [] if slot is None else [_drop_slot(conn, slot, neighbours)]
        if read_publication(conn, config["publication.name"]) is not None:
            done.append(_drop_publication(conn, config["publication.name"], neighbours))
    return done


class Neighbours:
    """Who else may need a connector's slot or publication."""

    def __init__(
        self, conn: Conn, config: Config, others: Mapping[str, Config | None] | None
    ) -> None:
        self._config, self._others = config, others
        rows = conn.execute(
            "SELECT slot_name::text FROM pg_replication_slots"
            " WHERE database = current_database() AND plugin = 'pgoutput' AND NOT temporary"
        )
        self._slots = {name for (name,) in rows} - {config["slot.name"]}

    def readers(self, key: str) -> list[str]:
        """Those whose ``key`` names the same thing at this server, or may do so."""
        found = []
        for name, other in sorted((self._others or {}).items()):
            if other is None:
                found.append(f"{name} (its configuration cannot be read)")
            elif other[key] == self._config[key] and self._is_here(other):
                found.append(name)
        return found

    def unknown_slots(self) -> list[str]:
        """Slots of this database that belong to no source that is kept here."""
        if self._others is None:
            return []
        known = {other["slot.name"] for other in self._others.values() if other is not None}
        return sorted(self._slots - known)

    def _is_here(self, other: Config) -> bool:
        """A server goes by several names; what a source has there tells too."""
        place = ("database.hostname", "database.port", "database.dbname")
        same = all(other[key] == self._config[key] for key in place)
        return same or other["slot.name"] in self._slots


def _drop_slot(conn: Conn, slot: SlotRow, neighbours: Neighbours) -> str:
    name = slot.name
    if slot.elsewhere:
        return f"replication slot {name} is left: it is of database {slot.database}"
    readers = neighbours.readers("slot.name")
    if readers:
        return f"replication slot {name} is left: it is also that of {', '.join(readers)}"
    conn.execute("SELECT pg_drop_replication_slot(%s)", [name])
    return f"dropped replication slot {name}"


def _drop_publication(conn: Conn, name: str, neighbours: Neighbours) -> str:
    statement = sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(name))
    row = conn.execute(
        "SELECT obj_description(oid, 'pg_publication'), pg_is_in_recovery()"
        " FROM pg_publication WHERE pubname = %s",
        [name],
    ).fetchone()
    comment, standby = row or (None, False)
    readers, slots = neighbours.readers("publication.name"), neighbours.unknown_slots()
    if readers:
        return f"publication {name} is left: it is also that of {', '.join(readers)}"
    if comment != MADE:
        why = "cdc did not create it"
    elif slots:
        why = f"whoever reads the slots {', '.join(slots)} may need it"
    elif standby:
        why = "this server is a standby, it is dropped on the primary"
    else:
        conn.execute(statement)
        return f"dropped publication {name}"
    text = statement.as_string(conn)
    return f"publication {name} is left: {why}. If nobody needs it: {text}"
