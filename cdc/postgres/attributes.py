"""Attributes: what a table's columns were when it was read, and what its rows have got since. Pure.

ALTER TABLE gives rows values that no change in the log tells of. Such are told apart from what
leaves the rows as they are by each column's attnum, name and type:

* the table is written anew (a volatile default, another type): another file, other columns;
* a column gets another name: the same attnum, the rows' values are under the new name; or it
  is dropped and made again: another attnum, and rows that had a value under it have none;
* a column is added with a default that is evaluated once, at that moment (``now()``): the
  server keeps that value beside the column (attmissingval). Where it is what the default in
  the events' schema says, whoever reads those can fill old rows by themselves.

What happens between two looks is seen where it leaves a trace: of a table that is made, filled
and altered, in the column (attmissingval, an attnum that is missing), or in the stream, whose
rows come with the names that their columns had then.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b

import orjson

from cdc.postgres.catalog import TableInfo
from cdc.postgres.chunks import TableProgress
from cdc.postgres.values import LOAD_ERRORS, ColumnPlan
from schemas import Column

# Of a mark, how many letters are the name's; as many are the type's.
NAME_LETTERS = 4


def attributes(info: TableInfo, before: Sequence[str] = ()) -> tuple[str, ...]:
    """A mark of each column's name and type, by attnum.

    A column that was dropped has the mark it had ``before``, else none: a copy has its values.
    """
    marks = dict(enumerate(before, 1))
    marks.update(zip(info.numbers, map(_mark, info.schema.columns), strict=True))
    return tuple(marks.get(number, "") for number in range(1, max(marks, default=0) + 1))


def news(
    known: TableProgress, info: TableInfo, plans: Sequence[tuple[Column, ColumnPlan | None]]
) -> str:
    """Why rows have values that no event tells of; empty: they have none.

    ``known`` is how the table was read, ``plans`` are of the columns that are captured.
    """
    if not known.attributes:
        return ""  # read by a version that did not keep them
    rewritten, now = known.file != info.file_node, attributes(info)
    numbers = dict(zip(info.schema.column_names, info.numbers, strict=True))
    names = {mark[:NAME_LETTERS] for mark in known.attributes}
    for column, plan in plans:
        at = numbers[column.name] - 1
        was = known.attributes[at] if at < len(known.attributes) else ""
        if was == now[at]:
            continue
        if rewritten:
            return "was rewritten with other columns"
        if was[:NAME_LETTERS] != now[at][:NAME_LETTERS]:
            if was:
                return f"has a column renamed to {column.name}"
            if now[at][:NAME_LETTERS] in names:
                return f"has a column {column.name} that was dropped and made again"
            if plan is not None and not _says(plan, info.filled.get(column.name)):
                return f"has a new column {column.name} with a default of that moment"
    return ""


def is_as_made(info: TableInfo, plans: Sequence[tuple[Column, ColumnPlan | None]]) -> bool:
    """Of a table that is seen for the first time: whether its rows can have but what they came
    with. A column that was renamed leaves no trace here (see :func:`had_others`).
    """
    return max(info.numbers, default=0) == len(info.numbers) and all(
        plan is None or _says(plan, info.filled.get(column.name)) for column, plan in plans
    )


def had_others(known: TableProgress, info: TableInfo, names: Sequence[str]) -> bool:
    """Whether rows came with columns, in their order, that the table has under other names now.

    Also where it never was seen with them (by ``known``): made and renamed between two looks.
    """
    if not known.attributes:
        return False
    marks, now = {mark[:NAME_LETTERS] for mark in known.attributes}, info.schema.column_names
    there = [name for name in names if name in now]
    gone = any(name not in now and _letters(name) not in marks for name in names)
    return gone or there != [name for name in now if name in there]


def _says(plan: ColumnPlan, filled: str | None) -> bool:
    """Whether the schema's default is what old rows hold; what no event can hold, none lacks."""
    if filled is None:
        return True
    try:
        value = plan.load(filled.encode()) if plan.load is not None else filled
    except LOAD_ERRORS:
        return True
    return bool(orjson.loads(value) == plan.schema.default)


def _mark(column: Column) -> str:
    return _letters(column.name) + _letters(f"{column.type_id} {column.modifier}")


def _letters(text: str) -> str:
    digest = blake2b(text.encode(), digest_size=NAME_LETTERS * 6 // 8).digest()
    return urlsafe_b64encode(digest).decode()
