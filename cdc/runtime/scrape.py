"""What ``/metrics`` says: the tasks' own values, and the worker's counts and states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from cdc import metrics as names
from cdc.metrics import Exposition
from cdc.runtime.connector import Connector
from cdc.runtime.worker import Worker

STATUSES = {
    "RUNNING": names.CONNECTOR_RUNNING_TASK_COUNT,
    "PAUSED": names.CONNECTOR_PAUSED_TASK_COUNT,
    "FAILED": names.CONNECTOR_FAILED_TASK_COUNT,
    "UNASSIGNED": names.CONNECTOR_UNASSIGNED_TASK_COUNT,
    "DESTROYED": names.CONNECTOR_DESTROYED_TASK_COUNT,
    "RESTARTING": names.CONNECTOR_RESTARTING_TASK_COUNT,
}


def text(worker: Worker) -> str:
    """One scrape."""
    out = Exposition()
    with worker.lock:
        connectors = list(worker.supervisor.connectors.values())
        out.add(names.CONNECTOR_COUNT, len(connectors))
        out.add(names.TASK_COUNT, sum(len(c.tasks) for c in connectors))
        out.add_all(worker.connector_startups.metrics(names.CONNECTOR_STARTUP))
        out.add_all(worker.task_startups.metrics(names.TASK_STARTUP))
        for connector in connectors:
            _add_connector(out, connector, worker.orphans.values.get(connector.name, {}))
    for connector in connectors:
        if connector.kind == "source":
            size = folder_bytes(worker.data.journal(connector.name))
            out.add(names.JOURNAL_BYTES, size, {"connector": connector.name})
    for saved in worker.store.deleted():
        out.add(names.SLOT_ORPHANED, 1, {"connector": saved.name})
    return out.text()


def of(worker: Worker, name: str) -> dict[str, float]:
    """One connector's values: its task's, and the size of a source's journal."""
    with worker.lock:
        connector = worker.connector(name)
        values = dict(connector.task.metrics)
        if connector.task.process is not None:
            values[names.TASK_PID] = connector.task.process.pid
        else:
            values |= worker.orphans.values.get(name, {})
    if connector.kind == "source":
        values[names.JOURNAL_BYTES] = folder_bytes(worker.data.journal(name))
    return values


def _add_connector(out: Exposition, connector: Connector, idle: Mapping[str, float]) -> None:
    """``idle``: its slot's values, while it has no process to tell them."""
    own = {"connector": connector.name}
    state = {**own, "status": connector.state.lower()}
    out.add(names.CONNECTOR_STATUS, 1, state)
    kind = {**own, "connector_type": connector.kind}
    out.add(names.CONNECTOR_TYPE, 1, kind)
    out.add(names.CONNECTOR_CLASS, 1, {**own, "connector_class": connector.connector_class})
    out.add(names.CONNECTOR_TOTAL_TASK_COUNT, len(connector.tasks), own)
    counts = Counter(task.state for task in connector.tasks)
    for name, metric in STATUSES.items():
        out.add(metric, counts[name], own)
    for task in connector.tasks:
        labels = {**own, "task": str(task.number)}
        out.add(names.TASK_STATUS, 1, {**labels, "status": task.state.lower()})
        out.add_all(task.ratios(), labels)
        out.add(names.TASK_RESTARTS_TOTAL, task.restarts.total, labels)
        if task.process is not None:
            out.add(names.TASK_PID, task.process.pid, labels)
        else:
            out.add_all(idle, labels)
        out.add_all(task.metrics, labels)


def folder_bytes(path: Path) -> int:
    """Sizes of the files in a folder; files that go meanwhile count nothing."""
    total = 0
    for file in path.glob("*"):
        try:
            total += file.stat().st_size
        except FileNotFoundError:
            continue
    return total
