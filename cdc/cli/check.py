"""``cdc check``: whether a database can be captured, and what its events would hold."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdc.config import STRICT, Config
from cdc.errors import ConfigError

if TYPE_CHECKING:
    from cdc.postgres.check import Report, TableReport
    from cdc.postgres.survey import NotLogged

EXAMPLES = """\
examples:
  cdc check postgresql://me@localhost/shop
  cdc check postgresql://me@localhost/shop --config shop.json
  cdc check --config shop.json --set table.include.list=public.orders
  cdc check postgresql://me@localhost/shop --json --show-values

Creates nothing: no slot, no publication; every session is read-only. Shows what would be
created, which tables would be captured and what their events hold (with one row of each as
an example, its values masked), what will go wrong, and the statement that mends it. Without
a file Debezium's defaults are checked, with the publication of all tables.

Exit code: 0 go, 1 no go (or no connection), 2 wrong usage or configuration; an unknown key is
an error here.
"""
SHOWN_MAX = 30  # tables with details; --json has all


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument(
        "url",
        metavar="URL",
        nargs="?",
        help="postgresql://user@host/database; a password in it is seen by others: PGPASSFILE",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="a connector: JSON, properties, YAML, TOML"
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="sets",
        help="a Debezium property; beats URL and file; may be repeated",
    )  # fmt: skip
    parser.add_argument("--password-file", metavar="F", help="its first line is the password")
    parser.add_argument("--worker-config", metavar="FILE", help="the worker's, for its providers")
    parser.add_argument("--json", action="store_true", help="everything, as one object")
    parser.add_argument("--show-values", action="store_true", help="do not mask the examples")
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """Check and show."""
    from cdc.postgres.check import check

    report = check(read_config(args), show_values=args.show_values)
    if args.json:
        print(json.dumps(report.to_dict(), default=str))
    else:
        _show(report)
    return int(not report.ok)


def read_config(args: argparse.Namespace) -> Config:
    """From file, URL and ``--set``, the later beating the earlier. Raises ConfigError."""
    from cdc.capture.settings import parse_sets, read_password
    from cdc.configfile import read_file
    from cdc.postgres.dsn import from_url, warn_of_password
    from cdc.runtime import plugins
    from cdc.runtime.config import worker_config

    sets = parse_sets(args.sets)
    warn_of_password(args.url, sets)
    written = dict(read_file(Path(args.config)).config) if args.config else {}
    if args.url:
        written |= from_url(args.url, sets)
    elif not args.config and "database.hostname" not in sets:
        raise ConfigError(
            "no database is named", remedy="Write cdc check postgresql://user@host/db"
        )
    written |= sets
    if args.password_file:
        written["database.password"] = read_password(Path(args.password_file))
    prefix = re.sub(r"[^A-Za-z0-9._-]", "_", written.get("database.dbname", ""))
    defaults = {"name": "check", "connector.class": "postgres"}
    if not args.config:
        defaults["topic.prefix"] = prefix
    written = {**defaults, **written}
    plugin = plugins.find(written["connector.class"])
    if plugin.name != "postgres":
        raise ConfigError(
            f"{written['connector.class']} is no source: there is no database of it to check",
            remedy="Give the file of a PostgreSQL source, or postgresql://user@host/db",
        )
    worker: dict[str, str] = {}
    if args.worker_config:
        worker = dict(worker_config(read_file(Path(args.worker_config)).config).raw)
    texts, secrets = plugins.resolve(plugins.inherit(written, worker), worker)
    problems = [text for _, text in plugins.chain_problems({**texts, STRICT.name: "true"}, secrets)]
    try:
        config = plugin.definition().parse(texts, strict=True, secrets=secrets)
    except ConfigError as error:
        problems.insert(0, str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _show(report: Report) -> None:
    service = f", {report.service}" if report.service else ""
    print(f"server       {report.server}{service}")
    print(f"role         {report.role}")
    if report.slot:
        print(f"slot         {report.slot}")
    print(f"publication  {report.publication}")
    print(f"tables       {len(report.tables)}")
    for table in report.tables[:SHOWN_MAX]:
        _show_table(table)
    if len(report.tables) > SHOWN_MAX:
        print(f"  … and {len(report.tables) - SHOWN_MAX} more: --json")
    absent = "; ".join(map(_counted, report.not_logged))
    print(f"not in the log, so in no event: {absent}")
    for level in LEVELS:
        found = [finding for finding in report.findings if finding.level == level]
        shown = SHOWN_MAX if level == LEVELS[-1] else len(found)  # what stops one is always shown
        for finding in found[:shown]:
            print(f"{finding.level}: {finding.subject}: {finding.text}")
            if finding.remedy:
                print(f"  → {finding.remedy}")
        if len(found) > shown:
            print(f"… and {len(found) - shown} {level}s more: --json")
    print("go" if report.ok else "no go")


LEVELS = ("no-go", "warning", "note")


def _counted(absent: NotLogged) -> str:
    count, names = absent.count, absent.names
    if count is None:
        return absent.what
    more = ", …" if count > len(names) else ""
    return f"{count} {absent.what}" + (f" ({', '.join(names)}{more})" if names else "")


def _show_table(table: TableReport) -> None:
    from cdc.postgres.watch import gb

    part = f", a partition of {table.partition_of}" if table.partition_of else ""
    counted = table.rows_estimate is not None
    rows = f"about {table.rows_estimate} rows" if counted else "rows not analyzed yet"
    print(f"  {table.table} → {table.topic}  {rows}, {gb(table.nbytes)}{part}")
    print(
        f"    key {', '.join(table.key) or 'none'}; replica identity {table.replica_identity};"
        f" before: {table.before}"
    )
    if table.example is not None:
        print(f"    {_line(table.example)}")


def _line(example: dict[str, Any]) -> str:
    return json.dumps({"key": example["key"], "after": example["value"]["after"]}, default=str)
