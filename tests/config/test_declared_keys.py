"""Parsing by declaration: kinds, limits, spellings, checks, and what is not shown."""

import json
import pickle
import traceback
from typing import Any

import pytest

from cdc.config import (
    REQUIRED,
    Config,
    ConfigDef,
    Key,
    Kind,
    Secret,
    at_least,
    between,
    inert,
    java_regexes,
    refused,
    split_regexes,
)
from cdc.errors import ConfigError
from cdc.secrets import RawConfig, hide, mask_url, show_name
from cdc.sourceconfig import exclusive


def parse(key: Key, value: Any) -> Any:
    return ConfigDef([key]).parse({key.name: value})[key.name]


def problem(definition: ConfigDef, raw: dict[str, Any], **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        definition.parse(raw, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [
        (Kind.STRING, "  a b ", "a b"),
        (Kind.STRING, "", ""),
        (Kind.INT, " 42 ", 42),
        (Kind.INT, "+7", 7),
        (Kind.INT, "٣", 3),  # as Java's parseInt
        (Kind.INT, 2147483647, 2147483647),
        (Kind.SHORT, "-32768", -32768),
        (Kind.LONG, "9223372036854775807", 2**63 - 1),
        (Kind.DOUBLE, "1e3", 1000.0),
        (Kind.DOUBLE, "1d", 1.0),
        (Kind.BOOLEAN, "TRUE", True),
        (Kind.BOOLEAN, False, False),
        (Kind.LIST, " a , b,c ", ("a", "b", "c")),
        (Kind.LIST, "", ()),
        (Kind.CLASS, " org.x.Y ", "org.x.Y"),
        (Kind.PASSWORD, " geheim ", Secret("geheim")),
        (Kind.PASSWORD, "geheim\u00a0", Secret("geheim\u00a0")),  # for Java that is no blank
    ],
)
def test_a_value_is_trimmed_and_typed(kind: Kind, written: Any, value: Any) -> None:
    assert parse(Key("k", kind), written) == value


@pytest.mark.parametrize(
    ("kind", "written", "reason"),
    [
        (Kind.INT, "1_000", "Not a number of type INT"),
        (Kind.INT, "1e3", "Not a number of type INT"),
        (Kind.INT, "2147483648", "Not a number of type INT"),
        (Kind.INT, "", "Not a number of type INT"),
        (Kind.INT, "9" * 5000, "Not a number of type INT"),
        (Kind.SHORT, "32768", "Not a number of type SHORT"),
        (Kind.LONG, "9223372036854775808", "Not a number of type LONG"),
        (Kind.DOUBLE, "1_0", "Not a number of type DOUBLE"),
        (Kind.DOUBLE, "inf", "Not a number of type DOUBLE"),
        (Kind.BOOLEAN, "yes", "Expected value to be either true or false"),
    ],
)
def test_a_wrong_value_gets_connects_text(kind: Kind, written: str, reason: str) -> None:
    text = problem(ConfigDef([Key("k", kind)]), {"k": written})
    assert text == f"Invalid value {written} for configuration k: {reason}"


def test_all_problems_are_listed_one_per_line() -> None:
    keys = ConfigDef([Key("a", Kind.INT, REQUIRED), Key("b", Kind.INT), Key("c", Kind.BOOLEAN)])
    assert problem(keys, {"b": "x", "c": "y"}).splitlines() == [
        "Invalid value x for configuration b: Not a number of type INT",
        "Invalid value y for configuration c: Expected value to be either true or false",
        'Missing required configuration "a" which has no default value.',
    ]


def test_a_misspelling_of_what_is_missing_is_named_beside_it() -> None:
    keys = ConfigDef([Key("table.name", Kind.STRING, REQUIRED, aliases=("table",))])
    assert problem(keys, {"tabel.name": "x"}).splitlines() == [
        "Unknown configuration tabel.name; did you mean table.name?",
        'Missing required configuration "table.name" which has no default value.',
    ]
    (warning,) = keys.parse({"tabel.name": "x", "table.name": "y"}).warnings
    assert warning.startswith("Unknown configuration tabel.name is ignored")
    assert keys.parse({"tabel.name": "x", "table": "y"})["table.name"] == "y"


def test_a_required_text_is_not_empty_and_null_is_missing() -> None:
    keys = ConfigDef([Key("a", Kind.STRING, REQUIRED)])
    assert problem(keys, {"a": " "}).endswith("String must be non-empty")
    assert problem(keys, {"a": None}).startswith('Missing required configuration "a"')


def test_defaults_are_filled_in_and_lists_and_passwords_have_their_types() -> None:
    keys = [Key("l", Kind.LIST), Key("m", Kind.LIST, ("t",)), Key("p", Kind.PASSWORD, "x")]
    config = ConfigDef(keys).parse({})
    assert (config["l"], config["m"], config["p"]) == ((), ("t",), Secret("x"))


@pytest.mark.parametrize(
    ("validator", "written", "reason"),
    [
        (at_least(1), "0", "Value must be at least 1"),
        (between(1, 5), "6", "Value must be no more than 5"),
        (between(1, 5), "0", "Value must be at least 1"),
    ],
)
def test_ranges_are_checked(validator: Any, written: str, reason: str) -> None:
    keys = ConfigDef([Key("k", Kind.INT, 1, validator=validator)])
    assert problem(keys, {"k": written}).endswith(reason)


def test_choices_are_found_in_any_case_and_listed_when_wrong() -> None:
    key = Key("m", default="a", choices=("a", "Both"))
    assert parse(key, "BOTH") == "Both"
    assert problem(ConfigDef([key]), {"m": "x"}).endswith("String must be one of: a, Both")


def test_an_older_key_and_an_older_value_are_taken_with_a_warning_that_names_the_new() -> None:
    key = Key("new", aliases=("old",), choices=("no_data",), value_aliases={"never": "no_data"})
    config = ConfigDef([key]).parse({"old": "Never"})
    assert config["new"] == "no_data"
    assert config.warnings == [
        "old is an older name of new; use that",
        "new=Never is an older spelling of no_data; use that",
    ]


def test_the_newer_of_two_spellings_wins_whatever_their_order() -> None:
    keys = ConfigDef([Key("new", aliases=("old",))])
    for raw in ({"new": "1", "old": "2"}, {"old": "2", "new": "1"}):
        config = keys.parse(raw)
        assert config["new"] == "1"
        assert config.warnings == ["old is ignored, since new is set too"]


def test_an_unknown_key_is_a_warning_with_the_nearest_known_one() -> None:
    keys = ConfigDef([Key("snapshot.mode"), Key("slot.name")])
    config = keys.parse({"snapshot.mod": "x", "zzz": "y"})
    assert config.warnings == [
        "Unknown configuration snapshot.mod is ignored; did you mean snapshot.mode?",
        "Unknown configuration zzz is ignored",
    ]
    assert "zzz" not in config
    assert config.raw["zzz"] == "y"


@pytest.mark.parametrize(
    ("raw", "options"), [({"config.strict": "true"}, {}), ({}, {"strict": True})]
)
def test_an_unknown_key_is_an_error_when_strict(raw: dict[str, str], options: Any) -> None:
    keys = ConfigDef([Key("snapshot.mode")])
    text = problem(keys, {"snapshot.mod": "x", **raw}, **options)
    assert text == "Unknown configuration snapshot.mod; did you mean snapshot.mode?"


def test_an_inert_key_is_listed_when_it_is_set_to_something_else_than_its_default() -> None:
    keys = ConfigDef([inert("a", Kind.INT, 1, ""), inert("b", Kind.INT, 1, "", "Not needed.")])
    assert keys.parse({"a": "1", "b": "1"}).inert == []
    config = keys.parse({"a": "2", "b": "2"})
    assert config.inert == ["a", "b"]
    assert config.warnings == ["b has no effect: Not needed."]


def test_a_refused_key_may_have_its_default_only() -> None:
    keys = ConfigDef([refused("a", Kind.BOOLEAN, False, "", "It would leak.")])
    assert keys.parse({"a": "FALSE"})["a"] is False
    assert problem(keys, {"a": "true"}) == (
        "Invalid value true for configuration a: It would leak."
    )


def test_a_refused_value_says_why() -> None:
    key = Key("m", default="a", choices=("a",), refused_values={"custom": "No Java here."})
    assert problem(ConfigDef([key]), {"m": "Custom"}).endswith("m: No Java here.")


def test_a_family_of_keys_is_known_by_its_pattern() -> None:
    keys = ConfigDef([Key("mask.<n>", Kind.INT, pattern=r"mask\.\d+")])
    config = keys.parse({"mask.12": "5", "mask.x": "5"})
    assert config["mask.12"] == 5
    assert "mask.<n>" not in config
    assert config.warnings[0].startswith("Unknown configuration mask.x")


def test_definitions_are_merged_and_the_later_declaration_wins() -> None:
    both = ConfigDef([Key("a", default="1"), Key("b")]) + ConfigDef([Key("a", default="2")])
    assert both.parse({})["a"] == "2"
    assert list(both.keys) == ["b", "a", "config.strict"]


def test_a_check_over_several_values_runs_when_each_is_right() -> None:
    def check(values: Any) -> Any:
        if values["a"] and values["b"]:
            yield "a", "not both"

    keys = ConfigDef([Key("a", Kind.INT), Key("b")], checks=[check])
    assert problem(keys, {"a": "1", "b": "x"}) == "not both"
    assert problem(keys, {"a": "x", "b": "x"}) == (
        "Invalid value x for configuration a: Not a number of type INT"
    )


def test_a_subset_gives_the_texts_below_a_prefix() -> None:
    config = ConfigDef([]).parse({"c.schemas.enable": True, "c": "x", "d.e": "1"})
    assert config.subset("c.") == {"schemas.enable": "true"}


def test_validation_reports_each_declared_key_in_order_and_hides_passwords() -> None:
    keys = ConfigDef(
        [
            Key("a", Kind.INT, REQUIRED),
            Key("p", Kind.PASSWORD),
            Key("l", Kind.LIST, ("x", "y"), choices=("x", "y", "z")),
            Key("n", Kind.LIST),
        ]
    )
    results = keys.validate({"a": "q", "p": "geheim", "zz": "1"})
    assert [r.name for r in results] == ["a", "p", "l", "n", "config.strict", "zz"]
    assert [r.value for r in results] == ["q", "[hidden]", "x,y", None, "false", "1"]
    assert results[0].errors == ["Invalid value q for configuration a: Not a number of type INT"]
    assert results[2].recommended == ["x", "y", "z"]
    assert results[5].warnings


def test_lists_of_regexes_split_as_debezium_splits_them() -> None:
    # Expected values were printed by io.debezium.util.Strings.listOfRegex, 3.6.3.
    expected = {
        "a,b": ("a", "b"),
        r"a\,b,c": ("a,b", "c"),
        " a , b ": ("a", "b"),
        r"x{1\,3}.t,y": ("x{1,3}.t", "y"),
        "a,,b": ("a", "b"),
        r"a\\,b": (r"a\\", "b"),
        r"(a\|b)": (r"(a\|b)",),
    }
    assert {text: split_regexes(text) for text in expected} == expected


def test_a_broken_regex_is_named() -> None:
    key = Key("t", Kind.LIST, splitter=split_regexes, validator=java_regexes)
    assert "'(b' is not a regular expression" in problem(ConfigDef([key]), {"t": "a,(b"})


PASSWORDS = ConfigDef(
    [Key("db.pass", Kind.PASSWORD), Key("n", Kind.INT), Key("connection.url"), Key("url")]
)


def test_secrets_are_in_no_display_of_a_configuration() -> None:
    raw = {
        "db.pass": "geheim",
        "other.password": "geheim",
        "connection.url": "postgresql://me:geheim@host/db",
        "url": "host=h password=geheim",
        "filled": "geheim",
    }
    config = PASSWORDS.parse(raw, secrets={"filled"})
    shown = [
        repr(config), str(config), repr(config["db.pass"]), repr(config.raw), str(config.raw),
        f"{config.raw}", json.dumps(config.safe()), repr(config.warnings),
        repr(config.subset("other.")), f"{config['db.pass']}", "{}".format(config["db.pass"]),
        repr(PASSWORDS.validate(raw, secrets={"filled"})), repr(config.subset("")),
    ]  # fmt: skip
    assert not [text for text in shown if "geheim" in text]
    assert config["db.pass"].reveal() == config.raw["db.pass"] == "geheim"


def test_secrets_are_in_no_error() -> None:
    keys = ConfigDef(
        [
            refused("db.pass", Kind.PASSWORD, None, "", "No."),
            Key("n.secret", Kind.INT),
            Key("filled", Kind.INT),
            Key("url", Kind.INT),
            Key("regex", validator=java_regexes),  # which quotes what it refuses
            Key("api.key.regex", validator=java_regexes),
            refused("hash", Kind.STRING, None, "", "No.", pattern=r"c\.with\.salt\..+"),
        ]
    )
    raw = {
        "db.pass": "geheim",
        "n.secret": "geheim",
        "filled": "geheim",
        "url": "jdbc:x://u:geheim@h",
        "c.with.salt.geheim": "t",
        "regex": "(geheim",
        "api.key.regex": "(geheim",
    }
    with pytest.raises(ConfigError) as caught:
        keys.parse(raw, secrets={"filled", "regex"})
    assert len(str(caught.value).splitlines()) == 7
    assert "geheim" not in "".join(traceback.format_exception(caught.value))
    both = ConfigDef(
        [Key("in", Kind.LIST), Key("out", Kind.LIST)], checks=[exclusive(("in", "out"))]
    )
    lists = {"in": "a", "out": "geheim,b"}
    assert "geheim,b" in problem(both, lists)
    assert problem(both, lists, secrets={"out"}) == "Invalid value [hidden] for configuration out"


def test_a_secret_cannot_be_serialised_or_joined_by_accident() -> None:
    secret = Secret("geheim")
    assert (str(secret), repr(secret), f"{secret:}") == ("***", "***", "***")
    assert bool(secret)
    assert not Secret("")
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises(TypeError):
        "".join(["me", *[secret]])  # type: ignore[list-item]


def test_secrets_are_taken_out_of_an_error_and_what_caused_it() -> None:
    error = ConfigError("hunter2 is wrong", remedy="Ask hunter.")
    error.__cause__ = ValueError("because of hunter2", 5)
    error.__cause__.__context__ = error  # round and round
    hide(error, ["hunter2"])
    assert str(error) == "[hidden] is wrong. Ask hunter."
    assert error.__cause__.args == ("because of [hidden]", 5)


def test_the_users_own_pattern_hides_further_keys() -> None:
    raw = {"my.KENNWORT": "geheim", "custom.sanitize.pattern": ".*kennwort$"}
    config = ConfigDef([Key("custom.sanitize.pattern")]).parse(raw)
    assert "geheim" not in repr(config)


def test_a_configuration_travels_to_another_process() -> None:
    config = PASSWORDS.parse({"db.pass": "geheim", "x": "1"}, secrets={"x"})
    copy: Config = pickle.loads(pickle.dumps(config))
    assert dict(copy) == dict(config)
    assert copy.raw == config.raw
    assert copy.raw.secrets == config.raw.secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:pw@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p/w@h/d", "postgresql://u:***@h/d"),
        ("jdbc:mysql://h:3306/d?user=a&password=b&x=1", "jdbc:mysql://h:3306/d?user=a&password=***&x=1"),
        ("http://h:8083/x", "http://h:8083/x"),
    ],
)  # fmt: skip
def test_passwords_in_urls_are_masked(text: str, shown: str) -> None:
    assert mask_url(text) == shown


def test_a_salt_in_a_keys_name_is_masked() -> None:
    assert show_name("column.mask.hash.SHA-256.with.salt.abc") == (
        "column.mask.hash.SHA-256.with.salt.***"
    )
    assert RawConfig({"x.with.salt.abc": "1"}).safe() == {"x.with.salt.***": "1"}


def test_a_refused_key_without_a_reason_cannot_be_declared() -> None:
    with pytest.raises(ValueError, match="needs its reason"):
        Key("a", effect="refused")
    with pytest.raises(ValueError, match="unknown effect"):
        Key("a", effect="maybe")
