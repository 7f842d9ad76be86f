"""The SQL sink's configuration: three worlds' URLs, two sinks' names, and contradictions."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cdc.errors import ConfigError
from sinks import sql
from sinks.sql_config import may_create, may_evolve
from sinks.sql_url import parse_url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jdbc:postgresql://h:5433/db?user=u&password=p&sslmode=require",
         "postgresql+psycopg://u:p@h:5433/db?sslmode=require"),
        ("jdbc:postgresql://h/?currentSchema=inv&ApplicationName=x&ssl=true",
         "postgresql+psycopg://h?application_name=x&options=-csearch_path%3Dinv&sslmode=verify-full"),
        ("jdbc:postgresql://a:1,b:2/db?targetServerType=primary",
         "postgresql+psycopg:///db?host=a%3A1&host=b%3A2&target_session_attrs=read-write"),
        ("jdbc:sqlite:/tmp/x.db", "sqlite:////tmp/x.db"),
        ("jdbc:sqlite:x.db?journal_mode=WAL", "sqlite:///x.db"),
        ("postgresql://u@h/db", "postgresql+psycopg://u@h/db"),
        ("postgres://h/db", "postgresql+psycopg://h/db"),
        ("sqlite:///x.db", "sqlite:///x.db"),
    ],
)  # fmt: skip
def test_urls_of_three_worlds_are_understood(text: str, expected: str) -> None:
    assert parse_url(text, None, None).render_as_string(hide_password=False) == expected


def test_user_and_password_keys_win() -> None:
    url = parse_url("jdbc:postgresql://h/db?user=a&password=b", "u", "p@ss/word")
    assert (url.username, url.password) == ("u", "p@ss/word")
    assert "p@ss" not in repr(url)


@pytest.mark.parametrize("text", ["nonsense", "jdbc:oracle:thin:@x", "mysql://h/db", ""])
def test_urls_of_other_targets_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"connection\.url"):
        parse_url(text, None, None)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"insert.mode": "upsert"}, "pk.mode=record_key"),
        ({"delete.enabled": "true", "pk.mode": "record_value"}, "record_key"),
        ({"pk.mode": "kafka", "pk.fields": "a,b"}, "three names"),
        ({"batch.size": "0"}, "at least 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    options: dict[str, str], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        sql.CONFIG.parse({"connection.url": "jdbc:sqlite:x.db", **options})


def test_the_names_of_debeziums_sink_are_understood() -> None:
    config = sql.CONFIG.parse(
        {
            "connection.url": "jdbc:sqlite:x.db",
            "connection.username": "u",
            "primary.key.mode": "record_key",
            "primary.key.fields": "id",
            "schema.evolution": "basic",
            "collection.name.format": "${source.table}",
            "insert.mode": "upsert",
            "hibernate.c3p0.max_size": "5",
        }
    )
    assert "older name" not in "".join(config.warnings)  # they are that class's own
    assert config["connection.user"] == "u"
    assert config["pk.mode"] == "record_key"
    assert config["pk.fields"] == ("id",)
    assert config["table.name.format"] == "${source.table}"
    assert may_create(config)
    assert may_evolve(config)


def test_importing_the_sink_imports_no_client() -> None:
    code = "import sys, sinks.sql; print({'sqlalchemy', 'psycopg', 'sqlite3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
