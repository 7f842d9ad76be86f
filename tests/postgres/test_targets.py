"""Which tables can be read at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cdc.errors import SourceError
from cdc.postgres.catalog import read_publication, read_tables
from cdc.postgres.settings import settings_of
from cdc.postgres.targets import Target, check_heaps, choose_targets
from tests.pipeline import config_for


def test_a_table_that_is_no_heap_is_refused_by_name(database: Any) -> None:
    database.execute("CREATE TABLE t (id int); CREATE TABLE events (id int)")
    with database.connect() as conn:
        events, plain = read_tables(conn)
    targets = [Target(info, info.schema.id, ("id",), None) for info in (events, plain)]
    check_heaps(targets)
    columnar = replace(events, access_method="columnar")
    with pytest.raises(SourceError, match=r"public\.events \(columnar\)") as caught:
        check_heaps([replace(targets[0], info=columnar), targets[1]])
    assert "table.exclude.list" in caught.value.remedy


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
