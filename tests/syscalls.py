"""What a process asked of the disk, and in which order: strace's output, read and judged.

``Disk`` says at every promise (a mark, a confirmation) what would be gone if the machine lost
its power at that moment: file contents without fsync, and names without their folder's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import give_up

RENAMES = ("rename", "renameat", "renameat2")
SYNCS = ("fsync", "fdatasync")
WRITES = ("write", "pwrite64", "pwritev", "writev", "ftruncate")
UNLINKS = ("unlink", "unlinkat")
STRACE = ["strace", "-f", "-y", "-xx", "-s", "100000", "-e"]
CALLS = f"trace={','.join((*WRITES, *SYNCS, *RENAMES, *UNLINKS, 'sendto'))}"

_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_FD = re.compile(r"^\d+<([^>]*)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Seen:
    """One call. Writes and sends are seen as they begin, syncs and renames once they are done."""

    call: str
    path: str  # a rename's old name
    data: bytes  # a rename's new name


def strace(trace: Path, *command: str) -> list[str]:
    """The command under strace; without strace the test ends."""
    if shutil.which("strace") is None:
        give_up("strace is not installed")
    return [*STRACE, CALLS, "-o", str(trace), *command]


def check_permitted(stderr: str) -> None:
    """End the test where nobody may trace."""
    if "ptrace" in stderr.lower():
        give_up("tracing is not permitted here")


def run(trace: Path, command: list[str], cwd: Path) -> list[Seen]:
    """Run it to its end under strace; what was seen."""
    done = subprocess.run(
        strace(trace, *command), cwd=cwd, capture_output=True, text=True, check=False
    )
    check_permitted(done.stderr)
    assert done.returncode == 0, done.stderr
    return list(read(trace))


def read(trace: Path) -> Iterator[Seen]:
    """The calls of a trace, in order. A sync or rename that failed is not seen."""
    begun: dict[str, tuple[str, str]] = {}
    with trace.open() as lines:
        for line in lines:
            resumed = _RESUMED.match(line)
            if resumed:
                pid, call, rest = resumed.groups()
                name, arguments = begun.pop(pid, (call, ""))
                if name in (*SYNCS, *RENAMES) and rest.rstrip().endswith("= 0"):
                    yield _seen(name, arguments)
                continue
            found = _CALL.match(line)
            if found is None:
                continue
            pid, call, rest = found.groups()
            unfinished = "<unfinished" in rest
            if unfinished:
                begun[pid] = call, rest
            is_done = not unfinished and rest.rstrip().endswith("= 0")
            if call in (*WRITES, "sendto") or is_done:
                yield _seen(call, rest)


def _seen(call: str, arguments: str) -> Seen:
    texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments)]
    if call in RENAMES:
        return Seen(call, texts[0].decode(), texts[1])
    if call in UNLINKS:
        return Seen(call, texts[0].decode(), b"")
    shown = _FD.match(arguments)
    path = shown[1] if shown else ""
    if "\\x" in path:
        path = bytes.fromhex(path.replace("\\x", "")).decode()
    return Seen(call, path, texts[0] if texts else b"")


@dataclass
class Disk:
    """What is not yet durable of the files under ``folder``, except those named in ``spare``.

    ``at_once``: a new name is to be durable before anything else is written there.
    """

    folder: Path
    spare: tuple[str, ...] = ("-shm", "/lock", ".lock")
    at_once: bool = False
    unsynced: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)  # folders whose names changed
    early: list[str] = field(default_factory=list)  # promises and renames that came too soon
    renames: int = 0

    def see(self, seen: Seen) -> None:
        """One call more."""
        if not seen.path.startswith(str(self.folder)) or seen.path.endswith(self.spare):
            return
        is_emptied = seen.call == "ftruncate" and seen.path.endswith("-wal")  # it is checkpointed
        if seen.call in UNLINKS or is_emptied:
            self.unsynced.discard(seen.path)
        elif seen.call in WRITES:
            if self.at_once and self.moved:
                self.early.append(f"{seen.path} written before fsync of {sorted(self.moved)}")
            self.unsynced.add(seen.path)
        elif seen.call in SYNCS:
            self.unsynced.discard(seen.path)
            self.moved.discard(seen.path)
        elif seen.call in RENAMES:
            self.renames += 1
            self.promise(f"rename to {Path(seen.data.decode()).name}", names=False)
            self.moved.add(str(Path(seen.data.decode()).parent))

    def promise(self, what: str, *, names: bool = True) -> None:
        """From here on somebody counts on all that was written; ``names``: and renamed."""
        missing = self.unsynced | (self.moved if names else set())
        if missing:
            self.early.append(f"{what} before fsync of {sorted(missing)}")


def judged(seen: Iterable[Seen], disk: Disk, mark: Path) -> int:
    """Let ``disk`` see all calls; a write to ``mark`` is a promise. How many there were."""
    promises = 0
    for call in seen:
        if call.path == str(mark):
            promises += 1
            disk.promise(call.data.decode())
        else:
            disk.see(call)
    return promises
