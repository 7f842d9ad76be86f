"""Values the server did not send stay as they are in a copy, whatever a chain does to the row."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cdc.block import Block
from schemas import Field, Schema
from tests.blocks import INT32, STRING, Source, decimal, optional, unscaled
from tests.runtime.sinking import Copy
from tests.runtime.test_chain import AFTER, chain_config, chain_of

TEXT = "__debezium_unavailable_value"
BASE64 = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="
DOUBLES = Schema("array", items=Schema("double", optional=True))
TEXTS = Schema("array", items=optional(STRING))
POINT = Schema("struct", fields=(Field("wkb", Schema("bytes")), Field("srid", optional(INT32))))
COLUMNS: dict[str, Schema] = {
    "id": INT32,
    "blob": optional(Schema("bytes")),
    "doc": optional(STRING),
    "vector": optional(DOUBLES),  # no placeholder: null
    "filled": DOUBLES,  # nor here: empty, since it is NOT NULL
    "amount": decimal(10, 2),  # nor here: zero
    "place": optional(POINT),
    "tags": optional(TEXTS),
    "zero": optional(INT32),
}
WHOLE = {
    "blob": "AAEC", "doc": "long", "vector": [0.5], "filled": [0.25], "amount": unscaled(150),
    "place": {"wkb": "AAE=", "srid": 7}, "tags": ["a"], "zero": 5,
}  # fmt: skip
UNSENT = {
    "blob": BASE64, "doc": TEXT, "vector": None, "filled": [], "amount": unscaled(0),
    "place": None,
}  # fmt: skip
HOIST = ("HoistField$Value", {"field": "row"})
SINKS: dict[str, Callable[[Path], dict[str, str]]] = {
    "file": lambda folder: {
        "connector.class": "file",
        "file": str(folder / "lines"),
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
    },
    "audit": lambda folder: {
        "connector.class": "audit",
        "connection.url": f"jdbc:sqlite:{folder}/audit.db",
    },
}


def changes() -> Block:
    """A row, and an update that sends only ``tags`` and ``zero``, both looking like nothing."""
    source = Source()
    table = source.table("orders", **COLUMNS)
    source.insert(table, id=1, **WHOLE)
    source.update(table, id=1, tags=[], zero=0, **UNSENT)
    return replace(source.block(), unchanged={1: tuple(map(list(COLUMNS).index, UNSENT))})


def unsent(*steps: tuple[str, dict[str, str]], again: bool = False) -> set[str]:
    """Which columns the update leaves as they are after a chain; ``again``: after another one."""
    block = chain_of(chain_config(*steps)).apply(changes())
    assert block is not None
    if again:
        block = chain_of(chain_config(("ReplaceField$Value", {"renames": "a:b"}))).apply(block)
        assert block is not None
    schema = block.schemas[block.schema[1]]
    value = schema.value
    assert value is not None
    row = value if "after" not in value.field_index else value.fields[1].schema
    return {row.fields[i].name for i in block.unchanged.get(1, ())}


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    "steps",
    [
        [AFTER],
        [("InsertField$Value", {"static.field": "x", "static.value": "y"})],
        [AFTER, ("Cast$Value", {"spec": "blob:string,amount:float64"})],
        [AFTER, ("InsertField$Value", {"static.field": "x", "static.value": "y"})],
    ],
)
def test_a_column_is_found_by_its_name_and_no_other_is_taken_for_it(
    steps: list[tuple[str, dict[str, str]]], again: bool
) -> None:
    assert unsent(*steps, again=again) == set(UNSENT)


def test_columns_are_found_under_other_names() -> None:
    renames = ",".join(f"{name}:new_{name}" for name in UNSENT)
    found = unsent(AFTER, ("ReplaceField$Value", {"renames": renames, "exclude": "tags"}))
    assert found == {f"new_{name}" for name in UNSENT}


@pytest.mark.parametrize("steps", [[AFTER], []])
def test_columns_are_found_when_the_row_is_flat(steps: list[tuple[str, dict[str, str]]]) -> None:
    found = unsent(*steps, ("Flatten$Value", {"delimiter": "_"}))
    prefix = "" if steps else "after_"
    leaves = (set(UNSENT) - {"place"}) | {"place_wkb", "place_srid"}
    assert found == {prefix + name for name in leaves}


def test_a_masked_value_is_written() -> None:
    masked = unsent(AFTER, ("MaskField$Value", {"fields": "doc", "replacement": "gone"}))
    assert masked == set(UNSENT) - {"doc"}


def test_a_copy_behind_a_chain_keeps_what_was_not_sent(tmp_path: Path) -> None:
    steps = (
        AFTER,
        ("ReplaceField$Value", {"exclude": "place"}),
        ("Cast$Value", {"spec": "blob:string"}),
    )
    copy = Copy(tmp_path, chain_config(*steps))
    copy.append(changes())
    copy.run()
    (found,) = copy.rows()
    assert found["blob"] == "AAEC"
    assert (found["vector"], found["filled"]) == ("[0.5]", "[0.25]")
    assert (found["tags"], found["zero"]) == ("[]", 0)


@pytest.mark.parametrize("name", ["row", "vector", "amount", "doc", "place"])
def test_a_row_that_is_made_one_column_holds_what_events_have_there(
    tmp_path: Path, name: str
) -> None:
    """It is written as a whole, also under the name of a column that was not sent."""
    steps = (AFTER, ("HoistField$Value", {"field": name}))
    assert unsent(*steps) == set()
    copy = Copy(tmp_path, chain_config(*steps))
    copy.append(changes())
    copy.run()
    (found,) = copy.rows()
    row = json.loads(found[name])
    assert {name: row[name] for name in UNSENT} == UNSENT
    assert (row["tags"], row["zero"]) == ([], 0)


@pytest.mark.parametrize("sink", ["file", "audit"])
def test_a_sink_of_records_has_the_same_in_a_row_that_is_made_one_column(
    tmp_path: Path, sink: str
) -> None:
    """What it has without HoistField: the placeholder, and null or zero where there is none."""
    found = []
    for name, steps in {"flat": (AFTER,), "hoisted": (AFTER, HOIST)}.items():
        folder = tmp_path / name
        folder.mkdir()
        copy = Copy(folder, {**chain_config(*steps), **SINKS[sink](folder)})
        copy.append(changes())
        copy.run()
        if sink == "file":
            last = json.loads((folder / "lines").read_bytes().splitlines()[-1])["value"]
        else:
            with closing(sqlite3.connect(folder / "audit.db")) as db:
                (text,) = db.execute("SELECT after FROM audit ORDER BY seq DESC").fetchone()
            last = json.loads(text)
        found.append(last["row"] if name == "hoisted" else last)
    assert found[0] == found[1]
    assert {name: found[1][name] for name in UNSENT} == UNSENT
