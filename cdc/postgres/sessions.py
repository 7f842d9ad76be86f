"""Sessions: ordinary connections to the source, every one with its settings fixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from cdc.postgres.replication import (
    WITHOUT_TIMEOUTS,
    connection_error,
    connection_parameters,
)


def connect(conninfo: Mapping[str, Any]) -> psycopg.Connection[Any]:
    """An autocommit connection. Raises SourceError or ConnectionLost, cause and remedy named."""
    try:
        connection = psycopg.connect(**connection_parameters(conninfo), autocommit=True)
        connection.prepare_threshold = None
        connection.execute(WITHOUT_TIMEOUTS)
    except psycopg.Error as error:
        raise connection_error(error) from None
    return connection
