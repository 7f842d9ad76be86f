"""A SQLite file that is only to be read: beside its writer, or where nothing may be written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

_NOT_WRITABLE = ("SQLITE_READONLY", "SQLITE_CANTOPEN")


def open_readonly(path: str) -> sqlite3.Connection:
    """A connection in autocommit. Raises sqlite3.Error for what cannot be read.

    SQLite makes a shared memory file to read one in WAL mode. Where it may not (a folder of
    somebody else, a read-only medium) and no write-ahead log lies beside the file, no writer
    has it open, and it is read as a file that does not change.
    """
    uri = f"{Path(path).absolute().as_uri()}?mode=ro"
    connection = _opened(uri)
    try:
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1")
    except sqlite3.Error as error:
        connection.close()
        may_not = (error.sqlite_errorname or "").startswith(_NOT_WRITABLE)
        if not may_not or Path(f"{path}-wal").exists():
            raise
        connection = _opened(f"{uri}&immutable=1")
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").close()
    return connection


def _opened(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None)
