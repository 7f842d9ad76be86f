"""Quoting: names inside the statements that an error or ``cdc check`` tells people to run.

What the engine itself runs is composed by :mod:`psycopg.sql`; this is the same for text.
"""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from schemas import TableId


def quoted(*parts: str) -> str:
    """One name of one or more parts: ``quoted("public", 'a"b')`` is ``"public"."a""b"``."""
    return sql.Identifier(*parts).as_string()


def quoted_tables(ids: Iterable[TableId], *, only: bool = False) -> str:
    """Tables, as a list in a statement has them; ``only``: without those that inherit."""
    return ", ".join(("ONLY " if only else "") + quoted(i.schema, i.table) for i in ids)
