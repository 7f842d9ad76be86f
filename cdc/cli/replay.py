"""``cdc replay``: send a sink what the journal holds once more, or fill a second target."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any
from urllib.parse import quote

from cdc.cli.common import add_data_dir, data_dir, request
from cdc.errors import ConfigError
from cdc.runtime import into, replay
from cdc.runtime.config import worker_config
from cdc.runtime.offsets import Offsets
from cdc.runtime.replay import Plan, Sink
from cdc.runtime.state import DataDir, Store

EXAMPLES = """\
examples:
  cdc replay copy --from beginning --dry-run     what would be sent, per table
  cdc replay copy --from 2026-01-31T12:00:00Z    everything committed since then once more
  cdc replay copy --from 0/16B3740               from the transaction of an LSN on
  cdc replay copy --from beginning --into v2     a second target beside the first
  cdc replay copy --from 1200 --to 9000 --tables 'public\\.orders' --into orders_only

Where from: an offset of the journal, an LSN (with its timeline in front where the journal
holds several: 2:0/16B3740), a time (UTC where it names no zone), or beginning. It begins
with a whole transaction, and with the snapshot in front of it where that was taken later
than the place. What retention has taken is refused, with the oldest place there is.

In place, the sink is stopped, its position moved back, and it goes on: a paused or stopped
one when it is resumed. Without a worker the next one does it. What that does to a target is
in the README's table of sinks: a log gets the lines again, a copy ends in the same state.

--dry-run counts the rows that the sink's transforms leave, and apart the ones they fail on. The
tombstone that is written after a delete counts as a row of its own where a transform saw it.

--to and --tables need --into or --dry-run: a sink has one position, which a part of a replay
would leave wrong. --to with an LSN includes its transaction; an offset or a time is the first
that is left out.

--into NAME runs the connector's configuration once against another target: sql writes tables
with the suffix _NAME, file a file NAME beside the first; console has none. It waits until
all is sent; the first target and its position stay as they are. Cut off, the same command
goes on; another one under that name is refused.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add_data_dir(parser)
    parser.add_argument("connector", metavar="CONNECTOR", help="a sink")
    place = "OFFSET|LSN|TIME|beginning"
    parser.add_argument("--from", dest="start", metavar=place, required=True, help="where from")
    parser.add_argument("--to", metavar="OFFSET|LSN|TIME", help="where to (default: all there is)")
    parser.add_argument("--tables", metavar="REGEX", help="only these: schema.table, whole names")
    parser.add_argument(
        "--dry-run", action="store_true",
        help="count what would be sent, after the sink's transforms",
    )  # fmt: skip
    parser.add_argument("--into", metavar="NAME", help="a second target, beside the first")
    parser.add_argument("--source", metavar="NAME", help="which journal, if it reads several")
    parser.add_argument("--config", metavar="FILE", help="the worker's file, for its providers")
    parser.add_argument("--json", action="store_true", help="the result as one object")
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """Through the worker when one runs, else under its lock."""
    body = {
        "from": args.start,
        "to": args.to,
        "tables": args.tables,
        "dry-run": args.dry_run,
        "into": args.into,
        "source": args.source,
    }
    asked = replay.read_request(body)
    data = data_dir(args)
    stored = {saved.name: saved for saved in Store(data).load()}
    if args.connector not in stored:
        names = ", ".join(stored) or "none"
        raise ConfigError(f"there is no connector {args.connector}", remedy=f"There are: {names}")
    url = data.running_worker()
    if url is not None:
        path = f"/connectors/{quote(args.connector, safe='')}/replay"
        found = request(url, "POST", path, body, timeout_s=None)
    else:
        found = _alone(data, args, asked)
    if args.json:
        print(json.dumps(found))
    else:
        _show(found, asked, running=url is not None)
    return 0


def _alone(data: DataDir, args: argparse.Namespace, asked: replay.Request) -> dict[str, Any]:
    with data.lock():
        sink = _sink(data, args)
        plan = replay.make_plan(data, sink, asked)
        if asked.dry_run:
            return replay.count(data, sink, plan)
        if asked.into:
            return into.run(replay.job(sink, plan, data), lambda at: _report(plan, at))
        replay.intend(data, plan)
        replay.settle(data, sink.name)
        return plan.to_dict()


def _sink(data: DataDir, args: argparse.Namespace) -> Sink:
    from pathlib import Path

    from cdc.configfile import read_file

    (config,) = (saved.config for saved in Store(data).load() if saved.name == args.connector)
    texts = read_file(Path(args.config)).config if args.config else {}
    positions: dict[str, int] = {}
    if data.sink(args.connector).exists():
        offsets = Offsets(data.sink(args.connector))
        try:
            found = offsets.load()
        finally:
            offsets.close()
        positions = {name: at.offset for name, at in found.items() if at.offset is not None}
    worker = dict(worker_config(texts).raw)
    sink = Sink(args.connector, config, worker, data.journals(), positions)
    chosen = sink.configure()[1]["source"]
    journals = list(chosen) or sorted(positions) or data.journals()
    return Sink(sink.name, sink.config, worker, journals, positions)


def _report(plan: Plan, at: int) -> None:
    done = (at - plan.start) * 100 // max(plan.end - plan.start, 1)
    print(f"offset {at} of {plan.end} ({done} %)", file=sys.stderr)


def _show(found: dict[str, Any], asked: replay.Request, *, running: bool) -> None:
    span = f"offsets {found['from']} to {found['to'] - 1} of {found['source']}"
    if asked.dry_run:
        print(f"{found['connector']} would be sent {span}:")
        for name, table in found["tables"].items():
            print(
                f"  {name}  {table['rows']} rows, {table['transactions']} transactions,"
                f" {table['bytes']} bytes"
            )
        print(
            f"  in all  {found['rows']} rows, {found['transactions']} transactions,"
            f" {found['bytes']} bytes"
        )
        if found.get("failed"):
            print(f"  and {found['failed']} rows fail in its transforms", file=sys.stderr)
    elif asked.into:
        target = ", ".join(f"{key}={value}" for key, value in found["target"].items() if value)
        print(f"{found['into']} holds {span}, {found['rows']} rows: {target}")
    else:
        when = "now" if running else "when a worker runs"
        print(f"{found['connector']} is replayed {when}: {span}")
    for first, after in found.get("gaps", ()):
        print(f"  dropped for want of space: offsets {first} to {after - 1}", file=sys.stderr)
