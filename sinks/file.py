"""File sink: JSON lines, appended to one file, rotated by size or age; exactly once.

Every ``put`` is one ``write`` of whole lines, and ``flush`` makes the file durable first and
then replaces the sidecar ``<file>.state.json``, which holds the file's length and the
offset, in each journal that is read, that belongs to it. A restart cuts the file back to that
length, so that lines of an unfinished ``put`` vanish and no line is there twice. A full disk
cuts the file back at once.

What a reader sees: every line up to the last newline is whole, and what follows that is the
beginning of a line whose ``write`` is under way. No file system shows an append as a whole:
ext4 moves the file's end page by page (a reader beside a busy sink met half a line at the
end in 2 looks of 100, and in 2 of 100,000 with a ``write`` for every line). So a reader takes
lines up to the last newline, as every follower of logs does. It can see lines that a crash
takes back and the restart writes again; rotated files (``<file>.000001`` and up) end with a
newline and never change any more. A file that somebody else removes or moves away is an error
at the next flush; what it was given since the last one is written again. Rows are nobody else's:
files are made with mode 0600, and a file that follows a rotated one takes over its mode.

A replay appends the lines again, as does any replay into a log: the file's history is kept.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from cdc import failpoints
from cdc.api import SinkContext, SinkTask
from cdc.block import Block
from cdc.config import REQUIRED, Config, ConfigDef, Key, Kind, at_least, grouped
from cdc.converters import lines
from cdc.durable import NO_SPACE, lock, make_folder, no_file, write
from cdc.errors import ConfigError, SinkRejected, SinkUnavailable
from cdc.record import from_offset
from sinks.kept import Kept

STATE_VERSION = 2  # 1: no journals' names
MODE = 0o600

CONFIG = ConfigDef(
    grouped(
        "File",
        (
            Key(
                "file",
                default=REQUIRED,
                validator=no_file,
                doc="Path of the file that lines are appended to. While it grows, a reader takes"
                " lines up to the last newline; rotated files hold whole lines only.",
            ),
            Key(
                "file.rotate.bytes",
                Kind.LONG,
                validator=at_least(1),
                doc="Start a new file once this one has so many bytes; checked at every flush.",
            ),
            Key(
                "file.rotate.ms",
                Kind.LONG,
                validator=at_least(1),
                doc="Start a new file once this one's first line is so old; checked at every"
                " flush.",
            ),
            *lines.KEYS,
        ),
    )
)


@dataclass(frozen=True)
class _State:
    """What the sidecar holds. While a rotation is under way ``inode`` is to be ``rotated``.

    ``next_offset`` and ``epoch`` are those of ``journal``; see :class:`sinks.kept.Kept`.
    """

    next_offset: int | None = None
    epoch: int = 0
    journal: str | None = None
    others: Mapping[str, list[Any]] = field(default_factory=dict)
    length: int = 0
    begun_ms: int = 0
    files: int = 0
    rotated: str | None = None
    inode: int = 0
    version: int = STATE_VERSION


class FileSinkTask(SinkTask):
    """Appends lines; the target keeps the offset."""

    keeps_offset = True
    takes_records = True

    def __init__(self, config: Config) -> None:
        self._lines = lines.JsonLines.from_config(config)
        self._path = Path(config["file"]).absolute()
        self._state_path = self._path.with_name(self._path.name + ".state.json")
        self._rotate_bytes: int | None = config["file.rotate.bytes"]
        self._rotate_ms: int | None = config["file.rotate.ms"]
        self._state = _State()
        self._length = 0
        self._torn = False  # half a line is behind the length, and could not be cut
        self._fd = -1

    @classmethod
    def into(cls, config: Config, name: str) -> dict[str, str]:
        """A file beside the first."""
        path = Path(config["file"])
        return {"file": str(path.with_name(f"{path.stem}-{name}{path.suffix}"))}

    def start(self, context: SinkContext) -> None:  # noqa: ARG002 - part of the contract
        """Open the file, and cut it back to what the last flush made durable."""
        try:
            state = self._load()
            finished = None if state is None else self._finish_rotation(state)
            self._open()
            size = os.fstat(self._fd).st_size
            if finished is None:
                # Lines that were there before us stay; the state knows the length from now on.
                finished = _State(length=size)
            if finished != state:
                self._save(finished)
            self._cut(finished, size)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise self._unavailable(error) from error
            raise ConfigError(
                f"{self._path} cannot be written: {error.strerror}",
                key="file",
                remedy="Name a file in a folder that this user may write to",
            ) from error

    def turn_to(self, journal: str, *, unnamed: bool = False) -> bool:
        """Each journal has an offset in the sidecar."""
        state = self._state
        kept = Kept(state.next_offset, state.epoch, None, state.journal, state.others)
        kept = kept.turned_to(journal, unnamed=unnamed)
        self._state = replace(
            state,
            next_offset=kept.offset,
            epoch=kept.epoch,
            journal=kept.journal,
            others=kept.others,
        )
        return True

    def stored_offset(self) -> int | None:
        """The sidecar's offset; None before the first flush."""
        return self._state.next_offset

    def put(self, block: Block) -> None:
        """Append a block's lines, all of them or none."""
        rest = from_offset(block, self._state.next_offset or 0)
        data = b"".join(self._lines.render(rest)) if rest else b""
        if not data:
            return
        if not self._length:
            self._state = replace(self._state, begun_ms=_now_ms())
        try:
            if self._torn:
                self._mend()
            written = os.write(self._fd, data)
            while written < len(data):  # a signal, or a disk that is about to be full
                written += os.write(self._fd, memoryview(data)[written:])
        except OSError as error:
            self._torn = True
            with contextlib.suppress(OSError):  # the next put tries again, before its lines
                self._mend()
            raise self._unavailable(error) from error
        self._length += len(data)

    def flush(self, offset: int) -> None:
        """Data to disk, then the state, then rotate if it is time.

        An OSError of fsync is not caught: the kernel may have dropped the data already, so
        only a restart, which cuts the file and writes the lines again, mends it.
        """
        if self._length != self._state.length:
            os.fsync(self._fd)
            self._check_place()
            failpoints.hit("file.flush.before_state")
        if offset != self._state.next_offset or self._length != self._state.length:
            self._save(replace(self._state, next_offset=offset, length=self._length))
        if self._is_time_to_rotate():
            self._rotate()

    def stored_epoch(self) -> int:
        """The newest ``seek``'s."""
        return self._state.epoch

    def seek(self, offset: int, epoch: int) -> None:
        """Continue from another offset; lines that are there stay, those just put as well."""
        if epoch <= self._state.epoch:
            return
        if self._length != self._state.length:
            os.fsync(self._fd)
        self._save(replace(self._state, next_offset=offset, epoch=epoch, length=self._length))

    def stop(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _check_place(self) -> None:
        """A file that somebody removed or moved takes lines that nobody will ever read."""
        if _inode(self._path) != os.fstat(self._fd).st_ino:
            raise SinkRejected(
                f"{self._path} was removed or replaced while it was written",
                remedy=f"Put it back; or remove {self._state_path.name}, and reset the connector's"
                " offsets, to start anew. To have files cut, set file.rotate.bytes",
            )

    def _mend(self) -> None:
        os.ftruncate(self._fd, self._length)
        self._torn = False

    def _unavailable(self, error: OSError) -> SinkUnavailable:
        return SinkUnavailable(
            f"{self._path} cannot be written: {error.strerror}",
            remedy="Make room on the disk; the lines are then written again",
        )

    # --- opening ---

    def _open(self) -> None:
        make_folder(self._path.parent)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self._path, flags, MODE)
        if not lock(fd):
            os.close(fd)
            raise SinkUnavailable(
                f"another process writes {self._path}",
                remedy="Give every connector a file of its own",
            )
        self.stop()
        self._fd = fd

    def _cut(self, state: _State, size: int) -> None:
        if size < state.length:
            raise SinkRejected(
                f"{self._path} has {size} bytes but had {state.length} at the last flush",
                remedy=f"Restore it, or remove {self._state_path.name} to start anew",
            )
        if size > state.length:
            os.ftruncate(self._fd, state.length)
        self._length, self._state = state.length, state

    # --- state ---

    def _load(self) -> _State | None:
        try:
            raw = orjson.loads(self._state_path.read_bytes())
            if raw["version"] > STATE_VERSION:
                raise ConfigError(
                    f"{self._state_path} was written by a newer version", remedy="Upgrade this one"
                )
            return _State(**{**raw, "version": STATE_VERSION})
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError) as error:
            raise SinkRejected(
                f"{self._state_path} is damaged: {error}",
                remedy="Restore it; or remove it, and reset the connector's offsets, to start anew",
            ) from None

    def _save(self, state: _State) -> None:
        """Replace the sidecar: on return it is on disk. A full disk leaves the old one."""
        try:
            write(self._state_path, orjson.dumps(asdict(state)), "file.state")
        except OSError as error:
            if error.errno in NO_SPACE:
                raise self._unavailable(error) from error
            raise
        self._state = state

    # --- rotation ---

    def _is_time_to_rotate(self) -> bool:
        if not self._length or self._torn:
            return False
        if self._rotate_bytes is not None and self._length >= self._rotate_bytes:
            return True
        age_ms = _now_ms() - self._state.begun_ms
        return self._rotate_ms is not None and age_ms >= self._rotate_ms

    def _rotate(self) -> None:
        """Say what is about to happen, do it, say that it is done: a crash can hit between."""
        number = self._state.files + 1
        name = f"{self._path.name}.{number:06d}"
        old = os.fstat(self._fd)
        self._save(replace(self._state, length=0, files=number, rotated=name, inode=old.st_ino))
        failpoints.hit("file.rotate.before_rename")
        state = self._finish_rotation(self._state)
        failpoints.hit("file.rotate.after_rename")
        self._open()
        os.fchmod(self._fd, stat.S_IMODE(old.st_mode))
        self._length = 0
        self._save(state)

    def _finish_rotation(self, state: _State) -> _State:
        """Rename the file unless that was done before the crash; the caller saves the state."""
        if state.rotated is not None and _inode(self._path) == state.inode:
            self._path.replace(self._path.with_name(state.rotated))
        return replace(state, rotated=None, inode=0)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
