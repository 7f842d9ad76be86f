"""Who and why: a message holds for its transaction's rows, wherever it lies in it."""

from __future__ import annotations

from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from cdc import audit
from cdc.block import Transaction
from cdc.runtime.delivery import Delivery
from cdc.runtime.topics import TopicFilter
from sinks.audit_chain import Hasher
from sinks.audit_rows import Collector
from tests.blocks import INT32, STRING, Source, message_schema, optional
from tests.fix_postgres import Database
from tests.runtime.test_chain import chain_config, chain_of


def told(who: Any, why: Any = None) -> bytes:
    return orjson.dumps({"who": who, "why": why})


class Shop:
    """A source with one table, and the authors that come out."""

    def __init__(self, rows_max: int = 1000, folder: Path | None = None) -> None:
        self.source = Source()
        self.table = self.source.table("items", id=INT32, note=optional(STRING))
        self.collector = Collector(Hasher(None), (), rows_max=rows_max, folder=folder)
        self.found: dict[int, str | None] = {}

    def row(self, id_: int) -> None:
        self.source.insert(self.table, id=id_)

    def say(self, who: str) -> None:
        self.source.message("cdc.audit", told(who))

    def block(self) -> None:
        for entries, author in self.collector.take(self.source.block()):
            self._note(entries, author)

    def end(self) -> dict[int, str | None]:
        self.block()
        for entries, author in self.collector.finish():
            self._note(entries, author)
        return self.found

    def _note(self, entries: Any, author: Any) -> None:
        for entry in entries:
            id_ = orjson.loads(entry.key)["id"]
            assert id_ not in self.found
            assert list(self.found) == sorted(self.found)
            self.found[id_] = author.who


@given(st.integers(1, 3), st.lists(st.sampled_from(["row", "say", "cut", "end"]), max_size=30))
def test_rows_take_the_message_before_them_else_the_first_after(
    rows_max: int, steps: list[str]
) -> None:
    shop, expected, waiting, author = Shop(rows_max), dict[int, str | None](), list[int](), None
    shop.source.begin()
    for number, step in enumerate(steps):
        if step == "row":
            shop.row(number)
            expected[number] = author
            if author is None:
                waiting.append(number)
        elif step == "say":
            author = f"m{number}"
            shop.say(author)
            expected.update(dict.fromkeys(waiting, author))
            waiting = []
        elif step == "cut":
            shop.block()
        else:
            shop.source.commit()
            shop.source.begin()
            waiting, author = [], None
    shop.source.commit()
    assert shop.end() == expected


def test_a_message_after_rows_of_an_earlier_block_reaches_them() -> None:
    shop = Shop(rows_max=2)
    shop.source.begin()
    for id_ in range(7):
        shop.row(id_)
    shop.block()
    assert shop.found == {}
    shop.say("ann")
    shop.source.commit()
    shop.row(7)
    assert shop.end() == {**dict.fromkeys(range(7), "ann"), 7: None}


def test_rows_beyond_the_limit_wait_in_a_file_without_a_name(tmp_path: Path) -> None:
    shop = Shop(rows_max=10, folder=tmp_path)
    shop.source.begin()
    for id_ in range(1000):
        shop.row(id_)
        if id_ % 100 == 99:
            shop.block()
    assert list(tmp_path.iterdir()) == []
    assert len(shop.collector._held._rows) <= 10
    shop.say("ann")
    shop.source.commit()
    assert shop.end() == dict.fromkeys(range(1000), "ann")


def test_other_messages_and_broken_ones_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    shop.source.begin()
    shop.source.message("outbox", told("outbox"))
    shop.source.message("cdc.audit", b"secret words")
    shop.source.message("cdc.audit", b'["secret"]')
    shop.row(1)
    shop.source.commit()
    assert shop.end() == {1: None}
    assert "secret" not in caplog.text
    assert "no JSON object" in caplog.text


def test_a_message_outside_of_transactions_says_nothing() -> None:
    shop = Shop()
    shop.row(1)
    shop.say("ann")
    block = shop.source.block()
    loose = Transaction(0, 5, 5, 0, 0)
    block.transactions = (block.transactions[0], loose)
    found = [author.who for _, author in shop.collector.take(block)]
    assert found == [None]


@pytest.mark.parametrize("form", ["base64", "hex", "urlsafe"])
def test_every_binary_handling_mode_is_understood(form: str) -> None:
    shop = Shop()
    shop.source.begin()
    shop.row(1)
    shop.say("Ünal >>>???")
    shop.source.commit()
    block = shop.source.block()
    message = orjson.loads(block.afters[1] or b"")
    raw = b64decode(message["content"])
    if form == "hex":
        message["content"] = raw.hex()
    elif form == "urlsafe":
        message["content"] = message["content"].replace("+", "-").replace("/", "_")
    block.afters = (block.afters[0], orjson.dumps(message))
    assert [author.who for _, author in shop.collector.take(block)] == ["Ünal >>>???"]


def test_messages_pass_a_filter_of_topics_when_they_are_wanted() -> None:
    shop = Shop()
    shop.say("ann")
    shop.row(1)
    block = shop.source.block()
    topic = block.schemas[1].topic
    assert message_schema().topic != topic
    assert len(TopicFilter([topic]).apply(block) or ()) == 1
    assert len(TopicFilter([topic], messages=True).apply(block) or ()) == 2


def test_messages_that_a_chain_has_made_records_of_reach_the_audit_too() -> None:
    insert = ("InsertField$Value", {"static.field": "at", "static.value": "home"})
    shop = Shop()
    shop.source.begin()
    shop.row(1)
    shop.say("ann")
    shop.source.commit()
    shop.row(2)
    block = chain_of(chain_config(insert), sink=False).apply(shop.source.block())
    assert block is not None
    assert {schema.kind for schema in block.schemas} == {"record"}
    chosen = TopicFilter(["srv.public.items"], messages=True).apply(block)
    assert chosen is not None
    assert TopicFilter(["other"], messages=True).apply(chosen) is not None
    rows = Delivery(takes_records=False).prepare("shop", chosen)
    assert rows is not None
    found = [*shop.collector.take(rows), *shop.collector.finish()]
    whos = {orjson.loads(entry.key)["id"]: author.who for part, author in found for entry in part}
    assert whos == {1: "ann", 2: None}


# --- the helper ---


def messages_of(database: Database, work: Any) -> list[Any]:
    """What the WAL holds of a transaction."""
    slot = f"audit_{database.name}"
    database.execute(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    try:
        database.execute("CREATE PUBLICATION p")
        work()
        rows = database.execute(
            f"SELECT data FROM pg_logical_slot_get_binary_changes('{slot}', NULL, NULL,"
            " 'proto_version', '1', 'publication_names', 'p', 'messages', 'true')"
        )
        bodies = [bytes(row[0]) for row in rows if bytes(row[0])[:1] == b"M"]
        return [orjson.loads(_content(body)) for body in bodies]
    finally:
        database.execute(f"SELECT pg_drop_replication_slot('{slot}')")


def _content(message: bytes) -> bytes:
    """What a pgoutput message holds: behind its flags, LSN, prefix and length."""
    prefix, _, rest = message[1 + 1 + 8 :].partition(b"\0")
    assert prefix == b"cdc.audit"
    assert len(rest) == 4 + int.from_bytes(rest[:4])
    return rest[4:]


def test_psycopg_both_of_them(database: Database) -> None:
    import psycopg2

    def work() -> None:
        with psycopg.connect(database.dsn) as connection:
            audit.set(connection, who="three", why='it\'s "so" 100 %')
        old = psycopg2.connect(database.dsn)
        audit.set(old, who="two")
        old.commit()
        old.close()
        with psycopg.connect(database.dsn) as connection:
            audit.set(connection, who="taken back")
            connection.rollback()

    assert messages_of(database, work) == [
        {"who": "three", "why": 'it\'s "so" 100 %'},
        {"who": "two"},
    ]


def test_sqlalchemy_connections_and_sessions(database: Database) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    engine = create_engine(database.dsn.replace("postgresql://", "postgresql+psycopg://"))

    def work() -> None:
        with engine.begin() as connection:
            audit.set(connection, who="core")
        with Session(engine) as session:
            audit.set(session, who="orm")
            session.commit()

    assert messages_of(database, work) == [{"who": "core"}, {"who": "orm"}]
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(audit.NoTransaction),
    ):
        audit.set(connection, who="nobody")
    engine.dispose()


def test_connections_that_commit_by_themselves(database: Database) -> None:
    with database.connect() as connection:
        with pytest.raises(audit.NoTransaction, match="inside a transaction"):
            audit.set(connection, who="x")
        with connection.transaction():
            audit.set(connection, who="x")


def test_django_in_atomic_blocks_and_without_autocommit(database: Database) -> None:
    import django
    from django.conf import settings

    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST",
             "port": "PORT"}  # fmt: skip
    parts = conninfo_to_dict(database.dsn)
    default = {name: parts[key] for key, name in names.items() if key in parts}
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **default}},
        LOGGING_CONFIG=None,
    )
    django.setup()
    from django.db import connection, transaction

    def work() -> None:
        with transaction.atomic():
            audit.set(connection, who="atomic", why="50 %")
        with suppress(ZeroDivisionError), transaction.atomic():
            audit.set(connection, who="taken back")
            raise ZeroDivisionError
        connection.set_autocommit(False)
        audit.set(connection, who="by hand")
        transaction.commit()
        connection.set_autocommit(True)
        with pytest.raises(audit.NoTransaction, match="inside a transaction"):
            audit.set(connection, who="nobody")

    try:
        assert messages_of(database, work) == [
            {"who": "atomic", "why": "50 %"},
            {"who": "by hand"},
        ]
    finally:
        connection.close()
