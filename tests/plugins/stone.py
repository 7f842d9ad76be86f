"""The ledger, written in stone: a sink whose target cannot be written again."""

from __future__ import annotations

from counter import CONFIG, LedgerSinkTask

__all__ = ["CONFIG", "StoneSinkTask"]


class StoneSinkTask(LedgerSinkTask):
    no_seek = "it is written in stone"
