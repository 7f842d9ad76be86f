"""Search sink: a full-text index of chosen columns in one SQLite file (FTS5).

Every row with a key is one document (:mod:`sinks.documents`); ``cdc search FILE WORDS``, or
any program with SQLite, searches while the sink writes: ``documents`` holds table, key and
texts, ``search`` is an FTS5 table over it.

The journal offset, of each journal that is read, lies in the file and moves in the same
transaction as the documents, which ends only where a source transaction does: delivery is
exactly once, and a reader never sees half a transaction.

*A replay* goes through the same rows again, in the same file, which can be searched
meanwhile; documents end as the journal's last state says. Rows that were deleted since come
and go again. ``cdc replay --into`` builds a second file beside the first; a connector with a
new ``search.file`` does so with other columns or another tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdc.api import SinkContext, SinkTask
from cdc.block import Block
from cdc.config import Config, ConfigDef, Key, grouped
from cdc.durable import no_file
from cdc.errors import CdcError, ConfigError, SinkError, SinkRejected
from cdc.failpoints import hit
from cdc.record import from_offset, whole_rows
from sinks.documents import KEY, Builder, parse_choices
from sinks.kept import Kept
from sinks.moves import Moves

if TYPE_CHECKING:
    from sinks.search_index import Index


def _choices(value: Any) -> str | None:
    try:
        parse_choices(value)
    except ValueError as error:
        return str(error)
    return None


def _check(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if bool(values["search.file"]) == bool(values["connection.url"]):
        yield "search.file", "Set search.file, or connection.url (jdbc:sqlite:…), and not both"


CONFIG = ConfigDef(
    grouped(
        "Search",
        (
            Key(
                "search.file",
                default="",
                validator=lambda path: no_file(path) if path else None,
                doc="Path of the index.",
                importance="HIGH",
            ),
            Key(
                "connection.url",
                default="",
                doc="The same as a URL: jdbc:sqlite:/folder/index.db.",
                importance="HIGH",
            ),
            Key(
                KEY,
                default="",
                doc="Columns to search: table:column,column;table:column, where table is a regular"
                " expression of schema.table. Empty: every column of a text type, in every table.",
                validator=_choices,
                importance="HIGH",
            ),
            Key(
                "search.tokenizer",
                default="unicode61",
                choices=("unicode61", "trigram"),
                doc="How texts become words: unicode61 finds whole words, in any case and without"
                " accents; trigram finds any three letters in a row, for twice the space.",
            ),
        ),
    ),
    checks=(_check,),
)


class Interrupted(SinkError):
    """The file let go of us: start again from the stored offset."""

    retriable = True


class SearchSinkTask(SinkTask):
    """Applies blocks in one transaction of the file, and commits at the source's boundaries."""

    keeps_offset = True
    keeps_rows = True

    def __init__(self, config: Config) -> None:
        self._config = config
        self._path = _path(config)
        self._index: Index | None = None
        self._builder: Builder
        self._moves = Moves()
        self._kept = Kept()  # of the journal at work, as committed
        self._row: Kept | None = None  # the file's
        self._identity: str | None = None  # the journal's that comes with the next commit
        self._floor = 0

    # --- the contract ---

    @classmethod
    def into(cls, config: Config, name: str) -> dict[str, str]:
        """A file beside the first."""
        path = Path(_path(config))
        return {
            "search.file": str(path.with_name(f"{path.stem}-{name}{path.suffix}")),
            "connection.url": "",
        }

    def start(self, context: SinkContext) -> None:
        """Open the file, or make it."""
        from sinks.search_index import Index

        self.stop()
        with self._translated_errors():
            self._index = index = Index(
                self._path, context.connector, self._config["search.tokenizer"]
            )
            self._row = index.position()
        self._work_on(self._row or Kept())
        self._builder = Builder(parse_choices(self._config[KEY]), index.load, index.columns_of)
        self._moves = Moves()

    def turn_to(self, journal: str, *, unnamed: bool = False) -> bool:
        """Each journal has an offset in the file."""
        self._work_on(self._kept.turned_to(journal, unnamed=unnamed))
        return True

    def _work_on(self, kept: Kept) -> None:
        self._kept, self._identity, self._floor = kept, kept.identity, kept.floor

    def stored_offset(self) -> int | None:
        """The offset in the file: what is committed, never more."""
        return self._kept.offset

    def stored_epoch(self) -> int:
        """The newest ``seek``'s, as committed in the file."""
        return self._kept.epoch

    def stored_identity(self) -> str | None:
        """The journal's that the offset is of, as committed in the file."""
        return self._kept.identity

    def adopt(self, identity: str) -> bool:
        """The offsets to come are of this journal."""
        self._identity = identity
        return True

    def put(self, block: Block) -> None:
        """Apply a block; commits on the way only if it ends inside a source transaction."""
        rest = from_offset(block, self._floor)
        if rest is None:
            return
        with self._translated_errors():
            whole = whole_rows(rest)
            if 0 < whole < len(rest) and rest.offsets:
                # Otherwise a stream whose blocks all end inside one would never be seen.
                self._apply(rest.select(range(whole)))
                after = rest.offsets[whole]
                self._commit(after, self._kept.epoch)
                rest = rest.select(range(whole, len(rest)))
            self._apply(rest)

    def flush(self, offset: int) -> None:
        """Commit, with the offset in the same transaction."""
        with self._translated_errors():
            self._commit(offset, self._kept.epoch)

    def seek(self, offset: int, epoch: int) -> None:
        """Move the offset in the file; an epoch that is there already changes nothing."""
        if self._kept.offset is not None and epoch <= self._kept.epoch:
            return
        with self._translated_errors():
            self._commit(offset, epoch)
        self._floor = max(offset, 0)

    def stop(self) -> None:
        """Roll back what was not flushed, and close the file."""
        index, self._index = self._index, None
        if index is not None:
            index.close()

    # --- applying ---

    def _apply(self, block: Block) -> None:
        index = self._open
        block = self._moves.join(block)
        plans = [self._builder.plan(schema) for schema in block.schemas]
        for plan in filter(None, plans):
            index.remember(plan.table, plan.columns)
        tables = [None if plan is None else plan.table for plan in plans]
        ordered = self._moves.arrange(block, tables, self._builder.present)
        if ordered is not None:
            self._index_rows(ordered)

    def _index_rows(self, block: Block) -> None:
        for changes in self._builder.changes(block):
            self._open.apply(changes)

    def _commit(self, offset: int, epoch: int) -> None:
        index = self._open
        rest = self._moves.release()
        if rest is not None:
            self._index_rows(rest)
        kept = replace(self._kept, offset=offset, epoch=epoch, identity=self._identity)
        if kept != self._row and not index.save(kept, self._row):
            raise Interrupted(
                f"another task has moved the offset in {self._path}",
                remedy="Run each connector once",
            )
        hit("search.commit.before")
        index.commit()
        hit("search.commit.after")
        self._kept = self._row = kept

    @property
    def _open(self) -> Index:
        if self._index is None:
            raise Interrupted(f"{self._path} is closed")
        return self._index

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """After an error nothing that is open counts: the task starts again."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised again, some under another class
            self.stop()
            raise self._translated(error) from None

    def _translated(self, error: Exception) -> Exception:
        import sqlite3

        from sinks.sql_sqlite import SqliteDialect

        if isinstance(error, CdcError):
            return error
        if isinstance(error, OSError):
            return Interrupted(f"{self._path}: {error.strerror}")
        if not isinstance(error, sqlite3.Error):
            return error
        said, remedy = SqliteDialect().explain(error)
        if SqliteDialect().is_unavailable(error):
            return Interrupted(f"{self._path}: {said}", remedy=remedy)
        return SinkRejected(
            f"{self._path}: {said}", remedy="Name a new search.file and replay from the beginning"
        )


def _path(config: Config) -> str:
    if config["search.file"]:
        return str(config["search.file"])
    url: str = config["connection.url"]
    path = url.removeprefix("jdbc:").removeprefix("sqlite:")
    if path == url or not path:
        raise ConfigError(
            "not a SQLite file", key="connection.url", remedy="Write jdbc:sqlite:/folder/index.db"
        )
    path = path.removeprefix("//").partition("?")[0]
    return path.removeprefix("/") if url.startswith("sqlite:///") else path
