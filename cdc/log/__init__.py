"""The log between source and sinks: what :class:`cdc.api.Log` promises, kept on disk.

:class:`Journal` writes, :class:`JournalReader` reads, :mod:`cdc.log.verify` holds the tools.
"""

from cdc.log.journal import Journal
from cdc.log.reader import Gap, JournalReader

__all__ = ["Gap", "Journal", "JournalReader"]
