"""The search index: its columns, its tokenizers, and what it refuses."""

from __future__ import annotations

import functools
import hashlib
import random
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cdc.connectors import SINK_CONFIG
from cdc.errors import CdcError, ConfigError
from sinks import search, search_index
from sinks.documents import Changes, document_id, parse_choices
from tests.blocks import INT32, JSON, STRING, Source, optional
from tests.contract.targets import SearchTarget, check_words, started


def hits(target: SearchTarget, query: str, **options: Any) -> list[str]:
    return sorted(hit.key for hit in search_index.search(str(target.path), query, **options))


def put(target: SearchTarget, source: Source) -> None:
    block = source.block()
    task = started(target)
    try:
        task.put(block)
        task.flush(block.offsets[-1] + 1)
    finally:
        task.stop()
    check_words(target.path)


def test_by_default_every_text_is_searched(tmp_path: Path) -> None:
    shop, target = Source(), SearchTarget(tmp_path, **{"search.columns": ""})
    table = shop.table("t", id=INT32, note=optional(STRING), data=optional(JSON), n=INT32)
    shop.insert(table, id=1, note="plain", data='{"deep":"value"}', n=4711)
    put(target, shop)
    assert hits(target, "plain") == hits(target, "value") == ["1"]
    assert hits(target, "4711") == []


def test_trigrams_find_parts_of_words(tmp_path: Path) -> None:
    for tokenizer, found in (("unicode61", []), ("trigram", ["1"])):
        folder = tmp_path / tokenizer
        folder.mkdir()
        shop, target = Source(), SearchTarget(folder, **{"search.tokenizer": tokenizer})
        shop.insert(shop.table("t", id=INT32, note=STRING), id=1, note="Rindfleisch")
        put(target, shop)
        assert hits(target, "fleis") == found


def test_a_changed_key_takes_unsent_texts_along_even_over_two_blocks(tmp_path: Path) -> None:
    shop, target = Source(), SearchTarget(tmp_path)
    table = shop.table("items", id=INT32, note=optional(STRING), big=optional(STRING))
    shop.insert(table, id=1, note="a", big="very long")
    put(target, shop)
    old, new = {"id": 1, "note": "b", "big": None}, {"id": 2, "note": "b", "big": "?"}
    shop.begin()
    shop.change_key(table, old, new)
    shop._unchanged[1] = (2,)
    shop.commit()
    block = shop.block()
    task = started(target)
    task.put(block.select([0]))
    task.put(block.select([1]))
    task.flush(block.offsets[-1] + 1)
    task.stop()
    assert target.state()["items"] == {2: {"id": 2, "note": "b", "big": "very long"}}
    assert hits(target, "long") == ["2"]


def test_a_table_without_a_key_is_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop, target = Source(), SearchTarget(tmp_path)
    shop.insert(shop.table("loose", key=[], id=INT32, note=STRING), id=1, note="x")
    put(target, shop)
    assert target.state() == {}
    assert "loose has no key" in caplog.text


def test_a_misspelt_column_is_named_and_a_dropped_one_is_not(tmp_path: Path) -> None:
    options = {"search.columns": r"public\.items:note,title"}
    shop, target = Source(), SearchTarget(tmp_path, **options)
    shop.insert(shop.table("items", id=INT32, note=STRING, titel=STRING), id=1, note="", titel="")
    with pytest.raises(ConfigError, match=r"no column title. Did you mean titel"):
        put(target, shop)
    shop = Source()
    shop.insert(shop.table("items", id=INT32, note=STRING, title=STRING), id=1, note="", title="")
    put(target, shop)
    shop.insert(shop.table("items", id=INT32, note=STRING), id=2, note="still")
    put(target, shop)
    assert hits(target, "still") == ["2"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "search.file"),
        ({"search.file": "a", "connection.url": "jdbc:sqlite:b"}, "not both"),
        ({"search.file": "a", "search.columns": "items"}, "table:column"),
        ({"search.file": "a", "search.columns": "(:x"}, "regular expression"),
        ({"search.file": "a", "search.tokenizer": "porter"}, "unicode61"),
        ({"search.file": "a", "search.colums": "x", "config.strict": "true"}, "search.columns"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, str], problem: str) -> None:
    whole = {"name": "s", "connector.class": "search", "topics": "t"}
    with pytest.raises(ConfigError, match=problem):
        (SINK_CONFIG + search.CONFIG).parse({**whole, **options})


def test_urls_name_files() -> None:
    for url, path in (
        ("jdbc:sqlite:/a/b.db", "/a/b.db"),
        ("sqlite:///b.db", "b.db"),
        ("sqlite:////a/b.db", "/a/b.db"),
    ):
        task = search.SearchSinkTask(search.CONFIG.parse({"connection.url": url}))
        assert task._path == path
    with pytest.raises(ConfigError, match="not a SQLite file"):
        search.SearchSinkTask(search.CONFIG.parse({"connection.url": "postgresql://h/x"}))


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    for path, problem in ((tmp_path, "is a folder"), (tmp_path / "no" / "x", "cannot be used")):
        with pytest.raises(ConfigError, match=problem):
            started_at(path)
    (tmp_path / "text").write_text("not a database at all, " * 100)
    with pytest.raises(ConfigError, match="cannot be used"):
        started_at(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    with pytest.raises(ConfigError, match="something else"):
        started_at(tmp_path / "other.db")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("DROP TABLE documents", "is damaged: no such table: documents"),
        ("DROP TABLE search", "is damaged: no such table: search"),
        ("DELETE FROM search_data", "is damaged: vtable constructor failed"),
        ("UPDATE documents SET layout = 'oops'", "is damaged: a document was altered"),
        ("PRAGMA user_version = 9", "has format 9, this version knows 2"),
    ],
)
def test_an_index_that_is_damaged_is_no_fault_of_the_query(
    tmp_path: Path, harm: str, said: str
) -> None:
    shop, target = Source(), SearchTarget(tmp_path)
    shop.insert(shop.table("t", id=INT32, note=STRING), id=1, note="cake")
    put(target, shop)
    with closing(sqlite3.connect(target.path)) as db, db:
        db.execute(harm)
    with pytest.raises(CdcError) as caught:
        search_index.search(str(target.path), "cake")
    assert f"{target.path} {said}" in str(caught.value)
    assert not isinstance(caught.value, ConfigError)


def test_an_index_that_was_cut_or_is_in_use_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = SearchTarget(tmp_path)
    shop = Source()
    shop.insert(shop.table("t", id=INT32, note=STRING), id=1, note="cake")
    put(target, shop)
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, timeout=0.1))
    with closing(sqlite3.connect(target.path)) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CdcError, match="is locked by another program"):
            search_index.search(str(target.path), "cake")
    data = target.path.read_bytes()
    target.path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CdcError, match="is damaged: database disk image is malformed"):
        search_index.search(str(target.path), "cake")


def started_at(path: Path) -> None:
    from cdc.api import SinkContext

    task = search.SearchSinkTask(search.CONFIG.parse({"search.file": str(path)}))
    task.start(SinkContext("s", Path()))
    task.stop()


def test_another_tokenizer_needs_another_file(tmp_path: Path) -> None:
    started(SearchTarget(tmp_path)).stop()
    with pytest.raises(ConfigError, match="was made with unicode61"):
        started(SearchTarget(tmp_path, **{"search.tokenizer": "trigram"}))


def test_a_library_without_fts5_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index, "MODULE", "fts5_that_is_not_there")
    with pytest.raises(ConfigError, match="SQLITE_ENABLE_FTS5"):
        started(SearchTarget(tmp_path))


def test_ids_come_from_keys() -> None:
    assert document_id(b'{"id":17}') == document_id(b'{"id":"17"}') == "17"
    assert document_id(b'{"a":1,"b":"x"}') == '[1,"x"]'
    assert document_id(b'{"a":true}') == "[true]"
    assert [c.exact for c in parse_choices(r"public\.a:x;public.b:x;.*\.c:x")] == [
        True,
        True,
        False,
    ]


def test_importing_the_sinks_imports_no_client() -> None:
    code = (
        "import sys, sinks.search, sinks.audit; "
        "print({'sqlalchemy', 'psycopg', 'sqlite3', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_long_words_that_change_again_and_again_are_all_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words of 2,000 letters, and little memory: FTS5 writes and joins its pages often."""
    monkeypatch.setattr(search_index, "_HASH_BYTES", 1 << 16)
    path, dice = tmp_path / "index.db", random.Random(6)
    index = search_index.Index(str(path), "words", "unicode61")
    index.remember("t", ["body"])
    for _ in range(150):
        for _ in range(dice.randrange(1, 6)):
            ids = [str(dice.randrange(3000)) for _ in range(dice.choice([1, 3, 20, 200]))]
            old = dict(index.load("t", ids))
            new = {id_: _long_words(id_, dice.randrange(4)) for id_ in ids}
            index.apply(Changes("t", old=old, new=new))
        index.commit()
    index.close()
    check_words(path)


def _long_words(id_: str, version: int) -> dict[str, str] | None:
    if version == 0:
        return None
    words = (hashlib.sha256(f"{id_} {version} {n}".encode()).hexdigest() for n in range(35))
    return {"body": "".join(words) if int(id_) % 3 == 0 else f"note {id_} word{version}"}


@pytest.mark.parametrize(
    "text", ["a" * 300, f"x {'é1' * 200}, y", f"\u200b{'b' * 129}\u2060", "c" * 128]
)
def test_long_words_are_broken_and_come_back_whole(tmp_path: Path, text: str) -> None:
    layout, body = search_index.packed({"a": "short", "b": text})
    assert search_index.unpacked(layout, body) == {"a": "short", "b": text}
    assert max(map(len, re.findall(r"[^\W_]+", body))) <= search_index.WORD_LETTERS
    shop, target = Source(), SearchTarget(tmp_path)
    shop.insert(shop.table("t", id=INT32, note=STRING), id=1, note=text)
    put(target, shop)
    (hit,) = search_index.search(str(target.path), text.strip("\u200b\u2060"), literal=True)
    assert hit.fields["note"] == text


def test_an_index_of_before_with_long_words_goes_on(tmp_path: Path) -> None:
    path, old, new = tmp_path / "index.db", {"1": {"b": "z" * 400}}, {"1": {"b": "y" * 400}}
    for breaks, before, after in ((False, {}, old), (True, old, new)):
        index = search_index.Index(str(path), "words", "unicode61")
        index.remember("t", ["b"])
        index._breaks = breaks
        assert index.load("t", ["1"]) == before
        index.apply(Changes("t", old=dict(before), new=dict(after)))
        index.commit()
        index.close()
    check_words(path)
    assert [hit.key for hit in search_index.search(str(path), "y" * 400)] == ["1"]
    assert search_index.search(str(path), "z" * 400) == []
