"""Replay: move one sink's position back, count what that would send, or fill a second target.

A replay in place persists its intent first (:meth:`Offsets.intend`), then has the task
stopped and started; the task makes the intent its position and tells the sink (``seek``).
So a kill at any moment leaves either the old position, or the new one with the task still
to be told. What the user wanted of the connector does not change: a paused or stopped one
stays so, and replays when it is resumed.

A replay with an end or for some tables only would leave the one position of a sink at a
place that is true for none of its tables. So ``to`` and ``tables`` are for a second target
(``into``, see :mod:`cdc.runtime.into`) and for counting (``dry-run``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from cdc import failpoints, javaregex
from cdc.block import Block
from cdc.config import Config
from cdc.errors import ConfigError
from cdc.log.places import Place, Places, parse_place
from cdc.log.reader import Gap, JournalReader
from cdc.runtime import plugins
from cdc.runtime.chain import Chain, configured_steps
from cdc.runtime.delivery import Delivery
from cdc.runtime.into import Job, second_target
from cdc.runtime.offsets import Offsets
from cdc.runtime.state import DataDir
from cdc.runtime.tolerance import Failure, Operator, Tolerance
from cdc.runtime.topics import TablesOf, TopicFilter, held_topics
from schemas import EventSchema

FIELDS: Final = ("from", "to", "tables", "dry-run", "into", "source")


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, checked as far as that goes without a journal."""

    start: Place
    end: Place | None = None
    tables: str = ""
    dry_run: bool = False
    into: str = ""
    source: str = ""


def read_request(body: Any) -> Request:
    """From a JSON body, or the command's options under the same names. Raises ConfigError."""
    if not isinstance(body, Mapping):
        raise ConfigError("an object is expected", remedy=f"Its fields: {', '.join(FIELDS)}")
    for name in body:
        if name not in FIELDS:
            raise ConfigError(f"unknown field {name}", remedy=f"There are: {', '.join(FIELDS)}")
    if body.get("from") in (None, ""):
        raise ConfigError("it is not said from where", key="from")
    texts = {name: _text(body, name) for name in FIELDS if name != "dry-run"}
    dry_run = body.get("dry-run") or False
    if not isinstance(dry_run, bool):
        raise ConfigError("it is true or false", key="dry-run")
    if (texts["to"] or texts["tables"]) and not (dry_run or texts["into"]):
        raise ConfigError(
            "a sink has one position, which a part of a replay would leave wrong",
            key="to" if texts["to"] else "tables",
            remedy="Give it together with into, for a second target, or with dry-run",
        )
    try:
        javaregex.compile(texts["tables"])
    except ValueError as error:
        raise ConfigError(f"not a regular expression: {error}", key="tables") from None
    if texts["into"] and not re.fullmatch(r"[A-Za-z0-9_]{1,40}", texts["into"]):
        raise ConfigError("a name is 1 to 40 letters, digits and underscores", key="into")
    start = parse_place(texts["from"], "from")
    end = parse_place(texts["to"], "to") if texts["to"] else None
    return Request(start, end, texts["tables"], dry_run, texts["into"], texts["source"])


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ConfigError("a text is expected", key=name)
    return str(value)


@dataclass(frozen=True, slots=True)
class Plan:
    """A replay that can be carried out: which rows of which journal. ``end`` is exclusive.

    ``gaps``: which of them were dropped for want of space, as ``[first, after)``.
    """

    connector: str
    journal: str
    start: int
    end: int
    position: int | None
    request: Request
    gaps: tuple[tuple[int, int], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For people and programs."""
        return {
            "connector": self.connector,
            "source": self.journal,
            "from": self.start,
            "to": self.end,
            "position": self.position,
            **({"gaps": [list(gap) for gap in self.gaps]} if self.gaps else {}),
        }


@dataclass(frozen=True, slots=True)
class Sink:
    """The connector a replay is asked of. ``journals`` are those it reads."""

    name: str
    config: Mapping[str, str]
    worker: Mapping[str, str]
    journals: list[str]
    positions: Mapping[str, int]

    def configure(self) -> tuple[plugins.Plugin, Config]:
        """Its plugin and typed configuration. Raises ConfigError, for a source too."""
        plugin, config = plugins.configure(self.config, self.worker)
        if plugin.kind != "sink":
            raise ConfigError(f"{self.name} is a source", remedy="Only a sink is replayed")
        return plugin, config


def make_plan(data: DataDir, sink: Sink, request: Request) -> Plan:
    """Find the rows. Raises ConfigError for whatever is not there or not possible."""
    plugin, config = sink.configure()
    if request.into:
        second_target(plugin, config, sink.name, request.into)
    elif not request.dry_run:
        check_seek(plugin, sink.name)
    journal = _journal(data, sink, config, request)
    with JournalReader(data.journal(journal)) as reader:
        places = Places(reader)
        start = places.begin_of(places.start(request.start, "from"))
        end = places.after
        if request.end is not None:
            end = places.end_of(places.end(request.end, "to"))
        gaps = tuple(places.gaps(start, end))
    if end < start or (end == start and request.end is not None):
        problem = "lies before" if end < start else "leaves nothing from"
        raise ConfigError(f"{request.end} {problem} {request.start}", key="to")
    position = sink.positions.get(journal)
    in_place = not (request.into or request.dry_run)
    if in_place and position is not None and start > position:
        raise ConfigError(
            f"offset {start} lies ahead of {sink.name}, which is at {position}: the rows in"
            " between would never be sent",
            key="from",
            remedy=f"To skip them: PATCH /connectors/{sink.name}/offsets",
        )
    if request.tables or not in_place:
        _check_tables(data, journal, config, request)
    return Plan(sink.name, journal, start, end, position, request, gaps)


def check_seek(plugin: plugins.Plugin, name: str) -> None:
    """Refuse, by name, a sink whose target cannot be written again."""
    reason = plugin.load().no_seek
    if reason:
        raise ConfigError(
            f"{name} cannot be replayed: {reason}",
            remedy="Replay into a second target: --into NAME",
        )


def _journal(data: DataDir, sink: Sink, config: Config, request: Request) -> str:
    """The one that is meant, of those that hold topics of the sink.

    What it reads comes first; what is left of a source that is gone is a journal too.
    """
    topics, there = plugins.topic_filter(config), data.journals()
    known = [name for name in sink.journals if name in there and _fits(data, name, topics)]
    if not known and not config["source"]:
        known = [name for name in there if _fits(data, name, topics)]
    if not known and there:
        raise ConfigError(
            f"{topics.text} of {sink.name} takes no topic of {', '.join(there)}",
            remedy="There is nothing to send",
        )
    shown = ", ".join(known) or "none"
    if request.source:
        if request.source not in known:
            raise ConfigError(
                f"{sink.name} reads no journal {request.source}", key="source",
                remedy=f"It reads: {shown}",
            )  # fmt: skip
        return request.source
    if len(known) != 1:
        raise ConfigError(
            f"{sink.name} reads {len(known)} journals", key="source", remedy=f"Name one of: {shown}"
        )
    return known[0]


def _fits(data: DataDir, journal: str, topics: TopicFilter) -> bool:
    """Whether a sink takes a topic of a journal, or nobody knows yet what is in that."""
    held = held_topics([data.journal(journal)])
    return not held or any(map(topics.takes, held))


# --- in place


def intend(data: DataDir, plan: Plan) -> None:
    """Persist it; the task carries it out when it starts next."""
    offsets = Offsets(data.sink(plan.connector))
    try:
        offsets.intend(plan.journal, plan.start)
    finally:
        offsets.close()
    failpoints.hit("replay.intended")


def settle(data: DataDir, name: str) -> None:
    """Make it the position, while no task runs."""
    offsets = Offsets(data.sink(name))
    try:
        offsets.settle()
    finally:
        offsets.close()


# --- which rows


def _check_tables(data: DataDir, journal: str, config: Config, request: Request) -> None:
    """Refuse a pattern that fits no table there is, naming the tables."""
    if not request.tables:
        return
    pattern, topics = javaregex.compile(request.tables), plugins.topic_filter(config)
    with JournalReader(data.journal(journal)) as reader:
        names = {
            str(schema.table)
            for schema in reader.schemas().values()
            if schema.kind != "message" and topics.takes(schema.destination)
        }
    if not any(map(pattern.matches, names)):
        near = get_close_matches(re.sub(r"[\\^$()?*+]", "", request.tables), names)
        raise ConfigError(
            f"{request.tables} fits no table that the sink takes", key="tables",
            remedy=f"Did you mean {' or '.join(near)}?" if near
            else f"There are: {', '.join(sorted(names)) or 'none'}",
        )  # fmt: skip


def blocks(reader: JournalReader, start: int, end: int) -> Iterator[Block]:
    """The rows of ``[start, end)``; what was dropped for want of space is passed over."""
    while start < end:
        try:
            block = reader.read(start)
        except Gap as gap:
            start = gap.end
            continue
        if block is None:
            return
        if block.offsets[-1] >= end:
            block = block.select(range(end - block.offsets[0]))
        yield block
        start = block.offsets[-1] + 1


# --- counting


def count(data: DataDir, sink: Sink, plan: Plan) -> dict[str, Any]:
    """What a replay would send: rows, transactions and bytes, per table. Stops nothing.

    Counted is what the sink's own transforms leave, as it would be put; ``failed``: how many
    rows they cannot be applied to.
    """
    plugin, config = sink.configure()
    task_class, failures = plugin.load(), _Failures()
    topics = plugins.topic_filter(config, messages=task_class.wants_messages)
    wanted = TablesOf(topics, plan.request.tables)
    operator = Operator(Tolerance(tolerate=True), [failures])
    steps = configured_steps(config)
    chain = Chain(steps, operator, sink=True) if steps else None
    delivery = Delivery(operator, chain, takes_records=task_class.takes_records)
    tables: dict[str, dict[str, int]] = {}
    last: dict[str, int] = {}
    transactions, last_commit = 0, -1
    with JournalReader(data.journal(plan.journal)) as reader:
        for whole in blocks(reader, plan.start, plan.end):
            taken = wanted.apply(whole)
            block = taken and delivery.prepare(plan.journal, taken)
            if block is None:
                continue
            for number, commit_lsn in _add(block, tables):
                name = _name(block.schemas[number])
                tables[name]["transactions"] += commit_lsn > last.get(name, -1)
                last[name] = max(commit_lsn, last.get(name, -1))
                transactions += commit_lsn > last_commit
                last_commit = max(commit_lsn, last_commit)
    total = {
        "rows": sum(table["rows"] for table in tables.values()),
        "transactions": transactions,
        "bytes": sum(table["bytes"] for table in tables.values()),
        **({"failed": failures.count} if failures.count else {}),
    }
    return {**plan.to_dict(), **total, "tables": dict(sorted(tables.items()))}


class _Failures:
    """Counts what a chain fails on; a dry run leaves no trace in logs and dead letters."""

    count = 0

    def report(self, _failure: Failure) -> None:
        """See Reporter."""
        self.count += 1

    def flush(self) -> None:
        """See Reporter."""


def _name(schema: EventSchema) -> str:
    """A table's name; messages, and what a chain makes of them, have a topic only."""
    return str(schema.table) if schema.table.table else schema.destination


def _add(block: Block, tables: dict[str, dict[str, int]]) -> list[tuple[int, int]]:
    """Count rows and bytes; (schema, commit LSN) of what is in the block, in order."""
    names = [_name(schema) for schema in block.schemas]
    for schema in dict.fromkeys(block.schema):
        tables.setdefault(names[schema], {"rows": 0, "transactions": 0, "bytes": 0})
    sizes = [0] * len(block)
    for column in (block.keys, block.befores, block.afters):
        sizes = [n + len(f) if f else n for n, f in zip(sizes, column, strict=True)]
    for schema, nbytes in zip(block.schema, sizes, strict=True):
        table = tables[names[schema]]
        table["rows"] += 1
        table["bytes"] += nbytes
    pairs = dict.fromkeys(zip(block.schema, block.transaction, strict=True))
    return [(schema, block.transactions[t].commit_lsn) for schema, t in pairs]


def job(sink: Sink, plan: Plan, data: DataDir) -> Job:
    """A plan with ``into``, for :func:`cdc.runtime.into.run`."""
    return Job(
        connector=sink.name,
        name=plan.request.into,
        config=dict(sink.config),
        worker=dict(sink.worker),
        data_dir=str(data.path),
        journal=plan.journal,
        start=plan.start,
        end=plan.end,
        tables=plan.request.tables,
        asked=[str(plan.request.start), str(plan.request.end or "end")],
    )
