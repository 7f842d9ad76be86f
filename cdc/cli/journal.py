"""``cdc journal``: verify, describe, prune, back up or export what a source has stored."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from cdc.cli import journal_export
from cdc.cli.common import add_data_dir, data_dir
from cdc.errors import ConfigError, LogLocked
from cdc.runtime.offsets import Offsets
from cdc.runtime.state import DataDir

if TYPE_CHECKING:
    from cdc.log.verify import JournalReport

EXAMPLES = """\
examples:
  cdc journal info                          every journal of the data folder
  cdc journal verify shop                   read every byte; exit code 1 for damage
  cdc journal verify /backup/shop           a backup, by its folder
  cdc journal prune shop --before 1200000   unlink segments wholly below an offset
  cdc journal backup shop /backup/shop      a copy beside the running writer; again: only news
  cdc journal export shop --from 2026-03-01T00:00:00Z --output march.jsonl
  cdc journal export shop --tables 'public\\.orders' --output orders.parquet
"""
POSITION_MAX = 160  # characters shown of a source's position: a snapshot's names every table


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add_data_dir(parser)
    parser.epilog = EXAMPLES
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, line in (
        ("info", "segments, sizes, offsets and positions"),
        ("verify", "read everything and check it"),
        ("prune", "unlink old segments"),
        ("backup", "copy a journal"),
        ("export", "write events to a file, as JSON lines or Parquet"),
    ):
        action = actions.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        add_data_dir(action, nested=True)
        optional = name in ("info", "verify")
        action.add_argument(
            "source", metavar="SOURCE", nargs="?" if optional else None,
            help="the connector's name, or a journal's own folder" + optional * "; else all",
        )  # fmt: skip
        if optional:
            action.add_argument("--json", action="store_true", help="the whole report")
        if name == "prune":
            action.add_argument(
                "--before", type=int, required=True, metavar="OFFSET",
                help="cdc journal info says the offsets of each segment",
            )  # fmt: skip
            action.add_argument("--force", action="store_true", help="even if a sink needs them")
        if name == "backup":
            action.add_argument("target", metavar="FOLDER", type=Path, help="new, or its backup")
        if name == "export":
            journal_export.configure(action)


def run(args: argparse.Namespace) -> int:
    """One action."""
    return ACTIONS[args.action](args, data_dir(args))


def _report(args: argparse.Namespace, data: DataDir) -> int:
    from cdc.log import verify

    names = [args.source] if args.source else data.journals()
    if not names:
        raise ConfigError(
            f"{data.path} holds no journal",
            remedy="Name the data folder with --data-dir, or a journal's own folder (a backup, "
            "say) as SOURCE",
        )
    sound = True
    for name in names:
        look = verify.verify if args.action == "verify" else verify.info
        report = look(_journal(data, name))
        sound = sound and report.ok
        if args.json:
            print(json.dumps(asdict(report) | {"source": name, "ok": report.ok}, default=str))
        else:
            _show(name, report)
            if args.action == "verify" and report.ok:
                print("  every byte was read: no damage")
    return 0 if sound else 1


def _show(name: str, report: JournalReport) -> None:
    held = _offsets(report.oldest_offset, report.next_offset)
    print(f"{name}: {held}, {len(report.segments)} segments, {report.nbytes / 1e6:.1f} MB")
    if report.identity is not None:
        print(f"  identity {report.identity}")
    for lane, position in report.positions.items():
        text = json.dumps(position)
        more = text[POSITION_MAX:] and " … (--json: all of it)"
        print(f"  {lane} position {text[:POSITION_MAX]}{more}")
    for start, end in report.gaps:
        print(f"  dropped for want of space: {_offsets(start, end)}")
    for segment in report.segments:
        first = segment.first_offset
        rows = f"{segment.rows} rows" if first is None else _offsets(first, first + segment.rows)
        print(f"  {segment.name}  {rows}, {segment.nbytes / 1e6:.1f} MB")
        for problem in segment.problems:
            print(f"    damaged: {problem}")
    for problem in report.problems:
        print(f"  damaged: {problem}")


def _offsets(first: int, after: int) -> str:
    """As everywhere where people read them: the last one is in."""
    return f"offsets {first} to {after - 1}" if after > first else f"nothing, next offset {after}"


def _prune(args: argparse.Namespace, data: DataDir) -> int:
    from cdc.log import verify

    path = _journal(data, args.source)
    needed = _needed(data, args.source)
    late = {sink: at for sink, at in needed.items() if at < args.before}
    if late and not args.force:
        shown = ", ".join(f"{sink} at {at}" for sink, at in late.items())
        raise ConfigError(
            f"sinks still need offsets below {args.before}: {shown}",
            key="--before",
            remedy="Give a lower offset, or --force: they will then have to be moved by hand.",
        )
    try:
        removed = verify.prune(path, args.before)
    except LogLocked as error:
        raise LogLocked(
            error.problem, remedy=f"Stop it first: PUT /connectors/{args.source}/stop"
        ) from error
    for name in removed:
        print(name)
    print(f"{len(removed)} segments removed")
    return 0


def _needed(data: DataDir, source: str) -> dict[str, int]:
    """The positions that sinks have in a journal."""
    found: dict[str, int] = {}
    for path in sorted((data.path / "sinks").glob("*.db")):
        offsets = Offsets(path)
        try:
            stored = offsets.load().get(source)
        finally:
            offsets.close()
        if stored is not None:
            found[unquote(path.stem)] = stored.offset or 0
    return found


def _backup(args: argparse.Namespace, data: DataDir) -> int:
    from cdc.log.backup import backup

    report = backup(_journal(data, args.source), args.target)
    print(
        f"{len(report.copied)} segments copied, {report.nbytes / 1e6:.1f} MB,"
        f" {len(report.skipped)} were there already"
    )
    return 0


def _journal(data: DataDir, source: str) -> Path:
    path = data.journal(source)
    if not path.is_dir() and any(Path(source).glob("*.seg")):
        return Path(source)  # a journal's own folder: a backup
    if not path.is_dir():
        known = ", ".join(data.journals()) or "none"
        raise ConfigError(f"{data.path} has no journal of {source}", remedy=f"There are: {known}.")
    return path


ACTIONS: dict[str, Callable[[argparse.Namespace, DataDir], int]] = {
    "info": _report,
    "verify": _report,
    "prune": _prune,
    "backup": _backup,
    "export": lambda args, data: journal_export.run(args, _journal(data, args.source)),
}
