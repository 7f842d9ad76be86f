"""Redelivery: dead letters that somebody wants put again, once the chain or target is mended.

A letter goes through the sink's chain of now, as its row would. The sink's position stays where
it is. Three things could go wrong, and do not:

* *An old row over a newer one.* A letter whose row has changed in the journal since, before the
  sink's position, is stale: it is left, with a note that names the newer offset, unless it was
  asked for with ``--stale``. Changes that are dead letters themselves do not count: the target
  has none of them.
* *Twice.* A target that keeps the offset and tells its epoch (``stored_epoch``) gets the row and
  a new epoch in one transaction. After a crash, a letter whose epoch the target has is done.
* *Lost.* A letter is removed only after the target has it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from cdc import failpoints
from cdc.api import SinkTask
from cdc.block import MESSAGE, TRUNCATE, key_hash
from cdc.errors import CdcError, SinkError, SinkRejected
from cdc.log.reader import JournalReader
from cdc.runtime.deadletters import ASKED_STALE, DeadLetters, Letter
from cdc.runtime.delivery import Delivery
from cdc.runtime.tolerance import NotTolerated
from schemas import EventSchema

log = logging.getLogger(__name__)


class LetterRefused(SinkError):
    """The target refused a letter; the task starts again, since nobody knows what it kept."""

    retriable = True


# (letter, end, offsets of other letters) → the offset of a newer state of the letter's row
# before ``end``; None: there is none.
Newer = Callable[[Letter, int, frozenset[int]], int | None]


class Redelivery:
    """Puts the letters of one sink again. Used from the sink's thread, between two blocks."""

    def __init__(self, task: SinkTask, delivery: Delivery, letters: DeadLetters) -> None:
        self._task, self._delivery, self._letters = task, delivery, letters

    def settle(self, journal: str) -> None:
        """After a start: what the target's epoch says of letters that a crash cut off."""
        epoch = self._epoch()
        for letter in self._letters.asked(journal):
            if letter.epoch is None:
                continue
            if epoch is not None and epoch >= letter.epoch:
                self._letters.drop([letter.id])
            else:
                self._letters.forget(letter)

    def run(self, journal: str, kept: int, end: int, newer: Newer) -> None:
        """Put all that was asked for. ``kept``: what the target keeps as its offset.

        All rows before ``end`` were put and flushed. Raises LetterRefused, and what a target out
        of reach raises: the letter is then tried again.
        """
        # Once for all: those that go meanwhile lie before the ones that are still to come.
        others = self._letters.offsets(journal)
        for letter in self._letters.asked(journal):
            if self._delivery.operator.stopping.is_set():
                return  # the others are asked for still, and put at the next start
            found = None if letter.replay == ASKED_STALE else newer(letter, end, others)
            if found is not None:
                self._letters.leave(letter, f"stale: its row has a newer state at offset {found}")
            else:
                self._put(letter, kept, end)

    def _put(self, letter: Letter, offset: int, end: int) -> None:
        count = self._delivery.operator.count
        before = count.errors
        try:
            self._deliver(letter, offset, end)
        except NotTolerated as error:
            # What was reported is stored; whatever else the task kept is put again.
            self._letters.leave(letter, f"failed again: {_problem(error.__cause__ or error)}")
            raise LetterRefused(f"dead letter {letter.id} failed again: {error}") from error
        except SinkRejected as error:
            self._letters.leave(letter, f"refused again: {error.problem}")
            raise LetterRefused(f"dead letter {letter.id} was refused again: {error}") from error
        if count.errors == before:
            self._letters.drop([letter.id])
        else:
            self._letters.leave(letter, "failed again")

    def _deliver(self, letter: Letter, offset: int, end: int) -> None:
        part = letter.part if self._delivery.chain is not None else None
        found = self._delivery.prepare(letter.journal, letter.row, part)
        if found is None:
            return  # the chain drops it now, which is its delivery; or it has failed again
        epoch = self._letters.begin(letter, self._epoch() or 0)
        failpoints.hit("letters.put.before")
        self._task.put(replace(found, offsets=[end] * len(found)))  # behind what was put
        if self._epoch() is None:
            self._task.flush(offset)
        else:
            self._task.seek(offset, epoch)
        failpoints.hit("letters.put.after")

    def _epoch(self) -> int | None:
        """The target's, where it keeps one that it can tell."""
        return self._task.stored_epoch()


def newer_in(reader: JournalReader) -> Newer:
    """Looks for newer states in a journal, by its blocks' key filters.

    For one run: what is stored behind its end is not looked at.
    """

    @cache
    def schemas() -> list[EventSchema]:
        return list(reader.schemas().values())

    def newer(letter: Letter, end: int, others: frozenset[int]) -> int | None:
        row, key = letter.row, letter.row.keys[0]
        schema = row.schemas[row.schema[0]]
        if key is None or row.op[0] in (MESSAGE, TRUNCATE):
            return None
        same = [s for s in schemas() if _same_table(s, schema)]
        hashes = {key_hash(s.fingerprint, text) for s in same for text in (key, b"")}
        known = {s.fingerprint for s in same}
        for block in reader.blocks_with(hashes, letter.at + 1, end, keyless=True, lost=_lost):
            for at, offset in enumerate(block.offsets):
                mine = block.keys[at] == key or block.op[at] == TRUNCATE
                wanted = letter.at < offset < end and offset not in others
                if mine and wanted and block.schemas[block.schema[at]].fingerprint in known:
                    return offset
        return None

    return newer


def _same_table(one: EventSchema, other: EventSchema) -> bool:
    return (one.table, one.destination) == (other.table, other.destination)


def _lost(error: CdcError) -> None:
    log.warning("looking for newer states of a dead letter: %s", error)


def _problem(error: BaseException) -> str:
    return error.problem if isinstance(error, CdcError) else type(error).__name__
