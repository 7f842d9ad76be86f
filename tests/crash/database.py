"""The source's database of the crash tests: tables, their rows, and the ledger.

Triggers write every change into ``ledger`` in the transaction that makes it: so the ledger
says what happened, by a way that shares nothing with decoding. It is not captured. A logical
slot of its own, made before everything else, gives the order of the commits, since no query
on the server does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg

LEDGER_SLOT = "ledger_order"

# Column kinds: how a value of the source, of the ledger and of an event are compared.
TABLES: dict[str, dict[str, str]] = {
    "accounts": {
        "id": "int",
        "owner": "text",
        "balance": "numeric",
        "settings": "json",
        "opened": "time",
        "body": "text",
    },
    "orders": {
        "id": "int",
        "account_id": "int",
        "state": "text",
        "total": "numeric",
        "placed": "time",
        "body": "text",
    },
    "order_lines": {
        "order_id": "int",
        "line": "int",
        "product": "text",
        "quantity": "int",
        "price": "numeric",
    },
    "events": {"id": "int", "account_id": "int", "at": "time", "payload": "json"},
    "event_notes": {"event_id": "int", "n": "int", "body": "text"},
    "marks": {"id": "int", "at": "time"},
}
KEYS: dict[str, tuple[str, ...]] = {
    "accounts": ("id",),
    "orders": ("id",),
    "order_lines": ("order_id", "line"),
    "events": ("id",),
    "event_notes": ("event_id", "n"),
    "marks": ("id",),
}
SCHEMA = "public"

# Few rows a page make many chunks: a snapshot long enough to be killed in, without a sleep.
DDL = """
CREATE TABLE accounts (
    id bigint PRIMARY KEY, owner text NOT NULL, balance numeric(14,2) NOT NULL, settings jsonb,
    opened timestamptz NOT NULL, body text);
CREATE TABLE orders (
    id bigint PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts, state text,
    total numeric NOT NULL, placed timestamptz, body text);
ALTER TABLE orders REPLICA IDENTITY FULL;
CREATE TABLE order_lines (
    order_id bigint NOT NULL REFERENCES orders DEFERRABLE, line integer NOT NULL,
    product text NOT NULL, quantity integer, price numeric(9,3),
    PRIMARY KEY (order_id, line)) WITH (fillfactor = 10);
CREATE TABLE events (
    id bigint PRIMARY KEY, account_id bigint, at timestamptz NOT NULL, payload jsonb
) WITH (fillfactor = 10);
CREATE TABLE event_notes (
    event_id bigint NOT NULL REFERENCES events, n integer NOT NULL, body text,
    PRIMARY KEY (event_id, n));
CREATE TABLE marks (id integer PRIMARY KEY, at timestamptz NOT NULL);
-- Long texts are stored out of line, and an update of another column does not send them.
ALTER TABLE accounts ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE orders ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE event_notes ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE ledger (
    seq bigserial, xid xid8 NOT NULL DEFAULT pg_current_xact_id(), tbl text NOT NULL,
    op "char" NOT NULL, before jsonb, after jsonb);
CREATE FUNCTION image(r jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN
    CASE WHEN r ? 'body' THEN r || jsonb_build_object('body', md5(r->>'body')) ELSE r END;
CREATE FUNCTION note_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger (tbl, op, before, after) VALUES (TG_TABLE_NAME, left(TG_OP, 1)::"char",
        CASE WHEN TG_OP <> 'INSERT' THEN image(to_jsonb(OLD)) END,
        CASE WHEN TG_OP <> 'DELETE' THEN image(to_jsonb(NEW)) END);
    RETURN NULL;
END $$;
CREATE FUNCTION note_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger (tbl, op) VALUES (TG_TABLE_NAME, 'T');
    RETURN NULL;
END $$;
"""

TRIGGERS = """
CREATE TRIGGER note_row AFTER INSERT OR UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION note_row();
CREATE TRIGGER note_truncate AFTER TRUNCATE ON {table} EXECUTE FUNCTION note_truncate();
"""

# A text that does not compress and is long enough to be stored out of line.
LONG_TEXT = "(SELECT string_agg(md5({seed}::text || k), '') FROM generate_series(1, 70) AS k)"


class Size(NamedTuple):
    """How many rows there are before anything is captured."""

    accounts: int = 1500
    orders: int = 4000
    lines: int = 6
    events: int = 6000


SMALL = Size(60, 120, 2, 80)


def create(dsn: str, size: Size) -> None:
    """Tables and their first rows, which no ledger knows: then triggers and the ledger's slot."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(DDL)
        for statement in fill(size):
            connection.execute(statement.encode())
        for table in TABLES:
            connection.execute(TRIGGERS.format(table=table).encode())
        connection.execute(
            "CREATE PUBLICATION ledger_order FOR TABLE ledger (seq) WITH (publish = 'insert')"
        )
        connection.execute(
            "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [LEDGER_SLOT]
        )
        connection.execute("ANALYZE")


def fill(size: Size) -> list[str]:
    body = LONG_TEXT.format(seed="i")
    return [
        f"""INSERT INTO accounts SELECT i, 'owner ' || i, i * 1.25,
            jsonb_build_object('n', i, 'tags', jsonb_build_array('a', i % 5)),
            timestamptz '2024-01-01 00:00+00' + i * interval '1.000123 minutes', {body}
            FROM generate_series(1, {size.accounts}) AS i""",
        f"""INSERT INTO orders SELECT i, 1 + i % {size.accounts // 2}, 'new', i * 0.1,
            timestamptz '2025-01-01 00:00+00' + i * interval '7 seconds',
            CASE WHEN i % 4 = 0 THEN {body} END FROM generate_series(1, {size.orders}) AS i""",
        f"""INSERT INTO order_lines SELECT o, l, 'product ' || (o * l) % 97, l, o * 0.125
            FROM generate_series(1, {size.orders}) AS o, generate_series(1, {size.lines}) AS l""",
        f"""INSERT INTO events SELECT i, i % 50,
            timestamptz '2025-06-01 00:00+00' + i * interval '0.001 seconds',
            jsonb_build_object('kind', i % 9) FROM generate_series(1, {size.events}) AS i""",
        f"""INSERT INTO event_notes SELECT i, 1, CASE WHEN i % 2 = 0 THEN {body} ELSE 'short' END
            FROM generate_series(1, {size.events // 10}) AS i""",
    ]


class LedgerRow(NamedTuple):
    table: str
    op: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def read_ledger(connection: psycopg.Connection[Any]) -> dict[int, list[LedgerRow]]:
    """Every committed change, by transaction."""
    out: dict[int, list[LedgerRow]] = {}
    with connection.transaction(), connection.cursor(name="ledger") as cursor:
        cursor.itersize = 5000
        cursor.execute(
            "SELECT xid::text::int8 & 4294967295, tbl, op::text, before, after"
            " FROM ledger ORDER BY seq"
        )
        for xid, *rest in cursor:
            out.setdefault(xid, []).append(LedgerRow(*rest))
    return out


def read_commits(connection: psycopg.Connection[Any]) -> list[tuple[int, int]]:
    """(commit LSN, xid) of every transaction with a ledger row, in commit order."""
    rows = connection.execute(
        "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL,"
        " 'proto_version', '1', 'publication_names', 'ledger_order')"
        " WHERE get_byte(data, 0) = 66",  # 'B'
        [LEDGER_SLOT],
    )
    return [
        (int.from_bytes(data[1:9], "big"), int.from_bytes(data[17:21], "big")) for (data,) in rows
    ]
