"""Arrays and maps whose elements have no schema in common: what literals of headers become."""

from __future__ import annotations

import pytest

from cdc.converters.json import JsonConverter
from schemas import Schema
from schemas.codec import dumper, loader
from schemas.literals import parse_string


@pytest.mark.parametrize("text", ["[]", '[1,"a"]', "{}", '{"a":1,"b":"c"}'])
def test_a_literal_of_mixed_elements_is_written_and_stored(text: str) -> None:
    schema, value = parse_string(text)
    assert schema is not None
    assert (schema.items, schema.values) == (None, None)
    assert Schema.from_dict(schema.to_dict()) == schema
    for plan in (loader(schema), dumper(schema)):
        assert (value if plan is None else plan(value)) == value
    assert JsonConverter(False).from_connect("t", schema, value) == text.encode()


def test_a_missing_schema_of_elements_is_null_in_json() -> None:
    schema, value = parse_string("[]")
    assert JsonConverter().from_connect("t", schema, value) == (
        b'{"schema":{"type":"array","items":null,"optional":false},"payload":[]}'
    )
