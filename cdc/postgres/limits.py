"""Limits: what a publication keeps out of the stream, and so out of the snapshot too. Pure.

Said at every start and by ``cdc check``: whoever made the publication may have meant it so, but
nobody who reads the events sees it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cdc.postgres.catalog import Publication, TableInfo
from cdc.postgres.judge import NOTE, WARNING, Finding
from cdc.postgres.quoting import quoted
from cdc.postgres.settings import Settings

OPERATIONS = ("insert", "update", "delete", "truncate")


def limits(
    publication: Publication, tables: Sequence[TableInfo], settings: Settings
) -> Iterator[Finding]:
    """Operations, rows and columns that the configuration asks for and that do not come."""
    yield from operations(publication, settings)
    known = {t.schema.id: t for t in tables}
    for entry in publication.tables:
        info = known.get(entry.table)
        if info is None or not settings.tables(entry.table):
            continue
        columns = set(info.schema.column_names) - info.generated
        if entry.columns is not None:
            columns -= set(entry.columns)
        else:
            columns = set()
        left_out = [c for c in sorted(columns) if settings.columns(entry.table, c)]
        yield from of_table(str(entry.table), entry.row_filter, left_out)


def operations(publication: Publication, settings: Settings) -> Iterator[Finding]:
    """Those that are not skipped, and that it does not publish."""
    wanted = settings.published.split(",")
    missing = [o for o in wanted if not getattr(publication, o)]
    if missing:
        whole = [o for o in OPERATIONS if o in wanted or getattr(publication, o)]
        yield Finding(
            WARNING, "publication",
            f"the publication {publication.name} does not publish {', '.join(missing)}:"
            " the stream lacks them",
            f"ALTER PUBLICATION {quoted(publication.name)} SET (publish = '{', '.join(whole)}')",
        )  # fmt: skip


def of_table(table: str, row_filter: str | None, left_out: Sequence[str]) -> Iterator[Finding]:
    """Of one table; ``left_out`` are the columns that its column list has not."""
    if row_filter:
        yield Finding(NOTE, table, f"the publication filters its rows: {row_filter}")
    if left_out:
        text = f"the publication's column list leaves out {', '.join(left_out)}"
        yield Finding(NOTE, table, text)
