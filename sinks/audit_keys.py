"""Records of one row: a key as a person writes it, against keys as records hold them."""

from __future__ import annotations

from typing import Any

import orjson

from cdc.errors import ConfigError
from cdc.keytext import is_json, key_values, parsed

_BOOLS = {"true": True, "t": True, "false": False, "f": False}


class KeyMatch:
    """Accepts the records of a key; of several tables, if it fits their keys.

    ``fitted``: it could be one of the keys it was compared with; else ``problem`` says why
    not. Raises ConfigError at once for JSON that is none.
    """

    def __init__(self, text: str) -> None:
        if is_json(text):
            parsed(text)
        self._text = text
        self.fitted = False
        self._problem: ConfigError | None = None
        self._values: dict[tuple[str, ...], dict[str, Any] | None] = {}

    @property
    def problem(self) -> ConfigError | None:
        """None once it fitted a key, and as long as there was none."""
        return None if self.fitted else self._problem

    def accepts(self, record: dict[str, Any]) -> bool:
        """Whether a record is of this key; its texts are texts."""
        if record["key"] is None:
            return False
        stored: dict[str, Any] = orjson.loads(record["key"])
        given = self._given(record["table_name"], stored)
        if given is None:
            return False
        try:
            same = [_same(value, given[name], name) for name, value in stored.items()]
        except ConfigError as error:
            self._problem = self._problem or error
            return False
        self.fitted = True
        return all(same)

    def _given(self, table: str, stored: dict[str, Any]) -> dict[str, Any] | None:
        shape = (table, *stored)
        if shape not in self._values:
            try:
                self._values[shape] = key_values(table, list(stored), self._text)
            except ConfigError as error:
                self._problem = self._problem or error
                self._values[shape] = None
        return self._values[shape]


def _same(stored: Any, given: Any, name: str) -> bool:
    """Whether a stored value is the given one. Raises ConfigError for one of no such type."""
    if stored is None or given is None:
        return stored is given
    try:
        return bool(stored == _read(stored, given))
    except (ValueError, TypeError, LookupError):
        kind = {bool: "boolean", int: "integer", float: "number", str: "text"}.get(type(stored))
        raise ConfigError(f"{name}: {given!r} is no {kind or 'JSON'}", key="--key") from None


def _read(stored: Any, given: Any) -> Any:
    """A given value in the type of a stored one."""
    if isinstance(given, bool) and not isinstance(stored, bool):
        raise TypeError(given)
    match stored:
        case bool():
            return given if isinstance(given, bool) else _BOOLS[str(given).lower()]
        case int():
            if isinstance(given, float):
                raise TypeError(given)
            return int(given)
        case float():
            return float(given)
        case str():
            if not isinstance(given, str | int | float):
                raise TypeError(given)
            return str(given)
    return orjson.loads(given) if isinstance(given, str) else given
