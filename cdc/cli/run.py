"""``cdc run``: a worker with its REST API, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cdc.cli.common import add_data_dir, data_dir
from cdc.config import Config
from cdc.configfile import ConfigFile, read_file
from cdc.errors import CdcError, ConfigError
from cdc.runtime.config import worker_config
from cdc.runtime.state import DataDir, Saved

log = logging.getLogger(__name__)

EXAMPLES = """\
examples:
  cdc run shop.json console.json
  cdc run --data-dir /var/lib/cdc --listen 0.0.0.0:8083 worker.properties shop.json

A file with a `name` configures a connector, one without configures the worker. JSON,
properties, YAML and TOML are read; the keys are Kafka Connect's and Debezium's.
"""
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s (%(name)s)"
HTTP_GRACE_S = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add_data_dir(parser)
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="where the REST API listens; it has no password (127.0.0.1:8083)",
    )
    parser.add_argument("files", nargs="*", metavar="FILE", type=Path, help="configuration")
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """Run until told to stop."""
    level = "DEBUG" if args.verbose else "INFO"
    logging.basicConfig(level=level, format=LOG_FORMAT, stream=sys.stderr)
    worker_texts, connectors = read_files(args.files)
    config = worker_config(worker_texts)
    for warning in config.warnings:
        log.warning("%s", warning)
    host, port = listen_address(args.listen, config)
    data = data_dir(args)
    with data.lock(), listen(host, port) as sock:
        serve(data, config, connectors, sock, level)
    return 0


def read_files(paths: list[Path]) -> tuple[dict[str, str], list[Saved]]:
    """The worker's keys, and the connectors. Raises ConfigError for doubles."""
    from cdc.runtime.worker import INITIAL_STATES

    worker: dict[str, str] = {}
    connectors: dict[str, Saved] = {}
    for path in paths:
        file: ConfigFile = read_file(path)
        if not file.is_connector:
            worker |= file.config
            continue
        if file.name in connectors:
            raise ConfigError(f"{path}: connector {file.name} is in another file too", key="name")
        target = INITIAL_STATES.get(file.initial_state.upper())
        if target is None:
            raise ConfigError(
                f"{path}: {file.initial_state} is none of {', '.join(INITIAL_STATES)}",
                key="initial_state",
            )
        connectors[file.name] = Saved(file.name, dict(file.config), target)
    return worker, list(connectors.values())


def listen_address(argument: str | None, config: Config) -> tuple[str, int]:
    """``--listen``, else what ``listeners`` says."""
    if argument is None and len(config["listeners"]) != 1:
        raise ConfigError(
            f"{len(config['listeners'])} listeners are given, and one is served",
            key="listeners",
            remedy="Name one, as in listeners=http://127.0.0.1:8083, or give --listen.",
        )
    text = f"http://{argument}" if argument is not None else config["listeners"][0]
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        port = None
    if port is None:
        key = "listeners" if argument is None else "--listen"
        raise ConfigError(f"{text.removeprefix('http://')} is not HOST:PORT", key=key)
    return parts.hostname or ("127.0.0.1" if argument is not None else ""), port


@contextlib.contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket: an address that is taken is refused before anything starts."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on: {error.strerror}",
            key="--listen",
            remedy="Name another HOST:PORT; port 0 takes any that is free.",
        ) from error
    with sock:
        yield sock


def serve(
    data: DataDir, config: Config, connectors: list[Saved], sock: socket.socket, level: str
) -> None:
    """The worker and its HTTP side, in this thread, until a signal."""
    import uvicorn

    from cdc.runtime.rest import app
    from cdc.runtime.worker import Worker, settings_of

    address, port = sock.getsockname()[:2]
    shown = "127.0.0.1" if address in ("0.0.0.0", "::") else address  # noqa: S104 - a comparison
    host = config["rest.advertised.host.name"] or shown
    worker = Worker(
        data, settings_of(config, level), f"{host}:{config['rest.advertised.port'] or port}"
    )

    class Server(uvicorn.Server):
        """Signals are ours: the tasks begin to stop at the same moment."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    server = Server(
        uvicorn.Config(
            app(worker),
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=HTTP_GRACE_S,
        )
    )
    server.config.load()
    logging.getLogger("uvicorn.error").setLevel("WARNING")

    def end(*_: object) -> None:
        server.should_exit = True
        worker.begin_close()

    worker.supervisor.on_failure = end
    before: dict[int, Any] = {s: signal.signal(s, end) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        worker.start(connectors)
        bracketed = f"[{shown}]" if ":" in shown else shown
        url = f"http://{bracketed}:{port}"
        data.announce(url)
        log.info("worker ready at %s, data in %s", url, data.path)
        server.run(sockets=[sock])
    finally:
        worker.close()
        data.withdraw()
        for number, handler in before.items():
            signal.signal(number, handler)
    failure = worker.supervisor.failure
    if failure is not None:
        raise CdcError(
            f"the worker has failed: {type(failure).__name__}: {failure}",
            remedy="Start it again: what is durable stays, the rest is done again.",
        ) from failure
    log.info("worker ended")
