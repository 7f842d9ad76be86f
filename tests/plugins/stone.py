"""The ledger, written in stone: a sink whose target cannot be written again."""

from __future__ import annotations

from counter import CONFIG, LedgerSinkTask

__all__ = ["CONFIG", "NO_SEEK", "StoneSinkTask"]

NO_SEEK = "it is written in stone"


class StoneSinkTask(LedgerSinkTask):
    pass
