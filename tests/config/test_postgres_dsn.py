"""URLs to Debezium's keys to libpq's parameters, and what a broken URL is told."""

from typing import Any

import psycopg.conninfo
import pytest

from cdc.errors import ConfigError
from cdc.postgres.config import CONFIG
from cdc.postgres.dsn import conninfo, from_url, warn_of_password


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("getpass.getuser", lambda: "login")


def connect(url: str, **overrides: str) -> dict[str, str]:
    raw = from_url(url, {"topic.prefix": "x", **overrides})
    return conninfo(CONFIG.parse(raw, strict=True))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://me:p%40s%2Fs@db:5433/shop",
            {"host": "db", "port": "5433", "user": "me", "password": "p@s/s", "dbname": "shop"},
        ),
        ("postgres://db", {"host": "db", "port": "5432", "user": "login", "dbname": "login"}),
        ("postgresql://me@db", {"host": "db", "user": "me", "dbname": "me"}),
        ("postgresql:///shop", {"host": "localhost", "dbname": "shop"}),
        ("postgresql:///shop?host=/run/pg&user=a%20b", {"host": "/run/pg", "user": "a b"}),
        ("postgresql://%2Frun%2Fpg:5433/shop", {"host": "/run/pg", "port": "5433"}),
        ("postgresql://[::1]:5433/shop", {"host": "::1", "port": "5433"}),
        ("jdbc:postgresql://db/s?user=u&password=a+b", {"user": "u", "password": "a+b"}),
        ("postgresql://db/s?ssl=true", {"sslmode": "require"}),
        (
            "postgresql://db/s?sslmode=verify-full&sslrootcert=/ca&sslcert=/c&sslkey=/k",
            {"sslmode": "verify-full", "sslrootcert": "/ca", "sslcert": "/c", "sslkey": "/k"},
        ),
        ("postgresql://db/s?connect_timeout=3", {"connect_timeout": "3"}),
    ],
)
def test_a_url_becomes_parameters_of_libpq(url: str, expected: dict[str, str]) -> None:
    found = connect(url)
    assert {name: found.get(name) for name in expected} == expected
    psycopg.conninfo.make_conninfo(**found)  # libpq knows them all


def test_what_is_set_beside_the_url_wins() -> None:
    found = connect("postgresql://me:a@db/shop", **{"database.password": "b", "database.port": "1"})
    assert (found["password"], found["port"]) == ("b", "1")


def test_the_environment_fills_what_the_url_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "h")
    monkeypatch.setenv("PGPORT", "77")
    monkeypatch.setenv("PGUSER", "u")
    monkeypatch.setenv("PGDATABASE", "d")
    found = connect("postgresql://")
    assert (found["host"], found["port"], found["user"], found["dbname"]) == ("h", "77", "u", "d")
    assert connect("postgresql://db:1/x")["host"] == "db"


def test_no_password_means_that_libpq_looks_for_one() -> None:
    assert "password" not in connect("postgresql://me@db/shop")
    assert "password" not in connect("postgresql://me:@db/shop", **{"database.password": ""})


def test_keep_alives_can_be_switched_off() -> None:
    found = connect("postgresql://db/s", **{"database.tcpKeepAlive": "false"})
    assert found["keepalives"] == "0"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "a URL begins with postgresql://"),
        ("db/shop", "a URL begins with postgresql://"),
        ("mysql://me:geheim@db/shop", "not mysql:"),
        ("postgresql://me:geheim@db:x/shop", "the port is not a number"),
        ("postgresql://me:geheim@db:0/shop", "the port is not a number"),
        ("postgresql://me:geheim@db:70000/shop", "the port is not a number"),
        ("postgresql://me:ge/heim@db/shop", "the port is not a number|a / or #"),
        ("postgresql://me:geheim#@db/shop", "the port is not a number|a / or #"),
        ("postgresql://me:%gheim@db/shop", "a % is not followed"),
        ("postgresql://me:%ff@db/shop", "not UTF-8"),
        ("postgresql://me:%00@db/shop", "zero byte"),
        ("postgresql://me:geheim@a,b/shop", "several hosts"),
        ("postgresql://me:geheim@::1:5432/shop", "malformed"),
        ("postgresql://me:geheim@[::1/shop", "malformed"),
        ("postgresql://me:geheim@db/shop/x", "a / or #"),
        ("postgresql://me:geheim@db/shop?x", "what follows the"),
        ("postgresql://me:geheim@db/shop?nosuch=1", "a parameter nosuch"),
        ("postgresql://me:geheim@db/shop?options=-cx", "a parameter options"),
        ("postgresql://me:ge heim@db/shop", "white space"),
    ],
)
def test_a_broken_url_is_told_why_without_its_password(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        from_url(url)
    assert "heim" not in str(caught.value)
    assert caught.value.remedy


def test_a_user_without_a_name_has_to_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Any:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    with pytest.raises(ConfigError, match="names no user"):
        from_url("postgresql://db/shop")


@pytest.mark.parametrize(
    ("url", "properties", "warned"),
    [
        ("postgresql://me:geheim@h/d", {}, True),
        ("postgresql://me@h/d?password=geheim", {}, True),
        (None, {"database.password": "geheim"}, True),
        ("postgresql://me@h/d", {"table.include.list": "a"}, False),
        ("postgresql://me@h/d", {"database.password": "${env:SECRET}"}, False),
    ],
)
def test_a_password_among_the_arguments_is_warned_of(
    url: str | None,
    properties: dict[str, str],
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    warn_of_password(url, properties)
    assert capsys.readouterr().err == ""  # nobody reads a script's
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    warn_of_password(url, properties)
    told = capsys.readouterr().err
    assert told.count("\n") == warned
    assert "geheim" not in told
    if warned:
        assert all(word in told for word in ("PGPASSFILE", "--password-file", "config provider"))
