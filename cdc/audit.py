"""Tell the audit sink who changes something, and why. Two lines in an application::

    from cdc import audit

    audit.set(connection, who="alice@example.org", why="ticket 4711")

The connection is one of psycopg (2 or 3), SQLAlchemy (Connection or Session) or Django, with
a transaction open or about to be opened by its next statement. What is sent is a logical
decoding message, ``pg_logical_emit_message(true, 'cdc.audit', …)``: it travels in the WAL
with the transaction, vanishes with its rollback, and writes to no table. It holds for all
changes of the transaction; sent again, for the changes that follow. Where a connection is
none of these (asyncpg, async sessions, other languages), run :func:`statement` yourself.
"""

from __future__ import annotations

import json
from typing import Any, Final

from cdc.errors import CdcError

__all__ = ["SQL", "NoTransaction", "set", "statement"]

SQL: Final = "SELECT pg_logical_emit_message(true, 'cdc.audit', %s::text)"
_IDLE: Final = 0  # libpq's PQTRANS_IDLE, in both psycopgs


class NoTransaction(CdcError):
    """The message would be a transaction of its own, and speak of no change."""

    def __init__(self) -> None:
        super().__init__(
            "the connection commits every statement by itself",
            remedy="Call audit.set inside a transaction, beside the changes it speaks of.",
        )


def statement(who: str | None = None, why: str | None = None) -> tuple[str, tuple[str]]:
    """The statement and its parameters, in psycopg's style."""
    said = {"who": who, "why": why}
    return SQL, (json.dumps({name: text for name, text in said.items() if text is not None}),)


def set(connection: Any, *, who: str | None = None, why: str | None = None) -> None:  # noqa: A001
    """Say it for the open transaction. Raises NoTransaction where there can be none."""
    sql, parameters = statement(who, why)
    if hasattr(connection, "get_bind") and hasattr(connection, "connection"):
        connection = connection.connection()  # a Session of SQLAlchemy
    if hasattr(connection, "exec_driver_sql"):
        _require_transaction(getattr(connection.connection, "driver_connection", None))
        connection.exec_driver_sql(sql, parameters)
        return
    if hasattr(connection, "in_atomic_block"):  # Django
        if connection.get_autocommit() and not connection.in_atomic_block:
            raise NoTransaction
    else:
        _require_transaction(connection)
    cursor = connection.cursor()
    try:
        cursor.execute(sql, parameters)
    finally:
        cursor.close()


def _require_transaction(connection: Any) -> None:
    """The driver's own connection, of whichever psycopg."""
    if not getattr(connection, "autocommit", False):
        return
    info = getattr(connection, "info", None)
    if int(getattr(info, "transaction_status", _IDLE)) == _IDLE:
        raise NoTransaction
