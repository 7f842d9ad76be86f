"""Make the golden file from the real Debezium, and compare it with ours on the same WAL.

``CDC_ORACLE='python debezium_oracle.py' python -m tests.capture.oracle URL [--write]``

The command named there runs Debezium with the properties it is given as ``key=value``, and
writes an event a line to ``--out``. Both read one publication by a slot each, so that even
LSNs, transaction numbers and times of streamed events have to be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from tests.capture import golden

TIMEOUT_S = 60.0


def main() -> int:
    """Run both, report every difference; 1 if there is any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="an empty database of a server with wal_level=logical")
    parser.add_argument("--write", action="store_true", help="replace the golden file")
    parser.add_argument("--schemas", action="store_true", help="compare with schemas as well")
    parser.add_argument("properties", nargs="*", metavar="KEY=VALUE", help="given to both")
    args = parser.parse_intermixed_args()
    golden.prepare(args.url)
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = run_both(args.url, Path(folder), args)
    differences = []
    if args.schemas:
        differences = compare_schemas(theirs, ours)
        theirs, ours = ([payloads(e) for e in events] for events in (theirs, ours))
    differences += compare(theirs, ours)
    for difference in differences:
        print(difference)
    print(f"{len(theirs)} events of Debezium, {len(ours)} of ours, {len(differences)} differences")
    if args.write:
        lines = [json.dumps(e, ensure_ascii=False) for e in golden.normalised(theirs)]
        golden.GOLDEN.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if differences else 0


def run_both(
    url: str, folder: Path, args: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Their events and ours for the whole script."""
    files = {name: folder / f"{name}.jsonl" for name in ("theirs", "ours")}
    theirs, ours = oracle_command(url, files["theirs"]), capture_command(url, files["ours"])
    theirs += args.properties
    if args.schemas:
        theirs.append("--schemas")
        ours += ["--set", "converter.schemas.enable=true"]
    ours += [arg for text in args.properties for arg in ("--set", text)]
    processes = [subprocess.Popen(theirs, stdout=subprocess.DEVNULL), subprocess.Popen(ours)]
    try:
        for file in files.values():
            wait_for(lambda file=file: len(golden.lines_of(file)) >= golden.SNAPSHOT_ROWS)
        time.sleep(3)  # Debezium begins to stream a while after its snapshot
        with psycopg.connect(url, autocommit=True) as connection:
            for statements in golden.paragraphs():
                connection.execute(statements.encode())
                time.sleep(1.0 if golden.is_ddl(statements) else 0.05)
        for file in files.values():
            wait_for(lambda file=file: "the last one" in file.read_text(encoding="utf-8"))
        time.sleep(1)
        return golden.lines_of(files["theirs"]), golden.lines_of(files["ours"])
    finally:
        for process in processes:
            process.terminate()
            process.wait()


def capture_command(url: str, out: Path) -> list[str]:
    sets = [arg for k, v in golden.PROPERTIES.items() for arg in ("--set", f"{k}={v}")]
    return [sys.executable, "-m", "cdc", "capture", url, "--output", str(out), *sets]


def oracle_command(url: str, out: Path) -> list[str]:
    parts = urlsplit(url)
    properties = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "plugin.name": "pgoutput",
        "slot.name": "oracle",
        "database.hostname": parts.hostname,
        "database.port": parts.port,
        "database.user": parts.username,
        "database.password": parts.password,
        "database.dbname": parts.path.removeprefix("/"),
        **golden.PROPERTIES,
    }
    command = shlex.split(os.environ["CDC_ORACLE"])
    texts = [f"{name}={value}" for name, value in properties.items()]
    return [*command, "--out", str(out), "--idle", "60", *texts]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("one of the two does not get on")
        time.sleep(0.2)


def compare(theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> list[str]:
    """Every differing field of events in the same place: snapshot rows sorted, then the stream."""
    out = []
    pairs = list(zip(golden.normalised(theirs), golden.normalised(ours), strict=False))
    streams = [[e for e in events if not golden.is_snapshot(e)] for events in (theirs, ours)]
    pairs += [(_exact(a), _exact(b)) for a, b in zip(*streams, strict=False)]
    for number, (a, b) in enumerate(pairs):
        for path, x, y in differing(a, b, ""):
            out.append(f"{number} {a['topic']} {a['key']}: {path}: Debezium {x!r}, ours {y!r}")
    if len(streams[0]) != len(streams[1]):
        out.append(f"Debezium has {len(theirs)} events, ours are {len(ours)}")
    return list(dict.fromkeys(out))


def compare_schemas(theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> list[str]:
    """The schemas of each topic, in the order in which they appear."""
    found: list[dict[tuple[str, str], list[Any]]] = [{}, {}]
    for events, schemas in zip((theirs, ours), found, strict=True):
        for event in events:
            for part in ("key", "value"):
                if event[part] is not None:
                    known = schemas.setdefault((event["topic"], part), [])
                    if event[part]["schema"] not in known:
                        known.append(event[part]["schema"])
    out = []
    for place in sorted(found[0].keys() | found[1].keys()):
        a, b = (schemas.get(place, []) for schemas in found)
        if len(a) != len(b):
            out.append(f"{place}: Debezium has {len(a)} schemas, ours are {len(b)}")
        for x, y in zip(a, b, strict=False):
            out += [f"{place}{p}: Debezium {v!r}, ours {w!r}" for p, v, w in differing(x, y, "")]
    return out


def payloads(event: dict[str, Any]) -> dict[str, Any]:
    parts = {p: event[p] and event[p]["payload"] for p in ("key", "value")}
    return {**event, **parts}


def _exact(event: dict[str, Any]) -> dict[str, Any]:
    """A streamed event but for the clock of the process that made it."""
    value = event["value"]
    if value is None:
        return {"topic": event["topic"], "key": event["key"]}
    exact = {k: v for k, v in value.items() if k not in golden.VOLATILE}
    return {"topic": event["topic"], "key": event["key"], "value": exact}


def differing(a: Any, b: Any, path: str) -> list[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        out = []
        if list(a) != list(b):
            out.append((f"{path} fields", list(a), list(b)))
        for name in a.keys() & b.keys():
            out += differing(a[name], b[name], f"{path}.{name}")
        return out
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [found for i, (x, y) in pairs for found in differing(x, y, f"{path}[{i}]")]
    return [] if a == b and type(a) is type(b) else [(path, a, b)]


if __name__ == "__main__":
    sys.exit(main())
