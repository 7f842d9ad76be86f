"""Our plans against what Debezium itself emitted, recorded in tests/data/postgres_types.json.

Each run of the recording is one set of options; it lists the columns whose events differ from
the first run's. ``departures`` lists where we differ on purpose, with what Debezium wrote.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cdc.postgres.types import PgType, TypeCatalog
from cdc.postgres.values import ColumnPlan, ValueOptions, plan_column
from schemas import Column

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "postgres_types.json").read_text()
)
TYPES = TypeCatalog(PgType(*row[:8], labels=tuple(row[8])) for row in RECORDED["types"])


def _cases(part: str) -> list[Any]:
    return [
        pytest.param(run["options"], column, id=f"{number}-{index}-{column.get('type', '')}")
        for number, run in enumerate(RECORDED[part])
        for index, column in enumerate(run["columns"])
    ]


def _plan(options: dict[str, Any], recorded: dict[str, Any]) -> ColumnPlan | None:
    column = Column(
        "c",
        recorded["oid"],
        recorded["modifier"],
        recorded.get("nullable", True),
        recorded.get("default"),
    )
    return plan_column(column, TYPES, ValueOptions(**options))


def _emitted(plan: ColumnPlan, raw: str | None) -> Any:
    """As the JSON converter writes it: null gives way to the schema's default."""
    value = json.loads(plan.null if raw is None else plan.recover(raw.encode()))
    return plan.schema.default if value is None else value


@pytest.mark.parametrize(("options", "recorded"), _cases("runs"))
def test_schema_values_and_fallback_are_debeziums(
    options: dict[str, Any], recorded: dict[str, Any]
) -> None:
    plan = _plan(options, recorded)
    assert (plan.schema.to_dict() if plan else None) == recorded["schema"]
    if plan is None:
        return
    for raw, expected in recorded["values"]:
        assert json.dumps(_emitted(plan, raw)) == json.dumps(expected), raw
    if "null" in recorded:
        assert _emitted(plan, None) == recorded["null"]


@pytest.mark.parametrize(("options", "recorded"), _cases("unavailable"))
def test_a_toasted_value_that_was_not_sent_is_debeziums_placeholder(
    options: dict[str, Any], recorded: dict[str, Any]
) -> None:
    plan = _plan(options, recorded)
    assert plan is not None
    assert json.loads(plan.unavailable) == recorded["unavailable"]


def test_every_departure_from_debezium_has_a_reason() -> None:
    assert RECORDED["departures"]
    assert all(departure["reason"] for departure in RECORDED["departures"])
