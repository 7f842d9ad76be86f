"""``cdc status``: connectors and tasks, from the running worker or from what it left."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from cdc import metrics as names
from cdc.cli.common import add_data_dir, data_dir, request, worker_texts
from cdc.errors import CdcError, ConfigError
from cdc.runtime import orphans, plugins
from cdc.runtime.state import DataDir, Store

EXAMPLES = """\
examples:
  cdc status
  cdc status --data-dir /var/lib/cdc --json

How far each source is behind, what its slot makes the server keep and with which wal_status,
how much more it may, and the oldest transaction there: of sources that are stopped, too, and
without a worker (with --config where their configurations have placeholders); the journal's size
and how far each sink is behind. Warnings name their remedy. Slots that deleted connectors have
left are named for as long as they live at their server.

Exit code: 0 when all is well, 1 when a connector or a task has failed.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add_data_dir(parser)
    parser.add_argument("--json", action="store_true", help="Connect's bodies, as one object")
    parser.add_argument("--config", metavar="FILE", help="the worker's file, for its providers")
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """Show it."""
    data = data_dir(args)
    if not data.path.is_dir():
        raise ConfigError(
            f"{data.path} does not exist",
            key="--data-dir",
            remedy="Name the folder that the worker was started with.",
        )
    store, texts = Store(data), worker_texts(args.config)
    url = data.running_worker()
    entries = _of_worker(url, data) if url is not None else _of_files(data, store, texts)
    left = {name: text for name, text in orphans.look(store, texts).items() if text is not None}
    found = [entry["status"] for entry in entries]
    if args.json:
        whole = {
            "worker": url,
            "connectors": found,
            "metrics": {e["status"]["name"]: e["metrics"] for e in entries},
            "pids": {
                e["status"]["name"]: int(e["metrics"][names.TASK_PID])
                for e in entries
                if names.TASK_PID in e["metrics"]
            },
            "warnings": {e["status"]["name"]: e["warnings"] for e in entries if e["warnings"]},
            "left_behind": sorted(left),
        }
        print(json.dumps(whole, indent=2))
    else:
        _show(url, entries, left)
    return int(any(_failed(status) for status in found))


def _of_worker(url: str, data: DataDir) -> list[dict[str, Any]]:
    answer = request(url, "GET", "/connectors?expand=status&expand=info&expand=metrics")
    out = []
    for _, entry in sorted(answer.items()):
        values, status = entry.get("metrics", {}), entry["status"]
        said = _warnings(entry["info"]["config"].get("connector.class", ""), values)
        if status["type"] == "sink" and names.TASK_PID not in values:
            # Without a process nobody measures, and this is the sink that a journal waits for.
            values, said = _completed(values, said, data, status)
        said = [*said, *_lost(data, status)]
        out.append({"status": status, "metrics": values, "warnings": said})
    return out


def _of_files(data: DataDir, store: Store, worker: Mapping[str, str]) -> list[dict[str, Any]]:
    """The last states seen, what the folder holds, and of the slots what their servers say now."""
    out = []
    for saved in store.load():
        status = store.status(saved.name)
        if status is None:
            continue
        try:
            values, said = orphans.idle(saved, worker)
        except CdcError as error:
            values, said = {}, [f"its slot cannot be looked at: {error}"]
        values, said = _completed(values, said, data, status)
        said = [*said, *_lost(data, status)]
        out.append({"status": status, "metrics": values, "warnings": said})
    return out


def _lost(data: DataDir, status: dict[str, Any]) -> list[str]:
    """What ``journal.full.policy=drop`` has cost, for as long as the journal has the place."""
    from cdc.log.reader import JournalReader

    path = data.journal(status["name"])
    if status["type"] != "source" or not path.is_dir():
        return []
    try:
        with JournalReader(path) as reader:
            gaps = reader.gaps()
    except CdcError:
        return []  # said where its size is asked for, or by its task
    if not gaps:
        return []
    rows, first, end = sum(end - start for start, end in gaps), gaps[0][0], gaps[-1][1]
    text = (
        f"its journal dropped {rows} rows (offsets from {first} to {end - 1}) for want of space, as"
        " journal.full.policy=drop says: sinks that had not read them lack them. Give it a larger"
        " journal.budget.bytes, and a copy a new snapshot (stop the source, delete its offsets,"
        " resume it)"
    )
    return [text]


def _completed(
    values: dict[str, float], said: list[str], data: DataDir, status: dict[str, Any]
) -> tuple[dict[str, float], list[str]]:
    """With what the folder says; a journal that cannot be read is one more warning."""
    try:
        return values | _stored(data, status["name"], status["type"]), said
    except CdcError as error:
        return values, [*said, str(error)]


def _stored(data: DataDir, name: str, kind: str) -> dict[str, float]:
    """The size of a source's journal; how far a sink is behind in those it has begun to read."""
    from cdc.log.identity import identity_of
    from cdc.log.reader import JournalReader
    from cdc.runtime.offsets import Offsets
    from cdc.runtime.scrape import folder_bytes

    if kind == "source":
        return {names.JOURNAL_BYTES: folder_bytes(data.journal(name))}
    if not data.sink(name).exists():
        return {}
    offsets = Offsets(data.sink(name))
    try:
        found = offsets.load()
    finally:
        offsets.close()
    lags = []
    for journal, at in found.items():
        path = data.journal(journal)
        if not path.is_dir() or at.identity not in (None, identity_of(path)):
            continue  # removed or replaced: the sink's next start says so
        with JournalReader(path) as reader:
            oldest, end = reader.bounds()
        lags.append(max(0, end - (oldest if at.offset is None else at.offset)))
    return {names.SINK_LAG_RECORDS: sum(lags)} if lags else {}


def _warnings(connector_class: str, values: dict[str, float]) -> list[str]:
    """What a source's package makes of its metrics."""
    try:
        plugin = plugins.find(connector_class)
    except ConfigError:
        return []
    admin = plugin.admin() if plugin.kind == "source" else None
    running = names.TASK_PID in values
    return list(admin.warnings(values, running=running)) if admin is not None else []


def _failed(status: dict[str, Any]) -> bool:
    parts = (status["connector"], *status["tasks"])
    return any(part["state"] == "FAILED" for part in parts)


def _show(url: str | None, entries: list[dict[str, Any]], left: dict[str, str]) -> None:
    print(f"worker {url}" if url else "no worker runs here; the last states seen:")
    for entry in sorted(entries, key=lambda entry: str(entry["status"]["name"])):
        status = entry["status"]
        tasks = ", ".join(f"task {t['id']} {t['state']}" for t in status["tasks"]) or "no task"
        print(f"  {status['name']} ({status['type']})  {status['connector']['state']}  {tasks}")
        measured = _measured(status["type"], entry["metrics"])
        if measured:
            print(f"    {measured}")
        for part in (status["connector"], *status["tasks"]):
            if part.get("trace"):
                print(f"    {part['trace'].strip().splitlines()[-1]}")
        for text in entry["warnings"]:
            print(f"    warning: {text}")
    for name, text in sorted(left.items()):
        print(f"  warning: {name} {orphans.verb(name)}, {text}: cdc drop {name}")


def _measured(kind: str, values: dict[str, float]) -> str:
    """One line of what matters."""
    if kind == "sink":
        lag = values.get(names.SINK_LAG_RECORDS)
        waiting = int(values.get(names.SINK_DEAD_LETTERS, 0))
        skipped = int(values.get(names.TOTAL_RECORDS_SKIPPED, 0))
        said = [] if lag is None else [f"{int(lag)} records behind"]
        said += [f"{skipped} records skipped"] if skipped else []
        return ", ".join([*said, f"{waiting} dead letters"] if waiting else said)
    parts = []
    if names.SOURCE_LAG_BYTES in values:
        parts.append(f"{_size(values[names.SOURCE_LAG_BYTES])} behind")
    if names.SLOT_RETAINED_BYTES in values:
        status = values.get(names.SLOT_WAL_STATUS)
        shown = f" ({names.WAL_STATUS[int(status)]})" if status is not None else ""
        parts.append(f"the server keeps {_size(values[names.SLOT_RETAINED_BYTES])} of WAL{shown}")
    if names.SLOT_SAFE_WAL_BYTES in values:
        safe = max(0.0, values[names.SLOT_SAFE_WAL_BYTES])
        parts.append(f"{_size(safe)} more before the slot is lost")
    if values.get(names.SOURCE_OLDEST_TRANSACTION, 0) >= 1:
        age = timedelta(seconds=int(values[names.SOURCE_OLDEST_TRANSACTION]))
        parts.append(f"oldest transaction {age}")
    if values.get(names.JOURNAL_BYTES):
        parts.append(f"journal {_size(values[names.JOURNAL_BYTES])}")
    return ", ".join(parts)


def _size(nbytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if nbytes < 1024 or unit == "GB":
            return f"{nbytes:.0f} {unit}" if unit == "bytes" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    raise AssertionError
