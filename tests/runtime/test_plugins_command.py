"""``cdc plugins``: every plugin is listed, and its keys are those that a configuration may have."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cdc import aliases
from cdc.cli.plugins import Listed, every
from cdc.config import to_text
from cdc.transforms import PREDICATES, TRANSFORMS


def plugins(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cdc", "plugins", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_every_plugin_is_listed_by_its_names() -> None:
    lines = [json.loads(line) for line in plugins("--json").stdout.splitlines()]
    listed = {name for line in lines for name in line["classes"]}
    assert listed >= {*TRANSFORMS, *PREDICATES}
    assert {line["name"] for line in lines} >= {p.name for p in aliases.CONNECTORS}
    text = plugins().stdout
    assert all(line["name"] in text for line in lines)


@pytest.mark.parametrize("plugin", list(every()), ids=lambda plugin: plugin.name)
def test_the_keys_of_each_are_shown_with_type_default_and_meaning(plugin: Listed) -> None:
    keys = [key for key in plugin.definition().keys.values() if key.name != "config.strict"]
    done = plugins(plugin.classes[-1] if plugin.classes else plugin.name, "--json")
    assert done.returncode == 0, done.stderr
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["name"] for line in shown] == [key.name for key in keys]
    for line, key in zip(shown, keys, strict=True):
        default = None if key.required else to_text(key.default)
        assert (line["type"], line["required"], line["default_value"]) == (
            key.kind.value, key.required, default,
        )  # fmt: skip
        assert (line["documentation"], line["group"], line["order"]) == (
            key.doc, key.group, key.order,
        )  # fmt: skip


@pytest.mark.parametrize("plugin", list(every()), ids=lambda plugin: plugin.name)
def test_each_key_says_what_a_user_interface_shows_of_it(plugin: Listed) -> None:
    keys = [key for key in plugin.definition().keys.values() if key.name != "config.strict"]
    for key in keys:
        assert key.doc.strip(), key.name
        assert key.importance in ("HIGH", "MEDIUM", "LOW"), key.name
        assert key.display_name, key.name
        assert (key.group is None) == (key.order == -1), key.name
        assert key.group or plugin.type not in ("source", "sink"), key.name
        for offered in () if key.pattern else key.recommender() if key.recommender else key.choices:
            key.parse(offered)
    like_tasks_max = ("topics", "topics.regex")  # Connect gives these three the same place
    own = [key for key in keys if key.group and key.name not in like_tasks_max]
    assert len({(key.group, key.order) for key in own}) == len(own)


def test_a_transforms_keys_for_people() -> None:
    shown = plugins("MaskField").stdout
    assert "org.apache.kafka.connect.transforms.MaskField$Value" in shown
    assert "fields  (LIST, required)\n    Names of fields to mask." in shown


def test_a_name_that_nothing_has_is_named_with_the_nearest() -> None:
    done = plugins("maskfeld")
    assert (done.returncode, "Did you mean MaskField?" in done.stderr) == (2, True)
