"""A server of one test's own, used like a :class:`tests.fix_postgres.Database`; a pooler."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from cdc.demo.postgres import PASSWORD, free_port
from tests.guard import guarded
from tests.pipeline import until
from tests.servers import give_up


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


def replaced(dsn: str, **parts: Any) -> str:
    url = urlsplit(dsn)
    host, port = parts.get("host", url.hostname), parts.get("port", url.port)
    user, password = parts.get("user", url.username), parts.get("password", url.password)
    path = parts.get("path", url.path)
    return urlunsplit(url._replace(netloc=f"{user}:{password}@{host}:{port}", path=path))


@contextmanager
def pgbouncer(database: Any, folder: Path) -> Iterator[int]:
    """A real one, where it is installed."""
    program = shutil.which("pgbouncer", path=os.environ["PATH"] + ":/usr/sbin")
    if program is None:
        give_up("pgbouncer is not installed")
    url, port = urlsplit(database.dsn), free_port()
    users = folder / "users.txt"
    users.write_text(f'"postgres" "{PASSWORD}"\n')
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host=127.0.0.1 port={url.port}\n[pgbouncer]\nlisten_addr=127.0.0.1\n"
        f"listen_port={port}\nauth_type=plain\nauth_file={users}\nunix_socket_dir=\n"
        "pool_mode=transaction\n"
    )
    for path in (*reversed(folder.parents), folder, users, config):
        if str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | 0o055 if path.is_dir() else 0o644)
    command = [program, "-u", "nobody", str(config)] if os.geteuid() == 0 else [program, config]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        guarded(process)
        try:
            until(lambda: answers(port), "pgbouncer")
            yield port
        finally:
            process.kill()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
