"""Whether a connector may be what a request says: Connect's checks, statuses and texts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cdc.config import as_text
from cdc.errors import ConfigError
from cdc.runtime import plugins
from cdc.runtime.connector import Connector, Refused
from cdc.runtime.state import file_name
from cdc.secrets import RawConfig

log = logging.getLogger(__name__)

NAME_BYTES_MAX = 200  # as a file name, with room for an ending


@dataclass(frozen=True, slots=True)
class Checked:
    """What others need to know of a sound connector."""

    kind: str
    task_class: str
    relevant: dict[str, Any]


# What tells a replication slot, as far as configurations do: a server goes by several names.
SLOT = ("database.hostname", "database.port", "database.dbname", "slot.name")
# Keys that other connectors or commands look at, as typed values; and a sink's ``one.journal``:
# what it began with is all it reads.
RELEVANT = (
    "topic.prefix", "topic.delimiter", "topics", "topics.regex", "source", "transforms",
    "snapshot.mode", *SLOT,
)  # fmt: skip


def texts(config: Mapping[str, Any]) -> dict[str, str]:
    """Connect's coercion of a JSON body: numbers and booleans become their text."""
    out: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, dict | list):
            raise Refused(500, f"Cannot deserialize the value of {name}: it is not a text")
        if value is None:
            null = "Null value can not be supplied as the configuration value."
            raise invalid([f"Invalid value null for configuration {name}: {null}"])
        text = as_text(value)
        try:
            f"{name}{text}".encode()
        except UnicodeEncodeError:
            shown = name.encode("ascii", "backslashreplace").decode()
            raise invalid([f"Invalid value for configuration {shown}: not Unicode text"]) from None
        out[name] = text
    return out


def named(config: dict[str, str], name: str, where: str = "URL") -> dict[str, str]:
    """The configuration with its name written into it."""
    given = config.get("name", name)
    if given != name:
        raise Refused(
            400,
            f"Connector name configuration ({given}) doesn't match connector name in the {where}"
            f" ({name})",
        )
    return config | {"name": name}


def check(
    config: dict[str, str], worker: Mapping[str, str], others: Iterable[Connector]
) -> Checked:
    """Raises Refused with every problem there is."""
    connector_class = config.get("connector.class", "").strip()
    if not connector_class:
        shown = RawConfig(config).safe()
        raise Refused(400, f"Connector config {shown} contains no connector type")
    try:
        plugin = plugins.find(connector_class)
    except ConfigError as error:
        raise Refused(500, str(error)) from error
    try:
        written, secrets = plugins.resolve(plugins.inherit(config, worker), worker)
        definition = plugin.definition()
    except ConfigError as error:
        raise invalid([str(error)]) from error
    results = definition.validate(written, secrets=secrets)
    for text in (text for result in results for text in result.warnings):
        log.warning("connector %s: %s", config["name"], text)
    told = [(result.name, text) for result in results for text in result.errors]
    told += [each for each in plugins.chain_problems(written, secrets) if each not in told]
    problems = [text for _, text in told]
    problems += _name_problems(config["name"])
    if problems:
        raise invalid(problems)
    parsed = definition.parse(written, secrets=secrets)
    relevant = {key: parsed[key] for key in RELEVANT if key in parsed}
    relevant["one.journal"] = plugin.kind == "sink" and plugin.load().one_journal
    problems = _clashes(config["name"], plugin.kind, relevant, others)
    if problems:
        raise invalid(problems)
    return Checked(plugin.kind, plugin.task.replace(":", "."), relevant)


def kind_of(config: Mapping[str, str]) -> str:
    """What a connector is by its class, however unsound the rest of it; else ``unknown``."""
    try:
        return plugins.find(config.get("connector.class", "")).kind
    except ConfigError:
        return "unknown"


def _name_problems(name: str) -> list[str]:
    if not name.strip():
        return ["Invalid value  for configuration name: String may not be empty"]
    if len(file_name(name).encode()) > NAME_BYTES_MAX:
        return [f"Invalid value {name} for configuration name: String is too long"]
    return []


def _clashes(
    name: str, kind: str, relevant: Mapping[str, Any], others: Iterable[Connector]
) -> list[str]:
    """What two sources cannot share.

    The same topics: their order would be undefined. And a slot: the second one would begin where
    the first, say while that is paused, stands, and take what comes from there away from it.
    """
    prefix, slot = relevant.get("topic.prefix"), _slot(relevant)
    problems = []
    for other in others:
        if not kind == other.kind == "source" or other.name == name:
            continue
        if prefix is not None and other.relevant.get("topic.prefix") == prefix:
            problems.append(
                f"Invalid value {prefix} for configuration topic.prefix: connector {other.name}"
                " already writes topics with this prefix"
            )
        if slot is not None and _slot(other.relevant) == slot:
            problems.append(
                f"Invalid value {slot[-1]} for configuration slot.name: connector {other.name}"
                " already reads this slot of this database"
            )
    return problems


def _slot(relevant: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """None: it has none."""
    found = tuple(relevant.get(key) for key in SLOT)
    return None if None in found or relevant.get("snapshot.mode") == "initial_only" else found


def invalid(problems: list[str]) -> Refused:
    """Connect's answer to a configuration with errors."""
    lines = "\n".join(problems)
    refused = Refused(
        400,
        "Connector configuration is invalid and contains the following"
        f" {len(problems)} error(s):\n{lines}\nYou can also find the above list of errors at the"
        " endpoint `/connector-plugins/{connectorType}/config/validate`",
    )
    refused.problems = problems
    return refused
