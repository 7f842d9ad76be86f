"""What both demos share: the folder, the wait for the snapshot, the comparison, the end."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cdc.demo.compare import Difference, Result
from cdc.demo.show import Show
from cdc.demo.stage import AUDIT, CONSOLE, COPY, SEARCH, SOURCE, DemoFailed, Stage
from cdc.metrics import SINK_LAG_RECORDS, SNAPSHOT_ROWS, TASK_RESTARTS_TOTAL

DIFFERENCES_SHOWN: Final = 10
SNAPSHOT_DONE: Final = "snapshot complete"

# What a connector has got of the snapshot.
BARS: Final[Mapping[str, str]] = {
    SOURCE: "into the journal",
    COPY: "into the copy",
    CONSOLE: "to the console",
    AUDIT: "into the audit",
    SEARCH: "into the search",
}

# Keys that both demos give their sinks.
CONSOLE_CONFIG: Final[Mapping[str, str]] = {
    "connector.class": "console",
    "topics.regex": rf"{SOURCE}\..*",
    # Decimals as numbers: for people to read.
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "value.converter.schemas.enable": "false",
    "value.converter.decimal.format": "NUMERIC",
}
COPY_CONFIG: Final[Mapping[str, str]] = {
    "connector.class": "io.confluent.connect.jdbc.JdbcSinkConnector",
    "topics.regex": rf"{SOURCE}\..*",
    "insert.mode": "upsert",
    "pk.mode": "record_key",
    "delete.enabled": "true",
    "auto.create": "true",
    "table.name.format": "${source.schema}.${source.table}",
}


@contextmanager
def folder(keep: Path | None) -> Iterator[Path]:
    """A folder for everything: a temporary one, or the one to keep."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True, mode=0o700)
        yield keep.absolute()
        return
    path = Path(tempfile.mkdtemp(prefix="cdc-demo-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def show_worker(show: Show, stage: Stage) -> None:
    """What runs now."""
    names = " ".join(path.name for path in stage.files)
    words = {3: "three", 5: "five"}.get(len(stage.files), str(len(stage.files)))
    show.command(f"cdc run --data-dir {stage.data.path} --listen 127.0.0.1:0 {names}")
    show.say(f"worker {stage.pid} at {stage.url}, one process for each of its {words} tasks")


def watch_snapshot(show: Show, stage: Stage, rows: int, timeout_s: float) -> tuple[float, float]:
    """Bars until all have the snapshot; the seconds until it was in journal and copy.

    ``rows`` is how many are expected; of a source in use it is about right.
    """
    began = time.monotonic()
    journalled = copied = 0.0
    labels = {name: label for name, label in BARS.items() if name in stage.connectors}
    bars = dict.fromkeys(labels.values(), rows)
    with show.progress(bars) as tell:

        def advance() -> bool:
            nonlocal journalled, copied
            read = stage.metrics(SOURCE).get(SNAPSHOT_ROWS, 0.0)
            complete = SNAPSHOT_DONE in stage.log_text()
            end = stage.journal_end()
            stored = {sink: stage.sink_offset(sink) for sink in stage.sinks}
            tell(labels[SOURCE], rows if complete else min(read, rows))
            for sink, offset in stored.items():
                tell(labels[sink], min(offset, rows))
            if complete:
                journalled = journalled or time.monotonic() - began
                if stored[COPY] >= min(rows, end):
                    copied = copied or time.monotonic() - began
            return bool(copied) and min(stored.values()) >= min(rows, end)

        stage.wait("the snapshot is copied", advance, timeout_s)
        for name in bars:
            tell(name, rows)
    return journalled, copied


def restarts(stage: Stage) -> int:
    """Of all tasks together."""
    return sum(int(stage.metrics(name).get(TASK_RESTARTS_TOTAL, 0)) for name in stage.connectors)


def lag_records(stage: Stage) -> int:
    """How many records the slowest sink is behind."""
    return max(int(stage.metrics(name).get(SINK_LAG_RECORDS, 0)) for name in stage.sinks)


def show_results(show: Show, results: Sequence[Result]) -> None:
    """The comparison's table, and the first differences by name."""
    rows = [
        (r.table.name, f"{r.source_rows:,}", f"{r.copy_rows:,}", str(len(r.table.columns)),
         str(len(r.differences)))
        for r in results
    ]  # fmt: skip
    show.table(("table", "rows in source", "rows in copy", "columns", "differences"), rows)
    for result in results:
        if result.table.left_out:
            left_out = ", ".join(result.table.left_out)
            show.say(f"not compared in {result.table.name}: {left_out}", "yellow")
    found = [difference for result in results for difference in result.differences]
    for difference in found[:DIFFERENCES_SHOWN]:
        show.say(f"DIFFERENT  {difference}", "bold red")
    if len(found) > DIFFERENCES_SHOWN:
        show.say(f"… and {len(found) - DIFFERENCES_SHOWN} more", "red")


def verdict(show: Show, differences: Sequence[Difference]) -> None:
    """The last line. Raises DemoFailed when anything differs."""
    show.console.print()
    if differences:
        tables = ", ".join(sorted({d.table for d in differences}))
        raise DemoFailed(f"the copy differs from the source: {len(differences)} rows, in {tables}")
    show.say(f"differences: 0    ({show.seconds:.0f} s in all)", "bold green")


def how_to_go_on(show: Show, stage: Stage, more: Sequence[str] = ()) -> None:
    """What to type while everything still runs."""
    data = shlex.quote(str(stage.data.path))
    program = shlex.join([sys.executable, "-m", "cdc"])
    show.step("Go on by hand, in another terminal")
    show.command(f"{program} status --data-dir {data}")
    for path in ("/connectors?expand=status", f"/connectors/{SOURCE}/offsets", "/metrics"):
        show.command(f"curl -s '{stage.url}{path}'")
    show.command(f"curl -s -X PUT '{stage.url}/connectors/{COPY}/pause'")
    show.command(f"tail -f {shlex.quote(str(stage.console_path))}")
    for line in more:
        show.command(line)
