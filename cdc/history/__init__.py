"""What was this row? Every version of a row the journal holds, and the row as it was.

::

    from cdc.history import history, row_at

    for version in history("cdc-data/journal/shop", "orders", {"id": 42}):
        print(version.time, version.op, version.changed, version.row)
    row_at("cdc-data/journal/shop", "orders", 42, at="2026-03-01T12:00:00Z")

Only blocks whose key filter can hold the row are read. It works beside a running writer and
never holds it up.
"""

from cdc.history.model import Since, Version
from cdc.history.rows import history, known_since, row_at, version_at

__all__ = ["Since", "Version", "history", "known_since", "row_at", "version_at"]
