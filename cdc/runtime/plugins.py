"""Sources and sinks by name: what a connector is, its declaration, and its task's class.

Names come from :mod:`cdc.aliases` (short names and Java classes) and from the entry
points ``cdc.sources`` and ``cdc.sinks`` of other distributions (``name = module:Class``).
A declaration is loaded without the task, so that every configuration can be checked where
a client library is not installed: a module that declares one imports no client at the top.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from cdc import aliases, connectors
from cdc.api import SinkTask, SourceTask
from cdc.config import Config, ConfigDef
from cdc.errors import ConfigError
from cdc.runtime.config import FLUSH_INTERVAL_MOST_MS, WORKER_CONFIG
from cdc.runtime.sink_loop import SinkSettings
from cdc.runtime.topics import TopicFilter
from cdc.secrets import RawConfig

log = logging.getLogger(__name__)

# Short name → (task class, declaration). Sinks have theirs in sinks.SINKS.
SOURCES: Final = {
    "postgres": ("cdc.postgres.source:PostgresSourceTask", "cdc.postgres.config:CONFIG"),
}
# Where a command finds what only a source's package can do, such as dropping its slot.
ADMINS: Final = {"postgres": "cdc.postgres.admin"}
ENTRY_POINTS: Final = (("cdc.sources", "source"), ("cdc.sinks", "sink"))
CONVERTERS: Final = ("key.converter", "value.converter", "header.converter")


@dataclass(frozen=True, slots=True)
class Plugin:
    """A source or a sink. ``kind`` is Connect's type: source or sink."""

    name: str
    kind: str
    task: str
    declaration: str

    def definition(self) -> ConfigDef:
        """The whole connector's keys: Connect's, the journal's for a source, the plugin's."""
        own: ConfigDef = _load(self.declaration, self.name)
        if self.kind == "sink":
            return connectors.SINK_CONFIG + own
        from cdc.log.config import JOURNAL_CONFIG

        return connectors.SOURCE_CONFIG + JOURNAL_CONFIG + own

    def load(self) -> Any:
        """The task's class, of ``cdc.api.SourceTask`` or ``SinkTask``. Raises ConfigError.

        A source's module imports its client libraries.
        """
        found, base = _load(self.task, self.name), SinkTask if self.kind == "sink" else SourceTask
        if not (isinstance(found, type) and issubclass(found, base)):
            raise ConfigError(
                f"the plugin {self.name} is no {self.kind}: {self.task} is no {base.__name__}",
                key="connector.class",
                remedy=f"Derive it from cdc.api.{base.__name__}.",
            )
        return found

    def admin(self) -> Any:
        """The source's admin module, or None."""
        path = ADMINS.get(self.name)
        return importlib.import_module(path) if path else None


def find(connector_class: str) -> Plugin:
    """The plugin that ``connector.class`` names. Raises ConfigError with Connect's text."""
    try:
        return _built_in()[aliases.find_connector(connector_class).name]
    except ConfigError:
        # Only now: a look at every installed distribution is not cheap.
        others = {plugin.name: plugin for plugin in _entry_points()}
        more = [aliases.Plugin(p.name, p.kind) for p in others.values()]
        found = aliases.find_connector(connector_class, more).name
        return others[found] if found in others else _built_in()[found]


@cache
def _built_in() -> dict[str, Plugin]:
    from sinks import SINKS

    sources = {name: Plugin(name, "source", *paths) for name, paths in SOURCES.items()}
    return sources | {name: _beside(name, "sink", path) for name, path in SINKS.items()}


def _entry_points() -> Iterator[Plugin]:
    from importlib.metadata import entry_points

    for group, kind in ENTRY_POINTS:
        for point in entry_points(group=group):
            yield _beside(point.name, kind, point.value)


def _beside(name: str, kind: str, task: str) -> Plugin:
    """A plugin whose declaration is CONFIG in the module of its class."""
    return Plugin(name, kind, task, f"{task.partition(':')[0]}:CONFIG")


def _load(path: str, name: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise ConfigError(
            f"the plugin {name} cannot be loaded: {error}",
            key="connector.class",
            remedy="Install what it needs: pip install 'cdc-engine[…]' with its extra.",
        ) from error


def configure(
    written: Mapping[str, str], worker: Mapping[str, str] | None = None
) -> tuple[Plugin, Config]:
    """A connector's plugin and typed configuration; placeholders are resolved on the way."""
    plugin = find(written.get("connector.class") or "")
    texts, secrets = resolve(inherit(written, worker or {}), worker or {})
    converters = [name for name in written if name.startswith(CONVERTERS)]
    if plugin.kind == "source" and converters:
        names = ", ".join(converters)
        log.info("%s: checked only, the journal holds typed records, and sinks convert", names)
    return plugin, plugin.definition().parse(texts, secrets=secrets)


def inherit(written: Mapping[str, str], worker: Mapping[str, str]) -> dict[str, str]:
    """A connector without a converter of its own gets the worker's, with the worker's options.

    As in Connect, options follow the class: the connector's own are ignored without a class of
    its own, and the worker's do not apply where it has one. Where neither names a class there is
    still a JSON converter, which Connect has not, and the options are that one's.
    """
    taken = [n for n in CONVERTERS if worker.get(n) and not (written.get(n) or "").strip()]

    def follows(key: str) -> bool:
        return any(key.startswith(f"{name}.") for name in taken)

    for key in filter(follows, written):
        log.warning("%s is ignored: options follow the class, and there is none here", key)
    own = {key: value for key, value in written.items() if not follows(key)}
    inherited = {key: value for key, value in worker.items() if key in taken or follows(key)}
    return {**own, **inherited}


def chain_problems(
    texts: Mapping[str, str], secrets: Collection[str] = ()
) -> list[tuple[str, str]]:
    """What is wrong with the transforms and predicates: (key, Connect's text) of each.

    ``secrets``: keys whose values config providers gave.
    """
    if not any(name.startswith(("transforms", "predicates")) for name in texts):
        return []
    from cdc.transforms.chain import validate_chain

    return validate_chain(RawConfig(dict(texts), secrets))


def resolve(
    written: Mapping[str, str], worker: Mapping[str, str]
) -> tuple[dict[str, str], frozenset[str]]:
    """Placeholders filled in by the worker's config providers, and the keys that had any."""
    from cdc.providers import Providers

    resolved = Providers.from_worker(worker).resolve(written)
    for warning in resolved.warnings:
        log.warning("%s", warning)
    return resolved.values, resolved.secrets


def topic_filter(config: Config, *, messages: bool = False) -> TopicFilter:
    """A sink's ``topics`` or ``topics.regex``, with or without messages of any topic."""
    return TopicFilter(config["topics"], config["topics.regex"], messages=messages)


def sink_settings(config: Config, worker: Mapping[str, str] | None = None) -> SinkSettings:
    """A sink loop's settings from the connector's and the worker's keys."""
    interval_ms = WORKER_CONFIG.parse(worker or {})["offset.flush.interval.ms"]
    return SinkSettings(
        start_from=config["start.from"] or "",
        flush_interval_s=min(interval_ms, FLUSH_INTERVAL_MOST_MS) / 1000,
    )
