"""The runtime's small parts: decisions, names, channels, positions, exposition."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from cdc import errors
from cdc.api import Batch, Lane
from cdc.errors import (
    ConfigError,
    ConnectionLost,
    LogLocked,
    LogVersion,
    SinkUnavailable,
    SlotBusy,
)
from cdc.log.journal import Journal
from cdc.metrics import Exposition
from cdc.runtime import plugins
from cdc.runtime.channel import Receiver, Sender
from cdc.runtime.choice import may_name
from cdc.runtime.connector import Connector, Outcome, Refused, Task
from cdc.runtime.offsets import Offsets, Stored
from cdc.runtime.process import TaskProcess
from cdc.runtime.retry import Action, Backoff, Restarts, decide
from cdc.runtime.state import DataDir, Saved, file_name, read_json, write_json
from cdc.runtime.supervisor import Settings
from cdc.runtime.worker import Worker
from tests.blocks import INT32, Source


def every_error() -> list[type[errors.CdcError]]:
    found = [errors.CdcError]
    for kind in found:
        found += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == "cdc.errors"]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_class_is_decided_by_its_class(kind: type[errors.CdcError]) -> None:
    action = decide(kind("text"))
    if kind in (ConnectionLost, SlotBusy, SinkUnavailable):
        assert action is Action.WAIT
    elif kind is LogLocked:
        assert action is Action.RESTART
    else:
        assert action is (Action.RESTART if kind.retriable else Action.STOP)


def test_a_bug_is_tried_again_and_a_missing_module_is_not() -> None:
    assert decide(ValueError()) is Action.RESTART
    assert decide(MemoryError()) is Action.RESTART
    assert decide(ImportError("no sqlalchemy")) is Action.STOP


def test_restarts_come_at_once_then_double_to_their_limit() -> None:
    restarts = Restarts()
    delays = [restarts.next_s(Action.RESTART) for _ in range(11)]
    assert delays == [0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0, None]
    restarts.progress()
    assert restarts.next_s(Action.RESTART) == 0.0
    assert restarts.next_s(Action.STOP) is None
    assert all(restarts.next_s(Action.WAIT) is not None for _ in range(100))
    assert Restarts(limit=0).next_s(Action.RESTART) is None


def test_a_restart_that_is_asked_for_comes_however_the_task_ends_meanwhile() -> None:
    """A new configuration is tried, though the old one's end is heard before the stop is sent."""
    known = Task("a", "sink", Restarts(), state="RUNNING")
    known.process = cast("TaskProcess", SimpleNamespace(told_to_stop=False))
    known.restart(now=5.0)
    known.outcome = Outcome(Action.STOP, "the old configuration is misspelt")
    known.ended(1, "STARTED", now=6.0)
    assert (known.state, known.start_at, known.again, known.trace) == ("RESTARTING", 6.0, False, "")


def test_a_slot_is_read_by_one_source(tmp_path: Path) -> None:
    """A second one would begin where the first stands, and leave it without what comes then."""
    data = DataDir(tmp_path)
    data.prepare()
    worker = Worker(data, Settings(), "here")
    server = {f"database.{name}": "x" for name in ("hostname", "user", "dbname")}
    first = {"connector.class": "postgres", "topic.prefix": "a", **server}
    worker.create("first", first, "PAUSED")
    second = {**first, "topic.prefix": "b"}
    with pytest.raises(Refused, match=r"slot\.name: connector first already reads this slot"):
        worker.create("second", second)
    for number, other in enumerate(
        ({"slot.name": "b"}, {"database.dbname": "b"}, {"snapshot.mode": "initial_only"})
    ):
        worker.create(f"other{number}", {**second, "topic.prefix": f"b{number}", **other})
    worker.supervisor.close()


def test_a_backoff_begins_again_after_progress() -> None:
    backoff = Backoff()
    assert [backoff.next_s() for _ in range(8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    backoff.reset()
    assert backoff.next_s() == 0.2


@pytest.mark.parametrize(
    "name", ["shop", "a b", "a/b", "../x", "..", ".", ".hidden", "50%", "größe", "a.b", "a\\b"]
)
def test_any_name_is_a_file_name_that_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    data = DataDir(tmp_path)
    data.prepare()
    data.journal(name).mkdir()
    assert data.journal(name).parent == tmp_path / "journal"
    assert data.sink(name).parent == tmp_path / "sinks"
    assert data.journals() == [name]


def test_what_others_put_beside_the_journals_is_none(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    data.prepare()
    data.journal("shop").mkdir()
    (tmp_path / "journal" / "lost+found").mkdir()
    for name in (".DS_Store", "notes"):
        (tmp_path / "journal" / name).write_bytes(b"x")
    assert data.journals() == ["shop"]


def test_file_names_of_different_names_differ() -> None:
    names = ["a", "A", "a b", "a+b", "a%20b", "a/b", "a%2Fb", ".a", "%2Ea"]
    assert len({file_name(name) for name in names}) == len(names)


def test_a_state_file_is_replaced_whole_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert read_json(path) is None
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    assert read_json(path) == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"x\.json is not JSON"):
        read_json(path)


def test_positions_survive_and_moves_count_epochs(tmp_path: Path) -> None:
    path = tmp_path / "sinks" / "s.db"
    offsets = Offsets(path)
    offsets.store({"a": 1, "b": 2})
    offsets.move("a", 0)
    offsets.move("a", None)
    offsets.close()
    offsets = Offsets(path)
    assert offsets.load() == {"a": Stored(None, 2, True), "b": Stored(2, 0, False)}
    offsets.store({"a": 5})
    assert offsets.load()["a"] == Stored(5, 2, False)
    offsets._db.execute("PRAGMA user_version = 99")
    offsets.close()
    with pytest.raises(LogVersion, match="format 99"):
        Offsets(path)


def test_a_channel_carries_messages_of_any_length_in_order() -> None:
    read, write = os.pipe()
    sender, receiver = Sender(write), Receiver(read)
    messages = [{"n": n, "text": "x" * (n * 997)} for n in range(300)]
    thread = threading.Thread(target=lambda: [*map(sender.send, messages), sender.close()])
    thread.start()
    found = []
    os.set_blocking(read, True)
    while not receiver.ended:
        found += receiver.receive()
    thread.join()
    receiver.close()
    assert found == messages


def test_a_channel_drops_what_may_be_dropped_and_never_half_of_it() -> None:
    read, write = os.pipe()
    sender, receiver = Sender(write), Receiver(read)
    sent = 0
    while sender.send({"n": sent}, must=False):
        sent += 1
    found = receiver.receive()
    assert [message["n"] for message in found] == list(range(sent))
    assert sender.send({"n": "again"}, must=False)
    assert receiver.receive() == [{"n": "again"}]
    receiver.close()
    assert not sender.send({"n": "nobody"})
    sender.close()


def test_an_impatient_sender_gives_up_on_a_receiver_that_stands_still() -> None:
    read, write = os.pipe()
    sender = Sender(write, patience_s=0.01)
    while sender.send({"c": "wake"}, must=False):
        pass
    assert not sender.send({"c": "stop"})
    sender.close()
    os.close(read)


def test_exposition_groups_samples_and_escapes_labels() -> None:
    out = Exposition()
    out.add("b_total", 2, {"connector": 'a"\\\n'})
    out.add("a", 0.5)
    out.add("b_total", 3, {"connector": "z"})
    assert out.text() == (
        "# TYPE a gauge\na 0.5\n# TYPE b_total counter\n"
        'b_total{connector="a\\"\\\\\\n"} 2\nb_total{connector="z"} 3\n'
    )


def connector(name: str, kind: str, **relevant: object) -> Connector:
    return Connector(Saved(name, {}), kind, Task(name, kind, Restarts()), relevant=relevant)


@pytest.mark.parametrize(
    ("chosen", "may"),
    [
        ({"topics": ("shop.public.orders",)}, True),
        ({"topics": ("other.public.orders", "shop2.public.orders")}, False),
        ({"topics.regex": r"shop\..*"}, True),
        ({"topics.regex": r"(?:crm|shop)\.public\.orders"}, True),
        ({"topics.regex": r"crm\..*|(?!shop\.a)shop\..*"}, True),
        ({"topics.regex": r".*\.orders"}, True),
        ({"topics.regex": r"sh[aeiou]p\..*"}, True),
        ({"topics.regex": r"crm\..*"}, False),
        ({"topics.regex": r"shop2\..*|^crm\..*"}, False),
    ],
)
def test_a_sink_reads_the_sources_whose_topics_it_can_name(
    chosen: dict[str, object], may: bool
) -> None:
    source = connector("s", "source", **{"topic.prefix": "shop"})
    routed = connector("s", "source", **{"topic.prefix": "shop", "transforms": ["route"]})
    sink = connector("k", "sink", **chosen)
    assert may_name(sink, source) is may
    assert may_name(sink, routed)
    dashed = connector("s", "source", **{"topic.prefix": "shop", "topic.delimiter": "-"})
    assert may_name(connector("k", "sink", **{"topics.regex": r"shop-public-.*"}), dashed)


def test_a_sink_reads_a_journal_that_holds_its_topics_under_a_prefix_of_before(
    tmp_path: Path,
) -> None:
    worker, shop = Worker(DataDir(tmp_path), Settings(), "w"), Source()
    shop.insert(shop.table("orders", id=INT32), id=1)
    with Journal.open(worker.data.journal("crm")) as journal:
        journal.append(Batch(Lane.SNAPSHOT, {}, shop.block(), close=True))
    for name in ("crm", "erp"):
        source = connector(name, "source", **{"topic.prefix": name})
        worker.supervisor.connectors[name] = source
    read = {
        regex: worker._journals_of(connector("k", "sink", **{"topics.regex": regex}))
        for regex in (r"srv\..*", r"srv\.public\.lines", r"erp\..*", ".*")
    }
    assert list(read.values()) == [["crm"], [], ["erp"], ["crm", "erp"]]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("io.debezium.connector.postgresql.PostgresConnector", "source"),
        ("postgres", "source"),
        ("console", "sink"),
        ("io.confluent.connect.jdbc.JdbcSinkConnector", "sink"),
        ("file", "sink"),
    ],
)
def test_declarations_load_without_client_libraries(name: str, kind: str) -> None:
    import subprocess
    import sys

    script = (
        "import sys; from cdc.runtime import plugins;"
        f"plugin = plugins.find({name!r}); assert plugin.kind == {kind!r}; plugin.definition();"
        "bad = {'psycopg', 'psycopg2', 'sqlalchemy', 'starlette', 'uvicorn'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


def test_a_plugin_that_is_no_task_is_refused_with_what_it_lacks() -> None:
    plugin = plugins.Plugin("mine", "sink", "cdc.errors:SinkError", "cdc.errors:CONFIG")
    with pytest.raises(ConfigError, match=r"mine is no sink: .* Derive it from cdc\.api\.SinkTask"):
        plugin.load()


def test_an_unknown_connector_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"matches postgrse.*Did you mean postgres"):
        plugins.find("postgrse")


def test_a_connector_without_a_converter_gets_the_workers() -> None:
    worker = {"key.converter": "a", "key.converter.x": "1", "value.converter": "b", "other": "c"}
    assert plugins.inherit({"value.converter": "mine"}, worker) == {
        "key.converter": "a",
        "key.converter.x": "1",
        "value.converter": "mine",
    }


JSON = "org.apache.kafka.connect.json.JsonConverter"
STRING = "org.apache.kafka.connect.storage.StringConverter"


@pytest.mark.parametrize(
    ("own", "worker", "expected"),
    [
        # facts §2.6: options follow the class
        ({}, {"key.converter": JSON, "key.converter.a": "w"}, {JSON: {"a": "w"}}),
        ({"a": "c"}, {"key.converter": JSON, "key.converter.a": "w"}, {JSON: {"a": "w"}}),
        ({"b": "c"}, {"key.converter": JSON}, {JSON: {}}),
        ({"": STRING}, {"key.converter": JSON, "key.converter.a": "w"}, {STRING: {}}),
        ({"": JSON}, {"key.converter": JSON, "key.converter.a": "w"}, {JSON: {}}),
        ({"": STRING, "b": "c"}, {"key.converter": JSON, "key.converter.a": "w"},
         {STRING: {"b": "c"}}),
        ({"": "", "b": "c"}, {"key.converter": JSON, "key.converter.a": "w"}, {JSON: {"a": "w"}}),
        # nobody names a class: there is JSON all the same, which Connect has not
        ({"b": "c"}, {}, {None: {"b": "c"}}),
        ({}, {}, {None: {}}),
        # another part's converter is not this one's
        ({}, {"value.converter": JSON, "value.converter.a": "w"}, {None: {}}),
    ],
)  # fmt: skip
def test_a_converters_options_follow_its_class(
    own: dict[str, str], worker: dict[str, str], expected: dict[str | None, dict[str, str]]
) -> None:
    written = {f"key.converter{'.' if name else ''}{name}": text for name, text in own.items()}
    found = plugins.inherit(written, worker)
    options = {
        name.removeprefix("key.converter."): text
        for name, text in found.items()
        if name.startswith("key.converter.")
    }
    assert {found.get("key.converter"): options} == expected


def test_an_option_that_is_ignored_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    plugins.inherit({"key.converter.a": "c"}, {"key.converter": JSON})
    assert "key.converter.a is ignored: options follow the class" in caplog.text


def test_a_retriable_error_may_say_when() -> None:
    assert SinkUnavailable("x", retry_after_s=3).retry_after_s == 3
