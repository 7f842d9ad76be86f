"""The events of one key, ordered into lives: pure, no reader here.

A life begins with a create (or whatever is seen first), and ends with a delete or a truncate
of the table. Two things are not as they stand in the journal:

* A statement that shifts keys (``SET id = id + 1``) lets a row arrive at a key that another one
  leaves only later in the same transaction. The delete there ends the row that was there
  before, and is put in front of the create.
* Where the log was lost and all tables were read again, a row that was not found then has
  vanished in between. Nobody sent its delete; an event of our own ends its life.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cdc.authors import NOBODY, Author
from cdc.block import CREATE, DELETE, TRUNCATE, Transaction
from cdc.history.model import Row
from cdc.record import UNCHANGED
from schemas import EventSchema

VANISHED = ord("v")
ENDINGS = (DELETE, TRUNCATE, VANISHED)


class Event(NamedTuple):
    """One event of a key, or a truncate of its table.

    ``broken``: something that cannot be read lies between this and the event before. ``place``
    orders the events of a row, which offsets do but for the delete of a shifted key.
    """

    offset: int
    op: int
    lsn: int
    transaction: Transaction
    schema: EventSchema
    key: bytes
    values: Row | None
    before: Row | None
    moved: bytes | None
    snapshot: bool
    broken: bool
    place: tuple[int, int]
    author: Author


class Reading(NamedTuple):
    """All tables were read again: rows ``[start, end)``, as of a transaction."""

    start: int
    end: int
    lsn: int
    transaction: Transaction


def lives(events: Sequence[Event], readings: Iterable[Reading] = ()) -> Iterator[list[Event]]:
    """One after the other. ``events`` are those of one key, in journal order."""
    life: list[Event] = []
    for event in _with_vanished(_settled(events), readings):
        if event.op == CREATE and life:
            yield life
            life = []
        if event.op == TRUNCATE and not life:
            continue
        life.append(event)
        if event.op in ENDINGS:
            yield life
            life = []
    if life:
        yield life


def lacks(event: Event) -> bool:
    """Whether a create under a new key needs values of the row under the old one."""
    values = event.values or {}
    return event.moved is not None and any(value is UNCHANGED for value in values.values())


def leads(last: Event, first: Event) -> bool:
    """Whether these are the two halves of one key change."""
    halves = last.op == DELETE and last.moved == first.key and first.moved == last.key
    return halves and last.transaction.xid == first.transaction.xid


def _settled(events: Iterable[Event]) -> list[Event]:
    """Each delete behind the row that it ends."""
    out: list[Event] = []
    arrived: list[int] = []  # where creates came to a key that a row still had
    alive = False
    for event in events:
        if out and event.transaction != out[-1].transaction:
            arrived = []
        if event.op == DELETE and arrived:
            at = arrived.pop(0)
            out.insert(at, event._replace(place=(out[at].offset, 0)))
            arrived = [number + 1 for number in arrived]
            continue
        if event.op == CREATE and alive:
            arrived.append(len(out))
        alive = event.op not in ENDINGS
        out.append(event)
    return out


def _with_vanished(events: list[Event], readings: Iterable[Reading]) -> Iterator[Event]:
    left = list(readings)
    last: Event | None = None
    for event in events:
        while left and left[0].start <= event.offset:
            reading = left.pop(0)
            if event.offset >= reading.end and last is not None and last.op not in ENDINGS:
                last = _vanished(last, reading)
                yield last
        yield event
        last = event
    for reading in left:
        if last is not None and last.op not in ENDINGS:
            last = _vanished(last, reading)
            yield last


def _vanished(last: Event, reading: Reading) -> Event:
    return last._replace(
        offset=reading.start,
        op=VANISHED,
        lsn=reading.lsn,
        transaction=reading.transaction,
        values=None,
        before=None,
        moved=None,
        snapshot=True,
        broken=False,
        place=(reading.start, 0),
        author=NOBODY,
    )
