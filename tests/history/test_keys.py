"""A row is found by its key, however a person writes it; what is no value of its type is said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc.errors import ConfigError
from cdc.history import history
from tests.fix_postgres import Database, ServerPool
from tests.pipeline import Pipeline

UUID = "'5F0C2A1E-0000-4000-8000-00000000000a'"
MOMENT = "2026-03-01 12:00:00"
LONG = "1234567890123456789012345678.1234567890"
# type → the key's SQL, how it may be written, what is none
KEYS: dict[str, tuple[str, list[Any], list[Any]]] = {
    "smallint": ("7", ["7", 7], ["32768", "7.0", "x", "true"]),
    "bigint": ("-9007199254740993", [-9007199254740993], ["9223372036854775808", '{"k":1.5}']),
    "boolean": ("true", ["true", "t", {"k": True}], ["yes?", "2"]),
    "real": ("1.1", ["1.1", 1.1], ["one"]),
    "double precision": ("'NaN'", ["NaN", "nan"], ["none"]),
    "numeric(10,2)": ("12.5", ["12.50", "12.5", {"k": 12.5}], ["12.505", "twelve", "NaN"]),
    "numeric(38,10)": (LONG, [LONG], [LONG + "1"]),
    "numeric": ("100.250", ["100.25", "100.2500"], ["a", "Infinity"]),
    "money": ("7.5", ["7.5", "7.50"], ["$7"]),
    "text": ("'a,b=c'", ["a,b=c", {"k": "a,b=c"}], ['{"k":1.5}', '{"k":', '{"kk":"a"}']),
    "varchar(9)": ("'42'", ["42", 42, '{"k":"42"}'], ['{"k":true}']),
    "char(3)": ("'ab'", ["ab "], ['{"k":[]}']),
    "mood": ("'sad, or so'", ["sad, or so"], ["happy"]),
    "uuid": (UUID, [UUID.strip("'"), UUID.strip("'").lower(), UUID.replace("-", "").strip("'")],
             ["nonsense", "5f0c2a1e", {"k": 5}]),
    "bytea": ("'\\xdead'", ["\\xdead", "\\xDEAD", "3q0="], ["\\xdea", "de ad"]),
    "bit(6)": ("B'000101'", ["000101"], ["000102"]),
    "inet": ("'10.0.0.1'", ["10.0.0.1"], [{"k": [1]}]),
    "date": ("'2026-03-01'", ["2026-03-01", 20513], ["2026-02-30", "soon", {"k": True}]),
    "timestamp": (f"'{MOMENT}.5'", [f"{MOMENT}.5", "2026-03-01T12:00:00.500000",
                                   "2026-03-01T13:00:00.5+01:00"], ["soon", "2026-03-01T25:00"]),
    "timestamp(3)": (f"'{MOMENT}'", [MOMENT, "2026-03-01T12:00"], ["12:00"]),
    "timestamptz": (f"'{MOMENT}Z'", ["2026-03-01T12:00:00Z", MOMENT, "2026-03-01T13:00:00+01:00",
                                    "2026-03-01T12:00:00.000000Z"], ["soon", "2026-03-01T12:61"]),
    "timestamptz(0)": ("'infinity'", ["infinity"], ["forever"]),
    "timestamptz(3)": (f"'{MOMENT}.25Z'", [f"{MOMENT}.25"], ["1772366400"]),
    "time": ("'08:30:00.25'", ["08:30:00.25"], ["8 h", "25:00"]),
    "timetz": ("'08:30:00+01'", ["08:30:00+01:00", "07:30", "07:30:00Z"], ["soon"]),
    "interval": ("'1 day'", ["86400000000"], ["one day"]),
    "int4[]": ("'{1,2}'", ["[1,2]", {"k": [1, 2]}], ["{1,2}", "[1,x]", "7"]),
}  # fmt: skip
ISO = {
    "date": ("'0044-03-15 BC'", ["-0043-03-15"], ["soon"]),
    "timestamp": (f"'{MOMENT}.5'", [f"{MOMENT}.50", "2026-03-01T12:00:00.5Z"], ["soon"]),
    "time": ("'08:30:00'", ["08:30", "08:30:00Z"], ["soon"]),
    "interval": ("'1 day'", ["P0Y0M1DT0H0M0S"], ["1 day", "P1D"]),
    "timestamptz": ("'12026-03-01 12:00:00Z'", ["+12026-03-01T12:00:00Z"], ["later"]),
    "numeric(10,2)": ("12.5", ["12.50"], ['{"k":true}']),
}  # fmt: skip
MODES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "adaptive": (KEYS, {}),
    "isostring": (
        ISO,
        {
            "time_precision_mode": "isostring",
            "interval_handling_mode": "string",
            "decimal_handling_mode": "string",
        },
    ),
}
CASES = [(mode, kind) for mode, (types, _) in MODES.items() for kind in types]


def name_of(kind: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in kind)


@pytest.fixture(scope="module")
def journals(
    postgres_pool: ServerPool, postgres_major: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A journal by mode: a table by type of key, each with the row and, for some, another."""
    database = Database(postgres_pool.get(postgres_major), f"keys_{os.getpid()}")
    database.create()
    folder = tmp_path_factory.mktemp("journals")
    try:
        database.execute("CREATE TYPE mood AS ENUM ('sad, or so', 'glad')")
        for mode, (types, settings) in MODES.items():
            for kind, (value, _, _) in types.items():
                table = f"{mode}.{name_of(kind)}"
                database.execute(
                    f"CREATE SCHEMA IF NOT EXISTS {mode};"
                    f"CREATE TABLE {table} (k {kind} PRIMARY KEY); INSERT INTO {table}"
                    f" VALUES ({value})"
                )
            with Pipeline(
                folder / mode,
                database.dsn,
                schema_include_list=mode,
                slot_name=f"keys_{mode}",
                publication_name=f"keys_{mode}",
                **settings,
            ) as pipeline:
                count = len(types)
                pipeline.until(lambda events, n=count: len(events) == n, "the rows")
        yield folder
    finally:
        database.drop()


@pytest.mark.parametrize(("mode", "kind"), CASES, ids=[f"{m}-{name_of(k)}" for m, k in CASES])
def test_a_key_is_found_or_refused_as_none_of_its_type(
    journals: Path, mode: str, kind: str
) -> None:
    _, right, wrong = MODES[mode][0][kind]
    table = f"{mode}.{name_of(kind)}"
    for key in right:
        assert [v.op for v in history(journals / mode, table, key)] == ["r"], key
    for key in wrong:
        with pytest.raises(ConfigError, match=r"k: .* is no |is not JSON|missing|not in the key"):
            history(journals / mode, table, key)
