"""LogReader: owns the replication connection. Frames out, confirmations in.

The only module that speaks the replication protocol. One thread uses a LogReader; ``read``
answers the server's keep-alives, and ``confirm`` tells it how far its WAL may go. What is
confirmed is decided elsewhere: nothing here moves the slot by itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg

from cdc.errors import ConnectionLost, LogLost, SlotBusy, SourceError
from cdc.lsn import lsn_number, lsn_text
from cdc.postgres.libpq import ReplicationConnection, ServerError
from cdc.postgres.pgoutput import Frame

# What fixes the text form of values, and with it our events, whatever ALTER DATABASE or
# ALTER ROLE say. pgoutput renders with the walsender's settings, COPY with the session's.
SESSION_SETTINGS: Mapping[str, str] = {
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "timezone": "UTC",
    "lc_monetary": "C",
    "client_encoding": "UTF8",
    "row_security": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
}
# Timeouts that newer servers add (idle_session_timeout in 14, transaction_timeout in 17): an
# older one would refuse a connection that names them. The two others find a peer that is gone.
WITHOUT_TIMEOUTS = (
    "SELECT set_config(name, '0', false) FROM pg_settings WHERE right(name, 8) = '_timeout'"
    " AND context = 'user' AND setting <> '0' AND position('.' IN name) = 0"
    " AND name NOT IN ('wal_sender_timeout', 'tcp_user_timeout')"
)
APPLICATION_NAME = "cdc"
# A peer that vanished without a word is noticed in about a minute, not after the kernel's
# two hours (idle) or quarter of one (something was sent).
DEFAULTS: Mapping[str, Any] = {
    "application_name": APPLICATION_NAME,
    "connect_timeout": 10,
    "tcp_user_timeout": 60_000,
}
KEEPALIVES: Mapping[str, Any] = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
# Of a database that does not know what its bytes mean. They are sent as they are, and the
# column whose bytes are not UTF-8 is named by its loader.
RAW_ENCODING = "SQL_ASCII"

# The standby status update: written, flushed and applied LSN, clock, whether to answer.
STATUS = struct.Struct("!cQQQqB")
POSTGRES_EPOCH_US = 946_684_800_000_000
# What the server sends: WAL data (its start, the end of the server's WAL, a clock, then the
# payload) and keep-alives (the end of what was sent, a clock, whether to answer).
XLOG_DATA, KEEPALIVE = ord("w"), ord("k")
XLOG_HEADER = struct.Struct("!cQQq")
KEEPALIVE_MESSAGE = struct.Struct("!cQqB")

WAL_SENDER_TIMEOUT = "SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'"

# One call of read() returns at most this many bytes, so that one giant row after another
# cannot fill the memory before anybody looks.
READ_BYTES_MAX = 8 << 20
# A Unix socket holds some 240 messages: with so many in hand the next are on their way, and
# a moment's wait makes blocks, and with them fsyncs, fewer by a factor of five.
LINGER_FRAMES = 128
LINGER_S = 0.002
# Between two questions how far the server has come.
ASK_S = 0.1
# How long a server has to cancel a command, before the connection is cut.
CUT_S = 1.0
# How long a server has to take notice of the stream's end.
END_S = 1.0
# A server may be this busy before it answers, however short its wal_sender_timeout is.
SILENCE_MIN_S = 5.0


def session_options(extra: Mapping[str, str] | None = None) -> str:
    """The ``options`` connection parameter that fixes a session's settings."""
    settings = {**SESSION_SETTINGS, **(extra or {})}
    return " ".join(
        f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items()
    )


def connection_parameters(conninfo: Mapping[str, Any]) -> dict[str, Any]:
    """What every connection is opened with: what the user says, and our defaults."""
    given = {name: value for name, value in conninfo.items() if value is not None}
    alive = KEEPALIVES if str(given.get("keepalives", "1")) != "0" else {}
    return {**DEFAULTS, **alive, **given, "options": session_options()}


@dataclass(frozen=True)
class ExportedSlot:
    """A slot just created: where it starts, and the snapshot that shows exactly that state."""

    name: str
    consistent_lsn: int
    snapshot_name: str


class LogReader:
    """One replication connection. ``connect`` is done by the constructor.

    Raises ConnectionLost when the server cannot be reached or goes away, SlotBusy when the
    slot is active elsewhere, LogLost when the server no longer has the WAL.
    """

    def __init__(self, conninfo: Mapping[str, Any]) -> None:
        parameters = connection_parameters(conninfo)
        try:
            self._connection = ReplicationConnection(parameters)
        except psycopg.OperationalError as error:
            raise connection_error(error) from None
        with self._server_errors(""):
            self._connection.execute(WITHOUT_TIMEOUTS)
        self._wal_end = self._room = 0
        self._ask_at = 0.0
        self._confirmed = 0
        self._last_feedback = 0.0
        self._interval_max_s = float("inf")
        self._caught_up = self._streaming = False
        # see _listen
        self._silence_max_s = float("inf")
        self._heard_at = self._asked_at = self._asked_again_at = 0.0

    # --- before streaming -----------------------------------------------------------------

    def create_slot(
        self, name: str, *, temporary: bool = False, failover: bool = False
    ) -> ExportedSlot:
        """Create a logical slot and export its snapshot.

        The snapshot lives until the next command on this connection, or its end. Waits for
        the transactions that run at this moment; their commits are in the snapshot.
        """
        command = f'CREATE_REPLICATION_SLOT "{name}" {"TEMPORARY " * temporary}LOGICAL pgoutput'
        if failover:
            command += " (SNAPSHOT 'export', FAILOVER)"
        else:
            command += " EXPORT_SNAPSHOT"
        with self._server_errors(name):
            slot, lsn, snapshot, _plugin = self._connection.execute(command)
        return ExportedSlot(str(slot), lsn_number(str(lsn)), str(snapshot))

    def identify(self) -> tuple[str, int, int]:
        """(system identifier, timeline, LSN the server has flushed)."""
        with self._server_errors(""):
            system, timeline, lsn, _database = self._connection.execute("IDENTIFY_SYSTEM")
        return str(system), int(str(timeline)), lsn_number(str(lsn))

    def history(self, timeline: int) -> str:
        """The timeline's history file: the timelines before it, and where each was left."""
        with self._server_errors(""):
            _name, content = self._connection.execute(f"TIMELINE_HISTORY {timeline}")
        return str(content)

    def start(self, slot: str, lsn: int, options: Mapping[str, str]) -> None:
        """START_REPLICATION. Ends an exported snapshot of this connection."""
        with self._server_errors(slot):
            connection = self._connection
            if connection.parameter("server_encoding") == RAW_ENCODING:
                # else the server refuses to send a row for the sake of any column in it
                connection.execute(f"SET client_encoding TO {RAW_ENCODING}")
            (timeout_ms,) = connection.execute(WAL_SENDER_TIMEOUT)
            timeout_s = int(str(timeout_ms)) / 1000
            self._interval_max_s = timeout_s / 4 or self._interval_max_s
            if timeout_s:
                self._silence_max_s = max(timeout_s, SILENCE_MIN_S)
            connection.start(
                f'START_REPLICATION SLOT "{slot}" LOGICAL {lsn_text(lsn)} ({_options(options)})'
            )
        self._streaming = True
        self._confirmed = lsn
        self._last_feedback = self._heard_at = time.monotonic()

    # --- streaming ------------------------------------------------------------------------

    def read(self, timeout_s: float, frames_max: int) -> list[Frame]:
        """What has arrived, at most ``frames_max``; waits up to ``timeout_s`` for the first."""
        self._listen()
        with self._server_errors(""):
            frames = self._arrived(frames_max)
            if not frames and timeout_s > 0:
                self._wait(timeout_s)
                frames = self._arrived(frames_max)
            while LINGER_FRAMES <= len(frames) < frames_max and self._room > 0:
                self._wait(LINGER_S)
                more = self._arrived(frames_max - len(frames), self._room)
                if not more:
                    break
                frames += more
        self._caught_up = not frames
        if frames:
            self._heard_at, self._asked_at = time.monotonic(), 0.0
        return frames

    def _arrived(self, frames_max: int, room: int = READ_BYTES_MAX) -> list[Frame]:
        """What need not be waited for; ``_room`` is how many more bytes one read may return."""
        messages = self._connection.drain(frames_max, room)
        self._room = room - sum(map(len, messages))
        frames: list[Frame] = []
        header = XLOG_HEADER.unpack_from
        for message in messages:
            if message[0] == XLOG_DATA:
                _, start, self._wal_end, _ = header(message)
                frames.append((start, message[XLOG_HEADER.size :].tobytes()))
            elif message[0] == KEEPALIVE:
                _, self._wal_end, _, answer = KEEPALIVE_MESSAGE.unpack(message)
                if answer:
                    self._feedback()
        return frames

    @property
    def server_lsn(self) -> int:
        """All before it came: how far the server has sent, once ``read`` returned nothing.

        0 while what was read last is still to be decoded.
        """
        return self._wal_end if self._caught_up else 0

    def confirm(self, lsn: int) -> None:
        """Tell the server that everything below ``lsn`` is on disk here."""
        if lsn > self._confirmed:
            self._confirmed = lsn
            self._feedback()

    def keep_alive(self, interval_s: float) -> None:
        """A status update, when the last is ``interval_s`` old: holds off wal_sender_timeout.

        Sooner, where that timeout is so short.
        """
        interval_s = min(interval_s, self._interval_max_s)
        if time.monotonic() - self._last_feedback >= interval_s:
            self._feedback()

    def ask(self) -> None:
        """Have the server say how far it has come; at most every ``ASK_S``.

        An idle server says so by itself only every half ``wal_sender_timeout``.
        """
        now = time.monotonic()
        if now - self._ask_at >= ASK_S:
            self._ask_at = now
            self._feedback(ask=True)

    def fileno(self) -> int:
        """For select and friends: readable when the server sent something."""
        return self._connection.fileno()

    def cancel(self) -> None:
        """End the command that runs. From another thread."""
        self._connection.cancel()

    def interrupt(self) -> None:
        """End the command that runs, from any thread, and soon the connection. Does not wait.

        Only what is cancelled leaves nothing behind: a slot that is being made waits at the
        server for transactions, whether we are there or not.
        """
        timer = threading.Timer(CUT_S, cut, [self])
        for thread in (threading.Thread(target=self._cancel_quietly), timer):
            thread.daemon = True
            thread.start()

    def _cancel_quietly(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self.cancel()

    def close(self) -> None:
        """End the connection; the slot becomes free. The server has read the last confirmation,
        unless it did not listen for ``END_S``.
        """
        if self._streaming:
            self._streaming = False
            self._connection.end(END_S)
        self._connection.close()

    def _listen(self) -> None:
        """Raise ConnectionLost when the server has been silent for too long.

        While it hears of us it need not say anything: so it is asked for an answer, and has
        its own wal_sender_timeout to give one. Called before what has arrived is read.
        """
        now = time.monotonic()
        if now - self._heard_at < self._silence_max_s / 8:
            return
        if select.select([self._connection], [], [], 0)[0]:
            self._heard_at, self._asked_at = now, 0.0
        elif self._asked_at and now - self._asked_at >= self._silence_max_s:
            raise ConnectionLost(f"the server has been silent for {now - self._heard_at:.0f} s")
        elif now - max(self._heard_at, self._asked_again_at) >= self._silence_max_s / 4:
            self._asked_at, self._asked_again_at = self._asked_at or now, now
            self._feedback(ask=True)

    def _feedback(self, *, ask: bool = False) -> None:
        """A status update: what is confirmed counts as written, flushed and applied."""
        lsn = self._confirmed
        clock_us = time.time_ns() // 1000 - POSTGRES_EPOCH_US
        with self._server_errors(""):
            self._connection.put(STATUS.pack(b"r", lsn, lsn, lsn, clock_us, ask))
        self._last_feedback = time.monotonic()

    def _wait(self, timeout_s: float) -> None:
        # whatever woke us, libpq finds out
        if select.select([self._connection], [], [], timeout_s)[0]:
            self._heard_at, self._asked_at = time.monotonic(), 0.0

    @contextlib.contextmanager
    def _server_errors(self, slot: str) -> Any:
        try:
            yield
        except ServerError as error:
            raise replication_error(str(error), error.sqlstate, slot) from None


def _options(options: Mapping[str, str]) -> str:
    """Options of the output plug-in, as START_REPLICATION wants them."""
    return ", ".join(
        f"\"{name}\" '{value.replace(chr(39), chr(39) * 2)}'" for name, value in options.items()
    )


class _Line(Protocol):
    def fileno(self) -> int:
        """The socket's."""


def cut(connection: _Line) -> None:
    """Cut a connection, from any thread: a call that waits for its server ends."""
    with (
        contextlib.suppress(Exception),
        socket.socket(fileno=os.dup(connection.fileno())) as line,
    ):
        line.shutdown(socket.SHUT_RDWR)


ALLOW = "allow this host, user and `replication` in pg_hba.conf"
WRONG_NAME = (
    "set database.hostname to a name in the server's certificate (driver.hostaddr gives the "
    "address), or database.sslmode=verify-ca, which does not ask for the name"
)
WRONG_AUTHORITY = "set database.sslrootcert to the authority that signed the server's certificate"
OTHER_CERTIFICATE = (
    "set database.sslcert and database.sslkey to a certificate whose common name is "
    "database.user, or let pg_ident.conf map it"
)

# What the server or libpq says of a connection that failed → what it is, and what to do.
# A name that is not known (yet, or again) is what a restart of a container looks like.
_REFUSALS: tuple[tuple[str, type[SourceError], str], ...] = (
    ("could not translate host name", ConnectionLost, "check database.hostname"),
    ("failed to resolve host", ConnectionLost, "check database.hostname"),
    ("number of requested standby connections exceeds", ConnectionLost, "raise max_wal_senders"),
    ("too many clients already", ConnectionLost, "raise max_connections"),
    ("remaining connection slots are reserved", ConnectionLost, "raise max_connections"),
    ("too many connections for", ConnectionLost, "raise its CONNECTION LIMIT"),
    ("the database system is", ConnectionLost, "wait until the server is up"),
    ("password authentication failed", SourceError, "check database.user and database.password"),
    (
        "no password supplied",
        SourceError,
        "set database.password; beside a URL --password-file, PGPASSFILE or PGPASSWORD",
    ),
    # TLS: what libpq finds, then what the server says (before and from 14 on)
    ("does not match host name", SourceError, WRONG_NAME),
    ("root certificate file", SourceError, "check database.sslrootcert"),
    ("certificate verify failed", SourceError, WRONG_AUTHORITY),
    (
        "does not support SSL",
        SourceError,
        "set ssl = on at the server, or another database.sslmode",
    ),
    ("private key file", SourceError, "check database.sslkey: a file that only its owner may read"),
    ("could not load private key", SourceError, "check database.sslkey and database.sslpassword"),
    ("certificate file", SourceError, "check database.sslcert"),
    ("valid client certificate", SourceError, "set database.sslcert and database.sslkey"),
    ("certificate authentication failed", SourceError, OTHER_CERTIFICATE),
    ("no encryption", SourceError, f"set database.sslmode=require, or {ALLOW}"),
    ("SSL off", SourceError, f"set database.sslmode=require, or {ALLOW}"),
    ("no pg_hba.conf entry", SourceError, ALLOW),
    (
        "unsupported startup parameter",
        SourceError,
        "a pooler is in between: connect to the server itself",
    ),
    ("must be superuser or replication role", SourceError, "ALTER ROLE … REPLICATION"),
    ("permission denied to start WAL sender", SourceError, "ALTER ROLE … REPLICATION"),
    ("does not exist", SourceError, "check database.dbname and database.user"),
)


def connection_error(error: Exception) -> SourceError:
    """A failed connection attempt, told apart by what the user has to do.

    libpq gives no SQLSTATE for a connection that failed, so the server's text is all there
    is; it is passed on whole, and only class and remedy are chosen by it.
    """
    text = " ".join(str(error).split())
    for sign, kind, remedy in _REFUSALS:
        if sign in text:
            return kind(text, remedy=remedy)
    return ConnectionLost(text, remedy="check that the server runs and database.hostname/port")


def session_error(error: psycopg.Error, about: str = "") -> SourceError:
    """An error of an ordinary session, by SQLSTATE; ``about`` goes before the server's text.

    What the statement or the role is to blame for would fail again; all else is a server or
    a connection that went away, and so is a snapshot whose exporter did.
    """
    text = " ".join(str(error).split())
    text = f"{about}: {text}" if about else text
    code = error.sqlstate or ""
    if code in ("22023", "42704", "55000") and "snapshot" in str(error):
        return ConnectionLost(text)
    if code == "55P03" or code[:2] not in ("0A", "22", "28", "42", "55"):
        return ConnectionLost(text)
    return SourceError(text)


def replication_error(text: str, code: str | None, slot: str) -> SourceError:
    """An error of an established replication connection, by its SQLSTATE ``code``."""
    text = " ".join(text.split())
    if code == "55006":  # object_in_use
        return SlotBusy(text, remedy="stop the other reader or choose another slot.name")
    if code == "53400":  # configuration_limit_exceeded
        return SourceError(text, remedy="raise max_replication_slots, or drop a slot nobody reads")
    if code == "42501":  # insufficient_privilege
        return SourceError(text, remedy="ALTER ROLE … REPLICATION")
    if code == "42704" and "publication" in text:
        return LogLost(
            text + " (at this place of the log: it was dropped, or created later)",
            remedy="drop the slot and set snapshot.mode=when_needed to read the tables again",
        )
    if code == "42704" and slot:  # undefined_object
        return LogLost(
            text, remedy="the slot is gone: set snapshot.mode=when_needed to start again"
        )
    if code == "55000" and ("invalidated" in text or "can no longer" in text):
        return LogLost(text, remedy="drop the slot and set snapshot.mode=when_needed")
    if code == "58P01":  # undefined_file: a WAL segment is gone
        return LogLost(text, remedy="the WAL was removed: drop the slot, snapshot.mode=when_needed")
    if code == "XX000" and "to relation OID" in text:
        # A defect of the server (seen with 15 and 18): each start from this slot fails alike.
        return SourceError(
            text,
            remedy="a table was truncated while the slot was made, and the server cannot decode"
            " that: drop the slot and start again with snapshot.mode=when_needed",
        )
    if code is not None and code[:2] not in ("08", "53", "57", "XX"):
        return SourceError(text)
    return ConnectionLost(text)


__all__ = [
    "ExportedSlot",
    "LogReader",
    "connection_error",
    "connection_parameters",
    "cut",
    "replication_error",
    "session_error",
    "session_options",
]
