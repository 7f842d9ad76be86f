"""The PostgreSQL source's keys against Debezium's own declaration of them."""

from pathlib import Path
from typing import Any

import pytest

from cdc.config import Secret, to_text
from cdc.connectors import SOURCE_CONFIG
from cdc.errors import ConfigError
from cdc.log.config import JOURNAL_CONFIG
from cdc.postgres.config import CONFIG, stream_params

BASE = {
    "topic.prefix": "shop",
    "database.hostname": "db",
    "database.user": "me",
    "database.password": "geheim",
    "database.dbname": "shop",
}
# Where the default differs, and why that is right.
DEPARTURES = {
    "plugin.name": "pgoutput",  # the only plug-in read
    "lsn.flush.mode": "connector",  # Debezium's effective default
    "snapshot.fetch.size": "10240",  # likewise
    "custom.sanitize.pattern": "",  # the engine's own pattern covers Debezium's default
    "memory.management.schemas.class": "",  # a Java class
    "memory.management.tables.class": "",  # likewise
}


def debezium_keys() -> list[tuple[str, str, str]]:
    lines = Path(__file__).with_name("debezium_postgres_keys.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return [(row[0], row[1], row[2] if len(row) > 2 else "") for row in rows]


@pytest.mark.parametrize(("name", "kind", "default"), debezium_keys())
def test_every_key_of_debezium_is_declared_with_its_type_and_default(
    name: str, kind: str, default: str
) -> None:
    key = CONFIG.keys.get(name.replace("(d+)", r"(\d+)")) or CONFIG.find(name)
    assert key is not None
    if kind == "?" or key.name != name:
        return
    declared = None if key.required else key.default
    text = ",".join(declared) if isinstance(declared, tuple) else to_text(declared) or ""
    assert (key.kind.value, text) == (kind, DEPARTURES.get(name, default))


def test_every_key_says_what_it_is_for() -> None:
    for definition in (CONFIG, JOURNAL_CONFIG, SOURCE_CONFIG):
        assert not [key.name for key in definition.keys.values() if not key.doc]


def test_every_default_passes_its_own_checks() -> None:
    for definition in (CONFIG, JOURNAL_CONFIG, SOURCE_CONFIG):
        for key in definition.keys.values():
            if key.required or key.default is None or isinstance(key.default, tuple):
                continue
            assert key.parse(to_text(key.default) or "") == key.default


def parse(**more: str) -> Any:
    return CONFIG.parse({**BASE, **{k.replace("__", "."): v for k, v in more.items()}})


def refuse(raw: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        CONFIG.parse({**BASE, **raw})
    assert "geheim" not in str(caught.value)
    return str(caught.value)


def test_debeziums_tutorial_is_accepted_as_it_is() -> None:
    raw = {
        "name": "inventory-connector",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "database.hostname": "postgres",
        "database.port": "5432",
        "database.user": "postgres",
        "database.password": "geheim",
        "database.dbname": "postgres",
        "topic.prefix": "dbserver1",
        "schema.include.list": "inventory",
        "plugin.name": "pgoutput",
        "key.converter": "org.apache.kafka.connect.json.JsonConverter",
        "key.converter.schemas.enable": "false",
    }
    config = (SOURCE_CONFIG + CONFIG + JOURNAL_CONFIG).parse(raw, strict=True)
    assert config.warnings == config.inert == []
    assert config["schema.include.list"] == ("inventory",)
    assert config["database.password"] == Secret("geheim")
    assert config["journal.full.policy"] == "wait"


@pytest.mark.parametrize(
    ("old", "value", "new", "typed"),
    [
        ("database.server.name", "shop", "topic.prefix", "shop"),
        ("table.whitelist", "public.a,public.b", "table.include.list", ("public.a", "public.b")),
        ("table.blacklist", "public.a", "table.exclude.list", ("public.a",)),
        ("schema.whitelist", "public", "schema.include.list", ("public",)),
        ("schema.blacklist", "public", "schema.exclude.list", ("public",)),
        ("column.whitelist", "p.a.c", "column.include.list", ("p.a.c",)),
        ("column.blacklist", "p.a.c", "column.exclude.list", ("p.a.c",)),
        ("slot.drop_on_stop", "true", "slot.drop.on.stop", True),
        ("toasted.value.placeholder", "x", "unavailable.value.placeholder", "x"),
        ("flush.lsn.source", "true", "lsn.flush.mode", "connector"),
    ],
)
def test_an_older_key_is_taken_with_a_warning(old: str, value: str, new: str, typed: Any) -> None:
    raw = {name: text for name, text in BASE.items() if name != new}
    config = CONFIG.parse({**raw, old: value})
    assert config[new] == typed
    assert f"{old} is an older name of {new}; use that" in config.warnings


@pytest.mark.parametrize(
    ("old", "new"), [("never", "no_data"), ("schema_only", "no_data"), ("exported", "initial")]
)
def test_an_older_snapshot_mode_is_taken_with_a_warning(old: str, new: str) -> None:
    config = parse(snapshot__mode=old)
    assert config["snapshot.mode"] == new
    assert len(config.warnings) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("plugin.name", "decoderbufs"),
        ("plugin.name", "wal2json"),
        ("snapshot.mode", "custom"),
        ("snapshot.mode", "configuration_based"),
        ("snapshot.mode", "recovery"),
        ("snapshot.select.statement.overrides", "public.t"),
        ("snapshot.select.statement.overrides.public.t", "select 1"),
        ("snapshot.query.mode", "custom"),
        ("snapshot.locking.mode", "custom"),
        ("provide.transaction.metadata", "true"),
        ("xmin.fetch.interval.ms", "1000"),
        ("lsn.flush.mode", "manual"),
        ("flush.lsn.source", "false"),
        ("offset.mismatch.strategy", "trust_slot"),
        ("offset.mismatch.strategy", "trust_greater_lsn"),
        ("column.mask.with.10.chars", "public.t.c"),
        ("column.truncate.to.10.chars", "public.t.c"),
        ("column.mask.hash.SHA-256.with.salt.geheim", "public.t.c"),
        ("column.mask.hash.v2.SHA-256.with.salt.geheim", "public.t.c"),
        ("column.propagate.source.type", ".*"),
        ("datatype.propagate.source.type", ".*"),
        ("include.schema.comments", "true"),
        ("converters", "isbn"),
        ("post.processors", "reselector"),
        ("signal.data.collection", "public.signals"),
        ("signal.enabled.channels", "source,kafka"),
        ("notification.enabled.channels", "log,sink"),
        ("heartbeat.action.query", "insert into h values (1)"),
        ("skip.messages.without.change", "true"),
        ("replica.identity.autoset.values", "public.t:FULL"),
        ("database.initial.statements", "set role x"),
        ("database.connection.factory.class", "x.Y"),
        ("sourceinfo.struct.maker", "x.Y"),
        ("transaction.metadata.factory", "x.Y"),
        ("topic.naming.strategy", "io.debezium.schema.DefaultTopicNamingStrategy"),
        ("topic.naming.strategy", "x.Y"),
        ("topic.regex", ".*"),
        ("table.ignore.builtin", "false"),
        ("event.processing.failure.handling.mode", "skip"),
        ("guardrail.collections.limit.action", "fail"),
    ],
)
def test_what_would_change_events_or_guarantees_is_refused(key: str, value: str) -> None:
    assert "for configuration" in refuse({key: value})


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("database.port", "0", "at least 1"),
        ("database.port", "65536", "no more than 65535"),
        ("database.sslmode", "on", "disable, allow, prefer"),
        ("slot.name", "My-Slot", "lower-case letters, digits and underscores"),
        ("slot.name", "x" * 64, "1 to 63"),
        ("slot.stream.params", "origin", "name=value;name=value"),
        ("slot.stream.params", "origin=none;proto_version=2", "proto_version is fixed"),
        ("slot.stream.params", "binary=true", "binary is fixed"),
        ("slot.stream.params", "publication_names=mine", "publication.name names it"),
        ("topic.prefix", "a b", "underscore, hyphen, dot"),
        ("topic.prefix", "é", "underscore, hyphen, dot"),
        ("table.include.list", "public.(a", "not a regular expression"),
        ("snapshot.max.threads", "0", "at least 1"),
        ("snapshot.chunk.rows", "0", "at least 1"),
        ("max.queue.size", "2048", "larger than the maximum batch size"),
        ("max.batch.size", "20480", "larger than the maximum batch size"),
        ("decimal.handling.mode", "exact", "precise, double, string"),
        ("skipped.operations", "c,x", "c, u, d, t, none"),
        ("unavailable.value.placeholder", "hex:zz", "hexadecimal"),
        ("message.key.columns", "public.t", "s.table:col1"),
    ],
)
def test_a_wrong_value_is_named_with_its_reason(key: str, value: str, reason: str) -> None:
    assert reason in refuse({key: value})


@pytest.mark.parametrize("what", ["schema", "table", "column", "message.prefix"])
def test_include_and_exclude_of_the_same_things_exclude_each_other(what: str) -> None:
    text = refuse({f"{what}.include.list": "a", f"{what}.exclude.list": "b"})
    assert text.endswith(f'"{what}.include.list" is already specified')


def test_what_only_tunes_java_is_accepted_and_listed() -> None:
    config = parse(
        topic__cache__size="5", driver__loginTimeout="3", database__query__timeout__ms="1"
    )
    assert config.inert == ["topic.cache.size", "driver.loginTimeout", "database.query.timeout.ms"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("poll.interval.ms", "100"),
        ("snapshot.fetch.size", "100"),
        ("guardrail.collections.max", "10"),
        ("lsn.flush.mode", "connector_and_driver"),
        ("offset.mismatch.strategy", "trust_offset"),
    ],
)
def test_what_nothing_reads_is_listed_and_told(key: str, value: str) -> None:
    config = CONFIG.parse({**BASE, key: value})
    assert config.inert == [key]
    assert config.warnings[0].startswith(f"{key} has no effect: ")


def test_libpqs_parameters_are_used_as_driver_keys() -> None:
    config = parse(driver__connect_timeout="3")
    assert config["driver.connect_timeout"] == "3"
    assert config.inert == []


def test_a_heartbeat_is_accepted_and_its_absence_is_told() -> None:
    config = parse(heartbeat__interval__ms="10000")
    assert config.inert == ["heartbeat.interval.ms"]
    assert "No heartbeat records" in config.warnings[0]


def test_the_options_of_the_plug_in_become_a_mapping() -> None:
    assert stream_params("origin=none; x = a=b ;") == {"origin": "none", "x": "a=b"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("journal.full.policy", "panic"),
        ("journal.budget.bytes", "1"),
        ("journal.retention.ms", "-2"),
        ("journal.segment.bytes", "0"),
        ("journal.segment.ms", "0"),
    ],
)
def test_a_journals_limits_are_checked(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key):
        JOURNAL_CONFIG.parse({key: value})


def test_a_journals_defaults_are_the_documented_ones() -> None:
    config = JOURNAL_CONFIG.parse({})
    assert config["journal.budget.bytes"] == 50 * 2**30
    assert config["journal.retention.ms"] == 7 * 86_400_000
    assert config["journal.retention.bytes"] == -1
    assert config["journal.segment.bytes"] == 256 * 2**20
