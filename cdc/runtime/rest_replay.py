"""Replays through a running worker: ``POST /connectors/{connector}/replay``.

The body has the names of ``cdc replay``'s options: ``{"from": "0/16B3740", "to": …,
"tables": …, "dry-run": true, "into": …, "source": …}``. Answers: 202 for a replay in place,
which goes on from there; 200 for a dry run, and for a second target once it is filled.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import orjson

from cdc.errors import CdcError
from cdc.runtime import into, replay
from cdc.runtime.connector import Refused
from cdc.runtime.replay import Plan, Sink
from cdc.runtime.worker import Worker


def answer(worker: Worker, name: str, body: Any) -> tuple[dict[str, Any], int]:
    """Body and status of the answer; raises Refused."""
    sink = worker.sink(name)
    try:
        request = replay.read_request(body)
        plan = replay.make_plan(worker.data, sink, request)
        if request.dry_run:
            return replay.count(worker.data, sink, plan), 200
        if request.into:
            return _into(worker, sink, plan), 200
    except CdcError as error:
        raise Refused(400, str(error)) from error
    worker.replay(plan)
    return plan.to_dict(), 202


def _into(worker: Worker, sink: Sink, plan: Plan) -> dict[str, Any]:
    """Run it in a process of its own; this thread waits for it."""
    job = replay.job(sink, plan, worker.data)
    command = [sys.executable, "-m", "cdc.runtime.into", str(os.getpid())]
    with worker.holding(plan.journal, plan.start):
        helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        worker.helpers.append(helper)
        try:
            text, _ = helper.communicate(into.encode(job))
        finally:
            worker.helpers.remove(helper)
    if not text:
        raise Refused(
            500,
            f"The replay into {job.name} was ended by exit code {helper.returncode}; the same"
            " request goes on from there",
        )
    result: dict[str, Any] = orjson.loads(text)
    if "error" in result:
        raise Refused(400 if result["config"] else 500, result["error"])
    return result
