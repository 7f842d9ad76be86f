"""The journal's keys. They stand beside the source's in its connector's configuration."""

from __future__ import annotations

from typing import Final

from cdc.config import ConfigDef, Key, Kind, Validator, at_least, grouped

GIB: Final = 1 << 30
HOUR_MS: Final = 3_600_000


def _limit_or_none(minimum: int) -> Validator:
    """A limit, or -1 for none. Zero is no way to say "unset" here."""

    def check(value: int) -> str | None:
        if value == -1 or value >= minimum:
            return None
        return f"Value must be at least {minimum}, or -1 for no limit"

    return check


JOURNAL_CONFIG = ConfigDef(
    grouped(
        "Journal",
        (
            Key(
                "journal.full.policy",
                Kind.STRING,
                "wait",
                "At the budget: wait, so that the server keeps its log (wait), or drop the "
                "oldest segments, with an error and a gap record (drop).",
                importance="HIGH",
                choices=("wait", "drop"),
            ),
            Key(
                "journal.budget.bytes",
                Kind.LONG,
                50 * GIB,
                "The journal's hard limit on disk.",
                importance="HIGH",
                validator=at_least(16 << 20),
            ),
            Key(
                "journal.retention.ms",
                Kind.LONG,
                7 * 24 * HOUR_MS,
                "Age at which a segment goes that no sink needs; -1 keeps it.",
                validator=_limit_or_none(0),
            ),
            Key(
                "journal.retention.bytes",
                Kind.LONG,
                -1,
                "Size above which the oldest segments go that no sink needs; -1 keeps them.",
                validator=_limit_or_none(0),
            ),
            Key(
                "journal.segment.bytes",
                Kind.LONG,
                256 << 20,
                "Size at which a segment is sealed and the next one begun.",
                validator=at_least(1 << 20),
            ),
            Key(
                "journal.segment.ms",
                Kind.LONG,
                HOUR_MS,
                "Age at which a segment is sealed and the next one begun.",
                validator=at_least(1000),
            ),
        ),
    )
)
