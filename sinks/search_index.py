"""The search index's file: how documents get into it, and how they are found.

``documents`` keeps each document's ``body``, the texts one below the other, and in ``layout``
what they are: a JSON array of [column, number of characters]. ``search`` (FTS5) keeps only the
words; its content is that table, so no text is stored twice. FTS5 must be told the old body of
a document that changes, and is quickest when it is told in the order of row numbers.

SQLite 3.40's FTS5 loses changes of words that take a quarter of its page or more (long hex or
base64; 3.51 does not). So words of more than WORD_LETTERS are broken, by a character that the
text has not; then that is a third member in ``layout``.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from cdc.errors import CdcError, ConfigError, LogVersion
from sinks.documents import Changes, Fields
from sinks.kept import Kept, others_of, others_text
from sinks.readonly import open_readonly, unreadable
from sinks.sql_sqlite import NO_TARGET, SqliteDialect

VERSION: Final = 2  # 1: without broken words
WORD_LETTERS: Final = 128  # at most 512 bytes, an eighth of FTS5's page
# What a tokenizer takes for one word: letters, digits, private use, marks on letters.
_LONG_WORD: Final = re.compile(rf"(?:[^\W_]|[\u0300-\u036f\ue000-\uf8ff]){{{WORD_LETTERS + 1},}}")
_BREAKS: Final = "\u200b\u2060\u2061\u2062\u2063\u2064\x1f\x1e\x1d\x1c"  # no letters to FTS5
MODULE = "fts5"
_AGAIN: Final = "Fill another file: cdc replay CONNECTOR --from beginning --into NAME"
_TOKENIZERS: Final = {
    "unicode61": "unicode61 remove_diacritics 2",
    "trigram": "trigram",
}
# FTS5 collects words in memory and writes them once they fill this; its default is 1 MB.
_HASH_BYTES: Final = 16 << 20
_SCHEMA: Final = """
CREATE TABLE cdc_search (
    connector TEXT PRIMARY KEY, next_offset INTEGER NOT NULL, epoch INTEGER NOT NULL,
    identity TEXT, journal TEXT, others TEXT
) STRICT;
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE tables (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, columns TEXT NOT NULL
) STRICT;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, table_id INTEGER NOT NULL, key TEXT NOT NULL, layout TEXT NOT NULL,
    body TEXT NOT NULL, UNIQUE (table_id, key)
) STRICT
"""


class Index:
    """One file, opened by the sink."""

    def __init__(self, path: str, connector: str, tokenizer: str) -> None:
        self._path, self._connector = path, connector
        self._dialect = SqliteDialect()
        try:
            self._db = sqlite3.connect(path)
        except sqlite3.OperationalError as error:
            raise _unusable(path, str(error)) from None
        try:
            self._dialect.prepare(self._db, connector)
        except sqlite3.Error as error:
            self._db.close()
            if (error.sqlite_errorname or "").startswith(NO_TARGET):
                raise _unusable(path, str(error)) from None
            raise
        try:
            self._prepare(tokenizer)
            self._tables: dict[str, tuple[int, list[str]]] = {
                name: (id_, orjson.loads(columns))
                for id_, name, columns in self._db.execute("SELECT * FROM tables")
            }
            # by table, of the last load: row number and body
            self._rows: dict[str, dict[str, tuple[int, str]]] = {}
            self._breaks = tokenizer != "trigram"
            newest = self._db.execute("SELECT max(id) FROM documents").fetchone()[0]
            self._next_id = (newest or 0) + 1
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, tokenizer: str) -> None:
        db = self._db
        self._dialect.begin(db)
        if _check_version(self._path, db) == 0:
            self._create(tokenizer)
        columns = {row[1] for row in db.execute("PRAGMA table_info(cdc_search)")}
        for name in sorted({"identity", "journal", "others"} - columns):  # of an older version
            db.execute(f"ALTER TABLE cdc_search ADD COLUMN {name} TEXT")
        stored = dict(db.execute("SELECT name, value FROM settings"))
        if stored["tokenizer"] != tokenizer:
            raise ConfigError(
                f"{self._path} was made with {stored['tokenizer']}",
                key="search.tokenizer",
                remedy="Name a new search.file and replay from the beginning",
            )
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.commit()

    def _create(self, tokenizer: str) -> None:
        db = self._db
        if db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is not None:
            raise ConfigError(
                f"{self._path} is a SQLite file of something else",
                key="search.file",
                remedy="Name a file that does not exist yet",
            )
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        try:
            db.execute(
                f"CREATE VIRTUAL TABLE search USING {MODULE}(body, content='documents',"
                f" content_rowid='id', tokenize='{_TOKENIZERS[tokenizer]}')"
            )
        except sqlite3.OperationalError as error:
            raise _no_module(error) from None
        db.execute("INSERT INTO search (search, rank) VALUES ('hashsize', ?)", [_HASH_BYTES])
        db.execute("INSERT INTO settings VALUES ('tokenizer', ?)", [tokenizer])
        db.execute(f"PRAGMA user_version = {VERSION}")

    # --- the position ---

    def position(self) -> Kept | None:
        """Where the connector's journals stand; None at first."""
        sql = "SELECT next_offset, epoch, identity, journal, others FROM cdc_search"
        row = self._db.execute(f"{sql} WHERE connector = ?", [self._connector]).fetchone()
        if row is None:
            return None
        offset, epoch, identity, journal, others = row
        return Kept(offset, epoch, identity, journal, others_of(others))

    def save(self, new: Kept, old: Kept | None) -> bool:
        """Move the position; False when it is no longer where it was left."""
        self._dialect.begin(self._db)
        values = [new.offset, new.epoch, new.identity, new.journal, others_text(new.others)]
        if old is None:
            cursor = self._db.execute(
                "INSERT INTO cdc_search (next_offset, epoch, identity, journal, others, connector)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [*values, self._connector],
            )
        else:
            cursor = self._db.execute(
                "UPDATE cdc_search SET next_offset = ?, epoch = ?, identity = ?, journal = ?,"
                " others = ? WHERE connector = ? AND next_offset = ? AND epoch = ?"
                " AND journal IS ?",
                [*values, self._connector, old.offset, old.epoch, old.journal],
            )
        return cursor.rowcount == 1

    def commit(self) -> None:
        """Make all of it durable."""
        self._db.commit()

    def close(self) -> None:
        """Roll back what was not committed, and let go."""
        self._db.close()

    # --- documents ---

    def columns_of(self, table: str) -> Sequence[str]:
        """The columns of a table that were searched until now."""
        return self._tables.get(table, (0, []))[1]

    def remember(self, table: str, columns: Sequence[str]) -> None:
        """Note which columns of a table are searched."""
        known = self._tables.get(table)
        if known is not None and set(columns) <= set(known[1]):
            return
        merged = list(dict.fromkeys([*(known[1] if known else ()), *columns]))
        self._dialect.begin(self._db)
        id_ = self._db.execute(
            "INSERT INTO tables (name, columns) VALUES (?, ?) ON CONFLICT (name) DO UPDATE"
            " SET columns = excluded.columns RETURNING id",
            [table, orjson.dumps(merged).decode()],
        ).fetchone()[0]
        self._tables[table] = (id_, merged)

    def load(self, table: str, ids: Sequence[str]) -> Mapping[str, Fields]:
        """Stored documents, of those asked for; where they lie is kept for ``apply``."""
        there = self._rows[table] = dict[str, tuple[int, str]]()
        found: dict[str, Fields] = {}
        if table not in self._tables:
            return found
        rows = self._db.execute(
            "SELECT d.key, d.id, d.layout, d.body FROM json_each(?) AS wanted"
            " CROSS JOIN documents AS d ON d.table_id = ? AND d.key = wanted.value",
            [orjson.dumps(ids).decode(), self._tables[table][0]],
        )
        for key, id_, layout, text in rows:
            there[key] = id_, text
            found[key] = unpacked(layout, text)
        return found

    def apply(self, changes: Changes) -> None:
        """Write what was built from the documents of the ``load`` just before."""
        self._dialect.begin(self._db)
        table = self._tables[changes.table][0]
        there = self._rows.pop(changes.table)
        if changes.truncated:
            self._truncate(table)
            there = {}
        removed: list[tuple[int]] = []
        stored: list[tuple[int, int, str, str, str]] = []
        words: list[tuple[str | None, int, str]] = []
        for key, fields in changes.new.items():
            id_, body = there.get(key, (None, ""))
            if fields == changes.old.get(key):
                continue
            if id_ is not None:
                words.append(("delete", id_, body))
            if fields is None:
                if id_ is not None:
                    removed.append((id_,))
                continue
            if id_ is None:
                id_ = self._next_id
                self._next_id += 1
            layout, text = packed(fields, breaks=self._breaks)
            stored.append((id_, table, key, layout, text))
            words.append((None, id_, text))
        self._db.executemany("DELETE FROM documents WHERE id = ?", removed)
        self._db.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?)", stored)
        words.sort(key=lambda word: word[1])  # stable: what a document loses goes first
        self._db.executemany("INSERT INTO search (search, rowid, body) VALUES (?, ?, ?)", words)

    def _truncate(self, table: int) -> None:
        self._db.execute(
            "INSERT INTO search (search, rowid, body) SELECT 'delete', id, body FROM documents"
            " WHERE table_id = ? ORDER BY id",
            [table],
        )
        self._db.execute("DELETE FROM documents WHERE table_id = ?", [table])


def packed(fields: Fields, *, breaks: bool = True) -> tuple[str, str]:
    """A document's layout and body."""
    layout: list[tuple[str | int, ...]] = []
    parts = []
    for name, text in fields.items():
        part, mark = broken(text) if breaks and len(text) > WORD_LETTERS else (text, "")
        layout.append((name, len(part), mark) if mark else (name, len(part)))
        parts.append(part)
    return orjson.dumps(layout).decode(), "\n".join(parts)


def unpacked(layout: str, body: str) -> Fields:
    """The inverse of :func:`packed`."""
    fields, at = {}, 0
    for name, length, *mark in orjson.loads(layout):
        text = body[at : at + length]
        fields[name] = text.replace(mark[0], "") if mark else text
        at += length + 1
    return fields


def broken(text: str) -> tuple[str, str]:
    """The text with its long words broken, and by what; empty where there is none."""
    if max(map(len, text.split()), default=0) <= WORD_LETTERS:
        return text, ""
    mark = next((mark for mark in _BREAKS if mark not in text), "")
    if not mark:
        return text, ""
    found = _LONG_WORD.sub(lambda word: _in_pieces(word[0], mark), text)
    return (found, mark) if len(found) > len(text) else (text, "")


def _in_pieces(word: str, mark: str) -> str:
    return mark.join(word[at : at + WORD_LETTERS] for at in range(0, len(word), WORD_LETTERS))


# --- searching ---


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found; a lower ``score`` (bm25) is a better one."""

    table: str
    key: str
    score: float
    snippet: str
    fields: Fields


def search(
    path: str, query: str, *, limit: int = 10, table: str | None = None, literal: bool = False
) -> list[Hit]:
    """The best documents first. Raises ConfigError for a query that FTS5 does not understand.

    And CdcError for an index that is damaged, locked or of a newer format.
    """
    text = quoted(query) if literal else query
    if not text.strip():
        raise ConfigError("there is no word in the query")
    db = _open(path)
    try:
        tables = _tables(db, table)
        if ("tokenizer", "trigram") not in db.execute("SELECT name, value FROM settings"):
            text, _ = broken(text)
        rows = db.execute(
            "SELECT t.name, d.key, bm25(search), snippet(search, 0, '[', ']', '…', 16), d.layout,"
            " d.body"
            " FROM search JOIN documents AS d ON d.id = search.rowid"
            " JOIN tables AS t ON t.id = d.table_id WHERE search MATCH ?"
            + (f" AND d.table_id IN ({','.join(map(str, tables))})" if table else "")
            + " ORDER BY rank LIMIT ?",
            [text, limit],
        ).fetchall()
        return [
            Hit(name, key, score, _whole(snippet), unpacked(layout, body))
            for name, key, score, snippet, layout, body in rows
        ]
    except sqlite3.Error as error:
        raise _failed(path, text, error) from None
    except (TypeError, ValueError):
        raise CdcError(f"{path} is damaged: a document was altered", remedy=_AGAIN) from None
    finally:
        db.close()


def _whole(snippet: str) -> str:
    """In one line, its long words joined."""
    return " ".join(snippet.replace(_BREAKS[0], "").split())


def quoted(query: str) -> str:
    """Every word as it is, none of it an operator; all must be there."""
    return " ".join('"' + word.replace('"', '""') + '"' for word in query.split())


def _open(path: str) -> sqlite3.Connection:
    if not Path(path).is_file():
        raise ConfigError(f"there is no index {path}", remedy="Name the search.file of a sink")
    try:
        db = open_readonly(path)
    except sqlite3.Error as error:
        raise _unreadable(path, error) from None
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'cdc_search'").fetchone() is None:
        db.close()
        raise ConfigError(f"{path} is no search index", remedy="Name the search.file of a sink")
    try:
        _check_version(path, db)
    except LogVersion:
        db.close()
        raise
    return db


def _check_version(path: str, db: sqlite3.Connection) -> int:
    """The file's format. Raises LogVersion for a newer one."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise LogVersion(
            f"{path} has format {version}, this version knows {VERSION}",
            remedy="Use the version of cdc that wrote it, or a newer one",
        )
    return version


def _unreadable(path: str, error: sqlite3.Error) -> CdcError:
    return unreadable(path, error, what="search index", remedy=_AGAIN)


def _failed(path: str, query: str, error: sqlite3.Error) -> CdcError:
    """A query's own faults are plain errors; all others are the file's."""
    plain = getattr(error, "sqlite_errorname", "") == "SQLITE_ERROR"
    if plain and not str(error).startswith("no such table"):
        return _explained(query, error)
    return _unreadable(path, error)


def _tables(db: sqlite3.Connection, table: str | None) -> list[int]:
    if table is None:
        return []
    known = list(db.execute("SELECT id, name FROM tables ORDER BY name"))
    found = [id_ for id_, name in known if table in (name, name.partition(".")[2])]
    if not found:
        from difflib import get_close_matches

        names = [name for _, name in known]
        short = [name.partition(".")[2] for name in names]
        near = get_close_matches(table, [*names, *short], 1, 0.5)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(names) or 'none'}"
        raise ConfigError(f"no table {table} in the index", key="--table", remedy=hint)
    return found


def _explained(query: str, error: sqlite3.Error) -> ConfigError:
    said = str(error)
    if f"no such module: {MODULE}" in said:
        return _no_module(error)
    near = re.search(r'near "(.*)"', said, re.DOTALL)
    column = re.search(r"no such column: (.*)", said, re.DOTALL)
    place = ""
    if near is not None:
        at = query.find(near[1])
        place = f" at position {at + 1}" if near[1] and at >= 0 else " at its end"
    elif column is not None:
        place = f" at position {max(query.find(column[1]), 0) + 1}"
        said = f"{column[1]} is taken for a column, since - and : are operators"
    elif "unterminated string" in said:
        place = f" at position {query.rfind(chr(34)) + 1}"
    return ConfigError(
        f"the query {query!r} is not understood{place}: {said}",
        remedy='Put double quotes around words with other signs than letters, "like-this", or'
        " use --literal",
    )


def _no_module(error: Any) -> ConfigError:
    return ConfigError(
        f"this Python's SQLite library has no FTS5 ({error})",
        remedy="Use a Python whose SQLite is built with SQLITE_ENABLE_FTS5, as python.org's and"
        " the distributions' are",
    )


def _unusable(path: str, said: str) -> ConfigError:
    return ConfigError(
        f"{path} cannot be used: {said}",
        key="search.file",
        remedy="Name a file in a folder that exists and can be written",
    )
