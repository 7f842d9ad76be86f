"""``cdc dlq``: the dead letters of a sink: list, show, put again, drop."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from cdc.cli.common import add_data_dir, data_dir, request
from cdc.errors import ConfigError
from cdc.runtime import dlq
from cdc.runtime.deadletters import Letter
from cdc.runtime.state import DataDir, Store

EXAMPLES = """\
examples:
  cdc dlq copy list                    which records could not be delivered, and why
  cdc dlq copy list --json             the same, one object per line
  cdc dlq copy show 3                  one with its key, value, headers and stack trace
  cdc dlq copy replay                  put all again, through the sink's transforms of now
  cdc dlq copy replay 3 4              only these
  cdc dlq copy replay 3 --stale        even where its row has a newer state in the journal
  cdc dlq copy drop 3                  remove it for good; drop --all removes every one

A sink keeps dead letters where errors.deadletterqueue.topic.name is set; with
errors.tolerance=all it goes on behind them. They lie in its own store, beside its position.

replay: once the transform or the target is mended. The sink's position stays where it is. A
letter goes when the target has it; one that fails again stays, with the new error. A letter
whose row has changed since is stale and stays too: putting it would undo the newer state.
A target that keeps the offset (sql, file) gets each letter once, whatever is killed when;
others may get one twice after a crash.

Without a worker, replay is noted, and done when the sink runs next.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add_data_dir(parser)
    parser.add_argument("connector", metavar="CONNECTOR", help="a sink")
    parser.add_argument("action", choices=("list", "show", "replay", "drop"), help="what to do")
    parser.add_argument("ids", metavar="ID", nargs="*", type=int, help="letters, as list has them")
    parser.add_argument("--all", action="store_true", help="drop: every letter")
    parser.add_argument("--stale", action="store_true", help="replay: over newer states too")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """List and show read the store; replay and drop go through the worker when one runs."""
    data = data_dir(args)
    stored = {saved.name: saved.config for saved in Store(data).load()}
    if args.connector not in stored and not data.sink(args.connector).exists():
        names = ", ".join(stored) or "none"
        raise ConfigError(f"there is no connector {args.connector}", remedy=f"There are: {names}")
    if args.action == "show" and not args.ids:
        raise ConfigError("it is not said which letter", remedy="cdc dlq CONNECTOR show ID")
    if args.action in {"list", "show"}:
        found = dlq.read(data, args.connector, args.ids or None)
        (_list if args.action == "list" else _show)(found, as_json=args.json)
        return 0
    if args.action == "drop" and bool(args.ids) == args.all:
        raise ConfigError("it is not said which letters", remedy="Name their ids, or --all")
    body = {"action": args.action, "ids": args.ids or None, "stale": args.stale}
    _tell(_change(data, args.connector, body, stored), as_json=args.json)
    return 0


def _change(
    data: DataDir, name: str, body: dict[str, Any], stored: dict[str, dict[str, str]]
) -> dict[str, Any]:
    url = data.running_worker()
    if url is not None:
        answer: dict[str, Any] = request(
            url, "POST", f"/connectors/{quote(name, safe='')}/dlq", body
        )
        return answer
    with data.lock():
        return dlq.change(data, name, body, stored.get(name, {})) | {"running": False}


def _list(found: Iterable[Letter], *, as_json: bool) -> None:
    if as_json:
        for letter in found:
            print(json.dumps(letter.summary()))
        return
    count = 0
    for letter in found:
        count += 1
        record = f"{letter.topic} offset {letter.at}{' (tombstone)' if letter.part else ''}"
        print(f"{letter.id}  {_time(letter.last_ms)}  {record}")
        error = f"{letter.error('exception.class.name')}: {letter.error('exception.message') or ''}"
        times = f", {letter.failures} times" if letter.failures > 1 else ""
        print(f"    {letter.error('stage')} {letter.error('class.name')}{times}")
        print(f"    {error}")
        note = "to be replayed" if letter.replay else letter.note
        if note:
            print(f"    {note}")
    print(_counted(count))


def _show(found: Iterable[Letter], *, as_json: bool) -> None:
    for letter in found:
        if as_json:
            print(json.dumps(letter.to_dict()))
            continue
        for name, value in letter.to_dict().items():
            if name in {"headers", "errors"}:
                continue
            print(f"{name:12} {'' if value is None else value}")
        print("headers")
        for name, text in letter.all_headers():
            if not name.startswith("__connect.errors."):
                print(f"  {name}: {text}")
        for name, text in letter.errors:
            print(f"  {name}: {'' if text is None else text}")


def _tell(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
    elif found["action"] == "drop":
        print(f"{_counted(found['letters'])} of {found['connector']} dropped")
    else:
        when = "now" if found["running"] else "when the sink runs next"
        verb = "is" if found["letters"] == 1 else "are"
        print(f"{_counted(found['letters'])} of {found['connector']} {verb} replayed {when}")


def _counted(letters: int) -> str:
    return f"{letters} dead letter{'' if letters == 1 else 's'}"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
