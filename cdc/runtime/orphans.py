"""Slots that deleted connectors have left at their servers: looked for until they are gone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Final

from cdc.errors import CdcError
from cdc.runtime import plugins
from cdc.runtime.state import Saved, Store

log = logging.getLogger(__name__)

INTERVAL_S: Final = 20.0
UNKNOWN: Final = "its slot may still make the server keep WAL"


def look(store: Store, worker: Mapping[str, str]) -> dict[str, str | None]:
    """Deleted connectors and what is left of each: None for nothing. Changes nothing."""
    found = {saved.name: _left(saved, worker) for saved in store.deleted()}
    return {name: text for name, text in found.items() if text != ""}


def _left(saved: Saved, worker: Mapping[str, str]) -> str | None:
    """None: nothing. An empty text: somebody else uses it."""
    try:
        plugin, config = plugins.configure(saved.config, worker)
        admin = plugin.admin()
        if admin is None:
            return UNKNOWN
        left: str | None = admin.leftover(config)
    except CdcError as error:
        log.debug("%s: %s", saved.name, error)
        return UNKNOWN
    return left


class Watcher:
    """Looks now and then in a thread of its own, and says what it finds once."""

    def __init__(self, store: Store, worker: Mapping[str, str]) -> None:
        self._store, self._worker = store, worker
        self._ended = threading.Event()
        self._said: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="orphans", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; does not wait for a server that does not answer."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                looked = look(self._store, self._worker)
                for name in looked:
                    if looked[name] is None:
                        self._store.forget(name)
                found = {name: text for name, text in looked.items() if text is not None}
            except Exception as error:  # noqa: BLE001 - it is looked at again
                log.warning("deleted connectors cannot be looked at: %s", error)
                found = {}
            for name in found.keys() - self._said:
                log.warning("%s was deleted: %s. To drop it: cdc drop %s", name, found[name], name)
            self._said = set(found)
            self._ended.wait(INTERVAL_S)
