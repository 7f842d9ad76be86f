"""The container image's own files: what they start is understood, and seen to live or not."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import yaml

from cdc.__main__ import build_parser
from cdc.capture import capture
from cdc.cli.run import listen_address
from cdc.runtime.config import WORKER_CONFIG
from tests.fix_postgres import Database
from tests.runtime.workers import ROOT, Worker, environment

DOCKER = ROOT / "docker"
# One instruction a line, the last stage alone: that is the image.
INSTRUCTIONS = [
    tuple(line.split(maxsplit=1))
    for line in re.sub(r"\\\n", " ", (DOCKER / "Dockerfile").read_text())
    .rpartition("\nFROM ")[2]
    .splitlines()[1:]
    if line and not line.startswith("#")
]
IMAGE = dict(INSTRUCTIONS)
SERVICE = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["cdc"]


@pytest.mark.parametrize("words", [json.loads(IMAGE["CMD"]), SERVICE["command"]])
def test_what_a_container_starts_is_understood_and_listens_on_the_port_it_shows(
    words: list[str],
) -> None:
    assert json.loads(IMAGE["ENTRYPOINT"]) == ["cdc"]
    args = build_parser(words[0]).parse_args(words)
    assert args.command == "run"
    assert listen_address(args.listen, WORKER_CONFIG.parse({})) == ("0.0.0.0", int(IMAGE["EXPOSE"]))
    mounted = [volume.split(":")[:2] for volume in SERVICE["volumes"]]
    inside = {path: DOCKER / name for name, path in mounted if name.startswith("./")}
    assert all(inside[str(file)].is_file() for file in args.files)


def test_the_image_runs_as_a_user_of_its_own() -> None:
    (uid, name) = re.findall(r"useradd .*--uid (\d+) .*\b(\w+)$", IMAGE["RUN"])[0]
    assert IMAGE["USER"] == name != "root"
    assert int(uid) > 0


def test_the_health_check_tells_a_living_worker_from_a_dead_one(worker: Worker) -> None:
    _, _, words = IMAGE["HEALTHCHECK"].partition("CMD ")
    program, *arguments = json.loads(words)
    assert program == "python"
    here = f"http://127.0.0.1:{IMAGE['EXPOSE']}"
    assert here in arguments[-1]
    arguments[-1] = arguments[-1].replace(here, worker.url)

    def check() -> int:
        # Docker hands its client's proxies to every container; nothing listens at this one.
        proxies = environment(http_proxy="http://127.0.0.1:9", no_proxy="")
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=proxies, capture_output=True, check=False).returncode

    assert check() == 0
    assert worker.end() == 0
    assert check() == 1


def test_the_source_of_the_compose_file_starts_on_the_empty_database_beside_it(
    database: Database,
) -> None:
    """And tables that are made then have their events."""
    written = json.loads((DOCKER / "shop.json").read_text())["config"]
    ours = ("name", "connector.class", "database.", "slot.name", "publication.name")
    options = {key: text for key, text in written.items() if not key.startswith(ours)}
    with capture(database.dsn, options) as events:
        database.execute("CREATE TABLE items (id int PRIMARY KEY)")
        database.execute("INSERT INTO items VALUES (1)")
        assert next(iter(events)).topic == "shop.public.items"
