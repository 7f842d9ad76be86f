"""``cdc journal export``: a stretch of a journal as JSON lines or Parquet."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cdc.cli.journals import Warnings
from cdc.errors import ConfigError
from cdc.history.export import FORMATS, export
from cdc.history.tail import table_pattern, unknown_tables
from cdc.log import JournalReader
from cdc.log.places import Places, parse_place


def configure(action: argparse.ArgumentParser) -> None:
    """Arguments, beside the source's name."""
    place = "OFFSET|LSN|TIME|beginning"
    action.add_argument("--from", metavar=place, dest="start", help="default: the beginning")
    action.add_argument(
        "--to", metavar="OFFSET|LSN|TIME", dest="end",
        help="with the transaction of an LSN, before an offset or a time; default: all",
    )  # fmt: skip
    action.add_argument("--tables", metavar="REGEX", help="whole names, schema.table")
    action.add_argument(
        "--output", metavar="FILE", required=True, type=Path, help="- is the standard output"
    )
    action.add_argument("--format", choices=FORMATS, help="default: by the file's name, else jsonl")


def run(args: argparse.Namespace, journal: Path) -> int:
    """Write it."""
    piped = str(args.output) == "-"
    suffix = args.output.suffix.lstrip(".")
    format_ = args.format or (suffix if suffix in FORMATS else FORMATS[0])
    tables = table_pattern(args.tables)
    lost = Warnings()
    with JournalReader(journal) as reader:
        if problem := unknown_tables(reader, tables):
            raise problem
        places = Places(reader)
        first, end = places.oldest, places.after
        if args.start is not None:
            first = places.start(parse_place(args.start, "--from"))
        if args.end is not None:
            end = places.end(parse_place(args.end, "--to"))
        if end < first:
            raise ConfigError(f"offset {end} is before offset {first}", key="--to")
        target = sys.stdout.buffer if piped else args.output
        count = export(
            reader, target, first=first, end=end, format_=format_, tables=tables, dropped=lost
        )
    if not piped:
        print(f"{count} events written to {args.output}")
    return lost.exit_code
