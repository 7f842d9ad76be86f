"""Names of connectors and converters, and the keys that Connect knows of any connector."""

from typing import Any

import pytest

from cdc.aliases import Plugin, find_connector, find_converter
from cdc.connectors import SINK_CONFIG, SOURCE_CONFIG
from cdc.errors import ConfigError
from cdc.runtime import plugins

SINK = {"name": "s", "connector.class": "sql", "topics": "a"}


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [
        ("io.debezium.connector.postgresql.PostgresConnector", "postgres", "source"),
        ("PostgresConnector", "postgres", "source"),
        ("Postgres", "postgres", "source"),
        ("postgresql", "postgres", "source"),
        (" postgres ", "postgres", "source"),
        ("io.confluent.connect.jdbc.JdbcSinkConnector", "sql", "sink"),
        ("io.debezium.connector.jdbc.JdbcSinkConnector", "sql", "sink"),
        ("JdbcSinkConnector", "sql", "sink"),
        ("JdbcSink", "sql", "sink"),
        ("sql", "sql", "sink"),
        ("org.apache.kafka.connect.file.FileStreamSinkConnector", "file", "sink"),
        ("FileStreamSink", "file", "sink"),
        ("file", "file", "sink"),
        ("console", "console", "sink"),
    ],
)
def test_a_connector_is_found_by_each_of_its_names(text: str, name: str, kind: str) -> None:
    plugin = find_connector(text)
    assert (plugin.name, plugin.type) == (name, kind)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("org.apache.kafka.connect.json.JsonConverter", "json"),
        ("JsonConverter", "json"),
        ("json", "json"),
        ("org.apache.kafka.connect.storage.StringConverter", "string"),
        ("org.apache.kafka.connect.converters.ByteArrayConverter", "bytes"),
        ("org.apache.kafka.connect.converters.LongConverter", "long"),
        ("io.confluent.connect.avro.AvroConverter", "avro"),
    ],
)
def test_a_converter_is_found_by_each_of_its_names(text: str, name: str) -> None:
    assert find_converter(text).name == name


def test_an_unknown_connector_gets_connects_text_and_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as caught:
        find_connector("io.debezium.connector.postgres.PostgresConector")
    text = str(caught.value)
    assert text.startswith(
        "Failed to find any class that implements Connector and which name matches "
        "io.debezium.connector.postgres.PostgresConector, available connectors are: postgres, "
        "io.debezium.connector.postgresql.PostgresConnector, "
    )
    assert text.endswith("Did you mean postgres?")
    assert caught.value.key == "connector.class"


@pytest.mark.parametrize(
    ("text", "database"),
    [
        ("io.debezium.connector.mysql.MySqlConnector", "MySQL"),
        ("MySqlConnector", "MySQL"),
        ("io.debezium.connector.mariadb.MariaDbConnector", "MariaDB"),
    ],
)
def test_a_source_that_is_not_there_yet_is_said_to_be_so(text: str, database: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_connector(text)
    assert caught.value.remedy == f"{database} sources are not there yet."


def test_an_unknown_converter_names_its_key() -> None:
    with pytest.raises(ConfigError) as caught:
        find_converter("x.Y", "key.converter")
    assert caught.value.key == "key.converter"


def test_other_peoples_plugins_are_found_too() -> None:
    mine = Plugin("mine", "sink", ("org.x.MineSinkConnector",))
    assert find_connector("org.x.MineSinkConnector", [mine]) is mine
    with pytest.raises(ConfigError):
        find_connector("mine")


def sink_problems(**more: Any) -> list[str]:
    raw = {**SINK, **{k.replace("__", "."): v for k, v in more.items()}}
    with pytest.raises(ConfigError) as caught:
        SINK_CONFIG.parse(raw)
    return str(caught.value).splitlines()


def test_a_sink_needs_topics_or_a_regex_of_them_and_the_answer_counts_it_twice() -> None:
    assert sink_problems(topics="") == ["Must configure one of topics or topics.regex"]
    assert sink_problems(topics__regex="b.*") == [
        "topics and topics.regex are mutually exclusive options, but both are set."
    ]
    results = SINK_CONFIG.validate({"name": "s", "connector.class": "sql"})
    assert sum(len(result.errors) for result in results) == 2


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("tasks.max", "0", "Value must be at least 1"),
        ("errors.tolerance", "some", "String must be one of: none, all"),
        ("errors.retry.timeout", "-2", "Value must be at least -1"),
        ("start.from", "yesterday", "String must be one of: earliest, snapshot, latest"),
        ("name", "a\tb", "String may not contain control sequences"),
        ("errors.retry.delay.max.ms", "-1", "Value must be at least 0"),
        ("errors.log.enable", "yes", "Expected value to be either true or false"),
        (
            "errors.deadletterqueue.topic.name",
            "a",
            "The DLQ topic 'a' may not be included in the list of topics ('topics=[a]')",
        ),
        ("value.converter", "io.confluent.connect.avro.AvroConverter", "it is not implemented"),
        (
            "key.converter",
            "org.apache.kafka.connect.storage.SimpleHeaderConverter",
            "it is for headers only",
        ),
        ("value.converter.decimal.format", "HEX", "decimal.format"),
        ("header.converter", "x.MyConverter", "Failed to find any class that implements Converter"),
        ("value.converter", "x.MyConverter", "Failed to find any class that implements Converter"),
        ("transforms", "a,a", "Duplicate alias provided."),
        ("predicates", "p,p", "Duplicate alias provided."),
    ],
)
def test_a_wrong_value_of_a_common_key_is_named(key: str, value: str, reason: str) -> None:
    assert any(reason in line for line in sink_problems(**{key.replace(".", "__"): value}))


def test_a_queue_of_dead_letters_is_none_of_the_topics_that_a_regex_takes() -> None:
    problems = sink_problems(
        topics=None, topics__regex="a.*", errors__deadletterqueue__topic__name="abc"
    )
    expected = (
        "The DLQ topic 'abc' may not be matched by the regex for the topics"
        " ('topics.regex=a.*') consumed by the connector"
    )
    assert problems == [expected]


def test_a_source_has_no_dead_letters() -> None:
    """As in Connect, whose sources do not know the keys."""
    raw = {"name": "s", "connector.class": "postgres", "errors.deadletterqueue.topic.name": "dead"}
    said = "Unknown configuration errors.deadletterqueue.topic.name"
    assert SOURCE_CONFIG.parse(raw).warnings == [f"{said} is ignored"]
    with pytest.raises(ConfigError, match=f"^{said}$"):
        SOURCE_CONFIG.parse({**raw, "config.strict": "true"})


def test_what_happens_to_bad_records_is_configured_with_connects_keys_and_defaults() -> None:
    config = SINK_CONFIG.parse(SINK)
    assert {key: config[key] for key in config if key.startswith("errors.")} == {
        "errors.retry.timeout": 0,
        "errors.retry.delay.max.ms": 60_000,
        "errors.tolerance": "none",
        "errors.log.enable": False,
        "errors.log.include.messages": False,
        "errors.deadletterqueue.topic.name": "",
        "errors.deadletterqueue.topic.replication.factor": 3,
        "errors.deadletterqueue.context.headers.enable": False,
    }


def test_a_sinks_defaults_are_connects() -> None:
    config = SINK_CONFIG.parse(SINK)
    assert (config["tasks.max"], config["errors.tolerance"]) == (1, "none")
    assert config["topics"] == ("a",)
    assert config["start.from"] is None
    assert config["source"] == ()


def test_options_of_converters_and_clients_are_known_by_their_prefix() -> None:
    raw = {
        "name": "x",
        "connector.class": "postgres",
        "value.converter.schemas.enable": "false",
        "producer.override.acks": "1",
        "topic.creation.default.partitions": "1",
    }
    config = SOURCE_CONFIG.parse(raw, strict=True)
    assert config.subset("value.converter.") == {"schemas.enable": "false"}
    assert config.inert == ["producer.override.acks", "topic.creation.default.partitions"]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("tasks.max", "4", "one task"),
    ],
)
def test_a_key_without_effect_says_so_when_it_is_set(key: str, value: str, reason: str) -> None:
    for base, definition in ((SINK, SINK_CONFIG), ({**SINK, "topics": None}, SOURCE_CONFIG)):
        config = definition.parse({**base, key: value})
        assert config.inert == [key]
        assert reason in config.warnings[0]
    assert SINK_CONFIG.parse({**SINK, "tasks.max": "1", "errors.tolerance": "none"}).warnings == []


@pytest.mark.parametrize(
    "name",
    [
        "json", "org.apache.kafka.connect.json.JsonConverter", "",
        "org.apache.kafka.connect.storage.StringConverter",
        "org.apache.kafka.connect.converters.LongConverter",
    ],
)  # fmt: skip
def test_the_converters_that_there_are_may_be_named(name: str) -> None:
    parts = ("key", "value", "header")
    config = SINK_CONFIG.parse({**SINK, **{f"{part}.converter": name for part in parts}})
    assert config.warnings == []


def test_a_sources_converter_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    raw = {
        "name": "s",
        "connector.class": "postgres",
        "topic.prefix": "s",
        "database.hostname": "h",
        "database.user": "u",
        "database.dbname": "d",
        "value.converter": "json",
    }
    plugins.configure(raw)
    assert "value.converter: checked only" in caplog.text
    with pytest.raises(ConfigError, match="it is not implemented"):
        plugins.configure(raw | {"value.converter": "AvroConverter"})
    with pytest.raises(ConfigError, match="it is not implemented"):
        plugins.configure(raw, {"key.converter": "AvroConverter"})
