"""A column that a copy got before the source's was altered takes the wider values whole or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cdc.errors import SinkRejected
from schemas import Schema
from tests.blocks import (
    DATE,
    DOUBLE,
    FLOAT,
    INT32,
    INT64,
    MICRO_TIMESTAMP,
    STRING,
    VARIABLE_DECIMAL,
    ZONED_TIMESTAMP,
    Source,
    array_of,
    base64,
    decimal,
    event_schema,
    optional,
    unscaled,
)
from tests.contract.targets import PostgresTarget, SqliteTarget
from tests.contract.test_sql_sink import rows, write
from tests.fix_postgres import Database

_NOON = (86400 + 43200) * 1_000_000
_THIRD = {"scale": 4, "value": base64(b"\x0d\x05")}  # 0.3333

# Before and after ALTER TABLE … TYPE at the source; a value that the older type holds as well,
# as the copy shows it; one that it does not; what the copy's column has to become.
CASES: list[tuple[Schema, Schema, Any, str, Any, str]] = [
    (decimal(6, 2), decimal(20, 6), unscaled(1250000), "1.25", unscaled(1123456), "numeric(20,6)"),
    (decimal(6, 2), VARIABLE_DECIMAL, {"scale": 1, "value": "Dw=="}, "1.50", _THIRD, "numeric"),
    (decimal(6, 2), DOUBLE, 1.25, "1.25", 0.001, "double precision"),
    (DOUBLE, decimal(30, 20), unscaled(5 * 10**19), "0.5", unscaled(10**20 + 1), "numeric(30,20)"),
    (DOUBLE, INT64, 2**53, "9.007199254740992e+15", 2**53 + 1, "bigint"),
    (FLOAT, DOUBLE, 0.5, "0.5", 0.1, "double precision"),
    (DATE, MICRO_TIMESTAMP, 86400_000_000, "1970-01-02", _NOON, "timestamp"),
    (DATE, ZONED_TIMESTAMP, "infinity", "infinity", "1970-01-02T12:00:00Z", "timestamptz"),
    (
        array_of(decimal(6, 2)),
        array_of(decimal(20, 6)),
        [unscaled(1250000), None],
        "{1.25,NULL}",
        [unscaled(1123456)],
        "numeric(20,6)[]",
    ),
]


def test_a_value_is_never_rounded_to_what_the_column_was(database: Database) -> None:
    target = PostgresTarget(database)
    for number, (before, after, fits, shown, wider, ddl) in enumerate(CASES):
        name, shop = f"t{number}", Source(offset=number * 4)
        shop.insert(event_schema(name, {"id": INT32, "v": optional(before)}), id=0, v=None)
        altered = event_schema(name, {"id": INT32, "v": optional(after)})
        shop.insert(altered, id=1, v=fits)
        shop.insert(altered, id=2, v=None)
        write(target, shop.block())
        assert target.query(f"SELECT v::text FROM {name} WHERE id = 1") == [{"v": shown}]
        shop.insert(altered, id=3, v=wider)
        block = shop.block()
        with pytest.raises(SinkRejected, match='column "v" of type') as caught:
            write(target, block)
        statement = f'ALTER TABLE "{name}" ALTER "v" TYPE {ddl}'
        assert str(caught.value.remedy).startswith(f"{statement}, or")
        target.execute(statement)
        write(target, block)
        assert target.query(f"SELECT count(*) FROM {name}") == [{"count": 4}]


def test_who_makes_the_tables_may_mean_it(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    target, shop = PostgresTarget(database), Source()
    target.options |= {"auto.create": "false", "auto.evolve": "false"}
    target.execute("CREATE TABLE items (id int PRIMARY KEY, v numeric(6,2))")
    shop.insert(
        event_schema("items", {"id": INT32, "v": decimal(20, 6)}), id=1, v=unscaled(1123456)
    )
    write(target, shop.block())
    assert [str(row[1]) for row in rows(target)] == ["1.12"]
    said = "column v is numeric(6,2), which changes values of the source's numeric(20,6)"
    assert caplog.text.count(said) == 1


def test_numbers_of_sqlite_that_have_become_text_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its columns take any value, and make a number of what looks like one."""
    target, shop = SqliteTarget(tmp_path), Source()
    shop.insert(event_schema("items", {"id": INT32, "v": optional(INT32)}), id=1, v=7)
    write(target, shop.block())
    assert "which changes values" not in caplog.text
    shop.insert(event_schema("items", {"id": INT32, "v": optional(STRING)}), id=2, v="007")
    write(target, shop.block())
    assert [row[1] for row in rows(target)] == [7, 7]
    assert "column v is INTEGER, which changes values of the source's TEXT" in caplog.text
