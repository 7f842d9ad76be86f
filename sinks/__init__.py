"""Sinks: one file per target. Nothing is imported before a connector asks for it.

A sink module has ``CONFIG``, its keys, and a subclass of :class:`cdc.api.SinkTask`. Start with
:mod:`sinks.console`.
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
