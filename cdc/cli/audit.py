"""``cdc audit``: verify a chain of audit records, or ask it who changed what."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cdc.errors import CdcError, ConfigError
from sinks.audit_chain import COLUMNS, Hasher, Link, Report, verify
from sinks.audit_store import Filter, Position, Store, open_store, stored_time

ATTEMPTS = 3
EXAMPLES = """\
TARGET is what the sink writes: a SQLite file, a folder of Parquet files, or a URL
(jdbc:postgresql://…; its password from $PGPASSWORD, ~/.pgpass or --password-file).

examples:
  cdc audit verify audit.db
  cdc audit verify audit.db --last-hash 1d26e92a… --key-file audit.key
  cdc audit verify jdbc:postgresql://host/audit --table audit_r1 --json
  cdc audit query audit.db --table orders --key 17
  cdc audit query audit.db --who alice --since 2026-01-01 --until 2026-02-01 --json

`verify` prints the last record's hash: note it elsewhere, and give it as --last-hash next
time; then a chain whose end was removed, or that was written anew, is found too. Exit code:
0 for a whole chain, 1 for a broken one.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.epilog = EXAMPLES
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("verify", help="walk the chain", description="Walk the chain.")
    check.add_argument("--table", metavar="TABLE", help="table of records (default: the sink's)")
    check.add_argument("--last-hash", metavar="H", help="a hash noted before: it must be there")
    check.add_argument("--key-file", metavar="F", type=Path, help="file with audit.hash.key")
    ask = actions.add_parser("query", help="find records", description="Find records.")
    ask.add_argument("--table", metavar="TABLE", help="of the source: schema.table, or its name")
    ask.add_argument("--key", metavar="K", help="a key's value, or the key as JSON")
    ask.add_argument("--since", metavar="TIME", help="committed then or later (UTC)")
    ask.add_argument("--until", metavar="TIME", help="committed then or earlier")
    ask.add_argument("--who", metavar="WHO", help="by this one")
    ask.add_argument("--audit-table", metavar="TABLE", help="table of records")
    for action in (check, ask):
        action.add_argument("target", metavar="TARGET")
        action.add_argument("--user", metavar="USER", help="of the database")
        action.add_argument("--password-file", metavar="F", type=Path, help="its password")
        action.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """One action."""
    return _verify(args) if args.action == "verify" else _query(args)


def _verify(args: argparse.Namespace) -> int:
    for _ in range(ATTEMPTS):
        table, report, kept = _walked(args)
        # A Parquet file that was sealed just now holds records after the position that was read.
        if report.ok or kept is None or report.end.seq <= kept.seq or _kept(args, table) == kept:
            break
    _show(args, table, report)
    return 0 if report.ok else 1


def _kept(args: argparse.Namespace, table: str) -> Link | None:
    with _opened(args) as store:
        position = _table(store, table)[1]
        return position.end if position else None


def _walked(args: argparse.Namespace) -> tuple[str, Report, Link | None]:
    key = _read(args.key_file)
    last_hash = args.last_hash and args.last_hash.strip().lower()
    with _opened(args) as store:
        table, position = _table(store, args.table)
        hasher = Hasher(key)
        if position is not None and position.key_check != hasher.check:
            given = "another key was given" if key else "--key-file is needed"
            if position.key_check == "none":
                given = "it has no key: leave --key-file out"
            raise ConfigError(f"the chain in {table} cannot be checked: {given}")
        kept = position.end if position else None
        progress = _progress if sys.stderr.isatty() else None
        records = store.records(table)
        return (
            table,
            verify(records, hasher, last_hash=last_hash, kept=kept, progress=progress),
            kept,
        )


def _progress(records: int) -> None:
    sys.stderr.write(f"\r{records:,} records")


def _show(args: argparse.Namespace, table: str, report: Report) -> None:
    if args.json:
        body = {
            "table": table,
            "ok": report.ok,
            "records": report.records,
            "raw_records": report.raw,
            "last_hash": report.end.hash,
            "problem": report.problem or None,
            "at": report.at,
            "records_since_last_hash": report.since_last,
        }
        print(json.dumps(body))
        return
    if report.ok:
        print(f"{table}: {report.records} records, the chain is whole")
    else:
        print(f"{table}: BROKEN: {report.problem}")
        print(f"  whole up to record {report.end.seq}")
    if report.raw:
        print(f"  records of an older version, with values as in events: {report.raw}")
    if report.since_last is not None:
        print(f"  records since the hash you gave: {report.since_last}")
    print(f"  last hash {report.end.hash}")


def _query(args: argparse.Namespace) -> int:
    wanted = Filter(
        table=args.table,
        key=args.key,
        since=stored_time(args.since) if args.since else None,
        until=stored_time(args.until) if args.until else None,
        who=args.who,
    )
    with _opened(args) as store:
        table, _ = _table(store, args.audit_table)
        for row in store.find(table, wanted):
            record = {
                name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
                for name, value in zip(COLUMNS, row, strict=True)
            }
            if wanted.accepts(record):
                _print(record, as_json=args.json)
    return 0


def _print(record: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        for name in ("key", "before", "after", "changed"):
            record[name] = None if record[name] is None else json.loads(record[name])
        print(json.dumps(record, ensure_ascii=False))
        return
    verb = {"r": "read", "c": "insert", "u": "update", "d": "delete", "t": "truncate"}
    lsn = record["lsn"]
    said = ", ".join(filter(None, (record["who"] or "unknown", record["why"])))
    print(
        f"{record['committed_at']}  {lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
        f"  {verb.get(record['op'], record['op'])} {record['table_name']}"
        f" {record['key'] or ''}  by {said}"
    )
    for name in ("before", "after", "changed"):
        if record[name] is not None:
            print(f"    {name} {record[name]}")


def _table(store: Store, wanted: str | None) -> tuple[str, Position | None]:
    """The table of records, and where its sink says that it ends."""
    positions = {position.table: position for position in store.positions()}
    tables = store.tables()
    if wanted is not None:
        if wanted not in tables and wanted not in positions:
            from difflib import get_close_matches

            near = get_close_matches(wanted, tables, 1, 0.5)
            there = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(tables)}"
            raise ConfigError(f"no table {wanted} of audit records", remedy=there)
        return wanted, positions.get(wanted)
    found = list(positions) or tables
    if len(found) != 1:
        raise ConfigError(
            f"{'several tables' if found else 'no table'} of audit records here",
            remedy=f"Name one of {', '.join(found)}" if found else "",
        )
    return found[0], positions.get(found[0])


@contextmanager
def _opened(args: argparse.Namespace) -> Iterator[Store]:
    """The target, in one state of it."""
    password = _read(args.password_file)
    try:
        store = open_store(args.target, args.user, password, existing=True)
    except CdcError:
        raise
    except Exception as error:  # noqa: BLE001 - the driver's, whichever it is
        raise CdcError(f"no connection to the target: {error}".strip()) from None
    try:
        store.begin_read()
        yield store
    except Exception as error:
        if not store.is_driver_error(error):
            raise
        raise CdcError(f"the target cannot be read: {error}".strip()) from None
    finally:
        store.close()


def _read(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text().rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
