"""Slots that no process of ours reads: what they make their servers keep.

Those of deleted connectors, and those that a connector read before it got another one (they go
by CONNECTOR@SLOT), are looked for until they are gone, those of sources that are stopped, paused
or failed until these run again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from cdc.errors import CdcError
from cdc.runtime import plugins
from cdc.runtime.state import Saved, Store

log = logging.getLogger(__name__)

INTERVAL_S: Final = 20.0
KIND: Final = 20  # so much of a warning's text is the same each time
UNKNOWN: Final = "its slot may still make the server keep WAL"


def keep_former(store: Store, saved: Saved) -> None:
    """Before ``saved`` is kept: the slot that it reads no more is looked for from now on."""
    slot = _slot(saved)
    for old in (*store.load(), *store.deleted()):
        was = _slot(old)
        if old.name == saved.name and was and was != slot:
            store.remember(replace(old, name=f"{old.name}@{was}"))
    store.forget(f"{saved.name}@{slot}")


def _slot(saved: Saved) -> str | None:
    try:
        plugin = plugins.find(saved.config.get("connector.class", ""))
    except CdcError:
        return None
    admin = plugin.admin() if plugin.kind == "source" else None
    return None if admin is None else admin.slot_name(saved.config)


def verb(name: str) -> str:
    """What has happened to one of :func:`look`'s."""
    return "is read no more" if "@" in name else "was deleted"


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


def idle(saved: Saved, worker: Mapping[str, str]) -> tuple[dict[str, float], list[str]]:
    """A source that does not run: its slot's metrics, and warnings with the remedy.

    Both are empty for what has no slot. Raises CdcError when the server cannot be asked.
    """
    plugin = plugins.find(saved.config.get("connector.class", ""))
    admin = plugin.admin() if plugin.kind == "source" else None
    if admin is None:
        return {}, []
    _, config = plugins.configure(saved.config, worker)
    values: dict[str, float] = admin.idle_metrics(config)
    return values, list(admin.warnings(values, running=False))


class Watcher:
    """Looks now and then in a thread of its own, and says what it finds once.

    ``sources`` gives those that do not run; ``values`` are their slots' metrics, by name.
    """

    def __init__(
        self,
        store: Store,
        worker: Mapping[str, str],
        sources: Callable[[], Iterable[Saved]] = tuple,
    ) -> None:
        self._store, self._worker, self._sources = store, worker, sources
        self._ended, self._wake = threading.Event(), threading.Event()
        self._said: set[tuple[str, str]] = set()
        self.values: dict[str, dict[str, float]] = {}
        self._thread = threading.Thread(target=self._run, name="orphans", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; does not wait for a server that does not answer."""
        self._ended.set()
        self._wake.set()

    def look_now(self) -> None:
        """Something was stopped or deleted."""
        self._wake.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.clear()
            self._say({**self._deleted(), **self._idle()})
            self._wake.wait(INTERVAL_S)

    def _say(self, found: Mapping[tuple[str, str], str]) -> None:
        for key in found.keys() - self._said:
            log.warning("%s", found[key])
        self._said = set(found)

    def _deleted(self) -> dict[tuple[str, str], str]:
        """What is to be said, by connector and kind."""
        try:
            looked = look(self._store, self._worker)
            for name in looked:
                if looked[name] is None:
                    self._store.forget(name)
        except Exception as error:  # noqa: BLE001 - it is looked at again
            log.warning("deleted connectors cannot be looked at: %s", error)
            return {}
        return {
            (name, "deleted"): f"{name} {verb(name)}: {text}. To drop it: cdc drop {name}"
            for name, text in looked.items()
            if text is not None
        }

    def _idle(self) -> dict[tuple[str, str], str]:
        said, values = {}, {}
        for saved in self._sources():
            try:
                values[saved.name], warnings = idle(saved, self._worker)
            except Exception as error:  # noqa: BLE001 - its own start says what is wrong
                log.debug("the slot of %s: %s", saved.name, error)
                continue
            for text in warnings:
                said[saved.name, text[:KIND]] = f"{saved.name}: {text}"
        self.values = values
        return said
