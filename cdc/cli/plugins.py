"""``cdc plugins``: what there is, and the keys of one: from the declarations that check them."""

from __future__ import annotations

import argparse
import difflib
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from cdc import aliases
from cdc.config import ConfigDef, Key, to_text
from cdc.converters.factory import converter_config
from cdc.errors import ConfigError
from cdc.runtime import plugins
from cdc.transforms import PREDICATES, TRANSFORMS, find_predicate, find_transform

EXAMPLES = """\
examples:
  cdc plugins                          connectors, converters, transforms and predicates
  cdc plugins sql                      the keys of the SQL sink, with their defaults
  cdc plugins MaskField                of a transform: behind transforms.ALIAS.
  cdc plugins org.apache.kafka.connect.json.JsonConverter --json

Names are short ones or Java classes. A key that is accepted without effect, or refused, says
why.
"""
WIDTH = 92


@dataclass(frozen=True, slots=True)
class Listed:
    """One plugin. ``name`` is what people write, ``classes`` what their old files hold."""

    name: str
    type: str
    classes: tuple[str, ...]
    definition: Callable[[], ConfigDef]

    def answers_to(self) -> Iterator[str]:
        """Every name it goes by, in lower case."""
        for name in (self.name, *self.classes):
            yield from (name.lower(), name.rpartition(".")[2].lower())


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="one of them: its keys")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """List the plugins, or one plugin's keys."""
    if args.name is None:
        _show_all(as_json=args.json)
    else:
        _show(_find(args.name), as_json=args.json)
    return 0


def every() -> Iterator[Listed]:
    """What this installation has, other people's plugins left out until they are named."""
    for found in aliases.CONNECTORS:
        definition = partial(_of_connector, found.name)
        yield Listed(found.name, found.type, found.java_classes, definition)
    for found in aliases.CONVERTERS:
        if found.name != "avro":
            definition = partial(converter_config, found.name)
            yield Listed(found.name, found.type, found.java_classes, definition)
    for names, kind, find in (
        (TRANSFORMS, "transformation", find_transform),
        (PREDICATES, "predicate", find_predicate),
    ):
        parted: dict[str, list[str]] = {}
        for java_class in names:
            parted.setdefault(java_class.rpartition(".")[2].partition("$")[0], []).append(
                java_class
            )
        for name, classes in parted.items():
            yield Listed(name, kind, tuple(classes), partial(_of_class, find, classes[0]))


def _of_connector(name: str) -> ConfigDef:
    return plugins.find(name).definition()


def _of_class(find: Callable[[str], tuple[str, Any]], java_class: str) -> ConfigDef:
    definition: ConfigDef = find(java_class)[1].CONFIG
    return definition


def _find(name: str) -> Listed:
    known = {text: plugin for plugin in every() for text in plugin.answers_to()}
    wanted = name.strip().lower()
    if wanted not in known:
        nearest = difflib.get_close_matches(wanted, known, 1, 0.6)
        hint = f"Did you mean {known[nearest[0]].name}?" if nearest else "cdc plugins lists them"
        raise ConfigError(f"there is no plugin {name}", remedy=hint)
    return known[wanted]


def _show_all(*, as_json: bool) -> None:
    for plugin in every():
        if as_json:
            shown = {"name": plugin.name, "type": plugin.type, "classes": plugin.classes}
            print(orjson.dumps(shown).decode())
        else:
            print(f"{plugin.type:15} {plugin.name:20} {', '.join(plugin.classes)}".rstrip())


def _show(plugin: Listed, *, as_json: bool) -> None:
    keys = [key for key in plugin.definition().keys.values() if key.name != "config.strict"]
    if as_json:
        for key in keys:
            print(orjson.dumps(_as_json(key)).decode())
        return
    print(f"{plugin.name}, a {plugin.type}" + "".join(f"\n  {name}" for name in plugin.classes))
    if not keys:
        print("\nIt has no keys.")
    for key in keys:
        effect = "" if key.effect == "used" else f", {key.effect}"
        print(f"\n{key.name}  ({key.kind.value}, {_default(key)}{effect})")
        choices = f" One of: {', '.join(key.choices)}." if key.choices else ""
        note = f" {key.note}" if key.note else ""
        print(textwrap.indent(textwrap.fill(f"{key.doc}{choices}{note}", WIDTH), "    "))


def _default(key: Key) -> str:
    if key.required:
        return "required"
    text = to_text(key.default)
    return f"default {text}" if text else "no default"


def _as_json(key: Key) -> dict[str, Any]:
    return {
        "name": key.name,
        "type": key.kind.value,
        "required": key.required,
        "default_value": None if key.required else to_text(key.default),
        "importance": key.importance,
        "documentation": key.doc,
        "group": key.group,
        "order": key.order,
        "effect": key.effect,
        "note": key.note,
        "choices": key.choices,
    }
