"""Rows of the SQL sink: what happened to each key of a block, and in which statements.

Within a block the last state of a key wins. Deletes run before upserts, and a key that was
deleted and created again is in both, so that columns nobody sends are reset as they were at
the source. If a statement is refused, the block's rows for that table are applied one by one
in their own order: that finds the row, and gets through where only the grouping was at fault
(a unique column whose value moved from one row to another).

A key change is a delete and a create. Where the create lacks values that the server did not
send, they are in the row under the old key only: that row's key is changed in the target, and
the create then leaves those columns alone like any update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from cdc.api import RowReporter
from cdc.block import CREATE, DELETE, READ, TRUNCATE, UPDATE, Block
from cdc.errors import CdcError, SinkRejected
from schemas import EventSchema
from sinks import sql_dialect as kinds
from sinks.moves import Moves
from sinks.sql_dialect import SHORT_NAMES, Column, Dialect, Statement
from sinks.sql_tables import TablePlan

_SAVEPOINT = "cdc_batch"
# A row as it will be written: its JSON and the fields that were not sent.
_Image = tuple[bytes, tuple[int, ...]]


class RowError(Exception):
    """A driver's error and the row that caused it, without values."""

    def __init__(self, error: Exception, where: str) -> None:
        super().__init__(where)
        self.error, self.where = error, where


class _Batch:
    """What a run of rows does to one table; rows are named by their number in the block."""

    __slots__ = ("deletes", "merged", "plan", "rows", "truncate", "upserts")

    def __init__(self, plan: TablePlan) -> None:
        self.plan = plan
        self.rows: list[int] = []
        self.truncate = False
        self.deletes: dict[bytes, int] = {}
        self.upserts: dict[bytes, int] = {}
        self.merged: dict[int, _Image] = {}


class Writer:
    """Writes blocks through one connection, inside the open transaction."""

    def __init__(
        self,
        connection: Any,
        dialect: Dialect,
        config: Mapping[str, Any],
        plan: Callable[[EventSchema], TablePlan | None],
        reporter: RowReporter | None = None,
    ) -> None:
        self._connection, self._dialect, self._reporter = connection, dialect, reporter
        self._plan, self._order = plan, Moves()
        self._refusals: dict[str, SinkRejected] = {}  # by schema
        self._mode: str = config["insert.mode"]
        self._keyed = self._mode != kinds.INSERT
        self._deletes: bool = config["delete.enabled"]
        self._batch_size: int = config["batch.size"]

    def write(self, block: Block) -> None:
        """Apply the rows of a block, but for those that wait for the rest of a transaction."""
        block = self._order.join(block)
        plans = [self._planned(schema) for schema in block.schemas]
        known = {plan.name: plan for plan in plans if plan is not None and plan.plain_key}
        tables = [
            plan.name if plan is not None and plan.plain_key and self._deletes else None
            for plan in plans
        ]

        def present(table: str, keys: Sequence[bytes]) -> list[bytes]:
            return self._present(known[table], keys)

        ordered = self._order.arrange(block, tables, present)
        if ordered is not None:
            self._write(ordered, [self._planned(schema) for schema in ordered.schemas])

    def settle(self) -> None:
        """Apply what waits: all that came is to be made durable."""
        rest = self._order.release()
        if rest is not None:
            self._write(rest, [self._planned(schema) for schema in rest.schemas])

    def _planned(self, schema: EventSchema) -> TablePlan | None:
        """None for what is not written; a table that cannot be is, row by row, reported."""
        try:
            return self._plan(schema)
        except SinkRejected as error:
            if self._reporter is None:
                raise
            self._refusals[schema.fingerprint] = error
            return None

    def _report(self, block: Block, rows: Sequence[int]) -> None:
        refusal = self._refusals.get(block.schemas[block.schema[rows[0]]].fingerprint)
        if refusal is not None and self._reporter is not None:
            for row in rows:
                self._reporter.report(block, row, refusal)

    def _present(self, plan: TablePlan, keys: Sequence[bytes]) -> list[bytes]:
        statement = plan.statement(self._dialect, kinds.FIND)
        found: list[bytes] = []
        for at in range(0, len(keys), self._batch_size):
            some = keys[at : at + self._batch_size]
            rows = [{**orjson.loads(key), kinds.NUMBER: i} for i, key in enumerate(some)]
            numbers: list[int] = []
            error = self._attempt(partial(self._find, statement, orjson.dumps(rows), numbers))
            if error is None:
                found += [some[i] for i in numbers]
            elif len(some) > 1:
                found += [one for key in some for one in self._present(plan, [key])]
            # What the key's columns do not take is not there, and is refused when it is written.
        return found

    def _find(self, statement: Statement, rows: bytes, numbers: list[int]) -> None:
        numbers += self._dialect.find(self._connection, statement, rows)

    def _write(self, block: Block, plans: Sequence[TablePlan | None]) -> None:
        batches: dict[str, _Batch] = {}
        moves = self._moves(block)
        for schema, rows in _runs(block):
            plan = plans[schema]
            if plan is None:
                self._report(block, rows)
                continue
            batch = batches.get(plan.name)
            if batch is not None and batch.plan is not plan:
                # Another structure of the same table: what came before it goes first.
                self._flush(block, batch)
                batch = None
            if batch is None:
                batch = batches[plan.name] = _Batch(plan)
            if moves.isdisjoint(rows):
                batch.rows.extend(rows)
            else:
                batches[plan.name] = self._extend(block, batch, rows, moves)
        for batch in batches.values():
            self._flush(block, batch)

    # --- key changes ---

    def _moves(self, block: Block) -> set[int]:
        """Creates of key changes that lack values; they follow their deletes."""
        if not (block.moved and block.unchanged and self._deletes and self._mode == kinds.UPSERT):
            return set()
        return {
            row
            for row in block.moved
            if row in block.unchanged and block.op[row] == CREATE and row - 1 in block.moved
        }

    def _extend(self, block: Block, batch: _Batch, rows: Sequence[int], moves: set[int]) -> _Batch:
        """Add rows to a batch, which ends before each move; the one that takes more rows."""
        for row in rows:
            if row + 1 in moves:
                continue  # the delete: the move leaves nothing to delete
            if row in moves:
                self._flush(block, batch)
                self._move(block, batch.plan, row)
                batch = _Batch(batch.plan)
            batch.rows.append(row)
        return batch

    def _move(self, block: Block, plan: TablePlan, row: int) -> None:
        old, new = self._key_row(block, plan, row - 1), self._key_row(block, plan, row)
        self._run(plan, kinds.DELETE, [new])
        before = {kinds.OLD + name: value for name, value in orjson.loads(old).items()}
        self._run(plan, kinds.MOVE, [orjson.dumps({**orjson.loads(new), **before})])

    # --- one table ---

    def _flush(self, block: Block, batch: _Batch) -> None:
        error = self._refusal(block, batch) if batch.rows else None
        if error is None:
            return
        if self._reporter is None:
            self._apply_singly(block, batch)
        else:
            self._isolate(block, batch, error, self._reporter)

    def _apply_singly(self, block: Block, batch: _Batch) -> None:
        for row in batch.rows:
            single = _Batch(batch.plan)
            single.rows.append(row)
            error = self._refusal(block, single)
            if error is not None:
                raise self._refused(block, single, error)

    def _isolate(
        self, block: Block, batch: _Batch, error: Exception, reporter: RowReporter
    ) -> None:
        """Apply a batch that was refused, but for the rows that are at fault; report those."""
        rows = batch.rows
        if len(rows) == 1:
            reporter.report(block, rows[0], self._refused(block, batch, error))
            return
        middle = len(rows) // 2
        for some in (rows[:middle], rows[middle:]):
            part = _Batch(batch.plan)
            part.rows.extend(some)
            found = self._refusal(block, part)
            if found is not None:
                self._isolate(block, part, found, reporter)

    def _refusal(self, block: Block, batch: _Batch) -> Exception | None:
        return self._attempt(partial(self._apply, block, batch))

    def _attempt(self, run: Callable[[], None]) -> Exception | None:
        """Run statements; the target's error where it refuses them, and nothing is changed."""
        self._connection.cursor().execute(f"SAVEPOINT {_SAVEPOINT}")
        refused: Exception | None = None
        try:
            run()
        except CdcError:
            raise
        except Exception as error:
            if self._dialect.is_unavailable(error):
                raise
            self._connection.cursor().execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
            refused = error
        self._connection.cursor().execute(f"RELEASE SAVEPOINT {_SAVEPOINT}")
        return refused

    def _refused(self, block: Block, batch: _Batch, error: Exception) -> SinkRejected:
        """The error of a batch of one row: which it is, and which column, without values."""
        plan, (row,) = batch.plan, batch.rows
        said, remedy = self._dialect.explain(error)
        if block.afters[row] is not None:
            text, _ = self._image(block, batch, row)
            column = self._dialect.culprit(self._connection, plan.sql_name, plan.columns, text)
            if column is not None:
                said += f", column {column.target} of type {column.declared or column.actual}"
                remedy = _remedy(plan, column)
        offset = block.offsets[row] if block.offsets else -1
        keys = ", ".join(plan.key_fields) or "none"
        where = f"table {plan.name}: the row at offset {offset} (key columns: {keys})"
        return SinkRejected(f"{where} was refused: {said}", remedy=remedy)

    def _apply(self, block: Block, batch: _Batch) -> None:
        if self._keyed:
            self._apply_by_key(block, batch)
        else:
            self._apply_in_order(block, batch)

    def _apply_by_key(self, block: Block, batch: _Batch) -> None:
        self._collect(block, batch)
        if batch.truncate:
            self._dialect.truncate(self._connection, batch.plan.sql_name)
        if batch.deletes:
            keys = [self._key_row(block, batch.plan, row) for row in batch.deletes.values()]
            self._run(batch.plan, kinds.DELETE, keys)
        self._write_rows(block, batch, list(batch.upserts.values()))

    def _collect(self, block: Block, batch: _Batch) -> None:
        """Sort a batch's rows by what is to be done about each key."""
        ops, keys, unchanged = block.op, block.keys, block.unchanged
        plain, upserts = batch.plan.plain_key, batch.upserts
        for row in batch.rows:
            op = ops[row]
            if op in (READ, CREATE, UPDATE):
                key = keys[row] if plain else None
                if key is None:
                    key = self._row_key(block, batch.plan, row)
                if unchanged and row in unchanged and key in upserts:
                    batch.merged[row] = _merge(block, batch, upserts[key], row)
                upserts[key] = row
            elif op == DELETE and self._deletes:
                key = self._key_row(block, batch.plan, row)
                upserts.pop(key, None)
                batch.deletes[key] = row
            elif op == TRUNCATE and self._deletes:
                batch.truncate = True
                batch.deletes.clear()
                upserts.clear()

    def _apply_in_order(self, block: Block, batch: _Batch) -> None:
        """insert.mode=insert: every row is a row of its own, so nothing can be left out."""
        waiting: list[int] = []
        for row in batch.rows:
            op = block.op[row]
            if op in (READ, CREATE, UPDATE):
                waiting.append(row)
            elif op in (DELETE, TRUNCATE) and self._deletes:
                self._write_rows(block, batch, waiting)
                waiting = []
                if op == TRUNCATE:
                    self._dialect.truncate(self._connection, batch.plan.sql_name)
                else:
                    key = self._key_row(block, batch.plan, row)
                    self._run(batch.plan, kinds.DELETE, [key])
        self._write_rows(block, batch, waiting)

    # --- rows ---

    def _write_rows(self, block: Block, batch: _Batch, rows: Sequence[int]) -> None:
        plan = batch.plan
        images = [self._image(block, batch, row) for row in rows]
        if not block.unchanged:
            self._run(plan, self._mode, [text for text, _ in images])
            return
        groups: dict[tuple[int, ...], list[bytes]] = {}
        for text, unsent in images:
            groups.setdefault(unsent, []).append(text)
        for unsent, texts in groups.items():
            kind = self._mode
            if unsent and kind == kinds.UPSERT and plan.key_fields:
                kind = kinds.PARTIAL
            self._run(plan, kind, texts, unsent)

    def _image(self, block: Block, batch: _Batch, row: int) -> _Image:
        plan = batch.plan
        merged = batch.merged.get(row)
        text, unsent = merged or (block.afters[row] or b"{}", block.unchanged.get(row, ()))
        if plan.key_in_row:
            return text, unsent
        values = orjson.loads(text)
        values.update(self._key_values(block, plan, row))
        return orjson.dumps(values), unsent

    def _key_values(self, block: Block, plan: TablePlan, row: int) -> dict[str, Any]:
        if plan.kafka:
            offset = block.offsets[row] if block.offsets else -1
            return dict(zip(plan.kafka, (plan.schema.destination, 0, offset), strict=True))
        return _key_of(block, plan, row)

    def _key_row(self, block: Block, plan: TablePlan, row: int) -> bytes:
        """The JSON object that finds a row by its key."""
        key = block.keys[row]
        if plan.plain_key and key is not None:
            return key
        values = orjson.loads(block.befores[row] or b"{}") if key is None else {}
        values.update(_key_of(block, plan, row))
        return orjson.dumps({name: values.get(name) for name in plan.key_fields})

    def _row_key(self, block: Block, plan: TablePlan, row: int) -> bytes:
        """A row's key where it is not simply the record's."""
        if plan.kafka:
            return orjson.dumps(self._key_values(block, plan, row))
        values = orjson.loads(block.afters[row] or b"{}")
        if not plan.key_in_row:
            values.update(self._key_values(block, plan, row))
        return orjson.dumps({name: values.get(name) for name in plan.key_fields})

    def _run(
        self, plan: TablePlan, kind: str, rows: Sequence[bytes], unsent: tuple[int, ...] = ()
    ) -> None:
        if not rows:
            return
        statement = plan.statement(self._dialect, kind, unsent)
        for at in range(0, len(rows), self._batch_size):
            some = b"[%b]" % b",".join(rows[at : at + self._batch_size])
            self._dialect.run(self._connection, statement, some)


def _key_of(block: Block, plan: TablePlan, row: int) -> dict[str, Any]:
    """The columns of a row's record key."""
    values: Any = orjson.loads(block.keys[row] or b"{}")
    if plan.scalar:
        return {} if block.keys[row] is None else {plan.scalar: values}
    columns: dict[str, Any] = values
    return columns


def _remedy(plan: TablePlan, column: Column) -> str:
    others = "leave it out of the events (column.exclude.list at the source)"
    actual = column.declared or column.actual
    if column.type.ddl in (actual, SHORT_NAMES.get(actual)):
        return f"Change the value at the source, or {others}"
    return f"ALTER TABLE {plan.name} ALTER {column.target} TYPE {column.type.ddl}, or {others}"


def _runs(block: Block) -> Iterable[tuple[int, Sequence[int]]]:
    """Rows by schema, in the order of the block, as runs of neighbours."""
    start, column = 0, block.schema
    for row in range(1, len(column)):
        if column[row] != column[start]:
            yield column[start], range(start, row)
            start = row
    if len(column):
        yield column[start], range(start, len(column))


def _merge(block: Block, batch: _Batch, earlier: int, row: int) -> _Image:
    """A row whose unsent values are taken from an earlier row of the same block."""
    before = batch.merged.get(earlier)
    text, still = before or (block.afters[earlier] or b"{}", block.unchanged.get(earlier, ()))
    old, new = orjson.loads(text), orjson.loads(block.afters[row] or b"{}")
    names = batch.plan.field_names
    unsent = block.unchanged[row]
    for index in unsent:
        new[names[index]] = old.get(names[index])
    return orjson.dumps(new), tuple(i for i in unsent if i in still)
