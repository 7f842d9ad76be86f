"""The README says what the code does: tables, commands, requests, configurations, metrics."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cdc import metrics
from cdc.__main__ import build_parser
from cdc.runtime import plugins, state
from cdc.runtime.into import Job
from cdc.runtime.state import DataDir
from tests.readme_tables import README, updated
from tests.test_architecture import ENGINE, distribution, imports

TEXT = README.read_text()
DOCKER = README.parent / "docker"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
# Code blocks without a language hold commands, one per line.
LINES = {line for language, block in BLOCKS if not language for line in block.splitlines()}
COMMANDS = sorted(line for line in LINES if line.startswith("cdc "))
REQUESTS = sorted(line for line in LINES if line.startswith("curl "))
ENTRY = re.compile(r"(?:^|  )(?:[a-z]+/|worker\.)[^ \n]*", re.MULTILINE)  # of the data folder
CONNECTORS = [
    *(block for language, block in BLOCKS if language == "json"),
    *(path.read_text() for path in sorted(DOCKER.glob("*.json"))),
]


def test_configuration_tables_are_current() -> None:
    assert updated(TEXT) == TEXT, "run: python -m tests.readme_tables"


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str) -> None:
    """By the command's own parser, with every option and argument as it is printed."""
    words = shlex.split(command, comments=True)[1:]
    args = build_parser(words[0]).parse_args(words)
    assert args.command == words[0]


def test_an_option_that_is_gone_would_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser("history").parse_args(["history", "orders", "42", "--sideways"])
    assert "unrecognized arguments: --sideways" in capsys.readouterr().err


@pytest.mark.parametrize("text", CONNECTORS, ids=lambda text: json.loads(text)["name"])
def test_configurations_are_sound(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the letter: with config.strict an unknown key is an error too."""
    monkeypatch.setenv("PGPASSWORD", "secret")
    monkeypatch.setenv("COPY_PASSWORD", "secret")
    (tmp_path / "keys.properties").write_text("audit=a-key-of-at-least-thirty-two-bytes-of-length")
    body = json.loads(text.replace("/etc/cdc/keys.properties", str(tmp_path / "keys.properties")))
    assert body.keys() == {"name", "config"}
    worker = {"config.providers": "file,env"}
    given = {**body["config"], "name": body["name"], "config.strict": "true"}
    plugin, config = plugins.configure(given, worker)
    assert config.warnings == []
    assert plugin.kind == ("source" if "database.dbname" in given else "sink")


def test_the_image_installs_nothing_that_the_engine_does_not_import() -> None:
    (wanted,) = re.findall(r'pip install .* "?\.(?:\[([\w,]+)\])?"?$', DOCKERFILE, re.MULTILINE)
    extras = tomllib.loads((README.parent / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    imported = {name.partition(".")[0] for path in ENGINE for name in imports(path)}
    for extra in filter(None, wanted.split(",")):
        needed = {distribution(text).replace("-", "_") for text in extras[extra]}
        assert needed & imported, f"extra {extra}"


DOCKERFILE = (DOCKER / "Dockerfile").read_text()


def test_the_metrics_the_readme_names_are_there() -> None:
    there = {value for value in vars(metrics).values() if isinstance(value, str)}
    named = set(re.findall(r"`(cdc_[a-z_]+)`", TEXT))
    assert named - {"cdc_offsets", "cdc_audit"} <= there
    assert {name for name in there if name.startswith("cdc_")} <= named


def test_the_data_folder_is_listed_whole(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    into = Job("copy", "second", {}, {}, str(tmp_path), "shop", 0, 1, "", [])
    with data.lock():
        data.announce("http://127.0.0.1:8083")
        names = {path.name for path in (*tmp_path.iterdir(), into.folder.parent)}
    listed = next(block for _, block in BLOCKS if "worker.lock" in block)
    for text in (listed, str(state.__doc__)):
        assert {re.split("[/ ]", entry.strip())[0] for entry in re.findall(ENTRY, text)} == names


def test_the_list_of_pages_leads_to_all_of_them() -> None:
    titles = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    anchors = [re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles]
    assert re.findall(r"\(#([^)]*)\)", TEXT) == anchors


def test_make_targets_exist() -> None:
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z]+)", TEXT):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"


@pytest.mark.parametrize(
    ("given", "said"), [("", "no Python >= 3.11"), ("false", "false does not run, is older than")]
)
def test_make_says_which_python_it_needs(tmp_path: Path, given: str, said: str) -> None:
    make = ["make", "-f", README.parent / "Makefile", "demo", f"PYTHON={given}"]
    done = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_every_command_is_in_the_readme() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "cdc", "--help"], capture_output=True, text=True, check=True
    )
    for command in re.findall(r"^    ([a-z]+)  ", shown.stdout, re.MULTILINE):
        assert f"`cdc {command}" in TEXT, command
