"""Configurations against Connect's: values by type, placeholders, every connector's keys."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cdc.config import ConfigDef, Key, Kind, Secret
from cdc.configfile import load_properties
from cdc.connectors import SINK_CONFIG, SOURCE_CONFIG
from cdc.errors import ConfigError
from cdc.providers import Providers
from tests.connect.compared import declared
from tests.connect.judge import JavaError, Judge, decode
from tests.connect.seeded import generated

KAFKA = "org.apache.kafka.common.config.provider."

# --- values

BLANKS = st.sampled_from(
    ["", " ", "\t", "\n", "\x01", "\x1f", "\x0b", "\u00a0", "\u2003", "\u3000"]
)
PIECES = (
    "1 +1 -7 007 32767 32768 -32769 2147483648 9223372036854775808 ٣ １２ 𝟎 1_0 1e3 0x10 0x1p3 1.5 "
    ".5 5. 1d 1F NaN nan Infinity inf -Infinity infinity 1e400 -0 + - -- true TRUE False yes a a,b "
    "a,,b a, ,a , $"
).split(" ")
WORDS = st.tuples(BLANKS, st.sampled_from(["", *PIECES]), BLANKS).map("".join)
WRITTEN = st.lists(WORDS, min_size=1, max_size=3).map(",".join)


def parsed(kind: Kind, text: str) -> tuple[str, Any]:
    try:
        value = ConfigDef([Key("k", kind)]).parse({"k": text})["k"]
    except ConfigError as error:
        return "error", str(error)
    if isinstance(value, Secret):
        value = value.reveal()
    return "value", repr(list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
def test_a_value_is_read_as_connect_reads_it(judge: Judge, kind: Kind) -> None:
    @generated(40)
    @given(text=WORDS | WRITTEN)
    def check(text: str) -> None:
        try:
            value = decode(judge.ask("ConfigDef", "parse_type", type=kind.value, text=text))
            theirs = "value", repr(value)
        except JavaError as error:
            theirs = "error", error.message or ""
        ours = parsed(kind, text)
        if kind is Kind.CLASS:  # which Connect looks for at once; here the plugin's key does
            assert ours[0] == "value"
        else:
            assert ours == theirs

    check()


# --- files

LINES = st.lists(
    st.sampled_from(
        [b"a", b"b", b"=", b":", b" ", b"\t", b"\f", b"\n", b"\r\n", b"\r", b"\n\n", b"\\", b"\\\n",
         b"\\\r\n  ", b"#", b"!", b"\\u00e9", b"\\uD83D\\uDE00", b"\xe9", b"\\n", b"\\t", b"\\r",
         b"\\=", b"\\:", b"\\ ", b"\\\\", b"\\q", b"k=v", b"x y", b'"', b"\x00"]
    ),
    max_size=10,
).map(b"".join)  # fmt: skip


@generated(300)
@given(data=LINES)
def test_properties_are_read_as_java_reads_them(judge: Judge, data: bytes) -> None:
    assume(not data.endswith(b"\\\r\n"))  # goes on in nothing: Java may or may not have a key ""
    theirs = decode(judge.ask("Properties", "properties", data=b64encode(data).decode()))
    # Half of a character, which no other text here can hold, becomes U+FFFD.
    assume(not any("\ud800" <= char <= "\udfff" for text in theirs.values() for char in text))
    assume(not any("\ud800" <= char <= "\udfff" for text in theirs for char in text))
    assert load_properties(data, "f") == theirs


# --- placeholders

PARTS = st.sampled_from(
    ["${", "p", ":", "}", "$", "{", "a", "b/c", "none", "q", " ", "\n", "\\", "$1", "${p:k}",
     "${p::k}", "${p:a:b:c}", "${p:none}", "x${q:k}"]
)  # fmt: skip


@generated(300)
@given(text=st.lists(PARTS, max_size=10).map("".join))
def test_placeholders_are_found_where_connect_finds_them(judge: Judge, text: str) -> None:
    lookups = {"p": lambda path, key: None if key == "none" else f"<{path}|{key}>"}
    theirs = judge.ask("ConfigTransformer", "placeholders", text=text)
    assert Providers(lookups).resolve({"k": text}).values["k"] == theirs


# What Kafka's providers log, and leave the placeholder standing, ours refuse: the text of a
# placeholder is nobody's password.
STRICTER = {
    "outside": "allowed.paths",
    "missing file": "Could not read properties",
    "path of a variable": "Path is not supported",
}


@pytest.mark.parametrize(
    "case",
    [
        ("FileConfigProvider", {}, "${p:%s/a.properties:user}", ""),
        ("FileConfigProvider", {}, "${p:%s/a.properties:none}", ""),
        ("FileConfigProvider", {}, "${p:%s/a.properties:städte}", ""),
        ("FileConfigProvider", {}, "<${p:%s/a.properties:user}${p:%s/a.properties:pw}>", ""),
        ("FileConfigProvider", {"allowed.paths": "%s"}, "${p:%s/a.properties:pw}", ""),
        ("FileConfigProvider", {"allowed.paths": "%s/in"}, "${p:%s/a.properties:pw}", "outside"),
        (
            "FileConfigProvider",
            {"allowed.paths": "%s/in"},
            "${p:%s/in/../a.properties:pw}",
            "outside",
        ),
        ("FileConfigProvider", {"allowed.paths": "%s/in,%s"}, "${p:%s/a.properties:pw}", ""),
        ("DirectoryConfigProvider", {}, "${p:%s/in:secret}", ""),
        ("DirectoryConfigProvider", {}, "${p:%s/in:none}", ""),
        ("DirectoryConfigProvider", {"allowed.paths": "%s/in"}, "${p:%s/in:secret}", ""),
        ("DirectoryConfigProvider", {"allowed.paths": "%s/in"}, "${p:%s:a.properties}", "outside"),
        ("EnvVarConfigProvider", {}, "${p:HOME}", ""),
        ("EnvVarConfigProvider", {}, "${p:CDC_NO_SUCH_NAME}", ""),
        ("EnvVarConfigProvider", {"allowlist.pattern": "HO.*"}, "${p:HOME}", ""),
        ("EnvVarConfigProvider", {"allowlist.pattern": "HO"}, "${p:HOME}", ""),
    ],
)
def test_a_provider_of_kafkas_gives_what_kafka_gives(
    judge: Judge, tmp_path: Path, case: tuple[str, Mapping[str, str], str, str]
) -> None:
    java_class, params, text, refused = case
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "secret").write_bytes("grün\r\n".encode())
    (tmp_path / "a.properties").write_text("pw = ge\\u0068eim\nuser:me\nstädte: grün\n")
    placed = {name: value.replace("%s", str(tmp_path)) for name, value in params.items()}
    text = text.replace("%s", str(tmp_path))
    worker = {"config.providers": "p", "config.providers.p.class": f"{KAFKA}{java_class}"}
    worker |= {f"config.providers.p.param.{name}": value for name, value in placed.items()}
    request = {"class": f"{KAFKA}{java_class}", "config": placed, "text": text}
    theirs = judge.ask(java_class, "placeholders", **request)
    if refused:
        assert theirs == text
        with pytest.raises(ConfigError, match=STRICTER[refused]):
            Providers.from_worker(worker).resolve({"k": text})
    else:
        assert Providers.from_worker(worker).resolve({"k": text}).values["k"] == theirs


# --- every connector's keys


@pytest.mark.parametrize("sink", [True, False], ids=["sink", "source"])
def test_every_connectors_keys_are_declared_as_connect_declares_them(
    judge: Judge, sink: bool
) -> None:
    ours = {key["name"]: key for key in declared(SINK_CONFIG if sink else SOURCE_CONFIG)}
    theirs = judge.ask("ConnectorConfig", "connectordef", sink=sink, config={})["keys"]
    assert len(theirs) > 20
    for key in theirs:
        offered = ours[key["name"]]["recommended"]
        assert ours[key["name"]] == key | {"recommended": offered}  # Connect offers nothing


TOPICS = st.sampled_from(["", "a", "a,b", " a , dead", "dead"])
SINKS = st.fixed_dictionaries(
    {"name": st.sampled_from(["c", "a\tb", "a\x9f\nb", " c "]), "connector.class": st.just("sql")},
    optional={
        "topics": TOPICS,
        "topics.regex": st.sampled_from(["", "a.*", "de.d", "[", "ead"]),
        "errors.deadletterqueue.topic.name": st.sampled_from(["", "dead", "other"]),
        "tasks.max": st.sampled_from(["1", "0", "x"]),
        "errors.retry.timeout": st.sampled_from(["-1", "0", "9223372036854775808"]),
        "errors.retry.delay.max.ms": st.sampled_from(["60000", "1.5"]),
        "errors.tolerance": st.sampled_from(["all", "none", "some"]),
        "errors.log.enable": st.sampled_from(["true", "yes"]),
        "errors.deadletterqueue.topic.replication.factor": st.sampled_from(["1", "32768"]),
        "transforms": st.sampled_from(["", "a,a"]),
        "predicates": st.sampled_from(["p,p", "p"]),
        "config.action.reload": st.sampled_from(["none", "restart", "later"]),
    },
)


@generated(150)
@given(config=SINKS)
def test_a_sinks_keys_are_refused_with_connects_texts(judge: Judge, config: dict[str, str]) -> None:
    wrong = config.get("topics.regex") == "["
    assume(not (wrong and config.get("errors.deadletterqueue.topic.name")))  # an exception there
    told = judge.ask("SinkConnectorConfig", "sink", config=config)
    results = SINK_CONFIG.validate(config)
    ours = {(result.name, text) for result in results for text in result.errors}
    # Of what is no number Connect says also that it is null.
    theirs = {(name, text) for name, text in told if "Invalid value null" not in text}
    if any("Invalid value" in text for _, text in ours):
        # Several keys are looked at together once each of them is right.
        theirs = {(name, text) for name, text in theirs if not text.startswith(TOGETHER)}
    assert {_worded(*each) for each in ours} == {_worded(*each) for each in theirs}, config


TOGETHER = ("Must configure one of", "topics and topics.regex are mutually", "The DLQ topic ")


def _worded(name: str, text: str) -> tuple[str, str]:
    """What is said of a wrong expression: not which character the JDK's parser stops at."""
    wrong = name == "topics.regex" and text.startswith("Invalid value [")
    return (name, "no expression") if wrong else (name, text)
