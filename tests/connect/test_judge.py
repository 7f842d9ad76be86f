"""The judge itself: what is sent to it comes back as it was."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from schemas import Field, Schema
from tests.connect import strategies
from tests.connect.judge import CONNECT, JavaError, Judge
from tests.connect.seeded import generated

JSON = CONNECT + "json.JsonConverter"


@generated(100)
@given(typed=strategies.typed())
def test_schemas_and_values_travel_there_and_back(judge: Judge, typed: tuple[Schema, Any]) -> None:
    schema, value = typed
    assert judge.schema(schema) == schema
    judge.validate(schema, value)


def test_an_exception_arrives_with_its_class_and_its_text(judge: Judge) -> None:
    schema = Schema("struct", fields=(Field("a", Schema("int32")),))
    with pytest.raises(JavaError) as caught:
        judge.put(schema, "b", 1)
    assert caught.value.class_name == CONNECT + "errors.DataException"
    assert caught.value.message == "b is not a valid field name"


def test_a_converter_of_connects_writes_bytes(judge: Judge) -> None:
    assert judge.from_connect(JSON, {"schemas.enable": "false"}, "t", None, {"a": 1}) == b'{"a":1}'
