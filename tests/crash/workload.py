"""Clients that change the source until they are stopped, each by a random sequence of its own.

A client survives the server: it reconnects until it is told to end. What it does is decided
by its seed alone, but for the pauses between truncations; how the clients' transactions
interleave is the server's.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import psycopg

from tests.crash.database import LONG_TEXT, Size

RECONNECT_S = 0.1
# A client's next truncation: a table that is emptied while it is read is read again from its
# start, and without a pause a busy machine would never come to the end of it.
TRUNCATE_EVERY_S = 20.0
# What the server may answer a client without anything being wrong.
EXPECTED = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.IntegrityError,
    psycopg.errors.QueryCanceled,
)
SLOT_IS_MADE = """SELECT 1 FROM pg_replication_slots
    WHERE slot_name = 'crash' AND confirmed_flush_lsn IS NOT NULL"""
BODY = LONG_TEXT.format(seed="%s")
Connection = psycopg.Connection[Any]


class RolledBack(Exception):
    """Ends a transaction without an effect."""


class Client(threading.Thread):
    """One connection's worth of transactions."""

    def __init__(
        self, dsn: str, number: int, seed: int, size: Size, *, pause_s: float = 0.0
    ) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.dsn, self.number, self.size, self.pause_s = dsn, number, size, pause_s
        self.truncated_at = 0.0
        self.random = random.Random(seed * 1000 + number)
        self.ended = threading.Event()
        self.committed = 0
        self.failure: BaseException | None = None
        self._next = 1_000_000 * (number + 1)
        self._orders: list[int] = []

    def run(self) -> None:
        try:
            while not self.ended.is_set():
                try:
                    with psycopg.connect(self.dsn, autocommit=True) as connection:
                        connection.execute("SET lock_timeout = '3s'")
                        self._work(connection)
                except psycopg.OperationalError:
                    self.ended.wait(RECONNECT_S)
        except BaseException as error:
            self.failure = error
            raise

    def stop(self) -> None:
        self.ended.set()

    def _work(self, connection: Connection) -> None:
        while not self.ended.is_set():
            kinds, weights = zip(*KINDS, strict=True)
            kind: Callable[[Client, Connection], None] = self.random.choices(kinds, weights)[0]
            try:
                with connection.transaction():
                    kind(self, connection)
                self.committed += 1
            except (*EXPECTED, RolledBack):
                pass
            if self.pause_s:
                self.ended.wait(self.pause_s * self.random.random())

    # --- ids

    def fresh(self) -> int:
        self._next += 1
        return self._next

    def account(self) -> int:
        """One that orders refer to: its key stays."""
        return self.random.randint(1, self.size.accounts // 2)

    def free_account(self) -> int:
        """One that nobody refers to."""
        return self.random.randint(self.size.accounts // 2 + 1, self.size.accounts)

    def order(self) -> int:
        if self._orders and self.random.random() < 0.5:
            return self.random.choice(self._orders[-50:])
        return self.random.randint(1, self.size.orders)


# --- transactions


def place_order(self: Client, db: Connection) -> None:
    order, account = self.fresh(), self.account()
    db.execute(
        f"INSERT INTO orders VALUES (%s, %s, 'new', %s, clock_timestamp(), {BODY})"
        if self.random.random() < 0.3
        else "INSERT INTO orders VALUES (%s, %s, 'new', %s, clock_timestamp(), md5(%s::text))",
        [order, account, self.random.randint(1, 10**9) / 1000, order],
    )
    db.execute(
        "INSERT INTO order_lines SELECT %s, l, 'product ' || l, l * 2, l / 8.0"
        " FROM generate_series(1, %s) AS l",
        [order, self.random.randint(1, 6)],
    )
    db.execute("UPDATE accounts SET balance = balance - 1.01 WHERE id = %s", [account])
    self._orders.append(order)


def change_order(self: Client, db: Connection) -> None:
    order = self.order()
    db.execute("UPDATE orders SET state = %s WHERE id = %s", [f"s{self.random.random()}", order])
    db.execute("UPDATE order_lines SET quantity = quantity + 1 WHERE order_id = %s", [order])


def delete_order(self: Client, db: Connection) -> None:
    order = self.order()
    db.execute("DELETE FROM order_lines WHERE order_id = %s", [order])
    db.execute("DELETE FROM orders WHERE id = %s", [order])


def move_lines(self: Client, db: Connection) -> None:
    """A composite key changes, in several rows by one statement."""
    db.execute("UPDATE order_lines SET line = line + 100 WHERE order_id = %s", [self.order()])


def change_account(self: Client, db: Connection) -> None:
    """The long text stays where it is."""
    db.execute(
        "UPDATE accounts SET settings = jsonb_build_object('x', %s::int), owner = owner || '.'"
        " WHERE id = %s",
        [self.random.randint(0, 10**6), self.random.choice((self.account, self.free_account))()],
    )


def change_text(self: Client, db: Connection) -> None:
    db.execute(
        f"UPDATE accounts SET body = {BODY} WHERE id = %s",
        [self.random.randint(0, 10**9), self.account()],
    )
    db.execute("UPDATE accounts SET body = NULL WHERE id = %s", [self.free_account()])


def move_account(self: Client, db: Connection) -> None:
    """A key changes while the long text stays where it is."""
    account = self.free_account()
    new = account + 100_000 * self.random.randint(1, 5)
    old, new = (account, new) if self.random.random() < 0.5 else (new, account)
    db.execute("UPDATE accounts SET id = %s WHERE id = %s", [new, old])


def swap_accounts(self: Client, db: Connection) -> None:
    """Two rows change places by way of a third key."""
    one, other = self.free_account(), self.free_account()
    if one == other:
        raise RolledBack
    for old, new in ((one, -one), (other, one), (-one, other)):
        db.execute("UPDATE accounts SET id = %s WHERE id = %s", [new, old])


def replace_account(self: Client, db: Connection) -> None:
    """Delete and insert under the same key, insert and delete again."""
    account, fresh = self.free_account(), self.fresh()
    db.execute("DELETE FROM accounts WHERE id = %s", [account])
    insert = f"INSERT INTO accounts VALUES (%s, 'again', 0, NULL, now(), {BODY})"
    db.execute(insert, [account, account])
    db.execute(insert, [fresh, fresh])
    db.execute("DELETE FROM accounts WHERE id = %s", [fresh])


def note_events(self: Client, db: Connection) -> None:
    first = self.fresh()
    self._next += 20
    db.execute(
        "INSERT INTO events SELECT %s + i, i, clock_timestamp(), jsonb_build_object('i', i)"
        " FROM generate_series(0, 19) AS i",
        [first],
    )
    db.execute(f"INSERT INTO event_notes VALUES (%s, 1, {BODY})", [first, first])


def truncate_events(self: Client, db: Connection) -> None:
    """Not before the slot is made.

    A transaction that truncates a table and writes to it while a slot is being created leaves
    PostgreSQL (15 to 18 at least) with a slot that it cannot decode: "could not map filenumber
    to relation OID", every time. No client is needed to see that.
    """
    now = time.monotonic()
    if now - self.truncated_at < TRUNCATE_EVERY_S or not db.execute(SLOT_IS_MADE).fetchone():
        raise RolledBack
    self.truncated_at = now
    db.execute("SET LOCAL lock_timeout = '100ms'")
    if self.random.random() < 0.5:
        db.execute("TRUNCATE event_notes")
        return
    db.execute("TRUNCATE events, event_notes")
    note_events(self, db)


def copy_events(self: Client, db: Connection) -> None:
    """Many rows; several of them share one LSN."""
    count = self.random.choice((200, 500, 5000))
    first = self.fresh()
    self._next += count
    with db.cursor().copy("COPY events FROM STDIN") as copy:
        for i in range(first, first + count):
            copy.write_row((i, i % 7, "2025-07-01 00:00:00.000001+00", '{"copied": true}'))


def roll_back_to_savepoint(self: Client, db: Connection) -> None:
    place_order(self, db)
    try:
        with db.transaction():
            delete_order(self, db)
            change_account(self, db)
            raise RolledBack
    except RolledBack:
        pass
    with db.transaction():
        change_order(self, db)


def roll_back(self: Client, db: Connection) -> None:
    place_order(self, db)
    change_text(self, db)
    raise RolledBack


KINDS: tuple[tuple[Callable[[Client, Connection], None], float], ...] = (
    (place_order, 20),
    (change_order, 12),
    (delete_order, 5),
    (move_lines, 5),
    (change_account, 15),
    (change_text, 5),
    (move_account, 6),
    (swap_accounts, 3),
    (replace_account, 3),
    (note_events, 5),
    (truncate_events, 1),
    (copy_events, 0.3),
    (roll_back_to_savepoint, 5),
    (roll_back, 4),
)


class Workload:
    """Several clients; a context manager that stops them."""

    def __init__(
        self, dsn: str, seed: int, size: Size, *, clients: int = 3, pause_s: float = 0.03
    ) -> None:
        self.clients = [Client(dsn, n, seed, size, pause_s=pause_s) for n in range(clients)]

    def __enter__(self) -> Self:
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        for client in self.clients:
            client.stop()
        for client in self.clients:
            client.join()

    @property
    def committed(self) -> int:
        return sum(client.committed for client in self.clients)

    def check(self) -> None:
        """No client ended by an error that is not the server's going away."""
        for client in self.clients:
            assert client.failure is None, client.failure
