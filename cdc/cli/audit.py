"""``cdc audit``: verify a chain of audit records, or ask it who changed what."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cdc.cli.common import add_data_dir, data_dir
from cdc.errors import CdcError, ConfigError, SinkError
from cdc.history.tables import nearest
from cdc.runtime.offsets import witness_in
from sinks.audit_chain import COLUMNS, Damaged, Hasher, Link, Report, unseen
from sinks.audit_check import Table, check, tables_of
from sinks.audit_keys import KeyMatch
from sinks.audit_marks import noted, target_name
from sinks.audit_store import Filter, Store, stored_time
from sinks.audit_target import open_store

ATTEMPTS = 3
EXAMPLES = """\
TARGET is what the sink writes: a SQLite file, a folder of Parquet files, or a URL
(jdbc:postgresql://…; its password from $PGPASSWORD, ~/.pgpass or --password-file).

examples:
  cdc audit verify audit.db
  cdc audit verify audit.db --last-hash "$(cat noted)" --key-file audit.key
  cdc audit verify jdbc:postgresql://host/audit --table audit_r1 --json
  cdc audit query audit.db --table orders --key 17
  cdc audit query audit.db --table lines --key order_id=17,line=3
  cdc audit query audit.db --who alice --since 2026-01-01 --until 2026-02-01 --json

`verify` compares with what the sink has noted in the data folder, where that is at hand, and
prints the last record's hash: note it elsewhere, and give it as --last-hash next time; then a
chain whose end was removed with its position, or that was written anew, is found in any case.
A replay begins a new table: all chains are verified, the hash may be in any. Exit code: 0 for
whole chains, 1 for a broken one, 2 where a key or a name is wrong.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.epilog = EXAMPLES
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("verify", help="walk the chain", description="Walk the chain.")
    check.add_argument("--table", metavar="TABLE", help="one table of records (default: all)")
    check.add_argument("--last-hash", metavar="H", help="a hash noted before: it must be there")
    check.add_argument("--key-file", metavar="F", type=Path, help="file: audit.hash.key's value")
    add_data_dir(check)
    ask = actions.add_parser("query", help="find records", description="Find records.")
    ask.add_argument("--table", metavar="TABLE", help="of the source: schema.table, or its name")
    ask.add_argument("--key", metavar="K", help="a key: its value, a=1,b=2, or as JSON")
    ask.add_argument("--since", metavar="TIME", help="committed then or later (UTC)")
    ask.add_argument("--until", metavar="TIME", help="committed then or earlier")
    ask.add_argument("--who", metavar="WHO", help="by this one")
    ask.add_argument("--audit-table", metavar="TABLE", help="of records (default: in use)")
    for action in (check, ask):
        action.add_argument("target", metavar="TARGET")
        action.add_argument("--user", metavar="USER", help="of the database")
        action.add_argument("--password-file", metavar="F", type=Path, help="its password")
        action.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """One action."""
    return _verify(args) if args.action == "verify" else _query(args)


def _verify(args: argparse.Namespace) -> int:
    hasher, last_hash = Hasher(_read(args.key_file)), _hash(args.last_hash)
    known = _noted(args)  # first: what is noted now, the target has by now
    with _opened(args) as store:
        names = [table.name for table in _tables(store, args.table, known)]
    found = [_walked(args, name, hasher, last_hash, known) for name in names]
    seen = any(report.since_last is not None for _, report in found)
    for table, report in found:  # one hash is in one chain; lost, it is missed at the end
        if last_hash and report.problem == unseen(last_hash) and (seen or table.retired):
            report.problem = ""
    for table, report in found:
        _show(args, table, report, known.get(table.name, []))
    if last_hash and not seen and all(report.ok for _, report in found):
        raise CdcError(unseen(last_hash))
    return 0 if all(report.ok for _, report in found) else 1


def _hash(text: str | None) -> str | None:
    wanted = text and text.strip().lower()
    if wanted and not re.fullmatch("[0-9a-f]{64}", wanted):
        raise ConfigError(
            f"{text} is no hash", key="--last-hash", remedy="Give all of its 64 hex digits"
        )
    return wanted


def _noted(args: argparse.Namespace) -> dict[str, list[Link]]:
    """By table: what sinks of the data folder have noted of this target."""
    data, target = data_dir(args), target_name(args.target)
    found: dict[str, list[Link]] = {}
    texts: list[str | None] = []
    try:
        texts += [witness_in(data.path / "sinks" / name) for name in _stores(data.path)]
    except (SinkError, OSError) as error:
        print(f"not compared with what sinks have noted: {error}", file=sys.stderr)
        return {}
    for text in texts:
        for table, marks in noted(text, target).items():
            found.setdefault(table, []).extend(marks)
    if any(texts) and not found:
        print(f"no sink of {data.path} has noted anything of this target", file=sys.stderr)
    return found


def _stores(folder: Path) -> list[str]:
    """Of sinks. Raises OSError where the folder is there, and others may not look into it."""
    try:
        names = os.listdir(folder / "sinks")  # noqa: PTH208 - iterdir says nothing before it is used
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name.endswith(".db"))


def _walked(
    args: argparse.Namespace,
    name: str,
    hasher: Hasher,
    last_hash: str | None,
    known: Mapping[str, list[Link]],
) -> tuple[Table, Report]:
    progress = _progress if sys.stderr.isatty() else None
    for _ in range(ATTEMPTS):
        with _opened(args) as store:
            (table,) = _tables(store, name, known)
            report = check(
                store, table, hasher, last_hash=last_hash, marks=known.get(name, ()),
                progress=progress,
            )  # fmt: skip
        # A Parquet file that was sealed just now holds records after the position that was read.
        kept = table.position
        if report.ok or kept is None or report.end.seq <= kept.seq or not _moved(args, table):
            break
    return table, report


def _moved(args: argparse.Namespace, table: Table) -> bool:
    with _opened(args) as store:
        return _tables(store, table.name, [table.name]) != [table]


def _progress(records: int) -> None:
    sys.stderr.write(f"\r{records:,} records")


def _show(args: argparse.Namespace, table: Table, report: Report, marks: Sequence[Link]) -> None:
    newest = max(marks).seq if marks else None
    if args.json:
        body = {
            "table": table.name,
            "in_use": table.position is not None and not table.retired,
            "ok": report.ok,
            "records": report.records,
            "raw_records": report.raw,
            "last_hash": report.end.hash,
            "problem": report.problem or None,
            "at": report.at,
            "records_since_last_hash": report.since_last,
            "noted_by_sink": newest,
        }
        print(json.dumps(body))
        return
    left = ", which a replay or another name has left" if table.retired else ""
    if report.ok:
        print(f"{table.name}: {report.records} records, the chain is whole{left}")
    else:
        print(f"{table.name}: BROKEN: {report.problem}{left}")
        print(f"  whole up to record {report.end.seq}")
    if newest is not None and report.ok:
        print(f"  compared with what the sink has noted in its own store: record {newest}")
    elif table.position is None:
        print("  nothing says where it ended: whether its tail is there, only --last-hash tells")
    if report.raw:
        print(f"  records of an older version, with values as in events: {report.raw}")
    if report.since_last is not None:
        print(f"  records since the hash you gave: {report.since_last}")
    print(f"  last hash {report.end.hash}")


def _query(args: argparse.Namespace) -> int:
    wanted = Filter(
        table=args.table,
        since=stored_time(args.since) if args.since else None,
        until=stored_time(args.until) if args.until else None,
        who=args.who,
    )
    keys = KeyMatch(args.key) if args.key is not None else None
    with _opened(args) as store:
        table, others = _one(store, args.audit_table)
        count = 0
        for record in _records(store.find(table, wanted)):
            with _legible(record):
                if wanted.accepts(record) and (keys is None or keys.accepts(record)):
                    _print(record, as_json=args.json)
                    count += 1
        if not count:
            _explain_nothing(store, table, wanted, keys)
    if others:
        print(f"asked was {table}; other chains are in {', '.join(others)}: --audit-table",
              file=sys.stderr)  # fmt: skip
    return 0


def _records(rows: Iterator[Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {
            name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            for name, value in zip(COLUMNS, row, strict=True)
        }


@contextmanager
def _legible(record: dict[str, Any]) -> Iterator[None]:
    """A record whose values are not what a sink writes is damage, and none of a library's errors.

    Raises Damaged.
    """
    try:
        yield
    except (TypeError, AttributeError, ValueError):
        raise Damaged(f"record {record['seq']} was altered: it cannot be read") from None


def _explain_nothing(store: Store, table: str, wanted: Filter, keys: KeyMatch | None) -> None:
    """Nothing was found: raises ConfigError where the question was wrong, not the answer empty."""
    whole = Filter(table=wanted.table)
    if wanted.table is None and keys is None:
        return
    names: set[str] = set()
    for record in _records(store.find(table, Filter())):
        names.add(record["table_name"])
        if whole.accepts(record) and (keys is None or keys.accepts(record) or keys.fitted):
            return
    if not names:
        return
    if not any(whole.accepts({"table_name": name, "committed_at": ""}) for name in names):
        raise ConfigError(
            f"no record is of a table {wanted.table}", key="--table",
            remedy=nearest(str(wanted.table), names),
        )  # fmt: skip
    if keys is not None and keys.problem is not None:
        raise keys.problem


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


def _tables(store: Store, wanted: str | None, known: Collection[str] = ()) -> list[Table]:
    """The tables of records, and those that are known to have been; only the one that is named."""
    tables = tables_of(store)
    there = {table.name for table in tables}
    tables += [Table(name, None) for name in known if name not in there]
    found = [table for table in tables if wanted in (None, table.name)]
    if not found:
        names = [table.name for table in tables]
        raise ConfigError(
            f"no table{'' if wanted is None else f' {wanted}'} of audit records here",
            remedy=nearest(wanted, names) if wanted and names else "",
        )
    return found


def _one(store: Store, wanted: str | None) -> tuple[str, list[str]]:
    """The table to ask, and where else records are, if it was not named."""
    if wanted is not None:
        return _tables(store, wanted)[0].name, []
    tables = _tables(store, None)
    names = [table.name for table in tables]
    current = [t.name for t in tables if t.position is not None and not t.retired] or names
    if len(current) != 1:
        raise ConfigError(
            "several tables of audit records here", key="--audit-table",
            remedy=f"Name one of {', '.join(names)}",
        )  # fmt: skip
    return current[0], [name for name in names if name != current[0]]


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
    except Damaged as damage:
        raise CdcError(str(damage), remedy="See cdc audit verify") from None
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
