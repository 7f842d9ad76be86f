"""Connect's transforms and predicates, by the Java class names that users' files hold.

Nothing is imported until a configuration names it. Facts: Connect 4.3,
``org.apache.kafka.connect.transforms``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from cdc.transforms.contract import Predicate, Transform

PACKAGE = "org.apache.kafka.connect.transforms."
PREDICATE_PACKAGE = PACKAGE + "predicates."
_HERE = "cdc.transforms."

# Transforms of a record's key or value: each has the two classes $Key and $Value.
_PARTED = {
    "Cast": "cast",
    "ExtractField": "extract_field",
    "Flatten": "flatten",
    "HeaderFrom": "header_from",
    "HoistField": "hoist_field",
    "InsertField": "insert_field",
    "MaskField": "mask_field",
    "ReplaceField": "replace_field",
    "SetSchemaMetadata": "set_schema_metadata",
    "TimestampConverter": "timestamp_converter",
}
_WHOLE = {
    "DropHeaders": "headers",
    "Filter": "filter",
    "InsertHeader": "headers",
    "RegexRouter": "regex_router",
    "TimestampRouter": "timestamp_router",
    "ValueToKey": "value_to_key",
}

TRANSFORMS: Mapping[str, str] = MappingProxyType(
    {
        **{
            f"{PACKAGE}{name}${part}": f"{_HERE}{module}:{name}{part}"
            for name, module in _PARTED.items()
            for part in ("Key", "Value")
        },
        **{PACKAGE + name: f"{_HERE}{module}:{name}" for name, module in _WHOLE.items()},
    }
)
PREDICATES: Mapping[str, str] = MappingProxyType(
    {
        PREDICATE_PACKAGE + name: f"{_HERE}predicates:{name}"
        for name in ("HasHeaderKey", "RecordIsTombstone", "TopicNameMatches")
    }
)

# Other people's transforms that configurations often name: what does the same here, if anything.
_DEBEZIUM, _CONFLUENT = "io.debezium.transforms.", "io.confluent.connect.transforms."
_OTHERS = (_DEBEZIUM, _CONFLUENT, "io.aiven.kafka.connect.", "com.github.jcustenborder.kafka.")
_INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        f"{_DEBEZIUM}ExtractNewRecordState": "In sql, search and audit sinks leave it out: they"
        " take the envelope as it is. Elsewhere ExtractField$Value with field=after gives the row",
        f"{_DEBEZIUM}ByLogicalTableRouter": "RegexRouter renames topics",
        f"{_CONFLUENT}Drop": "Filter drops records",
        f"{_CONFLUENT}TombstoneHandler": "Filter with the predicate RecordIsTombstone drops them",
    }
)


class UnknownClass(ValueError):
    """A name that no class of ours has."""


def find_transform(text: str) -> tuple[str, type[Transform]]:
    """The Java class name that ``text`` means, and our class.

    ``text`` is a full class name, or a simple one: those of ``$Key`` and ``$Value`` mean
    nothing alone. Raises ValueError with Connect's reason.
    """
    return _find(text.strip(), TRANSFORMS, PREDICATES, "Transformation")


def find_predicate(text: str) -> tuple[str, type[Predicate]]:
    """As :func:`find_transform`, for a predicate."""
    return _find(text.strip(), PREDICATES, TRANSFORMS, "Predicate")


def _find(
    text: str, wanted: Mapping[str, str], others: Mapping[str, str], kind: str
) -> tuple[str, Any]:
    name = _full_name(text, wanted)
    if name:
        module, _, member = wanted[name].partition(":")
        return name, getattr(import_module(module), member)
    other = _full_name(text, others)
    if other:
        raise ValueError(f"Class class {other} does not implement the {kind} interface")
    parts = [f"{text}${part}" for part in ("Key", "Value") if f"{text}${part}" in wanted]
    if parts:
        means = ", ".join(parts)
        raise ValueError(f"This class is abstract and cannot be created. Did you mean {means}?")
    raise UnknownClass(f"Class {text} could not be found.{_hint(text)}")


def _hint(text: str) -> str:
    """What there is for somebody who names another's transform; else Connect's text is all."""
    if not text.startswith(_OTHERS):
        return ""
    name = text.partition("$")[0]
    instead = f" {_INSTEAD[name]}." if name in _INSTEAD else ""
    there = ", ".join(sorted({n.rpartition(".")[2].partition("$")[0] for n in TRANSFORMS}))
    return f"{instead} Connect's own transforms are there: {there}."


def _full_name(text: str, names: Mapping[str, str]) -> str:
    if text in names:
        return text
    found = [n for n in names if "$" not in n and n.rpartition(".")[2] == text]
    return found[0] if len(found) == 1 else ""
