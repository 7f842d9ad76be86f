"""Sinks: one file per target. Nothing is imported before a connector asks for it.

A sink module has ``CONFIG``, its keys, and a task class that takes the parsed ``Config``
and keeps the promises of :class:`cdc.api.SinkTask`. Start with :mod:`sinks.console`.

For replays it may have ``into(config, name)``, which gives the keys to change so that the
same connector writes a second target of that name (``cdc replay --into``), and ``NO_SEEK``,
the reason why its target cannot be written again from an earlier offset; and ``NO_REDELIVERY``,
the reason why a dead letter cannot be put behind rows that came after it. With ``ONE_JOURNAL``
a connector goes on with the journal it began with when other sources come beside it.
"""

from typing import Final

# Short name → "module:class". Java class names are aliases of these, in cdc.aliases.
SINKS: Final[dict[str, str]] = {
    "audit": "sinks.audit:AuditSinkTask",
    "console": "sinks.console:ConsoleSinkTask",
    "file": "sinks.file:FileSinkTask",
    "search": "sinks.search:SearchSinkTask",
    "sql": "sinks.sql:SqlSinkTask",
}
