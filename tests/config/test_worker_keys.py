"""The worker's keys: Connect's sample files are accepted, what would be unsafe is not."""

from typing import Any

import pytest

from cdc.errors import ConfigError
from cdc.runtime import plugins
from cdc.runtime.config import WORKER_CONFIG, worker_config


def test_a_worker_needs_no_key_at_all() -> None:
    config = WORKER_CONFIG.parse({})
    assert config["listeners"] == ("http://127.0.0.1:8083",)
    assert config["task.shutdown.graceful.timeout.ms"] == 5000
    assert config["offset.flush.interval.ms"] == 1000
    assert config["task.restart.max"] == 10
    assert config["key.converter"] == "org.apache.kafka.connect.json.JsonConverter"


def test_connects_standalone_sample_is_accepted() -> None:
    raw = {
        "bootstrap.servers": "localhost:9092",
        "key.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "key.converter.schemas.enable": "true",
        "value.converter.schemas.enable": "true",
        "offset.storage.file.filename": "/tmp/connect.offsets",
        "offset.flush.interval.ms": "10000",
        "plugin.path": "/usr/local/share/java",
    }
    config = WORKER_CONFIG.parse(raw, strict=True)
    assert config["offset.flush.interval.ms"] == 10000
    assert "offset.storage.file.filename" in config.inert


def test_connects_distributed_sample_is_accepted_and_listed() -> None:
    raw: dict[str, Any] = {
        "group.id": "connect-cluster",
        "offset.storage.topic": "connect-offsets",
        "offset.storage.replication.factor": 1,
        "config.storage.topic": "connect-configs",
        "status.storage.topic": "connect-status",
        "status.storage.cleanup.policy": "compact",
        "producer.compression.type": "zstd",
    }
    assert "group.id" in WORKER_CONFIG.parse(raw, strict=True).inert


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("listeners", "https://:8443", "TLS is not offered yet"),
        ("listeners", "http://h:99999", "no valid port"),
        ("listeners", "h:8083", "not of the form http://host:port"),
        ("listeners", "http://h", "not of the form http://host:port"),
        ("rest.port", "8083", "Use listeners"),
        ("rest.extension.classes", "x.BasicAuth", "access control"),
        ("ssl.client.auth", "required", "TLS is not offered yet"),
        ("exactly.once.source.support", "enabled", "exactly once without it"),
        ("task.restart.max", "-1", "at least 0"),
        ("offset.flush.interval.ms", "1m", "Not a number of type LONG"),
        ("value.converter", "io.confluent.connect.avro.AvroConverter", "it is not implemented"),
    ],
)
def test_a_wrong_or_unsafe_value_is_refused_with_its_reason(
    key: str, value: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        WORKER_CONFIG.parse({key: value})


def test_a_misspelt_key_names_the_nearest() -> None:
    config = WORKER_CONFIG.parse({"task.restarts.max": "3"})
    assert config.warnings == [
        "Unknown configuration task.restarts.max is ignored; did you mean task.restart.max?"
    ]


def test_a_workers_key_without_effect_says_so() -> None:
    config = WORKER_CONFIG.parse({"offset.flush.timeout.ms": "1", "offset.storage.topic": "x"})
    assert config.inert == ["offset.flush.timeout.ms", "offset.storage.topic"]
    assert "has no effect" in config.warnings[0]


def test_a_workers_file_may_hold_placeholders_and_connectors_inherit_theirs_as_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CDC_TEST_PORT", "8099")
    monkeypatch.setenv("CDC_TEST_MS", "soon")
    written = {
        "listeners": "http://127.0.0.1:${env:CDC_TEST_PORT}",
        "value.converter": "json",
        "value.converter.schema.content": "${env:CDC_TEST_PORT}",
        "rest.advertised.host.name": "${env:CDC_NO_SUCH_NAME}",
    }
    config = worker_config(written)
    assert config["listeners"] == ("http://127.0.0.1:8099",)
    assert "8099" not in repr(config)
    assert config.raw["value.converter.schema.content"] == "${env:CDC_TEST_PORT}"
    assert "rest.advertised.host.name: ${env:CDC_NO_SUCH_NAME} stays as it is" in caplog.text
    with pytest.raises(ConfigError) as caught:
        worker_config({"offset.flush.interval.ms": "${env:CDC_TEST_MS}"})
    assert "soon" not in str(caught.value)
    assert caught.value.key == "offset.flush.interval.ms"
    with pytest.raises(ConfigError, match="there is no config provider 'vault'"):
        worker_config({"config.providers": "vault"})
    off = {"config.providers": "", "offset.flush.interval.ms": "${env:CDC_TEST_PORT}"}
    with pytest.raises(ConfigError, match="Not a number of type LONG"):
        worker_config(off)


@pytest.mark.parametrize(
    ("written", "seconds"), [({}, 1), ("300", 0.3), ("60000", 1), (" 20 ", 0.02)]
)
def test_the_flush_interval_is_the_declared_one(written: Any, seconds: float) -> None:
    raw = {"name": "s", "connector.class": "console", "topics": "a"}
    worker = {"offset.flush.interval.ms": written} if written else {}
    _, config = plugins.configure(raw)
    assert plugins.sink_settings(config, worker).flush_interval_s == seconds


def test_a_flush_interval_of_nothing_is_refused_also_by_a_task() -> None:
    raw = {"name": "s", "connector.class": "console", "topics": "a"}
    _, config = plugins.configure(raw)
    with pytest.raises(ConfigError, match="at least 1"):
        plugins.sink_settings(config, {"offset.flush.interval.ms": "0"})
