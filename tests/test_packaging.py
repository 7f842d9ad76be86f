"""What is installed: the wheel's contents, and the versions the tests were run with."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

from tests.test_architecture import ROOT

CONSTRAINTS = (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
NAME = re.compile(r"[A-Za-z0-9._-]+")
PROJECT = "cdc-engine"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_wheel_holds_the_engine_and_nothing_else(tmp_path: Path) -> None:
    """Built as `pip install .` does, but with the setuptools that is here: without downloads."""
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--wheel-dir", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(file) as wheel:
        names = set(wheel.namelist())
        (entry_points,) = (name for name in names if name.endswith("/entry_points.txt"))
        info = Path(entry_points).parent
        scripts = wheel.read(entry_points).decode()
        metadata = wheel.read(f"{info}/METADATA").decode()
    assert scripts.splitlines() == ["[console_scripts]", "cdc = cdc.__main__:main"]
    code = {name for name in names if info not in Path(name).parents}
    packages = ("cdc", "schemas", "sinks")
    assert code == {
        str(path.relative_to(ROOT))
        for package in packages
        for path in (ROOT / package).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert {f"{package}/py.typed" for package in packages} <= code
    assert "License-Expression: Apache-2.0" in metadata.splitlines()


def test_every_installed_package_has_its_version_and_no_address() -> None:
    pinned = {}
    for line in CONSTRAINTS:
        found = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.+!]*)", line)
        assert found, line
        pinned[canonical(found[1])] = found[2]
    assert len(pinned) == len(CONSTRAINTS)
    folders = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    there = {canonical(d.metadata["Name"]): d for d in distributions(path=folders)}
    needed = closure(PROJECT, there) - {PROJECT, "pip"}  # pip makes the environment
    assert {"psycopg", "pytest", "setuptools"} <= needed
    versions = {name: there[name].version for name in needed}
    assert {name: pinned.get(name) for name in needed} == versions


def closure(name: str, there: Mapping[str, Distribution]) -> set[str]:
    """What it needs of what is there, extras included."""
    found, todo = set(), [name]
    while todo:
        name = todo.pop()
        if name in there and name not in found:
            found.add(name)
            todo += [canonical(NAME.match(r)[0]) for r in there[name].requires or ()]  # type: ignore[index]
    return found
