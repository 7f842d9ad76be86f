"""A day at the shop in seconds: concurrent transactions over several tables, and their count.

Each writer is a thread with a connection of its own. What a transaction changed counts only
once it is committed, so that at the end the number of events to expect is known exactly.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, LiteralString

import psycopg
from psycopg.types.json import Jsonb

from cdc import audit
from cdc.demo import shop

WRITERS: Final = 2
TRANSACTIONS_PER_S: Final = 50.0  # of each writer
SEED: Final = 20260101
JOIN_TIMEOUT_S: Final = 10.0
# Who changes something, and why, where the application says it.
AUTHORS: Final = {
    "advance_orders": ("pia@shop.example", "parcels"),
    "cancel_order": ("ben@shop.example", "the customer called"),
    "change_prices": ("pricing", "promotion of the day"),
}
ACCOUNTANT: Final = ("iris@shop.example", "ticket 4711: a cent was missing")


@dataclass(slots=True)
class Tally:
    """What was committed, and what was not."""

    transactions: int = 0
    rolled_back: int = 0
    changes: int = 0
    signed: int = 0  # of these, in transactions that say who and why
    messages: int = 0  # that say it
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Sum both into this one."""
        self.transactions += other.transactions
        self.rolled_back += other.rolled_back
        self.changes += other.changes
        self.signed += other.signed
        self.messages += other.messages
        self.kinds += other.kinds


class RolledBack(Exception):
    """The customer's payment was refused: nothing of the transaction may be seen."""


class Writer:
    """One connection to the shop. ``step`` runs one random transaction."""

    def __init__(self, dsn: str, seed: int, size: shop.Size) -> None:
        self._conn = psycopg.connect(dsn, application_name="cdc demo shop")
        self._random = random.Random(seed)
        self._size = size
        self._rows = 0
        self.tally = Tally()
        self._kinds: tuple[tuple[Callable[[], None], int], ...] = (
            (self.place_order, 44),
            (self.advance_orders, 27),
            (self.cancel_order, 9),
            (self.edit_customer, 9),
            (self.change_prices, 3),
            (self.rewrite_description, 2),
            (self.refuse_payment, 6),
        )

    def close(self) -> None:
        """Disconnect."""
        self._conn.close()

    def step(self) -> None:
        """One transaction. Deadlocks between writers are rolled back, as anywhere."""
        actions = [action for action, _ in self._kinds]
        weights = [weight for _, weight in self._kinds]
        action = self._random.choices(actions, weights)[0]
        self._rows = 0
        try:
            action()
            author = AUTHORS.get(action.__name__) if self._rows else None
            if author is not None:
                audit.set(self._conn, who=author[0], why=author[1])
            self._conn.commit()
        except (RolledBack, psycopg.errors.DeadlockDetected):
            self._conn.rollback()
            self.tally.rolled_back += 1
            return
        if self._rows:  # a transaction that found nothing to do is none
            self.tally.transactions += 1
            self.tally.changes += self._rows
            self.tally.signed += self._rows if author else 0
            self.tally.messages += author is not None
            self.tally.kinds[action.__name__] += 1

    # --- the transactions -----------------------------------------------------------------

    def place_order(self) -> None:
        """An order, its lines, and less in stock."""
        choose = self._random
        products = sorted(choose.sample(range(1, self._size.products + 1), choose.randint(1, 5)))
        lines = [
            (product, choose.randint(1, 4), self._take(product, choose.randint(1, 4)))
            for product in products
        ]
        total = sum(quantity * price for _, quantity, price in lines)
        row = self._change(
            "INSERT INTO orders (customer_id, total, gift, note) VALUES (%s, %s, %s, %s)"
            " RETURNING id",
            [choose.randint(1, self._size.customers), total, choose.random() < 0.1,
             choose.choice([None, None, "Ring twice", "Käse bitte kühl lagern"])],
        )  # fmt: skip
        for number, (product, quantity, price) in enumerate(lines, 1):
            self._change(
                "INSERT INTO order_items VALUES (%s, %s, %s, %s, %s)",
                [row[0], number, product, quantity, price],
            )

    def refuse_payment(self) -> None:
        """All of an order, then a rollback."""
        self.place_order()
        raise RolledBack

    def advance_orders(self) -> None:
        """Some open orders go one status further; those shipped get parcels and a date."""
        status = self._random.choice(shop.OPEN_STATUSES)
        nxt = {"placed": "paid", "paid": "shipped", "shipped": "delivered"}[status]
        for order in self._open_orders(status, self._random.randint(1, 4)):
            if nxt == "shipped":
                self._change(
                    "UPDATE orders SET status = %s, ship_on = current_date + 1, parcels = %s,"
                    " updated_at = clock_timestamp() WHERE id = %s",
                    [nxt, [self._random.randint(1, 3), 1], order],
                )
            else:
                self._change(
                    "UPDATE orders SET status = %s, updated_at = clock_timestamp() WHERE id = %s",
                    [nxt, order],
                )

    def cancel_order(self) -> None:
        """An order goes, its lines too, and what was in it is in stock again."""
        for order in self._open_orders("placed", 1):
            items = self._conn.execute(
                "SELECT product_id, quantity FROM order_items WHERE order_id = %s"
                " ORDER BY product_id",
                [order],
            ).fetchall()
            for product, quantity in items:
                self._take(product, -quantity)
            self._change("DELETE FROM order_items WHERE order_id = %s", [order])
            self._change("DELETE FROM orders WHERE id = %s", [order])

    def edit_customer(self) -> None:
        """Preferences, tags and newsletter of one customer."""
        choose = self._random
        preferences = {"language": choose.choice(["en", "es", "pt"]), "limit": choose.random()}
        self._change(
            "UPDATE customers SET preferences = %s, tags = %s, newsletter = NOT newsletter"
            " WHERE id = %s",
            [Jsonb(preferences), [f"segment {choose.randint(0, 9)}", None, 'a "b", {c}'],
             choose.randint(1, self._size.customers)],
        )  # fmt: skip

    def change_prices(self) -> None:
        """A promotion: several products in one statement, their long texts untouched."""
        first = self._random.randint(1, self._size.products - 10)
        self._change(
            "UPDATE products SET price = round(price * %s, 2) WHERE id IN (SELECT id FROM products"
            " WHERE id BETWEEN %s AND %s ORDER BY id FOR UPDATE)",
            [self._random.choice([Decimal("0.9"), Decimal("1.1")]), first, first + 9],
        )

    def rewrite_description(self) -> None:
        """A new long text for one product."""
        text = " ".join(f"{self._random.getrandbits(128):032x}" for _ in range(90))
        product = self._random.randint(1, self._size.products)
        self._change("UPDATE products SET description = %s WHERE id = %s", [text, product])

    # --- what they are made of ------------------------------------------------------------

    def _take(self, product: int, quantity: int) -> Any:
        """Less in stock; the price."""
        return self._change(
            "UPDATE products SET stock = stock - %s WHERE id = %s RETURNING price",
            [quantity, product],
        )[0]

    def _open_orders(self, status: str, count: int) -> list[int]:
        rows = self._conn.execute(
            "SELECT id FROM orders WHERE status = %s::order_status ORDER BY id DESC"
            " OFFSET %s LIMIT %s FOR UPDATE SKIP LOCKED",
            [status, self._random.randint(0, 20), count],
        )
        return [row[0] for row in rows]

    def _change(self, statement: LiteralString, values: list[Any]) -> Any:
        """Run it and count its rows; the first one it returns."""
        cursor = self._conn.execute(statement, values)
        self._rows += cursor.rowcount
        return cursor.fetchone() if cursor.description else None


class Workload:
    """Several writers at a steady pace, until ``stop``."""

    def __init__(self, dsn: str, size: shop.Size, *, writers: int = WRITERS) -> None:
        self._writers = [Writer(dsn, SEED + number, size) for number in range(writers)]
        self._stopping = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=[writer], name="shop", daemon=True)
            for writer in self._writers
        ]
        self._began = self._ended = 0.0

    def start(self) -> None:
        """Open the shop."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Close it, after the transactions under way."""
        self._stopping.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(JOIN_TIMEOUT_S)
        self._ended = self._ended or time.monotonic()
        for writer in self._writers:
            writer.close()

    def check(self) -> None:
        """Raise what ended a writer."""
        if self._errors:
            raise self._errors[0]

    @property
    def seconds(self) -> float:
        """How long it has been open."""
        return (self._ended or time.monotonic()) - self._began

    @property
    def tally(self) -> Tally:
        """All writers' together, of this moment."""
        total = Tally()
        for writer in self._writers:
            total.add(writer.tally)
        return total

    def _run(self, writer: Writer) -> None:
        due = time.monotonic()
        try:
            while not self._stopping.is_set():
                writer.step()
                due += 1 / TRANSACTIONS_PER_S
                self._stopping.wait(max(0.0, due - time.monotonic()))
        except BaseException as error:  # noqa: BLE001 - stop raises it
            self._errors.append(error)


@dataclass(frozen=True, slots=True)
class Evening:
    """The day's last transaction: its rows, and an LSN below its commit and above all before."""

    rows: int
    lsn: int
    committed_at: float  # monotonic


def close_the_books(dsn: str) -> Evening:
    """One big transaction at the end: a correction of every order's lines."""
    who, why = ACCOUNTANT
    with psycopg.connect(dsn) as conn:
        audit.set(conn, who=who, why=why)
        rows = conn.execute("UPDATE order_items SET price = price + 0.01").rowcount
        row = conn.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
        conn.commit()
        assert row is not None
        return Evening(rows, int(row[0]), time.monotonic())
