"""``cdc drop``: remove a connector or a capture's state, and what it left at its server."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from urllib.parse import quote

from cdc.cli.common import add_data_dir, data_dir, request, worker_texts
from cdc.config import Config
from cdc.errors import CdcError, ConfigError
from cdc.runtime import plugins
from cdc.runtime.state import Saved, Store

EXAMPLES = """\
examples:
  cdc drop shop
  cdc drop shop --config worker.properties     (placeholders in its configuration)
  cdc drop postgresql://me@localhost/shop --state ./shop-state       (of cdc capture)

Drops the replication slot and the publication of a source, then the connector. A slot of that
name in another database stays: it is another source's. A publication stays that cdc did not
create, that another source reads too, or that may be read through another logical slot of the
database, of no source here; it is said, with the statement that drops it. The journal and the
sinks' positions stay. With --state it is the slot and the publication that a capture with this
folder has made, and its position; the output stays.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add_data_dir(parser)
    parser.add_argument("connector", metavar="CONNECTOR|URL")
    parser.add_argument("--state", metavar="DIR", help="that of a capture; then name its URL")
    parser.add_argument("--password-file", metavar="F", help="for the URL: its first line")
    parser.add_argument("--config", metavar="FILE", help="the worker's file, for its providers")
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """Stop it, drop what it has at the server, forget it."""
    if args.state:
        return _drop_capture(args.connector, Path(args.state), args.password_file)
    if "://" in args.connector:  # not to be repeated: a password may be in it
        raise ConfigError("a URL needs the folder of its capture too", key="--state")
    data = data_dir(args)
    store = Store(data)
    saved = find(store, args.connector)
    texts = worker_texts(args.config)
    plugin, _ = plugins.configure(saved.config, texts)
    path = f"/connectors/{quote(saved.name, safe='')}"
    url = data.running_worker()
    kept = any(other.name == saved.name for other in store.load())
    if url is not None:
        if kept:
            request(url, "PUT", f"{path}/stop")  # a slot in use cannot be dropped
        try:
            _drop_at_server(plugin, saved, store, texts)
        except CdcError:
            if kept and saved.target == "STARTED":
                request(url, "PUT", f"{path}/resume")  # nothing is dropped: it goes on
            raise
        if kept:
            request(url, "DELETE", f"{path}?dropped=true")
        store.forget(saved.name)
    else:
        with data.lock():
            _drop_at_server(plugin, saved, store, texts)
            store.delete(saved.name, remember=False)
            store.forget(saved.name)
    print(f"{saved.name} is dropped")
    if data.journal(saved.name).is_dir():
        print(f"its journal stays, in {data.journal(saved.name)}")
    return 0


def _drop_capture(url: str, state: Path, password_file: str | None) -> int:
    """Only what goes by names that were made up from the folder: no other was made by us."""
    from cdc.capture.settings import SOURCE, make_settings, read_password
    from cdc.capture.state import StateFolder

    if not state.is_dir():
        raise ConfigError(f"there is no folder {state}", key="--state",
                          remedy="Name the one that cdc capture was given")  # fmt: skip
    password = None if password_file is None else read_password(Path(password_file))
    settings = make_settings(url, password=password, state=state)
    folder = StateFolder(state)
    try:
        for line in importlib.import_module(plugins.ADMINS[SOURCE]).drop(settings.source):
            print(line)
        folder.forget()
    finally:
        folder.close()
    print(f"the position in {state} is dropped")
    return 0


def find(store: Store, name: str) -> Saved:
    """A connector, or one that was deleted without this command."""
    for saved in (*store.load(), *store.deleted()):
        if saved.name == name:
            return saved
    names = ", ".join(saved.name for saved in (*store.load(), *store.deleted())) or "none"
    raise ConfigError(f"there is no connector {name}", remedy=f"There are: {names}")


def _drop_at_server(
    plugin: plugins.Plugin, saved: Saved, store: Store, worker: dict[str, str]
) -> None:
    admin = plugin.admin() if plugin.kind == "source" else None
    if admin is None:
        return
    others = {
        other.name: _config_of(other, worker)
        for other in store.load()
        if other.name != saved.name and _is_one(other, plugin)
    }
    for line in admin.drop(plugins.configure(saved.config, worker)[1], others):
        print(line)


def _is_one(saved: Saved, plugin: plugins.Plugin) -> bool:
    try:
        return plugins.find(saved.config.get("connector.class", "")).name == plugin.name
    except ConfigError:
        return False


def _config_of(saved: Saved, worker: dict[str, str]) -> Config | None:
    """None: it cannot be read, for want of a provider for one."""
    try:
        return plugins.configure(saved.config, worker)[1]
    except ConfigError:
        return None
