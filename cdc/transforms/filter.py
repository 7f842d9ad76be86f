"""Filter: drops the record. Meant to be used with a predicate."""

from __future__ import annotations

from cdc.config import Config, ConfigDef
from cdc.record import Record


class Filter:
    """Connect's ``Filter``."""

    CONFIG = ConfigDef(())

    def __init__(self, config: Config) -> None:
        del config  # it has no options

    def apply(self, record: Record) -> None:
        """Nothing: the record is dropped."""
