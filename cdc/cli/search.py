"""``cdc search``: find rows by their words, in a search sink's index."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from cdc.errors import ConfigError
from sinks.search_index import search

EXAMPLES = """\
examples:
  cdc search shop.db smith
  cdc search shop.db 'smith OR jon*' --table customers --limit 20
  cdc search shop.db '"new york" NOT cheap' --json
  cdc search shop.db 'C++ (50%)' --literal       every word as it is, no operators

QUERY is SQLite FTS5's: all words must be there; OR, NOT, "a phrase", prefix*, NEAR(a b, 5).
"""
LIMIT_MAX = 1_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("index", metavar="INDEX", help="the sink's search.file")
    parser.add_argument("query", metavar="QUERY")
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="most hits (10)")
    parser.add_argument("--table", metavar="T", help="only of this table")
    parser.add_argument("--literal", action="store_true", help="no operators in the query")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """Search and print. Finding nothing is no failure."""
    if not 1 <= args.limit <= LIMIT_MAX:
        raise ConfigError(f"1 to {LIMIT_MAX}", key="--limit")
    hits = search(args.index, args.query, limit=args.limit, table=args.table, literal=args.literal)
    for hit in hits:
        if args.json:
            print(json.dumps(asdict(hit), ensure_ascii=False))
        else:
            print(f"{hit.table}  {hit.key}  {-hit.score:.2f}  {hit.snippet}")
    return 0
