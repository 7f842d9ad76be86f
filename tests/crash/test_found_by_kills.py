"""What the crash tests found below us, in PostgreSQL and psycopg2, each on its own."""

from __future__ import annotations

import psycopg

from cdc.demo.postgres import PASSWORD
from cdc.errors import SourceError
from cdc.lsn import lsn_number
from cdc.postgres.replication import LogReader, replication_error
from tests.crash.rig import eventually
from tests.fix_postgres import StartPostgres


def test_a_slot_that_the_server_cannot_decode_is_not_tried_again() -> None:
    """A TRUNCATE with writes behind it, while a slot is made; needs no client to happen."""
    text = 'could not map filenumber "base/5/16957" to relation OID'
    error = replication_error(text, "XX000", "shop")
    assert type(error) is SourceError
    assert not error.retriable
    assert text in str(error)
    assert "drop the slot" in error.remedy


def test_a_keep_alives_lsn_is_confirmed_only_when_we_say_so(start_postgres: StartPostgres) -> None:
    """psycopg2 does it on its own: before the first change, and once told of what is flushed."""
    server = start_postgres(18, wal_sender_timeout="1s")
    who = {"host": "127.0.0.1", "port": server.port, "user": "postgres", "dbname": "postgres"}
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE ours (i int)")
        connection.execute("CREATE TABLE other (i int)")
        connection.execute("CREATE PUBLICATION p FOR TABLE ours")
        reader = LogReader({**who, "password": PASSWORD})
        exported = reader.create_slot("keep")
        options = {"proto_version": "1", "publication_names": "p"}
        reader.start("keep", exported.consistent_lsn, options)

        def confirmed() -> int:
            assert reader.read(0.05, 100) == []
            reader.keep_alive(0.2)
            connection.execute("INSERT INTO other SELECT generate_series(1, 100)")
            row = connection.execute(
                "SELECT confirmed_flush_lsn::text FROM pg_replication_slots"
            ).fetchone()
            assert row is not None
            return lsn_number(row[0])

        def stays(lsn: int) -> None:
            """For eight keep-alives, some of which want an answer."""
            seen = set()
            while len(seen) < 8:
                assert confirmed() == lsn
                seen.add(reader.server_lsn)

        stays(exported.consistent_lsn)
        connection.execute("INSERT INTO ours VALUES (1)")
        frames = eventually(lambda: reader.read(0.1, 100), "the change")
        while frames[-1][1][:1] != b"C":
            frames += reader.read(0.1, 100)
        asked = int.from_bytes(frames[-1][1][10:18], "big")
        reader.confirm(asked)
        eventually(lambda: confirmed() == asked, "the confirmation")
        stays(asked)
        newest = reader.server_lsn
        reader.confirm(newest)
        eventually(lambda: confirmed() == newest, "the next confirmation")
        reader.close()
