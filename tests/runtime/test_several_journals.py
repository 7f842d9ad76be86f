"""One sink over several journals: each of their rows once, and their transactions whole."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from cdc.api import NOT_KEPT, Batch, Lane, SinkContext
from cdc.block import Block
from cdc.log.identity import identity_of
from cdc.log.journal import Journal
from cdc.log.reader import JournalReader
from cdc.runtime.offsets import Offsets
from cdc.runtime.sink_loop import SinkLoop, SinkSettings
from cdc.runtime.topics import TopicFilter
from tests.blocks import INT32, STRING, Source
from tests.contract.targets import FileTarget, SearchTarget, SqliteTarget, State, Target
from tests.forks import Fork
from tests.runtime.loops import Watch, run_in_time

BOTH = ("crm", "shop")
QUICK = {"flush_rows": 1, "flush_interval_s": 0.01, "offset_interval_s": 0}
KINDS = ("file", "append", "copy", "search")
APPEND = {"insert.mode": "insert", "pk.mode": "none", "delete.enabled": "false"}


def target_of(kind: str, folder: Path) -> Target:
    if kind == "file":
        return FileTarget(folder)
    if kind == "search":
        return SearchTarget(folder)
    return SqliteTarget(folder, **(APPEND if kind == "append" else {}))


class Shifting:
    """A source with two rows, which ``UPDATE t SET id = id + 1`` moves on and on."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self.source, self.at = folder / name, Source(), 1
        self.table = self.source.table(f"{name}_rows", id=INT32, note=STRING)
        self.source.begin()
        for id_, note in ((1, "a"), (2, "b")):
            self.source.insert(self.table, id=id_, note=note)
        self.source.commit()
        with Journal.open(self.path) as journal:
            journal.append(Batch(Lane.SNAPSHOT, {}, close=True))
            self._append(journal)

    def shift(self, times: int) -> None:
        """Every block ends in the middle of a statement, but for the last one."""
        with Journal.open(self.path) as journal:
            for _ in range(times):
                self.begin_to_shift(journal)
                self._move(self.at + 1, "b")
                self.source.commit()
                self.at += 1
            self._append(journal)

    def begin_to_shift(self, journal: Journal) -> None:
        self.source.begin()
        self._move(self.at, "a")
        self._append(journal)

    def _move(self, id_: int, note: str) -> None:
        old, new = {"id": id_, "note": note}, {"id": id_ + 1, "note": note}
        self.source.change_key(self.table, old, new)

    def _append(self, journal: Journal) -> None:
        opened = {} if self.source._open is None else {"open": True}
        journal.append(Batch(Lane.STREAM, opened, self.source.block()))


class Reader(Watch):
    """Looks at the target between two puts, as anybody might."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target, self.seen = target, list[State]()

    def put(self, block: Block) -> None:
        self.seen.append(self.target.state())


def sink(
    target: Target,
    folder: Path,
    journals: tuple[str, ...],
    watch: Watch,
    *,
    until: int | None = None,
    **settings: Any,
) -> None:
    """Run to the journals' ends, or until as many rows are stored."""
    with ExitStack() as stack:
        readers = {name: stack.enter_context(JournalReader(folder / name)) for name in journals}
        offsets = stack.enter_context(closing(Offsets(folder / "sinks.db")))
        end = sum(reader.bounds()[1] for reader in readers.values()) if until is None else until
        watch.loop = SinkLoop(
            target.task(),
            SinkContext("copy", folder),
            readers,
            offsets,
            topics=TopicFilter(regex=".*"),
            settings=SinkSettings(**{**QUICK, **settings}),
            events=watch,
        )
        watch.until = lambda: f"stored {end}" in watch.log
        run_in_time(watch.loop)
        assert watch.until(), watch.log


def sink_there(_tell: Any, kind: str, folder: Path, journals: tuple[str, ...]) -> None:
    sink(target_of(kind, folder), folder, journals, Watch())


def killed_and_started_again(kind: str, folder: Path, journals: tuple[str, ...], at: str) -> int:
    """To the journals' ends, however often it dies on the way; how often that was."""
    for deaths in range(99):
        with Fork(sink_there, kind, folder, journals, points=f"{at}=kill@2") as fork:
            if fork.end() == 0:
                return deaths
    raise AssertionError("it never ends")


def contents(kind: str, target: Target) -> dict[str, list[Any]]:
    """By table: what is there, in order."""
    if isinstance(target, SqliteTarget):
        names = [name for name in target.tables() if name != "cdc_offsets"]
        return {name: target.query(f'SELECT * FROM "{name}" ORDER BY rowid') for name in names}
    if kind == "search":
        return {name: sorted(rows.items()) for name, rows in target.state().items()}
    found: dict[str, list[Any]] = {}
    table = ""
    for line in target.lines():
        if line["value"] is not None:
            table = line["value"]["source"]["table"]
        found.setdefault(table, []).append(line)
    return found


def of_each_alone(kind: str, folder: Path) -> dict[str, list[Any]]:
    """What a target of its own has of each journal, when nothing goes wrong."""
    found: dict[str, list[Any]] = {}
    for name in BOTH:
        own = folder / f"alone-{name}"
        own.mkdir()
        (own / name).symlink_to(folder / name)
        target = target_of(kind, own)
        sink(target, own, (name,), Watch())
        found |= contents(kind, target)
    return found


@pytest.mark.parametrize("kind", ["copy", "search"])
def test_nobody_sees_half_a_transaction_of_any_source(kind: str, tmp_path: Path) -> None:
    shop, crm = Shifting(tmp_path, "shop"), Shifting(tmp_path, "crm")
    shop.shift(5)
    crm.shift(3)
    target = target_of(kind, tmp_path)
    reader = Reader(target)
    sink(target, tmp_path, BOTH, reader)
    for state in [*reader.seen, target.state()]:
        for rows in state.values():
            first = min(rows)
            assert {id_ - first: row["note"] for id_, row in rows.items()} == {0: "a", 1: "b"}
    ends = {name: min(rows) for name, rows in target.state().items()}
    assert ends == {"shop_rows": 6, "crm_rows": 4}
    taking_turns = [
        state
        for state in reader.seen
        if len(state) == len(ends)
        and all(1 < min(rows) < ends[name] for name, rows in state.items())
    ]
    assert taking_turns


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        ("file", "sink.store.before"),
        ("append", "sink.store.before"),
        ("append", "sink.flush.before"),
        ("search", "sink.store.before"),
    ],
)
def test_sources_that_come_and_go_leave_every_row_once(kind: str, at: str, tmp_path: Path) -> None:
    shop = Shifting(tmp_path, "shop")
    deaths = killed_and_started_again(kind, tmp_path, ("shop",), at)
    crm = Shifting(tmp_path, "crm")
    shop.shift(1)
    crm.shift(1)
    deaths += killed_and_started_again(kind, tmp_path, BOTH, at)
    shop.shift(1)
    crm.shift(1)
    deaths += killed_and_started_again(kind, tmp_path, ("crm",), at)
    crm.shift(1)
    deaths += killed_and_started_again(kind, tmp_path, BOTH, at)
    assert deaths > 2
    assert contents(kind, target_of(kind, tmp_path)) == of_each_alone(kind, tmp_path)


def test_a_source_that_stops_inside_a_transaction_does_not_hold_up_the_other(
    tmp_path: Path,
) -> None:
    shop, crm = Shifting(tmp_path, "shop"), Shifting(tmp_path, "crm")
    with Journal.open(crm.path) as journal:
        crm.begin_to_shift(journal)
    shop.shift(2)
    target = SearchTarget(tmp_path)
    sink(target, tmp_path, BOTH, Watch(), until=2 + shop.source.offset)
    assert {name: min(rows) for name, rows in target.state().items()} == {
        "crm_rows": 1,
        "shop_rows": 3,
    }


def kept_by_an_older_version(kind: str, folder: Path, offset: int | None = None) -> None:
    """The target knows no journal's name, and for several journals no offset."""
    if kind == "file":
        path = folder / "out.jsonl.state.json"
        state = orjson.loads(path.read_bytes())
        del state["journal"], state["others"]
        state |= {"version": 1} | ({} if offset is None else {"next_offset": offset})
        path.write_bytes(orjson.dumps(state))
        return
    table, database = "cdc_offsets", SqliteTarget(folder)
    if kind == "search":
        table, database.path = "cdc_search", SearchTarget(folder).path
    for name in ("journal", "others"):
        database.execute(f"ALTER TABLE {table} DROP COLUMN {name}")
    if offset is not None:
        database.execute(f"UPDATE {table} SET next_offset = {offset}")


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_older_version_kept_of_one_journal_is_not_taken_for_anothers(
    kind: str, tmp_path: Path
) -> None:
    shop = Shifting(tmp_path, "shop")
    shop.shift(1)
    sink(target_of(kind, tmp_path), tmp_path, ("shop",), Watch())
    kept_by_an_older_version(kind, tmp_path)
    _stored(tmp_path, {"shop": 2})  # it was killed between flush and store
    crm = Shifting(tmp_path, "crm")
    shop.shift(1)
    crm.shift(3)
    sink(target_of(kind, tmp_path), tmp_path, BOTH, Watch())
    assert contents(kind, target_of(kind, tmp_path)) == of_each_alone(kind, tmp_path)


def test_what_an_older_version_kept_is_not_of_a_source_that_takes_the_others_place(
    tmp_path: Path,
) -> None:
    Shifting(tmp_path, "shop").shift(1)
    sink(target_of("append", tmp_path), tmp_path, ("shop",), Watch())
    kept_by_an_older_version("append", tmp_path)
    Shifting(tmp_path, "crm").shift(3)
    sink(target_of("append", tmp_path), tmp_path, ("crm",), Watch())
    found = contents("append", target_of("append", tmp_path))
    assert found == of_each_alone("append", tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_where_an_older_version_kept_nothing_the_runtimes_offsets_hold(
    kind: str, tmp_path: Path
) -> None:
    shop, crm = Shifting(tmp_path, "shop"), Shifting(tmp_path, "crm")
    sink(target_of(kind, tmp_path), tmp_path, BOTH, Watch())
    kept_by_an_older_version(kind, tmp_path, NOT_KEPT)
    shop.shift(1)
    crm.shift(1)
    _stored(tmp_path, {"shop": 2, "crm": 2})
    sink(target_of(kind, tmp_path), tmp_path, BOTH, Watch())
    assert contents(kind, target_of(kind, tmp_path)) == of_each_alone(kind, tmp_path)


def _stored(folder: Path, positions: Mapping[str, int]) -> None:
    with closing(Offsets(folder / "sinks.db")) as offsets:
        offsets.store(positions, {name: identity_of(folder / name) or "" for name in positions})


class Answering(Watch):
    """For each row that is put of one journal, a transaction comes into the other."""

    def __init__(self, sources: list[Shifting]) -> None:
        super().__init__()
        self.sources, self.moves = sources, 0

    def put(self, block: Block) -> None:
        self.moves += 1
        if self.moves < 40:
            (other,) = (s for s in self.sources if s.table not in block.schemas)
            other.shift(1)


def test_positions_are_stored_while_both_have_always_something_to_come(tmp_path: Path) -> None:
    sources = [Shifting(tmp_path, name) for name in BOTH]
    watch = Answering(sources)
    seldom = {"flush_rows": 10_000, "flush_interval_s": 60.0}
    target, end = target_of("copy", tmp_path), 2 * 2 + 39 * 4
    sink(target, tmp_path, BOTH, watch, until=end, **seldom)
    stored = [entry for entry in watch.log if entry.startswith("stored ")]
    assert len(stored) > 4


@pytest.mark.parametrize("journals", [("shop",), BOTH])
def test_a_reset_that_died_before_it_was_noted_is_not_done_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journals: tuple[str, ...]
) -> None:
    """``latest`` is a later offset by then, and the target was moved already."""
    sources = [Shifting(tmp_path, name) for name in journals]
    target, ends = SqliteTarget(tmp_path), 2 * len(journals)
    sink(target, tmp_path, journals, Watch())
    with closing(Offsets(tmp_path / "sinks.db")) as offsets:
        for name in journals:
            offsets.move(name, None)
    with monkeypatch.context() as dying:
        dying.setattr(Offsets, "store", _dies)
        with pytest.raises(Died):
            sink(target, tmp_path, journals, Watch(), start_from="latest")
    sources[0].shift(1)
    for _ in range(2):
        sink(target, tmp_path, journals, Watch(), start_from="latest")
    with closing(Offsets(tmp_path / "sinks.db")) as offsets:
        assert sum(stored.offset or 0 for stored in offsets.load().values()) == ends + 4


class Died(Exception):
    """In the place of a process's death."""


def _dies(*_: object) -> None:
    raise Died
