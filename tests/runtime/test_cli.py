"""The command line: what it prints, refuses and returns."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cdc.__main__ import COMMANDS, build_parser, main
from cdc.errors import ConfigError
from cdc.log.format import SEGMENT_FORMAT, meta_crc
from cdc.runtime.state import DataDir, Saved, Store
from tests.runtime.workers import Worker, cdc, eventually


def failed(done: object, code: int, *texts: str) -> None:
    """An exit code, one line of error, no traceback."""
    stderr: str = done.stderr  # type: ignore[attr-defined]
    assert done.returncode == code, stderr  # type: ignore[attr-defined]
    line = stderr.strip().splitlines()[-1]
    assert "Traceback" not in stderr
    for text in texts:
        assert text in stderr
    assert line


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_shows_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser(name).parse_args([name, "--help"])
    assert ended.value.code == 0
    assert f"cdc {name}" in capsys.readouterr().out.partition("examples:")[2]


def test_the_list_of_commands_is_shown_without_importing_them() -> None:
    done = cdc("--help")
    assert done.returncode == 0
    assert all(f"    {name}" in done.stdout for name in COMMANDS)


def test_a_misspelt_configuration_is_refused_before_anything_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "count.json"
    file.write_text('{"name": "count", "connector.class": "counter", "rows": "many"}')
    done = cdc("run", "--data-dir", tmp_path / "data", "--listen", "127.0.0.1:0", file)
    failed(
        done,
        2,
        "error: connector count: Missing required configuration",
        "Invalid value many for configuration rows: Not a number of type INT",
    )
    assert list((tmp_path / "data" / "connectors").iterdir()) == []


def test_a_misspelt_key_is_named_with_the_nearest_one_and_refused_where_strict(
    tmp_path: Path, start: Callable[..., Worker]
) -> None:
    file = tmp_path / "shop.json"
    config = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "topic.prefix": "shop", "database.hostname": "localhost", "database.user": "cdc",
        "database.dbname": "shop", "table.include.lst": "public.orders",
    }  # fmt: skip

    def write(**more: str) -> None:
        named = {"name": "shop", "config": config | more, "initial_state": "STOPPED"}
        file.write_text(json.dumps(named))

    write(**{"config.strict": "true"})
    done = cdc("run", "--data-dir", tmp_path / "data", "--listen", "127.0.0.1:0", file)
    said = "Unknown configuration table.include.lst; did you mean table.include.list?"
    failed(done, 2, f"error: connector shop: {said}")
    assert list((tmp_path / "data" / "connectors").iterdir()) == []
    write()
    worker = start(file)
    assert worker.state("shop") == ("STOPPED", "")
    said = "Unknown configuration table.include.lst is ignored; did you mean table.include.list?"
    (line,) = [line for line in worker.log.read_text().splitlines() if "include.lst" in line]
    assert f"WARNING connector shop: {said}" in line


def test_a_misspelt_option_of_a_transform_is_no_go(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("transforms=a", "transforms.a.type=DropHeaders", "transforms.a.headers=h",
             "transforms.a.negated=true", "transforms.b.headers=h")  # fmt: skip
    sets = [word for pair in given for word in ("--set", pair)]
    assert main(["check", "postgresql://me@localhost/shop", *sets]) == 2
    assert capsys.readouterr().err == (
        "error: Unknown configuration transforms.a.negated; did you mean transforms.a.negate?\n"
        "Unknown configuration transforms.b.headers: transforms does not name b\n"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task.restart.max=often\n", "Invalid value often for configuration task.restart.max"),
        ("config.providers=vault\n", "config.providers.vault.class: there is no config provider"),
    ],
)
def test_a_wrong_worker_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "worker.properties"
    file.write_text(text)
    failed(cdc("run", "--data-dir", tmp_path / "data", file), 2, f"error: {said}")


def test_the_same_connector_in_two_files_is_refused(tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file in files:
        file.write_text('{"name": "x", "connector.class": "console", "topics": "t"}')
    failed(cdc("run", "--data-dir", tmp_path / "data", *files), 2, "connector x is in another")


def test_two_sources_with_the_same_topics_are_refused(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        config = {"name": name, "connector.class": "counter", "topic.prefix": "same"}
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps(config | {"confirmed.file": "x"}))
    done = cdc("run", "--data-dir", tmp_path / "data", "--listen", "127.0.0.1:0", *files)
    failed(done, 2, "connector two", "connector one already writes topics with this prefix")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = cdc("run", "--data-dir", tmp_path / "file" / "data")
    failed(done, 2, "--data-dir", "cannot be written", "CDC_DATA_DIR")


def test_what_the_system_refuses_is_told_with_its_place_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = DataDir(tmp_path / "data")
    data.prepare()
    (data.path / "worker.lock").mkdir()  # as one that another user owns: it cannot be opened
    done = cdc("run", "--data-dir", data.path, "--listen", "127.0.0.1:0")
    failed(done, 2, "worker.lock cannot be written: Is a directory", "owner and mode")
    (data.path / "worker.lock").rmdir()
    place = data.path / "connectors" / "count.json"
    for code, text in ((errno.EACCES, "Run it as the owner"), (errno.ENOSPC, "Make room")):
        monkeypatch.setattr(os, "fsync", lambda _: fail(code))  # noqa: B023
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            Store(data).save(Saved("count", {}))
        monkeypatch.setattr("cdc.cli.status.data_dir", lambda _: throw(caught.value))
        assert main(["status"]) == 1
        assert capsys.readouterr().err.startswith(f"error: {place}: {os.strerror(code)}. {text}")


def fail(code: int) -> None:
    raise OSError(code, os.strerror(code))


def throw(error: Exception) -> None:
    raise error


def test_an_address_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = cdc("run", "--data-dir", tmp_path / "data", "--listen", address)
    failed(done, 2, f"{address} cannot be listened on: Address already in use", "port 0")
    failed(cdc("run", "--data-dir", tmp_path / "data", "--listen", "8083"), 2, "not HOST:PORT")


def test_without_a_word_the_rest_api_is_on_this_machine_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def refuse(host: str, port: int) -> None:
        asked.append((host, port))
        raise ConfigError("not in a test: somebody may be there")

    monkeypatch.setattr("cdc.cli.run.listen", refuse)
    assert main(["run", "--data-dir", str(tmp_path / "data")]) == 2
    assert asked == [("127.0.0.1", 8083)]


def test_one_worker_per_folder(worker: Worker) -> None:
    done = cdc("run", "--data-dir", worker.data, "--listen", "127.0.0.1:0")
    failed(done, 2, f"is in use by the worker with pid {worker.process.pid} at {worker.url}")


def test_the_folder_is_private(worker: Worker) -> None:
    assert worker.data.stat().st_mode & 0o777 == 0o700
    worker.create(worker.counter())
    (kept,) = (worker.data / "connectors").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_status_with_and_without_a_worker(start: Callable[..., Worker], tmp_path: Path) -> None:
    failed(cdc("status", "--data-dir", tmp_path / "none"), 2, "does not exist")
    worker = start()
    worker.create(worker.counter())
    worker.until("count", "RUNNING", "RUNNING")
    done = cdc("status", "--data-dir", worker.data)
    assert done.returncode == 0
    first, second, third = done.stdout.splitlines()
    assert (first, second) == (f"worker {worker.url}", "  count (source)  RUNNING  task 0 RUNNING")
    assert third.startswith("    journal ")
    (tmp_path / "count.fail").write_text("poll=config")
    worker.until("count", "RUNNING", "FAILED")
    done = cdc("status", "--data-dir", worker.data)
    assert done.returncode == 1
    assert "ConfigError: rows: the counter is misspelt. Spell it" in done.stdout
    worker.end()
    done = cdc("status", "--data-dir", worker.data)
    assert done.returncode == 1
    assert "no worker runs here" in done.stdout
    assert "task 0 FAILED" in done.stdout
    body = json.loads(cdc("status", "--data-dir", worker.data, "--json").stdout)
    assert body["worker"] is None
    assert body["connectors"][0]["tasks"][0]["state"] == "FAILED"


def test_drop_through_the_worker_and_without_one(start: Callable[..., Worker]) -> None:
    worker = start()
    for name in ("one", "two", "three"):
        worker.create(worker.counter(name))
        worker.until(name, "RUNNING", "RUNNING")
    journal = worker.data / "journal" / "one"
    assert cdc("drop", "one", "--data-dir", worker.data).stdout == (
        f"one is dropped\nits journal stays, in {journal}\n"
    )
    assert journal.is_dir()
    assert worker("GET", "/connectors").body == ["three", "two"]
    assert worker("DELETE", "/connectors/two").status == 204
    status = cdc("status", "--data-dir", worker.data).stdout
    assert "warning: two was deleted" in status
    assert "cdc drop two" in status
    assert cdc("drop", "two", "--data-dir", worker.data).returncode == 0
    assert "warning" not in cdc("status", "--data-dir", worker.data).stdout
    worker.end()
    assert cdc("drop", "three", "--data-dir", worker.data).returncode == 0
    failed(cdc("drop", "three", "--data-dir", worker.data), 2, "no connector three", "none")


def test_the_command_alone_lists_what_there_is() -> None:
    done = cdc()
    assert (done.returncode, done.stdout) == (2, "")
    assert "\n    capture   one source's events as JSON lines" in done.stderr


def test_a_warning_of_a_command_says_that_it_is_one() -> None:
    lacking = "database.password=${env:NOT_SET_HERE}"
    done = cdc("check", "postgresql://nobody@127.0.0.1:1/x", "--set", lacking)
    assert done.stderr.startswith("WARNING: database.password: ${env:NOT_SET_HERE} stays as it is")


def test_journal_commands(start: Callable[..., Worker], tmp_path: Path) -> None:
    worker = start()
    worker.create(worker.counter(rows=200))
    worker.create(worker.ledger())
    eventually(lambda: len(worker.numbers()) == 200)
    data = worker.data
    done = cdc("journal", "info", "--data-dir", data)
    assert "count: offsets 0 to 199, " in done.stdout  # the last one is in, as elsewhere
    assert re.search(r"\.seg  offsets 0 to \d+, ", done.stdout), "what prune can be told"
    assert cdc("journal", "--data-dir", data, "verify", "count").returncode == 0
    done = cdc("journal", "backup", "count", tmp_path / "copy", "--data-dir", data)
    assert done.returncode == 0, done.stderr
    assert "segments copied" in done.stdout
    done = cdc("journal", "verify", tmp_path / "copy", "--data-dir", data)
    assert done.returncode == 0
    assert "no damage" in done.stdout
    failed(cdc("journal", "verify", "--data-dir", tmp_path / "no"), 2, "holds no journal")
    prune = ("journal", "prune", "count", "--data-dir", data, "--before")
    failed(cdc(*prune, "201"), 2, "sinks still need offsets below 201: ledger at 200", "--force")
    failed(cdc(*prune, "100"), 1, "/connectors/count/stop")
    failed(cdc("journal", "verify", "nobody", "--data-dir", data), 2, "There are: count.")
    worker("PUT", "/connectors/count/stop")
    assert cdc(*prune, "100").returncode == 0


def test_status_says_how_far_a_sink_is_behind_that_nobody_runs(
    start: Callable[..., Worker],
) -> None:
    worker = start()
    worker.create(worker.counter(rows=200))
    worker.create(worker.ledger())
    eventually(lambda: len(worker.numbers()) == 200)
    behind = "    200 records behind\n"
    worker("PUT", "/connectors/ledger/stop")
    assert eventually(lambda: worker("DELETE", "/connectors/ledger/offsets").status == 200)
    assert behind in cdc("status", "--data-dir", worker.data).stdout
    worker.end()
    status = cdc("status", "--data-dir", worker.data).stdout
    assert behind in status
    assert re.search(r"\n    journal [0-9.]+ kB\n", status)


def test_verify_names_a_damaged_segment(start: Callable[..., Worker]) -> None:
    worker = start()
    worker.create(worker.counter(rows=200))
    eventually(lambda: len(worker.stored()) == 200)
    worker.end()
    segment = min((worker.data / "journal" / "count").glob("*-0-*.seg"))
    with closing(sqlite3.connect(segment)) as db, db:
        db.execute("UPDATE blocks SET body = zeroblob(length(body)) WHERE start > 0")
    done = cdc("journal", "verify", "--data-dir", worker.data)
    assert done.returncode == 1
    assert segment.name in done.stdout
    assert "damaged" in done.stdout


def test_a_worker_reads_yaml_and_toml(start: Callable[..., Worker], tmp_path: Path) -> None:
    settings, source = tmp_path / "worker.yaml", tmp_path / "count.toml"
    settings.write_text("task:\n  shutdown.graceful.timeout.ms: 4000\n")
    source.write_text(
        'name = "count"\n[config]\nconnector.class = "counter"\ntopic.prefix = "count"\n'
        f'confirmed.file = "{tmp_path / "confirmed"}"\nrows = 150\n'
    )
    worker = start(settings, source)
    eventually(lambda: worker.stored() == list(range(150)))
    assert worker("GET", "/connectors/count/config").body["rows"] == "150"
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('name = "wrong"\nrows = \n')
    failed(cdc("run", "--data-dir", tmp_path / "other", wrong), 2, "wrong.toml, line 2", "TOML")


def test_a_newer_journal_is_refused_by_every_command(
    start: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start()
    worker.create(worker.counter(rows=200))
    worker.create(worker.ledger())
    eventually(lambda: len(worker.numbers()) == 200)
    worker.end()
    newest = max((worker.data / "journal" / "count").glob("*.seg"))
    with closing(sqlite3.connect(newest)) as db, db:
        row = (SEGMENT_FORMAT + 6, meta_crc("format", SEGMENT_FORMAT + 6))
        db.execute("UPDATE meta SET value = ?, crc = ? WHERE key = 'format'", row)
    before = newest.read_bytes()
    said = f"{newest.name} has format {SEGMENT_FORMAT + 6}, this version knows {SEGMENT_FORMAT}"
    for command in ("verify", "info"):
        done = cdc("journal", command, "--data-dir", worker.data)
        assert done.returncode == 1
        assert said in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    again = start()
    again.until("count", "RUNNING", "FAILED")
    assert said in again.trace("count")
    done = cdc("status", "--data-dir", again.data)
    assert done.returncode == 1
    assert said in done.stdout
    assert again.numbers() == list(range(200))
    assert again.end() == 0
    assert newest.read_bytes() == before
