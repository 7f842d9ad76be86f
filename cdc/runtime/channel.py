"""Messages between a worker and its task processes: JSON lines over two pipes.

The worker writes commands to the task's standard input, the task writes messages to a pipe
of its own (standard output belongs to the console sink). No records travel here. Either
end's death is the other's end of file.
"""

from __future__ import annotations

import os
import select
import threading
from typing import Any

import orjson

CHUNK_BYTES = 64 << 10


class Sender:
    """Writes messages from any thread."""

    def __init__(self, fd: int, patience_s: float | None = None) -> None:
        """``patience_s``: how long to wait for an other end that does not read."""
        self.fd = fd
        self.patience_s = patience_s
        self._lock = threading.Lock()
        self._broken = False  # half a message was sent: no other may follow it
        os.set_blocking(fd, False)

    def send(self, message: dict[str, Any], *, must: bool = True) -> bool:
        """Send one message; with ``must=False`` drop it when the other end is behind.

        Dropping suits what a later message repeats: wake-ups, metrics, positions. False when
        it was not sent; a dead other end is not an error here, its watcher sees to that.
        """
        line = orjson.dumps(message) + b"\n"
        if not must and len(line) > select.PIPE_BUF:
            must = True  # only short writes are all-or-nothing
        with self._lock:
            if self._broken:
                return False
            whole = len(line)
            while line:
                try:
                    line = line[os.write(self.fd, line) :]
                except BlockingIOError:
                    if not must:
                        return False
                    if not select.select([], [self.fd], [], self.patience_s)[1]:
                        self._broken = len(line) < whole
                        return False
                except (ValueError, OSError):  # closed, or nobody at the other end
                    self._broken = True
                    return False
        return True

    def close(self) -> None:
        """Close the pipe."""
        with self._lock:
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1


class Receiver:
    """Reads messages; for use with a selector."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.ended = False
        self._rest = b""
        os.set_blocking(fd, False)

    def receive(self) -> list[dict[str, Any]]:
        """What has come so far; sets ``ended`` at the end of file."""
        pieces = [self._rest]
        while True:
            try:
                piece = os.read(self.fd, CHUNK_BYTES)
            except BlockingIOError:
                break
            if not piece:
                self.ended = True
                break
            pieces.append(piece)
        *lines, self._rest = b"".join(pieces).split(b"\n")
        return [orjson.loads(line) for line in lines]

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.fd)
