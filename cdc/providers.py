"""Config providers: ``${file:path:key}``, ``${dir:path:key}`` and ``${env:NAME}`` in values.

What is stored and shown is the text with the placeholder. It is resolved where a configuration
is checked and just before a task starts, and the keys that were resolved are treated as secrets
from then on. A placeholder whose provider or key is unknown stays as it is, as in Connect, with
a warning.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cdc import javaregex
from cdc.config import split_list
from cdc.configfile import load_properties
from cdc.errors import ConfigError

# What Connect's own expression finds, ``\$\{([^}]*?):(([^}]*?):)?([^}]*?)\}``, but in a time that
# grows with the text and not with its cube: several placeholders in one value, no nesting.
PLACEHOLDER: Final = re.compile(r"\$\{([^}:]*):(?:([^}:]*):)?([^}]*)\}")

_KAFKA = "org.apache.kafka.common.config.provider."

# (path, key) → the value, or None where there is none.
Lookup = Callable[[str, str], str | None]


@dataclass(frozen=True)
class Resolved:
    """Values with their placeholders replaced, and the names of those that had any."""

    values: dict[str, str] = field(repr=False)
    secrets: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()


class Providers:
    """The providers of a worker, by the names they have in placeholders."""

    def __init__(self, lookups: Mapping[str, Lookup]) -> None:
        self._lookups = dict(lookups)

    @classmethod
    def all(cls) -> Providers:
        """Every provider without limits: for a command whose user owns all it can read."""
        return cls({name: make({}) for name, make in _MAKERS.items()})

    @classmethod
    def from_worker(cls, raw: Mapping[str, str]) -> Providers:
        """Those of ``config.providers``; all where it is not set.

        Connect has none then, and takes the placeholder for the value: here that would sign
        an audit chain with the text of a placeholder. ``config.providers=`` turns them off.
        """
        if "config.providers" not in raw:
            return cls.all()
        lookups: dict[str, Lookup] = {}
        for name in split_list(raw.get("config.providers", "").strip()):
            prefix = f"config.providers.{name}."
            kind = _CLASSES.get(raw.get(f"{prefix}class", name).strip())
            if kind is None:
                raise ConfigError(
                    f"there is no config provider {raw.get(f'{prefix}class', name)!r}",
                    key=f"{prefix}class",
                    remedy=f"Known are {', '.join(_MAKERS)} and Kafka's classes of these",
                )
            start = f"{prefix}param."
            params = {k[len(start) :]: v for k, v in raw.items() if k.startswith(start)}
            lookups[name] = _MAKERS[kind](params)
        return cls(lookups)

    def resolve(self, raw: Mapping[str, str]) -> Resolved:
        """``raw`` with its placeholders replaced. Raises ConfigError, which names the key."""
        values: dict[str, str] = {}
        secrets: set[str] = set()
        warnings: list[str] = []
        for name, text in raw.items():
            values[name] = self._resolve(name, text, warnings)
            if values[name] != text:
                secrets.add(name)
        return Resolved(values, frozenset(secrets), tuple(warnings))

    def _resolve(self, name: str, text: str, warnings: list[str]) -> str:
        def replace(match: re.Match[str]) -> str:
            provider, path, key = match[1], match[2] or "", match[3]
            lookup = self._lookups.get(provider)
            if lookup is None:
                # Regexes and templates such as ${topic} hold no colon, so this is one.
                warnings.append(
                    f"{name}: {match[0]} stays as it is: the worker has no config provider "
                    f"{provider!r} (set config.providers)"
                )
                return match[0]
            try:
                value = lookup(path, key)
            except ConfigError as error:
                raise ConfigError(error.problem, key=name, remedy=error.remedy) from None
            except UnicodeEncodeError:
                raise ConfigError("a placeholder holds half of a character", key=name) from None
            if value is None:
                warnings.append(f"{name}: {match[0]} stays as it is: nothing has that name")
                return match[0]
            return value

        return PLACEHOLDER.sub(replace, text)


def _allowed(params: Mapping[str, str]) -> Callable[[str], Path]:
    """The check that a path lies in ``allowed.paths``.

    Paths are compared as written, without following links: secrets are commonly mounted as
    links, and whoever may create a link in an allowed folder is trusted with it.
    """
    roots = [Path(os.path.normpath(p)) for p in split_list(params.get("allowed.paths", "").strip())]
    for root in roots:
        if not root.is_absolute() or not root.exists():
            raise ConfigError(
                f"allowed.paths holds {root}, which is not an absolute path that exists",
                key="config.providers",
            )

    def check(path: str) -> Path:
        if not path:
            raise ConfigError("a placeholder names no path", remedy="Write ${file:/path:key}")
        if "\0" in path:
            raise ConfigError("a placeholder's path holds a NUL, which no path can")
        normal = Path(os.path.normpath(Path(path).absolute()))
        if roots and not any(normal.is_relative_to(root) for root in roots):
            raise ConfigError(f"{path} is outside of the config provider's allowed.paths")
        return normal

    return check


def _file(params: Mapping[str, str]) -> Lookup:
    allowed = _allowed(params)

    def lookup(path: str, key: str) -> str | None:
        file = allowed(path)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"Could not read properties from file {path}: {error.strerror}"
            ) from None
        return load_properties(content, str(file), "UTF-8").get(key)  # Java's own default is not

    return lookup


def _dir(params: Mapping[str, str]) -> Lookup:
    allowed = _allowed(params)

    def lookup(path: str, key: str) -> str | None:
        folder = allowed(path)
        if not key or "/" in key or "\0" in key or key in {".", ".."}:
            raise ConfigError(f"{key!r} is not the name of a file in {path}")
        try:
            return (folder / key).read_bytes().decode()  # whatever the locale is
        except (FileNotFoundError, IsADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"Could not read {path}/{key}: {type(error).__name__}") from None

    return lookup


def _env(params: Mapping[str, str]) -> Lookup:
    pattern = params.get("allowlist.pattern", "").strip()
    try:
        allowed = javaregex.compile(pattern or ".*")
    except javaregex.PatternSyntax as error:
        raise ConfigError(
            f"allowlist.pattern is not a regular expression: {error}", key="config.providers"
        ) from None

    def lookup(path: str, key: str) -> str | None:
        if path:
            raise ConfigError("Path is not supported for the env provider: write ${env:NAME}")
        return os.environ.get(key) if allowed.matches(key) else None

    return lookup


_MAKERS: Final[dict[str, Callable[[Mapping[str, str]], Lookup]]] = {
    "file": _file,
    "dir": _dir,
    "env": _env,
}
_CLASSES: Final = {
    **{name: name for name in _MAKERS},
    "directory": "dir",
    f"{_KAFKA}FileConfigProvider": "file",
    f"{_KAFKA}DirectoryConfigProvider": "dir",
    f"{_KAFKA}EnvVarConfigProvider": "env",
}
