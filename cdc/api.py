"""The contracts: what a source task, a sink task and a log promise each other.

Read this before any implementation. The nouns are Kafka Connect's; where we deviate, the
docstring says so. All methods block; there is no async twin. As in Connect, a task is a
subclass: what not every one has to say has a default here.

Data path and threads of one source task::

    thread A   SourceTask.poll() ──Batch──► queue ──► thread B   Log.append()
               SourceTask.commit() ◄── newest durable position ──┘

and of one sink task, a single thread::

    Log.read() ─► SinkTask.put() … SinkTask.flush() ─► the sink's offset is stored
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypedDict

from cdc.block import Block, EncodedBlock
from cdc.config import Config

# A source's position: JSON-like, opaque to all but the source that made it, except for the
# members that PositionMembers names. (A plain mapping: a source adds members of its own.)
Position = Mapping[str, Any]


class PositionMembers(TypedDict, total=False):
    """What who reads a log may look at in a position: each means this wherever it is there.

    A source may leave out all of them; what holds then is said here. The first six are of
    the stream lane, the last three of the snapshot lane.
    """

    # The transaction under way, of which a part is stored, in any form but null. Absent or
    # null: none is, so all stored up to here is whole. Who cuts transactions has to say so.
    open: Any
    # How far the source's log is stored, in the numbers of the blocks' ``lsn``: up to here a
    # place is known, also behind the last change. Absent: up to the highest of the rows.
    lsn: int
    # Whose log it is that ``lsn`` counts in (a server's, a cluster's): a text or number. Under
    # one name and ``timeline`` LSNs only rise. Absent: of one and the same server.
    system: str | int
    # Which history of that server, counted from 1, as after failovers. Absent: the first.
    timeline: int
    # Which of that server's databases the tables lie in, as the server numbers or names them, and
    # under which name it knows who reads its log (a slot): a copy of its disk has the first,
    # and not the second. Absent: a sink cannot tell whether its target is the source itself.
    database: str | int
    slot: str
    # The generation's snapshot, once its lane is closed, is of all tables captured, each read
    # to its end; false: it fills up what was missing. Absent: true in a log's first
    # generation, whose rows come before any others; in later ones false.
    whole: bool
    # The tables that it has read, by ``str(TableId)``; a mapping's keys, or a list. Absent:
    # all. A row that a whole snapshot of its table lacks has vanished before that.
    tables: Mapping[str, Any] | Sequence[str]
    # What its rows would say if there were any: the ``lsn`` it is of, its time ``us`` (µs since
    # 1970) and transaction ``xid`` (0: none). Absent: only rows tell.
    taken: Mapping[str, int]


# What a target is given to keep that has one offset, when there are several journals.
NOT_KEPT = -1


class Lane(Enum):
    """Where a batch goes while a snapshot runs.

    A log is a sequence of generations; a generation is a snapshot lane followed by a
    stream lane. Both are written at the same time, readers see the snapshot lane first and
    the stream lane once the snapshot lane is closed: that is how the stream is journalled,
    and confirmed to the server, from the first second of a long snapshot.
    """

    SNAPSHOT = "snapshot"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class Batch:
    """What ``poll`` returns and ``append`` stores, in one durable transaction.

    ``block`` may be None: then only the position moves (a keep-alive, an empty chunk).
    ``close`` ends the lane with this batch. Closing the stream lane ends the generation:
    the next batch, whichever its lane, opens the next one. A snapshot lane that is closed
    still takes positions: what a source has come to know of the tables it read.
    """

    lane: Lane
    position: Position
    block: Block | EncodedBlock | None = None
    close: bool = False


@dataclass(frozen=True, slots=True)
class LogState:
    """What a log holds of its source, when a task starts.

    ``generation`` is 0 for an empty log. A ``position`` is the one stored by the lane's
    newest batch, of this generation or, while its lane is empty, of the one before.
    ``snapshot_closed`` and ``stream_closed`` speak of the
    newest generation.
    """

    generation: int = 0
    snapshot_position: Position | None = None
    snapshot_closed: bool = False
    stream_position: Position | None = None
    stream_closed: bool = False


class Log(Protocol):
    """A durable, ordered sequence of Blocks with one writer and any number of readers."""

    def state(self) -> LogState:
        """What is stored. Called once, before the source task starts."""

    @property
    def dropped_rows(self) -> int:
        """Rows lost since it was opened, because there was no space and that was chosen."""

    def append(self, batch: Batch) -> int:
        """Store a batch and its position in one transaction; return the bytes written.

        On return it is on disk: a crash of process, machine or power loses nothing of it.
        Raises LogFull (nothing was stored, call again) or another LogError.
        """

    def read(self, offset: int) -> Block | None:
        """The block that holds ``offset``, from that row on; None when nothing is there yet.

        Raises OffsetOutOfRange when retention has taken it.
        """


class Reader(Protocol):
    """One log, as a sink's task reads it. Used by one thread."""

    path: Path

    def read(self, offset: int) -> Block | None:
        """As :meth:`Log.read`."""

    def bounds(self) -> tuple[int, int]:
        """The oldest offset stored, and the next one to come."""

    def settled(self) -> bool:
        """Whether the newest position stored leaves no transaction open."""

    def close(self) -> None:
        """Release files."""


class SourceTask(ABC):
    """Reads one database. Life: ``start``, then ``poll``/``commit`` in turn, then ``stop``.

    All but ``interrupt`` are called from one thread. ``stop`` may come more than once, and
    after a ``start`` that failed.
    """

    @abstractmethod
    def start(self, state: LogState) -> None:
        """Connect, compare the server with ``state``, and get ready to poll.

        Raises a ConfigError or a SourceError that names cause and remedy.
        """

    @abstractmethod
    def poll(self, timeout_s: float) -> list[Batch]:
        """The next batches; an empty list when there was nothing for ``timeout_s``.

        Retriable errors mean: the runtime restarts the task from what the log holds.
        """

    @abstractmethod
    def commit(self, lane: Lane, position: Position) -> None:
        """``position`` and all before it in that lane is on disk: confirm it to the server.

        While the log has no space it is called again and again, so that keep-alives are
        answered, with an empty position where nothing was ever stored.
        """

    @abstractmethod
    def stop(self) -> None:
        """End; confirm what was committed; release connections and processes."""

    def interrupt(self) -> None:  # noqa: B027 - most have nothing to cut short
        """``stop`` will come soon: a ``start`` that waits for long may end. From any thread."""

    def metrics(self) -> Mapping[str, float]:
        """Gauges by metric name, of this moment (see :mod:`cdc.metrics`)."""
        return {}


class RowReporter(Protocol):
    """Connect's ErrantRecordReporter: a sink names the rows that its target refuses."""

    def report(self, block: Block, row: int, error: Exception) -> None:
        """Leave a row of the block that is being put out; on return that is durably noted.

        Raises what ends the task where ``errors.tolerance`` does not allow it: let it pass.
        """


def unknown_origin(journal: str) -> PositionMembers:  # noqa: ARG001 - nobody knows it of any
    """Of a task that runs where no log is at hand."""
    return {}


@dataclass(frozen=True, slots=True)
class SinkContext:
    """Where a sink task runs: its connector's name and a folder it may keep files in.

    ``reporter`` is there where bad rows are reported (dead letters, or a log of errors).
    Without one a task raises SinkRejected, and with one too where it cannot name the row.
    ``origin``: where the rows of a journal, by name, come from. ``witness``: what the task's
    own ``witness`` was when a position was stored last.
    """

    connector: str
    data_dir: Path
    extras: Mapping[str, Any] = field(default_factory=dict)
    reporter: RowReporter | None = None
    origin: Callable[[str], PositionMembers] = unknown_origin
    witness: str | None = None


class SinkTask(ABC):
    """Writes one target. Life: ``start``, then ``put``s and ``flush``es, then ``stop``.

    Made of the connector's parsed configuration. One thread. Delivery: the runtime stores the
    sink's offset only after ``flush`` returned. After a crash the blocks since then are put
    again, unless the target keeps the offset itself (``stored_offset``), which makes delivery
    exactly once.

    Several journals take turns: what lies between two flushes is of one of them. A target that
    keeps an offset for each (``turn_to``) has each of them exactly once.
    """

    # What is put are rows of tables, whatever a chain of transforms has made of them (see
    # cdc.images); who writes records, through converters, gets them as they are.
    takes_records: ClassVar[bool] = False
    # Messages are put too, whatever the sink's topics are.
    wants_messages: ClassVar[bool] = False
    # A transaction is offered only when its end is in the journal: the rest follows at once.
    whole_transactions: ClassVar[bool] = False
    # The targets keep the offset. Then, where the runtime knows one, none in the target means
    # that the target was emptied, which is an error.
    keeps_offset: bool = False
    # The targets keep rows by key: values that a key change did not send come from the old key's.
    keeps_rows: ClassVar[bool] = False
    # The connector goes on with the journal it began with when other sources come beside it.
    one_journal: ClassVar[bool] = False
    # Why the target cannot be written again from an earlier offset; empty: it can.
    no_seek: ClassVar[str] = ""
    # Why a dead letter cannot be put behind rows that came after it; empty: it can.
    no_redelivery: ClassVar[str] = ""

    @classmethod
    def into(cls, config: Config, name: str) -> Mapping[str, str] | None:  # noqa: ARG003
        """The keys to change so that the same connector writes a second target of that name.

        For ``cdc replay --into``; None: there is no second target.
        """
        return None

    @abstractmethod
    def start(self, context: SinkContext) -> None:
        """Connect to the target and prepare it. Raises ConfigError or SinkError."""

    def turn_to(self, journal: str, *, unnamed: bool = False) -> bool:  # noqa: ARG002
        """What follows is of this journal: rows, offsets, epochs and its identity.

        Called on a started task, and between a flush and the next ``put``. Returns whether the
        target keeps these for each journal; where not, it is given NOT_KEPT when there are
        several. ``unnamed``, for the first one only: an offset that was kept without its
        journal's name is of this one.
        """
        return False

    def stored_offset(self) -> int | None:
        """The offset to continue from, when the target keeps it; None: the runtime does.

        Before the first ``turn_to``: the newest that it keeps, whichever journal that is of.
        """
        return None

    def stored_identity(self) -> str | None:
        """The identity of the journal that the stored offset is of, where the target keeps it."""
        return None

    def stored_epoch(self) -> int | None:
        """The newest ``seek``'s epoch; None: the target cannot tell.

        Where it can, dead letters are put again exactly once.
        """
        return None

    def adopt(self, identity: str) -> bool:  # noqa: ARG002 - part of the contract
        """The identity of the journal read comes with the next ``flush`` or ``seek``.

        Returns whether the target keeps it beside the offset.
        """
        return False

    @abstractmethod
    def put(self, block: Block) -> None:
        """Take rows in journal order; may buffer. ``block.offsets`` are consecutive or rising.

        A block may end inside a transaction (see ``whole_transactions``). Rows before this
        block are never offered again unless the task restarts. Raises SinkUnavailable (the
        runtime calls again with the same block) or SinkRejected.
        """

    @abstractmethod
    def flush(self, offset: int) -> None:
        """Make all rows put so far durable in the target; ``offset`` is the next to come.

        A target that keeps the offset stores it in the same transaction. NOT_KEPT stands for
        none: it keeps no offset then, the runtime does, and one it kept before is forgotten.
        """

    def witness(self) -> str | None:
        """What is to be known of the target outside of it, so that a cut of it is found out.

        The runtime keeps it with the position, after ``flush``; None: nothing new.
        """
        return None

    def tick(self) -> None:  # noqa: B027 - where time alone makes nothing due
        """Called about once a second while all that was put is flushed; raises as ``flush``.

        What is due after a time, and not only with rows to come, is done here.
        """

    def seek(self, offset: int, epoch: int) -> None:  # noqa: B027 - where none is kept
        """Continue from ``offset`` next time: a replay. Called on a started task before ``put``.

        A target that keeps the offset moves it, under ``epoch``, which only ever grows, in one
        transaction with rows that were put and not flushed.
        """

    def stop(self) -> None:  # noqa: B027 - where nothing is held
        """Release the target. What was not flushed is dropped, and will be put again."""
