"""Values in an audit are what a person reads, and what is hashed does not depend on their form."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from cdc.__main__ import main
from schemas import Schema
from sinks.audit_chain import Hasher, content_of, verify
from tests.blocks import (
    DATE,
    INT32,
    MICRO_TIME,
    MICRO_TIMESTAMP,
    PLACEHOLDER,
    STRING,
    TIMESTAMP,
    VARIABLE_DECIMAL,
    ZONED_TIMESTAMP,
    Source,
    array_of,
    decimal,
    optional,
    unscaled,
)
from tests.contract.targets import AuditTarget, started

OLDER_TAG = b"cdc-audit-1\n"


def write(to: AuditTarget, source: Source) -> list[dict[str, Any]]:
    block = source.block()
    task = started(to, "copy")
    try:
        task.put(block)
        task.flush(block.offsets[-1] + 1)
    finally:
        task.stop()
    return to.records()


def target(folder: Path, **options: str) -> AuditTarget:
    return AuditTarget(f"jdbc:sqlite:{folder}/audit.db", **options)


def test_decimals_dates_and_times_are_readable_in_key_and_images(tmp_path: Path) -> None:
    shop = Source()
    table = shop.table(
        "items", key=["day", "price"], day=DATE, price=decimal(12, 2), id=INT32,
        at=optional(MICRO_TIMESTAMP), clock=MICRO_TIME, any=VARIABLE_DECIMAL,
        zoned=ZONED_TIMESTAMP, many=array_of(decimal(4, 1)),
    )  # fmt: skip
    row = {
        "day": 19_723, "price": unscaled(-1250), "id": 7, "at": 1_704_164_645_000_006,
        "clock": 3_600_000_001, "any": {"scale": 3, "value": unscaled(12345)},
        "zoned": "2024-01-02T03:04:05.000006Z", "many": [unscaled(15), None],
    }  # fmt: skip
    shop.insert(table, **row)
    shop.update(table, **{**row, "at": None}, unchanged=["many"])
    shop.delete(table, **row)
    created, updated, deleted = write(target(tmp_path), shop)
    readable = {
        "day": "2024-01-01", "price": "-12.50", "id": 7, "at": "2024-01-02T03:04:05.000006",
        "clock": "01:00:00.000001", "any": "12.345", "zoned": "2024-01-02T03:04:05.000006Z",
        "many": ["1.5", None],
    }  # fmt: skip
    assert orjson.loads(created["key"]) == {"day": "2024-01-01", "price": "-12.50"}
    assert orjson.loads(created["after"]) == orjson.loads(deleted["before"]) == readable
    assert orjson.loads(updated["after"]) == {**readable, "at": None, "many": PLACEHOLDER}


def test_a_query_shows_them_and_finds_a_key_by_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Source()
    table = shop.table("items", key=["day"], day=DATE, price=decimal(12, 2))
    shop.insert(table, day=19_723, price=unscaled(1250))
    shop.insert(table, day=19_724, price=unscaled(1))
    write(target(tmp_path), shop)
    assert main(["audit", "query", f"{tmp_path}/audit.db", "--key", "2024-01-01", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert orjson.loads(line)["after"] == {"day": "2024-01-01", "price": "12.50"}


@pytest.mark.parametrize(
    ("form", "value", "canonical"),
    [
        (decimal(12, 2), unscaled(1250), "12.50"),
        (STRING, "12.50", "12.50"),
        (MICRO_TIMESTAMP, 1_704_164_645_007_000, "2024-01-02T03:04:05.007000"),
        (TIMESTAMP, 1_704_164_645_007, "2024-01-02T03:04:05.007000"),
        (INT32, 12, "12"),
    ],
)
def test_a_hashed_column_is_the_same_in_every_form_of_the_event(
    tmp_path: Path, form: Schema, value: Any, canonical: str
) -> None:
    shop = Source()
    table = shop.table("items", id=INT32, secret=form)
    shop.insert(table, id=1, secret=value)
    options = {"audit.hash.key": "k", "audit.columns.hash": r".*\.secret"}
    (record,) = write(target(tmp_path, **options), shop)
    expected = hmac.new(b"k", b"cdc-audit-column\n" + canonical.encode(), "sha256").hexdigest()
    assert orjson.loads(record["after"]) == {"id": 1, "secret": f"hmac-sha256:{expected}"}


def _older(path: Path) -> None:
    """The same chain as a version before wrote it: values as in events, and its own tag."""
    with closing(sqlite3.connect(path)) as db:
        db.text_factory = bytes
        previous = b"0" * 64
        for record in db.execute("SELECT * FROM audit ORDER BY seq").fetchall():
            values = list(record)
            values[12] = b'{"id":%d,"price":"BOI="}' % values[0]
            values[14] = previous
            content = content_of(values, OLDER_TAG)
            values[15] = previous = hashlib.sha256(content).hexdigest().encode()
            texts = [v.decode() if isinstance(v, bytes) else v for v in values]
            db.execute("DELETE FROM audit WHERE seq = ?", [values[0]])
            db.execute(f"INSERT INTO audit VALUES ({','.join('?' * 16)})", texts)
        db.execute("UPDATE cdc_audit SET hash = ?", [previous.decode()])
        db.commit()


def test_a_chain_of_an_older_version_verifies_and_is_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Source()
    table = shop.table("items", id=INT32, price=decimal(12, 2))
    for number in (1, 2):
        shop.insert(table, id=number, price=unscaled(1250))
    to, path = target(tmp_path), tmp_path / "audit.db"
    write(to, shop)
    _older(path)
    shop.insert(table, id=3, price=unscaled(1250))
    records = write(to, shop)
    assert [orjson.loads(r["after"])["price"] for r in records] == ["BOI=", "BOI=", "12.50"]
    assert main(["audit", "verify", str(path)]) == 0
    said = capsys.readouterr().out
    assert "3 records, the chain is whole" in said
    assert "of an older version, with values as in events: 2" in said


def test_an_older_record_that_was_altered_is_found(tmp_path: Path) -> None:
    shop = Source()
    table = shop.table("items", id=INT32)
    for number in (1, 2):
        shop.insert(table, id=number)
    path = tmp_path / "audit.db"
    write(target(tmp_path), shop)
    _older(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute('UPDATE audit SET "after" = \'{"id":9}\' WHERE seq = 2')
        db.commit()
        db.text_factory = bytes
        report = verify(db.execute("SELECT * FROM audit ORDER BY seq"), Hasher(None))
    assert (report.raw, report.at) == (1, 2)
    assert "record 2 was altered" in report.problem
