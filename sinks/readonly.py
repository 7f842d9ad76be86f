"""A SQLite file that is only to be read: beside its writer, or where nothing may be written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from cdc.errors import CdcError, ConfigError

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


def unreadable(path: str, error: sqlite3.Error, *, what: str, remedy: str) -> CdcError:
    """Why a file cannot be read. ``what`` it should be, ``remedy`` what helps a damaged one.

    A ConfigError where it is no file of SQLite's at all: another one was meant.
    """
    name: str = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith("SQLITE_NOTADB"):
        return ConfigError(f"{path} is no {what}: {error}")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return CdcError(
            f"{path} is locked by another program", remedy="Try again once it has ended"
        )
    # A table that is gone is damage as well.
    if name.startswith("SQLITE_CORRUPT") or str(error).startswith("no such table"):
        return CdcError(f"{path} is damaged: {error}", remedy=remedy)
    return CdcError(f"{path} cannot be read: {error}")


def _opened(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None)
