"""``cdc status``: connectors and tasks, from the running worker or from what it left."""

from __future__ import annotations

import argparse
import json
from typing import Any

from cdc.cli.common import add_data_dir, data_dir, request
from cdc.errors import ConfigError
from cdc.runtime.state import Store

EXAMPLES = """\
examples:
  cdc status
  cdc status --data-dir /var/lib/cdc --json

Exit code: 0 when all is well, 1 when a connector or a task has failed.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add_data_dir(parser)
    parser.add_argument("--json", action="store_true", help="Connect's bodies, as one object")
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
    store = Store(data)
    url = data.running_worker()
    if url is not None:
        answer = request(url, "GET", "/connectors?expand=status")
        found = [entry["status"] for entry in answer.values()]
    else:
        found = [status for saved in store.load() if (status := store.status(saved.name))]
    deleted = [saved.name for saved in store.deleted()]
    if args.json:
        print(json.dumps({"worker": url, "connectors": found, "left_behind": deleted}, indent=2))
    else:
        _show(url, found, deleted)
    return int(any(_failed(status) for status in found))


def _failed(status: dict[str, Any]) -> bool:
    parts = (status["connector"], *status["tasks"])
    return any(part["state"] == "FAILED" for part in parts)


def _show(url: str | None, found: list[dict[str, Any]], deleted: list[str]) -> None:
    print(f"worker {url}" if url else "no worker runs here; the last states seen:")
    for status in sorted(found, key=lambda status: str(status["name"])):
        tasks = ", ".join(f"task {t['id']} {t['state']}" for t in status["tasks"]) or "no task"
        print(f"  {status['name']} ({status['type']})  {status['connector']['state']}  {tasks}")
        for part in (status["connector"], *status["tasks"]):
            if part.get("trace"):
                print(f"    {part['trace'].strip().splitlines()[-1]}")
    for name in deleted:
        print(
            f"  warning: {name} was deleted, its slot may still make the server keep WAL:"
            f" cdc drop {name}"
        )
