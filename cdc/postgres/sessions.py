"""Sessions: ordinary connections to the source, every one with its settings fixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from cdc.postgres.replication import APPLICATION_NAME, connection_error, session_options


def connect(conninfo: Mapping[str, Any]) -> psycopg.Connection[Any]:
    """An autocommit connection. Raises SourceError or ConnectionLost, cause and remedy named."""
    parameters = {k: v for k, v in conninfo.items() if v is not None}
    parameters.setdefault("application_name", APPLICATION_NAME)
    parameters.setdefault("connect_timeout", 10)
    parameters["options"] = session_options()
    try:
        connection = psycopg.connect(**parameters, autocommit=True)
    except psycopg.Error as error:
        raise connection_error(error) from None
    connection.prepare_threshold = None
    return connection
