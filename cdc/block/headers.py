"""RowHeaders: the headers of one row of a Block, and how a block's header stores them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from schemas import Schema

# (name, JSON form of the value, its schema or None) of every header, in order.
RowHeaders = tuple[tuple[str, bytes, Schema | None], ...]


def dump_headers(headers: Mapping[int, RowHeaders]) -> dict[str, Any]:
    """JSON of rows' headers. Rows commonly share theirs: each set and schema is written once."""
    sets: dict[tuple[tuple[str, bytes, int], ...], int] = {}
    schemas: dict[str, int] = {}
    numbers: dict[int, int] = {}  # by identity, which rows that share a set share too

    def schema_number(schema: Schema | None) -> int:
        if schema is None:
            return -1
        return schemas.setdefault(schema.to_json().decode(), len(schemas))

    def set_number(row: RowHeaders) -> int:
        number = numbers.get(id(row))
        if number is None:
            plain = tuple((name, value, schema_number(schema)) for name, value, schema in row)
            number = numbers[id(row)] = sets.setdefault(plain, len(sets))
        return number

    rows = {str(row): set_number(own) for row, own in headers.items()}
    texts = [[(name, value.decode(), schema) for name, value, schema in own] for own in sets]
    return {"rows": rows, "sets": texts, "schemas": list(schemas)}


def load_headers(raw: Mapping[str, Any]) -> dict[int, RowHeaders]:
    """The inverse of :func:`dump_headers`."""
    schemas = [Schema.from_dict(orjson.loads(text)) for text in raw["schemas"]]
    sets: list[RowHeaders] = [
        tuple(
            (name, value.encode(), None if schema < 0 else schemas[schema])
            for name, value, schema in own
        )
        for own in raw["sets"]
    ]
    return {int(row): sets[number] for row, number in raw["rows"].items()}
