"""Wrong configurations of whole chains: what a Connect worker's validation says of them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cdc.secrets import RawConfig
from cdc.transforms import PACKAGE, PREDICATE_PACKAGE
from cdc.transforms.chain import validate_chain
from tests.connect.judge import Judge
from tests.connect.seeded import generated

TYPES = st.sampled_from(
    [
        PACKAGE + "Filter",
        PACKAGE + "HoistField$Value",
        PACKAGE + "InsertField$Key",
        PACKAGE + "MaskField$Value",
        PACKAGE + "RegexRouter",
        PACKAGE + "SetSchemaMetadata$Value",
        "TimestampRouter",
        PACKAGE + "Cast",
        "com.example.Nope",
        "Cast$Value",
        "Value",
        PREDICATE_PACKAGE + "RecordIsTombstone",
        "",
    ]
)
ASKED = st.sampled_from(
    [
        PREDICATE_PACKAGE + "RecordIsTombstone",
        PREDICATE_PACKAGE + "TopicNameMatches",
        PREDICATE_PACKAGE + "HasHeaderKey",
        "com.example.Nope",
        PACKAGE + "Filter",
    ]
)
OPTIONS = {
    "field": st.just("f"),
    "fields": st.sampled_from(["a", "a,b", ""]),
    "regex": st.sampled_from(["(.*)", "a"]),
    "replacement": st.sampled_from(["x", ""]),
    "schema.version": st.sampled_from(["1", "x", "1.5", ""]),
    "replace.null.with.default": st.sampled_from(["true", "yes", "TRUE "]),
    "static.field": st.just("s"),
    "static.value": st.just("v"),
    "predicate": st.sampled_from(["p", "q", "none"]),
    "negate": st.sampled_from(["true", "false", "maybe"]),
}
ALIASES = st.sampled_from(["a", "a,b", "b, a", "a,a", "b,a,b", ""])


@st.composite
def chains(draw: st.DrawFn) -> dict[str, str]:
    """Transforms and predicates, mostly with something wrong."""
    config = {"name": "c", "connector.class": "x", "transforms": draw(ALIASES)}
    for alias in ("a", "b"):
        parts: dict[str, Any] = draw(st.fixed_dictionaries({}, optional=OPTIONS))
        if draw(st.integers(0, 9)):
            parts["type"] = draw(TYPES)
        config |= {f"transforms.{alias}.{name}": text for name, text in parts.items()}
    if draw(st.booleans()):
        config["predicates"] = draw(st.sampled_from(["p", "p,q", "q,q", ""]))
        for alias in ("p", "q"):
            if draw(st.integers(0, 9)):
                config[f"predicates.{alias}.type"] = draw(ASKED)
            for name, text in (("pattern", "t.*"), ("name", "h")):
                if draw(st.booleans()):
                    config[f"predicates.{alias}.{name}"] = text
    return config


# What Connect says of the same configuration only when it starts the connector.
AT_THE_START = (
    "Unknown configuration 'predicates.",
    "No field insertion configured",
    "Invalid value null for configuration static.value: No value specified",
    "Neither schema name nor version configured",
)
# What Connect says of a list, which we look at when single values are right.
OF_LISTS = ("must not be empty", "Empty list")
# What Connect says of an option's value after it has said that it is missing.
OF_NOTHING = ("Cannot invoke ", "values must not be null.")


def _bare(name: str, text: str) -> str:
    """A text of ours as Connect has it where a validator says it, without the option's prefix."""
    kind, alias, _ = f"{name}..".split(".", 2)
    return text.replace(f"{kind}.{alias}.", "", 1)


def test_a_chain_is_validated_as_a_worker_of_connect_does(judge: Judge) -> None:
    @generated(150)
    @given(config=chains())
    def check(config: dict[str, str]) -> None:
        ours, theirs = set(validate_chain(RawConfig(config))), set(judge.chain(config))
        missing = {name for name, text in theirs if text.startswith("Missing required")}
        named = {name for name, _ in theirs}
        full = {(name, _bare(name, text)): (name, text) for name, text in ours}
        same = {full[each] for each in full.keys() & theirs}
        ours, theirs = ours - same, theirs - full.keys()
        for name, text in ours - theirs:
            # Of several problems with a class Connect names one.
            also = name in named and name.endswith(".type")
            assert also or text.startswith(AT_THE_START), (config, name, text)
        wrong = {name.rpartition(".")[0] for name, text in ours | same if "Invalid value" in text}
        for name, text in theirs - ours:
            if any(words in text for words in OF_LISTS):  # several problems
                assert any(each.startswith(name.rpartition(".")[0]) for each in wrong), config
                continue
            assert name in missing, (config, name, text)
            assert any(words in text for words in OF_NOTHING), (config, name, text)

    check()
