"""Dead letters put again: through the chain of now, never over a newer state, never twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from cdc.api import Batch, Lane
from cdc.log import Journal, JournalReader
from cdc.record import Record
from cdc.runtime.redelivery import newer_in
from tests.fix_postgres import Database
from tests.runtime.sinking import CAST, DEAD, Copy, Shop, bad, mend, refused, until_drained
from tests.runtime.steps import Step


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_postgresql_refuses_rows_and_takes_them_once_they_are_mended(
    tmp_path: Path, shop: Shop, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A type error fails a whole statement there, and with it a transaction."""
    logged = {"errors.log.enable": "true", "errors.log.include.messages": "true"}
    database.execute(
        "CREATE TABLE orders (id int PRIMARY KEY, note varchar(3) CHECK (note <> 'n7'), price int)"
    )
    own = {"connection.url": database.dsn, "auto.create": "false"}
    copy = Copy(tmp_path, {**DEAD, **logged, **own})
    shop.source.begin()
    for number in (1, 7, 8):
        shop.source.insert(shop.orders, id=number, note=f"n{number}", price=1)
    shop.source.insert(shop.orders, id=9, note="much too long", price=1)
    shop.source.update(shop.orders, id=1, note="new", price=2)
    shop.source.commit()
    copy.append(shop.source.block())
    copy.run()
    assert database.execute("SELECT id, note, price FROM orders ORDER BY id") == [
        (1, "new", 2), (8, "n8", 1),
    ]  # fmt: skip
    assert [letter.at for letter in copy.letters()] == [1, 3]
    message = copy.letters()[1].error("exception.message") or ""
    assert "the row at offset 3" in message
    assert "much too long" not in message
    assert caplog.text.count("Error encountered in task copy-0") == 2
    assert not any(value in caplog.text for value in ("n7", "much too long"))
    database.execute("ALTER TABLE orders DROP CONSTRAINT orders_note_check")
    database.execute("ALTER TABLE orders ALTER note TYPE text")
    copy.ask()
    until_drained(copy)
    assert [row[0] for row in database.execute("SELECT id FROM orders ORDER BY id")] == [1, 7, 8, 9]
    assert copy.letters() == []


def test_a_replayed_letter_is_in_the_target_and_the_position_stays(
    tmp_path: Path, shop: Shop
) -> None:
    copy = Copy(tmp_path, DEAD)
    refused(copy, shop)
    mend(copy)
    assert copy.ask() == 1
    until_drained(copy)
    assert [row["id"] for row in copy.rows()] == [1, 2, 3, 4]
    assert copy.letters() == []
    assert copy.position() == 4
    copy.append(shop.insert(6))
    copy.run()
    assert [row["id"] for row in copy.rows()] == [1, 2, 3, 4, 6]


def test_a_letter_that_fails_again_stays_with_a_note(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, DEAD)
    refused(copy, shop)
    copy.ask()
    until_drained(copy)
    (letter,) = copy.letters()
    assert letter.note == "failed again"
    assert letter.failures == 2
    assert not letter.replay


def test_a_letter_whose_row_has_a_newer_state_is_stale(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, DEAD)
    refused(copy, shop)
    shop.source.update(shop.orders, id=3, note="newer", price=31)
    copy.append(shop.source.block())
    copy.run()
    mend(copy)
    copy.ask()
    until_drained(copy)
    (letter,) = copy.letters()
    assert letter.note == "stale: its row has a newer state at offset 4"
    assert copy.rows()[2] == {"id": 3, "note": "newer", "price": 31}
    copy.ask(stale=True)
    until_drained(copy)
    assert copy.rows()[2] == {"id": 3, "note": "n3", "price": 30}
    assert copy.letters() == []


def test_newer_states_that_are_letters_themselves_do_not_count(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, DEAD)
    refused(copy, shop)
    shop.source.update(shop.orders, id=3, note="newer", price=50)
    copy.append(shop.source.block())
    copy.run()
    assert [letter.at for letter in copy.letters()] == [2, 4]
    mend(copy)
    copy.ask()
    until_drained(copy)
    assert copy.rows()[2] == {"id": 3, "note": "newer", "price": 50}
    assert copy.letters() == []


@pytest.mark.parametrize("kind", ["sql", "search"])
def test_a_letter_is_replayed_through_the_chain_of_now(
    tmp_path: Path, shop: Shop, kind: str
) -> None:
    copy = Copy(tmp_path, {**DEAD, "connector.class": kind})
    copy.append(shop.insert(1, 2))
    copy.run([bad(2)])
    copy.ask()
    until_drained(copy)
    assert [row["id"] for row in copy.rows("orders" if kind == "sql" else "documents")] == [1, 2]


def test_letters_of_two_journals_leave_the_position_in_each(tmp_path: Path, shop: Shop) -> None:
    table = {"pk.mode": "none", "insert.mode": "insert", "delete.enabled": "false"}
    copy, crm = Copy(tmp_path, {**DEAD, **table}, ("shop", "crm")), Shop()
    copy.append(shop.insert(1, 2, 3))
    copy.append(crm.insert(11, 12), to="crm")
    copy.run([bad(2, 11)])
    assert [letter.journal for letter in copy.letters()] == ["crm", "shop"]
    copy.ask()
    until_drained(copy)
    copy.append(shop.insert(4))
    copy.append(crm.insert(13), to="crm")
    copy.run()
    assert [row["id"] for row in copy.rows()] == [1, 2, 3, 4, 11, 12, 13]


def test_a_stop_comes_between_two_letters(tmp_path: Path, shop: Shop) -> None:
    copy = Copy(tmp_path, DEAD)
    copy.append(shop.insert(1, 2, 3, 4))
    copy.run([bad(2, 3, 4)])
    copy.ask()

    def stop(record: Record) -> Record:
        copy.watch.loop.stop()
        return record

    copy.run([Step(stop, CAST)], until=lambda: False)
    assert [(letter.at, letter.replay > 0) for letter in copy.letters()] == [(2, True), (3, True)]
    until_drained(copy)
    assert [row["id"] for row in copy.rows()] == [1, 2, 3, 4]


def test_what_a_journal_has_to_be_asked_for_is_asked_once_for_all_letters(
    tmp_path: Path, shop: Shop
) -> None:
    """Each segment has schemas of its own; to ask for them is to open it."""
    copy = Copy(tmp_path, DEAD)
    copy.append(shop.insert(1))
    with Journal.open(copy.journal, segment_bytes=1) as journal:
        for number in range(2, 8):
            journal.append(Batch(Lane.STREAM, {"lsn": number}, shop.insert(number)))
    copy.run([bad(6, 7)])
    one, other = copy.letters()
    with JournalReader(copy.journal) as reader:
        newer, end = newer_in(reader), reader.bounds()[1]
        assert newer(one, end, frozenset()) is None
        opened = reader.opened
        assert opened >= 6
        assert newer(other, end, frozenset()) is None
        assert reader.opened == opened


@pytest.mark.parametrize("point", ["letters.put.before", "letters.put.after", "sql.commit.after"])
@pytest.mark.parametrize("kind", ["sql", "file"])
def test_killed_in_a_replay_a_letter_is_put_exactly_once(
    tmp_path: Path, shop: Shop, point: str, kind: str
) -> None:
    """Into targets that would show a second one: a table without a key, a file of lines."""
    table = {"pk.mode": "none", "insert.mode": "insert", "delete.enabled": "false"}
    lines_ = {"connector.class": "file", "file": str(tmp_path / "out.jsonl")}
    more = table if kind == "sql" else lines_
    config = {**DEAD, **more}
    copy = Copy(tmp_path, config)
    copy.append(shop.insert(1, 2, 3))
    copy.run([bad(2)])
    copy.ask()
    program = (
        "import sys, orjson; from pathlib import Path\n"
        "from tests.runtime.sinking import Copy\n"
        "from tests.runtime.sinking import until_drained\n"
        "until_drained(Copy(Path(sys.argv[1]), orjson.loads(sys.argv[2])))\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path), orjson.dumps(config).decode()]
    killed = subprocess.run(
        arguments, env={"CDC_FAILPOINTS": f"{point}=kill", "PATH": ""}, check=False
    )
    reached = kind == "sql" or point != "sql.commit.after"
    assert (killed.returncode == -9) is reached
    until_drained(copy)
    assert copy.letters() == []
    if kind == "sql":
        found = [row["id"] for row in copy.rows()]
    else:
        lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
        found = [orjson.loads(line)["key"]["id"] for line in lines]
    assert sorted(found) == [1, 2, 3]
