"""The shape of the code, held as a test: imports point one way, sizes stay small.

Layers, lowest first: ``schemas``, ``errors`` and other leaves; ``block``, ``record``,
``envelope``, ``api``, ``config``, ``metrics``; the plug-ins (databases, logs, converters,
sinks), which never import each other; the runtime; the command line and the demo.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 500
TOP_LEVEL = {
    "pyproject.toml", "README.md", "cdc", "sinks", "schemas", "tests", "docker", "benchmarks",
    "LICENSE", "CHANGELOG.md", "Makefile", ".ci", ".gitignore",
}  # fmt: skip

# module prefix → (layer, family). A module may import lower layers, and of its own layer
# only its own family.
LAYERS = {
    "schemas": (0, "schemas"),
    "cdc.errors": (0, "leaf"),
    "cdc.secrets": (0, "leaf"),
    "cdc.durable": (0, "leaf"),
    "cdc.parent": (0, "leaf"),
    "cdc.lsn": (0, "leaf"),
    "cdc.failpoints": (0, "leaf"),
    "cdc.jackson": (0, "leaf"),
    "cdc.properties": (0, "leaf"),
    "cdc.audit": (0, "leaf"),
    "cdc.block": (1, "core"),
    "cdc.images": (1, "core"),
    "cdc.authors": (1, "core"),
    "cdc.record": (1, "core"),
    "cdc.keytext": (1, "core"),
    "cdc.envelope": (1, "core"),
    "cdc.event": (1, "core"),
    "cdc.api": (1, "core"),
    "cdc.config": (1, "core"),
    "cdc.metrics": (1, "core"),
    "cdc.sourceconfig": (1, "core"),
    "cdc.aliases": (1, "core"),
    "cdc.connectors": (1, "core"),
    "cdc.configfile": (1, "core"),
    "cdc.providers": (1, "core"),
    "cdc.postgres": (2, "postgres"),
    "cdc.transforms": (2, "transforms"),
    "cdc.log": (2, "log"),
    # Plug-ins that plug-ins use: sinks write lines, and transforms cast, as converters do.
    "cdc.converters": (1, "core"),
    "cdc.javaregex": (1, "core"),
    "sinks": (2, "sinks"),
    "cdc.history": (3, "history"),
    "cdc.runtime": (3, "runtime"),
    "cdc.capture": (4, "capture"),
    "cdc.demo": (5, "demo"),
    "cdc.cli": (5, "cli"),
    "cdc.__main__": (6, "main"),
}


def sources() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "cdc", "sinks", "schemas", "benchmarks", "tests"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / name for name in listed.stdout.split() if name.endswith(".py")]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> tuple[int, str] | None:
    while module:
        if module in LAYERS:
            return LAYERS[module]
        module = module.rpartition(".")[0]
    return None


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


ENGINE = [p for p in sources() if p.relative_to(ROOT).parts[0] in ("cdc", "sinks", "schemas")]


@pytest.mark.parametrize("path", ENGINE, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    own = layer_of(module_name(path))
    if own is None:
        assert module_name(path) == "cdc", f"{path} belongs to no layer"
        return
    for name in imports(path):
        other = layer_of(name)
        if other is None or name == "cdc":
            continue
        lower = other[0] < own[0]
        assert lower or other == own, f"{module_name(path)} imports {name}"


@pytest.mark.parametrize("path", ENGINE, ids=module_name)
def test_no_import_is_relative(path: Path) -> None:
    """The walk above reads absolute names: ``from . import x`` would pass it unseen."""
    found = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
    assert [node.lineno for node in found if node.level] == []


# What only one use of the engine needs: the module that may import it → the extra.
LAZY = {
    ("cdc.history.export", "pyarrow"): "parquet",
    ("sinks.audit_parquet", "pyarrow"): "parquet",
}


def distribution(name: str) -> str:
    """A requirement's or a distribution's name without version and extras, normalized."""
    return re.split(r"[\[<>=!~; ]", name)[0].lower().replace("_", "-")


def test_the_base_dependencies_suffice() -> None:
    """Everything the engine imports is installed without extras, but for what LAZY names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = {distribution(text) for text in project["dependencies"]}
    extras = {
        name: {distribution(text) for text in texts}
        for name, texts in project["optional-dependencies"].items()
    }
    owners = packages_distributions()
    used: set[tuple[str, str]] = set()
    for path in ENGINE:
        for name in imports(path):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top in ("cdc", "sinks", "schemas"):
                continue
            found = {distribution(owner) for owner in owners[top]}
            if not found & base:
                used |= {(module_name(path), owner) for owner in found}
    assert used == LAZY.keys(), "needs an extra, or a line less in LAZY"
    assert all(owner in extras[LAZY[module, owner]] for module, owner in used)
    for module, owner in used:
        tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())
        early = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not any(owner.replace("-", "_") in ast.unparse(node) for node in early)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (
            "platform = 'win32'",
            "cdc runs on Linux and macOS; on Windows use WSL 2 or the container image",
        ),
        ("version_info = (3, 10, 13)", "cdc needs Python 3.11 or newer"),
    ],
)
def test_what_it_does_not_run_on_is_refused_with_the_way_out(where: str, text: str) -> None:
    code = f"import sys; sys.{where}; import cdc"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == f"ImportError: {text}"


def test_the_top_level_is_as_agreed() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = {line.partition("/")[0] for line in listed.stdout.split("\n") if line}
    assert found <= TOP_LEVEL


def test_files_stay_small() -> None:
    sizes = {p.relative_to(ROOT): len(p.read_text().splitlines()) for p in sources()}
    assert {str(p): n for p, n in sizes.items() if n > FILE_LINES_MAX} == {}


def test_functions_stay_short() -> None:
    long = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long[f"{path.relative_to(ROOT)}:{node.name}"] = lines
    assert long == {}


def test_no_function_is_written_twice() -> None:
    """What two modules need lies in one that both may import."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in ENGINE:
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            body = node.body[ast.get_docstring(node) is not None :]
            text = "\n".join(map(ast.unparse, body))
            if not re.fullmatch(r"(return \w+)?", text):  # more than nothing, and an identity
                found.setdefault((node.name, text), []).append(module_name(path))
    assert [(name, where) for (name, _), where in found.items() if len(where) > 1] == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(p.relative_to(ROOT))
        for p in ENGINE
        if p.read_text().strip() and ast.get_docstring(ast.parse(p.read_text())) is None
    ]
    assert silent == []


@pytest.mark.parametrize("module", ["cdc", "cdc.config", "cdc.connectors", "sinks"])
def test_declarations_import_no_client_library(module: str) -> None:
    code = (
        f"import sys, {module}; heavy = {{'psycopg2', 'psycopg', 'sqlalchemy', 'starlette', "
        "'uvicorn', 'rich'} & set(sys.modules); print(','.join(sorted(heavy)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == ""


def test_lint_and_types_are_clean() -> None:
    """CI runs the tests only, so what ``make lint`` holds is held here too."""
    for command in (["ruff", "check", "."], ["mypy"]):
        run = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]
