"""Taking a later snapshot, without standing still: its consistent point, in a thread."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from cdc.errors import ConnectionLost
from cdc.postgres.admin import check_free_slot
from cdc.postgres.pgoutput import Frame
from cdc.postgres.replication import LogReader, session_error
from cdc.postgres.sessions import connect
from cdc.postgres.snapshot import SnapshotHolder, end_quietly

log = logging.getLogger(__name__)

JOIN_S = 5.0
CANCEL_S = 0.05
GIVEN_UP = "the snapshot was given up"
# How often it is said that it waits for running transactions.
LOG_S = 10.0
# A standby learns which transactions run from a record of the primary's.
STANDBY_WAIT = (
    "on a standby this waits for the primary's next checkpoint, or until "
    "SELECT pg_log_standby_snapshot() is run there, and for the transactions that run then"
)


class SnapshotTaker:
    """A later consistent point and its snapshot, by a temporary slot, in a thread of its own.

    Making the slot waits for every transaction that runs at that moment, which can take as
    long as the application likes. Who waits must not read on in the stream meanwhile: the
    snapshot has to lie ahead of it.
    """

    def __init__(self, conninfo: Mapping[str, Any], *, standby: bool = False) -> None:
        self._conninfo, self._standby = conninfo, standby
        self._done = threading.Event()
        self._taken: tuple[int, SnapshotHolder] | None = None
        self._error: BaseException | None = None
        self._given_up = threading.Event()
        self._handing = threading.Lock()
        self._said_at = time.monotonic()
        self._maker: LogReader | None = None
        self._thread = threading.Thread(target=self._run, name="snapshot", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> tuple[int, SnapshotHolder] | None:
        """The snapshot's LSN and holder; None while it is not there yet."""
        if not self._done.wait(timeout_s):
            self._say()
            return None
        if isinstance(self._error, psycopg.Error):
            raise session_error(self._error)
        if self._error is not None:
            raise self._error
        taken, self._taken = self._taken, None
        return taken

    def _say(self) -> None:
        now = time.monotonic()
        if now - self._said_at >= LOG_S:
            self._said_at = now
            if self._standby:
                log.warning("a snapshot is being taken: %s", STANDBY_WAIT)
            else:
                log.info("a snapshot waits for the transactions that run at the server")

    def close(self) -> None:
        """Give up, whether it is there or not."""
        with self._handing:
            self._given_up.set()
        deadline = time.monotonic() + JOIN_S
        while not self._done.wait(CANCEL_S) and time.monotonic() < deadline:
            if self._maker is not None:  # again and again: its command may be yet to begin
                with contextlib.suppress(Exception):
                    self._maker.cancel()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._taken is not None:
            end_quietly(self._taken[1])
            self._taken = None

    def _run(self) -> None:
        try:
            name = f"cdc_{uuid.uuid4().hex[:16]}"
            with connect(self._conninfo) as connection:
                check_free_slot(connection, name)
            self._maker = maker = LogReader(self._conninfo)
            try:
                if self._given_up.is_set():  # there was nothing to cancel yet
                    raise ConnectionLost(GIVEN_UP)
                exported = maker.create_slot(name, temporary=True)
                holder = SnapshotHolder(self._conninfo, exported.snapshot_name)
            finally:
                maker.close()
            with self._handing:
                if self._given_up.is_set():  # and it may not have been waited for
                    holder.close()
                    raise ConnectionLost(GIVEN_UP)
                self._taken = exported.consistent_lsn, holder
        except BaseException as error:  # noqa: BLE001 - wait() raises it
            self._error = error
        finally:
            self._done.set()


def first_begin_from(frames: Sequence[Frame], lsn: int) -> int | None:
    """Index of the first BEGIN of a transaction committed at or after ``lsn``."""
    for i, (_, payload) in enumerate(frames):
        if payload[:1] == b"B" and int.from_bytes(payload[1:9], "big") >= lsn:
            return i
    return None


def after_last_commit(frames: Sequence[Frame]) -> int:
    """How many frames there are up to the last COMMIT, with it; 0 without one."""
    commits = (i for i in range(len(frames) - 1, -1, -1) if frames[i][1][:1] == b"C")
    return next(commits, -1) + 1
