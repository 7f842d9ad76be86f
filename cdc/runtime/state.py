"""The data folder: where everything is, what survives a restart, who may write.

::

    worker.lock           flock of the one worker (or command) that may change things
    worker.json           pid and URL of the running worker
    connectors/<c>.json   configuration and target state
    deleted/<c>.json      sources deleted whose slot may still live (see cdc drop)
    status/<c>.json       the last states seen, for when no worker runs
    journal/<source>/     a journal
    sinks/<c>.db          a sink's positions and dead letters
    replays/<c>/          replays into second targets, how far they are
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

import orjson

from cdc.durable import lock, make_folder, sync, write
from cdc.errors import ConfigError

VARIABLE = "CDC_DATA_DIR"
DEFAULT = "./cdc-data"
LOCK_PATIENCE_S = 1.0  # longer than anybody's probe

Target = Literal["STARTED", "PAUSED", "STOPPED"]
TARGETS: tuple[Target, ...] = ("STARTED", "PAUSED", "STOPPED")


log = logging.getLogger(__name__)


class DataDir:
    """The folder. Made on :meth:`prepare`, mode 0700."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path or os.environ.get(VARIABLE) or DEFAULT).absolute()

    def prepare(self) -> None:
        """Make what is missing. Raises ConfigError where that is not possible."""
        try:
            make_folder(self.path, 0o700)
            mode = stat.S_IMODE(self.path.stat().st_mode)
            if mode & 0o077:  # its owner may mean it so: a group that backs it up
                log.warning(
                    "%s has mode %o: others of this machine may read rows and passwords in it."
                    " To keep them out: chmod 700 %s",
                    self.path, mode, self.path,
                )  # fmt: skip
            for name in ("connectors", "deleted", "status", "journal", "sinks"):
                make_folder(self.path / name, 0o700)
            if not os.access(self.path, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied", str(self.path))
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def journal(self, source: str) -> Path:
        """A source's journal."""
        return self.path / "journal" / file_name(source)

    def sink(self, connector: str) -> Path:
        """A sink's positions."""
        return self.path / "sinks" / f"{file_name(connector)}.db"

    def journals(self) -> list[str]:
        """The sources that have a journal, running or not."""
        folder = self.path / "journal"
        if not folder.is_dir():
            return []
        # A volume has its lost+found, a desktop its .DS_Store: no source's folder is called so.
        own = (p for p in folder.iterdir() if file_name(unquote(p.name)) == p.name)
        return sorted(unquote(p.name) for p in own if p.is_dir())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The right to change this folder. Raises ConfigError when a worker has it."""
        self.prepare()
        path = self.path / "worker.lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:  # of a worker that another user ran
            raise _unwritable(path, error) from error
        try:
            if not _lock(fd):
                raise ConfigError(
                    f"{self.path} is in use by the worker with {self._holder()}",
                    key="--data-dir",
                    remedy="Stop that worker, or use another folder.",
                )
            self.withdraw()  # what a worker that was killed has left
            yield
        finally:
            os.close(fd)

    def _holder(self) -> str:
        worker = self.worker()
        return f"pid {worker['pid']} at {worker['url']}" if worker else "an unknown pid"

    def announce(self, url: str) -> None:
        """Write ``worker.json``: the commands find the worker there."""
        write_json(self.path / "worker.json", {"pid": os.getpid(), "url": url})

    def withdraw(self) -> None:
        """The worker ends in order."""
        (self.path / "worker.json").unlink(missing_ok=True)

    def worker(self) -> dict[str, Any] | None:
        """``worker.json``, whether its worker still runs or not."""
        return read_json(self.path / "worker.json")

    def running_worker(self) -> str | None:
        """The URL of the worker that holds the lock; None when none does."""
        try:
            fd = os.open(self.path / "worker.lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be read: {error.strerror}", key="--data-dir"
            ) from error
        try:
            # Shared: two probes agree, and a worker that starts meanwhile tries again.
            if lock(fd, shared=True):
                return None
            worker = self.worker()
            return worker["url"] if worker else None
        finally:
            os.close(fd)


@dataclass(slots=True)
class Saved:
    """A connector as it survives a restart."""

    name: str
    config: dict[str, str]
    target: Target = "STARTED"


@dataclass(slots=True)
class Store:
    """Connectors and their last states, as files."""

    data: DataDir
    _written: dict[str, bytes] = field(default_factory=dict)

    def _path(self, folder: str, name: str) -> Path:
        return self.data.path / folder / f"{file_name(name)}.json"

    def load(self) -> list[Saved]:
        """All connectors, by name."""
        return self._load("connectors")

    def deleted(self) -> list[Saved]:
        """Sources that were deleted without ``cdc drop``."""
        return self._load("deleted")

    def _load(self, folder: str) -> list[Saved]:
        paths = sorted((self.data.path / folder).glob("*.json"))
        raw = [content for path in paths if (content := read_json(path)) is not None]
        return [Saved(r["name"], r["config"], r.get("target", "STARTED")) for r in raw]

    def save(self, connector: Saved) -> None:
        """Durable on return."""
        content = {
            "name": connector.name,
            "config": connector.config,
            "target": connector.target,
        }
        write_json(self._path("connectors", connector.name), content)
        self.forget(connector.name)

    def delete(self, name: str, *, remember: bool) -> None:
        """Remove a connector; ``remember`` that something at its server may be left."""
        path = self._path("connectors", name)
        if remember and path.exists():
            path.replace(self._path("deleted", name))
            sync(self.data.path / "deleted")
        path.unlink(missing_ok=True)
        sync(path.parent)
        self._path("status", name).unlink(missing_ok=True)
        self._written.pop(name, None)

    def remember(self, saved: Saved) -> None:
        """As if it had been deleted: something at its server may be left. Durable on return."""
        write_json(self._path("deleted", saved.name), {"name": saved.name, "config": saved.config})

    def forget(self, name: str) -> None:
        """Nothing is left at the server of a deleted source."""
        path = self._path("deleted", name)
        if path.exists():
            path.unlink(missing_ok=True)
            sync(path.parent)

    def save_status(self, name: str, status: Mapping[str, Any]) -> None:
        """The last states seen; written only when they changed."""
        text = orjson.dumps(status)
        if self._written.get(name) != text:
            write_json(self._path("status", name), status)
            self._written[name] = text

    def status(self, name: str) -> dict[str, Any] | None:
        """The last states seen."""
        return read_json(self._path("status", name))


def file_name(name: str) -> str:
    """A connector's name as a file name: any name is one, and none leaves its folder."""
    quoted = quote(name, safe=" ")
    return quoted.replace(".", "%2E", 1) if quoted.startswith(".") else quoted


def write_json(path: Path, content: Any) -> None:
    """Replace a file durably: a reader or a crash sees the old content or the new one."""
    write(path, orjson.dumps(content, option=orjson.OPT_INDENT_2), "state.write")


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path} cannot be written: {error.strerror}",
        key="--data-dir",
        remedy=f"Name another folder with --data-dir or {VARIABLE}, or mend this one's owner and"
        " mode.",
    )


def _lock(fd: int) -> bool:
    """Take the lock, if need be after those who only look whether it is taken."""
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while not lock(fd):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a file of :func:`write_json`; None when there is none."""
    try:
        content: dict[str, Any] = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{path} is not JSON: {error}", remedy="Mend or remove it.") from error
    return content
