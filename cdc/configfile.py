"""Configuration files: Java properties, JSON, YAML and TOML, all with Connect's keys.

A file with ``name`` is a connector's, one without is the worker's. A connector may be flat
or have the shape of ``POST /connectors``: ``name``, ``config``, ``initial_state``. Values
are texts, as Connect has them; the declarations of :mod:`cdc.config` give them their types.
"""

from __future__ import annotations

import json
import re
import tomllib
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from cdc.config import as_text
from cdc.errors import ConfigError
from cdc.properties import Malformed, read_properties
from cdc.secrets import RawConfig

INITIAL_STATES: Final = ("RUNNING", "PAUSED", "STOPPED")
SUFFIXES: Final = {
    ".json": "json",
    ".properties": "properties",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".toml": "toml",
}


@dataclass(frozen=True)
class ConfigFile:
    """What a file holds. ``name`` is empty for a worker's file."""

    origin: str
    config: RawConfig
    name: str = ""
    initial_state: str = "RUNNING"

    @property
    def is_connector(self) -> bool:
        """Whether the file configures a connector, not the worker."""
        return bool(self.name)


def read_file(path: Path) -> ConfigFile:
    """Read one file. Raises ConfigError, which names the file, the line and a remedy."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}",
            remedy="Give the path of a connector's or the worker's configuration file",
        ) from None
    return parse(content, str(path), SUFFIXES.get(path.suffix.lower(), ""))


def parse(content: bytes, origin: str, form: str = "") -> ConfigFile:
    """Like :func:`read_file`, for bytes. ``form`` is found out when it is empty."""
    if form == "properties" or (not form and not _is_utf8(content)):
        return _shape(load_properties(content.removeprefix(BOM_UTF8), origin), origin)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        _fail(origin, line, "the text is not UTF-8", "Save the file as UTF-8")
    form = form or sniff(text)
    if form == "properties":
        return _shape(load_properties(content.removeprefix(BOM_UTF8), origin), origin)
    return _shape(_LOADERS[form](text, origin), origin)


def sniff(text: str) -> str:
    """The form of a file whose name does not tell."""
    lines = [line.strip() for line in text.splitlines()]
    first = next((line for line in lines if line and line[0] not in "#!"), "")
    if first.startswith("{"):
        return "json"
    if first == "---" or re.match(r"""["'\w.-]+:(\s|$)""", first):
        return "yaml"
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        # Only TOML has tables; then its own message helps more than strange properties.
        return "toml" if re.match(r"\[[\w.]+\]$", first) else "properties"
    return "toml" if first else "properties"


def load_properties(content: bytes, origin: str, encoding: str = "iso-8859-1") -> dict[str, str]:
    """Java's properties, in the encoding that Java takes where it is told none."""
    try:
        return read_properties(content.decode(encoding))
    except UnicodeDecodeError:
        _fail(origin, None, f"this is not {encoding}", "Write other characters as \\uXXXX")
    except Malformed as error:
        _fail(origin, error.line, "this is not a Java properties file",
              "Write key=value, and a backslash as two")  # fmt: skip


def _load_json(text: str, origin: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                _fail(origin, None, f"{name} is there twice", "Remove one")
        return dict(pairs)

    try:
        # Numbers stay the text that was written: 1e3 is for the declaration to refuse.
        return json.loads(text, object_pairs_hook=unique, parse_float=str, parse_int=str)
    except RecursionError:
        _fail(origin, None, "the JSON is nested too deeply", "Write flat keys")
    except json.JSONDecodeError as error:
        _fail(origin, error.lineno, f"invalid JSON: {error.msg}", "Mend the JSON there")


def _load_toml(text: str, origin: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        problem = re.sub(r"\s*\(.*\)$", "", str(error), flags=re.DOTALL)
        # The text may quote what it could not read, which may be a secret.
        problem = re.sub(r"'.*'", "…", problem, flags=re.DOTALL)
        remedy = 'Quote values, and a key that begins another one: "snapshot.mode" = "initial"'
        _fail(origin, int(found[1]) if found else None, f"invalid TOML: {problem}", remedy)


def _load_yaml(text: str, origin: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Keeps scalars as they are written: ``no`` is no boolean here, 1_0 no number."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value]
            for key, _ in node.value:
                if names.count(key.value) > 1:
                    line = key.start_mark.line + 1
                    _fail(origin, line, f"{key.value} is there twice", "Remove one")
            return super().construct_mapping(node, deep)

    null = "tag:yaml.org,2002:null"
    Loader.yaml_implicit_resolvers = {
        first: [(tag, regex) for tag, regex in rules if tag == null]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader with fewer types
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        remedy = "Quote values that hold ': ', '#', '*', '{' or '['"
        _fail(origin, line, f"invalid YAML: {error.problem or 'unreadable'}", remedy)
    except yaml.YAMLError:
        _fail(origin, None, "invalid YAML: a character that is not allowed", "Remove it")


_LOADERS: Final[dict[str, Callable[[str, str], Any]]] = {
    "json": _load_json,
    "toml": _load_toml,
    "yaml": _load_yaml,
}


def _shape(content: Any, origin: str) -> ConfigFile:
    if not isinstance(content, Mapping):
        _fail(origin, None, "there are no keys in it", "Write keys and values, as Connect does")
    if not isinstance(content.get("config"), Mapping):
        config = _texts(content, origin)
        name = config.get("name", "").strip()
        if "name" in config and not name:
            _fail(origin, None, "name is empty", "Name the connector")
        if not name and "connector.class" in config:
            _fail(origin, None, "there is a connector.class but no name", "Name the connector")
        return ConfigFile(origin, RawConfig(config | ({"name": name} if name else {})), name)
    config = _texts(content["config"], origin)
    name = as_text(content.get("name") or config.get("name", "")).strip()
    if not name:
        _fail(origin, None, "there is a config but no name", 'Add "name" beside "config"')
    inner, config["name"] = config.get("name", name).strip(), name
    if inner != name:
        remedy = 'Leave out the name in "config"'
        _fail(origin, None, f"it is named {name} outside and {inner} in its config", remedy)
    state = as_text(content.get("initial_state") or "RUNNING").upper()
    if state not in INITIAL_STATES:
        remedy = f"Use one of {', '.join(INITIAL_STATES)}"
        _fail(origin, None, f"initial_state is {state}", remedy)
    return ConfigFile(origin, RawConfig(config), name, state)


def _texts(content: Mapping[Any, Any], origin: str, prefix: str = "") -> dict[str, str]:
    """Nested keys joined with dots, which TOML makes of ``a.b = 1``; lists with commas."""
    found: dict[str, str] = {}
    for part, value in content.items():
        name = f"{prefix}{part}"
        if isinstance(value, Mapping):
            more = _texts(value, origin, f"{name}.")
        elif isinstance(value, list):
            if any(isinstance(item, Mapping | list) for item in value):
                _fail(origin, None, f"{name} is a list of lists or objects", "Write plain values")
            more = {name: ",".join(as_text(item) for item in value)}
        else:
            more = {} if value is None else {name: as_text(value)}
        for key in more.keys() & found.keys():
            _fail(origin, None, f"{key} is there twice", "Remove one")
        for key, text in more.items():
            if _has_surrogates(f"{key}{text}"):
                shown = key.encode("ascii", "backslashreplace").decode()
                _fail(origin, None, f"{shown} is not Unicode text", "Write whole characters")
        found |= more
    return found


def _has_surrogates(text: str) -> bool:
    """Halves of a character, as JSON's escapes can have them; no encoding has a place for one."""
    return any("\ud800" <= c <= "\udfff" for c in text)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _fail(origin: str, line: int | None, problem: str, remedy: str) -> NoReturn:
    place = f"{origin}, line {line}" if line else origin
    raise ConfigError(f"{place}: {problem}", remedy=remedy)
