"""Which tables can be read at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cdc.errors import SourceError
from cdc.postgres.catalog import read_tables
from cdc.postgres.targets import Target, check_heaps


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
