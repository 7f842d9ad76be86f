"""Chain: a connector's transforms on Blocks.

What a chain does to a table is decided once per schema. Steps that only look at the topic or
only edit headers leave its rows as they are: the schema gets another destination, the rows
other headers. Only where a step asks for it, rows become Records, and what it leaves of them
record rows. Nobody's chain is no object at all: a connector without ``transforms`` has None.

Transactions, LSNs, ordinals and journal offsets of rows are kept. A delete and its tombstone
share an offset in a sink; whoever cuts at an offset cuts before both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal, NamedTuple, Protocol

from cdc.block import MESSAGE, Block, Derived, EncodedBlock, RowHeaders
from cdc.config import Config
from cdc.record import Header, Record
from cdc.runtime.records import (
    Context,
    RecordReader,
    RecordWriter,
    dumped_headers,
    headers_before,
)
from cdc.runtime.reporters import LogReporter
from cdc.runtime.tolerance import (
    SKIPPED,
    ErrorCounters,
    Failure,
    Operator,
    Skipped,
    Stage,
    Tolerance,
)
from cdc.transforms.contract import HeaderEditing, Routing, TopicPredicate
from schemas import EventSchema

PLANS_MAX: Final = 1000
VALUE_CONVERTER: Final = "org.apache.kafka.connect.json.JsonConverter"

EditHeaders = Callable[[tuple[Header, ...]], tuple[Header, ...]]


class Step(Protocol):
    """One transform with its predicate, as :mod:`cdc.transforms.chain` makes it."""

    @property
    def java_class(self) -> str:
        """What logs and dead letters call it."""

    @property
    def transform(self) -> Any:
        """The transform itself."""

    @property
    def predicate(self) -> Any:
        """Its predicate, None without one."""

    @property
    def negate(self) -> bool:
        """Whether it is applied where the predicate does not hold."""

    def apply(self, record: Record) -> Record | None:
        """The record as it is where the predicate does not hold."""


@dataclass(frozen=True, slots=True)
class _Whole:
    """Rows of one schema that stay as they are."""

    schema: EventSchema
    edits: tuple[EditHeaders, ...] = ()


def configured_steps(config: Config) -> tuple[Step, ...]:
    """The steps of ``transforms``; nothing is imported where there are none."""
    if not any(name.startswith("transforms") for name in config.raw):
        return ()
    from cdc.transforms.chain import parse_chain

    return parse_chain(config.raw)


def source_chain(config: Config, connector: str, task: int = 0) -> Chain | None:
    """A source's chain between its poll and the log; None where none is configured."""
    steps = configured_steps(config)
    if not steps:
        return None
    tolerance, count = Tolerance.of(config), ErrorCounters()
    name, messages = f"{connector}-{task}", tolerance.log_messages
    log = [LogReporter(name, count, sink=False, messages=messages)] if tolerance.log else []
    return Chain(steps, Operator(tolerance, log, counters=count), sink=False)


class Chain:
    """The steps in order. One per task, used from one thread."""

    def __init__(self, steps: Sequence[Step], operator: Operator, *, sink: bool) -> None:
        self._steps = tuple(steps)
        self.operator = operator
        self._reader = RecordReader(sink=sink)
        self._writer = RecordWriter(sink=sink)
        self._plans: dict[str, _Whole | None] = {}

    def apply(self, block: Block, part: int | None = None) -> Block | None:
        """What the chain leaves of a block; None: nothing.

        ``part`` 0 takes only the rows' own records, 1 only the tombstones of deletes. Raises
        NotTolerated, and Stopped where a stop came between two attempts.
        """
        plans = [self._plan(schema) for schema in block.schemas]
        if part is None and all(plan is not None for plan in plans):
            return self._whole(block, plans)  # type: ignore[arg-type] # none is None
        context = self._reader.context(block)
        out = Derived(block)
        numbers = [None if p is None else out.schema(p.schema) for p in plans]
        for row, index in enumerate(block.schema):
            plan, number = plans[index], numbers[index]
            if plan is None or number is None or part is not None:
                self._transform(out, context, row, part)
            else:
                out.keep(row, number, _edited(plan.edits, context, row))
        return out.block()

    def decoded(self, block: Block | EncodedBlock) -> Block | None:
        """The same for a block that a snapshot's reader has encoded."""
        return self.apply(block if isinstance(block, Block) else block.decode())

    # --- rows as they are

    def _whole(self, block: Block, plans: Sequence[_Whole]) -> Block:
        schemas = tuple(plan.schema for plan in plans)
        if any(plan.edits for plan in plans):
            context = self._reader.context(block)
            headers = dict(block.headers)
            for row, index in enumerate(block.schema):
                edited = _edited(plans[index].edits, context, row)
                if edited is not None:
                    headers[row] = edited
            return replace(block, schemas=schemas, headers=headers)
        if all(new is old for new, old in zip(schemas, block.schemas, strict=True)):
            return block
        return replace(block, schemas=schemas)

    def _plan(self, schema: EventSchema) -> _Whole | None:
        """How the rows of a schema stay as they are; None: some step wants Records."""
        known = schema.fingerprint
        if known not in self._plans:
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            self._plans[known] = self._make_plan(schema)
        return self._plans[known]

    def _make_plan(self, schema: EventSchema) -> _Whole | None:
        topic = schema.destination
        edits: list[EditHeaders] = []
        for step in self._steps:
            if step.predicate is not None:
                if not isinstance(step.predicate, TopicPredicate):
                    return None
                if step.predicate.test_topic(topic) == step.negate:
                    continue
            if isinstance(step.transform, Routing):
                try:
                    topic = step.transform.route(topic)
                except Exception:  # noqa: BLE001 - the operator decides, record by record
                    return None
            elif isinstance(step.transform, HeaderEditing):
                edits.append(step.transform.edit_headers)
            else:
                return None
        if not topic:
            return None  # a table that is routed to nothing is one that is not routed
        return _Whole(_moved_to(schema, topic), tuple(edits))

    # --- rows as Records

    def _transform(self, out: Derived, context: Context, row: int, part: int | None) -> None:
        for number, before in enumerate(self._reader.records(context, row)):
            if part is not None and number != part:
                continue
            after = self._run(context.block, row, number, before)
            if after is None or after is SKIPPED:
                continue
            try:
                self._writer.add(out, context, row, after, before)
            except Exception as error:  # noqa: BLE001 - the operator decides
                # A value that its schema does not allow: Connect finds that in the converter.
                add = partial(self._writer.add, out, context, row, after, before)
                place = _Place(context.block, row, number, before)
                failure = partial(place.failure, Stage.VALUE_CONVERTER, VALUE_CONVERTER)
                self.operator.recover(add, error, failure)

    def _run(
        self, block: Block, row: int, part: int, record: Record
    ) -> Record | Literal[Skipped.SKIPPED] | None:
        current: Record | None = record
        for step in self._steps:
            before = current
            try:
                current = step.apply(before)  # type: ignore[arg-type] # the last one was no None
            except Exception as error:  # noqa: BLE001 - the operator decides
                apply = partial(step.apply, before)  # type: ignore[arg-type]
                place = _Place(block, row, part, record)
                failure = partial(place.failure, Stage.TRANSFORMATION, step.java_class)
                result = self.operator.recover(apply, error, failure)
                if result is SKIPPED:
                    return SKIPPED
                current = result
            if current is None:
                return None
        return current


class _Place(NamedTuple):
    """Which record is at work."""

    block: Block
    row: int
    part: int
    record: Record

    def failure(self, stage: Stage, java_class: str, error: Exception) -> Failure:
        """What to report of it."""
        return Failure(stage, java_class, error, self.block, self.row, self.part, self.record)


def _moved_to(schema: EventSchema, topic: str) -> EventSchema:
    if topic == schema.destination:
        return schema
    recorded = schema.kind == "record"
    return replace(schema, topic=topic) if recorded else replace(schema, routed=topic)


def _edited(edits: Sequence[EditHeaders], context: Context, row: int) -> RowHeaders | None:
    """A row's headers after all edits; None: there are none."""
    if not edits:
        return None
    plain = row not in context.block.moved and row not in context.block.headers
    if plain and context.block.op[row] != MESSAGE:  # most rows share the connector's headers
        shared = context.edited.get(edits)
        if shared is None:
            shared = context.edited[edits] = _apply(edits, context.headers)
        return shared
    return _apply(edits, headers_before(context, row))


def _apply(edits: Sequence[EditHeaders], headers: tuple[Header, ...]) -> RowHeaders:
    for edit in edits:
        headers = edit(headers)
    return dumped_headers(headers)
