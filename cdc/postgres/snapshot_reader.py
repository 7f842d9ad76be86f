"""The snapshot reader process: chunks in, encoded blocks out, under one imported snapshot.

Started by :mod:`cdc.postgres.snapshot`, never by people. A process of its own because
rendering rows holds the GIL: two readers use two cores. Everything comes over the inherited
socket: first the :class:`Job`, then chunks until the socket ends; for each chunk one
:class:`Piece` goes back, an error inside it.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import psycopg
from psycopg import sql

from cdc.block import READ, Block, Row, Transaction
from cdc.errors import CdcError, ConnectionLost, RecordError, SourceError
from cdc.parent import die_with
from cdc.postgres.chunks import Chunk, chunk_condition
from cdc.postgres.plan import RelationPlan, unescape
from cdc.postgres.quoting import quoted
from cdc.postgres.replication import RAW_ENCODING, session_error
from cdc.postgres.values import LOAD_ERRORS


@dataclass(frozen=True)
class TableJob:
    """How one table is read. ``key``: by ranges of it, each of at most ``limit`` rows."""

    relation_id: int
    schema: str
    name: str
    columns: tuple[str, ...]
    as_schema: str
    as_name: str
    row_filter: str | None
    key: tuple[str, ...] = ()
    limit: int = 0


@dataclass(frozen=True)
class Job:
    """What a reader needs once. ``conninfo`` travels here, never in argv."""

    conninfo: Mapping[str, Any]
    config: Mapping[str, str]
    run_id: str
    snapshot: str
    tables: Mapping[str, TableJob]
    lsn: int
    xid: int
    commit_us: int
    tid_ranges: bool
    block_size: int


@dataclass(frozen=True)
class Piece:
    """One chunk read. ``rows`` may be 0; then header and body are empty.

    ``after`` is the key of the last row of a range behind which there may be more.
    """

    key: tuple[str, str, int]
    rows: int
    header: bytes = b""
    body: bytes = b""
    crc: int = 0
    filter: bytes = b""
    error: CdcError | None = None
    after: tuple[str, ...] = ()


class ChunkReader:
    """Reads chunks over one connection that imported the snapshot."""

    def __init__(self, job: Job) -> None:
        from cdc.postgres.config import CONFIG
        from cdc.postgres.planner import Planner
        from cdc.postgres.sessions import connect
        from cdc.postgres.settings import settings_of

        self.job = job
        # the connector's own keys are in there too, and were checked by who started it
        config = CONFIG.parse({**job.config, "config.strict": "false"})
        self._settings = settings_of(config, run_id=job.run_id)
        self._connection = connect(job.conninfo)
        self._planner = Planner(lambda: connect(job.conninfo), self._settings, names=False)
        self._plans: dict[str, RelationPlan] = {}
        self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        statement = sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(job.snapshot))
        self._connection.execute(statement)

    def plan(self, table: str) -> RelationPlan:
        """The table's plan, made at its first chunk."""
        if table not in self._plans:
            from cdc.postgres.catalog import read_table
            from schemas import TableId

            job = self.job.tables[table]
            self._hold(table, job)
            info = read_table(self._connection, job.relation_id)
            if info is None:
                raise changed(table)
            as_table = TableId(self._settings.database, job.as_schema, job.as_name)
            self._plans[table] = self._planner.plan_table(info, job.columns, as_table)
        return self._plans[table]

    def _hold(self, table: str, job: TableJob) -> None:
        """Lock the table, up to the end; it must be the snapshot's, and its columns too.

        ALTER TABLE and TRUNCATE give it a new file in which an older snapshot sees nothing, and
        by a rename another table or column may have the name, which is the one that would be
        read. What the catalog shows is as of the snapshot; what the functions say, and the
        description of a query's columns, is as of now.
        """
        name = sql.Identifier(job.schema, job.name)
        columns = sql.SQL(", ").join(map(sql.Identifier, job.columns))
        query = sql.SQL("SELECT {} FROM ONLY {} WHERE false").format(columns, name)
        found = self._connection.execute(query).pgresult
        row = self._connection.execute(
            "SELECT relfilenode::int8 = pg_relation_filenode(oid)::int8 AND oid = to_regclass(%s)"
            " FROM pg_class WHERE oid = %s",
            [name.as_string(self._connection), job.relation_id],
        ).fetchone()
        if row is None or not row[0] or found is None:
            raise changed(table)
        for number, (attribute, type_) in enumerate(self._of_snapshot(job)):
            if found.ftablecol(number) != attribute or type_ not in (0, found.ftype(number)):
                raise changed(table)

    def _of_snapshot(self, job: TableJob) -> list[tuple[int, int]]:
        """Number and type of each column; no type of domains, of which queries show the base."""
        rows = self._connection.execute(
            "SELECT attname, attnum, CASE typtype WHEN 'd' THEN 0 ELSE atttypid::int8 END"
            " FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid"
            " WHERE attrelid = %s AND NOT attisdropped",
            [job.relation_id],
        ).fetchall()
        known = {name: (attribute, type_) for name, attribute, type_ in rows}
        return [known.get(name, (0, 0)) for name in job.columns]

    def read(self, chunk: Chunk) -> tuple[Block, tuple[str, ...]]:
        """The chunk's rows as one block; the key of the last, where others may follow."""
        job, plan = self.job, self.plan(chunk.table)
        line = plan.line
        rows: list[Row] = []
        values: list[bytes] = []
        with self._raw_bytes(), self._connection.cursor().copy(self._query(chunk)) as copy:
            for data in copy:
                values = bytes(data)[:-1].split(b"\t")
                try:
                    key, row = line(values)
                except LOAD_ERRORS:
                    key, row = recovered(plan, values)
                rows.append((READ, 0, 0, job.lsn, 0, key, None, row))
        transaction = Transaction(job.xid, job.lsn, job.lsn, job.commit_us, 0)
        block = Block.build(
            rows,
            (plan.schema,),
            (transaction,),
            time.time_ns() // 1000,
            marker="true",
            context=self._settings.context,
        )
        return block, _last_key(job.tables[chunk.table], len(rows), values)

    @contextlib.contextmanager
    def _raw_bytes(self) -> Iterator[None]:
        """See RAW_ENCODING; only while rows are read, since psycopg gives names as bytes then."""
        raw = self._connection.info.parameter_status("server_encoding") == RAW_ENCODING
        if raw:
            self._connection.execute("SET client_encoding TO 'SQL_ASCII'")
        try:
            yield
        finally:
            if raw:
                # in a transaction that failed nothing can be set: the error goes up, and we end
                with contextlib.suppress(psycopg.Error):
                    self._connection.execute("SET client_encoding TO 'UTF8'")

    def piece(self, chunk: Chunk) -> Piece:
        """The chunk, encoded; an error inside the piece instead of raised."""
        try:
            block, after = self.read(chunk)
        except psycopg.Error as error:
            return Piece(
                chunk.key, 0, error=_server_error(chunk.table, error, self.job.tables[chunk.table])
            )
        except CdcError as error:
            return Piece(chunk.key, 0, error=error)
        if not len(block):
            return Piece(chunk.key, 0)
        e = block.encode()
        return Piece(chunk.key, e.rows, e.header, e.body, e.crc, e.filter, after=after)

    def close(self) -> None:
        """Close both connections."""
        self._planner.close()
        self._connection.close()

    def _query(self, chunk: Chunk) -> sql.Composed:
        job = self.job.tables[chunk.table]
        where, rest = _of_keys(chunk, job) if job.key else (self._of_pages(chunk), sql.SQL(""))
        if job.row_filter:
            # the publication's own expression
            where = sql.SQL("({}) AND ({})").format(where, sql.SQL(job.row_filter))
        return sql.SQL("COPY (SELECT {} FROM ONLY {} WHERE {}{}) TO STDOUT").format(
            sql.SQL(", ").join(map(sql.Identifier, job.columns)),
            sql.Identifier(job.schema, job.name),
            where,
            rest,
        )

    def _of_pages(self, chunk: Chunk) -> sql.Composable:
        # made of numbers
        return sql.SQL(
            chunk_condition(chunk, tid_ranges=self.job.tid_ranges, block_size=self.job.block_size)
        )


def _of_keys(chunk: Chunk, job: TableJob) -> tuple[sql.Composable, sql.Composable]:
    """The condition that finds a range of keys, and what goes behind it."""
    names = sql.SQL(", ").join(map(sql.Identifier, job.key))
    where: sql.Composable = sql.SQL("true")
    if chunk.after:
        values = sql.SQL(", ").join(map(sql.Literal, chunk.after))
        where = sql.SQL("({}) > ({})").format(names, values)
    rest = sql.SQL(" ORDER BY {} LIMIT {}").format(names, sql.Literal(job.limit))
    return where, rest


def _last_key(job: TableJob, rows: int, values: Sequence[bytes]) -> tuple[str, ...]:
    """The key in a COPY line, where its table is read by that and there may be more rows."""
    if not job.key or rows < job.limit:
        return ()
    return tuple(unescape(values[job.columns.index(name)]).decode() for name in job.key)


def recovered(plan: RelationPlan, values: Sequence[bytes]) -> tuple[bytes | None, bytes]:
    """A COPY line again, by loaders that deal with what a schema cannot hold."""
    try:
        return plan.safe.line(values)
    except RecordError as error:
        raise RecordError(f"{plan.schema.table}: {error.problem}", remedy=error.remedy) from None


def changed(
    table: str, text: str = "it was altered, renamed, truncated or dropped"
) -> ConnectionLost:
    """The table under our hands is not the snapshot's any more: a later snapshot is needed."""
    return ConnectionLost(f"{table}: {text} while it was being read: it is read again")


def _server_error(table: str, error: psycopg.Error, job: TableJob | None = None) -> CdcError:
    text = " ".join(str(error).split())
    if error.sqlstate == "42501" and job is not None:
        if "row-level security" in text:
            return SourceError(
                f"{table}: {text}",
                remedy="its policies would hide rows: grant BYPASSRLS, or exclude the table",
            )
        return SourceError(
            f"{table}: {text}", remedy=f"GRANT SELECT ON {quoted(job.schema, job.name)}"
        )
    if error.sqlstate in ("42P01", "42703"):  # undefined_table, undefined_column
        return changed(table, text)
    return session_error(error, table)


def main(fd: int, parent_pid: int) -> None:
    """Serve chunks until the parent's end of the socket closes."""
    die_with(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when we end
    channel: Connection[Any, Any] = Connection(fd)
    try:
        reader = ChunkReader(channel.recv())
    except (psycopg.Error, CdcError) as error:
        failure = error if isinstance(error, CdcError) else _server_error("snapshot", error)
        channel.send(Piece(("", "", 0), 0, error=failure))
        return
    try:
        while True:
            channel.send(reader.piece(channel.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent has what it wants, or is gone
    finally:
        reader.close()
