"""``cdc demo``: the main jobs on a real server, with a crash in the middle, and the proof."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final

from cdc.errors import ConfigError

SECONDS: Final = 8.0
SECONDS_MIN, SECONDS_MAX = 2.0, 25.0
EXIT_TERMINATED: Final = 143

EXAMPLES = """\
examples:
  cdc demo                                   an embedded PostgreSQL and a small shop in it
  cdc demo --keep /tmp/shop                  … and leave everything running to look at
  cdc demo --source postgresql://me@db/shop  a database of yours, reading only

It shows a snapshot, live changes, a kill -9 and the compared copy; then, from the journal: a
search, an order's history, a replay, and an audit whose forgery is found. With --source the
first four: what only a shop that we change ourselves can prove is left out.

What --source does to that database: it creates one publication and one replication slot,
both named cdc_demo_ and eight random digits, and drops both at the end; it reads the chosen
tables. Nothing else: no table is created, changed or locked, no row is written. Needed:
wal_level=logical, a role that may replicate, and the right to make a publication of its
tables. Tables without a primary key are left out, since publishing them would make the
application's own updates fail.

Exit code: 0 when source and copy are equal and all else held, else 1.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("--source", metavar="URL", help="capture this database, reading only")
    parser.add_argument(
        "--tables",
        metavar="REGEX",
        help="with --source: the tables to take, as schema.table (default: the smallest ones)",
    )
    parser.add_argument(
        "--keep", metavar="DIR", type=Path, help="keep everything in this new folder"
    )
    parser.add_argument(
        "--seconds",
        metavar="N",
        type=float,
        default=SECONDS,
        help=f"how long changes are watched ({SECONDS:g})",
    )
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """Tell it; the exit code."""
    if not SECONDS_MIN <= args.seconds <= SECONDS_MAX:
        raise ConfigError(f"choose {SECONDS_MIN:g} to {SECONDS_MAX:g}", key="--seconds")
    if args.tables and not args.source:
        raise ConfigError("goes with --source", key="--tables")
    if args.keep is not None and args.keep.exists() and any(args.keep.iterdir()):
        raise ConfigError(f"{args.keep} is not empty", key="--keep", remedy="Name a new folder.")
    # From here on a SIGTERM cleans up as Ctrl-C does.
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        if args.source:
            from cdc.demo.readonly import ReadOnlyDemo

            return ReadOnlyDemo(args.source, args.tables or "", args.seconds, args.keep).run()
        from cdc.demo.full import FullDemo

        return FullDemo(args.seconds, args.keep).run()
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's shape
    sys.exit(EXIT_TERMINATED)
