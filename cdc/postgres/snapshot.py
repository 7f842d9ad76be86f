"""Snapshot: hands chunks to reader processes and their blocks, in order, to the log.

One snapshot, whoever reads it: an exported snapshot is imported by :class:`SnapshotHolder`,
which stays in its transaction and exports it again, so that readers may come, die and be
replaced while replication already runs on the connection that made it.

What is stored with each block is the :class:`~cdc.postgres.chunks.Progress` that counts its
chunks: after a crash a chunk is either there with its rows or not at all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import psycopg
from psycopg import sql

from cdc.api import Batch, Lane
from cdc.block import TRUNCATE, Block, EncodedBlock, Row, Transaction
from cdc.errors import ConnectionLost, SourceError
from cdc.postgres.chunks import Chunk, Progress
from cdc.postgres.gather import Gatherer, Stored
from cdc.postgres.sessions import connect
from cdc.postgres.snapshot_reader import Job, Piece
from schemas import EventSchema

log = logging.getLogger(__name__)

# Chunks a reader has been given and not answered: one to read, one so that it never waits.
AHEAD = 2
# A reader that dies this often in a row is no accident.
READER_DEATHS_MAX = 5


class ReadersDied(SourceError):
    """Snapshot readers end one after the other before a chunk is read: of memory, or a bug.

    Another start may get through. It does not mend itself, as a server that is away does, so it
    is not waited for without end.
    """

    retriable = True


class SnapshotHolder:
    """Keeps a snapshot importable: a repeatable-read transaction that only exports it.

    ``exported`` None takes a snapshot of its own (no slot: ``initial_only``).
    """

    def __init__(self, conninfo: Mapping[str, Any], exported: str | None) -> None:
        self._connection = connect(conninfo)
        self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if exported is not None:
            statement = sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(exported))
            self._connection.execute(statement)
        row = self._connection.execute(
            "SELECT pg_export_snapshot(), txid_current_snapshot()::text,"
            " (extract(epoch FROM CURRENT_TIMESTAMP) * 1000000)::int8"
        ).fetchone()
        assert row is not None
        self.name: str = row[0]
        self.text: str = row[1]
        self.taken_us: int = row[2]

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """Sees exactly the snapshot."""
        return self._connection

    def check(self) -> None:
        """Raises ConnectionLost when the snapshot is gone."""
        try:
            self._connection.execute("SELECT 1")
        except psycopg.Error as error:
            raise ConnectionLost(f"the snapshot's connection was lost: {error}") from None

    def close(self) -> None:
        """Let the snapshot go."""
        self._connection.close()


@dataclass(slots=True)
class _Reader:
    """One reader process and the chunks it was given, oldest first."""

    process: subprocess.Popen[bytes]
    channel: Connection[Any, Any]
    given: deque[Chunk]

    @classmethod
    def spawn(cls, job: Job) -> _Reader:
        ours, theirs = socket.socketpair()
        # not -m: what is pickled under the name __main__ nobody else can read
        code = "from cdc.postgres.snapshot_reader import main; main({}, {})"
        command = [sys.executable, "-c", code.format(theirs.fileno(), os.getpid())]
        with theirs:
            process = subprocess.Popen(command, pass_fds=(theirs.fileno(),))
        channel: Connection[Any, Any] = Connection(ours.detach())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            channel.send(job)  # else it is dead already, which reading from it shows
        return cls(process, channel, deque())

    def give(self, chunk: Chunk) -> None:
        self.given.append(chunk)
        self.channel.send(chunk)

    def end(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()


class Snapshot:
    """One run over what is left of some tables. Used from the source's thread only.

    ``on_change`` is told of a table that is no longer what the snapshot shows, and why: the
    run goes on without it, and what is left of it stays so.
    """

    def __init__(
        self,
        job: Job,
        holder: SnapshotHolder,
        progress: Progress,
        schemas: Mapping[str, EventSchema],
        readers: int,
        *,
        on_change: Callable[[str, str], None],
        emptied: Sequence[EventSchema] = (),
    ) -> None:
        self._job, self._holder, self._progress = job, holder, progress
        self._schemas, self._emptied = schemas, tuple(emptied)
        self._todo = deque(
            chunk for name, table in progress.tables.items() for chunk in table.remaining(name)
        )
        self._left = dict.fromkeys(progress.tables, 0)
        for chunk in self._todo:
            self._left[chunk.table] += 1
        self._readers_max = max(1, min(readers, len(self._todo)))
        self._readers: list[_Reader] = []
        self._deaths = 0
        self._hold = _LastBlocks()
        self._gatherer = Gatherer()
        self._empty: list[Chunk] = []
        self._closed = False
        self._on_change, self._changed = on_change, set[str]()
        self.rows = 0
        self.chunks_total = len(self._todo)

    def truncates(self) -> Block | None:
        """What goes before the rows: tables whose copies may hold rows of what was before."""
        if not self._emptied:
            return None
        job, now_us = self._job, time.time_ns() // 1000
        transaction = Transaction(job.xid, job.lsn, job.lsn, job.commit_us, 0)
        rows: list[Row] = [
            (TRUNCATE, index, 0, job.lsn, 0, None, None, None)
            for index in range(len(self._emptied))
        ]
        return Block.build(rows, self._emptied, (transaction,), now_us)

    def channels(self) -> list[Connection[Any, Any]]:
        """What to wait on for the next piece."""
        return [reader.channel for reader in self._readers]

    def poll(self) -> list[Batch]:
        """The batches that are ready; never waits. The last one closes the snapshot lane."""
        if self._closed:
            return []
        self._keep_readers_busy()
        ready: list[tuple[list[Chunk], EncodedBlock]] = []
        for reader in list(self._readers):
            ready += self._collect(reader)
        if not self._todo and not any(r.given for r in self._readers):
            ready += self._hold.finish()
            self._closed = True
        return self._batches(ready)

    @property
    def closed(self) -> bool:
        """All is read and handed over."""
        return self._closed

    def close(self) -> None:
        """End the readers and the snapshot."""
        for reader in self._readers:
            reader.end()
        self._readers = []
        self._holder.close()

    def _keep_readers_busy(self) -> None:
        while self._todo and len(self._readers) < self._readers_max:
            self._readers.append(_Reader.spawn(self._job))
        for reader in self._readers:
            while self._todo and len(reader.given) < AHEAD:
                try:
                    reader.give(self._todo.popleft())
                except (BrokenPipeError, ConnectionResetError):
                    return  # its death is dealt with when it is read from

    def _collect(self, reader: _Reader) -> list[tuple[list[Chunk], EncodedBlock]]:
        out: list[tuple[list[Chunk], EncodedBlock]] = []
        try:
            while reader.channel.poll():
                piece: Piece = reader.channel.recv()
                if piece.error is not None:
                    raise piece.error
                self._deaths = 0
                chunk = reader.given.popleft()
                if piece.changed or chunk.table in self._changed:
                    out += self._leave_out(chunk.table, piece.changed)
                else:
                    out += self._take(chunk, piece)
        except (EOFError, OSError):  # OSError: it died in the middle of a piece
            self._bury(reader)
        return out

    def _bury(self, reader: _Reader) -> None:
        """A reader died: its chunks are read again by another one, under the same snapshot."""
        reader.end()
        self._readers.remove(reader)
        self._deaths += 1
        log.warning("a snapshot reader died (exit %s)", reader.process.returncode)
        if self._deaths > READER_DEATHS_MAX:
            raise ReadersDied(
                f"{self._deaths} snapshot readers died in a row (exit {reader.process.returncode})",
                remedy="the log has what they said; without a word (exit -9) the system ended them,"
                " for want of memory as a rule: lower snapshot.chunk.rows or snapshot.max.threads",
            )
        self._holder.check()
        given = [chunk for chunk in reader.given if chunk.table not in self._changed]
        self._todo.extendleft(reversed(given))

    def _leave_out(self, table: str, why: str) -> list[tuple[list[Chunk], EncodedBlock]]:
        """What was read of it already is free to go; the rest is not read."""
        if table in self._changed:
            return []
        self._changed.add(table)
        self._todo = deque(chunk for chunk in self._todo if chunk.table != table)
        self._on_change(table, why)
        return self._hold.left_out(table)

    def _take(self, chunk: Chunk, piece: Piece) -> list[tuple[list[Chunk], EncodedBlock]]:
        if piece.after:
            self._todo.appendleft(chunk.following(piece.after))
            chunk = replace(chunk, more=True)
            self._left[chunk.table] += 1
            self.chunks_total += 1
        self._left[chunk.table] -= 1
        self.rows += piece.rows
        last = self._left[chunk.table] == 0
        if not piece.rows:
            self._empty.append(chunk)
            return self._hold.table_ended(chunk.table) if last else []
        schema = self._schemas[chunk.table]
        block = EncodedBlock(
            piece.rows, piece.header, piece.body, piece.crc, piece.filter, (schema,),
            self._job.lsn, self._job.lsn, self._job.lsn, self._job.commit_us,
        )  # fmt: skip
        return self._hold.put(chunk, block, last=last)

    def _batches(self, ready: Sequence[tuple[list[Chunk], EncodedBlock]]) -> list[Batch]:
        out = []
        for chunks, block in self._gathered(ready):
            self._store([*chunks, *self._take_empty()])
            out.append(Batch(Lane.SNAPSHOT, self._progress.to_dict(), block))
        if self._closed:
            self._store(self._take_empty())
            position = self._progress.to_dict()
            if out:
                out[-1] = replace(out[-1], position=position, close=True)
            else:
                out.append(Batch(Lane.SNAPSHOT, position, close=True))
        return out

    def _gathered(self, ready: Sequence[tuple[list[Chunk], EncodedBlock]]) -> Iterator[Stored]:
        for chunks, block in ready:
            hold = all(self._progress.tables[chunk.table].is_all(chunk) for chunk in chunks)
            yield from self._gatherer.put(chunks, block, hold=hold)
        yield from self._gatherer.flush() if self._closed else self._gatherer.due()

    def _take_empty(self) -> list[Chunk]:
        empty, self._empty = self._empty, []
        return empty

    def _store(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            self._progress.tables[chunk.table].store(chunk)


class _LastBlocks:
    """Holds back what may turn out to be a table's or the snapshot's last rows.

    ``source.snapshot`` marks first and last rows of a collection and of the whole (facts
    §1.5); that a row was the last is known only when no other follows.
    """

    def __init__(self) -> None:
        self._tables: dict[str, tuple[Chunk, EncodedBlock]] = {}
        self._newest: tuple[Chunk, EncodedBlock, dict[int, str]] | None = None
        self._seen: set[str] = set()

    def put(
        self, chunk: Chunk, block: EncodedBlock, *, last: bool
    ) -> list[tuple[list[Chunk], EncodedBlock]]:
        """Take a chunk's rows; ``last``: its table has no more chunks. Gives what is free."""
        out = []
        if not self._seen:
            block = block.remark({0: "first"})
        elif chunk.table not in self._seen:
            block = block.remark({0: "first_in_data_collection"})
        first_ever = not self._seen
        self._seen.add(chunk.table)
        before = self._tables.pop(chunk.table, None)
        if before is not None:
            out.append(([before[0]], before[1]))
        if last:
            out += self._newest_out((chunk, block), first_ever=first_ever)
        else:
            self._tables[chunk.table] = (chunk, block)
        return out

    def table_ended(self, table: str) -> list[tuple[list[Chunk], EncodedBlock]]:
        """The table's last chunk was empty: what was held of it ends the table."""
        held = self._tables.pop(table, None)
        return self._newest_out(held, first_ever=False) if held else []

    def left_out(self, table: str) -> list[tuple[list[Chunk], EncodedBlock]]:
        """No more comes of the table, and what was held of it does not end it."""
        held = self._tables.pop(table, None)
        return [([held[0]], held[1])] if held else []

    def finish(self) -> list[tuple[list[Chunk], EncodedBlock]]:
        """Nothing follows: what is still held ends the snapshot."""
        out = [([chunk], block) for chunk, block in self._tables.values()]
        if self._newest is not None:
            chunk, block, _ = self._newest
            out.append(([chunk], block.remark({block.rows - 1: "last"})))
        self._tables, self._newest = {}, None
        return out

    def _newest_out(
        self, held: tuple[Chunk, EncodedBlock], *, first_ever: bool
    ) -> list[tuple[list[Chunk], EncodedBlock]]:
        """A table's end replaces the newest one held, which is thereby not the last of all."""
        chunk, block = held
        out = []
        if self._newest is not None:
            before, earlier, mark = self._newest
            out.append(([before], earlier.remark(mark)))
        # precedence: last > first > last_in_data_collection > first_in_data_collection
        only_first = first_ever and block.rows == 1
        mark = {} if only_first else {block.rows - 1: "last_in_data_collection"}
        self._newest = (chunk, block, mark)
        return out


def end_quietly(closeable: Any) -> None:
    """Close what may be half open already."""
    with contextlib.suppress(Exception):
        closeable.close()
