"""Sessions: ordinary connections to the source, every one with its settings fixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from cdc.postgres.replication import connection_error, connection_parameters


def connect(conninfo: Mapping[str, Any]) -> psycopg.Connection[Any]:
    """An autocommit connection. Raises SourceError or ConnectionLost, cause and remedy named."""
    try:
        connection = psycopg.connect(**connection_parameters(conninfo), autocommit=True)
    except psycopg.Error as error:
        raise connection_error(error) from None
    connection.prepare_threshold = None
    return connection
