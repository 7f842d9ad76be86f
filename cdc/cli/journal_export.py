"""``cdc journal export``: a stretch of a journal as JSON lines or Parquet."""

from __future__ import annotations

import argparse
from pathlib import Path

from cdc.cli.journals import Warnings
from cdc.errors import ConfigError
from cdc.history.export import FORMATS, export
from cdc.history.points import offset_of, parse_point
from cdc.history.tail import table_pattern, unknown_tables
from cdc.log import JournalReader


def configure(action: argparse.ArgumentParser) -> None:
    """Arguments, beside the source's name."""
    place = "OFFSET|LSN|TIME"
    action.add_argument("--from", metavar=place, dest="start", help="default: the beginning")
    action.add_argument(
        "--to", metavar=place, dest="end", help="up to, not including; default: all"
    )
    action.add_argument("--tables", metavar="REGEX", help="whole names, schema.table")
    action.add_argument("--output", metavar="FILE", required=True, type=Path)
    action.add_argument("--format", choices=FORMATS, help="default: by the file's name, else jsonl")


def run(args: argparse.Namespace, journal: Path) -> int:
    """Write it."""
    suffix = args.output.suffix.lstrip(".")
    format_ = args.format or (suffix if suffix in FORMATS else FORMATS[0])
    tables = table_pattern(args.tables)
    lost = Warnings()
    with JournalReader(journal) as reader:
        if problem := unknown_tables(reader, tables):
            raise problem
        first, end = reader.bounds()
        if args.start not in (None, "beginning"):
            first = offset_of(reader, parse_point(args.start, "--from"))
        if args.end is not None:
            end = offset_of(reader, parse_point(args.end, "--to"))
        if end < first:
            raise ConfigError(f"offset {end} is before offset {first}", key="--to")
        count = export(
            reader, args.output, first=first, end=end, format_=format_, tables=tables, dropped=lost
        )
    print(f"{count} events written to {args.output}")
    return lost.exit_code
