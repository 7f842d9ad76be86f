"""Files and folders that last and are one's own: fsync and flock.

What fsync has not seen, a power cut may take. A lock is its file descriptor's and ends with it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from cdc import failpoints

# What the system says when the disk or a quota is used up.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def sync(path: Path) -> None:
    """Make a file or a folder (the names in it) durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def no_file(text: str) -> str | None:
    """Why a path cannot be a file's that is to be written; None: as far as one sees, it can.

    To be asked before anything is begun; what only the writing shows is not among it.
    """
    if "\0" in text:
        return "a path has no NUL byte"
    path = Path(text)
    try:
        if path.is_dir():
            return "it is a folder: name a file in it"
        above = next((folder for folder in path.parents if folder.exists()), None)
    except OSError as error:
        return error.strerror
    if above is not None and not above.is_dir():
        return f"{above} is no folder"
    return None


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder, and what is missing above it; their names are durable on return.

    Also where a crash came between the making and the sync. ``mode`` is the folder's own. One
    that is there may lie where names cannot be synced. Raises OSError.
    """
    path = path.absolute()
    there = path.is_dir()
    if not there:
        make_folder(path.parent)
        path.mkdir(mode=mode, exist_ok=True)
    try:
        sync(path.parent)
    except PermissionError:  # one may enter it and not read it
        os.sync()
    except OSError as error:
        # nothing was made, and what it lies in is no file system that could lose a name
        if not there or error.errno not in (errno.EINVAL, errno.EROFS, errno.ENOTSUP):
            raise


def write(path: Path, content: bytes, point: str) -> None:
    """Replace a file durably: a reader or a crash sees the old content or the new one.

    ``point`` names the failpoints before and after the renaming. Raises OSError, with the path.
    """
    part = path.with_name(f"{path.name}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = str(path)  # a full disk does not say where
        raise
    failpoints.hit(f"{point}.before_rename")
    part.replace(path)
    failpoints.hit(f"{point}.after_rename")
    sync(path.parent)


def lock(fd: int, *, shared: bool = False) -> bool:
    """Lock an open file against other processes; False, at once, when another has it."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
