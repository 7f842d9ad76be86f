"""Coverage: which tables the log holds, which are missing, and the snapshots that fill it.

Holds the stored :class:`~cdc.postgres.chunks.Progress` and compares it with the publication
and the include lists. Taking a snapshot here means: plan what is left of some tables under
one exported snapshot; reading it is :class:`~cdc.postgres.snapshot.Snapshot`'s.

Tables that are to be read under a snapshot are looked up through the snapshot's own
transaction, so that one made, altered or dropped since can neither be missed nor taken for
what it was not yet. The publication is read before the snapshot is taken: what it lists
then is in the stream from the snapshot on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from cdc.api import LogState
from cdc.block import TRUNCATE
from cdc.errors import ConnectionLost, LogLost
from cdc.postgres import judge
from cdc.postgres.admin import check_readable, ensure_publication
from cdc.postgres.attributes import attributes, had_others, is_as_made, news
from cdc.postgres.catalog import Publication, ServerFacts, TableInfo, read_publication, read_tables
from cdc.postgres.chunks import Progress, TableProgress, plan_table, rows_at_once
from cdc.postgres.filters import POSITION_TABLES
from cdc.postgres.lost import LostTables
from cdc.postgres.planner import Planner
from cdc.postgres.published import AGAIN, Loss, find_loss, note, note_publication
from cdc.postgres.ranges import Ranges
from cdc.postgres.settings import Settings
from cdc.postgres.snapshot import Snapshot, SnapshotHolder
from cdc.postgres.snapshot_reader import Job, TableJob
from cdc.postgres.startup import Read, Start, StartPlan
from cdc.postgres.targets import (
    Target,
    check_partitioned,
    check_published,
    check_readable_in_pieces,
    check_topics,
    choose_targets,
)

log = logging.getLogger(__name__)


class Coverage:
    """One source's tables. ``config`` is the connector's raw configuration, for the readers."""

    def __init__(
        self, planner: Planner, settings: Settings, config: Mapping[str, str], run_id: str
    ) -> None:
        self._planner, self.settings = planner, settings
        planner.on_streamed = self._on_streamed
        self._streamed: dict[int, set[tuple[str, ...]]] = {}  # since the last look, by oid
        self._news = False
        self._config, self._run_id = config, run_id
        self.facts: ServerFacts | None = None
        self.publication: Publication | None = None
        self.progress = Progress()
        self._looked_lsn = 0  # up to there the publication was as it is noted
        self._listed: frozenset[str] = frozenset()  # the tables that were in it at that look
        self.lost = LostTables(settings)

    def prepare(self, plan: StartPlan) -> None:
        """The publication; what is wrong with the tables is said before it is created."""
        settings, conn = self.settings, self._planner.connection
        tables = read_tables(conn)
        positions = [str(t.schema.id) for t in tables if t.schema.id.table in POSITION_TABLES]
        if positions:
            log.info("%s: not captured, sinks keep their positions there", ", ".join(positions))
        if plan.read is not Read.NOTHING:
            found = read_publication(conn, settings.publication)
            targets = choose_targets(tables, found, settings)
            check_topics(targets, settings)
            check_readable_in_pieces(targets)
            check_readable(conn, targets)
        if plan.start is Start.NONE:
            check_partitioned(tables, settings, via_root=False)
        else:
            publication = ensure_publication(conn, settings, tables)
            check_published(tables, publication, settings)
            self.publication = publication
            streamed = choose_targets(tables, publication, settings)
            self._listed = frozenset(t.name for t in streamed)
            check_topics(streamed, settings)
            for target in streamed:
                key = target.key(settings)
                for finding in judge.old_row(target.info, key, target.columns):
                    log.warning("%s: %s. %s", finding.subject, finding.text, finding.remedy)

    def load(self, state: LogState) -> None:
        """Take over what the log says was read."""
        self.progress = Progress.from_dict(state.snapshot_position)
        if state.stream_closed or not state.snapshot_closed:
            # a generation begins, or its snapshot was cut: what is whole lies before it
            self.progress.whole = False

    def reset(self, holder: SnapshotHolder | None = None, *, lost: bool = False) -> None:
        """Nothing is read; what exists (as of a snapshot, or now) is known.

        ``lost``: changes of what was read are missing in the log.
        """
        tables, before = self._tables(holder), self.progress
        self.progress = Progress(
            {},
            self._filters(),
            Ranges.of(t.schema.relation_id for t in tables),
            left=before.left | before.tables.keys() if lost else before.left,
        )
        note_publication(self.progress, self.publication)

    def continued(self, plan: StartPlan, lsn: int) -> StartPlan:
        """How to go on after ``lsn``, as far as the publication decides. Raises LogLost."""
        loss = self._find_loss(lsn, self.targets())
        if loss is not None:
            self._check_may_read(loss)
            if not loss.tables:
                return StartPlan(Start.SLOT_NOW, Read.ALL, loss.problem)
            self._read_again(loss)
        self._looked_lsn = lsn
        return plan

    def _find_loss(self, lsn: int, targets: Sequence[Target]) -> Loss | None:
        wanted = self.settings.published.split(",")
        return find_loss(self.progress, self.publication, targets, lsn, wanted)

    def _check_may_read(self, loss: Loss) -> None:
        if self.settings.snapshot_mode not in ("when_needed", "always"):
            raise LogLost(loss.problem, remedy=AGAIN)

    def _read_again(self, loss: Loss) -> None:
        log.warning("reading tables again: %s", loss.problem)
        for name in loss.tables:
            del self.progress.tables[name]
        self.progress.left.update(loss.tables)

    def to_dict(self) -> dict[str, Any]:
        """What the snapshot lane stores as its position."""
        return self.progress.to_dict()

    def targets(self, holder: SnapshotHolder | None = None) -> list[Target]:
        """All heaps that are captured, as of a snapshot or of now."""
        return choose_targets(self._tables(holder), self.publication, self.settings)

    def missing(self, targets: Sequence[Target]) -> list[Target]:
        """Those that were not read to their end."""
        return [t for t in targets if not self._is_complete(t)]

    def lose(self, table: str, why: str) -> None:
        """A table is lost to the snapshot that was to read it. Raises ConnectionLost where no
        stream follows: then all is read again.
        """
        self.lost.add(table, why, self.progress, self.publication)

    def forget_others(self) -> list[str]:
        """Forget the tables that are no longer captured, dropped ones too; their names.

        Their changes are not in the stream: if they come back they have to be read again.
        """
        captured = {t.name for t in self.targets()}
        gone = sorted(self.progress.tables.keys() - captured)
        for name in gone:
            del self.progress.tables[name]
        self.progress.left.update(gone)
        return gone

    def refresh(self, lsn: int) -> list[Target]:
        """Look again at the publication, and note what was created since; ``lsn`` is ours.

        What is captured now; what changed in the progress is to be stored, since the tables may
        be others by the next start. Raises LogLost where the publication is another one, or
        ConnectionLost where a new start helps.
        """
        # in this order: a column that is renamed between the two is news the next time
        tables = self._tables(None)
        self.publication = read_publication(self._planner.connection, self.settings.publication)
        targets = choose_targets(tables, self.publication, self.settings)
        self._say_taken_out(tables, targets)
        loss = self._find_loss(self._looked_lsn or lsn, targets)
        if loss is not None:
            self._check_may_read(loss)
            if not loss.tables:
                raise ConnectionLost(loss.problem)
            self._read_again(loss)
        self._looked_lsn = lsn
        self.lost.settle(targets, self.progress, self.publication)
        self._note(tables, targets)
        return targets

    def _say_taken_out(self, tables: Sequence[TableInfo], targets: Sequence[Target]) -> None:
        """That changes of a table have ceased to come shows in nothing else, before it is back."""
        now = frozenset(t.name for t in targets)
        logged = {str(info.schema.id) for info in tables if info.persistence == "p"}
        gone = sorted((self._listed - now) & logged)
        if gone and self.publication is not None:
            log.warning(
                "%s: taken out of the publication %s, so that changes are in no event any more. A"
                " source with the same publication.name and other include lists does that, too",
                ", ".join(gone),
                self.publication.name,
            )
        self._listed = now

    def note_present(self) -> None:
        """What is in the publication, and by what; and what was created since."""
        tables = self._tables(None)
        self._note(tables, choose_targets(tables, self.publication, self.settings))

    def _note(self, tables: Sequence[TableInfo], targets: Sequence[Target]) -> None:
        check_topics(targets, self.settings)
        note(self.progress, self.publication, targets)
        self._note_unlogged(tables)
        self._note_altered(targets)
        self._note_created(tables, targets)
        for target in targets:  # for those that are known only now
            self._note_streamed(target.info)
        self._streamed.clear()

    def _note_unlogged(self, tables: Sequence[TableInfo]) -> None:
        """Forget tables whose changes are no longer in the log; they may be once more."""
        for info in tables:
            name = str(info.schema.id)
            known = self.progress.tables.get(name)
            if info.persistence == "u" and known and known.is_of(info.schema.relation_id):
                log.warning("%s was set UNLOGGED: its changes are in no event", name)
                del self.progress.tables[name]
                self.progress.left.add(name)

    def _on_streamed(self, info: TableInfo, names: tuple[str, ...]) -> None:
        """Of rows in the stream: with which columns they come."""
        self._streamed.setdefault(info.schema.relation_id, set()).add(names)
        self._note_streamed(info)

    def _note_streamed(self, info: TableInfo) -> None:
        """Forget a table of which rows came with other columns than it has, or was seen with."""
        name, seen = str(info.schema.id), self._streamed.get(info.schema.relation_id, ())
        known = self.progress.tables.get(name)
        if known is None or not known.complete or not known.is_of(info.schema.relation_id):
            return
        if any(had_others(known, info, names) for names in seen):
            log.warning("%s had a column of another name: it is read again", name)
            del self.progress.tables[name]
            self._news = True

    def take_news(self) -> bool:
        """Whether the stream has told of tables that are to be read again, since it was asked."""
        news, self._news = self._news, False
        return news

    def begun(self) -> dict[str, Any]:
        """A planned snapshot begins here: rows that came before it are in it. As to_dict."""
        for table in self.progress.tables.values():
            if not table.complete:
                self._streamed.pop(table.relation, None)
        return self.to_dict()

    def _note_altered(self, targets: Sequence[Target]) -> None:
        """Forget what has got other values without a change in the log.

        See :mod:`cdc.postgres.attributes`. VACUUM FULL and CLUSTER write a table anew too, with
        the columns as they were.
        """
        for target in targets:
            known, info = self._known(target), target.info
            if known is None or not known.complete:
                continue
            now = attributes(info, known.attributes)
            if (known.file, known.attributes) == (info.file_node, now):
                continue
            why = news(known, info, self._planner.columns(info, target.columns, target.as_table))
            if why:
                log.warning("%s %s: it is read again", target.name, why)
                del self.progress.tables[target.name]
            else:
                known.file, known.attributes = info.file_node, now

    def _note_created(self, tables: Sequence[TableInfo], targets: Sequence[Target]) -> None:
        """Tables created since under a publication of all tables: the stream has every row."""
        progress, publication = self.progress, self.publication
        if publication is None or not publication.all_tables or not progress.filters:
            return
        if progress.filters == self._filters():
            for target in targets:
                oid = target.info.schema.relation_id
                # a heap that is not its first one may hold rows that were never logged
                whole = (
                    target.info.file_node == oid
                    and self._is_as_made(target)
                    and not self._follows_another(target)
                    and (target.as_table == target.info.schema.id or self._is_empty(oid))
                )
                if whole and not self._known(target) and oid not in progress.relations:
                    progress.tables[target.name] = TableProgress(
                        target.info.file_node,
                        0,
                        0,
                        "",
                        complete=True,
                        relation=oid,
                        as_table=str(target.as_table),
                        attributes=attributes(target.info),
                    )
        progress.filters = self._filters()
        progress.relations = Ranges.of(t.schema.relation_id for t in tables)

    def _is_as_made(self, target: Target) -> bool:
        info = target.info
        plans = self._planner.columns(info, target.columns, target.as_table)
        return is_as_made(info, plans) or self._is_empty(info.schema.relation_id)

    def _is_empty(self, oid: int) -> bool:
        """Of a partition: rows that it had before it was attached are not in its root's stream."""
        query = "SELECT pg_relation_size(%s::oid) = 0"
        row = self._planner.connection.execute(query, [oid]).fetchone()
        return bool(row and row[0])

    def plan_snapshot(
        self, targets: Sequence[Target], holder: SnapshotHolder, lsn: int
    ) -> Snapshot:
        """What is left of ``targets``, to be read under the held snapshot of ``lsn``."""
        settings, facts = self.settings, self.facts
        assert facts is not None
        check_readable_in_pieces(targets)
        self.progress.whole = not self.progress.tables
        emptied = [] if TRUNCATE in settings.skipped else self._emptied(targets)
        for target in targets:
            self.lost.discard(target.name)
            self._plan_progress(target, holder, facts.block_size)
        self.progress.left.difference_update(t.name for t in targets)
        schemas = {
            t.name: self._planner.plan_table(t.shape, t.columns, t.as_table).schema for t in targets
        }
        xid = int(holder.text.split(":")[1])
        self.progress.taken = {"lsn": lsn, "us": holder.taken_us, "xid": xid}
        job = Job(
            conninfo=settings.conninfo,
            config=self._config,
            run_id=self._run_id,
            snapshot=holder.name,
            tables={t.name: self._table_job(t, holder) for t in targets},
            lsn=lsn,
            xid=xid,
            commit_us=holder.taken_us,
            tid_ranges=facts.major >= 14,
            block_size=facts.block_size,
        )
        return Snapshot(
            job, holder, self.progress, schemas, settings.snapshot_readers,
            on_change=self.lose, emptied=tuple(schemas[name] for name in emptied),
        )  # fmt: skip

    def _plan_progress(self, target: Target, holder: SnapshotHolder, block_size: int) -> None:
        """What is left of one table, under this snapshot."""
        oid = target.info.schema.relation_id
        row = holder.connection.execute(
            "SELECT relfilenode::int8, coalesce(pg_relation_size(oid), 0) / %s,"
            " coalesce(pg_table_size(oid), 0) FROM pg_class WHERE oid = %s",
            [block_size, oid],
        ).fetchone()
        file, pages, nbytes = row or (0, 0, 0)
        known = self._known(target)
        if known is not None:
            if known.file == file:
                known.under(holder.text, int(pages))
                return
            log.warning("%s was rewritten meanwhile: it is read again", target.name)
        planned = plan_table(
            relation=oid,
            file=int(file),
            pages=int(pages),
            rows=target.info.rows_estimate,
            nbytes=int(nbytes),
            chunk_rows=self.settings.chunk_rows,
            snapshot=holder.text,
        )
        if not target.is_heap:
            planned.pages_per_chunk = planned.chunks = 0
        planned.as_table, planned.entries = str(target.as_table), target.entries
        planned.attributes = attributes(target.info)
        self.progress.tables[target.name] = planned

    def _table_job(self, target: Target, holder: SnapshotHolder) -> TableJob:
        own, limit = target.info.schema, 0
        if not target.is_heap:
            query = "SELECT pg_table_size(%s::oid)"
            row = holder.connection.execute(query, [own.relation_id]).fetchone()
            nbytes = int((row and row[0]) or 0)
            limit = rows_at_once(target.info.rows_estimate, nbytes, self.settings.chunk_rows)
        return TableJob(
            relation_id=own.relation_id,
            schema=own.id.schema,
            name=own.id.table,
            columns=target.columns,
            shape_id=target.shape.schema.relation_id,
            as_schema=target.as_table.schema,
            as_name=target.as_table.table,
            row_filter=target.row_filter,
            key=() if target.is_heap else target.by_key,
            limit=limit,
        )

    def _emptied(self, targets: Sequence[Target]) -> list[str]:
        """Those of which a copy may hold rows that no event will ever take away.

        A dropped table, or one whose changes were not in the stream for a while, that comes
        again under its name. Of a partition, rows are its root's, and others are too.
        """
        own = [t for t in targets if t.as_table == t.info.schema.id]
        return [t.name for t in own if self._follows_another(t)]

    def _follows_another(self, target: Target) -> bool:
        left = target.name in self.progress.left
        return left or (target.name in self.progress.tables and not self._known(target))

    def _known(self, target: Target) -> TableProgress | None:
        """The progress of this very table, not of one with its name before it."""
        known = self.progress.tables.get(target.name)
        relation, as_table = target.info.schema.relation_id, str(target.as_table)
        return known if known and known.is_of(relation, as_table) else None

    def _is_complete(self, target: Target) -> bool:
        known = self._known(target)
        return known is not None and known.complete

    def _tables(self, holder: SnapshotHolder | None) -> tuple[TableInfo, ...]:
        return read_tables(holder.connection if holder else self._planner.connection)

    def _filters(self) -> str:
        """Names the lists in force, to notice that they changed."""
        lists = repr((self.settings.tables, self.settings.snapshot_tables))
        return hashlib.blake2b(lists.encode(), digest_size=8).hexdigest()
