"""What strace saw of a source task: confirmations, and the journal's writes and syncs.

As a program it is that task: ``python -m tests.crash.fsync_trace SPEC.json [--broken]`` runs
a source until its standard input ends; ``--broken`` switches the journal's fsync off.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

CALL = re.compile(r"^(\d+) +(\w+)\((\d+)<([^>]*)>(.*)$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>.* = (-?\d+)")
RESULT = re.compile(r" = (-?\d+)[^\"]*$")
LSN = re.compile(rb'"lsn":(\d+),')
SYNCS = {"fsync", "fdatasync"}


@dataclass(frozen=True)
class Seen:
    """One event, in the order of the trace. ``done``: a sync's return, else a call's start."""

    call: str
    path: str
    data: bytes
    done: bool


def unescaped(text: str) -> bytes:
    """What strace -xx writes: every byte as \\x and two digits."""
    return bytes.fromhex(text.replace("\\x", ""))


def events(trace: Path) -> Iterator[Seen]:
    """Starts of writes and sends, returns of syncs."""
    begun: dict[tuple[str, str], str] = {}
    with trace.open() as lines:
        for line in lines:
            resumed = RESUMED.match(line)
            if resumed:
                pid, call, result = resumed.groups()
                path = begun.pop((pid, call), "")
                if call in SYNCS and result == "0":
                    yield Seen(call, path, b"", done=True)
                continue
            found = CALL.match(line)
            if not found:
                continue
            pid, call, _, shown, rest = found.groups()
            path = unescaped(shown).decode() if "\\x" in shown else shown
            if call not in SYNCS:
                text = rest[rest.find('"') + 1 : rest.rfind('"')]
                yield Seen(call, path, unescaped(text), done=False)
            elif "unfinished" in rest:
                begun[pid, call] = path
            elif (result := RESULT.search(rest)) and result[1] == "0":
                yield Seen(call, path, b"", done=True)


def confirmations(trace: Path) -> list[tuple[int, bool]]:
    """Every rising flush LSN sent to the server, and whether it was on disk before."""
    waiting: dict[str, bytearray] = {}  # journal file → what was written and not yet synced
    durable: set[int] = set()
    out: list[tuple[int, bool]] = []
    highest = 0
    for seen in events(trace):
        if "/journal/" in seen.path:
            if seen.done:
                durable |= {int(n) for n in LSN.findall(waiting.pop(seen.path, b""))}
            else:
                waiting.setdefault(seen.path, bytearray()).extend(seen.data)
        elif seen.data[:1] == b"d" and seen.data[5:6] == b"r" and len(seen.data) == 39:
            flushed = int.from_bytes(seen.data[14:22], "big")
            if flushed > highest:
                highest = flushed
                out.append((flushed, flushed in durable))
    return out


def run_source(spec: dict[str, Any], broken: bool) -> None:
    from cdc.log.segment import SegmentWriter
    from cdc.runtime.observer import Observer
    from cdc.runtime.runners import TaskSpec, make_runner

    if broken:
        whole = SegmentWriter.__init__

        def without_fsync(self: Any, *args: Any) -> None:
            whole(self, *args)
            self._db.execute("PRAGMA synchronous = OFF")

        SegmentWriter.__init__ = without_fsync  # type: ignore[method-assign]
    runner = make_runner(TaskSpec(**spec), Observer())

    def stop() -> None:
        sys.stdin.read()
        runner.stop()

    threading.Thread(target=stop, daemon=True).start()
    runner.run()


if __name__ == "__main__":
    run_source(orjson.loads(Path(sys.argv[1]).read_bytes()), "--broken" in sys.argv)
