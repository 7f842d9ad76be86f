"""Which store of audit records a URL, or a path, names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cdc.errors import ConfigError
from sinks.audit_store import ParquetOptions, Store

PARQUET: Final = "parquet:"


def open_store(
    target: str,
    user: str | None = None,
    password: str | None = None,
    *,
    parquet: ParquetOptions | None = None,
    existing: bool = False,
) -> Store:
    """The store that a URL, or a path, names. ``existing``: only to be read."""
    if target.startswith(PARQUET):
        return _parquet(Path(target.removeprefix(PARQUET).removeprefix("//")), parquet, existing)
    if is_path(target):
        path = Path(target)
        if path.is_dir():
            return _parquet(path, parquet, existing)
        return _sqlite(str(path), existing)
    from sinks.sql_url import parse_url

    url = parse_url(target, user, password)
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ConfigError("name a file", key="connection.url", remedy="jdbc:sqlite:/a/b.db")
        return _sqlite(url.database, existing)
    from sinks.audit_postgres import PostgresStore

    return PostgresStore(url)


def is_path(target: str) -> bool:
    """Whether it is no URL, but a file's or a folder's path."""
    return "://" not in target and not target.startswith(("jdbc:", PARQUET))


def _sqlite(path: str, existing: bool) -> Store:
    from sinks.audit_sqlite import SqliteStore

    return SqliteStore(path, existing=existing)


def _parquet(folder: Path, options: ParquetOptions | None, existing: bool) -> Store:
    from sinks.audit_parquet import ParquetStore

    return ParquetStore(folder, options or ParquetOptions(), existing=existing)
