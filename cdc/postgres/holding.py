"""Holding: a table is locked against rewriting, and is the one that a snapshot shows.

ALTER TABLE and TRUNCATE give a table a new file in which an older snapshot sees nothing, and
by a rename another table may have its name, which is the one that would be read. What pg_class
shows is as of the snapshot, what the functions say is as of now. A lock lasts up to the end of
the transaction, or until a savepoint before it is rolled back; so the check does too.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.errors import LockNotAvailable, UndefinedTable

Conn = psycopg.Connection[Any]

# Who waits for a lock stands in the way of all who come later.
LOCK_TIMEOUT_MS: Final = 100


def hold(connection: Conn, relation: int, schema: str, name: str) -> bool:
    """Lock the table, in a snapshot's transaction; whether it is unchanged since the snapshot.

    Waits for who changes it now. Raises psycopg.Error; then the transaction has failed.
    """
    table = sql.Identifier(schema, name)
    connection.execute(sql.SQL("SELECT 1 FROM ONLY {} WHERE false").format(table))
    row = connection.execute(
        "SELECT relfilenode::int8 = pg_relation_filenode(oid)::int8 AND oid = to_regclass(%s)"
        " FROM pg_class WHERE oid = %s",
        [table.as_string(connection), relation],
    ).fetchone()
    return bool(row and row[0])


def hold_now(connection: Conn, relation: int, schema: str, name: str) -> bool:
    """As :func:`hold`, but False, and no lock, where that is not to be had soon."""
    try:
        with connection.transaction() as savepoint:
            connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}".encode())
            held = hold(connection, relation, schema, name)
            connection.execute("SET LOCAL lock_timeout = 0")
            if not held:
                raise psycopg.Rollback(savepoint)
    except (LockNotAvailable, UndefinedTable):
        return False
    return held
