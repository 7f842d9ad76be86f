"""A server of one test's own, used like a :class:`tests.fix_postgres.Database`."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.pipeline import until


class Plain:
    """A database of a server that the test may kill."""

    def __init__(self, server: Any, name: str = "postgres", port: int | None = None) -> None:
        self.server, self.name = server, name
        self.dsn = server.dsn(name)

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn, **{"autocommit": True, **options})

    def execute(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def wait_s(self, seconds: float) -> None:
        """Let the server's clock go on by so much."""
        (begun,) = self.execute("SELECT clock_timestamp()")[0]
        passed = "SELECT clock_timestamp() - %s > make_interval(secs => %s)"
        until(lambda: self.execute(passed, [begun, seconds])[0][0], f"{seconds} s")
