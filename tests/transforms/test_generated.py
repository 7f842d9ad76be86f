"""Generated comparisons: every transform and predicate against Connect's own class."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.record import Record
from cdc.transforms import PACKAGE
from tests.connect.judge import Judge
from tests.connect.seeded import generated
from tests.transforms import generate
from tests.transforms.compare import (
    Refusal,
    compare,
    compare_predicate,
    ours,
    same_record,
    theirs,
)
from tests.transforms.generate import BOOLEANS, FIELDS, listed, optional

PARTS = pytest.mark.parametrize("part", ["Key", "Value"])
RNWD = {"replace.null.with.default": BOOLEANS}
TYPES = st.sampled_from(
    "int8 int16 int32 int64 float32 float64 boolean string INT8 String bytes struct int".split()
)
CASTS = st.one_of(
    st.lists(
        st.builds("{}:{}".format, FIELDS, TYPES), min_size=1, max_size=4, unique_by=lambda s: s[:2]
    ).map(",".join),
    TYPES,
    st.sampled_from(["", "a:b:c", "int8,a:int8", "a:", ":int8", "a : int16 , b: string"]),
)
FORMATS = st.sampled_from(
    [
        "yyyy-MM-dd",
        "yyyy-MM-dd HH:mm:ss.SSS",
        "yyyy-MM-dd'T'HH:mm:ss.SSSZ",
        "EEE, d MMM yyyy HH:mm:ss z",
        "yyyyMMddHHmmss",
        "hh:mm a",
        "YYYY-'W'ww-u",
        "G yy MMMM EEEE D F W k K XXX ''",
        "",
        "b",
        "'open",
    ]
)
LITERALS = st.sampled_from(
    ["text", "1", "300", "1.5", "true", "[1,2]", '{"a":1}', "2024-01-02", "null", "", "x y"]
)


def with_replacing(options: dict[str, Any]) -> st.SearchStrategy[dict[str, str]]:
    """The options, and sometimes replace.null.with.default."""
    return st.fixed_dictionaries(options, optional=RNWD)


OPTIONS: dict[str, st.SearchStrategy[dict[str, str]]] = {
    "Cast": with_replacing({"spec": CASTS}),
    "ExtractField": st.fixed_dictionaries(
        {"field": FIELDS | st.sampled_from(["a.b", "`a.b`.c", "`a", "", "a.", "none"])},
        optional={**RNWD, "field.syntax.version": st.sampled_from(["V1", "V2", "v2", "V3"])},
    ),
    "Flatten": optional(delimiter=st.sampled_from([".", "_", "", "--"])),
    "HeaderFrom": with_replacing(
        {
            "fields": listed(),
            "headers": st.sampled_from(["h", "h,i", "trace,id,h", ""]),
            "operation": st.sampled_from(["move", "copy"]),
        }
    )
    | st.just({"fields": "a", "headers": "h", "operation": "MOVE"}),
    "HoistField": st.fixed_dictionaries({"field": FIELDS | st.just("")}),
    "InsertField": optional(
        topic_field=st.sampled_from(["topic", "topic!", "topic?", "a", ""]),
        partition_field=st.sampled_from(["partition", "partition!"]),
        offset_field=st.sampled_from(["offset", "offset?"]),
        timestamp_field=st.sampled_from(["ts", "ts!"]),
        static_field=st.sampled_from(["s", "s!", "b"]),
        static_value=st.sampled_from(["x", ""]),
        replace_null_with_default=BOOLEANS,
    ),
    "MaskField": st.fixed_dictionaries(
        {"fields": listed()},
        optional={**RNWD, "replacement": st.sampled_from(["5", "-1.5", "abc", "1E400", "300"])},
    )
    | st.just({"fields": "a", "replacement": ""}),
    "ReplaceField": optional(
        exclude=listed(),
        include=listed(),
        renames=st.sampled_from(["a:b", "a:x", "id:a,a:id", "a", "a:b:c", "", "name:n,id:i"]),
        replace_null_with_default=BOOLEANS,
    ),
    "SetSchemaMetadata": optional(
        schema_name=st.sampled_from(["My.Name", ""]),
        schema_version=st.sampled_from(["3", "-1", "x"]),
        replace_null_with_default=BOOLEANS,
    ),
    "TimestampConverter": st.fixed_dictionaries(
        {"target.type": st.sampled_from(["string", "unix", "Date", "Time", "Timestamp", "date"])},
        optional={
            **RNWD,
            "field": FIELDS | st.just(""),
            "format": FORMATS,
            "unix.precision": st.sampled_from(
                ["seconds", "milliseconds", "microseconds", "nanoseconds", "days"]
            ),
        },
    ),
}


@PARTS
@pytest.mark.parametrize("name", OPTIONS)
def test_a_transform_of_key_or_value_does_as_connects(judge: Judge, name: str, part: str) -> None:
    @generated(60)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        depth = 2 if name in ("Flatten", "ExtractField") else 1
        record = data.draw(generate.records(is_key=part == "Key", depth=depth))
        compare(judge, f"{name}${part}", data.draw(OPTIONS[name]), record)

    check()


REGEXES = st.sampled_from(
    ["(.*)", r"(\w+)\.(\w+)\.(?<t>\w+)", "a|a-b", "[a-z&&[^t]]+", "(", "", "t{1,2}+", r"\p{Lower}+"]
)
WHOLE: dict[str, st.SearchStrategy[dict[str, str]]] = {
    "DropHeaders": st.fixed_dictionaries(
        {"headers": st.sampled_from(["h", "h,trace", "none", "", "h,h", "h,,id"])}
    ),
    "Filter": st.just({}),
    "InsertHeader": st.fixed_dictionaries(
        {"header": st.sampled_from(["h", "new"]), "value.literal": LITERALS}
    ),
    "RegexRouter": st.fixed_dictionaries(
        {
            "regex": REGEXES,
            "replacement": st.sampled_from(
                ["$1-x", "${t}", r"\$1", "x", "", "$9", "$x", "${none}", "$12", "\\", "$", "${t"]
            ),
        }
    ),
    "TimestampRouter": optional(
        topic_format=st.sampled_from(
            ["${topic}-${timestamp}", "${timestamp}", "x-${topic}", "${topic}${topic}$1"]
        ),
        timestamp_format=FORMATS,
    ),
    "ValueToKey": with_replacing({"fields": listed()}),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_transform_of_whole_records_does_as_connects(judge: Judge, name: str) -> None:
    @generated(60)
    @given(record=generate.records(), config=WHOLE[name])
    def check(record: Record, config: dict[str, str]) -> None:
        compare(judge, name, config, record)

    check()


PREDICATES: dict[str, st.SearchStrategy[dict[str, str]]] = {
    "HasHeaderKey": st.fixed_dictionaries({"name": st.sampled_from(["h", "trace", "x"])}),
    "RecordIsTombstone": st.just({}),
    "TopicNameMatches": st.fixed_dictionaries(
        {"pattern": st.sampled_from(["t", "orders", ".*orders", r"[^.]+", "(?i)ORDERS", "order"])}
    ),
}


@pytest.mark.parametrize("name", PREDICATES)
def test_a_predicate_says_what_connects_says(judge: Judge, name: str) -> None:
    @generated(30)
    @given(record=generate.records(), config=PREDICATES[name])
    def check(record: Record, config: dict[str, str]) -> None:
        compare_predicate(judge, name, config, record)

    check()


ALL = {f"{name}${part}": OPTIONS[name] for name in OPTIONS for part in ("Key", "Value")} | WHOLE


def test_a_chain_does_as_connects(judge: Judge) -> None:
    """What one step leaves is what the next one takes: values, schemas and their defaults."""

    @generated(80)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        is_key = data.draw(st.booleans())
        record = theirs_of = data.draw(generate.records(is_key=is_key, depth=2))
        part = "Key" if is_key else "Value"
        fitting = [name for name in ALL if name.endswith(part)]
        for _ in range(4):
            name = data.draw(st.sampled_from([*fitting * 3, *ALL]))
            options = data.draw(ALL[name])
            if isinstance(record.key if is_key else record.value, dict):
                # Two entries of a map with one new name: the last one stays, and Java's maps
                # have an order of their own.
                options = {key: text for key, text in options.items() if key != "renames"}
            one = ours(PACKAGE + name, options, record)
            other = theirs(judge, PACKAGE + name, options, theirs_of)
            if isinstance(one, Refusal) and isinstance(other, Refusal):
                assert one.java_class == other.java_class, (name, options, record)
                if one.java_class.endswith("ConfigException"):
                    continue
                return
            assert same_record(one, other), (name, options, record, one, other)
            if one is None:
                return
            record, theirs_of = one, other

    check()
