"""A folder for journals of which only what is in them counts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.log.rows import MEMORY


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder on which fsync costs nothing, where the system has such a place."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)
