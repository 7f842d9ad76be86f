"""A TCP proxy that misbehaves on command: ``proxy(port)`` in front of a server.

Every connection has two threads, one a direction, that never block for longer than
``TICK_S``; so a command holds at the latest after that, and ``cut()`` has happened when it
returns.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import pytest

TICK_S = 0.05
CHUNK_BYTES = 65536
Direction = Literal["to_server", "to_client", "both"]
_SIDES: tuple[Direction, Direction] = ("to_server", "to_client")

MakeProxy = Callable[..., "Proxy"]


class Proxy:
    """Forwards a port of its own to a server's; see the methods for what can go wrong."""

    def __init__(self, server_port: int, server_host: str = "127.0.0.1") -> None:
        self.host = "127.0.0.1"
        self._server = (server_host, server_port)
        self._closed = threading.Event()
        self._flows = {side: threading.Event() for side in _SIDES}
        self.rate_bytes_per_second: int | None = None
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self.accepted = 0
        self.bytes_to_client = 0
        self.bytes_to_server = 0
        self._listener: socket.socket | None = None
        self.port = 0
        self.resume()
        self.accept()

    def url(self, url: str) -> str:
        """The same URL by way of the proxy."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}{self.host}:{self.port}"))

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._links)

    def cut(self) -> int:
        """Reset every open connection, on both sides, and say how many there were."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    def stall(self, direction: Direction = "both") -> None:
        """Let no byte through; connections stay open, new ones are made and hang too."""
        for side in _sides(direction):
            self._flows[side].clear()

    def resume(self, direction: Direction = "both") -> None:
        """End a stall or a trickle; what was held back flows on."""
        self.rate_bytes_per_second = None
        for side in _sides(direction):
            self._flows[side].set()

    def trickle(self, bytes_per_second: int) -> None:
        """Let through this much a second, per connection and direction, until ``resume()``."""
        self.rate_bytes_per_second = bytes_per_second

    def refuse(self) -> None:
        """Refuse new connections (ECONNREFUSED) until ``accept()``; open ones stay."""
        listener, self._listener = self._listener, None
        if listener:
            # Only shutdown wakes the thread in accept(); close alone would leave the
            # port open for one more connection.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            self._accepting.join()

    def accept(self) -> None:
        """Take new connections, on the same port as before."""
        if self._listener:
            return
        self._listener = socket.create_server((self.host, self.port), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._accepting = threading.Thread(
            target=self._serve, args=[self._listener], name="proxy-accept", daemon=True
        )
        self._accepting.start()

    def close(self) -> None:
        """Stop listening and reset everything."""
        self._closed.set()
        self.refuse()
        self.cut()

    # --- inside -----------------------------------------------------------------------

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # refuse() or close()
            self.accepted += 1
            try:
                server = socket.create_connection(self._server, timeout=5)
            except OSError:
                client.close()  # the server is away: the client sees its connection end
                continue
            link = _Link(self, client, server)
            with self._lock:
                self._links.add(link)
            link.start()

    def flows(self, side: Direction) -> threading.Event:
        """Set while bytes may pass in this direction."""
        return self._flows[side]

    def count(self, side: Direction, length: int) -> None:
        """Note bytes that have passed."""
        with self._lock:
            if side == "to_client":
                self.bytes_to_client += length
            else:
                self.bytes_to_server += length

    def forget(self, link: _Link) -> None:
        """Drop a connection that has ended."""
        with self._lock:
            self._links.discard(link)


class _Link:
    """One connection: two sockets, two threads."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._sockets = (client, server)
        for end in self._sockets:
            end.settimeout(TICK_S)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._dead = threading.Event()
        self._lock = threading.Lock()
        self._running = 2
        self._threads = [
            threading.Thread(target=self._pump, args=args, name=f"proxy-{args[0]}", daemon=True)
            for args in (("to_server", client, server), ("to_client", server, client))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def reset(self) -> None:
        """End it with RST, as a firewall or a crashed machine would, and wait for that."""
        for end in self._sockets:
            with contextlib.suppress(OSError):  # it may have ended by itself just now
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._dead.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _pump(self, side: Direction, source: socket.socket, target: socket.socket) -> None:
        try:
            while not self._dead.is_set():
                data = self._receive(side, source)
                if data is None:
                    continue
                if not data:
                    with contextlib.suppress(OSError):
                        target.shutdown(socket.SHUT_WR)
                    return
                self._send(side, target, data)
        except OSError:
            self._dead.set()
        finally:
            self._ended()

    def _receive(self, side: Direction, source: socket.socket) -> bytes | None:
        # Not reading while stalled is what makes the sender's buffers fill up.
        if not self._proxy.flows(side).wait(TICK_S):
            return None
        try:
            return source.recv(self._proxy.rate_bytes_per_second or CHUNK_BYTES)
        except TimeoutError:
            return None

    def _send(self, side: Direction, target: socket.socket, data: bytes) -> None:
        rest = memoryview(data)
        while rest and not self._dead.is_set():
            if not self._proxy.flows(side).wait(TICK_S):
                continue
            rate = self._proxy.rate_bytes_per_second
            piece = rest[: max(1, int(rate * TICK_S))] if rate else rest
            try:
                sent = target.send(piece)
            except TimeoutError:
                continue
            self._proxy.count(side, sent)
            rest = rest[sent:]
            if rate:
                time.sleep(sent / rate)

    def _ended(self) -> None:
        """The second thread to end closes both sockets; close() after linger 0 is a RST."""
        with self._lock:
            self._running -= 1
            if self._running:
                return
        for end in self._sockets:
            end.close()
        self._proxy.forget(self)


def _sides(direction: Direction) -> tuple[Direction, ...]:
    return _SIDES if direction == "both" else (direction,)


@pytest.fixture
def proxy() -> Iterator[MakeProxy]:
    """``proxy(server_port, server_host="127.0.0.1") -> Proxy``, closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(server_port: int, server_host: str = "127.0.0.1") -> Proxy:
            made = Proxy(server_port, server_host)
            stack.callback(made.close)
            return made

        yield make
