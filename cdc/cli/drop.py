"""``cdc drop``: remove a connector, and what it left at its server."""

from __future__ import annotations

import argparse
from urllib.parse import quote

from cdc.cli.common import add_data_dir, data_dir, request
from cdc.errors import CdcError, ConfigError
from cdc.runtime import plugins
from cdc.runtime.config import WORKER_CONFIG
from cdc.runtime.state import Saved, Store

EXAMPLES = """\
examples:
  cdc drop shop
  cdc drop shop --config worker.properties     (placeholders in its configuration)

Drops the replication slot and the publication of a source, then the connector. The journal
and the sinks' positions stay.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add_data_dir(parser)
    parser.add_argument("connector", metavar="CONNECTOR")
    parser.add_argument("--config", metavar="FILE", help="the worker's file, for its providers")
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """Stop it, drop what it has at the server, forget it."""
    data = data_dir(args)
    store = Store(data)
    saved = find(store, args.connector)
    worker_texts = _worker_texts(args.config)
    plugin, _ = plugins.configure(saved.config, worker_texts)
    path = f"/connectors/{quote(saved.name, safe='')}"
    url = data.running_worker()
    kept = any(other.name == saved.name for other in store.load())
    if url is not None:
        if kept:
            request(url, "PUT", f"{path}/stop")  # a slot in use cannot be dropped
        try:
            _drop_at_server(plugin, saved, worker_texts)
        except CdcError:
            if kept and saved.target == "STARTED":
                request(url, "PUT", f"{path}/resume")  # nothing is dropped: it goes on
            raise
        if kept:
            request(url, "DELETE", f"{path}?dropped=true")
        store.forget(saved.name)
    else:
        with data.lock():
            _drop_at_server(plugin, saved, worker_texts)
            store.delete(saved.name, remember=False)
            store.forget(saved.name)
    print(f"{saved.name} is dropped")
    return 0


def find(store: Store, name: str) -> Saved:
    """A connector, or one that was deleted without this command."""
    for saved in (*store.load(), *store.deleted()):
        if saved.name == name:
            return saved
    names = ", ".join(saved.name for saved in (*store.load(), *store.deleted())) or "none"
    raise ConfigError(f"there is no connector {name}", remedy=f"There are: {names}")


def _worker_texts(path: str | None) -> dict[str, str]:
    if path is None:
        return {}
    from pathlib import Path

    from cdc.configfile import read_file

    return dict(WORKER_CONFIG.parse(read_file(Path(path)).config).raw)


def _drop_at_server(plugin: plugins.Plugin, saved: Saved, worker: dict[str, str]) -> None:
    admin = plugin.admin() if plugin.kind == "source" else None
    if admin is not None:
        for line in admin.drop(plugins.configure(saved.config, worker)[1]):
            print(line)
