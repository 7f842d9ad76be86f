"""Options that several transforms share, and Connect's validators with their texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cdc.config import REQUIRED, Check, Key, Kind, Validator, split_list

REPLACE_NULL = "replace.null.with.default"


def replace_null() -> Key:
    """Whether a null field with a default is read as its default."""
    return Key(
        REPLACE_NULL,
        Kind.BOOLEAN,
        True,
        "Whether fields that have a default and are null are read as their default.",
    )


def text(name: str, doc: str, *, importance: str = "MEDIUM", default: Any = REQUIRED) -> Key:
    """A text; where it is required, an empty one will do."""
    return Key(name, Kind.STRING, default, doc, importance=importance, may_be_empty=True)


def names(
    name: str, doc: str, *, importance: str = "HIGH", default: Any = REQUIRED, older: str = ""
) -> Key:
    """A list of names, each of which counts once; ``older``: what the option was called before."""
    aliases = (older,) if older else ()
    return Key(
        name, Kind.LIST, default, doc, importance=importance, splitter=_once, aliases=aliases
    )


def _once(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(split_list(text)))


def one_of(*allowed: str) -> Validator:
    """One of the values, in exactly this spelling."""
    reason = f"String must be one of: {', '.join(allowed)}"
    return lambda value: None if value in allowed else reason


def one_of_any_case(*allowed: str) -> Validator:
    """One of the values, in any spelling of theirs."""
    reason = f"String must be one of (case insensitive): {', '.join(allowed)}"
    known = {value.upper() for value in allowed}
    return lambda value: None if str(value).upper() in known else reason


def non_empty(value: Any) -> str | None:
    """A text that is not empty."""
    return "String must be non-empty" if value == "" else None


def non_empty_list(name: str) -> Check:
    """A list that is not empty."""

    def check(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if values[name] == ():
            yield name, f"Invalid value [] for configuration {name}: Empty list"

    return check


def named(name: str, *, may_be_empty: bool = False) -> Check:
    """A list of texts that are not empty."""

    def check(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        found = values[name]
        if found is None:
            return
        if not found and not may_be_empty:
            text = f"Configuration '{name}' must not be empty."
            yield name, f"{text} Valid values include: any non-empty value"
        elif "" in found:
            yield name, f"Configuration '{name}' values must not be empty."

    return check
