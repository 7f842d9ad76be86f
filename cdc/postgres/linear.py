"""LinearPostgresTask: the same source as one sequence, for readers without a journal.

A journal takes a snapshot and the stream beside it at the same time; a file cannot. So here
the stream is not read while a snapshot is: the slot keeps the WAL meanwhile, and status
updates keep the connection. What a crash leaves of a snapshot is gone on with at a later
LSN, exactly as in :mod:`cdc.postgres.source`.

A *temporary* capture leaves nothing behind: its slot is a temporary one, made on the
connection that streams from it, and a publication made for it is dropped at the end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any

import psycopg
from psycopg import sql

from cdc.api import Batch, LogState
from cdc.config import Config
from cdc.errors import CdcError, ConfigError, LogLost, SourceError
from cdc.lsn import lsn_number, lsn_text, parse_lsn
from cdc.postgres.catalog import SlotRow, read_publication
from cdc.postgres.pgoutput import Frame
from cdc.postgres.replication import ExportedSlot, cut
from cdc.postgres.sessions import connect
from cdc.postgres.source import PostgresSourceTask
from cdc.postgres.startup import StartPlan
from cdc.postgres.taking import first_begin_from

log = logging.getLogger(__name__)

CURRENT = "current"
# How long a lost server is waited for, to drop the publication that was made for us.
DROP_TIMEOUT_S = 10.0
EXISTING_PUBLICATION = (
    "have its owner CREATE PUBLICATION cdc FOR ALL TABLES (or FOR TABLE …), then give "
    "--set publication.name=cdc --set publication.autocreate.mode=disabled"
)


class LinearPostgresTask(PostgresSourceTask):
    """A :class:`cdc.api.SourceTask` whose batches are one sequence, snapshot rows first.

    ``until``: ``current``, an LSN or nothing; ``end_lsn`` is what became of it at the start.
    """

    def __init__(self, config: Config, *, temporary: bool, until: str = "") -> None:
        super().__init__(config)
        self._temporary, self._until = temporary, until
        self.end_lsn: int | None = None
        self._begun = self._streams = self._reached = self._made_publication = False

    @property
    def finished(self) -> bool:
        """Nothing more will come: ``until`` is reached, or there was a snapshot only."""
        parts = (self._taker, self._snapshot, self._next)
        busy = self._pending or any(part is not None for part in parts)
        return self._begun and not busy and (self._reached or not self._streams)

    # --- start ----------------------------------------------------------------------------

    def _start(self, state: LogState) -> None:
        conn = self._planner.connection
        if self._until:
            self.end_lsn = until_lsn(conn, self._until)
        if self._settings.snapshot_mode != "initial_only":
            self._prepare_publication(conn)
        super()._start(state)
        self._begun, self._streams = True, self._decoder is not None

    def _prepare_publication(self, conn: psycopg.Connection[Any]) -> None:
        """May we create it, and how? What is created for a temporary capture is noted."""
        settings = self._settings
        if settings.autocreate == "disabled" or read_publication(conn, settings.publication):
            return
        row = conn.execute(
            "SELECT rolsuper, has_database_privilege(current_database(), 'CREATE'), rolname,"
            " pg_is_in_recovery() FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        superuser, creator, role, standby = row or (False, False, "?", False)
        if standby:
            return  # nobody can create it here, as start() will say
        if not superuser and not creator:
            raise SourceError(
                f"the role {role} may not create publications in {settings.database}",
                remedy=EXISTING_PUBLICATION,
            )
        if self._temporary:
            self._made_publication = True
            # a passing reader had better not touch more tables than it reads, and only
            # superusers may publish all
            lists = settings.tables.tables.include or settings.tables.schemas.include
            chosen = "publication.autocreate.mode" in self._config.raw
            if not chosen and (lists or not superuser):
                self._settings = replace(settings, autocreate="filtered")
                self._coverage.settings = self._settings

    def _begin_first(self, plan: StartPlan, slot: SlotRow | None) -> None:
        if self._temporary and slot is not None:
            raise SourceError(
                f"the replication slot {slot.name} exists already, and a capture without state "
                "makes a temporary one",
                remedy="leave out slot.name; or give --state DIR to continue with that slot",
            )
        super()._begin_first(plan, slot)

    def _drop_invalidated(self, reason: str) -> None:
        """Not here: who made it is not known, and a capture drops nothing but its own."""
        slot = self._settings.slot
        raise LogLost(reason, remedy=f"SELECT pg_drop_replication_slot('{slot}'), then start again")

    def _create_slot(self) -> ExportedSlot:
        if self._temporary:
            return self._stream.create_slot(self._settings.slot, temporary=True)
        return super()._create_slot()

    # --- poll -----------------------------------------------------------------------------

    def _poll(self, timeout_s: float) -> list[Batch]:
        out, self._pending = self._pending, []
        out += self._poll_snapshot()
        if self._snapshot is not None:
            if self._reader is not None and self._decoder is not None:
                self._reader.keep_alive(self._settings.status_interval_s)
            if not out:
                wait(self._snapshot.channels(), timeout_s)
                out += self._poll_snapshot()
        elif self._decoder is not None and not self._reached:
            out += self._poll_stream(0.0 if out else timeout_s)
        return out

    def _poll_stream(self, timeout_s: float) -> list[Batch]:
        self._look_for_tables()
        if self._is_taking(timeout_s):
            return []
        frames, self._held = self._held, []
        frames = frames or self._stream.read(timeout_s, self._settings.batch_rows)
        if self._wanted:
            frames = self._begin_taking(frames)
        if self._next is not None:
            return self._poll_until(self._next[0], frames)
        # a snapshot that is still to be taken shows what lies behind the end too
        taking = self._wanted or self._taker is not None or bool(self._coverage.lost)
        if self.end_lsn is not None and not taking:
            return self._poll_to_end(self.end_lsn, frames)
        return self._decoded(frames)

    def _behind_cut(self, frames: Sequence[Frame]) -> list[Batch]:
        self._held = list(frames)  # behind the snapshot's rows
        return []

    def _poll_to_end(self, lsn: int, frames: Sequence[Frame]) -> list[Batch]:
        """As _decoded, but the first transaction from ``lsn`` on is not taken any more."""
        cut = first_begin_from(frames, lsn)
        out = self._decoded(frames if cut is None else frames[:cut])
        self._reached = cut is not None or (
            not frames and not self._decode.in_transaction and self._stream.server_lsn >= lsn
        )
        if self._reached:
            out.append(self._batch(self._decoded_position(self._position.lsn), None))
        return out

    # --- end ------------------------------------------------------------------------------

    def stop(self) -> None:
        """See :class:`cdc.api.SourceTask`. Drops the publication that was made for us."""
        super().stop()
        if self._made_publication:
            self._made_publication = False
            self._drop_publication()

    def interrupt(self) -> None:
        """Cut the connections, whatever is under way: nobody waits for a confirmation here."""
        self._stopping.set()
        if self._reader is not None:
            cut(self._reader)
        self._planner.interrupt()

    def _drop_publication(self) -> None:
        name = self._settings.publication
        statement = sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name))
        deadline = time.monotonic() + DROP_TIMEOUT_S
        while True:
            try:
                with connect(self._settings.conninfo) as conn:
                    conn.execute(statement)
                return
            except (CdcError, psycopg.Error) as error:
                if time.monotonic() < deadline:
                    time.sleep(0.5)
                    continue
                reason = " ".join(str(error).split())
                log.warning("left behind (%s): DROP PUBLICATION %s", reason, name)
                return


def until_lsn(conn: psycopg.Connection[Any], until: str) -> int:
    """The LSN that ``until`` means: ``current``, or two hexadecimal numbers. Raises ConfigError."""
    if until.lower() != CURRENT:
        return parse_until(until)
    row = conn.execute("SELECT pg_is_in_recovery()").fetchone()
    if row and row[0]:
        query = "SELECT coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text"
    else:
        # What was inserted last may stay in memory for long on an idle server. The end of a
        # transaction that has a number, and nothing else, makes the WAL writer write it out.
        query = "SELECT pg_current_wal_insert_lsn()::text, txid_current()"
    row = conn.execute(query.encode()).fetchone()
    lsn = parse_lsn(row[0]) if row else None
    log.info("reading until %s", lsn_text(lsn or 0))
    return lsn or 0


def parse_until(text: str) -> int:
    """An LSN as people write it. Raises ConfigError."""
    try:
        return lsn_number(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is neither {CURRENT!r} nor an LSN", key="--until", remedy="Write X/Y"
        ) from None
