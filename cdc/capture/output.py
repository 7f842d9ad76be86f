"""Output: where lines go, a regular file, a pipe or a device.

A regular file never ends in half a batch while we live: what could not be written whole is
cut off again. A pipe is written in pieces that cannot block, so that a reader that hangs
does not keep us from ending.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
import time
from pathlib import Path

from cdc.durable import NO_SPACE, sync
from cdc.errors import ConfigError, LogError, LogFull

STDOUT = "-"
# A pipe that is ready for writing takes this much without blocking (POSIX: PIPE_BUF).
PIECE_BYTES = select.PIPE_BUF
READY_MS = 200
# How long a stop waits for a reader that takes nothing.
GRACE_S = 5.0


class ReaderGone(Exception):
    """Nobody reads the pipe any more: no error, whoever read it has enough."""


class Output:
    """One output. ``length`` counts a regular file's bytes that are written whole."""

    def __init__(self, target: str, *, keep: bool = False, length: int | None = None) -> None:
        """``keep``: write behind what is there; ``length``: cut it to this first."""
        self.name = "standard output" if target == STDOUT else target
        self.stopping = threading.Event()
        try:
            self._fd = _open(target, keep=keep)
        except OSError as error:
            raise ConfigError(
                f"{target} cannot be written: {error.strerror}", key="--output",
                remedy="Name a file in a folder that exists and may be written",
            ) from None  # fmt: skip
        mode = os.fstat(self._fd).st_mode
        self.is_file = target != STDOUT and stat.S_ISREG(mode)
        self._pipe = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self.length = os.fstat(self._fd).st_size if self.is_file else 0
        self._synced = -1
        if length is not None:
            self._cut(length)

    def _cut(self, length: int) -> None:
        """To what the state covers: the rest is read from the database again."""
        if self.length < length:
            found, self.length = self.length, 0
            self.close()
            raise LogError(
                f"{self.name} has {found} bytes, and the state says that {length} were written",
                remedy="put the file back; or give another --output, where the events go on",
            )
        os.ftruncate(self._fd, length)
        self.length = os.lseek(self._fd, length, os.SEEK_SET)

    def write(self, data: bytes) -> None:
        """All of ``data``. Raises LogFull (nothing of it is there), LogError or ReaderGone."""
        if self.is_file:
            self._write_file(data)
        else:
            self._write_stream(data)

    def _write_file(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            os.ftruncate(self._fd, self.length)
            os.lseek(self._fd, self.length, os.SEEK_SET)
            raise self._failure(error) from None
        self.length += len(data)

    def _failure(self, error: OSError) -> LogError:
        problem = f"{self.name} cannot be written: {error.strerror}"
        if error.errno in NO_SPACE:
            return LogFull(problem, remedy="make room; nothing is lost meanwhile")
        if error.errno == errno.EFBIG:
            return LogError(problem, remedy="raise the limit of file sizes (ulimit -f)")
        return LogError(problem)

    def _write_stream(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            if self._pipe:
                self._wait_until_ready()
            try:
                rest = rest[os.write(self._fd, rest[:PIECE_BYTES] if self._pipe else rest) :]
            except BrokenPipeError:
                raise ReaderGone from None
            except BlockingIOError:  # somebody made it non-blocking
                time.sleep(READY_MS / 1000)
            except OSError as error:
                # some of it may be out: to write it again would double it
                raise LogError(str(self._failure(error))) from None

    def _wait_until_ready(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        deadline: float | None = None
        while not poll.poll(READY_MS):
            if self.stopping.is_set():
                deadline = deadline or time.monotonic() + GRACE_S
                if time.monotonic() > deadline:
                    raise LogError(f"the reader of {self.name} takes nothing: gave up at the end")

    def check_reader(self) -> None:
        """Raises ReaderGone as soon as a pipe's reader is gone, though there is nothing to say."""
        if self._pipe:
            poll = select.poll()
            poll.register(self._fd, 0)
            if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
                raise ReaderGone

    def sync(self) -> None:
        """What was written is on disk, as far as there is one."""
        if self.is_file and self._synced != self.length:
            os.fsync(self._fd)
            self._synced = self.length

    def close(self) -> None:
        """Release it."""
        os.close(self._fd)


def _open(target: str, *, keep: bool) -> int:
    if target == STDOUT:
        return os.dup(1)
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    path = Path(target)
    fresh = not path.exists()
    fd = os.open(path, flags if keep else flags | os.O_TRUNC, 0o600)  # rows: for nobody else
    if keep:
        os.lseek(fd, 0, os.SEEK_END) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    if fresh:
        sync(path.resolve().parent)
    return fd
