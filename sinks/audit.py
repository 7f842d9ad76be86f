"""Audit sink: who changed what, when and why, in rows whose hashes make a chain.

Every change becomes one record, appended and never touched again, unique by (journal,
offset). Each carries the hash of its predecessor: ``cdc audit verify`` finds the first
record that was altered, removed, inserted or moved, and a removed tail when it is given the
last known hash. What is hashed, byte by byte: :mod:`sinks.audit_chain`. Where *who* and *why*
come from: :mod:`sinks.audit_rows` and the helper :mod:`cdc.audit`; without a message they are
NULL, since the WAL holds no user.

Columns: seq, journal, journal_offset, who, why, committed_at (UTC), lsn, txid, table_name,
op (r, c, u, d, t as in events), key, before, after (JSON: what the server sent, decimals as
digits, dates and times in ISO form as :mod:`schemas.semantic` has them; ``before`` depends on
REPLICA IDENTITY, a value that was not sent is the placeholder), changed
(names of the columns that differ, where an update has both images, else NULL), previous_hash,
hash. Messages are no records.

Targets by ``connection.url``: SQLite and PostgreSQL as in the SQL sink, and
``parquet:/folder`` (extra ``parquet``). The position is stored with the records in one
transaction, so delivery is exactly once. One chain has one writer and one journal:
``tasks.max`` is 1. Where a worker has several sources before the chain begins, it needs
``source``; sources that come later leave it where it is.

*A replay* (or any offset moved by hand) goes into a new table, ``<table>_r<epoch>``, with a
chain of its own; what was written before stays as it is, and where it ended is kept, so that
``cdc audit verify`` looks at it too. Another ``audit.table`` begins a new chain at the sink's
offset.

*What is declared sensitive* (``audit.columns.hash``) is stored as ``hmac-sha256:<hex>``: the
HMAC-SHA256 under ``audit.hash.key`` of ``cdc-audit-column LF`` and the value as it would be
stored (a text's UTF-8 bytes, else its JSON), in key, before and after alike. So equal values
stay equal, whatever form the source's configuration gives them in events.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from cdc.api import NOT_KEPT, SinkContext, SinkTask
from cdc.block import Block
from cdc.config import (
    REQUIRED,
    Config,
    ConfigDef,
    Key,
    Kind,
    at_least,
    grouped,
    java_regexes,
    split_regexes,
)
from cdc.errors import CdcError, ConfigError, SinkError, SinkRejected
from cdc.failpoints import hit
from cdc.record import from_offset

if TYPE_CHECKING:
    from sinks.audit_chain import Chain, Record
    from sinks.audit_marks import Marks
    from sinks.audit_rows import Collector, Written
    from sinks.audit_store import Position, Store

log = logging.getLogger(__name__)

RECORDS_PER_INSERT = 2_000


def _one(value: Any) -> str | None:
    return None if value == 1 else "a chain has one writer: leave it at 1"


def _table(value: Any) -> str | None:
    if re.fullmatch(r"[A-Za-z_]\w{0,49}(\.[A-Za-z_]\w{0,49})?", value):
        return None
    return "a name has letters, digits and _, at most 50, maybe a schema before a dot"


def _check(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if values["audit.columns.hash"] and not values["audit.hash.key"]:
        yield (
            "audit.hash.key",
            "audit.columns.hash needs audit.hash.key: without a key hashes can be guessed",
        )


CONFIG = ConfigDef(
    grouped(
        "Audit",
        (
            Key(
                "connection.url",
                default=REQUIRED,
                doc="jdbc:sqlite:…, jdbc:postgresql://…, a URL of SQLAlchemy, or parquet:/folder.",
                importance="HIGH",
            ),
            Key("connection.user", doc="User, unless it stands in the URL.", importance="HIGH"),
            Key("connection.password", Kind.PASSWORD, doc="Its password.", importance="HIGH"),
            Key("audit.table", default="audit", validator=_table, doc="The table of records."),
            Key(
                "audit.hash.key",
                Kind.PASSWORD,
                doc="Key of the chain's hashes (then HMAC-SHA256, else SHA-256) and of hashed"
                " columns.",
                importance="HIGH",
            ),
            Key(
                "audit.columns.hash",
                Kind.LIST,
                doc="Columns stored as keyed hashes: regular expressions of schema.table.column.",
                splitter=split_regexes,
                validator=java_regexes,
                importance="HIGH",
            ),
            Key(
                "audit.transaction.rows",
                Kind.INT,
                default=10_000,
                doc="Rows of a transaction that wait in memory for its message, others in a file.",
                validator=at_least(1),
            ),
            Key(
                "audit.parquet.rows",
                Kind.INT,
                default=500_000,
                doc="Records of one Parquet file.",
                validator=at_least(1),
            ),
            Key(
                "audit.parquet.ms",
                Kind.LONG,
                default=3_600_000,
                doc="A Parquet file is sealed with fewer records once the oldest has waited so"
                " long.",
                validator=at_least(1),
            ),
            Key("tasks.max", Kind.INT, 1, "One: a chain has one writer.", "HIGH", validator=_one),
        ),
    ),
    checks=(_check,),
)


class Interrupted(SinkError):
    """The target let go of us: start again from the stored offset."""

    retriable = True


class AuditSinkTask(SinkTask):
    """Appends records inside one transaction; ``flush`` commits them with the position."""

    wants_messages = True  # they say who made a change
    keeps_offset = True
    one_journal = True  # offsets of two have no common order
    # one order, which a record put again later would not have
    no_redelivery = "its records are a chain in the journal's order"

    def __init__(self, config: Config) -> None:
        self._config = config
        key = config["audit.hash.key"]
        self._key: str | None = key.reveal() if key else None
        self._store: Store | None = None
        self._position: Position
        self._identity: str | None = None  # the journal's that comes with the next commit
        self._collector: Collector
        self._chain: Chain
        self._stored = False  # the position is in the target
        self._floor = 0
        self._marks: Marks | None = None
        self._others = set[str]()  # fingerprints of tables that are not the chain's

    # --- the contract ---

    @classmethod
    def into(cls, config: Config, name: str) -> dict[str, str]:
        """A table, and a chain, beside the first."""
        return {"audit.table": f"{config['audit.table']}_{name}"}

    def start(self, context: SinkContext) -> None:
        """Connect, find the chain's end, and refuse a chain that is another's."""
        from sinks.audit_chain import Chain, Hasher
        from sinks.audit_rows import Collector

        self.stop()
        self._identity = None
        journals = context.extras.get("journals", ())
        if len(journals) > 1:
            raise ConfigError(
                f"a chain has one journal, and there are {', '.join(journals)}",
                key="source",
                remedy="Name one of them, and use one audit sink for each",
            )
        hasher = Hasher(self._key)
        try:
            with self._translated_errors():
                self._open(context.connector, hasher.check)
                self._compare_marks(context)
        except BaseException:
            self.stop()
            raise
        self._chain = Chain(journals[0] if journals else "", hasher, self._position.end)
        self._floor = max(self._position.next_offset or 0, 0)
        folder = context.data_dir if context.data_dir.is_dir() else None
        self._collector = Collector(
            hasher,
            self._config["audit.columns.hash"],
            rows_max=self._config["audit.transaction.rows"],
            folder=folder,
        )

    def stored_offset(self) -> int | None:
        """The offset in the target."""
        return self._position.next_offset

    def stored_identity(self) -> str | None:
        """The journal's that the offset is of, as committed in the target."""
        return self._position.identity

    def adopt(self, identity: str) -> bool:
        """The offsets to come are of this journal."""
        self._identity = identity
        return True

    def witness(self) -> str | None:
        """Where the chains end: what ``cdc audit verify`` compares the target with."""
        return None if self._marks is None else self._marks.text

    def put(self, block: Block) -> None:
        """Append the rows whose author is known; others wait for their transaction's end."""
        rest = from_offset(block, self._floor)
        if rest is not None:
            with self._translated_errors():
                self._check_others(rest)
                self._write(self._collector.take(rest))

    def _check_others(self, block: Block) -> None:
        """Refuse our own records, captured again: each would be audited, without end."""
        own = self._position.table
        for number, schema in enumerate(block.schemas):
            if schema.fingerprint in self._others or schema.table is None:
                continue
            if schema.table.table != own:
                self._others.add(schema.fingerprint)
                continue
            for row, after in enumerate(block.afters):
                if block.schema[row] != number or after is None:
                    continue
                if _is_record_in(self._target, own, orjson.loads(after)):
                    raise ConfigError(
                        f"{schema.table.schema}.{own} is this audit's own table: each of its"
                        " records would be audited",
                        key="topics",
                        remedy="Leave its topic out, here or by the source's table.exclude.list",
                    )
                self._others.add(schema.fingerprint)
                break

    def flush(self, offset: int) -> None:
        """Append what waits, and commit with the offset."""
        with self._translated_errors():
            self._write(self._collector.finish())
            end = self._chain.end
            position = replace(self._position, next_offset=offset, seq=end.seq, hash=end.hash)
            self._commit(position)
        if offset == NOT_KEPT:
            self._floor = 0

    def tick(self) -> None:
        """Seal a Parquet file whose time has come, whether more records come or not."""
        with self._translated_errors():
            self._target.tick(self._position)

    def seek(self, offset: int, epoch: int) -> None:
        """Go on from ``offset`` in a new table; an epoch that is there already changes nothing."""
        from sinks.audit_chain import Chain

        position = self._position
        if self._stored and epoch <= position.epoch:
            return
        with self._translated_errors():
            if self._stored and position.next_offset is not None:
                self._retire()
                position = self._another_table(f"{position.base}_r{epoch}")
            self._commit(replace(position, next_offset=offset, epoch=epoch))
        self._chain = Chain(self._chain.journal, self._chain.hasher, self._position.end)
        self._collector.close()
        self._floor = max(offset, 0)

    def stop(self) -> None:
        """Roll back what was not flushed, and disconnect."""
        store, self._store = self._store, None
        if store is not None:
            self._close(store)

    # --- the store ---

    def _open(self, connector: str, check: str) -> None:
        from sinks.audit_store import ParquetOptions, Position
        from sinks.audit_target import open_store

        config = self._config
        password = config["connection.password"]
        url = config["connection.url"]
        if "://" not in url and not url.startswith(("jdbc:", "parquet:")):
            raise ConfigError(
                "not a URL", key="connection.url", remedy="Write jdbc:sqlite:… or parquet:…"
            )
        self._store = store = open_store(
            url,
            config["connection.user"],
            password.reveal() if password else None,
            parquet=ParquetOptions(config["audit.parquet.rows"], config["audit.parquet.ms"] / 1000),
        )
        store.prepare(connector)
        positions = {position.connector: position for position in store.positions()}
        found = positions.pop(connector, None)
        base = config["audit.table"]
        self._stored = found is not None
        self._position = found or Position(connector, base, base, key_check=check)
        taken = {p.table: p.connector for p in (*positions.values(), *store.retired())}
        if found is None:
            self._take(base, taken)
        elif found.base != base:
            log.info("%s begins a new chain in %s", connector, base)
            self._take(base, taken)
            self._retire()
            fresh = Position(
                connector, base, base, found.next_offset, found.epoch, key_check=check,
                identity=found.identity,
            )  # fmt: skip
            self._commit(fresh)
        self._check(check)
        store.commit()

    def _take(self, table: str, taken: Mapping[str, str]) -> None:
        """Make a new table, or use one that is empty."""
        assert self._store is not None
        if not self._store.has(table):
            self._store.create(table)
        elif table in taken or self._store.last(table).seq:
            owner = taken.get(table, "another connector")
            raise ConfigError(
                f"table {table} holds the chain of {owner}",
                key="audit.table",
                remedy="Choose a name that is free",
            )

    def _check(self, check: str) -> None:
        assert self._store is not None
        position = self._position
        if position.key_check != check:
            raise ConfigError(
                f"the chain in {position.table} was begun with another key, or without one",
                key="audit.hash.key",
                remedy="Give that key, or choose another audit.table to begin a new chain",
            )
        if not self._store.has(position.table):
            self._store.create(position.table)
        end = self._store.last(position.table)
        if end != position.end:
            # Going on is right: the gap stays visible for ever, and nothing more is lost.
            log.error(
                "%s: somebody changed the end of table %s: record %d is the last one written,"
                " record %d the last one there. Run: cdc audit verify",
                position.connector, position.table, position.seq, end.seq,
            )  # fmt: skip

    def _compare_marks(self, context: SinkContext) -> None:
        from sinks.audit_marks import Marks, target_name

        if self._marks is None:
            self._marks = Marks(target_name(self._config["connection.url"]), context.witness)
        position = self._position
        missing = self._marks.begin(self._target, position.table)
        if missing is not None:
            log.error(
                "%s: record %d of table %s, which the target had taken, is not there as it was."
                " Run: cdc audit verify",
                position.connector, missing.seq, position.table,
            )  # fmt: skip
        self._marks.note(position.table, position.end)

    def _retire(self) -> None:
        """Keep where the chain ends that is to be left; one without records leaves nothing."""
        if self._position.seq:
            self._target.retire(self._position)

    def _another_table(self, wanted: str) -> Position:
        """A table that was never there, and the beginning of a chain."""
        from sinks.audit_store import Position

        assert self._store is not None
        name, number = wanted, 1
        left = {position.table for position in self._store.retired()}
        while name in left or self._store.has(name):
            number += 1
            name = f"{wanted}_{number}"
        self._store.create(name)
        old = self._position
        return Position(old.connector, old.base, name, key_check=old.key_check)

    def _write(self, written: Iterable[Written]) -> None:
        table = self._position.table
        records: list[Record] = []
        for entries, author in written:
            some = iter(entries)
            while batch := list(islice(some, RECORDS_PER_INSERT)):
                records += self._chain.link(batch, author)
                if len(records) >= RECORDS_PER_INSERT:
                    self._target.insert(table, records)
                    records = []
        if records:
            self._target.insert(table, records)

    def _commit(self, position: Position) -> None:
        if self._identity is not None:
            position = replace(position, identity=self._identity)
        if position != self._position or not self._stored:
            previous = self._position if self._stored else None
            if not self._target.save(position, previous):
                raise Interrupted(
                    f"another task has moved the position of {position.connector} in the target",
                    remedy="Run each connector once",
                )
        hit("audit.commit.before")
        self._target.commit(position)
        hit("audit.commit.after")
        self._position, self._stored = position, True
        if self._marks is not None:
            self._marks.note(position.table, position.end)

    @property
    def _target(self) -> Store:
        if self._store is None:
            raise Interrupted("the connection to the target was lost")
        return self._store

    # --- errors ---

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """After an error nothing that is open counts: the task starts again."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised again, some under another class
            store, self._store = self._store, None
            translated = self._translated(store, error)
            if store is not None:
                self._close(store)
            raise translated from None

    def _translated(self, store: Store | None, error: Exception) -> Exception:
        if isinstance(error, CdcError):
            return error
        if isinstance(error, OSError):
            return Interrupted(f"the target: {error.strerror}")
        if store is None:
            if type(error).__module__.startswith(("psycopg", "sqlalchemy")):
                return Interrupted(f"no connection to the target: {error}".strip())
            return error
        if not store.is_driver_error(error):
            return error
        said, remedy = store.explain(error)
        if store.is_unavailable(error):
            return Interrupted(f"the target: {said}", remedy=remedy)
        if "Integrity" in said or "UniqueViolation" in said:
            remedy = (
                "Somebody else wrote to it. See cdc audit verify, or choose another audit.table"
            )
        return SinkRejected(f"records of {self._config['audit.table']}: {said}", remedy=remedy)

    def _close(self, store: Store) -> None:
        try:
            store.close()
        except Exception:  # it is gone either way
            log.debug("closing the target failed", exc_info=True)


def _is_record_in(store: Store, table: str, row: Any) -> bool:
    """Whether the store holds that very record."""
    if not isinstance(row, dict) or not isinstance(row.get("seq"), int):
        return False
    found = store.hash_at(table, row["seq"])
    return found is not None and found == row.get("hash")
