"""Comparing outcomes: values by Java's ``equals``, errors by their texts, JSON by its bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isfinite
from typing import Any

from cdc.config import ConfigDef, to_text
from schemas import DataError, Schema, SchemaError, Struct
from schemas.floats import nearest_single
from schemas.struct import same
from tests.connect.judge import JavaError

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9.]+(?:[eE][+-]?[0-9]+)?|.', re.DOTALL)
_FRACTION = re.compile(r"-?\d+\.\d+(?:E-?\d+)?")


def outcome(action: Callable[[], Any]) -> tuple[str, Any]:
    """What an action gives: its value, or the text of the error that Connect would raise."""
    try:
        return "value", action()
    except JavaError as error:
        # Ours are all hash maps; the judge keeps the order of what it is given.
        return "error", (error.message or "").replace("LinkedHashMap", "HashMap")
    except (DataError, SchemaError) as error:
        return "error", str(error)


def agree(ours: tuple[str, Any], theirs: tuple[str, Any]) -> None:
    """Both gave the same value or the same error."""
    assert ours[0] == theirs[0], (ours, theirs)
    assert same(_listed(ours[1]), _listed(theirs[1])), (ours, theirs)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def agree_json(ours: tuple[str, Any], theirs: tuple[str, Any], *, singles: bool) -> None:
    """As :func:`agree`; floating-point numbers in bytes of JSON by their value."""
    if ours == theirs:
        return
    assert ours[0] == theirs[0] == "value", (ours, theirs)
    mine, connects = (_TOKEN.findall(each[1]) for each in (ours, theirs))
    assert len(mine) == len(connects), (ours, theirs)
    for one, other in zip(mine, connects, strict=True):
        assert one == other or _same_number(one, other, singles), (ours, theirs)


def _same_number(one: bytes, other: bytes, singles: bool) -> bool:
    # Java 17 has some texts that are longer than need be; none of them is a whole number.
    if not re.search(rb"[.eE]", other) or one[:1] == b'"' or other[:1] == b'"':
        return False
    both = float(one), float(other)
    return both[0] == both[1] or (singles and nearest_single(both[0]) == nearest_single(both[1]))


def agree_text(ours: tuple[str, Any], theirs: tuple[str, Any]) -> None:
    """As :func:`agree`; fractions in text by their value in single precision."""
    if ours == theirs:
        return
    assert ours[0] == theirs[0] == "value", (ours, theirs)
    assert _rounded(ours[1]) == _rounded(theirs[1]), (ours, theirs)


def _rounded(text: Any) -> Any:
    if isinstance(text, bytes):
        text = text.decode()
    return _FRACTION.sub(lambda found: repr(nearest_single(float(found[0]))), text or "")


def has_floats(schema: Schema | None, kinds: tuple[str, ...] = ("float", "double")) -> bool:
    """Whether a schema holds floating-point numbers anywhere; without a schema it may."""
    if schema is None:
        return True
    inner = [schema.items, schema.keys, schema.values, *(f.schema for f in schema.fields)]
    return schema.type in kinds or any(has_floats(s, kinds) for s in inner if s is not None)


def beyond_single(value: Any) -> bool:
    """Whether a value holds a number that single precision has not: here both are floats."""
    if isinstance(value, Struct):
        return any(map(beyond_single, value.values))
    if isinstance(value, dict):
        return any(map(beyond_single, value.values()))
    if isinstance(value, list):
        return any(map(beyond_single, value))
    return isinstance(value, float) and isfinite(value) and not isfinite(nearest_single(value))


def has_bytes(value: Any) -> bool:
    """Whether a value holds bytes, whose text in Java is the address of the object."""
    if isinstance(value, Struct):
        return any(map(has_bytes, value.values))
    if isinstance(value, dict):
        return any(map(has_bytes, value.values()))
    return any(map(has_bytes, value)) if isinstance(value, list) else isinstance(value, bytes)


def declared(config: ConfigDef) -> list[dict[str, Any]]:
    """What our declaration says, as :meth:`Judge.config` tells what Connect's says."""
    shown = {result.name: result for result in config.validate({})}
    return [
        {
            "name": key.name,
            "type": key.kind.value,
            "required": key.required,
            "default_value": None if key.required else _default(key.default),
            "importance": key.importance,
            "group": key.group,
            "order": key.order,
            "width": key.width,
            "display_name": key.display_name,
            "recommended": shown[key.name].recommended if key.name in shown else [],
        }
        for key in config.keys.values()
        if key.name != "config.strict"
    ]


def _default(value: Any) -> str | None:
    return "" if value == () else to_text(value)
