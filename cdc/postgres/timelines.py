"""Timelines: where servers that came from one another part, and on which one a log was read.

A promotion begins a new timeline at a switch point: what lies before is the same on both. The
history of a timeline (``TIMELINE_HISTORY``) lists where it left each of those before it, so a
position on an older one is a place in this server's WAL too if it lies before that point.

Facts: PostgreSQL's documentation, "Streaming Replication Protocol" and "Timelines".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import psycopg

from cdc.errors import LogLost
from cdc.lsn import lsn_number
from cdc.postgres.catalog import ServerFacts
from cdc.postgres.position import Position
from cdc.postgres.replication import LogReader
from cdc.postgres.startup import Server

log = logging.getLogger(__name__)

# In recovery the timeline is what the WAL receiver follows, where the role may see it
# (pg_read_all_stats); afterwards it is the first part of a WAL file's name.
_TIMELINE = """
SELECT pg_is_in_recovery(),
       CASE WHEN pg_is_in_recovery()
            THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver), 0)
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END
"""


def parse_history(text: str) -> dict[int, int]:
    """A timeline history file: where each timeline before it was left, as an LSN."""
    lines = (line.split("#")[0].split() for line in text.splitlines())
    return {int(words[0]): lsn_number(words[1]) for words in lines if len(words) > 1}


def identify(reader: LogReader, facts: ServerFacts, stored: Position | None) -> Server:
    """Who answers, with its timeline's history where that is another than the stored one."""
    system, timeline, lsn = reader.identify()
    branches: Mapping[int, int] = {}
    if stored is not None and stored.system == system and stored.timeline < timeline:
        branches = _read_branches(reader, timeline)
    return Server(
        system, timeline, facts.database_id, max(lsn, facts.lsn), facts.in_recovery, branches
    )


def _read_branches(reader: LogReader, timeline: int) -> Mapping[int, int]:
    """Nothing where the server no longer has the file: then it cannot be told."""
    try:
        return parse_history(reader.history(timeline))
    except LogLost as lost:
        log.warning("%s", lost.problem)
        return {}


class Follower:
    """Notices the new timeline of a standby that is promoted, or follows another primary.

    ``look`` is called between reading from the stream and storing what was read: if the
    server is in recovery then, all of it is from before the promotion.
    """

    def __init__(self, connection: Callable[[], psycopg.Connection[Any]]) -> None:
        self._connection = connection
        self.in_recovery = False
        self._timeline = 0

    def begin(self, server: Server) -> None:
        """Who answered at the start."""
        self.in_recovery, self._timeline = server.in_recovery, server.timeline

    def look(self) -> int:
        """The timeline to store with what was read up to now."""
        if self.in_recovery:
            row = self._connection().execute(_TIMELINE).fetchone()
            assert row is not None
            self.in_recovery, found = row
            if found > self._timeline:
                log.warning("the server went over from timeline %d to %d", self._timeline, found)
                self._timeline = int(found)
        return self._timeline
