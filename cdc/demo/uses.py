"""What else the journal is good for: search, a row's history, a replay, an audit that holds.

Every command is run as a user would type it, as a process of its own in the demo's folder,
and what it prints is shown. What must hold is counted here by other means than the engine's:
plain SQL at the source and in the two SQLite files, and a walk through the journal.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from cdc.demo.show import Show
from cdc.demo.stage import AUDIT, SEARCH, SOURCE, Answer, DemoFailed, Stage
from cdc.demo.workload import Tally
from cdc.log.places import parse_place

AUDIT_FILE, SEARCH_FILE, FORGED_FILE = "audit.db", "search.db", "forged.db"
SECOND: Final = "again"  # the replay's target
SECOND_FILE: Final = "search-again.db"
SEARCHED: Final = {"customers": "name,email", "products": "name,sku", "orders": "note"}
CUSTOMER, WORDS = "Chloé García", "chloe garcia"
FOUND_MAX: Final = 1_000
DIFF_COLUMNS: Final = "status,ship_on,parcels,total"
LINES: Final = 4

_VERSION: Final = re.compile(r"(?P<offset>\d+)  (?P<lsn>[0-9A-F]+/[0-9A-F]+)  ")
_WHOLE: Final = re.compile(r"(?P<records>\d+) records, the chain is whole")
_DOCUMENTS: Final = (
    "SELECT t.name, d.key, d.layout, d.body FROM documents AS d"
    " JOIN tables AS t ON t.id = d.table_id ORDER BY 1, 2"
)
# The order with most versions that is still there; its last change.
_ORDER: Final = """
SELECT json_extract(key, '$.id'), count(*), max(seq) FROM audit
WHERE table_name = 'public.orders' GROUP BY key
HAVING sum(op = 'c') AND NOT sum(op = 'd') ORDER BY 2 DESC, 3 DESC LIMIT 1
"""
_CHANGED: Final = (
    "SELECT DISTINCT table_name, json_extract(key, '$.id') FROM audit WHERE journal_offset >= ?"
)


@dataclass(slots=True)
class Order:
    """An order that was changed several times."""

    id: int
    versions: int
    last_seq: int  # of its audit records
    lsn: str = "0/0"  # where it came into being


def configs(folder: Path) -> Mapping[str, dict[str, str]]:
    """The two connectors, by name."""
    topics = {"topics.regex": rf"{SOURCE}\..*"}
    columns = ";".join(rf"public\.{table}:{names}" for table, names in SEARCHED.items())
    return {
        AUDIT: {
            "connector.class": "audit",
            "connection.url": f"jdbc:sqlite:{folder / AUDIT_FILE}",
            **topics,
        },
        SEARCH: {
            "connector.class": "search",
            "search.file": str(folder / SEARCH_FILE),
            "search.columns": columns,
            **topics,
        },
    }


class Uses:
    """The second half of the story. Raises DemoFailed where something does not hold."""

    def __init__(self, show: Show, stage: Stage, source: str) -> None:
        self._show, self._stage, self._source = show, stage, source
        self._folder = stage.folder
        self.summary: list[tuple[str, str]] = []

    def run(self, tally: Tally, changes: int) -> None:
        """All of it; ``changes`` is how many the journal holds."""
        self._show.say("")
        self._show.say(
            f"Every command from here on can be typed so, in {self._folder}", "bright_black"
        )
        self._search()
        order = self._choose()
        self._history(order)
        self._replay(order)
        self._verify(tally, changes)
        self._forge(order)

    # --- the steps ------------------------------------------------------------------------

    def _search(self) -> None:
        self._show.step("Search: a customer, in the index that is kept fresh")
        answer = self._run("search", SEARCH_FILE, WORDS, "--table", "customers",
                           "--limit", str(FOUND_MAX))  # fmt: skip
        there = self._ask("SELECT count(*) FROM customers WHERE name = %s", CUSTOMER)
        self._must(len(answer.lines) == there, f"{len(answer.lines)} hits of {there} customers")
        self._show.say(f"{there} customers at the source bear that name", "bright_black")

    def _choose(self) -> Order:
        with closing(self._open(AUDIT_FILE)) as db:
            row = db.execute(_ORDER).fetchone()
        self._must(row is not None, "no order came in while the shop was open")
        return Order(*row)

    def _history(self, order: Order) -> None:
        self._show.step("History: every version of one order, from the journal")
        answer = self._run("history", "--data-dir", "data", "orders", str(order.id), "--diff",
                           "--columns", DIFF_COLUMNS, shown=20)  # fmt: skip
        versions = [found for line in answer.lines if (found := _VERSION.match(line))]
        self._must(len(versions) == order.versions, f"{len(versions)} of {order.versions} versions")
        order.lsn = versions[0]["lsn"]
        self._show.say("and who did it, and why, where the application said so:")
        told = f"audit query {AUDIT_FILE} --table orders --key {order.id}"
        self._run(*told.split(), only_heads=True)

    def _replay(self, order: Order) -> None:
        self._show.step("Replay: the search index once more, from that LSN into a new file")
        replay = ("replay", SEARCH, "--data-dir", "data", "--from", order.lsn)
        self._run(*replay, "--dry-run", shown=8)
        answer = self._run(*replay, "--into", SECOND)
        first, second = (self._documents(name) for name in (SEARCH_FILE, SECOND_FILE))
        since = {place: first[place] for place in self._changed_since(order) if place in first}
        different = len(since.items() ^ second.items())
        self._must(not different, f"{different} documents differ between the two indexes")
        at_source = sum(self._ask(f"SELECT count(*) FROM {table}") for table in SEARCHED)
        self._must(len(first) == at_source, f"{len(first)} documents of {at_source} rows")
        self._show.say(
            f"documents in {SEARCH_FILE} {len(first):,}, rows at the source {at_source:,}; of rows"
            f" changed since {order.lsn} {len(since):,}, in {SECOND_FILE} {len(second):,},"
            f" different: {different}",
            "green",
        )
        self.summary += [
            ("documents, as rows at the source", f"{len(first):,}"),
            ("  replayed from an LSN, the same", f"{len(second):,}"),
            ("  replayed in", f"{answer.seconds:.1f} s"),
        ]

    def _changed_since(self, order: Order) -> set[tuple[str, str]]:
        """Documents of the rows that a transaction changed which was committed since the order's
        first change: its own or a later one, or one that was open beside it and ended before it.
        """
        offset = self._stage.first_committed_since(parse_place(order.lsn).value)
        with closing(self._open(AUDIT_FILE)) as db:
            rows = db.execute(_CHANGED, [offset])
            return {(table, str(id_)) for table, id_ in rows if table.partition(".")[2] in SEARCHED}

    def _verify(self, tally: Tally, changes: int) -> None:
        self._show.step("Audit: is the chain of records whole?")
        answer = self._run("audit", "verify", AUDIT_FILE)
        with closing(self._open(AUDIT_FILE)) as db:
            row = db.execute("SELECT count(*), count(who), count(why) FROM audit").fetchone()
        records, who, why = row
        whole = _WHOLE.search(answer.lines[0])
        self._must(whole is not None and int(whole["records"]) == records, "not all was verified")
        self._must(records == changes, f"{records} audit records of {changes} changes")
        self._must(who == why == tally.signed, f"{who} records name who, of {tally.signed}")
        self._show.say(
            f"changes in the journal {changes:,}, audit records {records:,};"
            f" rows changed in somebody's name {tally.signed:,}, records that say so {who:,}",
            "green",
        )
        self.summary += [
            ("audit records, as changes stored", f"{records:,}"),
            ("  that say who and why", f"{who:,}"),
            ("  chain", "whole"),
        ]

    def _forge(self, order: Order) -> None:
        self._show.step("Forgery: one value is altered, in a copy of the audit file")
        alteration = "UPDATE audit SET after = json_set(after, '$.total', '0.01')"
        steps = (
            (AUDIT_FILE, f"VACUUM INTO '{FORGED_FILE}'"),
            (FORGED_FILE, f"{alteration} WHERE seq = {order.last_seq}"),
        )
        for name, statement in steps:
            self._show.command(f'sqlite3 {name} "{statement}"')
            with closing(sqlite3.connect(self._folder / name)) as db, db:
                where = str(self._folder / FORGED_FILE)
                db.execute(statement.replace(f"'{FORGED_FILE}'", f"'{_quoted(where)}'"))
        answer = self._run("audit", "verify", FORGED_FILE, code=1)
        text = "\n".join(answer.lines)
        found = f"whole up to record {order.last_seq - 1}\n" in text and "BROKEN" in text
        self._must(found, f"the altered record {order.last_seq} was not found")
        self._show.say(f"found: record {order.last_seq:,} is the one that was altered", "green")
        self.summary.append(("  one value altered in a copy", "found"))

    # --- what they are made of ------------------------------------------------------------

    def _run(
        self, *words: str, shown: int = LINES, code: int = 0, only_heads: bool = False
    ) -> Answer:
        """Show a command, run it, show what it says; without what is indented, if asked."""
        self._show.command(_typed(words) + (" | grep -v '^ '" if only_heads else ""))
        answer = self._stage.run(*words)
        lines = [line for line in answer.lines if not (only_heads and line.startswith(" "))]
        self._show.output(lines, shown)
        self._must(answer.code == code, f"cdc {words[0]} ended with exit code {answer.code}")
        return answer

    def _must(self, true: bool, otherwise: str) -> None:
        if not true:
            raise DemoFailed(otherwise)

    def _ask(self, query: str, *values: Any) -> int:
        with psycopg.connect(self._source) as conn:
            row = conn.execute(query.encode(), values or None).fetchone()
        return int(row[0]) if row else 0

    def _open(self, name: str) -> sqlite3.Connection:
        return sqlite3.connect(f"{(self._folder / name).absolute().as_uri()}?mode=ro", uri=True)

    def _documents(self, name: str) -> dict[tuple[str, str], tuple[str, str]]:
        with closing(self._open(name)) as db:
            return {(table, key): (layout, body) for table, key, layout, body
                    in db.execute(_DOCUMENTS)}  # fmt: skip


def _typed(words: tuple[str, ...]) -> str:
    return " ".join(["cdc", *(f"'{word}'" if " " in word else word for word in words)])


def _quoted(text: str) -> str:
    return text.replace("'", "''")
