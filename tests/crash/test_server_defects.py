"""What the crash tests found in PostgreSQL itself, and what we say about it."""

from __future__ import annotations

import psycopg2

from cdc.errors import SourceError
from cdc.postgres.replication import replication_error


class InternalError(psycopg2.InternalError):
    pgcode = "XX000"


def test_a_slot_that_the_server_cannot_decode_is_not_tried_again() -> None:
    """A TRUNCATE with writes behind it, while a slot is made; needs no client to happen."""
    text = 'could not map filenumber "base/5/16957" to relation OID'
    error = replication_error(InternalError(text), "shop")
    assert type(error) is SourceError
    assert not error.retriable
    assert text in str(error)
    assert "drop the slot" in error.remedy
