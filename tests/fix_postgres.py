"""Fixtures of PostgreSQL: a shared server per version, a database per test.

A test asks for ``database`` and gets a fresh one; ``@pytest.mark.postgres_versions(12, 18)``
runs it once per version. A test that stops, crashes or configures its server asks for
``start_postgres`` and gets one of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
import pytest
from psycopg import sql

from cdc.demo.postgres import PASSWORD, PostgresServer, ServerError, SettingValue
from tests import servers
from tests.servers import Server, Unavailable

DEFAULT_MAJOR = 18
DROP_TIMEOUT_S = 10.0
_numbers = itertools.count(1)

# Throw-away clusters: an fsync protects nothing there. A test of a crash of the machine
# (not of a process) would start its own with fsync=True.
SHARED_SETTINGS: Mapping[str, SettingValue] = {
    "fsync": False,
    "max_wal_senders": 50,
    "max_replication_slots": 50,
    "max_connections": 200,
}

StartPostgres = Callable[..., PostgresServer]


class Database:
    """A database of one test on a shared server."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self._roles: list[str] = []

    @property
    def dsn(self) -> str:
        """Its URL by TCP, as superuser with a password."""
        return self.server.dsn(self.name)

    @property
    def socket_dsn(self) -> str:
        """Its URL by Unix socket."""
        return self.server.dsn(self.name, host="unix")

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """A psycopg 3 connection with autocommit; ``options`` go to ``psycopg.connect``."""
        return psycopg.connect(self.dsn, **{"autocommit": True, **options})

    def execute(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """One statement on a connection of its own, and its rows if it has any."""
        with self.connect() as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def create_role(self, options: str = "LOGIN", *, password: str = PASSWORD) -> str:
        """A role of this test's own, dropped with the database; returns its name."""
        name = f"role_{self.name}_{len(self._roles)}"
        command = sql.SQL("CREATE ROLE {} {} PASSWORD {}").format(
            sql.Identifier(name), sql.SQL(options), sql.Literal(password)
        )
        with self.connect() as connection:
            connection.execute(command)
        self._roles.append(name)
        return name

    def create(self, options: str = "") -> None:
        """Create it, empty."""
        command = sql.SQL("CREATE DATABASE {} {}").format(
            sql.Identifier(self.name), sql.SQL(options)
        )
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            connection.execute(command)

    def drop(self) -> None:
        """Drop its slots, whoever holds them, itself, and its roles."""
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            deadline = time.monotonic() + DROP_TIMEOUT_S
            while True:
                try:
                    self._drop_slots(connection)
                    self._disconnect(connection)
                    connection.execute(
                        sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(self.name))
                    )
                    break
                except psycopg.errors.ObjectInUse:
                    # A backend that was told to go takes a moment, and a client that
                    # reconnects may be back in between.
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
            for role in self._roles:
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))

    def _drop_slots(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
            " WHERE database = %s AND active_pid IS NOT NULL",
            [self.name],
        )
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
            " WHERE database = %s AND NOT temporary",
            [self.name],
        )

    def _disconnect(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [self.name],
        )


class ServerPool:
    """The session's shared servers, started when first asked for."""

    def __init__(self) -> None:
        self._servers: dict[int, Server] = {}
        self._stack = contextlib.ExitStack()

    def get(self, major: int) -> Server:
        """The server of this version; a test that cannot have it ends here."""
        if major not in self._servers:
            try:
                self._servers[major] = self._start(major)
            except Unavailable as error:
                servers.give_up(str(error))
        server = self._servers[major]
        if isinstance(server, PostgresServer) and not server.running:
            server.start()  # the test before may have killed it
        return server

    def _start(self, major: int) -> Server:
        found = servers.find(major)
        if found.kind == "url":
            return servers.ExternalServer(servers.urls()[major])
        if found.bin_dir is None:
            server, container = servers.start_container(major)
            self._stack.callback(container.stop)
            return server
        try:
            return self._stack.enter_context(
                PostgresServer(found.bin_dir, settings=SHARED_SETTINGS)
            )
        except ServerError as error:
            raise Unavailable(f"{found}: {error}") from error

    def close(self) -> None:
        """Stop them all."""
        self._stack.close()


# --- hooks ------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--postgres 15`` runs what names no version on another one."""
    parser.addoption(
        "--postgres",
        type=int,
        metavar="MAJOR",
        help=f"PostgreSQL version of tests that name none (default {DEFAULT_MAJOR}, or that"
        f" of the first server in {servers.URL_VARIABLE})",
    )


def pytest_configure(config: pytest.Config) -> None:
    """A server that was named and cannot be used is a mistake, not a reason to go elsewhere."""
    try:
        servers.urls()
    except (Unavailable, psycopg.Error) as error:
        raise pytest.UsageError(f"{servers.URL_VARIABLE}: {error}") from error


def pytest_report_header(config: pytest.Config) -> str:
    """What is there, and where it comes from."""
    return "PostgreSQL: " + ", ".join(servers.survey())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run per version that the marker names."""
    marker = metafunc.definition.get_closest_marker("postgres_versions")
    if marker and "postgres_major" in metafunc.fixturenames:
        names = [f"pg{major}" for major in marker.args]
        metafunc.parametrize(
            "postgres_major", marker.args, ids=names, scope="session", indirect=True
        )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests a missing server has cost, and why."""
    counts: dict[str, int] = {}
    for outcome in ("skipped", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            text = report.longrepr[2] if outcome == "skipped" else report.longreprtext
            _, found, reason = str(text).partition(servers.NO_SERVER)
            if found:
                reason = reason.strip().partition("\n")[0]
                counts[reason] = counts.get(reason, 0) + 1
    if counts:
        terminalreporter.section("tests without their server")
        for reason, count in sorted(counts.items()):
            terminalreporter.write_line(f"{count:5d}  {reason}")


# --- fixtures ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_pool() -> Iterator[ServerPool]:
    """The shared servers by version, for a test that wants several: ``.get(15)``."""
    pool = ServerPool()
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def postgres_major(request: pytest.FixtureRequest) -> int:
    """The version the test runs on: the marker's, the command line's, or the default."""
    marked = getattr(request, "param", None)
    return (
        marked or request.config.getoption("postgres") or next(iter(servers.urls()), DEFAULT_MAJOR)
    )


@pytest.fixture(scope="session")
def postgres_server(postgres_pool: ServerPool, postgres_major: int) -> Server:
    """A server shared by the session: make databases in it, do not stop or configure it."""
    return postgres_pool.get(postgres_major)


@pytest.fixture
def database(postgres_server: Server) -> Iterator[Database]:
    """A fresh database; dropped at the end with its slots and roles, whoever is connected."""
    fresh = Database(postgres_server, f"test_{os.getpid()}_{next(_numbers)}")
    fresh.create()
    yield fresh
    fresh.drop()


@pytest.fixture
def copy_database(database: Database) -> Iterator[Database]:
    """A second database beside the first, for what is copied."""
    other = Database(database.server, f"{database.name}_copy")
    other.create()
    yield other
    other.drop()


@pytest.fixture
def ascii_database(postgres_server: Server) -> Iterator[Database]:
    """A database that takes any bytes as text."""
    fresh = Database(postgres_server, f"test_{os.getpid()}_{next(_numbers)}")
    fresh.create("ENCODING SQL_ASCII TEMPLATE template0")
    yield fresh
    fresh.drop()


@pytest.fixture
def start_postgres(postgres_major: int) -> Iterator[StartPostgres]:
    """``start_postgres(major=None, **settings)``: a server of the test's own, to be killed."""
    with contextlib.ExitStack() as stack:

        def start(major: int | None = None, **settings: SettingValue) -> PostgresServer:
            try:
                found = servers.find_binaries(major or postgres_major)
            except Unavailable as error:
                servers.give_up(str(error))
            assert found.bin_dir is not None
            return stack.enter_context(PostgresServer(found.bin_dir, settings=settings))

        yield start
