"""A sink's own store, ``sinks/<connector>.db``: one SQLite file, opened alike by all who use it.

Its positions (:mod:`cdc.runtime.offsets`) and its dead letters (:mod:`cdc.runtime.deadletters`)
lie in it side by side, and each makes the tables it needs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cdc.durable import make_folder
from cdc.errors import LogVersion, SinkError

VERSION = 1
BUSY_TIMEOUT_S = 5.0

Connection = sqlite3.Connection


class StoreUnavailable(SinkError):
    """A sink's own store cannot be written for now: its disk is full, or somebody locks it.

    The task starts again from what is stored, as often as it takes.
    """

    retriable = True


def open_store(
    path: Path, schema: Sequence[str], upgrade: Callable[[Connection], None] = lambda _: None
) -> Connection:
    """A connection without implicit transactions, to the file with what ``schema`` makes.

    ``upgrade`` adds what a table of an older version lacks. Raises SinkError for a file that is
    damaged, LogVersion for one of a newer version.
    """
    make_folder(path.parent, 0o700)
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        _prepare(connection, path, schema)
        upgrade(connection)
    except BaseException as error:
        connection.close()
        damaged = isinstance(error, sqlite3.DatabaseError)
        if damaged and not isinstance(error, sqlite3.OperationalError):
            raise SinkError(
                f"{path} is damaged: {error}",
                remedy="Move it away: the sink goes on from the offset that its target keeps,"
                " where that keeps one, and begins as a new one where not",
            ) from error
        raise
    return connection


def _prepare(connection: Connection, path: Path, schema: Sequence[str]) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise LogVersion(
            f"{path.name} has format {version}, this version knows {VERSION}",
            remedy="Use the version of cdc that wrote it, or a newer one.",
        )
    for statement in schema:
        connection.execute(statement)
    if version != VERSION:
        connection.execute(f"PRAGMA user_version = {VERSION}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around a transaction of a sink's store. Raises StoreUnavailable."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreUnavailable(
            f"{path.parent.name}/{path.name} cannot be written: {error}",
            remedy="Make room on its disk" if "full" in str(error) else "",
        ) from error
