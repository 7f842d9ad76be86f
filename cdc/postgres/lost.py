"""Lost tables: those that a snapshot can no longer read, and when another one may.

A table that is truncated, rewritten or renamed before it is read is lost to its snapshot. A
truncated one needs no other: what the stream brings since then is all that it has. The others
are read under a later snapshot, which holds them as soon as it is taken.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from cdc.block import CREATE, UPDATE
from cdc.errors import ConnectionLost
from cdc.postgres.catalog import Publication
from cdc.postgres.chunks import Progress
from cdc.postgres.holding import hold_now
from cdc.postgres.settings import Settings
from cdc.postgres.snapshot import SnapshotHolder
from cdc.postgres.targets import Target

log = logging.getLogger(__name__)

# How long a table rests that changes faster than it can be held, at first and at most: to take a
# snapshot the stream stands still, until all transactions have ended that run at the server.
REST_FIRST_S, REST_MOST_S = 20.0, 600.0


class LostTables:
    """Those of one source that nothing is begun for yet; true if there are any.

    ``truncated`` is the stream's (see :class:`~cdc.postgres.pgoutput.Decoder`); None: no
    stream follows.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.truncated: Mapping[int, int] | None = None
        self._lsns: dict[str, int] = {}  # of the snapshot that has lost it, by table
        self._rest_s, self._rests_until = REST_FIRST_S, 0.0

    def __bool__(self) -> bool:
        return bool(self._lsns)

    def add(
        self, table: str, why: str, progress: Progress, publication: Publication | None
    ) -> None:
        """A snapshot has lost a table. Raises ConnectionLost where no stream follows."""
        if self.truncated is None:
            raise ConnectionLost(f"{why}: all is read again")
        self._lsns[table] = progress.taken["lsn"]
        if not self._settle(table, progress, publication):
            log.warning("%s: it is read under a later one", why)

    def discard(self, table: str) -> None:
        """A later snapshot is to read it."""
        self._lsns.pop(table, None)

    def wants(self, missing: Sequence[Target]) -> bool:
        """Whether a snapshot is to be taken now, of what is missing."""
        resting = time.monotonic() < self._rests_until
        return any(t.name not in self._lsns or not resting for t in missing)

    def readable(self, missing: Sequence[Target], holder: SnapshotHolder) -> list[Target]:
        """Those that the held snapshot will show: of tables that have changed under one before
        only such as are unchanged in this moment, which are held.
        """
        out = []
        for target in missing:
            own = target.info.schema
            again = target.name in self._lsns
            if not again or hold_now(
                holder.connection, own.relation_id, own.id.schema, own.id.table
            ):
                out.append(target)
        resting = len(out) < len(missing)
        self._rests_until = time.monotonic() + self._rest_s if resting else 0.0
        self._rest_s = min(self._rest_s * 2, REST_MOST_S) if resting else REST_FIRST_S
        return out

    def settle(
        self, targets: Sequence[Target], progress: Progress, publication: Publication | None
    ) -> None:
        """Let go of tables that are no longer captured, or that have been truncated since."""
        gone = self._lsns.keys() - {t.name for t in targets}
        for name in list(self._lsns):
            if name in gone:
                del self._lsns[name]
                progress.tables.pop(name, None)
                progress.left.add(name)
            else:
                self._settle(name, progress, publication)

    def _settle(self, table: str, progress: Progress, publication: Publication | None) -> bool:
        """Whether it has been truncated since the snapshot that has lost it.

        From a TRUNCATE on the stream has every row there is. What an ALTER TABLE has given them
        is seen by the columns, which are noted as the snapshot shows them.
        """
        known = progress.tables.get(table)
        truncated = (self.truncated or {}).get(known.relation, 0) if known else 0
        if known is None or truncated < self._lsns[table]:
            return False
        streamed = publication is not None and publication.insert and publication.update
        if not streamed or not self._settings.skipped.isdisjoint((CREATE, UPDATE)):
            return False
        del self._lsns[table]
        known.finish()
        log.info("%s was truncated: it is not read, the stream has all of its rows", table)
        return True
