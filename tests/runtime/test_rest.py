"""The REST API against Kafka Connect's bodies, statuses and texts (facts of version 4)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.plugins import counter
from tests.runtime.workers import Worker, eventually


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker for all: every test has connectors of its own names."""
    worker = Worker(tmp_path_factory.mktemp("rest"))
    yield worker
    assert worker.end() == 0


def worker_id(worker: Worker) -> str:
    return worker.url.removeprefix("http://")


def refused(answer: Any, status: int, text: str) -> None:
    """Connect's error body: error_code equals the status."""
    assert answer.status == status, answer.text
    assert answer.body == {"error_code": status, "message": answer.body["message"]}
    assert text in answer.body["message"]


def test_root_and_health(worker: Worker) -> None:
    body = worker("GET", "/").body
    assert list(body) == ["version", "commit", "kafka_cluster_id"]
    answer = worker("GET", "/health")
    assert answer.status == 200
    assert answer.body == {
        "status": "healthy",
        "message": "Worker has completed startup and is ready to handle requests.",
    }


def test_create_shows_its_location_and_its_tasks(worker: Worker) -> None:
    config = worker.counter("made one", rows=100)
    answer = worker("POST", "/connectors", {"name": " made one ", "config": config})
    assert answer.status == 201
    assert answer.headers["Location"] == f"{worker.url}/connectors/made%20one"
    info = {
        "name": "made one",
        "config": config,
        "tasks": [{"connector": "made one", "task": 0}],
        "type": "source",
    }
    assert answer.body == info
    assert worker("GET", "/connectors/made%20one").body == info
    assert worker("GET", "/connectors/made%20one/config").body == config
    assert "made one" in worker("GET", "/connectors").body
    tasks = worker("GET", "/connectors/made%20one/tasks").body
    task_class = {"task.class": "counter.CounterSourceTask"}
    assert tasks == [{"id": {"connector": "made one", "task": 0}, "config": config | task_class}]
    assert worker("DELETE", "/connectors/made%20one").status == 204
    refused(worker("GET", "/connectors/made%20one"), 404, "Connector made one not found")


def test_any_name_is_one_segment_of_a_path(worker: Worker) -> None:
    name = 'a/b%2F ü"?#.'
    path = f"/connectors/{quote(name, safe='')}"
    config = worker.ledger("odd") | {"name": name}
    answer = worker("PUT", f"{path}/config", config)
    assert answer.status == 201
    assert answer.headers["Location"] == worker.url + path
    assert worker("GET", f"{path}/status").body["name"] == name
    assert worker("GET", f"{path}/topics/").body == {name: {"topics": []}}
    assert name in worker("GET", "/connectors/").body
    refused(worker("GET", "/connectors/a/b"), 404, "HTTP 404 Not Found")
    assert worker("DELETE", f"{path}/").status == 204


def test_numbers_and_booleans_become_texts(worker: Worker) -> None:
    config: dict[str, Any] = {**worker.counter("typed"), "rows": 100, "errors.log.enable": True}
    written = json.dumps(config | {"odd": 0}).replace('"odd": 0', '"odd": 1.50e3').encode()
    answer = worker("PUT", "/connectors/typed/config", raw=written)
    assert answer.body["config"]["odd"] == "1.50e3"  # as it was sent
    assert worker("DELETE", "/connectors/typed").status == 204
    answer = worker("PUT", "/connectors/typed/config", config)
    assert answer.status == 201
    assert answer.headers["Location"] == f"{worker.url}/connectors/typed"
    assert answer.body["config"]["rows"] == "100"
    assert answer.body["config"]["errors.log.enable"] == "true"
    assert worker("PUT", "/connectors/typed/config", config).status == 200


def test_status_and_expand(worker: Worker) -> None:
    worker.create(worker.counter("shown", rows=100))
    worker.until("shown", "RUNNING", "RUNNING")
    status = {
        "name": "shown",
        "connector": {"state": "RUNNING", "worker_id": worker_id(worker)},
        "tasks": [{"id": 0, "state": "RUNNING", "worker_id": worker_id(worker)}],
        "type": "source",
    }
    answer = worker("GET", "/connectors/shown/status")
    assert answer.body == status
    assert list(answer.body) == ["name", "connector", "tasks", "type"]
    assert worker("GET", "/connectors/shown/tasks/0/status").body == status["tasks"][0]  # type: ignore[index]
    both = worker("GET", "/connectors?expand=status&expand=info").body["shown"]
    assert both["status"] == status
    assert both["info"] == worker("GET", "/connectors/shown").body
    assert worker("GET", "/connectors?expand=other").body["shown"] == {}


def test_pause_resume_stop_and_restart(worker: Worker) -> None:
    worker.create(worker.counter("moved"))
    worker.until("moved", "RUNNING", "RUNNING")
    answer = worker("PUT", "/connectors/moved/pause")
    assert (answer.status, answer.text) == (202, "")
    worker.until("moved", "PAUSED", "PAUSED")
    answer = worker("PUT", "/connectors/moved/resume")
    assert (answer.status, answer.text) == (202, "")
    worker.until("moved", "RUNNING", "RUNNING")
    answer = worker("POST", "/connectors/moved/restart")
    assert (answer.status, answer.text) == (204, "")
    answer = worker("POST", "/connectors/moved/restart?includeTasks=true&onlyFailed=false")
    assert answer.status == 202
    assert answer.body["connector"]["state"] == "RESTARTING"
    assert [task["state"] for task in answer.body["tasks"]] == ["RESTARTING"]
    worker.until("moved", "RUNNING", "RUNNING")
    for failed_only in ("includeTasks=true&onlyFailed=TRUE", "onlyFailed=true"):
        answer = worker("POST", f"/connectors/moved/restart?{failed_only}")
        assert answer.status == 202
        assert answer.body == worker("GET", "/connectors/moved/status").body  # nothing has failed
        assert worker.state("moved") == ("RUNNING", "RUNNING")
    assert worker("POST", "/connectors/moved/tasks/0/restart").status == 204
    worker.until("moved", "RUNNING", "RUNNING")
    for _ in range(2):  # idempotent
        answer = worker("PUT", "/connectors/moved/stop")
        assert (answer.status, answer.text) == (204, "")
    assert worker("GET", "/connectors/moved/status").body["tasks"] == []
    assert worker("GET", "/connectors/moved/status").body["connector"]["state"] == "STOPPED"
    assert worker("GET", "/connectors/moved").body["tasks"] == []


def test_a_restart_of_what_is_paused_leaves_it_paused(worker: Worker) -> None:
    worker.create(worker.counter("resting", rows=100))
    worker("PUT", "/connectors/resting/pause")
    # asked while its process may still be ending, and once it is gone
    for _ in range(2):
        assert worker("POST", "/connectors/resting/tasks/0/restart").status == 204
        answer = worker("POST", "/connectors/resting/restart?includeTasks=true")
        assert [task["state"] for task in answer.body["tasks"]] == ["RESTARTING"]
        worker.until("resting", "PAUSED", "PAUSED")
    worker("PUT", "/connectors/resting/resume")
    worker.until("resting", "RUNNING", "RUNNING")
    worker("POST", "/connectors/resting/tasks/0/restart")
    worker("PUT", "/connectors/resting/pause")
    worker.until("resting", "PAUSED", "PAUSED")
    worker("PUT", "/connectors/resting/stop")
    refused(worker("POST", "/connectors/resting/tasks/0/restart"), 404, "Unknown task: resting-0")


def test_an_initial_state_in_any_case(worker: Worker) -> None:
    body = {"name": "idle", "config": worker.counter("idle"), "initial_state": "stopped"}
    assert worker("POST", "/connectors", body).status == 201
    assert worker.state("idle") == ("STOPPED", "")


def test_topics_are_those_that_were_written_and_read(worker: Worker) -> None:
    worker.create(worker.counter("spoken", rows=100))
    worker.create(worker.ledger("heard", topics_regex=r"spoken\..*"))
    for name in ("spoken", "heard"):
        expected = {name: {"topics": ["spoken.public.numbers"]}}
        eventually(lambda: worker("GET", f"/connectors/{name}/topics").body == expected)  # noqa: B023
    assert worker("PUT", "/connectors/spoken/topics/reset").status == 202
    assert worker("GET", "/connectors/spoken/topics").body == {"spoken": {"topics": []}}


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        # the README says so, and which commands take their place
        ("GET", "/connector-plugins", 404, "HTTP 404 Not Found"),
        ("GET", "/admin/loggers", 404, "HTTP 404 Not Found"),
        ("GET", "/connectors/none", 404, "Connector none not found"),
        ("GET", "/connectors/none/config", 404, "Connector none not found"),
        ("GET", "/connectors/none/status", 404, "No status found for connector none"),
        ("GET", "/connectors/none/tasks", 404, "Connector none not found"),
        ("GET", "/connectors/none/tasks/0/status", 404, "No status found for task none-0"),
        ("GET", "/connectors/none/offsets", 404, "Connector none not found"),
        ("DELETE", "/connectors/none/offsets", 404, "Connector none not found"),
        ("DELETE", "/connectors/none", 404, "Connector none not found"),
        ("PUT", "/connectors/none/pause", 404, "Unknown connector none"),
        ("PUT", "/connectors/none/resume", 404, "Unknown connector none"),
        ("PUT", "/connectors/none/stop", 404, "Connector none not found"),
        ("POST", "/connectors/none/restart", 404, "Unknown connector: none"),
        ("POST", "/connectors/none/tasks/0/restart", 404, "Unknown task: none-0"),
        ("POST", "/connectors/none/restart?includeTasks=true", 404, "Unknown connector: none"),
        ("GET", "/connectors/none/topics", 404, "Connector none not found"),
        ("GET", "/nothing", 404, "HTTP 404 Not Found"),
        ("PUT", "/connectors", 405, "HTTP 405 Method Not Allowed"),
    ],
)
def test_what_is_not_there(worker: Worker, method: str, path: str, status: int, text: str) -> None:
    refused(worker(method, path), status, text)


def test_a_wrong_method_is_told_the_right_ones(worker: Worker) -> None:
    for path, allowed in (
        ("/connectors", {"GET", "HEAD", "POST"}),
        ("/connectors/none/config", {"GET", "HEAD", "PATCH", "PUT"}),
        ("/connectors/none/offsets", {"DELETE", "GET", "HEAD", "PATCH"}),
        ("/connectors/none/restart", {"POST"}),
    ):
        answer = worker("OPTIONS", path)
        refused(answer, 405, "HTTP 405 Method Not Allowed")
        assert set(answer.headers["Allow"].split(", ")) == allowed


def test_a_name_that_is_taken_or_does_not_fit(worker: Worker) -> None:
    config = worker.counter("taken")
    worker.create(config)
    refused(
        worker("POST", "/connectors", {"name": "taken", "config": config}),
        409,
        "Connector taken already exists",
    )
    refused(
        worker("PUT", "/connectors/other/config", config),
        400,
        "Connector name configuration (taken) doesn't match connector name in the URL (other)",
    )
    refused(worker("POST", "/connectors", {"config": {"connector.class": "counter"}}), 400, "name")
    long = "n" * 300
    refused(worker("PUT", f"/connectors/{long}/config", worker.counter(long)), 400, "too long")


def test_an_invalid_configuration_lists_its_errors(worker: Worker) -> None:
    config = worker.counter("wrong", rows="many")
    del config["topic.prefix"]
    answer = worker("POST", "/connectors", {"name": "wrong", "config": config})
    refused(
        answer,
        400,
        "Connector configuration is invalid and contains the following 2 error(s):\n",
    )
    assert "Invalid value many for configuration rows: Not a number of type INT" in answer.text
    assert 'Missing required configuration \\"topic.prefix\\"' in answer.text
    assert answer.body["message"].endswith(
        "\nYou can also find the above list of errors at the endpoint"
        " `/connector-plugins/{connectorType}/config/validate`"
    )
    refused(worker("GET", "/connectors/wrong"), 404, "Connector wrong not found")


def test_a_sink_needs_one_choice_of_topics(worker: Worker) -> None:
    config = worker.ledger("choice")
    del config["topics.regex"]
    text = "Must configure one of topics or topics.regex"
    refused(worker("PUT", "/connectors/choice/config", config), 400, f"2 error(s):\n{text}\n{text}")


def test_a_class_that_is_missing_or_unknown(worker: Worker) -> None:
    answer = worker("PUT", "/connectors/x/config", {"database.password": "hush"})
    refused(answer, 400, "contains no connector type")
    assert "hush" not in answer.text
    refused(
        worker("PUT", "/connectors/x/config", {"connector.class": "postgrse"}),
        500,
        "Failed to find any class that implements Connector and which name matches postgrse,"
        " available connectors are: ",
    )


def test_two_sources_with_the_same_topics_are_refused(worker: Worker) -> None:
    worker.create(worker.counter("first"))
    config = worker.counter("second") | {"topic.prefix": "first"}
    refused(
        worker("PUT", "/connectors/second/config", config),
        400,
        "connector first already writes topics with this prefix",
    )
    assert worker("PUT", "/connectors/first/config", worker.counter("first")).status == 200


def test_bodies_that_are_no_configuration(worker: Worker) -> None:
    refused(worker("POST", "/connectors", raw=b"{"), 500, "not JSON")
    for raw in (b"", b"[" * 100_000, b'{"rows": NaN}', b'"\xff"', b'{"a": 1} {"b": 2}'):
        refused(worker("PUT", "/connectors/x/config", raw=raw), 500, "The body is not JSON: ")
    for body in ([], "x", None, 1):
        raw = json.dumps(body).encode()
        for method, path in (("POST", ""), ("PUT", "/x/config"), ("PATCH", "/x/config")):
            refused(worker(method, f"/connectors{path}", raw=raw), 500, "an object is expected")
    for name in ("name", "initial_state", "config"):
        body = {"name": "x", "config": worker.counter("x"), name: ["x"]}
        refused(worker("POST", "/connectors", body), 500, "Cannot deserialize")
    body = {"name": "x", "config": worker.counter("x"), "initial_state": "asleep"}
    refused(worker("POST", "/connectors", body), 500, "asleep is no initial_state")
    for name in ("a\nb", "\ud800"):
        body = {"name": name, "config": {"connector.class": "console", "topics": "t"}}
        refused(worker("POST", "/connectors", body), 400, "configuration name")
    refused(worker("PATCH", "/connectors/x/config", {"rows": "1"}), 404, "Connector x not found")
    more = {"name": "x", "config": {}, "tasks": [], "type": "source"}
    refused(worker("POST", "/connectors", more), 500, 'Unrecognized field "tasks"')
    refused(worker("PUT", "/connectors/x/config", {"a": {"b": 1}}), 500, "it is not a text")
    refused(
        worker("PUT", "/connectors/x/config", worker.counter("x") | {"rows": None}),
        400,
        "Null value can not be supplied as the configuration value.",
    )
    refused(
        worker("POST", "/connectors", raw=b"{}", kind="application/x-www-form-urlencoded"),
        415,
        "HTTP 415 Unsupported Media Type",
    )


# --- offsets


@pytest.fixture
def pair(worker: Worker, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A source of 300 numbers and a sink that has them all."""
    number = abs(hash(request.node.name)) % 10**6
    source, sink = f"s{number}", f"k{number}"
    worker.create(worker.counter(source, rows=300))
    worker.create(worker.ledger(sink, topics=f"{source}.public.numbers", topics_regex=""))
    eventually(lambda: len(worker.numbers(sink)) == 300)
    yield source, sink
    for name in (sink, source):
        assert worker("DELETE", f"/connectors/{name}").status == 204


def offset(source: str, value: Any) -> dict[str, Any]:
    partition = {"kafka_topic": source, "kafka_partition": 0}
    return {"offsets": [{"partition": partition, "offset": value}]}


def test_offsets_are_shown_in_connects_shapes(worker: Worker, pair: tuple[str, str]) -> None:
    source, sink = pair
    expected = offset(source, {"kafka_offset": 300})
    eventually(lambda: worker("GET", f"/connectors/{sink}/offsets").body == expected)
    assert worker("GET", f"/connectors/{source}/offsets").body == {
        "offsets": [{"partition": {"server": source}, "offset": {"next": 300}}]
    }


def test_a_sink_is_replayed_from_an_offset(worker: Worker, pair: tuple[str, str]) -> None:
    source, sink = pair
    path = f"/connectors/{sink}/offsets"
    move = offset(source, {"kafka_offset": 290})
    refused(worker("PATCH", path, move), 400, f"'PUT' request to the '/connectors/{sink}/stop'")
    worker("PUT", f"/connectors/{sink}/stop")
    answer = worker("PATCH", path, move)
    assert answer.status == 200
    text = "The offsets for this connector have been altered successfully"
    assert answer.body == {"message": text}
    assert worker("GET", path).body == move
    worker("PUT", f"/connectors/{sink}/resume")
    eventually(lambda: len(worker.numbers(sink)) == 310)
    assert worker.numbers(sink)[300:] == list(range(290, 300))
    assert {"seek": 290, "epoch": 1} in counter.ledger(worker.folder / sink)


def test_a_sink_is_reset_to_the_beginning(worker: Worker, pair: tuple[str, str]) -> None:
    _, sink = pair
    worker("PUT", f"/connectors/{sink}/stop")
    answer = worker("DELETE", f"/connectors/{sink}/offsets")
    text = "The offsets for this connector have been reset successfully"
    assert (answer.status, answer.body) == (200, {"message": text})
    assert worker("GET", f"/connectors/{sink}/offsets").body == {"offsets": []}
    worker("PUT", f"/connectors/{sink}/resume")
    eventually(lambda: len(worker.numbers(sink)) == 600)
    assert worker.numbers(sink) == [*range(300)] * 2


def test_offsets_that_make_no_sense_are_refused(worker: Worker, pair: tuple[str, str]) -> None:
    source, sink = pair
    worker("PUT", f"/connectors/{sink}/stop")
    path = f"/connectors/{sink}/offsets"
    for body, text in (
        ({}, "Partitions / offsets need to be provided for an alter offsets request"),
        ({"offsets": []}, "Partitions / offsets need to be provided"),
        ({"offsets": [{"offset": None}]}, "cannot be null or missing"),
        ({"offsets": [{"partition": {"kafka_topic": source}}]}, "'kafka_partition'"),
        (offset("nobody", None), "There is no journal nobody"),
        (offset(source, {"offset": 1}), "'kafka_offset'"),
        (offset(source, {"kafka_offset": "x"}), "Must be an integer"),
        (offset(source, {"kafka_offset": 301}), "holds offsets 0 to 299: 301 is not there"),
    ):
        refused(worker("PATCH", path, body), 400, text)
    assert worker("PATCH", path, offset(source, {"kafka_offset": "300"})).status == 200


def test_a_sources_position_cannot_be_set_from_outside(
    worker: Worker, pair: tuple[str, str]
) -> None:
    source, _ = pair
    worker("PUT", f"/connectors/{source}/stop")
    body = {"offsets": [{"partition": {"server": source}, "offset": {"next": 1}}]}
    text = f"Failed to modify offsets for connector {source} because it doesn't support external"
    refused(worker("PATCH", f"/connectors/{source}/offsets", body), 500, text)
    refused(worker("DELETE", f"/connectors/{source}/offsets"), 500, text)


# --- metrics

# docs/connect/monitoring: by type, without versions of plug-ins and without rebalance, client,
# transform and predicate metrics, of which the README says that they are not there.
OF_CONNECT = {
    "connector": "status connector-type connector-class",
    "connector-task": "status running-ratio pause-ratio offset-commit-max-time-ms"
    " offset-commit-avg-time-ms batch-size-max batch-size-avg"
    " offset-commit-failure-percentage offset-commit-success-percentage",
    "source-task": "source-record-poll-total source-record-poll-rate source-record-write-total"
    " source-record-write-rate poll-batch-max-time-ms poll-batch-avg-time-ms"
    " source-record-active-count source-record-active-count-max source-record-active-count-avg"
    " transaction-size-min transaction-size-max transaction-size-avg",
    "sink-task": "sink-record-read-total sink-record-read-rate sink-record-send-total"
    " sink-record-send-rate sink-record-lag-max partition-count offset-commit-seq-no"
    " offset-commit-completion-total offset-commit-completion-rate offset-commit-skip-total"
    " offset-commit-skip-rate put-batch-max-time-ms put-batch-avg-time-ms"
    " sink-record-active-count sink-record-active-count-max sink-record-active-count-avg",
    "task-error": "total-record-failures total-record-errors total-records-skipped total-retries"
    " total-errors-logged deadletterqueue-produce-requests deadletterqueue-produce-failures"
    " last-error-timestamp",
    "connect-worker": "connector-count task-count connector-startup-attempts-total"
    " connector-startup-success-total connector-startup-success-percentage"
    " connector-startup-failure-total connector-startup-failure-percentage"
    " task-startup-attempts-total task-startup-success-total task-startup-success-percentage"
    " task-startup-failure-total task-startup-failure-percentage connector-total-task-count"
    " connector-running-task-count connector-paused-task-count connector-failed-task-count"
    " connector-unassigned-task-count connector-destroyed-task-count"
    " connector-restarting-task-count",
}


def test_metrics_have_connects_names_and_say_what_was_done(
    worker: Worker, pair: tuple[str, str]
) -> None:
    source, sink = pair

    def complete() -> str | None:
        answer = worker("GET", "/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        ends = (
            f'cdc_sink_lag_records{{connector="{sink}",task="0"}} 0',
            f'sink_record_send_total{{connector="{sink}",task="0"}} 300',
            f'source_record_write_total{{connector="{source}",task="0"}} 300',
            f'source_record_active_count{{connector="{source}",task="0"}} 0',
        )
        return answer.text if all(f"{end}\n" in answer.text for end in ends) else None

    text = eventually(complete)
    for name in ("cdc_snapshot_rows", "cdc_journal_bytes", "cdc_task_restarts_total"):
        assert f'{name}{{connector="{source}"' in text, name
    for kind, names in OF_CONNECT.items():
        owners = {"source-task": [source], "sink-task": [sink]}.get(kind, [source, sink])
        for name in names.split():
            sample = f"kafka_connect_{kind}_metrics_{name}".replace("-", "_")
            if kind == "connect-worker" and not name.endswith("-task-count"):
                assert f"\n{sample} " in text, sample
                continue
            for owner in owners:
                assert f'\n{sample}{{connector="{owner}"' in text, (sample, owner)
    of = {}
    for line in text.splitlines():
        assert line.startswith("# ") or len(line.rsplit(" ", 1)) == 2
        for owner in pair:
            if f'connector="{owner}",task=' in line:
                name = line.partition("{")[0].partition("_task_metrics_")[2]
                of[owner, name] = float(line.split()[-1])
    # 100 rows of a snapshot by fifties, and 200 by tens
    assert (of[source, "transaction_size_min"], of[source, "transaction_size_max"]) == (10, 50)
    assert of[source, "transaction_size_avg"] == pytest.approx(300 / 22)
    assert 50 <= of[source, "source_record_active_count_max"] <= 300
    assert 0 < of[source, "source_record_active_count_avg"] < 300
    assert 0 < of[sink, "sink_record_active_count_avg"] < of[sink, "sink_record_active_count_max"]
    assert 0 < of[sink, "batch_size_avg"] <= of[sink, "batch_size_max"] <= 100
    assert of[sink, "offset_commit_skip_total"] == of[sink, "offset_commit_skip_rate"] == 0
    assert of[sink, "offset_commit_success_percentage"] == 1


def test_secrets_stay_out_of_the_log(worker: Worker, tmp_path: Path) -> None:
    config = worker.counter("quiet") | {"database.password": "hush-hush", "rows": "none"}
    refused(worker("PUT", "/connectors/quiet/config", config), 400, "rows")
    assert "hush-hush" not in worker.log.read_text()
