"""Journal → a chain of transforms → counted: records a second of one sink's chain.

Three field transforms in a row (ReplaceField, MaskField, InsertField on the value) over the
workload's table of 10 columns: every row becomes a Record and a record row again. Once on the
events as they are, once behind an ExtractField, on the columns themselves. Beside them a chain
that only renames topics, and the same loop without a chain, which is what nobody's chain costs.
"""

from __future__ import annotations

import shutil
import time
from statistics import median

from benchmarks.common import Bench, Figure, progress
from benchmarks.journal import load_blocks
from benchmarks.ours import NAME, run_source
from cdc.block import Block
from cdc.connectors import SOURCE_CONFIG
from cdc.runtime.chain import Chain, configured_steps
from cdc.runtime.state import DataDir
from cdc.runtime.tolerance import Operator

ROWS_MAX = 200_000
PACKAGE = "org.apache.kafka.connect.transforms."
Steps = tuple[tuple[str, dict[str, str]], ...]
INSERT = ("InsertField$Value", {"static.field": "origin", "static.value": "bench"})
EVENTS: Steps = (
    ("ReplaceField$Value", {"exclude": "transaction"}),
    ("MaskField$Value", {"fields": "ts_ns"}),
    INSERT,
)
COLUMNS: Steps = (
    ("ExtractField$Value", {"field": "after"}),
    ("ReplaceField$Value", {"exclude": "note"}),
    ("MaskField$Value", {"fields": "sku", "replacement": "*"}),
    INSERT,
)
ROUTE: Steps = (("RegexRouter", {"regex": r"(.*)\.(.*)", "replacement": "$2"}),)


def run(bench: Bench) -> list[Figure]:
    """Fill a journal once, then run its blocks through each chain ``runs`` times."""
    bench.fill()
    expected = min(bench.changes, ROWS_MAX)
    keep = bench.folder / "transforms-source"
    slot = bench.slot()
    config = {"slot.name": slot, "snapshot.mode": "no_data"}
    try:
        run_source(bench, "journal, source of its blocks", expected, "tcp", config, keep=keep)
    finally:
        bench.drop_slot(slot)
    blocks = load_blocks(DataDir(keep).journal(NAME), expected)
    shutil.rmtree(keep)
    progress(f"transforms: {expected:,} rows through each chain")
    chains = {"events": _chain(EVENTS), "columns": _chain(COLUMNS), "route": _chain(ROUTE)}
    chains |= {"none": None}
    rates: dict[str, list[float]] = {name: [] for name in chains}
    for _ in range(max(bench.runs, 3)):
        for name, chain in chains.items():
            rates[name].append(_rate(blocks, chain))
    bench.results["transforms"] = {name: [round(x) for x in r] for name, r in rates.items()}
    return [
        Figure("chain of three field transforms", "events/s", median(rates["events"]), floor=40e3),
        Figure("… behind ExtractField", "events/s", median(rates["columns"])),
        Figure("chain that renames topics", "events/s", median(rates["route"]), floor=1e6),
        Figure("no chain", "events/s", median(rates["none"]), floor=1e6),
    ]


def _chain(steps: Steps) -> Chain | None:
    raw = {"name": "bench", "connector.class": "postgres"}
    raw["transforms"] = ",".join(f"t{n}" for n in range(len(steps)))
    # A delete has no row after it, and MaskField takes no null.
    raw |= {"predicates": "dead", "predicates.dead.type": f"{PACKAGE}predicates.RecordIsTombstone"}
    for n, (kind, options) in enumerate(steps):
        raw[f"transforms.t{n}.type"] = PACKAGE + kind
        raw |= {f"transforms.t{n}.{name}": text for name, text in options.items()}
        if kind.startswith("MaskField"):
            raw |= {f"transforms.t{n}.predicate": "dead", f"transforms.t{n}.negate": "true"}
    return Chain(configured_steps(SOURCE_CONFIG.parse(raw)), Operator(), sink=True)


def _rate(blocks: list[Block], chain: Chain | None) -> float:
    """Journal rows a second of CPU time: what a delete's tombstone costs is the delete's."""
    rows, began = 0, time.process_time()
    for block in blocks:
        found = block if chain is None else chain.apply(block)
        assert found is not None
        rows += len(block)
    return rows / max(time.process_time() - began, 1e-9)
