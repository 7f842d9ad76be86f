"""Every error of the engine, in one tree.

::

    CdcError
    ├── ConfigError            a setting is wrong: stop, the message names the key
    ├── SourceError            the database cannot serve us: stop
    │   ├── ConnectionLost     retriable: reconnect with back-off
    │   ├── SlotBusy           retriable: another process holds the slot
    │   ├── LogLost            the log we need is gone: refuse, or snapshot again
    │   ├── PositionMismatch   the log does not continue where we stopped
    │   └── DecodeError        bytes that no decoder understands
    ├── RecordError            this record only: tolerate or dead-letter
    ├── SinkError              the target cannot take it
    │   ├── SinkUnavailable    retriable, may carry ``retry_after_s``
    │   └── SinkRejected       the target refuses this data: stop
    └── LogError               the durable log between source and sink
        ├── LogFull            retriable: no space, nothing was confirmed
        ├── LogLocked          another process writes this journal
        ├── LogCorrupt         a checksum does not match: names the segment
        ├── LogVersion         written by a newer engine
        └── OffsetOutOfRange   retention has taken that offset

What is done about an error is decided in one place, :mod:`cdc.runtime.retry`, by its
class and its ``retriable`` attribute, never by its text.
"""

from __future__ import annotations

from typing import Any


class CdcError(Exception):
    """The root. ``remedy`` says what the reader can do about it, in one sentence."""

    retriable = False

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        # errors travel between processes; their constructors differ, their attributes do not
        return _restore, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        end = "" if self.problem.endswith((".", "?", "!")) else "."  # a server's text may have one
        return f"{self.problem}{end} {self.remedy}" if self.remedy else self.problem


def _restore(kind: type[CdcError], args: tuple[Any, ...], state: dict[str, Any]) -> CdcError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigError(CdcError):
    """A configuration value is missing, misspelt or impossible."""

    def __init__(self, problem: str, *, key: str = "", remedy: str = "") -> None:
        super().__init__(f"{key}: {problem}" if key else problem, remedy=remedy)
        self.key = key


class SourceError(CdcError):
    """The source database cannot be captured as configured."""


class ConnectionLost(SourceError):
    """The connection to the source broke; the next attempt may succeed."""

    retriable = True


class SlotBusy(SourceError):
    """The replication slot is active in another process."""

    retriable = True


class LogLost(SourceError):
    """The server no longer has the log from our position on."""


class PositionMismatch(SourceError):
    """The log does not hold, at our position, what we stored from there."""


class DecodeError(SourceError):
    """Bytes that are not a valid message of the replication protocol."""


class RecordError(CdcError):
    """One record cannot be processed; its neighbours can."""


class SinkError(CdcError):
    """The target cannot be written."""


class SinkUnavailable(SinkError):
    """The target is out of reach for now; the same records are offered again."""

    retriable = True

    def __init__(self, problem: str, *, remedy: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(problem, remedy=remedy)
        self.retry_after_s = retry_after_s


class SinkRejected(SinkError):
    """The target refuses these records, and will refuse them again."""


class LogError(CdcError):
    """The durable log between source and sinks cannot be used."""


class LogFull(LogError):
    """No space for the log: nothing was stored, so nothing is confirmed."""

    retriable = True


class LogLocked(LogError):
    """Another process writes this journal."""


class LogCorrupt(LogError):
    """Stored bytes do not match their checksum."""


class LogVersion(LogError):
    """The log was written in a format this version does not know."""


class OffsetOutOfRange(LogError):
    """The offset asked for is before the oldest or after the newest one stored."""
