"""What commands that look into a journal share: which one, and what cannot be read of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cdc.cli.common import data_dir
from cdc.errors import ConfigError, LogError


def add_source(parser: argparse.ArgumentParser) -> None:
    """``--source``."""
    parser.add_argument(
        "--source", metavar="NAME", help="whose journal; needed where there are several"
    )


def journal_path(args: argparse.Namespace) -> Path:
    """The journal of ``--source``, or the only one. Raises ConfigError."""
    data = data_dir(args)
    names = data.journals()
    name = args.source
    if name is None:
        if not names:
            raise ConfigError(
                f"{data.path} has no journal",
                key="--data-dir",
                remedy="Name the folder that the worker was started with.",
            )
        if len(names) > 1:
            raise ConfigError(
                f"there are several journals: {', '.join(names)}",
                key="--source",
                remedy="Name one of them.",
            )
        name = names[0]
    path = data.journal(name)
    if not path.is_dir():
        known = ", ".join(names) or "none"
        raise ConfigError(f"{data.path} has no journal of {name}", remedy=f"There are: {known}.")
    return path


class Warnings:
    """What cannot be read is told on standard error, once, and makes the exit code 1."""

    def __init__(self) -> None:
        self.texts: dict[str, None] = {}

    def __call__(self, error: LogError) -> None:
        """Tell of it."""
        text = str(error)
        if text not in self.texts:
            self.texts[text] = None
            print(f"warning: {text}", file=sys.stderr)

    @property
    def exit_code(self) -> int:
        """0 when there were none."""
        return int(bool(self.texts))
