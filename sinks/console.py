"""Console sink: every record as a line of JSON on standard output. The sink to read first.

A replay prints the lines again: what is on a screen cannot be taken back, so delivery is
at least once.
"""

from __future__ import annotations

import sys

from cdc.api import SinkContext, SinkTask
from cdc.block import Block
from cdc.config import Config, ConfigDef, grouped
from cdc.converters import lines
from cdc.errors import SinkUnavailable

CONFIG = ConfigDef(grouped("Console", lines.KEYS))


class ConsoleSinkTask(SinkTask):
    """Writes what it is given at once; nothing is buffered, so a reader sees it at once."""

    takes_records = True

    def __init__(self, config: Config) -> None:
        self._lines = lines.JsonLines.from_config(config)

    def start(self, context: SinkContext) -> None:
        """Nothing to prepare."""

    def put(self, block: Block) -> None:
        """Print a block."""
        try:
            sys.stdout.buffer.writelines(self._lines.render(block))
            sys.stdout.buffer.flush()
        except BrokenPipeError as error:
            raise SinkUnavailable(
                "nobody reads the standard output any more", remedy="Restart the reader"
            ) from error

    def flush(self, offset: int) -> None:
        """Nothing to do: ``put`` has written everything."""
