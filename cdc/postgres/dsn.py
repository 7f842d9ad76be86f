"""Between Debezium's connection keys, libpq's parameters and URLs.

Passwords go into the mapping that a driver takes, never into a text: not into argv, not
into an error. Without ``database.password`` libpq looks into PGPASSWORD, PGPASSFILE and
``driver.passfile`` itself.
"""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import Mapping
from typing import Final, NoReturn
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from cdc.config import Config, Secret
from cdc.errors import ConfigError
from cdc.postgres.config import LIBPQ
from cdc.secrets import mask_url

SCHEMES: Final = ("postgresql", "postgres")
SEEN_BY_OTHERS: Final = (
    "every user of this machine can see a password among a command's arguments, and the shell "
    "keeps it: use PGPASSFILE, --password-file or a config provider, ${env:…} or ${file:…}"
)
FORM: Final = "Write postgresql://user@host:5432/database; percent-encode special characters"

# libpq's name → Debezium's.
_KEYS: Final = {
    "host": "database.hostname",
    "port": "database.port",
    "user": "database.user",
    "password": "database.password",
    "dbname": "database.dbname",
    "sslmode": "database.sslmode",
    "sslcert": "database.sslcert",
    "sslkey": "database.sslkey",
    "sslpassword": "database.sslpassword",
    "sslrootcert": "database.sslrootcert",
}


def conninfo(config: Config) -> dict[str, str]:
    """The keyword arguments of psycopg's ``connect``, passwords in the clear.

    Never log it. A host that begins with ``/`` is the folder of a Unix socket.
    """
    found: dict[str, str] = {}
    for parameter, key in _KEYS.items():
        value = config[key]
        if value not in (None, "", Secret("")):
            found[parameter] = value.reveal() if isinstance(value, Secret) else str(value)
    if not config["database.tcpKeepAlive"]:
        found["keepalives"] = "0"
    for parameter in LIBPQ:
        value = config.get(f"driver.{parameter}")
        if value:
            found[parameter] = str(value)
    return found


def from_url(url: str, overrides: Mapping[str, str] | None = None) -> dict[str, str]:
    """Debezium's keys from ``postgresql://…``; ``overrides`` win.

    ``jdbc:postgresql://…`` is taken too. What the URL leaves out comes from PGHOST, PGPORT,
    PGUSER and PGDATABASE, then from libpq's rules, but for the host: that is localhost.
    """
    parts = _split(url)
    found = _defaults()
    found |= _place(parts)
    for name, value in _query(parts):
        key = "database.sslmode" if name == "ssl" else _KEYS.get(name)
        if key is None and name in LIBPQ:
            key = f"driver.{name}"
        if key is None:
            _fail(f"a parameter {name} cannot be given", "Use --set for the engine's own keys")
        found[key] = ("require" if value == "true" else "prefer") if name == "ssl" else value
    _port(found["database.port"])
    found |= overrides or {}
    found.setdefault("database.user", _login())
    found.setdefault("database.dbname", found["database.user"])
    return found


def warn_of_password(url: str | None, properties: Mapping[str, str]) -> None:
    """Tell a person who types a password where others can read it; scripts get no line."""
    typed = [text for name, text in properties.items() if name.endswith("password")]
    shown = bool(url) and mask_url(str(url)) != url
    if (shown or any(not text.startswith("${") for text in typed)) and sys.stderr.isatty():
        sys.stderr.write(f"WARNING: {SEEN_BY_OTHERS}\n")


def _split(url: str) -> SplitResult:
    text = url.strip().removeprefix("jdbc:")
    if not text.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
        scheme = re.match(r"([a-z0-9+.-]+):", text, re.IGNORECASE)
        known = " and ".join(f"{name}://" for name in SCHEMES)
        seen = f", not {scheme[1]}:" if scheme else ""
        _fail(f"a URL begins with {known}{seen}")
    if re.search(r"[\s\x00-\x1f]", text):
        _fail("there is white space in it")
    try:
        return urlsplit(text)
    except ValueError:  # its text quotes the URL
        _fail("host or address is malformed")


def _place(parts: SplitResult) -> dict[str, str]:
    login, _, place = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    if "," in place:
        _fail("it names several hosts", "Name one: a position belongs to one server's log")
    match = re.fullmatch(r"(\[[0-9a-fA-F:.%]+\]|[^:\[\]]*)(?::([^:]*))?", place)
    if match is None:
        _fail("host and port are malformed", "Write an IPv6 address in brackets: [::1]:5432")
    host, port = match[1].strip("[]"), match[2] or ""
    database = parts.path.removeprefix("/")
    if "/" in database or parts.fragment:
        _fail("there is a / or # too many")
    texts = {"user": user, "password": password, "host": host, "port": port, "dbname": database}
    return {_KEYS[name]: _decode(text) for name, text in texts.items() if text}


def _query(parts: SplitResult) -> list[tuple[str, str]]:
    try:
        return parse_qsl(parts.query.replace("+", "%2B"), strict_parsing=True, errors="strict") \
            if parts.query else []  # fmt: skip
    except ValueError:
        _fail("what follows the ? is malformed", "Write ?name=value&name=value")


def _decode(text: str) -> str:
    if re.search(r"%(?![0-9a-fA-F]{2})", text):
        _fail("a % is not followed by two hexadecimal digits", "Write a percent sign as %25")
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        _fail("percent-encoded bytes are not UTF-8")
    if "\0" in decoded:
        _fail("there is a zero byte in it")
    return decoded


def _port(text: str) -> None:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        # Not quoted: behind an @ that was not encoded it is part of the password.
        _fail("the port is not a number from 1 to 65535")


def _defaults() -> dict[str, str]:
    found = {"database.hostname": "localhost", "database.port": "5432"}
    variables = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
    for parameter, variable in variables.items():
        value = os.environ.get(variable)
        if value:
            found[_KEYS[parameter]] = value
    return found


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        _fail("it names no user", "Write postgresql://user@host/database")


def _fail(problem: str, remedy: str = FORM) -> NoReturn:
    raise ConfigError(f"the database's URL cannot be understood: {problem}", remedy=remedy)
