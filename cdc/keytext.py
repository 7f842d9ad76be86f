"""A row's key as a person writes it: its value, ``order_id=42,line=3``, or a JSON object."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from cdc.errors import ConfigError

Key = Mapping[str, Any] | str | int


def key_values(table: str, names: Sequence[str], key: Key) -> dict[str, Any]:
    """Name → value in the order of ``names``, the key's. Raises ConfigError where it fits not.

    A text with ``,name=`` of the key in it is to be given in JSON.
    """
    if isinstance(key, Mapping):
        values = dict(key)
    elif isinstance(key, str) and is_json(key):
        values = parsed(key)
    else:
        values = _assigned(str(key), names) or {}
        if not values and len(names) == 1:
            values = {names[0]: key}
    shown = f"the key of {table} is {', '.join(names)}"
    missing = [name for name in names if name not in values]
    if missing:
        given = ",".join(f"{name}=…" for name in names)
        raise ConfigError(f"{', '.join(missing)} is missing: {shown}", remedy=f"Give {given}")
    extra = [name for name in values if name not in names]
    if extra:
        raise ConfigError(f"{', '.join(extra)} is not in the key: {shown}")
    return {name: values[name] for name in names}


def is_json(text: str) -> bool:
    """Whether it is meant as a JSON object."""
    return text.lstrip().startswith("{")


def parsed(text: str) -> dict[str, Any]:
    """A JSON object. Raises ConfigError."""
    try:
        values: dict[str, Any] = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{text} is not JSON: {error}") from None
    return values


def _assigned(text: str, names: Sequence[str]) -> dict[str, Any] | None:
    """``id=42,line=3``; None where no name of the key stands before an equals sign."""
    alternatives = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    marks = list(re.finditer(rf"(?:^|,)\s*({alternatives})=", text))
    if not marks or marks[0].start():
        return None
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return {m[1]: text[m.end() : end].strip() for m, end in zip(marks, ends, strict=True)}
