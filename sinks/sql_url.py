"""The SQL sink's ``connection.url``: ``jdbc:``, libpq's and SQLAlchemy's spellings of one thing."""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from cdc.errors import ConfigError

log = logging.getLogger(__name__)

# Parameters of pgjdbc that libpq knows too, under its own names.
_JDBC_TO_LIBPQ: Final = {
    "user": "user",
    "password": "password",
    "ApplicationName": "application_name",
    "connectTimeout": "connect_timeout",
    "sslmode": "sslmode",
    "sslcert": "sslcert",
    "sslkey": "sslkey",
    "sslrootcert": "sslrootcert",
    "targetServerType": "target_session_attrs",
    "options": "options",
}
_SERVER_TYPES: Final = {
    "any": "any",
    "primary": "read-write",
    "secondary": "standby",
    "preferSecondary": "prefer-standby",
}
_DRIVERS: Final = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


def parse_url(text: str, user: str | None, password: str | None) -> URL:
    """SQLAlchemy's URL; ``user`` and ``password`` come from their own keys. No I/O."""
    try:
        url = _from_jdbc(text[5:]) if text.lower().startswith("jdbc:") else make_url(text)
    except (ArgumentError, ValueError):
        # The cause would repeat the URL, and with it a password.
        raise ConfigError(
            "not a database URL",
            key="connection.url",
            remedy="Write jdbc:postgresql://host:5432/database or jdbc:sqlite:/path/file.db",
        ) from None
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.get_backend_name() not in ("postgresql", "sqlite"):
        raise ConfigError(
            f"{url.get_backend_name()} is no target of the SQL sink yet",
            key="connection.url",
            remedy="Use PostgreSQL or SQLite",
        )
    if user:
        url = url.set(username=user)
    return url.set(password=password) if password else url


def _from_jdbc(text: str) -> URL:
    scheme, _, rest = text.partition(":")
    if scheme.lower() == "sqlite":
        return URL.create("sqlite", database=rest.partition("?")[0] or None)
    parts = urlsplit(text)
    query: dict[str, str | tuple[str, ...]] = {}
    login: dict[str, str] = {}
    for name, value in parse_qsl(parts.query):
        _add_parameter(name, value, query, login)
    user, password = login.get("username"), login.get("password")
    hosts = [host.rpartition("@")[2] for host in parts.netloc.split(",") if host]
    database = parts.path.lstrip("/") or None
    if len(hosts) > 1:
        query["host"] = tuple(hosts)
        return URL.create(scheme, user, password, database=database, query=query)
    return URL.create(scheme, user, password, parts.hostname, parts.port, database, query)


def _add_parameter(
    name: str, value: str, query: dict[str, str | tuple[str, ...]], login: dict[str, str]
) -> None:
    if name == "user":
        login["username"] = value
    elif name == "password":
        login["password"] = value
    elif name == "currentSchema":
        query["options"] = f"-csearch_path={value}"
    elif name == "ssl":
        # pgjdbc's ssl=true verifies the certificate and the host's name.
        query["sslmode"] = "verify-full" if value.lower() != "false" else "disable"
    elif name == "targetServerType":
        query["target_session_attrs"] = _SERVER_TYPES.get(value, "any")
    elif name in _JDBC_TO_LIBPQ:
        query[_JDBC_TO_LIBPQ[name]] = value
    else:
        log.warning("connection.url: parameter %s of the JDBC driver is ignored", name)
