"""Capture: one source in one process, as JSON lines (``cdc capture``) or as an iterator.

No journal and no worker: the source's batches come as one sequence (see
:mod:`cdc.postgres.linear`), run by the same loop that fills a journal.

``cdc.capture(url)`` and ``from cdc.capture import capture`` are the same function: this
module may be called itself, since a package's attribute of its submodule's name *is* the
submodule, whoever imported it first.
"""

import sys
from types import ModuleType
from typing import Any

from cdc.capture.events import Events, capture

__all__ = ["Events", "capture"]


class _CallableModule(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Events:
        return capture(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
