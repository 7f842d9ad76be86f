"""What several commands share: the data folder, and requests to a running worker."""

from __future__ import annotations

import argparse
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cdc.errors import CdcError, ConfigError
from cdc.runtime.state import DEFAULT, VARIABLE, DataDir

TIMEOUT_S = 90.0  # Connect's limit for one request
HTTP_BAD_REQUEST = 400


def add_data_dir(parser: argparse.ArgumentParser, *, nested: bool = False) -> None:
    """``--data-dir``, on every command that needs the folder.

    ``nested``: after a command's own subcommand too, where it must not undo the first.
    """
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        default=argparse.SUPPRESS if nested else None,
        help=f"folder of journals, positions and connectors (${VARIABLE}, else {DEFAULT})",
    )


def data_dir(args: argparse.Namespace) -> DataDir:
    """The folder that was named."""
    return DataDir(args.data_dir)


def worker_texts(path: str | None) -> dict[str, str]:
    """The worker's configuration, for the providers in it; empty without its file."""
    if path is None:
        return {}
    from cdc.configfile import read_file
    from cdc.runtime.config import worker_config

    return dict(worker_config(read_file(Path(path)).config).raw)


def request(
    url: str, method: str, path: str, body: Any = None, *, timeout_s: float | None = TIMEOUT_S
) -> Any:
    """One request to a worker; its answer's JSON. Raises CdcError with the worker's text.

    A request that cannot be granted as it is (400) is a ConfigError.
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    call = urllib.request.Request(url + path, data, headers, method=method)  # noqa: S310 - http
    # The worker is on this machine: a proxy of the environment has no business here.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(call, timeout=timeout_s) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        kind = ConfigError if error.code == HTTP_BAD_REQUEST else CdcError
        raise kind(_message(error.read()) or f"the worker answered {error.code}") from None
    except OSError as error:
        raise CdcError(
            f"the worker at {url} does not answer: {error}",
            remedy="See its output; the other commands work without it once it has ended.",
        ) from error
    return json.loads(text) if text else None


def _message(text: bytes) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return ""
