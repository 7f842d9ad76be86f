"""Damaged or altered files of an audit: named, a record given, never an error of a library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cdc.__main__ import main
from cdc.errors import SinkRejected
from tests.contract.targets import AuditTarget, started
from tests.sinks.audited import fill


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(4, len(data) // 2):
        data[at] ^= 0xFF
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def take_a_column_out(path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(path).drop_columns(["who"]), path)


def retype(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    number = table.schema.get_field_index("seq")
    pq.write_table(table.set_column(number, "seq", table["seq"].cast(pa.string())), path)


def take_the_end_out(path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(path).slice(0, 2), path)


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (flip, "is damaged"),
        (cut, "is damaged, from record 1 on"),
        (empty, "is damaged, from record 1 on"),
        (take_a_column_out, "is damaged, from record 1 on: column who was taken out"),
        (retype, "column seq was taken out or has another type"),
        (take_the_end_out, "is damaged: it ends before record 3"),
    ],
)
def test_a_sealed_file_that_is_damaged_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
    harm: Callable[[Path], None], problem: str,
) -> None:  # fmt: skip
    target = AuditTarget(f"parquet:{tmp_path}/audit", **{"audit.parquet.rows": "2"})
    fill(target)
    (sealed,) = (tmp_path / "audit" / "audit").iterdir()
    harm(sealed)
    assert main(["audit", "verify", str(tmp_path / "audit"), "--json"]) == 1
    shown = capsys.readouterr()
    body = json.loads(shown.out)
    assert (body["ok"], shown.err) == (False, "")
    assert problem in body["problem"]
    assert str(sealed) in body["problem"]
    assert body["at"] in (1, 3)
    assert main(["audit", "query", str(tmp_path / "audit")]) == 1
    assert str(sealed) in capsys.readouterr().err
    with pytest.raises(SinkRejected, match="is damaged"):
        started(target)


def test_a_database_that_is_damaged_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "audit.db"
    fill(AuditTarget(f"jdbc:sqlite:{path}"))
    data = path.read_bytes()
    page = int.from_bytes(data[16:18], "big")
    at = data.rindex(b"apple cake") // page * page
    path.write_bytes(data[:at] + b"\xff" * page + data[at + page :])
    assert main(["audit", "verify", str(path), "--json"]) == 1
    body = json.loads(capsys.readouterr().out)
    assert "the table is damaged, or was altered: database disk image" in body["problem"]
