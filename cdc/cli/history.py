"""``cdc history``: every version of a row that the journal holds, or the row as it was."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from cdc.cli.common import add_data_dir
from cdc.cli.journals import Warnings, add_source, journal_path
from cdc.errors import ConfigError
from cdc.history import Version, history, known_since, version_at
from cdc.history.render import printable, value_text
from cdc.history.tail import OPERATIONS
from cdc.log.places import parse_place, time_text
from cdc.lsn import lsn_text
from cdc.record import UNCHANGED

EXAMPLES = """\
examples:
  cdc history orders 42                        every version: offset, LSN, time, transaction, who, …
  cdc history public.lines 'order=42,line=3'   a key of several columns
  cdc history public.lines '{"order":42,"line":3}' --diff
  cdc history orders 42 --columns status,total only what changed these
  cdc history orders 42 --at 2026-03-01T12:00:00Z       the row as it was; UTC without a zone
  cdc history orders 42 --at 0/16B3748         … once all transactions up to that LSN were in
  cdc history orders 42 --follow --json        under earlier and later keys too, as JSON lines

Values the server did not send with a change (TOAST) are filled in from earlier versions. What
retention has taken is said on standard error. Works beside a running worker and without one.

Exit code: 0; 1 when there is no such row, or a part of the journal cannot be read; 2 for a
table, column, key or place that is not there.
"""
RED, GREEN, BOLD, DIM, PLAIN = "31", "32", "1", "2", ""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add_data_dir(parser)
    add_source(parser)
    parser.add_argument("table", metavar="TABLE", help="schema.table, or table alone")
    parser.add_argument("key", metavar="KEY", help="42, id=42,line=3 or JSON")
    parser.add_argument("--at", metavar="OFFSET|LSN|TIME", help="the row as it was then")
    parser.add_argument("--columns", metavar="A,B", help="these columns only")
    parser.add_argument("--diff", action="store_true", help="each column before → after")
    parser.add_argument("--follow", action="store_true", help="through changes of the key")
    parser.add_argument("--json", action="store_true", help="one object per version")
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """Show it."""
    path = journal_path(args)
    columns = [name.strip() for name in args.columns.split(",")] if args.columns else None
    lost = Warnings()
    if args.at is not None:
        if args.diff or args.follow:
            raise ConfigError("--at shows one row: it goes with neither --diff nor --follow")
        place = parse_place(args.at, "--at")
        version = version_at(path, args.table, args.key, at=place, columns=columns, lost=lost)
        return _show_one(version, args) or lost.exit_code
    versions = history(path, args.table, args.key, columns=columns, follow=args.follow, lost=lost)
    since = known_since(path)
    if since is not None:
        print(f"note: {since}: versions from then are not there", file=sys.stderr)
    if not versions:
        print(f"the journal has no version of {args.table} {args.key}", file=sys.stderr)
        return 1
    show = _Show(colour=_coloured())
    for version in versions:
        if args.json:
            print(json.dumps(version.to_dict(), ensure_ascii=False))
        else:
            show.version(version, diff=args.diff)
    return lost.exit_code


def _show_one(version: Version | None, args: argparse.Namespace) -> int:
    if version is None or version.row is None:
        gone = "there was none yet" if version is None else OPERATIONS[version.op]
        print(f"no row {args.table} {args.key} at {args.at}: {gone}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(version.to_dict(), ensure_ascii=False))
        return 0
    show = _Show(colour=_coloured())
    show.head(version, "as of")
    for name, value in version.row.items():
        show.line(PLAIN, f"  {printable(name)}: {value_text(value)}")
    return 0


def _coloured() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


class _Show:
    """Versions as text."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def line(self, colour: str, text: str) -> None:
        """One line."""
        print(self._paint(colour, text))

    def _paint(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour and colour else text

    def head(self, version: Version, what: str) -> None:
        """Where and when."""
        transaction = "" if version.xid is None else f"  tx {version.xid}"
        place = f"{version.offset}  {lsn_text(version.lsn)}  {time_text(version.time)}{transaction}"
        key = printable(json.dumps(version.key, ensure_ascii=False))
        said = [printable(text) for text in (version.who, version.why) if text is not None]
        by = f"  by {', '.join(said)}" if said else ""
        print(f"{self._paint(DIM, place)}  {self._paint(BOLD, what)}  {version.table} {key}{by}")

    def version(self, version: Version, *, diff: bool) -> None:
        """One version."""
        self.head(version, _operation(version))
        if diff:
            self._diff(version)
        elif version.op == "u":
            names = version.changed
            shown = "not known" if names is None else ", ".join(map(printable, names)) or "nothing"
            self.line(PLAIN, f"  changed: {shown}")

    def _diff(self, version: Version) -> None:
        before: dict[str, Any] = version.before or {}
        if version.row is None:
            for name, value in before.items():
                self.line(RED, f"  - {printable(name)}: {value_text(value)}")
            return
        names = version.row if version.changed is None else version.changed
        for name in names:
            label, after = printable(name), version.row[name]
            if name not in before or before[name] is UNCHANGED:
                self.line(GREEN, f"  + {label}: {value_text(after)}")
                continue
            old = self._paint(RED, value_text(before[name]))
            print(f"  {label}: {old} → {self._paint(GREEN, value_text(after))}")


def _operation(version: Version) -> str:
    name = "snapshot" if version.op == "r" else OPERATIONS[version.op]
    if version.moved is None:
        return name
    other = printable(json.dumps(version.moved, ensure_ascii=False))
    return f"key changed to {other}" if version.op == "d" else f"key changed from {other}"
