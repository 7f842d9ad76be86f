"""SQL sink: a copy of the source's tables in PostgreSQL or SQLite, exactly once.

Keys are those of ``io.confluent.connect.jdbc.JdbcSinkConnector``; Debezium's JDBC sink's
spellings are understood where they mean the same. Columns get the target's native types
(:mod:`sinks.sql_types`). NULL stays NULL: ``replace.null.with.default`` is no option here,
since a copy with defaults for nulls is no copy.

*Whole transactions.* The target commits only where a source transaction ends (rows of a
snapshot may be committed at any place), so that its readers never see half of one. A
transaction is begun here only when its end is in the journal, so that none stays open here while
the source is slow or away: the target may be the source's own server.

*Exactly once.* The journal offset, of each journal that is read, lives in the target's table
``cdc_offsets`` and moves in the same transaction as the rows. Whoever finds it moved by another
task stops. Which source table has become which is kept there too: names that fold into one are
refused after a restart as before.

*A replay* puts the same rows again, under a new epoch: with ``insert.mode=upsert`` they end in
the journal's last state, which is the source's; rows that were deleted since come back and go
again; what a key change did not send comes from the journal (:mod:`cdc.runtime.refill`).
``pk.mode=none`` appends all of them again. ``--into NAME`` fills tables ``…_NAME`` beside these.

*Values the server did not send* (unchanged TOAST) leave their columns as they are.
*Rows that the target refuses* end the task, unless there are dead letters or a log of errors to
report them to: then a batch is halved until the rows that are at fault are alone.

``auto.create`` makes key columns NOT NULL and no others, since a row whose beginning was
not seen may have to be stored without them.

*Its own source* is no target: the table of the journal's own database that an event came from
is refused, as far as system identifier, database and slot tell.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from cdc import failpoints
from cdc.api import PositionMembers, RowReporter, SinkContext, SinkTask, unknown_origin
from cdc.block import Block
from cdc.config import Config
from cdc.errors import SinkError, SinkRejected, SinkUnavailable
from cdc.record import from_offset, whole_rows
from schemas import EventSchema
from sinks.kept import Kept, others_of, others_text
from sinks.sql_config import CONFIG
from sinks.sql_dialect import OFFSETS, Dialect, TableName
from sinks.sql_rows import RowError, Writer
from sinks.sql_tables import TablePlan, Tables, claims_of, claims_text

__all__ = ["CONFIG", "SqlSinkTask"]

log = logging.getLogger(__name__)


class TransactionLost(SinkError):
    """Rows of earlier ``put``s went with the connection: start again from the stored offset."""

    retriable = True


class SqlSinkTask(SinkTask):
    """Applies blocks inside one target transaction, and commits at the source's boundaries."""

    keeps_offset = True
    keeps_rows = True
    whole_transactions = True

    def __init__(self, config: Config) -> None:
        self._config = config
        self._connector = ""
        self._reporter: RowReporter | None = None
        self._origin: Callable[[str], PositionMembers] = unknown_origin
        self._engine: Any = None
        self._pooled: Any = None
        self._connection: Any = None
        self._dialect: Dialect
        self._tables: Tables
        self._writer: Writer
        self._kept = Kept()  # of the journal at work, as committed
        self._row: tuple[Kept, str | None] | None = None  # the target's, with its tables
        self._identity: str | None = None  # the journal's that comes with the next commit
        self._sources: dict[TableName, tuple[str, str]] = {}  # what has become which table
        self._floor = 0  # rows below were in the target when this task began
        self._dirty = False  # rows of an earlier put are in the open transaction
        self._resume: tuple[int, int] | None = None  # a put that failed after an inner commit
        self._failures = 0

    # --- the contract ---

    @classmethod
    def into(cls, config: Config, name: str) -> dict[str, str]:
        """Tables with a suffix beside the first ones."""
        return {"table.name.format": f"{config['table.name.format']}_{name}"}

    def start(self, context: SinkContext) -> None:
        """Connect, and read or create the offsets table."""
        self._connector, self._reporter = context.connector, context.reporter
        self._origin = context.origin
        with self._translated_errors():
            self._connect()
            self._row = self._load_offset()
            if self._row is not None:
                self._sources |= claims_of(self._row[1])
        self._work_on(Kept() if self._row is None else self._row[0])

    def turn_to(self, journal: str, *, unnamed: bool = False) -> bool:
        """Each journal has an offset in the target."""
        self._work_on(self._kept.turned_to(journal, unnamed=unnamed))
        return True

    def _work_on(self, kept: Kept) -> None:
        self._kept, self._identity, self._floor = kept, kept.identity, kept.floor
        self._resume = None

    def stored_offset(self) -> int | None:
        """The offset in the target: what is committed, never more."""
        return self._kept.offset

    def stored_epoch(self) -> int:
        """The newest ``seek``'s, as committed in the target."""
        return self._kept.epoch

    def stored_identity(self) -> str | None:
        """The journal's that the offset is of, as committed in the target."""
        return self._kept.identity

    def adopt(self, identity: str) -> bool:
        """The offsets to come are of this journal."""
        self._identity = identity
        return True

    def put(self, block: Block) -> None:
        """Apply a block; commits on the way only if it ends inside a source transaction."""
        rest: Block | None = block
        if self._resume is not None and block.offsets and block.offsets[0] == self._resume[0]:
            rest = from_offset(block, self._resume[1])
        if rest is not None:
            rest = from_offset(rest, self._floor)
        if rest is None:
            return
        with self._translated_errors():
            if self._connection is None:
                self._reconnect()
            self._apply(rest, block)
        self._resume, self._dirty, self._failures = None, True, 0

    def flush(self, offset: int) -> None:
        """Commit, with the offset in the same transaction."""
        with self._translated_errors():
            if self._connection is None:
                raise TransactionLost("the connection to the target was lost")
            # Unlike put, a flush that fails starts the task again: nothing is skipped by that.
            self._dirty = False
            self._commit(offset)

    def seek(self, offset: int, epoch: int) -> None:
        """Move the offset in the target; an epoch that is there already changes nothing."""
        if self._kept.offset is not None and epoch <= self._kept.epoch:
            return
        with self._translated_errors():
            self._commit(offset, epoch)
        self._floor = max(offset, 0)

    def stop(self) -> None:
        """Roll back what was not flushed, and disconnect."""
        self._disconnect()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    # --- applying ---

    def _apply(self, block: Block, offered: Block) -> None:
        self._dialect.begin(self._connection)
        whole = whole_rows(block)
        if 0 < whole < len(block) and block.offsets:
            # Otherwise a stream whose blocks all end inside of a transaction would never be
            # committed.
            self._writer.write(block.select(range(whole)))
            after = block.offsets[whole]
            self._commit(after)
            self._resume = (offered.offsets[0], after)
            self._dialect.begin(self._connection)
            block = block.select(range(whole, len(block)))
        self._writer.write(block)

    def _plan(self, schema: EventSchema) -> TablePlan | None:
        try:
            return self._tables.plan(schema)
        except Exception as error:
            if self._is_driver_error(error):
                raise RowError(error, f"the table of {schema.destination}") from None
            raise

    def _commit(self, offset: int, epoch: int | None = None) -> None:
        self._dialect.begin(self._connection)
        self._writer.settle()
        epoch = self._kept.epoch if epoch is None else epoch
        kept = replace(self._kept, offset=offset, epoch=epoch, identity=self._identity)
        row = kept, claims_text(self._sources)
        if row != self._row:
            self._write_offset(*row)
        failpoints.hit("sql.commit.before")
        self._connection.commit()
        failpoints.hit("sql.commit.after")
        self._kept, self._row, self._dirty = kept, row, False

    # --- the offset ---

    def _load_offset(self) -> tuple[Kept, str | None] | None:
        """Where the journals stand, and the tables' sources; makes the table."""
        connection, mark = self._connection, self._dialect.placeholder
        self._dialect.begin(connection)
        columns = self._dialect.describe(connection, TableName(None, OFFSETS))
        if columns is None:
            connection.cursor().execute(
                f"CREATE TABLE IF NOT EXISTS {OFFSETS} (connector text NOT NULL PRIMARY KEY,"
                " next_offset bigint NOT NULL, epoch bigint NOT NULL,"
                " updated_at timestamp NOT NULL, identity text, tables text, journal text,"
                " others text)"
            )
        else:  # maybe made by an older version
            for name in sorted({"identity", "tables", "journal", "others"} - columns.keys()):
                added = f"ALTER TABLE {OFFSETS} {self._dialect.add_column} {name} text"
                connection.cursor().execute(added)
        cursor = connection.cursor()
        cursor.execute(
            "SELECT next_offset, epoch, identity, journal, others, tables"
            f" FROM {OFFSETS} WHERE connector = {mark}",
            [self._connector],
        )
        found = cursor.fetchone()
        connection.commit()
        if found is None:
            return None
        offset, epoch, identity, journal, others, tables = found
        return Kept(offset, epoch, identity, journal, others_of(others)), tables

    def _write_offset(self, kept: Kept, tables: str | None) -> None:
        """Only if it is where we left it: two tasks of one connector must not mix."""
        mark, cursor = self._dialect.placeholder, self._connection.cursor()
        values = [
            kept.offset, kept.epoch, kept.identity, kept.journal, others_text(kept.others), tables,
            self._connector,
        ]  # fmt: skip
        if self._row is None:
            cursor.execute(
                f"INSERT INTO {OFFSETS} (next_offset, epoch, identity, journal, others, tables,"
                f" connector, updated_at) VALUES ({', '.join([mark] * 7)}, CURRENT_TIMESTAMP)"
                " ON CONFLICT DO NOTHING",
                values,
            )
        else:
            old = self._row[0]
            cursor.execute(
                f"UPDATE {OFFSETS} SET next_offset = {mark}, epoch = {mark}, identity = {mark},"
                f" journal = {mark}, others = {mark}, tables = {mark},"
                f" updated_at = CURRENT_TIMESTAMP WHERE connector = {mark}"
                f" AND next_offset = {mark} AND epoch = {mark}"
                f" AND coalesce(journal, '') = {mark}",
                [*values, old.offset, old.epoch, old.journal or ""],
            )
        if cursor.rowcount != 1:
            raise TransactionLost(
                f"another task has moved the offset of {self._connector} in the target",
                remedy="Run each connector once",
            )

    # --- the connection ---

    def _connect(self) -> None:
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        from sinks.sql_url import parse_url

        config = self._config
        password = config["connection.password"]
        url = parse_url(
            config["connection.url"],
            config["connection.user"],
            password.reveal() if password else None,
        )
        self._disconnect()
        if self._engine is None:
            self._engine = create_engine(url, poolclass=NullPool)
        self._dialect = _dialect_of(url.get_backend_name())
        try:
            self._pooled = self._engine.raw_connection()
        except Exception as error:
            if not self._is_driver_error(error):
                raise
            cause = getattr(error, "orig", None) or error
            raise self._unavailable(f"no connection to the target: {cause}".strip()) from None
        self._connection = self._pooled.driver_connection
        self._dialect.prepare(self._connection, f"cdc {self._connector}")
        self._tables = Tables(
            self._connection, self._dialect, config, self._sources,
            lambda: self._origin(self._kept.journal or ""),
        )  # fmt: skip
        self._writer = Writer(self._connection, self._dialect, config, self._plan, self._reporter)

    def _reconnect(self) -> None:
        self._connect()
        if self._load_offset() != self._row:
            # The last commit arrived though its answer was lost, or another task is at work.
            raise TransactionLost("the offset in the target is not where this task left it")

    def _disconnect(self) -> None:
        pooled, self._pooled, self._connection = self._pooled, None, None
        self._dirty = False
        if pooled is not None:
            try:
                pooled.invalidate()  # closes it, with or without a server at the other end
            except Exception:  # it is gone either way
                log.debug("closing the connection to the target failed", exc_info=True)

    # --- errors ---

    def _is_driver_error(self, error: Exception) -> bool:
        """A DBAPI error, or SQLAlchemy's wrapper of one."""
        module = getattr(self._engine, "dialect", None)
        dbapi = getattr(module, "loaded_dbapi", None)
        return isinstance(getattr(error, "orig", error), getattr(dbapi, "Error", ()))

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised again, some under another class
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> Exception:
        """Forget the open transaction; the error to raise, without the driver's as its cause.

        The driver's text may hold row values, which must not reach a log.
        """
        dirty = self._dirty
        self._disconnect()
        if isinstance(error, RowError):
            translated = self._translated(error.error, error.where)
        elif self._is_driver_error(error):
            translated = self._translated(error, "the target")
        else:
            return error
        if dirty and isinstance(translated, SinkUnavailable):
            # What was put before is not offered again unless the task starts anew.
            return TransactionLost(translated.problem, remedy=translated.remedy)
        return translated

    def _translated(self, error: Exception, where: str) -> SinkError:
        said, remedy = self._dialect.explain(error)
        if self._dialect.is_unavailable(error):
            return self._unavailable(f"{where}: {said}", remedy)
        return SinkRejected(f"{where} was refused: {said}", remedy=remedy)

    def _unavailable(self, problem: str, remedy: str = "") -> SinkError:
        self._failures += 1
        if self._failures > self._config["max.retries"]:
            self._failures = 0
            return TransactionLost(problem, remedy="max.retries is used up: the task restarts")
        wait_s = self._config["retry.backoff.ms"] / 1000
        return SinkUnavailable(problem, remedy=remedy, retry_after_s=wait_s)


def _dialect_of(backend: str) -> Dialect:
    """The dialect of one of SQLAlchemy's backends."""
    if backend == "sqlite":
        from sinks.sql_sqlite import SqliteDialect

        return SqliteDialect()
    from sinks.sql_postgres import PostgresDialect

    return PostgresDialect()
