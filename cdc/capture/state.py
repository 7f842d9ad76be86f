"""State: where a capture stands, in one file that is replaced as a whole.

``state.json`` holds the source's positions (:class:`cdc.api.LogState`), how much of the
output they cover, and, for the library, the last acknowledged event inside a batch. It is
written after the output is on disk, and only then is anything confirmed to the server: so a
crash leaves either the old state and some output too much, or the new one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from cdc.api import Batch, Lane, LogState, Position
from cdc.durable import lock, make_folder
from cdc.errors import ConfigError, LogCorrupt, LogLocked, LogVersion
from cdc.runtime.state import write_json

FORMAT = 1
FILE, LOCK = "state.json", "lock"


@dataclass(frozen=True)
class CaptureState:
    """All of ``state.json``. ``output`` is a path and its length; ``acked`` a stream's row."""

    lanes: LogState = field(default_factory=LogState)
    output: tuple[str, int] | None = None
    acked: tuple[int, int, int] | None = None


def after(state: LogState, batch: Batch) -> LogState:
    """The state once ``batch`` is written: the lanes and generations of :mod:`cdc.api`."""
    if not state.generation or state.stream_closed:
        state = LogState(state.generation + 1, stream_position=state.stream_position)
    if batch.lane is Lane.SNAPSHOT:
        return replace(
            state, snapshot_position=batch.position,
            snapshot_closed=state.snapshot_closed or batch.close,
        )  # fmt: skip
    return replace(
        state, stream_position=batch.position, stream_closed=state.stream_closed or batch.close
    )


def positions(state: LogState) -> dict[Lane, Position]:
    """What may be confirmed when ``state`` is durable."""
    found = {Lane.SNAPSHOT: state.snapshot_position, Lane.STREAM: state.stream_position}
    return {lane: position for lane, position in found.items() if position is not None}


class StateFolder:
    """``--state DIR``: the file and a lock, so that two captures never share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            make_folder(path, 0o700)
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be used: {error.strerror}", key="--state",
                remedy="Name a folder that may be written",
            ) from None  # fmt: skip
        if not lock(self._lock):
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            os.close(self._lock)
            raise LogLocked(
                f"the state in {path} is in use by process {holder or 'unknown'}",
                remedy="stop that process, or choose another --state",
            )
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def load(self) -> CaptureState:
        """What was saved last; an empty state where nothing was."""
        file = self.path / FILE
        try:
            raw = orjson.loads(file.read_bytes())
            if raw["format"] > FORMAT:
                raise LogVersion(f"{file} has format {raw['format']}, newer than {FORMAT}",
                                 remedy="use the newer version that wrote it")  # fmt: skip
            output, acked = raw["output"], raw["acked"]
            return CaptureState(
                LogState(**raw["lanes"]),
                (output["path"], output["length"]) if output else None,
                tuple(acked) if acked else None,
            )
        except FileNotFoundError:
            return CaptureState()
        except (ValueError, KeyError, TypeError) as error:
            raise LogCorrupt(
                f"{file} is damaged: {error}",
                remedy="restore it; or start anew with an empty --state and another output",
            ) from None

    def save(self, state: CaptureState) -> None:
        """Replace the file; on return it is on disk. Raises OSError."""
        write_json(self.path / FILE, _as_json(state))

    def forget(self) -> None:
        """Remove the file: the next capture begins anew."""
        (self.path / FILE).unlink(missing_ok=True)

    def close(self) -> None:
        """Let another capture have it."""
        os.close(self._lock)


def _as_json(state: CaptureState) -> Mapping[str, Any]:
    output = state.output
    return {
        "format": FORMAT,
        "lanes": asdict(state.lanes),
        "output": {"path": output[0], "length": output[1]} if output else None,
        "acked": state.acked,
    }
