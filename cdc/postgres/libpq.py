"""CopyBoth: the COPY messages of a replication connection, by the libpq of psycopg2.

psycopg2 opens the connection and starts the replication. Its ``read_message`` is not used:
it answers keep-alives by itself, and what it was told is flushed (or nothing, while no
change has come) it moves on to the LSN of each keep-alive and confirms that. We store such an
LSN first: a crash in between would find the slot ahead of the log, which nobody can tell
from changes that are lost. Here nothing is sent but what ``put`` is given.

Facts: libpq's "Functions Associated with the COPY Command".
"""

from __future__ import annotations

import ctypes
from typing import Any

import psycopg2._psycopg

from cdc.errors import ConnectionLost

WOULD_BLOCK, ENDED = 0, -1
SQLSTATE = ord("C")

# A symbol is looked up in a library and in what it depends on. What may wait for the server
# lets other threads run meanwhile; what only takes what is there keeps the GIL, and is faster.
_blocking = ctypes.CDLL(psycopg2._psycopg.__file__)
_immediate = ctypes.PyDLL(psycopg2._psycopg.__file__)
_pointer, _text, _int = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int


def _function(name: str, result: Any, *arguments: Any, library: Any = _immediate) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function


_get_copy_data = _function("PQgetCopyData", _int, _pointer, ctypes.POINTER(ctypes.c_void_p), _int)
_put_copy_data = _function("PQputCopyData", _int, _pointer, _text, _int, library=_blocking)
_flush = _function("PQflush", _int, _pointer, library=_blocking)
_consume_input = _function("PQconsumeInput", _int, _pointer)
_free = _function("PQfreemem", None, _pointer)
_get_result = _function("PQgetResult", _pointer, _pointer, library=_blocking)
_clear = _function("PQclear", None, _pointer)
_error_field = _function("PQresultErrorField", _text, _pointer, _int)
_result_error = _function("PQresultErrorMessage", _text, _pointer)
_error = _function("PQerrorMessage", _text, _pointer)


class CopyEnded(Exception):
    """The server ended the stream. ``sqlstate`` is None where it gave no reason."""

    def __init__(self, text: str, sqlstate: str | None) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


class CopyBoth:
    """The stream of one connection that is in COPY BOTH mode. Does not own the connection."""

    def __init__(self, connection: Any) -> None:
        self._conn = ctypes.c_void_p(connection.pgconn_ptr)
        self._buffer = ctypes.c_void_p()
        self._at = ctypes.byref(self._buffer)
        self._error: Exception | None = None

    def drain(self, count: int, nbytes: int) -> list[bytes]:
        """The messages that have come whole: at most ``count``, or few more than ``nbytes``.

        Raises CopyEnded, and ConnectionLost where the connection failed, once all that came
        before has been returned.
        """
        if self._error is not None:
            raise self._error
        messages: list[bytes] = []
        get, at, conn, buffer = _get_copy_data, self._at, self._conn, self._buffer
        string_at, free, append = ctypes.string_at, _free, messages.append
        waiting = False
        while len(messages) < count and nbytes > 0:
            size = get(conn, at, 1)
            if size > 0:
                append(string_at(buffer, size))
                free(buffer)
                nbytes -= size
                waiting = False
            elif size == WOULD_BLOCK and waiting:
                break
            elif size == WOULD_BLOCK and _consume_input(conn):
                waiting = True
            else:
                self._error = self._end(size)
                if not messages:
                    raise self._error
                break
        return messages

    def put(self, message: bytes) -> None:
        """Send one message. Raises ConnectionLost."""
        if _put_copy_data(self._conn, message, len(message)) < 0 or _flush(self._conn) < 0:
            raise self._failure()

    def _failure(self) -> ConnectionLost:
        text = " ".join(_error(self._conn).decode(errors="replace").split())
        return ConnectionLost(text or "the replication connection was lost")

    def _end(self, size: int) -> Exception:
        if size != ENDED:
            return self._failure()
        result = _get_result(self._conn)
        if not result:
            return CopyEnded("the server ended the replication", None)
        code, text = _error_field(result, SQLSTATE), _result_error(result)
        ended = CopyEnded(
            " ".join(text.decode(errors="replace").split()) or "the server ended the replication",
            code.decode() if code else None,
        )
        _clear(result)
        return ended
