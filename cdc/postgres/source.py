"""PostgresSourceTask: one database's changes, snapshot and stream, as batches for the log.

What happens at start is decided by :mod:`cdc.postgres.startup`; this module carries it out.
A generation of the log is a snapshot and the stream after it (see :class:`cdc.api.Lane`).
A second snapshot (tables added, or a first one lost half-way) is taken at a later LSN, L2,
by a temporary slot: the stream goes into the old generation up to L2, and into a new one
from there, behind the rows read at L2. So readers of the log see each table's rows and
changes in an order that ends in the source's state.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any

import psycopg

from cdc import metrics as names
from cdc.api import Batch, Lane, LogState, SourceTask
from cdc.api import Position as StoredPosition
from cdc.block import Block
from cdc.config import Config
from cdc.errors import ConnectionLost
from cdc.lsn import lsn_text
from cdc.postgres.admin import check_free_slot, check_server
from cdc.postgres.catalog import ServerFacts, SlotRow, read_server
from cdc.postgres.coverage import Coverage
from cdc.postgres.handed import Handed
from cdc.postgres.pgoutput import Decoder, Frame
from cdc.postgres.planner import Planner
from cdc.postgres.position import Position
from cdc.postgres.replication import ExportedSlot, LogReader, session_error
from cdc.postgres.sessions import connect
from cdc.postgres.settings import Settings, settings_of
from cdc.postgres.slots import advance_slot, drop_slot, may_fail_over, stream_options, wait_for_slot
from cdc.postgres.snapshot import Snapshot, SnapshotHolder, end_quietly
from cdc.postgres.startup import Read, Start, StartPlan, decide
from cdc.postgres.taking import STANDBY_WAIT, SnapshotTaker, after_last_commit, first_begin_from
from cdc.postgres.timelines import Follower, identify
from cdc.postgres.watch import Watch

log = logging.getLogger(__name__)

# How often a position without rows is stored: each costs an fsync.
POSITION_INTERVAL_S = 1.0
# How often the publication is compared with what was snapshotted.
TABLES_INTERVAL_S = 10.0
# How often a wait looks whether it is to end.
STOPPING_S = 0.2
STOPPED = "stopped before it had begun"


class PostgresSourceTask(SourceTask):
    """A :class:`cdc.api.SourceTask`. Takes a configuration parsed by its CONFIG."""

    def __init__(self, config: Config, connector: str = "") -> None:
        self._config, self._connector = config, connector
        self._run_id = str(uuid.uuid4())
        self._settings: Settings = settings_of(config, run_id=self._run_id)
        self._planner = Planner(lambda: connect(self._settings.conninfo), self._settings)
        self._reader: LogReader | None = None
        self._decoder: Decoder | None = None
        self._snapshot: Snapshot | None = None
        self._taker: SnapshotTaker | None = None  # the stream stands still until it has one
        self._wanted = False  # a snapshot, as soon as no transaction is half stored
        self._held: list[Frame] = []  # read, to be decoded once it is taken
        self._next: tuple[int, Snapshot] | None = None  # begins once the stream is at its LSN
        self._coverage = Coverage(self._planner, self._settings, dict(config.raw), self._run_id)
        self._facts: ServerFacts | None = None
        self._position = Position("", 0, 0, self._settings.slot, 0)
        self._stored_lsn = 0
        self._pending: list[Batch] = []
        self._position_at = self._tables_at = 0.0
        self._watch = Watch(lambda: self._planner.connection, self._settings.slot)
        self._follower = Follower(lambda: self._planner.connection)
        self._snapshot_rows = 0
        self._handed, self._stopping = Handed(), threading.Event()
        self._failed = self._started = False

    # --- start ----------------------------------------------------------------------------

    def start(self, state: LogState) -> None:
        """See :class:`cdc.api.SourceTask`."""
        with self._noting_errors():
            self._check_stopping()
            self._start(state)
        self._started = True

    @contextlib.contextmanager
    def _noting_errors(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._failed = True
            cut_short = self._stopping.is_set() and not self._started
            if cut_short and isinstance(error, (psycopg.Error, ConnectionLost)):
                raise ConnectionLost(STOPPED) from error
            if isinstance(error, psycopg.Error):
                raise session_error(error) from None
            raise

    def _check_stopping(self) -> None:
        if self._stopping.is_set():
            raise ConnectionLost(STOPPED)

    def _start(self, state: LogState) -> None:
        settings, conn = self._settings, self._planner.connection
        self._facts = self._coverage.facts = facts = read_server(conn)
        check_server(facts, conn)
        self._reader = LogReader(settings.conninfo)
        stored = Position.from_dict(state.stream_position) if state.stream_position else None
        server = identify(self._reader, facts, stored)
        self._follower.begin(server)
        slot = wait_for_slot(
            lambda: self._planner.connection, settings.slot, settings.slot_retry_s,
            self._check_stopping,
        )  # fmt: skip
        plan = decide(settings.snapshot_mode, server, slot, stored, settings.slot)
        if plan.start is Start.NEW_SLOT and slot is None:
            check_free_slot(conn, settings.slot)
        self._coverage.load(state)
        self._coverage.prepare(plan)
        if plan.start is Start.POSITION and stored is not None:
            plan = self._coverage.continued(plan, stored.lsn)
        self._position = Position(
            server.system, server.timeline, server.database, settings.slot,
            stored.lsn if stored else 0,
        )  # fmt: skip
        self._begin(plan, state, stored, slot)

    def _begin(
        self, plan: StartPlan, state: LogState, stored: Position | None, slot: SlotRow | None
    ) -> None:
        if plan.start is Start.NONE:
            self._begin_without_stream(state)
        elif plan.start is Start.POSITION:
            assert stored is not None
            self._begin_at_position(plan, state, stored)
        else:
            self._end_generation(state)
            self._begin_first(plan, slot)

    def _begin_first(self, plan: StartPlan, slot: SlotRow | None) -> None:
        """Nothing usable is stored: a new generation, its stream from the slot's start."""
        if plan.reason:
            log.warning("reading all tables again: %s", plan.reason)
        wanted = plan.read is not Read.NOTHING
        holder: SnapshotHolder | None = None
        if slot is not None and plan.start is Start.NEW_SLOT:
            self._drop_invalidated(plan.reason)
            slot = None
        if slot is None:
            exported = self._create_slot()
            log.info("created slot %s at %s", exported.name, lsn_text(exported.consistent_lsn))
            if wanted:
                holder = SnapshotHolder(self._settings.conninfo, exported.snapshot_name)
            start_lsn = snapshot_lsn = exported.consistent_lsn
        else:
            start_lsn = snapshot_lsn = slot.confirmed_flush_lsn or 0
            if plan.start is Start.SLOT_NOW:
                start_lsn = snapshot_lsn = advance_slot(self._planner.connection, slot.name)
            if wanted:
                snapshot_lsn, holder = self._take_now()
        targets = self._coverage.targets(holder) if holder else []
        self._coverage.reset(holder, lost=True)
        until = {str(t.as_table): snapshot_lsn for t in targets} if slot else {}
        self._start_stream(start_lsn, None, until)
        # so that a crash from here on goes on with this snapshot instead of a new one
        self._pending.append(Batch(Lane.STREAM, self._position.to_dict()))
        if holder is not None and targets:
            self._snapshot = self._coverage.plan_snapshot(targets, holder, snapshot_lsn)
            # before any change: a table with changes in the log is not one without anything
            self._pending.append(self._first_of(self._snapshot))
            return
        self._pending.append(Batch(Lane.SNAPSHOT, self._coverage.to_dict(), close=True))
        if holder is not None:
            holder.close()

    def _first_of(self, snapshot: Snapshot) -> Batch:
        return Batch(Lane.SNAPSHOT, self._coverage.begun(), snapshot.truncates())

    def _take_now(self) -> tuple[int, SnapshotHolder]:
        """A later snapshot, before the stream has begun."""
        self._taker = self._make_taker()
        while (taken := self._taker.wait(STOPPING_S)) is None:
            self._check_stopping()
        self._taker = None
        return taken

    def _make_taker(self) -> SnapshotTaker:
        return SnapshotTaker(self._settings.conninfo, standby=self._follower.in_recovery)

    def _create_slot(self) -> ExportedSlot:
        failover = may_fail_over(self._settings, self._facts)
        if self._follower.in_recovery:
            log.warning("the slot %s is being made: %s", self._settings.slot, STANDBY_WAIT)
        return self._stream.create_slot(self._settings.slot, failover=failover)

    def _drop_invalidated(self, _reason: str) -> None:
        """The slot that the log was read from, to be made anew under its name."""
        drop_slot(lambda: self._planner.connection, self._settings.slot)

    def _begin_at_position(self, plan: StartPlan, state: LogState, stored: Position) -> None:
        """Go on where the log ends; then read what is missing at a later LSN."""
        known = self._coverage.to_dict()
        if gone := self._coverage.forget_others():
            log.info("no longer captured: %s", ", ".join(gone))
        self._coverage.note_present()
        # of a snapshot that was cut, what is stored stays; the rest comes at L2
        closed = state.snapshot_closed and not state.stream_closed
        self._store_news(known if closed else {})
        self._start_stream(stored.lsn, stored, stored.until)
        self._wanted = self._needs_snapshot(plan)
        if plan.read is Read.ALL:
            self._coverage.reset()
        self._tables_at = time.monotonic()

    def _store_news(self, known: Mapping[str, Any]) -> None:
        """Store what is known of the tables where it changed: at the next start they are others."""
        now = self._coverage.to_dict()
        if now != known:
            self._pending.append(Batch(Lane.SNAPSHOT, now, close=True))

    def _begin_second(self, lsn: int, holder: SnapshotHolder) -> None:
        """Plan the snapshot at L2 of what is missing; it begins when the stream is there."""
        targets = self._coverage.targets(holder)
        missing = self._coverage.lost.readable(self._coverage.missing(targets), holder)
        if not missing:
            holder.close()
            return
        # The stream up to L2 is stored for these tables too: some of it may be stored already
        # (a first snapshot lost before its first row, a table published a moment ago), and a
        # delete left out of the rest would leave its row in every copy.
        self._next = (lsn, self._coverage.plan_snapshot(missing, holder, lsn))
        log.info("reading %s from %s on", ", ".join(t.name for t in missing), lsn_text(lsn))

    def _begin_without_stream(self, state: LogState) -> None:
        """``initial_only``: one snapshot, no slot, and nothing after it."""
        if state.snapshot_closed and self._coverage.progress.complete and state.generation:
            return
        self._end_generation(state)
        holder = SnapshotHolder(self._settings.conninfo, None)
        self._coverage.reset(holder, lost=True)
        targets, lsn = self._coverage.targets(holder), self._facts.lsn if self._facts else 0
        self._snapshot = self._coverage.plan_snapshot(targets, holder, lsn)
        self._pending.append(self._first_of(self._snapshot))

    def _end_generation(self, state: LogState) -> None:
        """Close what an earlier start left open: its stream cannot go on."""
        if not state.generation or state.stream_closed:
            return
        if not state.snapshot_closed:
            self._pending.append(Batch(Lane.SNAPSHOT, state.snapshot_position or {}, close=True))
        self._pending.append(Batch(Lane.STREAM, state.stream_position or {}, close=True))

    def _start_stream(self, lsn: int, stored: Position | None, until: Mapping[str, int]) -> None:
        settings = self._settings
        decoder = Decoder(self._planner.describe, self._planner.decoder_options(), start_lsn=lsn)
        decoder.ignore_until(until)
        if stored is not None:
            decoder.resume(stored)
        self._stream.start(settings.slot, lsn, stream_options(settings, self._facts))
        self._decoder, self._coverage.lost.truncated = decoder, decoder.truncated
        timeline = self._position.timeline
        self._position = replace(
            stored or self._position, timeline=timeline, lsn=lsn, until=dict(until)
        )
        self._stored_lsn = lsn
        log.info("streaming from %s", lsn_text(lsn))

    # --- added tables ---------------------------------------------------------------------

    def _look_for_tables(self) -> None:
        """Tables that were added to the publication while we stream get their snapshot."""
        now = time.monotonic()
        busy = self._snapshot or self._next or self._taker or self._wanted
        if busy or now - self._tables_at < TABLES_INTERVAL_S:
            return
        self._tables_at = now
        known = self._coverage.to_dict()
        targets = self._coverage.refresh(self._position.lsn)
        self._store_news(known)
        if self._settings.snapshot_mode != "no_data":
            self._wanted = self._coverage.lost.wants(self._coverage.missing(targets))

    def _begin_taking(self, frames: list[Frame]) -> list[Frame]:
        """Take the wanted snapshot behind a transaction's end; the frames up to there.

        Taking it waits for every transaction at the server: a sink's too, whose target may
        be there and which itself waits for the rest of the transaction it was given.
        """
        cut = after_last_commit(frames)
        if not cut and (self._decode.in_transaction or self._decode.open):
            return frames
        self._taker, self._wanted = self._make_taker(), False
        self._held = frames[cut:]
        return frames[:cut]

    def _is_taking(self, timeout_s: float) -> bool:
        """Whether a snapshot is being taken: then the stream must not be read."""
        if self._taker is None:
            return False
        taken = self._taker.wait(timeout_s)
        self._stream.keep_alive(self._settings.status_interval_s)
        if taken is None:
            return True
        self._taker = None
        self._begin_second(*taken)
        return False

    def _needs_snapshot(self, plan: StartPlan) -> bool:
        if plan.read is Read.MISSING:
            return bool(self._coverage.missing(self._coverage.targets()))
        return plan.read is Read.ALL

    # --- poll -----------------------------------------------------------------------------

    def poll(self, timeout_s: float) -> list[Batch]:
        """See :class:`cdc.api.SourceTask`."""
        with self._noting_errors():
            batches = self._poll(timeout_s)
        self._handed.out(batches)
        return batches

    def _poll(self, timeout_s: float) -> list[Batch]:
        out, self._pending = self._pending, []
        out += self._poll_snapshot()
        if self._decoder is None:
            if not out:
                self._wait(timeout_s)
            return out
        self._look_for_tables()
        if self._is_taking(0.0 if out else timeout_s):
            return out
        held, self._held = self._held, []
        frames = held + self._stream.read(0, self._settings.batch_rows)
        if not frames and not out:
            self._wait(timeout_s)
            out += self._poll_snapshot()
            frames = self._stream.read(0, self._settings.batch_rows)
        if self._wanted:
            frames = self._begin_taking(frames)
        if self._next is not None:
            return out + self._poll_until(self._next[0], frames)
        return out + self._decoded(frames)

    def _poll_snapshot(self) -> list[Batch]:
        if self._snapshot is None:
            return []
        batches = self._snapshot.poll()
        if self._snapshot.closed:
            log.info("snapshot complete: %d rows", self._snapshot.rows)
            self._snapshot_rows += self._snapshot.rows
            self._snapshot.close()
            self._snapshot = None
        return batches

    def _poll_until(self, lsn: int, frames: Sequence[Frame]) -> list[Batch]:
        """As _decoded, but the generation ends before the first transaction from ``lsn`` on."""
        cut = first_begin_from(frames, lsn)
        before = frames[:cut] if cut is not None else frames
        # an empty list says that nothing came: not so where the cut is at the front
        out = self._decoded(before) if before or not frames else []
        reached = cut is not None or (
            not frames and not self._decode.in_transaction and self._stream.server_lsn >= lsn
        )
        if not reached:
            if not frames:
                self._stream.ask()
            return out
        # no transaction is open here: the cut stands before a BEGIN, or nothing is under way
        self._position = self._decoded_position(self._position.lsn)
        out.append(Batch(Lane.STREAM, self._position.to_dict(), close=True))
        assert self._next is not None
        self._snapshot, self._next = self._next[1], None
        # first of all in the new generation: what the snapshots before have read
        out.append(self._first_of(self._snapshot))
        return out + self._behind_cut(frames[len(before) :])

    def _behind_cut(self, frames: Sequence[Frame]) -> list[Batch]:
        """What was read already of the new generation's stream."""
        return self._decoded(frames)

    def _decoded(self, frames: Sequence[Frame]) -> list[Batch]:
        decoder = self._decode
        block = decoder.decode(frames, time.time_ns() // 1000) if frames else None
        # a keep-alive's: nothing of ours lies before it
        idle_lsn = 0 if frames or decoder.in_transaction else self._stream.server_lsn
        position = self._decoded_position(idle_lsn)
        if block is not None and len(block):
            block.context, block.tombstones = self._settings.context, self._settings.tombstones
            return [*self._notes(), self._batch(position, block)]
        now = time.monotonic()
        if position.lsn > self._position.lsn and now - self._position_at >= POSITION_INTERVAL_S:
            return [self._batch(position, None)]
        return []

    def _notes(self) -> list[Batch]:
        """What rows tell of their tables is stored before them: they do not come again."""
        if self._snapshot or self._next or not self._coverage.take_news():
            return []
        return [Batch(Lane.SNAPSHOT, self._coverage.to_dict(), close=True)]

    def _decoded_position(self, idle_lsn: int) -> Position:
        """Where the decoder stands; ``idle_lsn``: nothing is under way up to there."""
        decoder = self._decode
        decoder.end_lsn = max(decoder.end_lsn, idle_lsn)
        return replace(
            self._position,
            timeline=self._follower.look(),
            lsn=decoder.end_lsn,
            message_lsn=decoder.message_lsn,
            commit_end=decoder.previous_end_lsn,
            open=decoder.open,
            until=decoder.until,
        )

    def _batch(self, position: Position, block: Block | None) -> Batch:
        self._position, self._position_at = position, time.monotonic()
        return Batch(Lane.STREAM, position.to_dict(), block)

    def _wait(self, timeout_s: float) -> None:
        """Until the server or a snapshot reader has something."""
        waited: list[Any] = list(self._snapshot.channels()) if self._snapshot else []
        if self._decoder is not None:
            waited.append(self._stream)
        wait(waited, timeout_s)

    # --- the rest of the contract ---------------------------------------------------------

    def commit(self, lane: Lane, position: StoredPosition) -> None:
        """See :class:`cdc.api.SourceTask`."""
        self._handed.durable(lane, position)
        if self._reader is None or self._decoder is None:
            return
        if lane is Lane.STREAM and position:
            self._stored_lsn = position["lsn"]
            self._reader.confirm(self._stored_lsn)
        self._reader.keep_alive(self._settings.status_interval_s)

    def stop(self) -> None:
        """See :class:`cdc.api.SourceTask`."""
        following = self._next[1] if self._next else None
        for part in (self._taker, self._snapshot, following, self._reader):
            if part is not None:
                end_quietly(part)
        self._taker = self._snapshot = self._next = None
        if self._settings.drop_slot_on_stop and self._decoder is not None:
            self._drop_slot()
        self._reader = self._decoder = None
        end_quietly(self._planner)

    def interrupt(self) -> None:
        """It is to stop soon, from any thread: a start that waits for the server ends.

        Later there is nothing to cut: ``poll`` waits no longer than it is told to.
        """
        self._stopping.set()
        if not self._started:
            if self._reader is not None:
                self._reader.interrupt()
            self._planner.interrupt()

    def _drop_slot(self) -> None:
        """After an error the next start needs it, and so it does where something was lost."""
        if self._failed or not self._handed.all_durable:
            log.warning("the slot %s is kept: this was no orderly stop", self._settings.slot)
            return
        drop_slot(lambda: self._planner.connection, self._settings.slot)

    def metrics(self) -> Mapping[str, float]:
        """See :class:`cdc.api.SourceTask`."""
        snapshot = self._snapshot
        rows = self._snapshot_rows + (snapshot.rows if snapshot else 0)
        found = {names.SNAPSHOT_ROWS: float(rows)}
        if self._decoder is not None:
            under_way = self._decoder.in_transaction
            found[names.SOURCE_LAG_MS] = self._handed.lag_ms(time.time(), under_way=under_way)
            found |= self._watch.metrics(self._behind)
        return found

    def _behind(self, server_lsn: int) -> dict[str, float]:
        return {names.SOURCE_LAG_BYTES: float(max(0, server_lsn - self._stored_lsn))}

    @property
    def _stream(self) -> LogReader:
        assert self._reader is not None
        return self._reader

    @property
    def _decode(self) -> Decoder:
        assert self._decoder is not None
        return self._decoder
