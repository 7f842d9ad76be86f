"""Tables of a journal by name, with all the structures they have had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from cdc.errors import ConfigError
from schemas import EventSchema

SHOWN_MAX = 10


def find_table(known: Mapping[str, EventSchema], name: str) -> list[EventSchema]:
    """The schemas of ``schema.table``, or of ``table`` where only one schema has it.

    Those of records that transforms have made of its rows are among them: whatever topic they
    have, it is the source's table that they are found by. Raises ConfigError for any other
    name, with the nearest ones.
    """
    tables: dict[str, list[EventSchema]] = {}
    for schema in known.values():
        if schema.kind == "table" or (schema.kind == "record" and schema.table.table):
            tables.setdefault(str(schema.table), []).append(schema)
    found = [full for full in tables if full == name]
    found = found or [full for full in tables if tables[full][0].table.table == name]
    if len(found) == 1:
        return tables[found[0]]
    if found:
        raise ConfigError(f"table {name} is not unique", remedy=f"Say {' or '.join(found)}")
    raise ConfigError(f"the journal has no table {name}", remedy=nearest(name, tables))


def check_columns(schemas: Iterable[EventSchema], columns: Iterable[str]) -> None:
    """Raises ConfigError for a column the table never had."""
    known = {f.name: None for schema in schemas for f in schema.row.fields}
    for name in columns:
        if name not in known:
            raise ConfigError(f"there is no column {name}", remedy=nearest(name, known))


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that helps."""
    names = sorted(known)
    short = {n.rpartition(".")[2]: n for n in names} | {n: n for n in names}
    close = dict.fromkeys(short[n] for n in get_close_matches(name, short, n=3, cutoff=0.6))
    if close:
        return f"Did you mean {' or '.join(close)}?"
    if not names:
        return "It holds no rows yet"
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return f"There are: {', '.join(names[:SHOWN_MAX])}{more}"
