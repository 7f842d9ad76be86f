"""What a refused command must leave as it is: every file of a data folder and of targets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def fingerprint(*paths: Path) -> dict[str, str]:
    """Hash by file. SQLite's own are left out: a reader too makes an index of an empty log."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
        and not file.name.endswith("-shm")
        and not (file.name.endswith("-wal") and not file.stat().st_size)
    }


@contextmanager
def unchanged(*paths: Path) -> Iterator[None]:
    """Nothing in these is written, made or removed meanwhile."""
    before = fingerprint(*paths)
    yield
    assert fingerprint(*paths) == before
