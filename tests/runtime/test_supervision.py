"""What keeps a worker up, and what ends it whole: one task's trouble, signals, half messages."""

from __future__ import annotations

import os
import select
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from cdc import sourceconfig
from cdc.api import Batch, Lane
from cdc.errors import CdcError, ConfigError, SourceError
from cdc.postgres import admin, slots
from cdc.runtime import orphans, supervisor, task, worker
from cdc.runtime.channel import Receiver, Sender
from cdc.runtime.connector import Connector, Refused, Task
from cdc.runtime.offsets import Offsets
from cdc.runtime.process import TaskProcess
from cdc.runtime.retry import Restarts
from cdc.runtime.runners import TaskSpec
from cdc.runtime.source_loop import QueueLimits
from cdc.runtime.state import DataDir, Saved, Store
from cdc.runtime.supervisor import Settings
from tests.runtime.workers import Worker, cdc, eventually

SPEC = TaskSpec("a", "sink", {}, "/nowhere")


def test_a_damaged_sink_file_fails_its_own_task_only(
    start: Callable[..., Worker], tmp_path: Path
) -> None:
    settings = tmp_path / "worker.properties"
    settings.write_text("task.restart.max=1\ntask.restart.backoff.ms=10\n")
    begun = start(settings)
    begun.create(begun.counter())
    begun.create(begun.ledger())
    begun.create(begun.ledger("other"))
    eventually(lambda: begun.numbers() and begun.numbers("other"))
    begun.kill()
    for path in (begun.data / "sinks").glob("other.db*"):
        path.unlink()
    (begun.data / "sinks" / "other.db").write_bytes(b"this is no database" * 1000)
    again = start(settings)
    again.until("other", "RUNNING", "FAILED")
    assert "Traceback" in again.trace("other")
    seen = len(again.numbers())
    eventually(lambda: len(again.numbers()) > seen + 1000)
    assert again("GET", "/health").status == 200
    # Nobody knows what it still needs, and a pause or a new source must not need to.
    assert again("PUT", "/connectors/other/pause").status == 202
    again.create(again.counter("more"))
    again.until("more", "RUNNING", "RUNNING")
    assert again.end() == 0


class Told:
    """A task's process, as far as the worker talks to it."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []

    def tell(self, command: dict[str, Any]) -> bool:
        self.commands.append(command)
        return True


@pytest.mark.parametrize("named", ["console", "com.example.NotInstalledNow"])
def test_a_kept_sink_that_is_no_longer_sound_holds_what_it_has_not_taken(
    tmp_path: Path, named: str
) -> None:
    """Its secrets are not mounted at the worker's start, or its plugin is not installed."""
    data = DataDir(tmp_path)
    data.prepare()
    made = worker.Worker(data, Settings(), "here")
    with closing(Offsets(data.sink("copy"))) as offsets:
        offsets.store({"shop": 7})
    for name in ("shop", "other"):
        data.journal(name).mkdir()
    config = {"name": "copy", "connector.class": named, "topics.regex": "${file:/nowhere/at:all}"}
    connectors, told = made.supervisor.connectors, {"shop": Told(), "other": Told()}
    for name, process in told.items():
        source = Task(name, "source", Restarts(), state="RUNNING")
        source.process = cast("TaskProcess", process)
        connectors[name] = Connector(Saved(name, {}), "source", source)
    connectors["copy"] = made._load(Saved("copy", config))
    assert connectors["copy"].trace
    for _ in range(2):
        made._tell_needed()
        data.sink("copy").write_bytes(b"this is no database" * 1000)
        connectors["copy"].task.positions.clear()
    assert [command["offset"] for command in told["shop"].commands] == [7, 0]
    assert [command["offset"] for command in told["other"].commands] == [None, 0]
    made.supervisor.close()


def test_what_is_not_sound_and_has_begun_nothing_holds_and_hinders_nobody(tmp_path: Path) -> None:
    """A source that cannot be started has no topics, and a sink that never ran no journals."""
    data = DataDir(tmp_path)
    data.prepare()
    made = worker.Worker(data, Settings(), "here")
    server = {f"database.{name}": "x" for name in ("hostname", "user", "dbname")}
    configs: dict[str, dict[str, str]] = {
        "shop": {"connector.class": "postgres", "topic.prefix": "shop", **server},
        "crm": {
            "connector.class": "postgres", "topic.prefix": "crm", **server,
            "database.password": "${file:/nowhere/at:all}",
        },
        "copy": {"connector.class": "file", "file": "out", "topics": "shop.public.t"},
        "new": {
            "connector.class": "file", "file": "${file:/nowhere/at:all}", "topics": "shop.public.t"
        },
    }  # fmt: skip
    connectors = made.supervisor.connectors
    for name, config in configs.items():
        connectors[name] = made._load(Saved(name, {"name": name, **config}))
    assert {name for name, found in connectors.items() if found.trace} == {"crm", "new"}
    assert made._journals_of(connectors["copy"]) == ["shop"]
    assert made._journals_of(connectors["new"]) == []
    assert made._needed_by(connectors["new"]) == {}
    made.supervisor.close()


def test_a_sink_that_is_stopped_holds_what_comes_from_a_source_made_since(tmp_path: Path) -> None:
    """It reads that too once it is resumed, and begins with its snapshot."""
    data = DataDir(tmp_path)
    data.prepare()
    made = worker.Worker(data, Settings(), "here")
    sink = {"connector.class": "file", "file": "out", "topics.regex": ".*"}
    server = {f"database.{name}": "x" for name in ("hostname", "user", "dbname")}
    made.create("shop", {"connector.class": "postgres", "topic.prefix": "shop", **server})
    made.create("copy", sink)
    connectors, told = made.supervisor.connectors, Told()
    connectors["copy"].task.journals = ["shop"]  # of the run that was stopped
    connectors["copy"].task.positions["shop"] = 7
    server["slot.name"] = "crm"
    made.create("crm", {"connector.class": "postgres", "topic.prefix": "crm", **server})
    crm = connectors["crm"].task
    crm.process, crm.state = cast("TaskProcess", told), "RUNNING"
    made._tell_needed()
    assert [command["offset"] for command in told.commands] == [0]
    crm.process = None
    made.supervisor.close()


@contextmanager
def supervised(tmp_path: Path, housekeeping: Callable[[], None]) -> Iterator[supervisor.Supervisor]:
    made = supervisor.Supervisor(DataDir(tmp_path), Settings(), lambda _: [], housekeeping)
    made.start()
    try:
        yield made
    finally:
        made.close()


def test_housekeeping_that_fails_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "HOUSEKEEPING_S", 0.01)
    calls: list[int] = []

    def full() -> None:
        calls.append(1)
        raise OSError(28, "No space left on device")

    with supervised(tmp_path, full) as made:
        eventually(lambda: len(calls) > 2)
        assert made.is_alive()
    assert made.failure is None


def test_a_second_signal_finds_it_ended(tmp_path: Path) -> None:
    with supervised(tmp_path, lambda: None) as made:
        pass
    with (tmp_path / "status").open("w") as later:  # has the descriptor that was free first
        made.begin_close()
        assert os.fstat(later.fileno()).st_size == 0


def test_a_supervisor_that_ends_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = threading.Event()

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(supervisor.Supervisor, "_reconcile", broken)
    made = supervisor.Supervisor(DataDir(tmp_path), Settings(), lambda _: [], lambda: None)
    made.on_failure = heard.set
    made.start()
    assert heard.wait(5)
    made.close()
    assert str(made.failure) == "a bug"


def test_a_worker_whose_supervisor_ends_ends_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cdc.cli import run
    from cdc.runtime.config import WORKER_CONFIG

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(supervisor.Supervisor, "_reconcile", broken)
    data = DataDir(tmp_path / "data")
    with (
        data.lock(),
        run.listen("127.0.0.1", 0) as sock,
        pytest.raises(CdcError, match="RuntimeError: a bug"),
    ):
        run.serve(data, WORKER_CONFIG.parse({}), [], sock, "INFO")


# --- progress


def heard(*messages: dict[str, Any]) -> int:
    known = Task("a", "sink", Restarts(in_a_row=3))
    for message in messages:
        known.hear(message)
    return known.restarts.in_a_row


def test_only_what_moves_forward_is_progress() -> None:
    begun = {"m": "stored", "positions": {"a": 5, "b": 7}}
    assert heard(begun) == 3
    assert heard(begun, begun) == 3
    assert heard(begun, {"m": "stored", "positions": {"a": 5, "b": 8}}) == 0
    assert heard({"m": "appended", "rows": 0}) == 3
    assert heard({"m": "appended", "rows": 1}) == 0


def test_a_sink_that_fails_in_its_first_put_uses_its_restarts_up(
    start: Callable[..., Worker], tmp_path: Path
) -> None:
    settings = tmp_path / "worker.properties"
    settings.write_text("task.restart.max=2\ntask.restart.backoff.ms=10\n")
    begun = start(settings)
    (tmp_path / "ledger.fail").write_text("put=bug")
    begun.create(begun.counter())
    begun.create(begun.ledger())
    begun.until("ledger", "RUNNING", "FAILED")
    assert "a bug in the counter" in begun.trace("ledger")


def test_a_sources_empty_batches_are_not_told() -> None:
    read, write = os.pipe()
    sender, receiver = Sender(write), Receiver(read)
    reporter = task.Reporter(sender)
    reporter.appended(Batch(Lane.STREAM, {"at": 1}), 10)
    assert receiver.receive() == []
    reporter.appended(Batch(Lane.SNAPSHOT, {"at": 1}, close=True), 10)
    assert receiver.receive() == [{"m": "appended", "rows": 0}]
    sender.close()
    receiver.close()


# --- the task's process


class Runner:
    """Holds a lock while it obeys, as Event.set does; a stop needs the same."""

    def __init__(self) -> None:
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.deadlocked = False

    def run(self) -> None:
        self.ended.wait(10)

    def obey(self, command: Mapping[str, Any]) -> None:
        with self.lock:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)

    def stop(self) -> None:
        if self.lock.acquire(timeout=0.5):
            self.lock.release()
        else:
            self.deadlocked = True
        self.ended.set()


def test_a_signal_beside_a_command_does_not_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner()
    monkeypatch.setattr(task, "make_runner", lambda spec, events: runner)
    monkeypatch.setattr(task, "spare_collector", lambda: None)
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    (commands, tell), (messages, say) = os.pipe(), os.pipe()
    child = task.Child(SPEC, Receiver(commands), Sender(say))
    teller = threading.Timer(0.3, lambda: os.write(tell, b'{"c":"wake"}\n'))
    teller.start()
    try:
        assert child.main() == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        teller.join()
        for fd in (commands, tell, messages, say):
            os.close(fd)
    assert not runner.deadlocked


def test_nothing_follows_half_a_message() -> None:
    read, write = os.pipe()
    sender, receiver = Sender(write, 0.01), Receiver(read)
    assert not sender.send({"text": "x" * (1 << 20)})
    assert receiver.receive() == []
    assert not sender.send({"c": "stop"})
    assert receiver.receive() == []
    sender.close()
    receiver.close()


def test_a_process_that_does_not_take_its_specification_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cdc.runtime.process.Sender.send", lambda *_: False)
    process = TaskProcess(SPEC)
    ended = select.select([process.messages.fd], [], [], 2)[0]  # it would wait for ever
    code = process.reap()
    assert ended
    assert code == -signal.SIGKILL


# --- the data folder


def test_a_look_for_the_worker_makes_no_folder_and_takes_no_lock(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "data")
    assert data.running_worker() is None
    assert not data.path.exists()
    with data.lock():
        assert data.running_worker() is None
        data.announce("http://here:1")
        assert data.running_worker() == "http://here:1"
    assert data.running_worker() is None  # worker.json of one that was killed
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            data.running_worker()

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(50):
            with data.lock():
                assert data.worker() is None
    finally:
        ended.set()
        for looker in lookers:
            looker.join()


def test_a_folder_open_to_others_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = DataDir(tmp_path / "data")
    data.prepare()
    assert not caplog.records
    data.path.chmod(0o755)
    data.prepare()
    assert "has mode 755" in caplog.text
    assert stat.S_IMODE(data.path.stat().st_mode) == 0o755


def test_a_removal_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = DataDir(tmp_path)
    data.prepare()
    store = Store(data)
    store.save(Saved("a", {}))
    synced: list[str] = []
    monkeypatch.setattr("cdc.runtime.state.sync", lambda path: synced.append(path.name))
    store.delete("a", remember=True)
    assert synced == ["deleted", "connectors"]
    store.forget("a")
    assert synced[2:] == ["deleted"]


def test_a_target_state_that_cannot_be_kept_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataDir(tmp_path)
    data.prepare()
    made = worker.Worker(data, Settings(), "here")
    saved = Saved("a", {})
    made.supervisor.connectors["a"] = Connector(saved, "sink", Task("a", "sink", Restarts()))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "save", full)
    with pytest.raises(OSError, match="No space"):
        made.set_target("a", "PAUSED")
    assert made.connector("a").saved.target == "STARTED"
    with pytest.raises(Refused):
        made.connector("b")
    made.supervisor.close()


def test_only_the_worker_forgets_what_nothing_is_left_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataDir(tmp_path)
    data.prepare()
    store = Store(data)
    for name in ("gone", "kept", "used"):
        store.save(Saved(name, {}))
        store.delete(name, remember=True)
    left = {"gone": None, "kept": "it lives", "used": ""}
    monkeypatch.setattr(orphans, "_left", lambda saved, worker: left[saved.name])
    assert orphans.look(store, {}) == {"gone": None, "kept": "it lives"}
    assert [saved.name for saved in store.deleted()] == ["gone", "kept", "used"]
    watcher = orphans.Watcher(store, {})
    watcher.start()
    eventually(lambda: [saved.name for saved in store.deleted()] == ["kept", "used"])
    watcher.stop()


@pytest.mark.parametrize("asked", [admin.leftover, admin.drop])
def test_what_a_server_refuses_is_a_source_error(
    asked: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise psycopg.errors.InsufficientPrivilege("permission denied")

    monkeypatch.setattr(admin, "conninfo", lambda _: {})
    monkeypatch.setattr(admin, "connect", lambda _: nullcontext())
    for module in (admin, slots):
        monkeypatch.setattr(module, "read_slot", refused)
    with pytest.raises(SourceError, match="permission denied"):
        asked({"slot.name": "s"})


# --- over REST and on the command line


def test_topics_that_were_reset_are_told_again_and_stay_claimed(
    start: Callable[..., Worker],
) -> None:
    begun = start()
    begun.create(begun.counter())
    expected = {"count": {"topics": ["count.public.numbers"]}}
    for _ in range(2):
        eventually(lambda: begun("GET", "/connectors/count/topics").body == expected)
        assert begun("PUT", "/connectors/count/topics/reset").status == 202


def test_a_topic_that_was_reset_is_not_free(tmp_path: Path) -> None:
    made = supervisor.Supervisor(DataDir(tmp_path), Settings(), lambda _: [], lambda: None)
    first, second = (Task(name, "source", Restarts()) for name in ("first", "second"))
    for one in (first, second):
        made.connectors[one.connector] = Connector(Saved(one.connector, {}), "source", one)
    made._note_topic(first, "t")
    first.topics.clear()  # as PUT …/topics/reset does
    made._note_topic(second, "t")
    assert second.state == "FAILED"
    assert "already written by connector first" in second.trace
    made.close()


def test_process_ids_are_told(start: Callable[..., Worker]) -> None:
    import json

    begun = start()
    begun.create(begun.counter())
    begun.until("count", "RUNNING", "RUNNING")
    (pid,) = begun.pids()
    done = cdc("status", "--data-dir", begun.data, "--json")
    assert json.loads(done.stdout)["pids"] == {"count": pid}
    line = f'cdc_task_pid{{connector="count",task="0"}} {pid}'
    assert line in begun("GET", "/metrics").text


@pytest.mark.parametrize("listeners", ["", "http://127.0.0.1:0,http://127.0.0.1:1"])
def test_one_listener_is_served(tmp_path: Path, listeners: str) -> None:
    from cdc.cli.run import listen_address
    from cdc.runtime.config import WORKER_CONFIG

    config = WORKER_CONFIG.parse({"listeners": listeners})
    with pytest.raises(ConfigError, match="listeners are given, and one is served"):
        listen_address(None, config)
    assert listen_address("127.0.0.1:1", config) == ("127.0.0.1", 1)


def test_the_queues_limits_have_one_place(source_config: Callable[..., Any]) -> None:
    assert QueueLimits.of(source_config()) == QueueLimits(8192, 64 << 20)
    assert QueueLimits.of(source_config(max_queue_size=5)).records == 5
    (key,) = (key for key in sourceconfig.CONNECTOR_KEYS if key.name == "max.queue.size.in.bytes")
    assert f"{key.default} stands for {QueueLimits().nbytes >> 20} MB" in key.doc
