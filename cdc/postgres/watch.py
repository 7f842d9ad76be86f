"""Watch: what our slot makes the server keep, and what is said before it is too late.

A slot that is not read, or a transaction that does not end, makes the server keep WAL until
its disk is full, or until ``max_slot_wal_keep_size`` takes the slot away. Both are seen here
long before, as metrics and as warnings that name the remedy.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from cdc import metrics as names
from cdc.errors import SourceError
from cdc.lsn import parse_lsn

log = logging.getLogger(__name__)

Conn = psycopg.Connection[Any]

INTERVAL_S: Final = 5.0
LOOK_TIMEOUT_MS: Final = 2000
# A warning is repeated in the log at most this often while it holds.
REPEAT_S: Final = 300.0
# Without max_slot_wal_keep_size nothing ends the growth but the disk.
RETAINED_WARN_BYTES: Final = 10 << 30
# With it: this share of what may be kept is left.
SAFE_WARN_SHARE: Final = 0.25
OLDEST_TRANSACTION_WARN_S: Final = 600.0
# Vacuum cannot remove dead catalogue rows that are younger; wraparound is at 2^31.
XMIN_WARN_TRANSACTIONS: Final = 200_000_000

# Other sessions' transactions are shown to members of pg_read_all_stats only. One that has
# written holds the slot's restart_lsn back; so does a prepared one.
_QUERY = """
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_lsn() END::text AS lsn,
       s.restart_lsn::text AS restart_lsn, age(s.catalog_xmin)::int8 AS xmin_age,
       to_jsonb(s) ->> 'wal_status' AS wal_status,
       (to_jsonb(s) ->> 'safe_wal_size')::int8 AS safe_bytes,
       coalesce((SELECT setting::int8 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'), -1)
       AS keep_mb,
       CASE WHEN pg_has_role('pg_read_all_stats', 'MEMBER') THEN (
           SELECT coalesce(extract(epoch FROM max(clock_timestamp() - began)), 0)::float8 FROM (
               SELECT xact_start AS began FROM pg_stat_activity WHERE backend_xid IS NOT NULL
               UNION ALL SELECT prepared FROM pg_prepared_xacts) open
       ) END AS oldest_s
FROM (SELECT 1) one LEFT JOIN pg_replication_slots s ON s.slot_name = %s
"""


@dataclass(frozen=True)
class Seen:
    """What a look found; None where the server does not say. ``keep_bytes`` -1: no limit."""

    lsn: int
    restart_lsn: int | None = None
    wal_status: str | None = None
    safe_bytes: int | None = None
    keep_bytes: int = -1
    xmin_age: int | None = None
    oldest_s: float | None = None

    @property
    def retained_bytes(self) -> int | None:
        """WAL kept for the slot."""
        return None if self.restart_lsn is None else max(0, self.lsn - self.restart_lsn)

    def metrics(self) -> dict[str, float]:
        """By metric name."""
        known = names.WAL_STATUS
        status = known.index(self.wal_status) if self.wal_status in known else None
        found = {
            names.SLOT_RETAINED_BYTES: self.retained_bytes,
            names.SLOT_WAL_STATUS: status,
            names.SLOT_SAFE_WAL_BYTES: self.safe_bytes,
            names.SLOT_WAL_KEEP_BYTES: self.keep_bytes if self.keep_bytes >= 0 else None,
            names.SLOT_XMIN_AGE: self.xmin_age,
            names.SOURCE_OLDEST_TRANSACTION: self.oldest_s,
        }
        return {name: float(value) for name, value in found.items() if value is not None}


def look(conn: Conn, slot: str) -> Seen:
    """Ask the server."""
    with conn.transaction():
        # who asks has a stream to read
        conn.execute(f"SET LOCAL statement_timeout = {LOOK_TIMEOUT_MS}".encode())
        row = conn.execute(_QUERY, [slot]).fetchone()
    assert row is not None
    lsn, restart, xmin_age, status, safe, keep_mb, oldest_s = row
    keep_bytes = -1 if keep_mb < 0 else keep_mb << 20
    return Seen(
        parse_lsn(lsn) or 0, parse_lsn(restart), status, safe, keep_bytes, xmin_age, oldest_s
    )


def warnings(values: Mapping[str, float], *, running: bool = True) -> list[str]:
    """What a source's metrics say of its slot, with the remedy; worst first. Pure.

    ``running``: whether it is being read, slowly maybe; else nobody does.
    """
    out = []
    why = "see why the source is behind (a full journal waits: cdc journal info)"
    if not running:
        why = "start the source, which does not run, or drop its slot: cdc drop"
    status = values.get(names.SLOT_WAL_STATUS)
    retained = values.get(names.SLOT_RETAINED_BYTES, 0.0)
    safe, keep = values.get(names.SLOT_SAFE_WAL_BYTES), values.get(names.SLOT_WAL_KEEP_BYTES)
    lost, unreserved = names.WAL_STATUS.index("lost"), names.WAL_STATUS.index("unreserved")
    if status == lost:
        out.append(
            "the slot is lost: the WAL it needs is gone. Drop it and start with"
            " snapshot.mode=when_needed, and raise max_slot_wal_keep_size"
        )
    elif status == unreserved or (
        safe is not None and keep is not None and safe < keep * SAFE_WARN_SHARE
    ):
        left = f"{gb(max(safe or 0.0, 0.0))} more WAL" if safe is not None else "little more WAL"
        out.append(
            f"the slot is lost after {left}: it keeps {gb(retained)}. Raise"
            f" max_slot_wal_keep_size now (ALTER SYSTEM SET …, then pg_reload_conf()), and {why}"
        )
    elif keep is None and retained > RETAINED_WARN_BYTES:
        out.append(
            f"the slot makes the server keep {gb(retained)} of WAL, and nothing limits it:"
            f" {why}; a limit is max_slot_wal_keep_size"
        )
    oldest_s = values.get(names.SOURCE_OLDEST_TRANSACTION, 0.0)
    if oldest_s > OLDEST_TRANSACTION_WARN_S:
        out.append(
            f"a transaction has been open for {oldest_s / 60:.0f} minutes: WAL is kept from its"
            " start on. Find it: SELECT pid, usename, xact_start FROM pg_stat_activity WHERE"
            " backend_xid IS NOT NULL ORDER BY xact_start (or pg_prepared_xacts), and end it"
        )
    age = values.get(names.SLOT_XMIN_AGE, 0.0)
    if age > XMIN_WARN_TRANSACTIONS:
        out.append(
            f"the slot keeps vacuum from dead catalogue rows of {age / 1e6:.0f} million"
            " transactions: let the source catch up, or drop the slot"
        )
    return out


class Watch:
    """Looks at most every INTERVAL_S, and logs each kind of warning at most every REPEAT_S."""

    def __init__(self, connection: Callable[[], Conn], slot: str) -> None:
        self._connection, self._slot = connection, slot
        self._at = float("-inf")
        self._said: dict[str, float] = {}
        self._values: dict[str, float] = {}

    def metrics(self, behind: Callable[[int], Mapping[str, float]]) -> dict[str, float]:
        """The newest values; ``behind`` adds those that depend on the server's LSN.

        A server that does not answer leaves them as they were: the stream will notice, and a
        gauge must not end it.
        """
        now = time.monotonic()
        if now - self._at < INTERVAL_S:
            return self._values
        self._at = now
        try:
            seen = look(self._connection(), self._slot)
        except (psycopg.Error, SourceError):
            return self._values
        self._values = {**seen.metrics(), **behind(seen.lsn)}
        self._say(now)
        return self._values

    def _say(self, now: float) -> None:
        for text in warnings(self._values):
            kind = text[:24]
            if now - self._said.get(kind, float("-inf")) >= REPEAT_S:
                self._said[kind] = now
                log.warning("slot %s: %s", self._slot, text)


def gb(nbytes: float) -> str:
    """Bytes for people."""
    if 0 < nbytes < 1 << 20:
        return f"{math.ceil(nbytes / (1 << 10))} kB"
    return f"{nbytes / (1 << 30):.1f} GB" if nbytes >= 1 << 30 else f"{nbytes / (1 << 20):.0f} MB"
