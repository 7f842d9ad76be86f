"""One task process as its worker sees it: start, commands, messages, end."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from cdc.runtime.channel import Receiver, Sender
from cdc.runtime.runners import TaskSpec

START_PATIENCE_S = 5.0  # for a specification longer than a pipe holds
PATIENCE_S = 1.0  # a stopped process must not hold the worker up
REAP_S = 5.0  # between the end of the message pipe and the end of the process


class TaskProcess:
    """A started child. Made in the worker's supervisor thread only (see parent.die_with)."""

    def __init__(self, spec: TaskSpec) -> None:
        receive, send = os.pipe()
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "cdc.runtime.task", "--messages", str(send)],
                stdin=subprocess.PIPE,
                pass_fds=(send,),
                bufsize=0,
            )
        except BaseException:
            os.close(receive)
            raise
        finally:
            os.close(send)
        assert self._child.stdin is not None
        self.pid = self._child.pid
        self.messages = Receiver(receive)
        self._commands = Sender(self._child.stdin.fileno(), START_PATIENCE_S)
        self._told_to_stop = False
        # A specification may be longer than a pipe holds, so this waits for the child to read.
        if not self._commands.send(asdict(spec)):
            self.kill()  # its end is heard, and it is started again like any other
        self._commands.patience_s = PATIENCE_S

    def tell(self, command: dict[str, Any]) -> bool:
        """Send a command that a later one repeats or replaces; whether it was sent."""
        return self._commands.send(command, must=False)

    def stop(self) -> None:
        """Ask it to end in order."""
        if not self._told_to_stop:
            self._told_to_stop = True
            self._commands.send({"c": "stop"})

    @property
    def told_to_stop(self) -> bool:
        """Whether its end is asked for."""
        return self._told_to_stop

    def kill(self) -> None:
        """End it now: what is durable stays, the rest is done again."""
        with suppress(ProcessLookupError):
            self._child.kill()

    def reap(self) -> int:
        """The exit code, once the messages have ended; negative for a signal."""
        try:
            code = self._child.wait(REAP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._child.wait()
        self.messages.close()
        if self._child.stdin is not None:
            self._child.stdin.close()
        return code
