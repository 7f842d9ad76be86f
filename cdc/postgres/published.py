"""Published: is it still the publication, with the tables, that the log was read under? Pure.

The server decodes a change with the publication of its time. What was dropped and made again,
or taken out and added again, left changes in between out of the stream, and looks as before by
its name: so the oids are kept, of the publication and of what brings each table into it (its
row in pg_publication_rel or pg_publication_namespace, or an ancestor's). What it publishes may
be narrowed, and widened again, by which its row gets another xmin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc.lsn import lsn_text
from cdc.postgres.catalog import Publication
from cdc.postgres.chunks import Progress, Published
from cdc.postgres.targets import Target

AGAIN = "set snapshot.mode=when_needed to read the tables again"


@dataclass(frozen=True)
class Loss:
    """Changes that may be missing; of all tables where ``tables`` is empty."""

    problem: str
    tables: tuple[str, ...] = ()


def find_loss(
    progress: Progress,
    publication: Publication | None,
    targets: Sequence[Target],
    lsn: int,
    wanted: Sequence[str],
) -> Loss | None:
    """What may be missing after ``lsn``; None: nothing. ``wanted`` are operations."""
    loss = _find_made_again(progress, publication, targets, lsn)
    if loss is None and publication is not None:
        return _find_narrowed(progress, publication, lsn, wanted)
    return loss


def _find_narrowed(
    progress: Progress, publication: Publication, lsn: int, wanted: Sequence[str]
) -> Loss | None:
    """All that was published has to be so still, and to have been so meanwhile."""
    before = progress.published
    if before.version in (0, publication.version):
        return None
    after = f"changes after {lsn_text(lsn)} may not be in the stream"
    had = [name for name in before.operations if name in wanted]
    missing = [name for name in had if name not in publication.operations]
    if missing:
        names = ", ".join(missing)
        return Loss(f"the publication {publication.name} no longer publishes {names}: {after}")
    if before.operations != publication.operations or before.owner != publication.owner:
        return None  # that is why its row is another
    return Loss(
        f"the publication {publication.name} was altered, and publishes what it did before; in "
        f"between it may have published less: {after}"
    )


def _find_made_again(
    progress: Progress, publication: Publication | None, targets: Sequence[Target], lsn: int
) -> Loss | None:
    after = f"changes after {lsn_text(lsn)} may not be in the stream"
    if publication is None:
        return Loss(f"the publication was dropped: {after}")
    if progress.publication not in (0, publication.oid):
        return Loss(
            f"the publication {publication.name} was dropped and made again: {after} (or "
            "publication.name has changed)"
        )
    again = tuple(t.name for t in targets if _came_back(progress, t))
    if again:
        return Loss(
            f"{', '.join(again)}: taken out of the publication {publication.name} and added "
            f"again: {after}",
            again,
        )
    return None


def note(progress: Progress, publication: Publication | None, targets: Sequence[Target]) -> None:
    """Keep what is there now, to be compared the next time."""
    note_publication(progress, publication)
    for target in targets:
        known = progress.tables.get(target.name)
        if known is not None and known.is_of(target.info.schema.relation_id):
            known.entries = target.entries


def note_publication(progress: Progress, publication: Publication | None) -> None:
    """As :func:`note`, without its tables."""
    progress.publication = publication.oid if publication else 0
    progress.published = Published()
    if publication is not None:
        owner, version = publication.owner, publication.version
        progress.published = Published(publication.operations, version, owner)


def _came_back(progress: Progress, target: Target) -> bool:
    known = progress.tables.get(target.name)
    if known is None or not known.is_of(target.info.schema.relation_id):
        return False  # another table, which is read anyway
    both = known.entries and target.entries
    return bool(both) and not set(known.entries) & set(target.entries)
