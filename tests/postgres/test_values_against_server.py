"""The recorded inputs, written and read back by a real server, through the same plans.

It proves that the text in tests/data/postgres_types.json is what this server's version sends
under the engine's session settings, by COPY and by a cast alike.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from cdc.postgres.catalog import read_tables, read_type, read_types
from cdc.postgres.types import TypeCatalog
from cdc.postgres.values import ValueOptions, plan_column
from schemas import Column
from tests.fix_postgres import Database

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "postgres_types.json").read_text()
)
SESSION = (
    "-c datestyle=ISO -c intervalstyle=postgres -c bytea_output=hex -c extra_float_digits=3"
    " -c timezone=UTC -c lc_monetary=C"
)
# Types of the first run every server has, with what Debezium wrote for each text.
BUILTIN = [
    column
    for column in RECORDED["runs"][0]["columns"]
    if column["values"]
    and TypeCatalog().get(column["oid"])
    and "serial" not in column["type"]
    and column["type"] != "xml"  # only where the server was built with libxml
]


def test_every_recorded_text_comes_back_as_it_went_in(
    database: Database, postgres_major: int
) -> None:
    # A numeric's scale may be negative or above its precision since 15.
    newer = ("numeric(4,-2)", "numeric(3,5)") if postgres_major < 15 else ()
    recorded = [column for column in BUILTIN if column["type"] not in newer]
    names = [f"c{number}" for number in range(len(recorded))]
    columns = ", ".join(f"{n} {c['type']}" for n, c in zip(names, recorded, strict=True))
    with database.connect(options=SESSION) as conn:
        conn.execute(f"CREATE TABLE t (row_number int, {columns})".encode())
        depth = max(len(column["values"]) for column in recorded)
        for row in range(depth):
            with conn.cursor().copy("COPY t FROM STDIN") as copy:
                copy.write_row([row, *(_nth(column, row)[0] for column in recorded)])
        types = read_types(conn, lambda oid: read_type(conn, oid))
        (info,) = read_tables(conn, lambda table: table.table == "t")
        plans = [plan_column(column, types, ValueOptions()) for column in info.schema.columns]
        with conn.cursor().copy("COPY (SELECT * FROM t ORDER BY row_number) TO STDOUT") as copy:
            rows = list(copy.rows())
    assert len(rows) == depth
    for row in rows:
        for column, plan, raw in zip(recorded, plans[1:], row[1:], strict=True):
            text, expected = _nth(column, int(str(row[0])))
            assert raw == text, column["type"]
            if plan is not None and raw is not None and column["default"] is None:
                assert json.loads(plan.recover(raw.encode())) == expected, column["type"]


# As in Debezium: its JDBC driver knows no type for them.
LEFT_OUT = frozenset(
    "aclitem box cid circle gtsvector jsonpath line lseg path pg_brin_bloom_summary"
    " pg_brin_minmax_multi_summary pg_dependencies pg_lsn pg_mcv_list pg_ndistinct pg_node_tree"
    " pg_snapshot polygon refcursor regclass regcollation regconfig regdictionary regnamespace"
    " regoper regoperator regproc regprocedure regrole regtype tid tsquery txid_snapshot xid xid8"
    " datemultirange int4multirange int8multirange nummultirange tsmultirange"
    " tstzmultirange".split()
)
# Facts §2.1: it has a form for the element, and none for the array.
LEFT_OUT_IN_ARRAYS = frozenset("money name interval varbit xml point".split())


@pytest.mark.postgres_versions(12, 18)
def test_every_built_in_type_has_a_loader_or_is_left_out_as_in_debezium(database: Database) -> None:
    with database.connect() as conn:
        types = read_types(conn)
        rows = conn.execute(
            "SELECT typname, oid::int8 FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace"
            " AND typtype NOT IN ('c', 'p') AND (typcategory <> 'A' OR typelem IN"
            " (SELECT oid FROM pg_type WHERE typtype NOT IN ('c', 'p')))"
        ).fetchall()
    assert len(rows) > 120
    without = {name for name, oid in rows if plan_column(Column("c", oid), types) is None}
    arrays = {f"_{name}" for name in LEFT_OUT | LEFT_OUT_IN_ARRAYS}
    assert without == (LEFT_OUT | arrays) & {name for name, _ in rows}


def _nth(column: dict[str, Any], row: int) -> tuple[str | None, Any]:
    values = column["values"]
    return tuple(values[row]) if row < len(values) else (None, None)


@pytest.mark.parametrize("year", [1, 1582, 1969, 1970, 2000, 2038, 9999])
def test_every_month_of_a_year_counts_as_the_server_counts(database: Database, year: int) -> None:
    query = sql.SQL(
        "SELECT to_char(d, 'YYYY-MM-DD'), d - DATE '1970-01-01' FROM"
        " (SELECT make_date({}, m, 1) + k AS d FROM generate_series(1, 12) m,"
        " unnest(ARRAY[-1, 0, 14, 27]) k) x WHERE d >= DATE '0001-01-01'"
    ).format(year)
    with database.connect(options=SESSION) as conn:
        rows = conn.execute(query).fetchall()
        types = read_types(conn)
    column = next(c for c in BUILTIN if c["type"] == "date")
    plan = plan_column(Column("d", column["oid"]), types)
    assert plan is not None
    assert plan.load is not None
    assert all(int(plan.load(text.encode())) == days for text, days in rows)
