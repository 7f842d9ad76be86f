"""A chain's configuration: aliases, names of classes, predicates, options; Connect's texts."""

from __future__ import annotations

import pytest

from cdc.connectors import SINK_CONFIG
from cdc.errors import ConfigError
from cdc.record import Header, Record
from cdc.runtime.chain import configured_steps
from cdc.secrets import RawConfig
from cdc.transforms import PACKAGE, PREDICATES, TRANSFORMS, find_predicate, find_transform
from cdc.transforms.chain import chain_results, parse_chain, validate_chain
from cdc.transforms.contract import HeaderEditing, Routing, TopicPredicate
from schemas import Schema, Struct
from tests.connect.compared import declared
from tests.connect.judge import Judge

ROW = Record("orders", 0, None, None, None, {"id": 1})


def chain(**texts: str) -> RawConfig:
    """A configuration; names have dots for double underscores."""
    return RawConfig({name.replace("__", "."): text for name, text in texts.items()})


def test_nobodys_chain_has_no_steps() -> None:
    assert parse_chain(RawConfig({"name": "c"})) == ()


def test_steps_are_applied_in_the_order_of_the_list() -> None:
    raw = chain(
        transforms="b, a",
        transforms__a__type="RegexRouter",
        transforms__a__regex="(.*)",
        transforms__a__replacement="a-$1",
        transforms__b__type="org.apache.kafka.connect.transforms.HoistField$Value",
        transforms__b__field="row",
    )
    first, second = parse_chain(raw)
    assert (first.alias, first.java_class) == ("b", PACKAGE + "HoistField$Value")
    record = first.apply(ROW)
    assert record is not None
    assert record.value == {"row": {"id": 1}}
    record = second.apply(record)
    assert record is not None
    assert record.topic == "a-orders"


@pytest.mark.parametrize(("negate", "kept"), [("false", False), ("true", True)])
def test_a_predicate_decides_whether_a_step_is_applied(negate: str, kept: bool) -> None:
    raw = chain(
        transforms="drop",
        transforms__drop__type="Filter",
        transforms__drop__predicate="ours",
        transforms__drop__negate=negate,
        predicates="ours",
        predicates__ours__type="TopicNameMatches",
        predicates__ours__pattern="ord.*",
    )
    (step,) = parse_chain(raw)
    assert (step.apply(ROW) is ROW) is kept


@pytest.mark.parametrize(
    ("texts", "key", "problem"),
    [
        (
            {"transforms": "a,a", "transforms__a__type": "Filter"},
            "transforms",
            "Invalid value [a, a] for configuration transforms: Duplicate alias provided.",
        ),
        (
            {"predicates": "p,p", "predicates__p__type": "RecordIsTombstone"},
            "predicates",
            "Invalid value [p, p] for configuration predicates: Duplicate alias provided.",
        ),
        (
            {"transforms": "a"},
            "transforms.a.type",
            'Missing required configuration "transforms.a.type" which has no default value.',
        ),
        (
            {"transforms": "a", "transforms__a__type": "com.example.Nope"},
            "transforms.a.type",
            (
                "Invalid value com.example.Nope for configuration transforms.a.type: "
                "Class com.example.Nope could not be found."
            ),
        ),
        (
            {"transforms": "a", "transforms__a__type": PACKAGE + "Cast"},
            "transforms.a.type",
            (
                "This class is abstract and cannot be created. Did you mean "
                "org.apache.kafka.connect.transforms.Cast$Key, "
                "org.apache.kafka.connect.transforms.Cast$Value?"
            ),
        ),
        *(
            (
                {"transforms": "a", "transforms__a__type": short},
                "transforms.a.type",
                (
                    f"Invalid value {short} for configuration transforms.a.type: "
                    f"Class {short} could not be found."
                ),
            )
            for short in ("Cast$Value", "Value", "Key")  # of nested classes there is no alias
        ),
        (
            {"transforms": "a", "transforms__a__type": "RecordIsTombstone"},
            "transforms.a.type",
            (
                "Class class org.apache.kafka.connect.transforms.predicates.RecordIsTombstone "
                "does not implement the Transformation interface"
            ),
        ),
        (
            {"transforms": "a", "transforms__a__type": "Filter", "transforms__a__negate": "true"},
            "transforms.a.type",
            (
                "Config 'transforms.a.negate' was provided but there is no config "
                "'transforms.a.predicate' defining a predicate to be negated."
            ),
        ),
        (
            {"transforms": "a", "transforms__a__type": "Filter", "transforms__a__predicate": "p"},
            "transforms.a.predicate",
            "Unknown configuration 'predicates.p.type'",
        ),
        (
            {"transforms": "a", "transforms__a__type": "ValueToKey", "transforms__a__fields": ""},
            "transforms.a.fields",
            (
                "Configuration 'transforms.a.fields' must not be empty. "
                "Valid values include: any non-empty value"
            ),
        ),
        (
            {
                "transforms": "a",
                "transforms__a__type": "org.apache.kafka.connect.transforms.Flatten$Key",
                "transforms__a__predicate": "p",
                "transforms__a__negate": "yes",
                "predicates": "p",
                "predicates__p__type": "RecordIsTombstone",
            },
            "transforms.a.negate",
            (
                "Invalid value yes for configuration transforms.a.negate: "
                "Expected value to be either true or false"
            ),
        ),
    ],
)
def test_a_wrong_chain_is_refused_with_connects_text(
    texts: dict[str, str], key: str, problem: str
) -> None:
    assert validate_chain(chain(**texts)) == [(key, problem)]
    with pytest.raises(ConfigError) as caught:
        parse_chain(chain(**texts))
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("io.debezium.transforms.ExtractNewRecordState", "In sql, search and audit sinks leave it"),
        ("io.debezium.transforms.outbox.EventRouter", ""),
        ("io.confluent.connect.transforms.TombstoneHandler", "Filter with the predicate"),
        ("io.confluent.connect.transforms.ReplaceField$Value", ""),
        ("io.aiven.kafka.connect.transforms.Hash$Value", ""),
        ("com.github.jcustenborder.kafka.connect.transform.common.ToJSON$Value", ""),
    ],
)
def test_other_peoples_transforms_are_refused_with_what_is_there(name: str, instead: str) -> None:
    ((key, text),) = validate_chain(chain(transforms="a", transforms__a__type=name))
    assert key == "transforms.a.type"
    found = f"Invalid value {name} for configuration {key}: Class {name} could not be found. "
    assert text.startswith(found + instead)
    assert "Connect's own transforms are there: Cast, DropHeaders, ExtractField, " in text


def test_an_unknown_option_is_named_with_the_nearest_known_one() -> None:
    raw = chain(transforms="a", transforms__a__type="DropHeaders", transforms__a__header="h")
    errors = [text for result in chain_results(raw) for text in result.errors]
    assert "Unknown configuration transforms.a.header; did you mean transforms.a.headers?" in errors
    raw["transforms.a.headers"] = "h"  # no longer why a required key is missing
    warnings = [text for result in chain_results(raw) for text in result.warnings]
    assert warnings == [
        "Unknown configuration transforms.a.header is ignored; did you mean transforms.a.headers?"
    ]


@pytest.mark.parametrize(("listed", "hint"), [("mask", "; did you mean mask?"), ("", "")])
def test_options_of_an_alias_that_is_not_listed_are_named(
    listed: str, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    raw = {"transforms": listed, "transforms.mask.type": "Filter", "transforms.msk.fields": "a"}
    if not listed:
        del raw["transforms.mask.type"]
    unknown, why = "Unknown configuration transforms.msk.fields", "transforms does not name msk"
    sink = {"name": "c", "connector.class": "console", "topics": "t"}
    steps = configured_steps(SINK_CONFIG.parse(sink | raw))
    assert len(steps) == len(listed.split())
    assert caplog.messages == [f"{unknown} is ignored: {why}{hint}"]
    assert validate_chain(RawConfig(raw)) == []
    strict = RawConfig({**raw, "config.strict": "true"})
    assert validate_chain(strict) == [("transforms.msk.fields", f"{unknown}: {why}{hint}")]


@pytest.mark.parametrize(("older", "newer"), [("blacklist", "exclude"), ("whitelist", "include")])
def test_an_option_that_an_older_connect_knew_is_taken_and_named(
    older: str, newer: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind = PACKAGE + "ReplaceField$Value"
    record = Record("users", 0, None, None, None, {"id": 1, "password": "secret"})
    for option, said in (
        (older, [f"transforms.a.{older} is an older name of transforms.a.{newer}; use that"]),
        (newer, []),
    ):
        field = "password" if newer == "exclude" else "id"
        raw = RawConfig(
            {"transforms": "a", "transforms.a.type": kind, f"transforms.a.{option}": field}
        )
        caplog.clear()
        (step,) = parse_chain(raw)
        assert caplog.messages == said
        left = step.apply(record)
        assert left is not None
        assert left.value == {"id": 1}


def test_a_validation_offers_the_classes_there_are() -> None:
    results = {
        r.name: r for r in chain_results(chain(transforms="a", transforms__a__type="Filter"))
    }
    assert results["transforms.a.type"].recommended == list(TRANSFORMS)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_declares_what_connects_declares(judge: Judge, name: str) -> None:
    assert declared(find_transform(name)[1].CONFIG) == judge.config(name, {})["keys"]


@pytest.mark.parametrize("name", PREDICATES)
def test_every_predicate_declares_what_connects_declares(judge: Judge, name: str) -> None:
    assert declared(find_predicate(name)[1].CONFIG) == judge.config(name, {})["keys"]


def test_what_depends_on_topic_or_headers_alone_says_so() -> None:
    for name, offered in {"RegexRouter": Routing, "DropHeaders": HeaderEditing,
                          "InsertHeader": HeaderEditing}.items():  # fmt: skip
        kind = find_transform(name)[1]
        assert hasattr(kind, "route" if offered is Routing else "edit_headers")
    kind = find_predicate("TopicNameMatches")[1]
    assert isinstance(kind(kind.CONFIG.parse({"pattern": "t"})), TopicPredicate)


def test_a_record_is_never_changed_in_place() -> None:
    schema = Schema("struct")
    record = Record("t", 0, None, None, schema, Struct(schema, []), 1, (Header("h", 1, None),))
    kind = find_transform("DropHeaders")[1]
    assert kind(kind.CONFIG.parse({"headers": "h"})).apply(record) is not record
    assert len(record.headers) == 1


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        ("Cast$Value", "spec", "a:hunter2"),
        ("RegexRouter", "regex", "(hunter2"),
        ("TimestampConverter$Value", "target.type", "hunter2"),
        ("TimestampConverter$Value", "format", "hunter2"),
    ],
)
def test_what_a_config_provider_gave_is_in_no_error(kind: str, option: str, value: str) -> None:
    key = f"transforms.a.{option}"
    texts = {"transforms": "a", "transforms.a.type": kind, key: value}
    if not kind.startswith("Regex"):
        texts["transforms.a.type"] = PACKAGE + kind
    if option == "format":
        texts["transforms.a.target.type"] = "string"
    aliases = RawConfig({"transforms": "hunter2,hunter2", "transforms.hunter2.fields": ""})
    aliases.secrets = frozenset(["transforms"])
    assert len(validate_chain(aliases)) == 2
    assert "hunter2" not in str(validate_chain(aliases))
    raw = RawConfig(texts, [key])
    problems = validate_chain(raw)
    assert (key, f"Invalid value [hidden] for configuration {key}") in problems
    assert "hunter2" not in str(problems).lower()
    with pytest.raises(ConfigError) as caught:
        parse_chain(raw)
    assert "hunter2" not in str(caught.value).lower()
