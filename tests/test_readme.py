"""The README says what the code does: its tables and its commands are checked against it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.readme_tables import README, updated

TEXT = README.read_text()
# Code blocks without a language hold commands, one per line.
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for block in re.findall(r"^```\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if line.startswith(("cdc ", "make "))
    }
)


def test_configuration_tables_are_current() -> None:
    assert updated(TEXT) == TEXT, "run: python -m tests.readme_tables"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("cdc ")])
def test_commands_are_understood(command: str) -> None:
    """Every option that a command of the README uses is one of that command's."""
    words = command.split()
    shown = subprocess.run(
        [sys.executable, "-m", "cdc", words[1], "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for word in words[2:]:
        if word.startswith("--"):
            assert word in shown.stdout, f"{command}: no {word}"


def test_make_targets_exist() -> None:
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z]+)", TEXT):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"


def test_every_command_is_in_the_readme() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "cdc", "--help"], capture_output=True, text=True, check=True
    )
    for command in re.findall(r"^    ([a-z]+)  ", shown.stdout, re.MULTILINE):
        assert f"`cdc {command}" in TEXT, command
