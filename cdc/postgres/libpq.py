"""ReplicationConnection: one replication connection, by psycopg 3's binding of libpq.

Not by psycopg2's ``LogicalReplicationConnection``: its ``read_message`` answers keep-alives by
itself, and what it was told is flushed (or nothing, while no change has come) it moves on to
the LSN of each keep-alive and confirms that. We store such an LSN first: a crash in between
would find the slot ahead of the log, which nobody can tell from changes that are lost. Here
nothing is sent but what ``put`` is given, at the same cost of a message.

Facts: PostgreSQL's documentation, "Streaming Replication Protocol", and libpq's "Functions
Associated with the COPY Command".
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import pq

from cdc.errors import ConnectionLost

# What PQgetCopyData returns when the server has ended the COPY.
ENDED = -1

Cell = str | None


class ServerError(Exception):
    """What the server said. ``sqlstate`` is None where it gave none."""

    def __init__(self, text: str, sqlstate: str | None) -> None:
        super().__init__(" ".join(text.split()))
        self.sqlstate = sqlstate


class ReplicationConnection:
    """A connection to a walsender. Commands first; then COPY messages in both directions.

    Used by one thread; ``cancel`` may come from another. Raises psycopg.OperationalError from
    the constructor, else ServerError, and ConnectionLost where the connection failed.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._connection = psycopg.connect(
            **{**parameters, "replication": "database"}, autocommit=True
        )
        self._pgconn = self._connection.pgconn
        self._pgconn.nonblocking = 0
        self._error: Exception | None = None

    # --- commands

    def execute(self, command: str) -> list[Cell]:
        """Run a command; the first row of what it returns, empty where there is none."""
        result = self._run(command, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
        if not result.ntuples:
            return []
        row = (result.get_value(0, column) for column in range(result.nfields))
        return [None if value is None else value.decode() for value in row]

    def start(self, command: str) -> None:
        """Run START_REPLICATION; from then on there are only messages."""
        self._run(command, pq.ExecStatus.COPY_BOTH)

    def parameter(self, name: str) -> str:
        """A parameter that the server reported, such as ``server_encoding``."""
        return (self._pgconn.parameter_status(name.encode()) or b"").decode()

    def _run(self, command: str, *expected: pq.ExecStatus) -> Any:
        try:
            result = self._pgconn.exec_(command.encode())
        except psycopg.OperationalError as error:
            raise ConnectionLost(" ".join(str(error).split())) from None
        if result.status not in expected:
            raise _server_error(result)
        return result

    # --- messages

    def drain(self, count: int, nbytes: int) -> list[memoryview]:
        """The messages that have come whole: at most ``count``, or few more than ``nbytes``.

        An error is raised once all that came before it has been returned.
        """
        if self._error is not None:
            raise self._error
        messages: list[memoryview] = []
        get, append = self._pgconn.get_copy_data, messages.append
        waiting = False
        try:
            while len(messages) < count and nbytes > 0:
                size, message = get(1)
                if size > 0:
                    append(message)
                    nbytes -= size
                    waiting = False
                elif size == ENDED:
                    raise self._end()
                elif waiting:
                    break
                else:
                    self._pgconn.consume_input()
                    waiting = True
        except (psycopg.OperationalError, ServerError, ConnectionLost) as error:
            self._error = error if not isinstance(error, psycopg.Error) else self._lost()
            if not messages:
                raise self._error from None
        return messages

    def put(self, message: bytes) -> None:
        """Send one message. Where the server has ended the stream: raises what it said."""
        try:
            self._pgconn.put_copy_data(message)
            self._pgconn.flush()
        except psycopg.OperationalError:
            raise self._error or self._lost() from None

    def end(self, timeout_s: float) -> None:
        """End the COPY in order, so that the server has read all that ``put`` sent it.

        What it still sends is thrown away: a socket that is closed with unread data is reset,
        and what was on its way to the server is lost with it. After ``timeout_s`` (in the
        middle of a large transaction, or of a network's silence) the connection stays as it is.
        """
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(psycopg.OperationalError):
            self._pgconn.put_copy_end()
            self._pgconn.flush()
            while (left_s := deadline - time.monotonic()) > 0:
                size, _ = self._pgconn.get_copy_data(1)
                if size == ENDED:
                    break
                if size == 0 and select.select([self._pgconn.socket], [], [], left_s)[0]:
                    self._pgconn.consume_input()

    def fileno(self) -> int:
        """The socket's. Raises ConnectionLost."""
        try:
            return self._pgconn.socket
        except psycopg.OperationalError:
            raise self._lost() from None

    def cancel(self) -> None:
        """End the command that runs, from any thread. Raises psycopg.OperationalError."""
        self._connection.cancel_safe()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _end(self) -> Exception:
        result = self._pgconn.get_result()
        if result is None or result.status != pq.ExecStatus.FATAL_ERROR:
            return ConnectionLost("the server ended the replication")
        return _server_error(result)

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(self._message() or "the replication connection was lost")

    def _message(self) -> str:
        return " ".join(self._pgconn.get_error_message().split())


def _server_error(result: Any) -> ServerError:
    code = result.error_field(pq.DiagnosticField.SQLSTATE)
    return ServerError(result.get_error_message(), code.decode() if code else None)
