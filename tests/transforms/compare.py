"""Ours against Connect's: the same transform, options and record, then the same outcome.

What is not compared, or not to the letter, stands in :data:`EXCLUSIONS`, with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cdc.errors import ConfigError
from cdc.record import Record
from cdc.transforms import PACKAGE, PREDICATE_PACKAGE, find_predicate, find_transform
from cdc.transforms.errors import java_name
from schemas import Schema, Struct
from schemas.floats import nearest_single
from schemas.struct import same
from tests.connect.judge import JavaError, Judge

EXCLUSIONS: Mapping[str, str] = {
    "several problems": "Connect stops at the first wrong option; we name all, each in a line, but "
    "look at lists only when single values are right",
    "Double.toString": "JDK 17 does not always write the shortest digits (JDK-4511638); we do, "
    "as the JDK from 19 on: both texts mean the same number",
    "Record.toString": "the record in TimestampRouter's error: Connect's also names its source "
    "partition and offset, which a Record has not",
    "LinkedHashMap": "the judge makes such maps, to keep their order; JsonConverter makes HashMaps",
    "October 1582": "the month of the change of calendars: Java counts its weeks with the ten days "
    "that were left out, and reads its later days ten days early",
    "years beyond 30 million": "a text that is no date, such as 1E299999, is read as a year that "
    "Java's calendar wraps round where months are added: we wrap elsewhere",
    "InsertionSpec": "Connect shows the address of an object where it means the field's name",
    "regular expressions": "what is said of a wrong expression, after its first words: the JDK's "
    "parser may stop at another character",
    "at the start": "what a transform or predicate refuses when it is configured: Connect's "
    "validation lets it pass, and its connector fails; we say it in its words at once",
    "of nothing": "what a validator of Connect's says of a null, beside that the option is missing",
    "bare options": "a validator of Connect's names an option without its prefix, and so not of "
    "which transform it is: we name it in full",
    "HashSet": "of several fields of a map that cannot be cast or masked Connect names the first "
    "in the order of a hash set, we in that of the option",
}


@dataclass
class Refusal:
    """An exception: its Java class and its text."""

    java_class: str
    text: str


def ours(java_class: str, config: Mapping[str, str], record: Record) -> Any:
    """What our transform makes of a record; a Refusal where it raises."""
    try:
        kind = find_transform(java_class)[1]
        return kind(kind.CONFIG.parse(config)).apply(record)
    except (ValueError, IndexError, TypeError, ConfigError) as error:
        return Refusal(java_name(error), str(error))


def theirs(judge: Judge, java_class: str, config: Mapping[str, str], record: Record) -> Any:
    """What Connect's makes of it."""
    try:
        return judge.transform(java_class, config, record)
    except JavaError as error:
        return Refusal(error.class_name, error.message or "")


def compare(judge: Judge, name: str, config: Mapping[str, str], record: Record) -> Any:
    """Both outcomes are one; gives it. ``name`` is the class below Connect's package."""
    java_class = PACKAGE + name
    one, other = ours(java_class, config, record), theirs(judge, java_class, config, record)
    if isinstance(one, Refusal) and isinstance(other, Refusal):
        said = [one, *_each_alone(java_class, config, record)]
        known = any(same_refusal(name, each, other) for each in said)
        assert known, f"{config} {record}\n{one}\n{other}"
    else:
        assert same_record(one, other), f"{name} {config}\n{record}\nours   {one}\ntheirs {other}"
    return other


def _each_alone(java_class: str, config: Mapping[str, str], record: Record) -> list[Refusal]:
    """HashSet: what ours says of each field of the option by itself."""
    name = java_class.rpartition(".")[2].partition("$")[0]
    option = {"Cast": "spec", "MaskField": "fields"}.get(name, "")
    each = config[option].split(",") if option else []
    found = [ours(java_class, {**config, option: one}, record) for one in each]
    return [said for said in found if isinstance(said, Refusal)]


def compare_predicate(judge: Judge, name: str, config: Mapping[str, str], record: Record) -> bool:
    """Both predicates say the same; gives it."""
    java_class = PREDICATE_PACKAGE + name
    kind = find_predicate(java_class)[1]
    found = kind(kind.CONFIG.parse(config)).test(record)
    assert found == judge.predicate(java_class, config, record)
    return found


def same_refusal(name: str, one: Refusal, other: Refusal) -> bool:
    """Whether two exceptions are the same for users."""
    if one.java_class != other.java_class:
        return False
    if one.text == other.text.replace("java.util.LinkedHashMap", "java.util.HashMap"):
        return True
    if name.startswith("InsertField") and "InsertionSpec" in other.text:
        return one.text.startswith(other.text.partition("org.apache")[0])
    if one.java_class.endswith("ConfigException"):  # several problems
        return other.text.strip() in one.text
    if name == "TimestampRouter":  # Record.toString
        prefix = "Timestamp missing on record: "
        return one.text.startswith(prefix) and other.text.startswith(prefix)
    return False


def same_record(one: Any, other: Any) -> bool:
    """Whether two records, or Nones, are the same in all they hold."""
    if not isinstance(one, Record) or not isinstance(other, Record):
        return one is None and other is None
    if (one.topic, one.partition, one.timestamp, one.offset) != (
        other.topic, other.partition, other.timestamp, other.offset,
    ):  # fmt: skip
        return False
    schemas = [(one.key_schema, other.key_schema), (one.value_schema, other.value_schema)]
    if not all(alike_schemas(a, b) for a, b in schemas):
        return False
    if [h.name for h in one.headers] != [h.name for h in other.headers]:
        return False
    if [h.schema for h in one.headers] != [h.schema for h in other.headers]:
        return False
    values = [(one.key, other.key), (one.value, other.value)]
    values += [(a.value, b.value) for a, b in zip(one.headers, other.headers, strict=True)]
    return all(alike(a, b) for a, b in values)


def alike_schemas(one: Schema | None, other: Schema | None) -> bool:
    """Equal, but for the texts of numbers in defaults (Double.toString)."""
    if one is None or other is None or one == other:
        return one is other or one == other
    plain = [replace(schema, default=None, fields=()) for schema in (one, other)]
    pairs = zip(one.fields, other.fields, strict=False)
    return (
        plain[0] == plain[1]
        and len(one.fields) == len(other.fields)
        and all(a.name == b.name and alike_schemas(a.schema, b.schema) for a, b in pairs)
        and alike(one.default, other.default)
    )


def alike(one: Any, other: Any) -> bool:
    """Java's equals, but for the texts of numbers (Double.toString)."""
    if same(one, other):
        return True
    if isinstance(one, str) and isinstance(other, str):
        return _same_number(one, other)
    if isinstance(one, Struct) and isinstance(other, Struct):
        return alike_schemas(one.schema, other.schema) and all(map(alike, one.values, other.values))
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return all(map(alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return all(alike(value, other[key]) for key, value in one.items())
    return False


def _same_number(one: str, other: str) -> bool:
    try:
        a, b = float(one), float(other)
    except ValueError:
        return False
    shorter = len(one) <= len(other)
    return shorter and "." in one and (a == b or nearest_single(a) == nearest_single(b))
