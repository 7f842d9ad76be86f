"""``cdc tail``: the journal's events, filtered, as they come."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from types import FrameType

from cdc.cli.common import add_data_dir
from cdc.cli.journals import Warnings, add_source, journal_path
from cdc.errors import ConfigError
from cdc.history.tail import (
    FORMATS,
    Filter,
    blocks,
    renderer_of,
    table_pattern,
    unknown_columns,
    unknown_tables,
)
from cdc.log import JournalReader
from cdc.log.places import Places, parse_place

EXAMPLES = """\
examples:
  cdc tail                                     the last ten events
  cdc tail --follow --tables 'public\\.orders'  new ones as they come, until Ctrl-C
  cdc tail --from 2026-03-01T12:00:00Z --where "op == 'd'" --format value
  cdc tail --from beginning --where "table == 'public.orders' and after.total > 100"
  cdc tail --from 0/16B3748 --where "after.note is null or 'urgent' in after.note"

--where knows op (c u d r t m), table, key, before, after, lsn, tx, offset and time; == != <
<= > >=, and or not, in, is null. Without --from the last lines of the journal are looked at,
and filtered then. Works beside a running worker and without one.
"""
LINES = 10
FORMS = "OFFSET|LSN|TIME|beginning"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add_data_dir(parser)
    add_source(parser)
    parser.add_argument("--follow", "-f", action="store_true", help="wait for more")
    parser.add_argument("--tables", metavar="REGEX", help="whole names, schema.table")
    parser.add_argument("--where", metavar="EXPR", help="a condition over the event")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--from", metavar=FORMS, dest="start", help="where from")
    start.add_argument("--lines", "-n", type=int, default=LINES, metavar="N", help="last events")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="of the lines")
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """Print until the end, or until it is stopped."""
    tables = table_pattern(args.tables)
    wanted = Filter(tables, args.where)
    render = renderer_of(args.format)
    if args.lines < 0:
        raise ConfigError(f"{args.lines} is less than 0", key="--lines")
    place = None if args.start is None else parse_place(args.start, "--from")
    stop = threading.Event()
    lost = Warnings()
    with JournalReader(journal_path(args)) as reader:
        problem = unknown_tables(reader, tables)
        if problem is not None and not args.follow:
            raise problem
        for warning in unknown_columns(reader, tables, args.where):
            print(f"warning: {warning}", file=sys.stderr)
        oldest, after = reader.bounds()
        first = max(oldest, after - args.lines)
        if place is not None:
            first = Places(reader).start(place, follow=args.follow)
        if args.follow:
            _end_on_signals(stop)
            if problem is not None:  # it may come yet
                print(f"warning: {problem}", file=sys.stderr)
        for block in blocks(reader, first, follow=args.follow, dropped=lost, stop=stop):
            kept = wanted(block)
            if kept is not None:
                sys.stdout.buffer.writelines(render(kept))
                sys.stdout.buffer.flush()
            if stop.is_set():
                break
    return lost.exit_code


def _end_on_signals(stop: threading.Event) -> None:
    """The end of following is an orderly one."""

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's shape
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
