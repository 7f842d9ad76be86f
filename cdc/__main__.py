"""The command line: ``cdc COMMAND …``. Commands live in :mod:`cdc.cli`, one module each."""

from __future__ import annotations

import argparse
import errno
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import cdc
from cdc.durable import NO_SPACE
from cdc.errors import CdcError, ConfigError

# Command → (module, one line). A module is imported when its command is given.
COMMANDS: Final = {
    "run": ("cdc.cli.run", "run a worker: sources, sinks and the REST API"),
    "capture": ("cdc.cli.capture", "one source's events as JSON lines, without a worker"),
    "demo": ("cdc.demo.story", "see it work, on an embedded PostgreSQL"),
    "status": ("cdc.cli.status", "connectors and tasks, whether a worker runs or not"),
    "history": ("cdc.cli.history", "every version of a row, or the row as it was"),
    "tail": ("cdc.cli.tail", "the events of a journal, filtered, as they come"),
    "check": ("cdc.cli.check", "whether a database can be captured; creates nothing"),
    "replay": ("cdc.cli.replay", "send a sink what the journal holds once more"),
    "dlq": ("cdc.cli.dlq", "records a sink could not deliver: list, show, replay, drop"),
    "journal": ("cdc.cli.journal", "verify, describe, prune, back up or export a journal"),
    "audit": ("cdc.cli.audit", "verify an audit chain, or ask it who changed what"),
    "search": ("cdc.cli.search", "find rows by their words, in a search sink's index"),
    "plugins": ("cdc.cli.plugins", "connectors, converters, transforms, and their keys"),
    "drop": ("cdc.cli.drop", "remove a connector with its slot and publication"),
}
EXIT_FAILURE, EXIT_CONFIG, EXIT_INTERRUPTED = 1, 2, 130
# What helps where the operating system refuses; anything else is looked at more closely.
REMEDIES: Final = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "Run it as the owner, or mend owner and mode."),
    **dict.fromkeys(NO_SPACE, "Make room on the disk."),
    errno.EROFS: "Its file system is mounted for reading only.",
}


class _Intermixed(argparse.ArgumentParser):
    """Options may stand anywhere, also between arguments of which the last can be left out."""

    _within = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """What argparse's intermixed parsing says; its plain one for a parser of subcommands."""
        subcommands = any(isinstance(each, argparse._SubParsersAction) for each in self._actions)
        if self._within or subcommands:
            return super().parse_known_args(args, namespace)
        self._within = True  # intermixed parsing is two passes of the plain one
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._within = False


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser; only the arguments of ``command`` are filled in."""
    parser = _Intermixed(
        prog="cdc", description="Change data capture: database logs in, Debezium's events out."
    )
    parser.add_argument("--version", action="version", version=f"cdc {cdc.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, line) in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=line,
            description=line[0].upper() + line[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--verbose", "-v", action="store_true", help="details, and tracebacks")
        if name == command:
            importlib.import_module(module).configure(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in arguments if word in COMMANDS), None)
    verbose = "-v" in arguments or "--verbose" in arguments
    if not arguments:
        build_parser().print_help(sys.stderr)
        return EXIT_CONFIG
    if logging.lastResort is not None:  # what is logged by commands that set up no log
        logging.lastResort.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    try:
        args = build_parser(command).parse_args(arguments)
        return int(importlib.import_module(COMMANDS[args.command][0]).run(args))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough; and the interpreter must not flush into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except CdcError as error:
        if verbose:
            raise
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAILURE
    except Exception as error:
        if verbose:
            raise
        print(f"error: {_unforeseen(error)}", file=sys.stderr)
        return EXIT_FAILURE


def _unforeseen(error: Exception) -> str:
    details = "Run it with --verbose for details."
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}. {REMEDIES.get(error.errno or 0, details)}"
    return f"{type(error).__name__}: {error}. {details}"


if __name__ == "__main__":
    sys.exit(main())
