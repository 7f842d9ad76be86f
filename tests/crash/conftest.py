"""A rig per test, and no worker left behind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.database import SMALL, Size
from tests.crash.rig import Rig
from tests.fix_postgres import StartPostgres

MakeRig = Callable[..., Rig]
SERVER = {"wal_sender_timeout": "2s", "max_connections": 60, "max_wal_size": "256MB"}


@pytest.fixture
def make_rig(tmp_path: Path, start_postgres: StartPostgres) -> Iterator[MakeRig]:
    """``make_rig(size, settings={}, **rig)``: a server of its own with fsync, and a rig."""
    with contextlib.ExitStack() as stack:

        def make(size: Size = SMALL, settings: dict[str, Any] | None = None, **more: Any) -> Rig:
            server = more.pop("server", None)
            if server is None:
                server = start_postgres(18, fsync=True, **{**SERVER, **(settings or {})})
            rig = Rig(tmp_path / "rig", server, size, **more)
            stack.callback(rig.close)
            return rig

        yield make
