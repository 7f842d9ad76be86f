"""Which tables can be read at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cdc.errors import SourceError
from cdc.postgres.catalog import read_publication, read_tables
from cdc.postgres.settings import settings_of
from cdc.postgres.targets import Target, check_readable_in_pieces, check_topics, choose_targets
from tests.pipeline import config_for


def test_a_table_that_can_be_read_neither_by_page_nor_by_key_is_refused(database: Any) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE events (id int)")
    with database.connect() as conn:
        events, keyed = read_tables(conn)
    targets = [Target(info, info.schema.id, ("id",), None) for info in (events, keyed)]
    check_readable_in_pieces(targets)
    columnar = [replace(t, info=replace(t.info, access_method="columnar")) for t in targets]
    check_readable_in_pieces(columnar[1:])
    with pytest.raises(SourceError, match=r"^public\.events \(columnar\): ") as caught:
        check_readable_in_pieces(columnar)
    assert "table.exclude.list" in caught.value.remedy
    without = replace(columnar[1], columns=("other",))  # the publication has not the key
    with pytest.raises(SourceError, match=r"^public\.t \(columnar\): "):
        check_readable_in_pieces([without])


def test_tables_of_one_topic_are_refused_by_name(database: Any) -> None:
    database.execute(
        'CREATE SCHEMA "a.b"; CREATE SCHEMA a; CREATE TABLE "a.b".c (id int PRIMARY KEY);'
        'CREATE TABLE a."b.c" (id int PRIMARY KEY)'
    )
    settings = settings_of(config_for(database.dsn), run_id="r")
    with database.connect() as conn:
        targets = choose_targets(read_tables(conn), None, settings)
    check_topics(targets[:1], settings)
    with pytest.raises(SourceError, match=r'"a"\."b\.c" and "a\.b"\."c".*one topic, t\.a\.b\.c'):
        check_topics(targets, settings)


def test_a_table_made_since_the_publication_was_read_is_not_in_it(database: Any) -> None:
    """Its changes are in the stream from when it was added again on, which may be later."""
    made = "CREATE TABLE t (id int PRIMARY KEY);"
    database.execute(made + "CREATE PUBLICATION p FOR TABLE t")
    settings = settings_of(config_for(database.dsn), run_id="r")
    with database.connect() as conn:
        before = read_publication(conn, "p")
        assert [t.name for t in choose_targets(read_tables(conn), before, settings)] == ["public.t"]
        database.execute("DROP TABLE t;" + made + "ALTER PUBLICATION p ADD TABLE t")
        assert choose_targets(read_tables(conn), before, settings) == []
        (target,) = choose_targets(read_tables(conn), read_publication(conn, "p"), settings)
    assert before is not None
    assert target.entries != before.tables[0].entries
